//! `ProbeBW`: slower to drain the queue, at the rate of the path, and faster to see whether there is more (section
//! 5.3.3).

use core::time::Duration;

use super::loss::INFINITE;
use super::{Ack, Bbr, State};
use crate::time::Instant;

/// BBR.Headroom, in percent.
const HEADROOM: u32 = 15;

/// The round trips after which Reno would have grown by what was lost, at most: `T_reno_bound`.
const MAX_RENO_ROUNDS: u32 = 63;

/// BBR.ack_phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AckPhase {
    #[default]
    Init,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

/// The state of the cycle.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cycle {
    pub(super) ack_phase: AckPhase,
    /// BBR.is_bw_probe_sample.
    pub(super) is_bw_probe_sample: bool,
    /// BBR.prev_probe_too_high.
    pub(super) prev_probe_too_high: bool,
    /// BBR.prev_probe_precautionary.
    prev_probe_precautionary: bool,
    /// BBR.rounds_since_probe_up.
    pub(super) rounds_since_probe_up: u32,
    /// BBR.bw_probe_wait.
    probe_wait: Duration,
    /// BBR.cycle_stamp.
    stamp: Instant,
    /// BBR.probe_up_acked_per_inc; zero: infinite.
    up_acked_per_inc: u32,
    /// BBR.bw_probe_up_acked.
    up_acked: u32,
    /// BBR.bw_probe_up_rounds.
    up_rounds: u32,
    /// BBR.drain_start_round.
    pub(super) drain_start_round: u64,
}

/// A number that differs from one connection, and one cycle, to the next (SplitMix64).
fn draw(seed: u64) -> u64 {
    let mut value = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Bbr {
    /// `StartProbeBW_DOWN`.
    pub(super) fn start_probe_bw_down(&mut self, now: Instant) {
        self.loss_round.reset();
        self.cycle.up_acked_per_inc = 0;
        self.pick_probe_wait(now);
        self.cycle.stamp = now;
        self.cycle.ack_phase = AckPhase::ProbeStopping;
        self.start_round(now);
        self.state = State::ProbeBwDown;
    }

    /// `PickProbeWait`. What it draws has to keep flows apart, and is no secret.
    fn pick_probe_wait(&mut self, now: Instant) {
        let drawn = draw(now.as_micros() ^ self.delivered.rotate_left(32) ^ self.bw);
        self.cycle.rounds_since_probe_up = (drawn & 1) as u32;
        self.cycle.probe_wait = Duration::from_secs(2) + Duration::from_micros((drawn >> 32) % 1_000_000);
    }

    /// `StartProbeBW_CRUISE`.
    pub(super) fn start_probe_bw_cruise(&mut self) {
        self.state = State::ProbeBwCruise;
    }

    /// `StartProbeBW_REFILL`.
    pub(super) fn start_probe_bw_refill(&mut self, now: Instant) {
        self.bounds.reset_short_term();
        self.cycle.up_rounds = 0;
        self.cycle.up_acked = 0;
        self.cycle.prev_probe_precautionary = false;
        self.cycle.ack_phase = AckPhase::Refilling;
        self.start_round(now);
        self.state = State::ProbeBwRefill;
    }

    /// `StartProbeBW_UP`.
    fn start_probe_bw_up(&mut self, ack: &Ack) {
        self.cycle.ack_phase = AckPhase::ProbeStarting;
        self.start_round(ack.now);
        self.full_pipe.reset(ack.rate());
        self.state = State::ProbeBwUp;
        self.raise_inflight_longterm_slope();
    }

    /// `UpdateProbeBWCyclePhase`.
    pub(super) fn update_probe_bw_cycle_phase(&mut self, ack: &Ack) {
        if !self.full_pipe.reached || self.adapt_long_term_model(ack) {
            return;
        }
        match self.state {
            State::ProbeBwDown => {
                if self.is_time_to_probe_bw(ack.now) {
                    self.start_probe_bw_refill(ack.now);
                } else if self.is_time_to_cruise(ack) {
                    self.start_probe_bw_cruise();
                }
            }
            State::ProbeBwCruise => {
                if self.is_time_to_probe_bw(ack.now) {
                    self.start_probe_bw_refill(ack.now);
                }
            }
            State::ProbeBwRefill => {
                if self.rounds.start {
                    self.cycle.is_bw_probe_sample = true;
                    self.start_probe_bw_up(ack);
                }
            }
            State::ProbeBwUp => {
                if self.is_time_to_go_down(ack) {
                    self.cycle.prev_probe_too_high = false;
                    self.start_probe_bw_down(ack.now);
                }
            }
            State::Startup | State::Drain | State::ProbeRtt => {}
        }
    }

    /// `IsTimeToProbeBW`: after two to three seconds, or as many round trips as the path holds segments, if that is
    /// sooner: so long Reno would take to come back from a loss.
    fn is_time_to_probe_bw(&self, now: Instant) -> bool {
        let reno_rounds = (self.target_inflight() / self.mss).min(MAX_RENO_ROUNDS);
        now > self.cycle.stamp + self.cycle.probe_wait || self.cycle.rounds_since_probe_up >= reno_rounds
    }

    /// `IsTimeToCruise`.
    fn is_time_to_cruise(&self, ack: &Ack) -> bool {
        ack.in_flight <= self.inflight_with_headroom() && ack.in_flight <= self.inflight(self.max_bw.get(), 100)
    }

    /// `IsTimeToGoDown`.
    fn is_time_to_go_down(&mut self, ack: &Ack) -> bool {
        if self.cycle.prev_probe_too_high && ack.in_flight >= self.bounds.inflight_longterm {
            self.cycle.prev_probe_precautionary = true;
            return true;
        }
        if self.rounds.is_cwnd_limited() && self.cwnd >= self.bounds.inflight_longterm {
            // It is the bound that keeps the rate from growing.
            self.full_pipe.reset(ack.rate());
            return false;
        }
        self.full_pipe.now
    }

    /// `TargetInflight`.
    pub(super) fn target_inflight(&self) -> u32 {
        self.bdp().min(self.cwnd)
    }

    /// `InflightWithHeadroom`.
    pub(super) fn inflight_with_headroom(&self) -> u32 {
        let longterm = self.bounds.inflight_longterm;
        if longterm == INFINITE {
            return INFINITE;
        }
        let headroom = (u64::from(longterm) * u64::from(HEADROOM) / 100) as u32;
        longterm
            .saturating_sub(headroom.max(self.mss))
            .max(self.min_pipe_cwnd())
    }

    /// `RaiseInflightLongtermSlope`.
    fn raise_inflight_longterm_slope(&mut self) {
        let growth = 1_u32 << self.cycle.up_rounds;
        self.cycle.up_rounds = (self.cycle.up_rounds + 1).min(30);
        self.cycle.up_acked_per_inc = (self.cwnd / growth).max(self.mss);
    }

    /// `ProbeInflightLongtermUpward`.
    fn probe_inflight_longterm_upward(&mut self, ack: &Ack) {
        if !self.rounds.is_cwnd_limited() || self.cwnd < self.bounds.inflight_longterm {
            return;
        }
        self.cycle.up_acked = self.cycle.up_acked.saturating_add(ack.newly_acked);
        if let Some(steps) = self.cycle.up_acked.checked_div(self.cycle.up_acked_per_inc) {
            self.cycle.up_acked -= steps * self.cycle.up_acked_per_inc;
            let raised = u64::from(self.bounds.inflight_longterm) + u64::from(steps) * u64::from(self.mss);
            self.bounds.inflight_longterm = raised.min(u64::from(INFINITE - 1)) as u32;
        }
        if self.rounds.start {
            self.raise_inflight_longterm_slope();
        }
    }

    /// `AdaptLongTermModel`; true if it has changed the state.
    fn adapt_long_term_model(&mut self, ack: &Ack) -> bool {
        if self.cycle.ack_phase == AckPhase::ProbeStarting && self.rounds.start {
            self.cycle.ack_phase = AckPhase::ProbeFeedback;
        }
        if self.cycle.ack_phase == AckPhase::ProbeStopping && self.rounds.start {
            self.cycle.is_bw_probe_sample = false;
            self.cycle.ack_phase = AckPhase::Init;
            if self.state.is_probe_bw() {
                if !ack.sample.app_limited {
                    self.max_bw.advance();
                }
                if self.cycle.prev_probe_precautionary && !self.cycle.prev_probe_too_high {
                    self.start_probe_bw_refill(ack.now);
                    return true;
                }
            }
        }
        let sample = &ack.sample;
        if self.bounds.inflight_longterm != INFINITE
            && !self.is_loss_too_high(sample.lost, sample.tx_in_flight, ack.selective)
        {
            self.bounds.inflight_longterm = self.bounds.inflight_longterm.max(sample.tx_in_flight);
            if self.state == State::ProbeBwUp {
                self.probe_inflight_longterm_upward(ack);
            }
        }
        false
    }
}
