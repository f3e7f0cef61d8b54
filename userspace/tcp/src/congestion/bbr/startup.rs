//! Startup: the rate doubles each round trip until the path is full; Drain: the queue that this made goes (sections
//! 5.3.1 and 5.3.2).

use super::{Ack, Bbr, State};

/// BBRStartupFullLossCnt: separate ranges lost in a round trip.
const STARTUP_FULL_LOSS_COUNT: u8 = 6;

/// Round trips that Drain lasts at most.
const MAX_DRAIN_ROUNDS: u64 = 3;

impl Bbr {
    /// `CheckStartupDone`.
    pub(super) fn check_startup_done(&mut self, ack: &Ack) {
        if self.state != State::Startup {
            return;
        }
        if self.is_loss_high_in_startup(ack) {
            self.undo.state = Some(State::Startup);
            self.end_startup_by_congestion();
        }
        if self.full_pipe.reached {
            self.enter_drain();
        }
    }

    /// `CheckStartupHighLoss`: recovery has lasted for a round trip, in which too much was lost, in several places.
    fn is_loss_high_in_startup(&self, ack: &Ack) -> bool {
        let round = &self.loss_round;
        if !round.start || !round.had_loss || !self.recovering {
            return false;
        }
        if !ack.selective {
            return self.loss_counts_at_all();
        }
        round.ended_ranges >= STARTUP_FULL_LOSS_COUNT
            && self.is_loss_too_high(ack.sample.lost, ack.sample.tx_in_flight, true)
    }

    /// The path is taken for full because it loses or marks.
    pub(super) fn end_startup_by_congestion(&mut self) {
        self.full_pipe.now = true;
        self.full_pipe.reached = true;
        self.bounds.inflight_longterm = self.bdp().max(self.loss_round.inflight_latest);
    }

    fn enter_drain(&mut self) {
        self.state = State::Drain;
        self.cycle.drain_start_round = self.rounds.count;
    }

    /// `CheckDrainDone`.
    pub(super) fn check_drain_done(&mut self, ack: &Ack) {
        if self.state == State::Drain
            && (ack.in_flight <= self.inflight(self.bw, 100)
                || self.rounds.count > self.cycle.drain_start_round + MAX_DRAIN_ROUNDS)
        {
            self.start_probe_bw_down(ack.now);
        }
    }
}
