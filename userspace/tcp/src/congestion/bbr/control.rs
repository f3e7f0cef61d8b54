//! Pacing rate and window, as they follow from the model (section 5.6).

use core::time::Duration;

use super::loss::INFINITE;
use super::model::amount;
use super::{Ack, Bbr, MAX_WINDOW, State, initial_window};

/// BBR.PacingMarginPercent.
const PACING_MARGIN: u32 = 1;

/// The largest C.send_quantum, in bytes.
const MAX_SEND_QUANTUM: u64 = 64 << 10;

/// BBR.MinPipeCwnd, in segments.
const MIN_PIPE_CWND: u32 = 4;

impl Bbr {
    /// `InitPacingRate`, once there is a round-trip time.
    pub(super) fn init_pacing_rate(&mut self, srtt: Option<Duration>) {
        if self.pacing_rate == 0
            && let Some(srtt) = srtt
        {
            let srtt = crate::time::micros(srtt).max(1);
            let nominal = u64::from(initial_window(self.mss)) * 1_000_000 / srtt;
            self.pacing_rate = (nominal * u64::from(State::Startup.pacing_gain()) / 100).max(1);
        }
    }

    /// `SetPacingRateWithGain`, with `gain` in percent.
    pub(super) fn set_pacing_rate(&mut self, gain: u32) {
        let gain = u128::from(gain * (100 - PACING_MARGIN));
        let rate = (u128::from(self.bw) * gain / 10_000).min(u128::from(u64::MAX)) as u64;
        if rate > 0 && (self.full_pipe.reached || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    /// C.send_quantum.
    fn send_quantum(&self) -> u32 {
        let quantum = amount(self.pacing_rate, Duration::from_millis(1));
        (quantum.min(MAX_SEND_QUANTUM) as u32).max(2 * self.mss)
    }

    /// BBR.MinPipeCwnd.
    pub(super) fn min_pipe_cwnd(&self) -> u32 {
        self.mss.saturating_mul(MIN_PIPE_CWND)
    }

    /// `QuantizationBudget`.
    fn quantization_budget(&self, inflight: u64) -> u32 {
        let offload_budget = 3 * self.send_quantum();
        let mut inflight = inflight
            .max(u64::from(offload_budget))
            .max(u64::from(self.min_pipe_cwnd()));
        if self.state == State::ProbeBwUp {
            inflight += 2 * u64::from(self.mss);
        }
        inflight.min(u64::from(MAX_WINDOW)) as u32
    }

    /// `Inflight`, with `gain` in percent.
    pub(super) fn inflight(&self, bw: u64, gain: u32) -> u32 {
        let inflight = self.bdp_multiple(bw, gain);
        self.quantization_budget(inflight.unwrap_or(initial_window(self.mss).into()))
    }

    /// `UpdateMaxInflight`.
    fn max_inflight(&self) -> u32 {
        let inflight = self.bdp_multiple(self.bw, self.state.cwnd_gain());
        let inflight = inflight.unwrap_or(initial_window(self.mss).into());
        self.quantization_budget(inflight + u64::from(self.aggregation.extra_acked()))
    }

    /// `SetCwnd`.
    pub(super) fn set_cwnd(&mut self, ack: &Ack) {
        let max_inflight = self.max_inflight();
        let grown = self.cwnd.saturating_add(ack.newly_acked);
        if self.full_pipe.reached {
            self.cwnd = grown.min(max_inflight);
        } else if self.cwnd < max_inflight || self.delivered < u64::from(initial_window(self.mss)) {
            self.cwnd = grown;
        }
        self.bound_cwnd();
        self.cwnd = self.cwnd.max(self.min_pipe_cwnd());
        if self.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        self.bound_cwnd_for_model();
    }

    /// [`Bbr::set_cwnd`] for an acknowledgment that says nothing of the path.
    pub(super) fn grow_without_sample(&mut self, newly_acked: u32) {
        if !self.full_pipe.reached {
            self.cwnd = self.cwnd.saturating_add(newly_acked);
        }
        self.bound_cwnd();
    }

    /// `BoundCwndForModel`.
    fn bound_cwnd_for_model(&mut self) {
        let cap = match self.state {
            State::ProbeBwCruise | State::ProbeRtt => self.inflight_with_headroom(),
            State::ProbeBwDown | State::ProbeBwRefill | State::ProbeBwUp => self.bounds.inflight_longterm,
            State::Startup | State::Drain => INFINITE,
        };
        let cap = cap.min(self.bounds.inflight_shortterm).max(self.min_pipe_cwnd());
        self.cwnd = self.cwnd.min(cap);
    }

    /// What every window is bound to be.
    pub(super) fn bound_cwnd(&mut self) {
        self.cwnd = self.cwnd.min(MAX_WINDOW).max(self.mss);
    }
}
