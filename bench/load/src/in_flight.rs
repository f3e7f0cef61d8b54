//! The requests under way on a connection.

use std::collections::VecDeque;

use tidegate_tcp::time::Instant;

/// The beginnings of the requests under way. They are answered in the order they were made. One under way, as there is
/// on most connections, takes no memory of its own.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    oldest: Option<Instant>,
    others: VecDeque<Instant>,
}

impl InFlight {
    /// One more began at `at`.
    pub(crate) fn push(&mut self, at: Instant) {
        match self.oldest {
            None => self.oldest = Some(at),
            Some(_) => self.others.push_back(at),
        }
    }

    /// The oldest was answered. Returns when it began.
    pub(crate) fn pop(&mut self) -> Option<Instant> {
        let oldest = self.oldest?;
        self.oldest = self.others.pop_front();
        Some(oldest)
    }

    /// The beginning of the oldest.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.oldest
    }

    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.oldest.is_none()
    }

    /// Forgets them. Returns how many there were.
    pub(crate) fn clear(&mut self) -> u64 {
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
        let mut in_flight = InFlight::default();
        assert_eq!(
            (in_flight.pop(), in_flight.oldest(), in_flight.is_empty()),
            (None, None, true)
        );
        for millis in [1, 2, 2, 5] {
            in_flight.push(at(millis));
        }
        assert_eq!((in_flight.oldest(), in_flight.is_empty()), (Some(at(1)), false));
        assert_eq!((in_flight.pop(), in_flight.pop()), (Some(at(1)), Some(at(2))));
        in_flight.push(at(7));
        assert_eq!(
            (in_flight.pop(), in_flight.pop(), in_flight.pop()),
            (Some(at(2)), Some(at(5)), Some(at(7)))
        );
        assert_eq!((in_flight.pop(), in_flight.is_empty()), (None, true));
    }

    #[test]
    fn what_is_forgotten_is_counted() {
        let mut in_flight = InFlight::default();
        assert_eq!(in_flight.clear(), 0);
        for _ in 0..3 {
            in_flight.push(Instant::ZERO);
        }
        assert_eq!(
            (in_flight.clear(), in_flight.is_empty(), in_flight.pop()),
            (3, true, None)
        );
    }
}
