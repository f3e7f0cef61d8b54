//! The retransmission timeout (RFC 6298).

use core::time::Duration;

use crate::time::micros;

/// Clock granularity G of RFC 6298, in microseconds: the timer wheel's tick.
const GRANULARITY: u32 = 1000;

/// RTO before the first measurement (rule 2.1), in microseconds.
const INITIAL: u32 = 1_000_000;

/// The largest timeout before the first measurement, whatever is remembered (rule 5.7 has it for a lost SYN), in
/// microseconds.
const MAX_RECALLED: u32 = 3_000_000;

/// The least and the largest timeout, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    min: u32,
    max: u64,
}

impl Bounds {
    /// From `min`, of which at most 71 minutes count, to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min: u32::try_from(micros(min)).unwrap_or(u32::MAX),
            max: micros(max),
        }
    }
}

/// Estimator and back-off of one connection. Microseconds throughout; 32 bits hold more than an hour. 10 bytes, since
/// every connection has one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, packed(2))]
pub struct Rto {
    srtt: u32,
    rttvar: u32,
    /// Times the RTO has been doubled since the last measurement.
    backoff: u8,
    /// Something was measured.
    measured: bool,
}

impl Rto {
    /// Takes a measurement of a segment that was sent once (Karn's algorithm is the caller's duty) and ends the
    /// back-off.
    pub fn sample(&mut self, rtt: Duration) {
        self.sample_micros(micros(rtt));
    }

    /// [`Rto::sample`] for a measurement in microseconds.
    #[inline]
    pub fn sample_micros(&mut self, rtt: u64) {
        let rtt = rtt.clamp(1, u64::from(u32::MAX / 8)) as u32;
        if !self.measured {
            self.measured = true;
            self.srtt = rtt;
            self.rttvar = rtt / 2;
        } else {
            // Rule 2.3, beta = 1/4 and alpha = 1/8. The variance uses the smoothed time from before.
            self.rttvar = (self.rttvar - self.rttvar / 4) + self.srtt.abs_diff(rtt) / 4;
            self.srtt = (self.srtt - self.srtt / 8) + rtt / 8;
            self.srtt = self.srtt.max(1);
        }
        self.backoff = 0;
    }

    /// Rule 2.3's timeout, at least that of `bounds`.
    #[inline]
    fn computed(&self, bounds: Bounds) -> u32 {
        (self.srtt + GRANULARITY).max(self.longest_micros()).max(bounds.min)
    }

    /// [`Rto::longest`] in microseconds; 0 before the first measurement.
    #[inline]
    fn longest_micros(&self) -> u32 {
        self.srtt + 4 * self.rttvar
    }

    /// SRTT + 4 RTTVAR, the longest that most round trips take; `None` before the first measurement, unless one is
    /// remembered.
    pub fn longest(&self) -> Option<Duration> {
        (self.srtt > 0).then(|| Duration::from_micros(u64::from(self.longest_micros())))
    }

    /// The timeout before the first measurement: rule 2.1's, or by what is remembered.
    fn unmeasured(&self, bounds: Bounds) -> u32 {
        if self.srtt == 0 {
            INITIAL
        } else {
            self.computed(bounds).min(MAX_RECALLED.max(bounds.min))
        }
    }

    /// An earlier connection over the same path has measured this, in microseconds: it counts until this one measures
    /// something, as if it were a first measurement at least (rule 2.2).
    pub(crate) fn recall(&mut self, srtt: u32, rttvar: u32) {
        if self.measured || srtt == 0 {
            return;
        }
        self.srtt = srtt.min(u32::MAX / 8);
        self.rttvar = rttvar.max(srtt / 2).min(u32::MAX / 8);
    }

    /// SRTT and its variance in microseconds, if this connection has measured them.
    pub(crate) fn measured(&self) -> Option<(u32, u32)> {
        self.measured.then_some((self.srtt, self.rttvar))
    }

    /// The current timeout: rule 5.5's doubling applied, within `bounds`.
    pub fn timeout(&self, bounds: Bounds) -> Duration {
        Duration::from_micros(self.timeout_micros(bounds))
    }

    /// [`Rto::timeout`] in microseconds.
    #[inline]
    pub fn timeout_micros(&self, bounds: Bounds) -> u64 {
        let base = if self.measured {
            self.computed(bounds)
        } else {
            self.unmeasured(bounds)
        };
        let doubled = u64::from(base) << self.backoff.min(20);
        doubled.min(bounds.max)
    }

    /// The timer ran out: doubles the timeout (rule 5.5).
    pub fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// New data was acknowledged although no measurement could be made (RFC 6298, section 5, last paragraph, lets the
    /// back-off last until one can; the peer is answering, so it ends here).
    pub fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// The number of times the timer has run out in a row.
    pub fn backoffs(&self) -> u8 {
        self.backoff
    }

    /// Smoothed round-trip time; `None` before the first measurement, unless one is remembered.
    pub fn srtt(&self) -> Option<Duration> {
        self.srtt_micros().map(|srtt| Duration::from_micros(u64::from(srtt)))
    }

    /// The variance of the round-trip time; `None` before the first measurement.
    pub fn rttvar(&self) -> Option<Duration> {
        (self.srtt > 0).then(|| Duration::from_micros(u64::from(self.rttvar)))
    }

    /// [`Rto::srtt`] in microseconds.
    #[inline]
    pub fn srtt_micros(&self) -> Option<u32> {
        (self.srtt > 0).then_some(self.srtt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(60);

    fn bounds() -> Bounds {
        Bounds::new(MIN, MAX)
    }

    #[test]
    fn an_estimator_is_small() {
        assert_eq!(size_of::<Rto>(), 10);
    }

    #[test]
    fn starts_at_one_second_and_doubles_up_to_the_maximum() {
        let mut rto = Rto::default();
        assert_eq!(rto.timeout(bounds()), Duration::from_secs(1));
        rto.back_off();
        assert_eq!(rto.timeout(bounds()), Duration::from_secs(2));
        for _ in 0..100 {
            rto.back_off();
        }
        assert_eq!(rto.timeout(bounds()), MAX);
    }

    #[test]
    fn the_first_measurement_sets_srtt_and_half_of_it_as_variance() {
        let mut rto = Rto::default();
        rto.back_off();
        rto.sample(Duration::from_millis(500));
        assert_eq!(rto.srtt(), Some(Duration::from_millis(500)));
        assert_eq!(rto.rttvar(), Some(Duration::from_millis(250)));
        assert_eq!(rto.longest(), Some(Duration::from_millis(1500)));
        assert_eq!(rto.timeout(bounds()), Duration::from_millis(1500));
    }

    #[test]
    fn what_is_remembered_counts_until_something_is_measured() {
        let mut rto = Rto::default();
        rto.recall(0, 0);
        assert_eq!((rto.srtt(), rto.timeout(bounds())), (None, Duration::from_secs(1)));
        // A variance that was smoothed for long is not trusted.
        rto.recall(100_000, 1_000);
        assert_eq!(rto.srtt(), Some(Duration::from_millis(100)));
        assert_eq!(rto.timeout(bounds()), Duration::from_millis(300));
        assert_eq!(rto.measured(), None);
        rto.sample(Duration::from_millis(500));
        assert_eq!(rto.measured(), Some((500_000, 250_000)));
        assert_eq!(rto.timeout(bounds()), Duration::from_millis(1500));
        rto.recall(100_000, 1_000);
        assert_eq!(rto.timeout(bounds()), Duration::from_millis(1500));
    }

    #[test]
    fn what_is_remembered_makes_no_timeout_too_short_or_too_long() {
        for (srtt, rttvar, timeout) in [
            (1, 0, MIN),
            (1_200_000, 0, Duration::from_secs(3)),
            (u32::MAX, u32::MAX, Duration::from_secs(3)),
        ] {
            let mut rto = Rto::default();
            rto.recall(srtt, rttvar);
            assert_eq!(rto.timeout(bounds()), timeout);
        }
    }

    #[test]
    fn a_steady_round_trip_brings_the_timeout_to_the_minimum() {
        let mut rto = Rto::default();
        for _ in 0..100 {
            rto.sample(Duration::from_micros(50));
        }
        assert_eq!(rto.timeout(bounds()), MIN);
        rto.sample(Duration::from_secs(2));
        assert!(rto.timeout(bounds()) > Duration::from_secs(2));
    }
}
