//! When failed connections are tried again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Pause before a connection that failed is made anew: a server that refuses is not stormed, and the kernel is not kept
/// busy with the search for a free port.
const PAUSE: Duration = Duration::from_millis(10);

/// The slots that wait for a connection, the earliest first: all wait equally long.
#[derive(Debug)]
pub(super) struct Retries(VecDeque<(Instant, usize)>);

impl Retries {
    /// The slots below `count` are due at `now`: none of them has a connection yet.
    pub(super) fn all(count: u32, now: Instant) -> Self {
        Self((0..count as usize).map(|slot| (now, slot)).collect())
    }

    /// `slot` failed at `now`.
    pub(super) fn failed(&mut self, slot: usize, now: Instant) {
        self.0.push_back((now + PAUSE, slot));
    }

    /// The next slot that is due at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<usize> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_front().map(|(_, slot)| slot)
    }

    /// When the next slot is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.front().map(|&(due, _)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_due_after_the_pause_and_in_order() {
        let start = Instant::now();
        let mut retries = Retries::all(2, start);
        assert_eq!(retries.take_due(start), Some(0));
        retries.failed(0, start);
        assert_eq!(retries.take_due(start), Some(1));
        assert_eq!(retries.take_due(start), None);
        assert_eq!(retries.next(), Some(start + PAUSE));
        assert_eq!(retries.take_due(start + PAUSE), Some(0));
        assert_eq!(retries.next(), None);
    }
}
