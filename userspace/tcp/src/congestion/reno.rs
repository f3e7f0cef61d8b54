//! Reno: slow start, congestion avoidance, fast recovery (RFC 5681, RFC 6582) from an initial window of ten segments (RFC 6928).

use super::CongestionControl;

/// Reno's state, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reno {
    cwnd: u32,
    ssthresh: u32,
    /// Bytes acknowledged in congestion avoidance that have not yet enlarged the window (RFC 3465).
    acked: u32,
}

/// A window no connection can fill; keeps the arithmetic in range.
const MAX_WINDOW: u32 = 1 << 30;

/// Initial window (RFC 6928, section 2).
fn initial_window(mss: u32) -> u32 {
    (10 * mss).min((2 * mss).max(14_600))
}

impl Reno {
    /// The state of a new connection.
    pub fn new(mss: u32) -> Self {
        Self {
            cwnd: initial_window(mss),
            ssthresh: MAX_WINDOW,
            acked: 0,
        }
    }

    fn halve(&mut self, flight: u32, mss: u32) {
        self.ssthresh = (flight / 2).max(2 * mss);
    }
}

impl CongestionControl for Reno {
    fn window(&self) -> u32 {
        self.cwnd
    }

    fn on_ack(&mut self, acked: u32, _flight: u32, limited: bool, mss: u32) {
        if !limited {
            return;
        }
        if self.cwnd < self.ssthresh {
            // RFC 3465, section 2.3, would stop at two segments an acknowledgment. Peers with receive offload acknowledge
            // many at once, and slow start would crawl; so the step is what was acknowledged, as in Linux.
            self.cwnd = self.cwnd.saturating_add(acked).min(self.ssthresh.max(self.cwnd + mss));
        } else {
            self.acked += acked.min(self.cwnd);
            if self.acked >= self.cwnd {
                self.acked -= self.cwnd;
                self.cwnd += mss;
            }
        }
        self.cwnd = self.cwnd.min(MAX_WINDOW);
    }

    fn on_loss(&mut self, flight: u32, mss: u32) {
        self.halve(flight, mss);
        self.cwnd = self.ssthresh + 3 * mss;
        self.acked = 0;
    }

    fn on_timeout(&mut self, flight: u32, repeated: bool, mss: u32) {
        if !repeated {
            self.halve(flight, mss);
        }
        self.cwnd = mss;
        self.acked = 0;
    }

    fn on_recovery_duplicate(&mut self, mss: u32) {
        self.cwnd = (self.cwnd + mss).min(MAX_WINDOW);
    }

    fn on_recovery_partial(&mut self, acked: u32, mss: u32) {
        self.cwnd = self.cwnd.saturating_sub(acked).max(mss);
        if acked >= mss {
            self.cwnd += mss;
        }
    }

    fn on_recovered(&mut self, flight: u32, mss: u32) {
        self.cwnd = self.ssthresh.min(flight.max(mss) + mss);
    }

    fn on_idle(&mut self, mss: u32) {
        self.cwnd = self.cwnd.min(initial_window(mss));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    #[test]
    fn slow_start_doubles_and_avoidance_adds_a_segment_per_window() {
        let mut reno = Reno::new(MSS);
        assert_eq!(reno.window(), 10 * MSS);
        reno.on_ack(10 * MSS, 10 * MSS, true, MSS);
        assert_eq!(reno.window(), 20 * MSS);
        reno.on_loss(20 * MSS, MSS);
        reno.on_recovered(20 * MSS, MSS);
        assert_eq!(reno.window(), 10 * MSS);
        for _ in 0..10 {
            reno.on_ack(MSS, 10 * MSS, true, MSS);
        }
        assert_eq!(reno.window(), 11 * MSS);
    }

    #[test]
    fn the_window_does_not_grow_while_it_is_not_used() {
        let mut reno = Reno::new(MSS);
        reno.on_ack(MSS, MSS, false, MSS);
        assert_eq!(reno.window(), 10 * MSS);
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_halves_the_threshold_once() {
        let mut reno = Reno::new(MSS);
        reno.on_timeout(8 * MSS, false, MSS);
        reno.on_timeout(MSS, true, MSS);
        assert_eq!(reno.window(), MSS);
        for _ in 0..2 {
            reno.on_ack(reno.window(), reno.window(), true, MSS);
        }
        assert_eq!(reno.window(), 4 * MSS, "slow start ends at half of the flight");
    }

    #[test]
    fn the_initial_window_follows_rfc_6928() {
        assert_eq!(initial_window(1460), 14_600);
        assert_eq!(initial_window(536), 5360);
        assert_eq!(initial_window(8960), 17_920);
    }
}
