//! When the requests under way on each connection began.

use std::time::Instant;

/// For each connection a ring of the beginnings of its requests, which are answered in the order they were made.
#[derive(Debug)]
pub(super) struct StartTimes {
    depth: usize,
    /// `depth` for each connection.
    times: Vec<Instant>,
    rings: Vec<Ring>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ring {
    oldest: u8,
    count: u8,
}

impl StartTimes {
    /// Room for `depth` requests, 1 to 64, on each of `connections`.
    pub(super) fn new(connections: u32, depth: u32, now: Instant) -> Self {
        let (connections, depth) = (connections as usize, depth as usize);
        Self {
            depth,
            times: vec![now; connections * depth],
            rings: vec![Ring::default(); connections],
        }
    }

    /// `count` requests of `connection` began at `now`; never more than there is room for.
    pub(super) fn push(&mut self, connection: usize, count: u32, now: Instant) {
        let ring = &mut self.rings[connection];
        let base = connection * self.depth;
        for _ in 0..count {
            let place = (usize::from(ring.oldest) + usize::from(ring.count)) % self.depth;
            self.times[base + place] = now;
            ring.count += 1;
        }
    }

    /// When the oldest request of `connection` began; `None` if there is none.
    pub(super) fn oldest(&self, connection: usize) -> Option<Instant> {
        let ring = self.rings[connection];
        (ring.count > 0).then(|| self.times[connection * self.depth + usize::from(ring.oldest)])
    }

    /// The oldest request of `connection` was answered: when did it begin? `None` if there is none.
    pub(super) fn pop(&mut self, connection: usize) -> Option<Instant> {
        let time = self.oldest(connection)?;
        let ring = &mut self.rings[connection];
        ring.oldest += 1;
        if usize::from(ring.oldest) == self.depth {
            ring.oldest = 0;
        }
        ring.count -= 1;
        Some(time)
    }

    /// The requests of `connection` are lost with it.
    pub(super) fn clear(&mut self, connection: usize) {
        self.rings[connection] = Ring::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_are_answered_in_order() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut times = StartTimes::new(2, 3, start);
        times.push(0, 2, at(1));
        times.push(1, 1, at(2));
        times.push(0, 1, at(3));
        assert_eq!((times.oldest(0), times.oldest(1)), (Some(at(1)), Some(at(2))));
        assert_eq!((times.pop(0), times.pop(0)), (Some(at(1)), Some(at(1))));
        times.push(0, 2, at(4));
        assert_eq!(
            (times.pop(0), times.pop(0), times.pop(0), times.pop(0)),
            (Some(at(3)), Some(at(4)), Some(at(4)), None)
        );
        assert_eq!((times.pop(1), times.pop(1)), (Some(at(2)), None));
    }

    #[test]
    fn a_lost_connection_has_none() {
        let now = Instant::now();
        let mut times = StartTimes::new(1, 64, now);
        times.push(0, 64, now);
        times.clear(0);
        assert_eq!((times.oldest(0), times.pop(0)), (None, None));
    }
}
