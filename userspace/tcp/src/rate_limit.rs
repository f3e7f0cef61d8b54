//! A token bucket.

use crate::time::Instant;

/// Allows `rate` events per second, and as many at once after a quiet second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimit {
    rate: u32,
    /// Events still allowed, in millionths.
    credit: u64,
    refilled: Instant,
}

const EVENT: u64 = 1_000_000;

impl RateLimit {
    pub(crate) fn new(rate: u32) -> Self {
        Self {
            rate,
            credit: u64::from(rate) * EVENT,
            refilled: Instant::ZERO,
        }
    }

    /// Whether one more event is allowed at `now`; if so it is counted.
    #[inline]
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        let micros = now.since(self.refilled).as_micros().min(u128::from(EVENT)) as u64;
        self.refilled = now;
        let full = u64::from(self.rate) * EVENT;
        self.credit = (self.credit + micros * u64::from(self.rate)).min(full);
        if self.credit < EVENT {
            return false;
        }
        self.credit -= EVENT;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_a_burst_and_then_the_rate() {
        let mut limit = RateLimit::new(10);
        let mut now = Instant::from_millis(5000);
        assert_eq!((0..100).filter(|_| limit.allow(now)).count(), 10);
        let mut allowed = 0;
        for _ in 0..1000 {
            now = now + core::time::Duration::from_millis(1);
            allowed += usize::from(limit.allow(now));
        }
        assert_eq!(allowed, 10);
        assert_eq!((0..9).filter(|_| RateLimit::new(0).allow(now)).count(), 0);
    }
}
