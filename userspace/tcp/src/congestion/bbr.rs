//! BBR: congestion control by a model of the path (draft-ietf-ccwg-bbr, "version 3").
//!
//! It measures the bandwidth that the path delivers and its least round-trip time, paces at the one, and keeps in
//! flight what the product of both needs. Loss tells it where the path has no room, not by how much to slow down: below
//! a rate of losses that is tolerated, it goes on. Names are those of the draft; constants in percent are those of its
//! tables.
//!
//! `model` has the estimates (section 5.5), `startup` Startup and Drain (5.3.1, 5.3.2), `probe_bw` the cycle in which
//! it looks for more bandwidth (5.3.3), `probe_rtt` the one in which it looks for a shorter round trip (5.3.4), `loss`
//! the bounds that losses set (5.5.10), and `control` what is made of all that: rate and window (5.6).

mod control;
mod loss;
mod model;
mod probe_bw;
mod probe_rtt;
mod startup;
#[cfg(test)]
mod tests;

use core::time::Duration;

use self::loss::{Bounds, LossRound, Undo};
use self::model::{Aggregation, FullPipe, MaxBandwidth, MinRtt, Rounds};
use self::probe_bw::Cycle;
use self::probe_rtt::ProbeRtt;
use super::{
    Acked, CongestionControl, INITIAL_SSTHRESH, LossContext, LostSegment, MAX_WINDOW, PathModel, RateSample, Sent,
    initial_window, micros,
};
use crate::config::Config;
use crate::time::Instant;

/// BBR.LossThresh as the draft has it, in percent. [`Config::bbr_loss_threshold`] may have another.
pub(crate) const LOSS_THRESHOLD: u32 = 2;

/// BBR.state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Startup,
    Drain,
    ProbeBwDown,
    ProbeBwCruise,
    ProbeBwRefill,
    ProbeBwUp,
    ProbeRtt,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Drain => "drain",
            Self::ProbeBwDown => "probe_bw_down",
            Self::ProbeBwCruise => "probe_bw_cruise",
            Self::ProbeBwRefill => "probe_bw_refill",
            Self::ProbeBwUp => "probe_bw_up",
            Self::ProbeRtt => "probe_rtt",
        }
    }

    /// BBR.pacing_gain, in percent.
    fn pacing_gain(self) -> u32 {
        match self {
            Self::Startup => 277,
            Self::Drain => 50,
            Self::ProbeBwDown => 90,
            Self::ProbeBwCruise | Self::ProbeBwRefill | Self::ProbeRtt => 100,
            Self::ProbeBwUp => 125,
        }
    }

    /// BBR.cwnd_gain, in percent.
    fn cwnd_gain(self) -> u32 {
        match self {
            Self::ProbeBwUp => 225,
            Self::ProbeRtt => 50,
            _ => 200,
        }
    }

    /// `IsInAProbeBWState`.
    fn is_probe_bw(self) -> bool {
        matches!(
            self,
            Self::ProbeBwDown | Self::ProbeBwCruise | Self::ProbeBwRefill | Self::ProbeBwUp
        )
    }

    /// `IsProbingBW`.
    fn is_accelerating(self) -> bool {
        matches!(self, Self::Startup | Self::ProbeBwRefill | Self::ProbeBwUp)
    }
}

/// An acknowledgment with a rate sample: RS and C of the draft.
#[derive(Clone, Copy, Debug)]
struct Ack {
    now: Instant,
    /// RS.newly_acked.
    newly_acked: u32,
    /// RS.rtt.
    rtt: Option<Duration>,
    /// C.srtt.
    srtt: Option<Duration>,
    /// The path reorders.
    reordering: bool,
    /// C.inflight.
    in_flight: u32,
    selective: bool,
    limited: bool,
    sample: RateSample,
}

impl Ack {
    /// RS.delivery_rate; zero: unknown.
    fn rate(&self) -> u64 {
        self.sample.rate.unwrap_or(0)
    }
}

/// BBR's state of one connection. Amounts are bytes, rates bytes per second.
#[derive(Clone, Debug)]
pub struct Bbr {
    state: State,
    /// C.cwnd.
    cwnd: u32,
    /// The last known good window: that before a recovery or ProbeRTT.
    prior_cwnd: u32,
    /// C.pacing_rate; zero before there is a round-trip time.
    pacing_rate: u64,
    mss: u32,
    /// Nothing has been acknowledged yet.
    is_new: bool,
    /// In fast recovery, or in the recovery after a timeout.
    recovering: bool,
    /// BBR.idle_restart.
    idle_restart: bool,
    /// BBR.LossThresh, in percent.
    loss_threshold: u32,
    /// C.delivered.
    delivered: u64,
    /// BBR.bw.
    bw: u64,
    max_bw: MaxBandwidth,
    min_rtt: MinRtt,
    rounds: Rounds,
    full_pipe: FullPipe,
    aggregation: Aggregation,
    loss_round: LossRound,
    bounds: Bounds,
    undo: Undo,
    cycle: Cycle,
    probe_rtt: ProbeRtt,
}

impl Bbr {
    /// The state of a new connection with segments of at most `mss` bytes.
    pub fn new(mss: u32) -> Self {
        Self {
            state: State::Startup,
            cwnd: initial_window(mss),
            prior_cwnd: 0,
            pacing_rate: 0,
            mss,
            is_new: true,
            recovering: false,
            idle_restart: false,
            loss_threshold: LOSS_THRESHOLD,
            delivered: 0,
            bw: 0,
            max_bw: MaxBandwidth::default(),
            min_rtt: MinRtt::default(),
            rounds: Rounds::default(),
            full_pipe: FullPipe::default(),
            aggregation: Aggregation::default(),
            loss_round: LossRound::default(),
            bounds: Bounds::NONE,
            undo: Undo::default(),
            cycle: Cycle::default(),
            probe_rtt: ProbeRtt::default(),
        }
    }

    /// `OnInit`, at the first event, since there is no time before.
    fn begin(&mut self, now: Instant) {
        if self.is_new {
            self.is_new = false;
            self.min_rtt.begin(now);
            self.aggregation.restart(now);
        }
    }

    /// `UpdateModelAndState`.
    fn update_model_and_state(&mut self, ack: &Ack) {
        self.update_latest_delivery_signals(ack);
        self.update_congestion_signals(ack);
        self.aggregation
            .update(ack, &self.rounds, self.bw, self.cwnd, self.full_pipe.reached);
        self.full_pipe.check(ack, self.rounds.start);
        self.check_startup_done(ack);
        self.check_drain_done(ack);
        self.update_probe_bw_cycle_phase(ack);
        self.update_min_rtt(ack);
        self.check_probe_rtt(ack);
        self.advance_latest_delivery_signals(ack);
        self.bw = self.max_bw.get().min(self.bounds.bw_shortterm);
    }

    /// `StartRound`.
    fn start_round(&mut self, now: Instant) {
        self.rounds.next_delivered = self.delivered;
        self.rounds.since = now;
    }

    /// `SaveCwnd`.
    fn save_cwnd(&mut self) {
        let in_probe_rtt = self.state == State::ProbeRtt;
        self.prior_cwnd = if self.recovering || in_probe_rtt {
            self.prior_cwnd.max(self.cwnd)
        } else {
            self.cwnd
        };
    }

    /// `RestoreCwnd`.
    fn restore_cwnd(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }
}

impl CongestionControl for Bbr {
    fn window(&self) -> u32 {
        self.cwnd
    }

    /// Losses set bounds of another kind, so this only tells whether the path was found to be full once.
    fn ssthresh(&self) -> u32 {
        if self.full_pipe.reached {
            self.cwnd.max(self.mss.saturating_mul(2))
        } else {
            INITIAL_SSTHRESH
        }
    }

    fn pacing_rate(&self) -> Option<u64> {
        (self.pacing_rate > 0).then_some(self.pacing_rate)
    }

    fn configure(&mut self, config: &Config) {
        self.loss_threshold = u32::from(config.bbr_loss_threshold);
    }

    fn wants_rate_samples(&self) -> bool {
        true
    }

    fn drives_recovery(&self) -> bool {
        true
    }

    fn path_model(&self) -> Option<PathModel> {
        Some(PathModel {
            state: self.state.name(),
            bandwidth: self.bw,
            min_rtt: self.min_rtt.get(),
            pacing_gain: self.state.pacing_gain(),
            cwnd_gain: self.state.cwnd_gain(),
        })
    }

    fn set_window(&mut self, cwnd: u32) {
        self.cwnd = cwnd.min(MAX_WINDOW);
    }

    /// `HandleRestartFromIdle`: what is sent after an idle time leaves at the bandwidth of the path.
    fn on_sent(&mut self, sent: &Sent, mss: u32) {
        if sent.flight > sent.bytes || !sent.app_limited || sent.again {
            return;
        }
        self.mss = mss;
        self.begin(sent.now);
        self.idle_restart = true;
        self.aggregation.restart(sent.now);
        if self.state.is_probe_bw() {
            self.set_pacing_rate(100);
        } else if self.state == State::ProbeRtt {
            self.check_probe_rtt_done(sent.now);
        }
    }

    /// `UpdateOnACK`.
    fn on_ack(&mut self, acked: &Acked, mss: u32) {
        self.mss = mss;
        self.begin(acked.now);
        self.init_pacing_rate(acked.srtt.or(acked.rtt));
        let Some(delivery) = acked.delivery else {
            return self.grow_without_sample(acked.bytes);
        };
        self.delivered = delivery.delivered;
        let Some(mut sample) = delivery.sample else {
            return self.grow_without_sample(acked.bytes);
        };
        sample.app_limited = self.is_app_limited(&sample);
        let ack = Ack {
            now: acked.now,
            newly_acked: acked.bytes,
            rtt: acked.rtt,
            srtt: acked.srtt,
            reordering: acked.reordering,
            in_flight: delivery.in_flight,
            selective: delivery.selective,
            limited: acked.limited,
            sample,
        };
        self.update_model_and_state(&ack);
        self.set_pacing_rate(self.state.pacing_gain());
        self.set_cwnd(&ack);
    }

    fn on_lost(&mut self, lost: &LostSegment, context: &LossContext, mss: u32) {
        self.mss = mss;
        self.begin(context.now);
        self.delivered = context.delivered;
        self.handle_lost_segment(lost, context);
    }

    /// `OnEnterFastRecovery`.
    fn on_congestion(&mut self, now: Instant, _flight: u32, mss: u32) {
        self.mss = mss;
        self.begin(now);
        self.save_state_upon_loss();
        self.note_loss(now);
        self.recovering = true;
        self.bound_cwnd();
    }

    /// The draft has no answer of its own to marks, but that they count as congestion (section 3.7).
    fn on_mark(&mut self, now: Instant, _flight: u32, mss: u32) {
        self.mss = mss;
        self.begin(now);
        self.handle_mark(now);
        self.bound_cwnd();
    }

    /// `OnEnterRTO`.
    fn on_timeout(&mut self, now: Instant, _flight: u32, repeated: bool, mss: u32) {
        self.mss = mss;
        self.begin(now);
        if !repeated {
            self.save_state_upon_loss();
        }
        self.note_loss(now);
        self.recovering = true;
        self.cwnd = mss;
    }

    fn on_recovered(&mut self, mss: u32) {
        self.mss = mss;
        if self.recovering {
            self.recovering = false;
            self.restore_cwnd();
        }
        self.bound_cwnd();
    }

    /// The model is kept: text that is sent next leaves at the bandwidth of the path, and not in a burst.
    fn on_idle(&mut self, mss: u32) {
        self.mss = mss;
        self.recovering = false;
        self.bound_cwnd();
    }

    /// `HandleSpuriousLossDetection`.
    fn undo(&mut self, now: Instant) {
        self.recovering = false;
        self.handle_spurious_loss(now);
    }
}
