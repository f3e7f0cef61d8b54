//! HyStart++: leaving the first slow start when the round-trip time grows, before there is loss (RFC 9406).

use core::time::Duration;

use super::{Acked, Round, micros};

/// Growth of the round-trip time that ends slow start, at least and at most, in microseconds.
const MIN_RTT_THRESH: u32 = 4_000;
const MAX_RTT_THRESH: u32 = 16_000;
/// The growth that ends slow start is this part of the last round's time.
const MIN_RTT_DIVISOR: u32 = 8;
/// Measurements that make the minimum of a round meaningful.
const N_RTT_SAMPLE: u8 = 8;
/// Conservative slow start (CSS) grows this many times slower than slow start.
const CSS_GROWTH_DIVISOR: u32 = 4;
/// Rounds of conservative slow start before congestion avoidance.
const CSS_ROUNDS: u8 = 5;
/// Segments one acknowledgment may add at most: without pacing, more would leave in one burst.
const L: u32 = 8;

/// No measurement.
const INFINITE: u32 = u32::MAX;

/// State of the first slow start of one connection. Times are microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    round: Round,
    last_round_min_rtt: u32,
    current_round_min_rtt: u32,
    /// Not infinite during conservative slow start.
    css_baseline_min_rtt: u32,
    rtt_sample_count: u8,
    css_rounds: u8,
}

impl HyStart {
    pub(super) const fn new() -> Self {
        Self {
            round: Round::new(),
            last_round_min_rtt: INFINITE,
            current_round_min_rtt: INFINITE,
            css_baseline_min_rtt: INFINITE,
            rtt_sample_count: 0,
            css_rounds: 0,
        }
    }

    /// Returns the bytes by which the acknowledgment enlarges the window, if that was what limited sending.
    pub(super) fn on_ack(&mut self, acked: &Acked, mss: u32) -> u32 {
        if let Some(rtt) = acked.rtt {
            self.measure(rtt);
        }
        self.compare_rounds(acked.limited);
        let bytes = acked.bytes.min(mss.saturating_mul(L));
        let growth = if self.in_css() {
            bytes / CSS_GROWTH_DIVISOR
        } else {
            bytes
        };
        if self.round.on_ack(acked) {
            self.end_round(acked.limited);
        }
        growth
    }

    /// Congestion avoidance has to begin.
    pub(super) fn is_over(&self) -> bool {
        self.css_rounds >= CSS_ROUNDS
    }

    /// Begins a round with the next acknowledgment: those in between were not seen.
    pub(super) fn restart_round(&mut self) {
        self.round = Round::new();
        self.forget_measurements();
    }

    fn forget_measurements(&mut self) {
        self.current_round_min_rtt = INFINITE;
        self.rtt_sample_count = 0;
    }

    fn in_css(&self) -> bool {
        self.css_baseline_min_rtt != INFINITE
    }

    fn measure(&mut self, rtt: Duration) {
        let rtt = micros(rtt).min(INFINITE - 1);
        self.current_round_min_rtt = self.current_round_min_rtt.min(rtt);
        self.rtt_sample_count = self.rtt_sample_count.saturating_add(1);
    }

    /// Section 4.2. A sender that does not fill its window did not cause a longer round-trip time, so that is no reason
    /// to leave slow start; a shorter one is a reason to return to it either way.
    fn compare_rounds(&mut self, limited: bool) {
        if self.rtt_sample_count < N_RTT_SAMPLE {
            return;
        }
        if self.in_css() {
            if self.current_round_min_rtt < self.css_baseline_min_rtt {
                self.css_baseline_min_rtt = INFINITE;
                self.css_rounds = 0;
            }
        } else if limited && self.last_round_min_rtt != INFINITE {
            let threshold = (self.last_round_min_rtt / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
            if self.current_round_min_rtt >= self.last_round_min_rtt.saturating_add(threshold) {
                self.css_baseline_min_rtt = self.current_round_min_rtt;
            }
        }
    }

    fn end_round(&mut self, limited: bool) {
        // The round in which conservative slow start began counts as its first.
        if self.in_css() && limited {
            self.css_rounds = self.css_rounds.saturating_add(1);
        }
        self.last_round_min_rtt = self.current_round_min_rtt;
        self.forget_measurements();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::SeqNumber;
    use crate::time::Instant;

    const MSS: u32 = 1000;

    struct Sender {
        hystart: HyStart,
        snd_una: SeqNumber,
    }

    impl Sender {
        fn new() -> Self {
            Self {
                hystart: HyStart::new(),
                // The sequence numbers wrap on the way.
                snd_una: SeqNumber(u32::MAX - 25 * MSS),
            }
        }

        fn ack(&mut self, segments: u32, rtt: Option<u64>, limited: bool, snd_nxt: SeqNumber) -> u32 {
            self.snd_una += segments * MSS;
            let acked = Acked {
                now: Instant::ZERO,
                bytes: segments * MSS,
                flight: snd_nxt - self.snd_una,
                limited,
                rtt: rtt.map(Duration::from_millis),
                reordering: false,
                srtt: None,
                snd_una: self.snd_una,
                snd_nxt,
                delivery: None,
            };
            self.hystart.on_ack(&acked, MSS)
        }

        /// Sends `segments` and has them acknowledged one by one, each after `rtt` milliseconds; returns the growth by
        /// the first and by the last acknowledgment.
        fn round_of(&mut self, segments: u32, rtt: u64, limited: bool) -> (u32, u32) {
            let snd_nxt = self.snd_una + segments * MSS;
            let growth: Vec<u32> = (0..segments)
                .map(|_| self.ack(1, Some(rtt), limited, snd_nxt))
                .collect();
            (growth[0], growth[growth.len() - 1])
        }

        fn round(&mut self, rtt: u64) -> (u32, u32) {
            self.round_of(10, rtt, true)
        }
    }

    #[test]
    fn grows_by_what_is_acknowledged_while_the_round_trip_time_is_steady() {
        let mut sender = Sender::new();
        for _ in 0..20 {
            assert_eq!(sender.round(50), (MSS, MSS));
        }
        assert!(!sender.hystart.is_over());
    }

    #[test]
    fn an_acknowledgment_adds_eight_segments_at_most() {
        let mut sender = Sender::new();
        let snd_nxt = sender.snd_una + 20 * MSS;
        assert_eq!(sender.ack(20, Some(50), true, snd_nxt), 8 * MSS);
    }

    #[test]
    fn a_longer_round_trip_time_slows_the_growth_to_a_quarter() {
        // An eighth of the last round's time, but at least 4 ms and at most 16 ms.
        for (last, too_little, enough) in [(50, 56, 57), (1, 4, 5), (400, 415, 416)] {
            let mut sender = Sender::new();
            sender.round(last);
            assert_eq!(sender.round(too_little), (MSS, MSS), "{last} to {too_little} ms");
            let mut sender = Sender::new();
            sender.round(last);
            assert_eq!(sender.round(enough), (MSS, MSS / 4), "{last} to {enough} ms");
        }
    }

    #[test]
    fn seven_measurements_decide_nothing() {
        let mut sender = Sender::new();
        sender.round(50);
        assert_eq!(sender.round_of(7, 90, true), (MSS, MSS));
    }

    #[test]
    fn a_sender_that_does_not_fill_its_window_stays_in_slow_start() {
        let mut sender = Sender::new();
        sender.round_of(10, 50, false);
        assert_eq!(sender.round_of(10, 90, false), (MSS, MSS));
    }

    #[test]
    fn five_rounds_of_slower_growth_end_slow_start_the_first_counted_in_part() {
        let mut sender = Sender::new();
        sender.round(50);
        sender.round(60);
        for _ in 0..3 {
            assert_eq!(sender.round(60), (MSS / 4, MSS / 4));
            assert!(!sender.hystart.is_over());
        }
        sender.round(60);
        assert!(sender.hystart.is_over());
    }

    #[test]
    fn a_shorter_round_trip_time_shows_that_the_longer_one_was_jitter() {
        let mut sender = Sender::new();
        sender.round(50);
        sender.round(60);
        assert_eq!(sender.round(55), (MSS / 4, MSS));
        for _ in 0..10 {
            assert_eq!(sender.round(55), (MSS, MSS));
        }
        assert!(!sender.hystart.is_over());
        assert_eq!(sender.round(70), (MSS, MSS / 4), "and it goes on watching");
    }

    #[test]
    fn a_round_lasts_until_what_was_sent_at_its_beginning_is_acknowledged() {
        let mut sender = Sender::new();
        let start = sender.snd_una;
        for index in 0..10 {
            assert_eq!(sender.hystart.last_round_min_rtt, INFINITE);
            // Slow start: every acknowledged segment has let two out.
            sender.ack(1, Some(50), true, start + (10 + 2 * index) * MSS);
        }
        assert_eq!(sender.hystart.last_round_min_rtt, 50_000);
        assert_eq!(sender.hystart.round.end, Some(start + 28 * MSS));
    }

    #[test]
    fn acknowledgments_without_a_measurement_are_not_counted() {
        let mut sender = Sender::new();
        sender.round(50);
        let snd_nxt = sender.snd_una + 20 * MSS;
        for _ in 0..10 {
            sender.ack(1, None, true, snd_nxt);
        }
        for _ in 0..7 {
            assert_eq!(sender.ack(1, Some(90), true, snd_nxt), MSS);
        }
        assert_eq!(sender.ack(1, Some(90), true, snd_nxt), MSS / 4);
    }
}
