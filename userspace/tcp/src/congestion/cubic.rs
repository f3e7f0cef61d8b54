//! CUBIC (RFC 9438): the window grows by a cubic function of the time since the last congestion, at least as fast as
//! Reno's would. The first slow start is HyStart++'s. Slow start is paced.

use core::time::Duration;

use super::hystart::HyStart;
use super::slow_start::SlowStartRate;
use super::{
    Acked, CongestionControl, INITIAL_SSTHRESH, MAX_WINDOW, initial_window, micros, ssthresh_after_idle,
    window_at_congestion,
};
use crate::time::Instant;

/// The growth of the cubic function, in segments per second cubed (section 5.1).
const C: f64 = 0.4;
/// The part of the window that congestion leaves (section 4.6).
const BETA: f64 = 0.7;
/// Growth in segments per round trip that makes a sender with [`BETA`] as fast as Reno (section 4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// CUBIC's state of one connection.
#[derive(Clone, Debug)]
pub struct Cubic {
    current: Variables,
    /// The variables before the last congestion (section 4.9).
    undo: Option<Variables>,
    hystart: HyStart,
    last_ack: Instant,
    pacing: SlowStartRate,
}

/// The variables of RFC 9438, section 4.1.2, in bytes and seconds unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Variables {
    /// Fractions of a byte are kept: at a large window an acknowledgment adds less than one.
    cwnd: f64,
    w_est: f64,
    ssthresh: u32,
    cwnd_prior: u32,
    /// Zero while undefined.
    w_max: u32,
    k: f32,
    /// Time in this congestion avoidance stage that the window limited sending, in microseconds: t_current - t_epoch
    /// without the time that must not count (section 5.8).
    elapsed: u32,
    /// A congestion avoidance stage has begun: `k`, `w_est` and `elapsed` belong to it.
    epoch: bool,
    /// In fast recovery.
    recovering: bool,
}

impl Variables {
    fn window(&self) -> u32 {
        self.cwnd as u32
    }

    fn window_at_congestion(&self) -> u32 {
        window_at_congestion(self.window(), self.ssthresh, self.recovering)
    }

    /// W_cubic (Figure 1) `seconds` after the beginning of the stage.
    fn w_cubic(&self, seconds: f64, mss: u32) -> f64 {
        let from_k = seconds - f64::from(self.k);
        C * f64::from(mss) * from_k * from_k * from_k + f64::from(self.w_max)
    }

    /// Begins a congestion avoidance stage with the current window.
    fn begin_epoch(&mut self, mss: u32) {
        let below = f64::from(self.w_max) - self.cwnd;
        if below > 0.0 {
            self.k = (below / (C * f64::from(mss))).cbrt() as f32;
        } else {
            // W_max is undefined, after a timeout (section 4.8) or after HyStart++ (section 4.10), or slow start after
            // an idle time has gone beyond it.
            self.k = 0.0;
            self.w_max = self.window();
        }
        self.w_est = self.cwnd;
        self.elapsed = 0;
        self.epoch = true;
    }

    /// `bytes` were acknowledged in congestion avoidance, `since_last` after the acknowledgment before.
    fn avoid_congestion(&mut self, bytes: u32, since_last: Duration, rtt: Duration, mss: u32) {
        if self.epoch {
            self.elapsed = self.elapsed.saturating_add(micros(since_last));
        } else {
            self.begin_epoch(mss);
        }
        let acked = f64::from(bytes).min(self.cwnd);
        // Figure 4. From the window of the last congestion on it grows as Reno's does, by a segment per round trip.
        let alpha = if self.w_est < f64::from(self.cwnd_prior) {
            ALPHA
        } else {
            1.0
        };
        self.w_est = (self.w_est + alpha * f64::from(mss) * acked / self.cwnd).min(f64::from(MAX_WINDOW));

        let t = f64::from(self.elapsed) / 1e6;
        let target = self
            .w_cubic(t + rtt.as_secs_f64(), mss)
            .clamp(self.cwnd, 1.5 * self.cwnd);
        self.cwnd += (target - self.cwnd) * acked / self.cwnd;
        if self.w_cubic(t, mss) < self.w_est {
            self.cwnd = self.cwnd.max(self.w_est);
        }
    }

    /// Sections 4.6 and 4.7, but for the window. What SACK has already acknowledged is part of `flight`, which may
    /// therefore be more than the window; congestion must not enlarge that.
    fn congestion(&mut self, flight: u32, mss: u32) {
        let window = self.window_at_congestion();
        self.w_max = if window < self.w_max {
            (f64::from(window) * (1.0 + BETA) / 2.0) as u32
        } else {
            window
        };
        self.cwnd_prior = window;
        self.ssthresh = ((f64::from(window.min(flight)) * BETA) as u32).max(mss.saturating_mul(2));
        self.epoch = false;
    }

    fn bound(&mut self, mss: u32) {
        self.cwnd = self.cwnd.min(f64::from(MAX_WINDOW)).max(f64::from(mss));
    }
}

impl Cubic {
    /// The state of a new connection with segments of at most `mss` bytes.
    pub fn new(mss: u32) -> Self {
        Self {
            current: Variables {
                cwnd: f64::from(initial_window(mss)),
                w_est: 0.0,
                ssthresh: INITIAL_SSTHRESH,
                cwnd_prior: 0,
                w_max: 0,
                k: 0.0,
                elapsed: 0,
                epoch: false,
                recovering: false,
            },
            undo: None,
            hystart: HyStart::new(),
            last_ack: Instant::ZERO,
            pacing: SlowStartRate::new(),
        }
    }

    /// HyStart++ is for the first slow start only: later ones end at a threshold that was learnt (RFC 9406, section
    /// 4.3).
    fn first_slow_start(&mut self, acked: &Acked, mss: u32) {
        let growth = self.hystart.on_ack(acked, mss);
        if acked.limited {
            self.current.cwnd += f64::from(growth);
        }
        if self.hystart.is_over() {
            self.current.bound(mss);
            self.current.ssthresh = self.current.window().max(mss.saturating_mul(2));
            self.current.cwnd_prior = self.current.window();
        }
    }

    /// Slow start of RFC 5681 up to the threshold; returns how many of the acknowledged bytes are left for congestion
    /// avoidance.
    fn slow_start(&mut self, bytes: u32) -> u32 {
        let room = f64::from(self.current.ssthresh) - self.current.cwnd;
        let step = bytes.min(room.ceil() as u32);
        self.current.cwnd = (self.current.cwnd + f64::from(step)).min(f64::from(self.current.ssthresh));
        bytes - step
    }
}

impl CongestionControl for Cubic {
    fn window(&self) -> u32 {
        self.current.window()
    }

    fn ssthresh(&self) -> u32 {
        self.current.ssthresh
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.pacing.rate()
    }

    fn set_window(&mut self, cwnd: u32) {
        self.current.cwnd = f64::from(cwnd.min(MAX_WINDOW));
    }

    fn recall_ssthresh(&mut self, ssthresh: u32) {
        self.current.ssthresh = ssthresh.max(self.current.window());
    }

    fn on_ack(&mut self, acked: &Acked, mss: u32) {
        if acked.bytes == 0 {
            return;
        }
        let since_last = acked.now.since(self.last_ack);
        self.last_ack = acked.now;
        self.current.recovering = false;
        if self.current.ssthresh == INITIAL_SSTHRESH {
            self.first_slow_start(acked, mss);
        } else if acked.limited {
            let mut bytes = acked.bytes;
            if self.current.cwnd < f64::from(self.current.ssthresh) {
                bytes = self.slow_start(bytes);
            }
            if bytes > 0 {
                // While the window limits sending, what is acknowledged was sent no later than the acknowledgment
                // before arrived. Longer than a round trip between the two: nothing was sent for the rest.
                let since_last = acked.rtt.max(acked.srtt).map_or(since_last, |rtt| since_last.min(rtt));
                let rtt = acked.srtt.or(acked.rtt).unwrap_or_default();
                self.current.avoid_congestion(bytes, since_last, rtt, mss);
            }
        }
        self.current.bound(mss);
        self.pacing.on_ack(acked, self.window(), self.current.ssthresh, mss);
    }

    fn on_congestion(&mut self, _now: Instant, flight: u32, mss: u32) {
        self.pacing.stop();
        self.undo = Some(self.current);
        self.current.congestion(flight, mss);
        self.current.recovering = true;
        self.current.bound(mss);
    }

    fn on_timeout(&mut self, _now: Instant, flight: u32, repeated: bool, mss: u32) {
        if !repeated {
            self.undo = Some(self.current);
            self.current.congestion(flight, mss);
        }
        self.pacing.stop();
        // Section 4.8: W_max becomes the window at which congestion avoidance will begin.
        self.current.w_max = 0;
        self.current.epoch = false;
        self.current.recovering = false;
        self.current.cwnd = f64::from(mss);
    }

    fn on_recovered(&mut self, mss: u32) {
        if self.current.recovering {
            self.current.recovering = false;
            self.current.cwnd = f64::from(self.current.ssthresh);
        }
        self.current.bound(mss);
    }

    fn on_idle(&mut self, mss: u32) {
        let restart = initial_window(mss);
        if self.window() > restart {
            self.current.ssthresh = ssthresh_after_idle(self.window(), self.current.ssthresh);
            self.current.cwnd = f64::from(restart);
            self.current.epoch = false;
        }
        self.current.recovering = false;
        self.current.bound(mss);
        self.pacing.stop();
        self.undo = None;
        self.hystart = HyStart::new();
    }

    fn undo(&mut self, _now: Instant) {
        let Some(before) = self.undo.take() else {
            return;
        };
        if self.current.cwnd > before.cwnd {
            self.current.recovering = false;
        } else {
            self.current = before;
            self.hystart.restart_round();
        }
    }
}

#[cfg(test)]
mod tests;
