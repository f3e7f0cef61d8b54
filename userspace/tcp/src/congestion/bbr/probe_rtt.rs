//! `ProbeRTT`: little in flight for a moment, so that the queue is empty and the round trip as short as the path lets
//! it be (section 5.3.4).

use core::time::Duration;

use super::probe_bw::AckPhase;
use super::{Ack, Bbr, RateSample, State};
use crate::time::Instant;

/// BBR.ProbeRTTDuration.
const PROBE_RTT_DURATION: Duration = Duration::from_millis(200);

/// The state of a probe.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProbeRtt {
    /// BBR.probe_rtt_done_stamp.
    done_stamp: Option<Instant>,
    /// BBR.probe_rtt_round_done.
    round_done: bool,
    /// What was sent before this much was delivered was sent in `ProbeRTT`: its rate is not that of the path.
    limited_until: Option<u64>,
}

impl Bbr {
    /// Whether the rate of `sample` is that of the application, for which that of `ProbeRTT` counts as well.
    pub(super) fn is_app_limited(&mut self, sample: &RateSample) -> bool {
        if self
            .probe_rtt
            .limited_until
            .is_some_and(|until| sample.prior_delivered > until)
        {
            self.probe_rtt.limited_until = None;
        }
        sample.app_limited || self.probe_rtt.limited_until.is_some()
    }

    /// `CheckProbeRTT`.
    pub(super) fn check_probe_rtt(&mut self, ack: &Ack) {
        if self.state != State::ProbeRtt && self.min_rtt.is_expired && !self.idle_restart {
            self.save_cwnd();
            self.state = State::ProbeRtt;
            self.probe_rtt.done_stamp = None;
            self.cycle.ack_phase = AckPhase::ProbeStopping;
            self.start_round(ack.now);
        }
        if self.state == State::ProbeRtt {
            self.handle_probe_rtt(ack);
        }
        if ack.sample.delivered > 0 {
            self.idle_restart = false;
        }
    }

    /// `HandleProbeRTT`.
    fn handle_probe_rtt(&mut self, ack: &Ack) {
        self.probe_rtt.limited_until = Some(self.delivered + u64::from(ack.in_flight));
        if self.probe_rtt.done_stamp.is_none() {
            if ack.in_flight <= self.probe_rtt_cwnd() {
                self.probe_rtt.done_stamp = Some(ack.now + PROBE_RTT_DURATION);
                self.probe_rtt.round_done = false;
                self.min_rtt.begin_probe();
                self.start_round(ack.now);
            }
            return;
        }
        self.probe_rtt.round_done |= self.rounds.start;
        if self.probe_rtt.round_done {
            self.check_probe_rtt_done(ack.now);
        }
    }

    /// `CheckProbeRTTDone`.
    pub(super) fn check_probe_rtt_done(&mut self, now: Instant) {
        if self.probe_rtt.done_stamp.is_some_and(|done| now > done) {
            self.min_rtt.end_probe(now);
            self.restore_cwnd();
            self.exit_probe_rtt(now);
        }
    }

    /// `ExitProbeRTT`.
    fn exit_probe_rtt(&mut self, now: Instant) {
        self.bounds.reset_short_term();
        if self.full_pipe.reached {
            self.start_probe_bw_down(now);
            self.start_probe_bw_cruise();
        } else {
            self.state = State::Startup;
        }
    }

    /// `ProbeRTTCwnd`.
    pub(super) fn probe_rtt_cwnd(&self) -> u32 {
        let half = self.bdp_multiple(self.bw, State::ProbeRtt.cwnd_gain());
        half.map_or(0, |half| half as u32).max(self.min_pipe_cwnd())
    }
}
