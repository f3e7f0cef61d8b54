//! When the requests under way on a connection began.

use std::collections::VecDeque;

use tidegate_tcp::time::Instant;

/// Requests are answered in the order they were made. One under way, as there is on most connections, takes no memory
/// of its own.
#[derive(Debug, Default)]
pub(super) struct Begun {
    oldest: Option<Instant>,
    others: VecDeque<Instant>,
}

impl Begun {
    /// One more began at `at`.
    pub(super) fn push(&mut self, at: Instant) {
        match self.oldest {
            None => self.oldest = Some(at),
            Some(_) => self.others.push_back(at),
        }
    }

    /// The oldest was answered: when did it begin?
    pub(super) fn pop(&mut self) -> Option<Instant> {
        let oldest = self.oldest?;
        self.oldest = self.others.pop_front();
        Some(oldest)
    }

    /// When the oldest began.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.oldest
    }

    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.oldest.is_none()
    }

    /// Forgets them. Returns how many there were.
    pub(super) fn clear(&mut self) -> u64 {
        let count = u64::from(self.oldest.take().is_some()) + self.others.len() as u64;
        self.others.clear();
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_answered_first() {
        let at = Instant::from_millis;
        let mut begun = Begun::default();
        assert_eq!((begun.pop(), begun.oldest(), begun.is_empty()), (None, None, true));
        for millis in [1, 2, 2, 5] {
            begun.push(at(millis));
        }
        assert_eq!((begun.oldest(), begun.is_empty()), (Some(at(1)), false));
        assert_eq!((begun.pop(), begun.pop()), (Some(at(1)), Some(at(2))));
        begun.push(at(7));
        assert_eq!(
            (begun.pop(), begun.pop(), begun.pop()),
            (Some(at(2)), Some(at(5)), Some(at(7)))
        );
        assert_eq!((begun.pop(), begun.is_empty()), (None, true));
    }

    #[test]
    fn what_is_forgotten_is_counted() {
        let mut begun = Begun::default();
        assert_eq!(begun.clear(), 0);
        for _ in 0..3 {
            begun.push(Instant::ZERO);
        }
        assert_eq!((begun.clear(), begun.is_empty(), begun.pop()), (3, true, None));
    }
}
