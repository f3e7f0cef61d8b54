//! Limits for answers that belong to no connection.
//!
//! Such a limit is shared by everybody, so each can see how much of it the others have used up, and a fixed one would
//! tell an attacker who counts his own answers whether a segment he has forged in another's name was answered, that is,
//! whether there is a connection (CVE-2016-5696). So how many answers there are in a second is drawn anew for each, as
//! Linux draws its limit of challenge ACKs, and when a second begins is nobody's business either.

use tidegate_abi::siphash::{Key, siphash24};

use crate::time::Instant;

/// The limit it is: each draws numbers of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limited {
    /// RST to what belongs to no connection.
    Reset = 0,
    /// Acknowledgments of half-open connections and of those in TIME-WAIT.
    Challenge = 1,
}

/// Allows `rate` events per second on average: in each of a row of seconds a random number of them, from half of the
/// rate to one and a half. At most three times the rate is allowed in any second, which has parts of two of those.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimit {
    rate: u32,
    limited: Limited,
    secret: Key,
    /// The displacement of the seconds, in microseconds.
    phase: u64,
    /// The present second.
    second: u64,
    /// Events still allowed in it.
    left: u64,
}

const SECOND: u64 = 1_000_000;

impl RateLimit {
    pub(crate) fn new(rate: u32, limited: Limited, secret: Key) -> Self {
        let mut limit = Self {
            rate,
            limited,
            secret,
            phase: 0,
            second: u64::MAX,
            left: 0,
        };
        limit.phase = limit.drawn(u64::MAX, SECOND);
        limit
    }

    /// Whether one more event is allowed at `now`; if so it is counted.
    #[inline]
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        let second = (now.as_micros() + self.phase) / SECOND;
        if second != self.second {
            self.second = second;
            self.left = u64::from(self.rate.div_ceil(2)) + self.drawn(second, u64::from(self.rate));
        }
        let allowed = self.left > 0;
        self.left -= u64::from(allowed);
        allowed
    }

    /// A number below `bound`, or zero if there is none; of each second another one.
    fn drawn(&self, second: u64, bound: u64) -> u64 {
        // No flow's numbers are the hash of as many words (`FlowKey::secret_hash`).
        let hash = siphash24(self.secret, &[self.limited as u64, second, 0]);
        ((u128::from(hash) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    /// The number of 10 events a millisecond that are allowed in each of `seconds`, as seen by one who knows nothing of
    /// the phase.
    fn allowed(limit: &mut RateLimit, start: Instant, seconds: u32) -> Vec<u32> {
        let mut now = start;
        (0..seconds)
            .map(|_| {
                let mut count = 0;
                for _ in 0..1000 {
                    now = now + Duration::from_millis(1);
                    count += (0..10).filter(|_| limit.allow(now)).count() as u32;
                }
                count
            })
            .collect()
    }

    fn limit(rate: u32, secret: u64) -> RateLimit {
        RateLimit::new(rate, Limited::Reset, Key(secret, 5))
    }

    #[test]
    fn the_average_is_the_rate_and_no_second_has_too_many() {
        for secret in 0..20 {
            let counts = allowed(&mut limit(100, secret), Instant::from_millis(5000), 400);
            let sum: u32 = counts.iter().sum();
            // The deviation of the sum of 400 is 29 * 20.
            assert!((37_000..43_000).contains(&sum), "{sum} in 400 s");
            assert!(counts.iter().all(|&count| count < 300), "{counts:?}");
        }
    }

    #[test]
    fn a_row_of_seconds_has_at_most_half_as_many_again_in_each() {
        for rate in [1, 2, 3, 10, 1000] {
            let mut limit = limit(rate, 9);
            for second in 0..200 {
                let now = Instant::from_micros(second * SECOND);
                let count = (0..2 * rate).filter(|_| limit.allow(now)).count() as u32;
                assert!(
                    count >= rate.div_ceil(2) && count < rate + rate.div_ceil(2).max(1),
                    "{count} of {rate}"
                );
            }
        }
    }

    #[test]
    fn the_numbers_cannot_be_foretold() {
        let start = Instant::from_millis(5000);
        let counts = allowed(&mut limit(1000, 1), start, 200);
        // They differ from second to second, by much, and neither the one before nor another limit or secret tells
        // them.
        let different: std::collections::BTreeSet<_> = counts.iter().collect();
        assert!(different.len() > 100, "{different:?}");
        let mean = 1000.0;
        let variance = |a: &[u32], b: &[u32]| {
            let products = a
                .iter()
                .zip(b)
                .map(|(&a, &b)| (f64::from(a) - mean) * (f64::from(b) - mean));
            products.sum::<f64>() / a.len().min(b.len()) as f64
        };
        assert!(variance(&counts, &counts) > 10_000.0);
        let others = [
            allowed(&mut limit(1000, 2), start, 200),
            allowed(&mut RateLimit::new(1000, Limited::Challenge, Key(1, 5)), start, 200),
        ];
        for other in others {
            let covariance = variance(&counts, &other).abs();
            assert!(covariance < variance(&counts, &counts) / 2.0, "{covariance}");
        }
        // A second that is looked at again later is the same: nothing is won by asking often.
        assert_eq!(counts, allowed(&mut limit(1000, 1), start, 200));
    }

    #[test]
    fn nothing_is_allowed_at_the_rate_of_zero_and_everything_at_the_largest() {
        let now = Instant::from_millis(5000);
        assert_eq!((0..9).filter(|_| limit(0, 1).allow(now)).count(), 0);
        let mut largest = limit(u32::MAX, 1);
        assert_eq!((0..100_000).filter(|_| largest.allow(now)).count(), 100_000);
    }
}
