//! Frames on their way, by the time they arrive.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::frame::Frame;

/// Frames that are due later, the earliest first, and those due at the same time in the order they came.
#[derive(Default)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Scheduled>,
    next_number: u64,
}

struct Scheduled {
    /// In nanoseconds.
    due: u64,
    number: u64,
    frame: Frame,
}

impl Schedule {
    /// Adds a frame that is due at `due` nanoseconds.
    pub(crate) fn add(&mut self, due: u64, frame: Frame) {
        let number = self.next_number;
        self.next_number += 1;
        self.heap.push(Scheduled { due, number, frame });
    }

    /// The time at which the earliest frame is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.heap.peek().map(|scheduled| scheduled.due)
    }

    /// Takes the earliest frame if it is due at `now`.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<Frame> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|scheduled| scheduled.frame)
    }

    /// Returns the number of frames.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

impl Scheduled {
    fn key(&self) -> (u64, u64) {
        (self.due, self.number)
    }
}

// `BinaryHeap` gives the greatest first, so the earliest is the greatest.
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Scheduled {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Pool, Received};

    fn frame(pool: &mut Pool, content: u8) -> Frame {
        let mut frame = pool.take();
        frame.room()[0] = content;
        frame.set_received(Received {
            length: 1,
            ..Received::default()
        });
        frame
    }

    #[test]
    fn frames_come_by_time_and_then_in_their_order() {
        let mut pool = Pool::new(64);
        let mut schedule = Schedule::default();
        for (content, due) in [(1, 30), (2, 10), (3, 30), (4, 20), (5, 10)] {
            schedule.add(due, frame(&mut pool, content));
        }
        assert_eq!(schedule.len(), 5);
        assert_eq!(schedule.next_due(), Some(10));
        assert!(schedule.pop_due(9).is_none());
        let mut order = Vec::new();
        for now in [10, 29, 30] {
            while let Some(frame) = schedule.pop_due(now) {
                order.push((now, frame.bytes()[0]));
            }
        }
        assert_eq!(order, [(10, 2), (10, 5), (29, 4), (30, 1), (30, 3)]);
        assert_eq!(schedule.next_due(), None);
    }
}
