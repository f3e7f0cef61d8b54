//! The answer to losses and marks: bounds on rate and window (section 5.5.10), and the way back if nothing was lost
//! after all (5.5.11).

use super::{Ack, Bbr, LOSS_THRESHOLD, LossContext, LostSegment, State};
use crate::seq::SeqNumber;
use crate::time::Instant;

/// No bound on what is in flight.
pub(super) const INFINITE: u32 = u32::MAX;

/// BBR.Beta, in percent.
const BETA: u32 = 70;

fn beta(amount: u64) -> u64 {
    (u128::from(amount) * u128::from(BETA) / 100) as u64
}

/// The bounds that losses have set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// BBR.inflight_longterm.
    pub(super) inflight_longterm: u32,
    /// BBR.inflight_shortterm.
    pub(super) inflight_shortterm: u32,
    /// BBR.bw_shortterm.
    pub(super) bw_shortterm: u64,
}

impl Bounds {
    /// There are none.
    pub(super) const NONE: Self = Self {
        inflight_longterm: INFINITE,
        inflight_shortterm: INFINITE,
        bw_shortterm: u64::MAX,
    };

    /// `ResetShortTermModel`.
    pub(super) fn reset_short_term(&mut self) {
        self.inflight_shortterm = INFINITE;
        self.bw_shortterm = u64::MAX;
    }
}

/// The state before the last losses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undo {
    /// The state that losses ended.
    pub(super) state: Option<State>,
    bounds: Bounds,
    cwnd: u32,
}

impl Default for Undo {
    fn default() -> Self {
        Self {
            state: None,
            bounds: Bounds::NONE,
            cwnd: 0,
        }
    }
}

/// A round trip, as losses see it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LossRound {
    /// BBR.loss_round_delivered.
    delivered: u64,
    /// BBR.loss_round_start: the acknowledgment at hand begins a round trip.
    pub(super) start: bool,
    /// When the present one began.
    since: Instant,
    /// BBR.is_loss_in_round.
    is_loss: bool,
    /// A mark was echoed in this round trip.
    is_marked: bool,
    /// The round trip that ends with the acknowledgment at hand had a loss.
    pub(super) had_loss: bool,
    /// Separate ranges lost in this round trip, and in the one before.
    ranges: u8,
    pub(super) ended_ranges: u8,
    /// The end of the last of them.
    lost_until: Option<SeqNumber>,
    /// BBR.bw_latest.
    bw_latest: u64,
    /// BBR.inflight_latest.
    pub(super) inflight_latest: u32,
}

impl LossRound {
    /// `ResetCongestionSignals`.
    pub(super) fn reset(&mut self) {
        self.is_loss = false;
        self.is_marked = false;
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }
}

impl Bbr {
    /// Whether losses slow it down at all.
    pub(super) fn loss_counts_at_all(&self) -> bool {
        self.loss_threshold < 100
    }

    /// `IsInflightTooHigh`: of `tx_in_flight` bytes, `lost` were lost.
    pub(super) fn is_loss_too_high(&self, lost: u32, tx_in_flight: u32, selective: bool) -> bool {
        if !self.loss_counts_at_all() {
            return false;
        }
        if !selective {
            return lost > 0;
        }
        u64::from(lost) * 100 > u64::from(tx_in_flight) * u64::from(self.loss_threshold)
    }

    /// `UpdateLatestDeliverySignals`.
    pub(super) fn update_latest_delivery_signals(&mut self, ack: &Ack) {
        let too_soon = self.is_too_soon(ack.now.since(self.loss_round.since));
        let round = &mut self.loss_round;
        round.bw_latest = round.bw_latest.max(ack.rate());
        round.inflight_latest = round.inflight_latest.max(ack.sample.delivered);
        round.start = ack.sample.prior_delivered >= round.delivered && !too_soon;
        if round.start {
            round.since = ack.now;
            round.delivered = self.delivered;
            round.ended_ranges = core::mem::take(&mut round.ranges);
            round.lost_until = None;
        }
    }

    /// `AdvanceLatestDeliverySignals`.
    pub(super) fn advance_latest_delivery_signals(&mut self, ack: &Ack) {
        if self.loss_round.start {
            self.loss_round.bw_latest = ack.rate();
            self.loss_round.inflight_latest = ack.sample.delivered;
        }
    }

    /// `UpdateCongestionSignals`.
    pub(super) fn update_congestion_signals(&mut self, ack: &Ack) {
        self.update_max_bw(ack);
        if !self.loss_round.start {
            return;
        }
        self.loss_round.had_loss = core::mem::take(&mut self.loss_round.is_loss);
        let marked = core::mem::take(&mut self.loss_round.is_marked);
        let lossy = self.loss_round.had_loss && self.is_short_term_loss(ack);
        if (lossy || marked) && !self.state.is_accelerating() {
            self.lower_short_term_bounds();
        }
    }

    /// Whether the losses of a round trip in which it does not accelerate slow it down: with the draft's threshold all
    /// do, to what was delivered; with a higher one those beyond it.
    fn is_short_term_loss(&self, ack: &Ack) -> bool {
        self.loss_threshold <= LOSS_THRESHOLD
            || self.is_loss_too_high(ack.sample.lost, ack.sample.tx_in_flight, ack.selective)
    }

    /// `InitLowerBounds` and `LossLowerBounds`.
    fn lower_short_term_bounds(&mut self) {
        let bounds = &mut self.bounds;
        if bounds.bw_shortterm == u64::MAX {
            bounds.bw_shortterm = self.max_bw.get();
        }
        if bounds.inflight_shortterm == INFINITE {
            bounds.inflight_shortterm = self.cwnd;
        }
        let latest = &self.loss_round;
        bounds.bw_shortterm = latest.bw_latest.max(beta(bounds.bw_shortterm));
        bounds.inflight_shortterm = latest
            .inflight_latest
            .max(beta(bounds.inflight_shortterm.into()) as u32);
    }

    /// `NoteLoss`.
    pub(super) fn note_loss(&mut self, now: Instant) {
        if !self.loss_round.is_loss {
            self.loss_round.delivered = self.delivered;
            self.loss_round.since = now;
            if !self.recovering {
                self.save_state_upon_loss();
            }
        }
        self.loss_round.is_loss = true;
    }

    /// `SaveStateUponLoss`, with `SaveCwnd`.
    pub(super) fn save_state_upon_loss(&mut self) {
        self.save_cwnd();
        self.undo = Undo {
            state: None,
            bounds: self.bounds,
            cwnd: if self.recovering { self.prior_cwnd } else { self.cwnd },
        };
    }

    /// `HandleLostPacket`.
    pub(super) fn handle_lost_segment(&mut self, lost: &LostSegment, context: &LossContext) {
        self.note_loss(context.now);
        let round = &mut self.loss_round;
        if round.lost_until != Some(lost.seq) {
            round.ranges = round.ranges.saturating_add(1);
        }
        round.lost_until = Some(lost.seq + lost.bytes);
        if self.cycle.is_bw_probe_sample && self.is_loss_too_high(lost.lost, lost.tx_in_flight, context.selective) {
            let in_flight = self.inflight_at_loss(lost);
            self.handle_inflight_too_high(in_flight, lost.app_limited, context.now);
        }
    }

    /// `InflightAtLoss`: what was in flight when the losses went beyond what is tolerated.
    fn inflight_at_loss(&self, lost: &LostSegment) -> u32 {
        let before = lost.tx_in_flight.saturating_sub(lost.bytes);
        let lost_before = lost.lost.saturating_sub(lost.bytes);
        let tolerated = u64::from(before) * u64::from(self.loss_threshold);
        let room = tolerated.saturating_sub(u64::from(lost_before) * 100);
        let prefix = room.checked_div(u64::from(100 - self.loss_threshold.min(99)));
        (u64::from(before) + prefix.unwrap_or(0)).min(u64::from(lost.tx_in_flight)) as u32
    }

    /// `HandleInflightTooHigh`.
    fn handle_inflight_too_high(&mut self, tx_in_flight: u32, app_limited: bool, now: Instant) {
        self.cycle.prev_probe_too_high = true;
        self.cycle.is_bw_probe_sample = false;
        if !app_limited {
            let target = beta(self.target_inflight().into()) as u32;
            self.bounds.inflight_longterm = tx_in_flight.max(target);
        }
        if self.state == State::ProbeBwUp {
            self.undo.state = Some(State::ProbeBwUp);
            self.start_probe_bw_down(now);
        }
    }

    /// A mark: it counts as much as too many losses.
    pub(super) fn handle_mark(&mut self, now: Instant) {
        self.note_loss(now);
        self.loss_round.is_marked = true;
        match self.state {
            State::Startup => self.end_startup_by_congestion(),
            _ if self.cycle.is_bw_probe_sample => {
                let in_flight = self.loss_round.inflight_latest;
                self.handle_inflight_too_high(in_flight, false, now);
            }
            _ => {}
        }
    }

    /// `HandleSpuriousLossDetection`.
    pub(super) fn handle_spurious_loss(&mut self, now: Instant) {
        self.cwnd = self.cwnd.max(self.undo.cwnd);
        self.loss_round.is_loss = false;
        self.full_pipe.reset(0);
        let before = self.undo.bounds;
        let bounds = &mut self.bounds;
        bounds.bw_shortterm = bounds.bw_shortterm.max(before.bw_shortterm);
        bounds.inflight_shortterm = bounds.inflight_shortterm.max(before.inflight_shortterm);
        bounds.inflight_longterm = bounds.inflight_longterm.max(before.inflight_longterm);
        match self.undo.state.take() {
            Some(State::Startup) if self.state != State::Startup => {
                self.full_pipe.reached = false;
                if self.state != State::ProbeRtt {
                    self.state = State::Startup;
                }
            }
            Some(State::ProbeBwUp) if self.state != State::ProbeBwUp && self.state != State::ProbeRtt => {
                self.start_probe_bw_refill(now);
            }
            _ => {}
        }
    }
}
