//! Reno: slow start, congestion avoidance and the answer to congestion of RFC 5681, from an initial window of ten
//! segments (RFC 6928). Slow start is paced.

use super::slow_start::SlowStartRate;
use super::{
    Acked, CongestionControl, INITIAL_SSTHRESH, MAX_WINDOW, initial_window, ssthresh_after_idle, window_at_congestion,
};
use crate::time::Instant;

/// Reno's state of one connection, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reno {
    cwnd: u32,
    ssthresh: u32,
    /// Bytes acknowledged in congestion avoidance that have not yet enlarged the window (RFC 3465).
    acked: u32,
    /// In fast recovery.
    recovering: bool,
    /// Window and threshold before the last congestion.
    undo: Option<(u32, u32)>,
    pacing: SlowStartRate,
}

impl Reno {
    /// The state of a new connection with segments of at most `mss` bytes.
    pub fn new(mss: u32) -> Self {
        Self {
            cwnd: initial_window(mss),
            ssthresh: INITIAL_SSTHRESH,
            acked: 0,
            recovering: false,
            undo: None,
            pacing: SlowStartRate::new(),
        }
    }

    /// Equation 4 of RFC 5681. What SACK has already acknowledged is part of `flight`, which may therefore be more than
    /// the window; congestion must not enlarge that.
    fn halve(&mut self, flight: u32, mss: u32) {
        self.undo = Some((self.cwnd, self.ssthresh));
        let window = window_at_congestion(self.cwnd, self.ssthresh, self.recovering);
        self.ssthresh = (window.min(flight) / 2).max(mss.saturating_mul(2));
        self.acked = 0;
    }

    fn bound(&mut self, mss: u32) {
        self.cwnd = self.cwnd.min(MAX_WINDOW).max(mss);
    }
}

impl CongestionControl for Reno {
    fn window(&self) -> u32 {
        self.cwnd
    }

    fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.pacing.rate()
    }

    fn set_window(&mut self, cwnd: u32) {
        self.cwnd = cwnd.min(MAX_WINDOW);
    }

    fn recall_ssthresh(&mut self, ssthresh: u32) {
        self.ssthresh = ssthresh.max(self.cwnd);
    }

    fn on_ack(&mut self, acked: &Acked, mss: u32) {
        self.recovering = false;
        let mut bytes = acked.bytes;
        if acked.limited {
            if self.cwnd < self.ssthresh {
                // RFC 3465, section 2.3, would stop at two segments an acknowledgment. Peers with receive offload
                // acknowledge many at once, and slow start would crawl; so the step is what was acknowledged, as in
                // Linux.
                let step = bytes.min(self.ssthresh - self.cwnd);
                self.cwnd = self.cwnd.saturating_add(step);
                bytes -= step;
            }
            if self.cwnd >= self.ssthresh {
                self.acked = self.acked.saturating_add(bytes.min(self.cwnd));
                if self.acked >= self.cwnd {
                    self.acked -= self.cwnd;
                    self.cwnd = self.cwnd.saturating_add(mss);
                }
            }
        }
        self.bound(mss);
        self.pacing.on_ack(acked, self.cwnd, self.ssthresh, mss);
    }

    fn on_congestion(&mut self, _now: Instant, flight: u32, mss: u32) {
        self.pacing.stop();
        self.halve(flight, mss);
        self.recovering = true;
        self.bound(mss);
    }

    fn on_timeout(&mut self, _now: Instant, flight: u32, repeated: bool, mss: u32) {
        if !repeated {
            self.halve(flight, mss);
        }
        self.recovering = false;
        self.acked = 0;
        self.pacing.stop();
        self.cwnd = mss;
    }

    fn on_recovered(&mut self, mss: u32) {
        if self.recovering {
            self.recovering = false;
            self.cwnd = self.ssthresh;
        }
        self.bound(mss);
    }

    fn on_idle(&mut self, mss: u32) {
        let restart = initial_window(mss);
        if self.cwnd > restart {
            self.ssthresh = ssthresh_after_idle(self.cwnd, self.ssthresh);
            self.cwnd = restart;
            self.acked = 0;
        }
        self.recovering = false;
        self.undo = None;
        self.pacing.stop();
        self.bound(mss);
    }

    fn undo(&mut self, _now: Instant) {
        let Some((cwnd, ssthresh)) = self.undo.take() else {
            return;
        };
        self.recovering = false;
        if self.cwnd <= cwnd {
            self.cwnd = cwnd;
            self.ssthresh = ssthresh;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::seq::SeqNumber;

    const MSS: u32 = 1000;
    const NOW: Instant = Instant::ZERO;

    fn ack(reno: &mut Reno, bytes: u32, limited: bool) {
        ack_after(None, reno, bytes, limited);
    }

    fn ack_after(rtt: Option<Duration>, reno: &mut Reno, bytes: u32, limited: bool) {
        let acked = Acked {
            now: NOW,
            bytes,
            flight: reno.window(),
            limited,
            rtt,
            reordering: false,
            srtt: rtt,
            snd_una: SeqNumber(0),
            snd_nxt: SeqNumber(0),
            delivery: None,
        };
        reno.on_ack(&acked, MSS);
    }

    #[test]
    fn slow_start_doubles_and_avoidance_adds_a_segment_per_window() {
        let mut reno = Reno::new(MSS);
        assert_eq!(reno.window(), 10 * MSS);
        ack(&mut reno, 10 * MSS, true);
        assert_eq!(reno.window(), 20 * MSS);
        reno.on_congestion(NOW, 20 * MSS, MSS);
        reno.on_recovered(MSS);
        assert_eq!(reno.window(), 10 * MSS);
        for _ in 0..10 {
            ack(&mut reno, MSS, true);
        }
        assert_eq!(reno.window(), 11 * MSS);
    }

    #[test]
    fn slow_start_is_paced_after_its_first_round_and_avoidance_is_not() {
        // 2 * 20 segments in 100 ms.
        let twice_20 = Some(400_000 / 1024 * 1024);
        let rtt = Some(Duration::from_millis(100));
        let mut reno = Reno::new(MSS);
        assert_eq!(reno.pacing_rate(), None);
        ack_after(rtt, &mut reno, 5 * MSS, true);
        assert_eq!(reno.pacing_rate(), None);
        ack_after(rtt, &mut reno, 5 * MSS, true);
        assert_eq!(reno.pacing_rate(), twice_20);
        let before = reno;
        reno.on_timeout(NOW, 20 * MSS, false, MSS);
        assert_eq!(reno.pacing_rate(), None);
        reno = before;
        reno.on_idle(MSS);
        assert_eq!(reno.pacing_rate(), None);
        ack_after(rtt, &mut reno, 10 * MSS, true);
        assert_eq!(reno.pacing_rate(), twice_20);
        reno.set_window(60 * MSS);
        reno.on_congestion(NOW, 60 * MSS, MSS);
        assert_eq!(reno.pacing_rate(), None);
        reno.on_recovered(MSS);
        ack_after(rtt, &mut reno, 10 * MSS, true);
        assert_eq!((reno.window(), reno.pacing_rate()), (30 * MSS, None));
    }

    #[test]
    fn slow_start_ends_at_a_threshold_that_is_remembered_and_not_before_the_initial_window() {
        for (recalled, ssthresh) in [(3 * MSS, 10 * MSS), (15 * MSS, 15 * MSS)] {
            let mut reno = Reno::new(MSS);
            reno.recall_ssthresh(recalled);
            assert_eq!((reno.window(), reno.ssthresh()), (10 * MSS, ssthresh));
            ack(&mut reno, 10 * MSS, true);
            assert!(reno.window() <= ssthresh + MSS);
        }
    }

    #[test]
    fn the_window_does_not_grow_while_it_is_not_used() {
        let mut reno = Reno::new(MSS);
        ack(&mut reno, MSS, false);
        assert_eq!(reno.window(), 10 * MSS);
    }

    #[test]
    fn congestion_halves_the_threshold_and_leaves_the_window_to_rate_reduction() {
        let mut reno = Reno::new(MSS);
        reno.set_window(40 * MSS);
        reno.on_congestion(NOW, 60 * MSS, MSS);
        assert_eq!((reno.window(), reno.ssthresh()), (40 * MSS, 20 * MSS));
        reno.set_window(5 * MSS);
        reno.on_recovered(MSS);
        assert_eq!(reno.window(), 20 * MSS);
    }

    #[test]
    fn congestion_with_little_in_flight_is_answered_from_the_flight() {
        let mut reno = Reno::new(MSS);
        reno.on_congestion(NOW, 6 * MSS, MSS);
        assert_eq!(reno.ssthresh(), 3 * MSS);
        let mut reno = Reno::new(MSS);
        reno.on_congestion(NOW, MSS, MSS);
        assert_eq!(reno.ssthresh(), 2 * MSS, "never below two segments");
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_halves_the_threshold_once() {
        let mut reno = Reno::new(MSS);
        reno.on_timeout(NOW, 8 * MSS, false, MSS);
        reno.on_timeout(NOW, MSS, true, MSS);
        assert_eq!((reno.window(), reno.ssthresh()), (MSS, 4 * MSS));
        for expected in [2, 4, 5] {
            let window = reno.window();
            ack(&mut reno, window, true);
            assert_eq!(reno.window(), expected * MSS, "slow start ends at half of the flight");
        }
    }

    #[test]
    fn a_timeout_in_recovery_is_answered_from_the_threshold() {
        let mut reno = Reno::new(MSS);
        reno.set_window(40 * MSS);
        reno.on_congestion(NOW, 40 * MSS, MSS);
        reno.set_window(2 * MSS);
        reno.on_timeout(NOW, 40 * MSS, false, MSS);
        assert_eq!(reno.ssthresh(), 10 * MSS);
    }

    #[test]
    fn a_stretched_acknowledgment_crosses_the_threshold_without_a_jump() {
        let mut reno = Reno::new(MSS);
        reno.on_timeout(NOW, 8 * MSS, false, MSS);
        ack(&mut reno, 5 * MSS, true);
        assert_eq!(reno.window(), 4 * MSS);
        ack(&mut reno, 2 * MSS, true);
        assert_eq!(reno.window(), 5 * MSS, "the two segments left over were counted");
    }

    #[test]
    fn idle_restarts_with_the_initial_window_and_remembers_the_old_one() {
        let mut reno = Reno::new(MSS);
        reno.set_window(40 * MSS);
        reno.on_congestion(NOW, 40 * MSS, MSS);
        reno.on_recovered(MSS);
        reno.set_window(80 * MSS);
        reno.on_idle(MSS);
        assert_eq!((reno.window(), reno.ssthresh()), (10 * MSS, 60 * MSS));
    }

    #[test]
    fn undo_restores_once_and_never_lowers_the_window() {
        let mut reno = Reno::new(MSS);
        reno.on_timeout(NOW, 10 * MSS, false, MSS);
        reno.undo(NOW);
        assert_eq!((reno.window(), reno.ssthresh()), (10 * MSS, INITIAL_SSTHRESH));
        reno.set_window(4 * MSS);
        reno.undo(NOW);
        assert_eq!(reno.window(), 4 * MSS, "nothing is left to undo");

        reno.on_congestion(NOW, 4 * MSS, MSS);
        reno.on_recovered(MSS);
        reno.set_window(9 * MSS);
        reno.undo(NOW);
        assert_eq!((reno.window(), reno.ssthresh()), (9 * MSS, 2 * MSS));
    }
}
