//! The pacing rate of slow start, for algorithms that have no rate of their own.

use super::{Acked, initial_window, micros};

/// The round-trip time, in microseconds, of the shortest path that is paced. The sender lets go a millisecond's worth
/// at a time. At twice the window per round trip that is the whole window on a path of two milliseconds: pacing would
/// not spread it, and would only make it wait.
const MIN_PACED_RTT: u32 = 2_000;

/// The initial windows from which on slow start is paced: one round with a controller has doubled the first.
const MIN_PACED_WINDOWS: u32 = 2;

const KIB: u64 = 1024;

/// The rate at which slow start sends: two windows per round trip, as fast as the window grows.
///
/// Text that leaves at once arrives at once, and a queue much shorter than the path is long loses it well before the
/// window fills the path. Congestion avoidance is not paced: there, acknowledgments are as far apart as the path has
/// them, and the window hardly grows from one to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStartRate {
    /// In KiB per second, to take little memory; zero if sending is not paced.
    rate: u32,
    /// The shortest round-trip time seen, in microseconds. The delayed acknowledgments of a peer nearby make the
    /// smoothed one that of a long path.
    min_rtt: u32,
}

impl SlowStartRate {
    pub(super) const fn new() -> Self {
        Self {
            rate: 0,
            min_rtt: u32::MAX,
        }
    }

    /// Takes an acknowledgment into account, after which the window is `cwnd`.
    #[inline]
    pub(super) fn on_ack(&mut self, acked: &Acked, cwnd: u32, ssthresh: u32, mss: u32) {
        self.rate = 0;
        if cwnd >= ssthresh {
            return;
        }
        // The smoothed time may have delayed acknowledgments in it, and the last one may be a delayed one's.
        let Some(rtt) = acked.rtt.into_iter().chain(acked.srtt).min().map(micros) else {
            return;
        };
        self.min_rtt = self.min_rtt.min(rtt);
        if self.min_rtt >= MIN_PACED_RTT && cwnd >= initial_window(mss).saturating_mul(MIN_PACED_WINDOWS) {
            let bytes = 2_000_000 * u64::from(cwnd) / u64::from(rtt);
            self.rate = (bytes / KIB).min(u64::from(u32::MAX)) as u32;
        }
    }

    /// Slow start is interrupted: nothing is paced until the next acknowledgment.
    pub(super) fn stop(&mut self) {
        self.rate = 0;
    }

    /// In bytes per second, above zero; `None` if sending is not paced.
    pub(super) fn rate(&self) -> Option<u64> {
        (self.rate > 0).then_some(u64::from(self.rate) * KIB)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::congestion::INITIAL_SSTHRESH;
    use crate::seq::SeqNumber;
    use crate::time::Instant;

    const MSS: u32 = 1000;
    const WINDOW: u32 = 40 * MSS;

    fn acked(rtt: Option<u64>, srtt: Option<u64>) -> Acked {
        Acked {
            now: Instant::ZERO,
            bytes: MSS,
            flight: WINDOW,
            limited: true,
            rtt: rtt.map(Duration::from_micros),
            reordering: false,
            srtt: srtt.map(Duration::from_micros),
            snd_una: SeqNumber(0),
            snd_nxt: SeqNumber(WINDOW),
            delivery: None,
        }
    }

    /// The rate after these round-trip times and smoothed ones, each in microseconds.
    fn rate_after(rtts: &[(Option<u64>, Option<u64>)]) -> Option<u64> {
        let mut pacing = SlowStartRate::new();
        for &(rtt, srtt) in rtts {
            pacing.on_ack(&acked(rtt, srtt), WINDOW, INITIAL_SSTHRESH, MSS);
        }
        pacing.rate()
    }

    /// Whole KiB of these bytes.
    fn kib(bytes: u64) -> Option<u64> {
        Some(bytes - bytes % 1024)
    }

    #[test]
    fn two_windows_leave_in_the_shorter_of_both_round_trip_times() {
        let two_in = |millis| kib(2 * u64::from(WINDOW) * 1000 / millis);
        assert_eq!(rate_after(&[(Some(50_000), Some(50_000))]), two_in(50));
        assert_eq!(rate_after(&[(Some(90_000), Some(50_000))]), two_in(50));
        assert_eq!(rate_after(&[(Some(10_000), Some(50_000))]), two_in(10));
        assert_eq!(rate_after(&[(None, Some(50_000))]), two_in(50));
        assert_eq!(rate_after(&[(Some(40_000), None), (Some(80_000), None)]), two_in(80));
    }

    #[test]
    fn without_a_measurement_there_is_no_rate() {
        assert_eq!(rate_after(&[(None, None)]), None);
    }

    #[test]
    fn a_path_on_which_the_window_is_a_milliseconds_worth_is_not_paced() {
        assert_eq!(rate_after(&[(Some(2_000), Some(2_000))]), kib(u64::from(WINDOW) * 1000));
        for rtt in [0, 1, 100, 1_999] {
            assert_eq!(rate_after(&[(Some(rtt), Some(rtt))]), None, "{rtt} microseconds");
        }
        let delayed = (Some(40_000), Some(8_000));
        assert!(rate_after(&[delayed]).is_some());
        assert_eq!(rate_after(&[(Some(100), Some(100)), delayed]), None);
    }

    #[test]
    fn the_first_controlled_round_and_congestion_avoidance_are_not_paced() {
        let mut pacing = SlowStartRate::new();
        let mut rate = |cwnd, ssthresh| {
            pacing.on_ack(&acked(Some(50_000), Some(50_000)), cwnd, ssthresh, MSS);
            pacing.rate()
        };
        assert_eq!(rate(20 * MSS - 1, INITIAL_SSTHRESH), None);
        assert_eq!(rate(20 * MSS, INITIAL_SSTHRESH), kib(800_000));
        assert_eq!(rate(29 * MSS, 30 * MSS), kib(1_160_000));
        assert_eq!(rate(30 * MSS, 30 * MSS), None);
        assert_eq!(rate(31 * MSS, 30 * MSS), None);
    }

    #[test]
    fn the_longest_round_trip_and_the_largest_window_are_in_range() {
        let mut pacing = SlowStartRate::new();
        pacing.on_ack(&acked(Some(u64::MAX), None), 20 * 48, INITIAL_SSTHRESH, 48);
        assert_eq!(pacing.rate(), None, "next to nothing per second");
        pacing.on_ack(
            &acked(Some(2_000), None),
            super::super::MAX_WINDOW,
            INITIAL_SSTHRESH,
            MSS,
        );
        assert_eq!(pacing.rate(), kib(1000 << 30));
    }
}
