//! Losses, as acknowledgments and RACK's timer show them, and the fast recoveries that they begin (RFC 6675, RFC 6937,
//! RFC 8985).

use super::{Common, Context, Tcb, Undo};
use crate::counters::Counter;
use crate::recovery::frto::Frto;
use crate::recovery::prr::Prr;
use crate::recovery::scoreboard::{DUP_THRESH, Delivered};
use crate::recovery::{LossDetection, Phase};
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::Segment;

impl Tcb {
    /// Marks what an acknowledgment shows to be lost. Returns whether something that had been sent again was lost once
    /// more.
    pub(super) fn detect_loss<T>(
        &mut self,
        delivered: &Delivered,
        advanced: bool,
        segment: &Segment<'_>,
        context: &mut Context<'_, T>,
    ) -> bool {
        if self.flight() == 0 {
            return false;
        }
        let mss = u32::from(self.mss);
        if !self.sack_permitted {
            let (una, nxt) = (self.snd_una, self.snd_nxt);
            let sending = &mut *self.sending;
            match sending.phase {
                // After a timeout the duplicates are answers to what was sent again (RFC 6582, section 4.1).
                Phase::Open
                    if u32::from(sending.duplicate_acks) >= DUP_THRESH
                        && sending
                            .recovery_point
                            .is_none_or(|point| !point.is_unacknowledged(una, nxt)) =>
                {
                    sending.scoreboard.mark_head_lost();
                }
                // A partial acknowledgment shows the next loss (RFC 6582, section 3.2, step 3).
                Phase::Recovery if advanced => sending.scoreboard.mark_head_lost(),
                _ => {}
            }
            return false;
        }
        match context.config.loss_detection {
            LossDetection::Sack => {
                if delivered.newly_sacked > 0 {
                    self.sending.scoreboard.mark_lost_by_sack(mss);
                }
                false
            }
            LossDetection::Rack => {
                self.recall_reordering(context.config, context.now);
                let echo_before = match (self.timestamps, segment.options.timestamps, delivered.newest) {
                    (true, Some(timestamps), Some((sent_at, ..))) => {
                        SeqNumber(timestamps.echo).before(SeqNumber(self.timestamp_now(sent_at)))
                    }
                    _ => false,
                };
                let sending = &mut *self.sending;
                if sending.rack.update(delivered, echo_before, context.now) {
                    sending.scoreboard.remember_newest(delivered);
                }
                (delivered.bytes > 0 || self.sending.scoreboard.sacked() > 0) && self.rack_loss(context.now)
            }
        }
    }

    /// RACK's look at what is outstanding, now and by its timer. Returns whether something that had been sent again was
    /// lost once more.
    pub(crate) fn rack_loss(&mut self, now: Instant) -> bool {
        let (round_trips, mss) = (self.round_trips(), u32::from(self.mss));
        let sending = &mut *self.sending;
        let in_recovery = sending.phase != Phase::Open;
        let overdue = sending
            .rack
            .detect_loss(&mut sending.scoreboard, in_recovery, round_trips, mss, now);
        sending.deadlines.reorder = overdue.wait.map_or(Instant::NEVER, |wait| now + wait);
        overdue.lost_again
    }

    /// Whether what is lost calls for a fast recovery. After a timeout, the loss of what was sent again does: it is a
    /// second indication of congestion (RFC 5681, section 4.3), and slow start would send all of it once more at each
    /// acknowledgment that shows it to be lost.
    pub(crate) fn needs_recovery(&self, lost_again: bool) -> bool {
        let sending = &*self.sending;
        match sending.phase {
            Phase::Open => sending.scoreboard.lost() > 0,
            Phase::Loss => lost_again,
            Phase::Recovery => false,
        }
    }

    /// Enters fast recovery; `flight` bytes were outstanding when the loss was found.
    pub(crate) fn begin_recovery<T>(&mut self, flight: u32, context: &mut Context<'_, T>) {
        context.counters.bump(Counter::Recoveries);
        let mss = u32::from(self.mss);
        self.congestion(context.config).on_congestion(context.now, flight, mss);
        let sending = &mut *self.sending;
        sending.phase = Phase::Recovery;
        sending.recovery_point = Some(self.snd_nxt);
        sending.prr = Prr::new(flight);
        sending.undo = Some(Undo::new(self.snd_una));
        sending.frto = Frto::Off;
        sending.tail_probe = None;
        sending.deadlines.probe = Instant::NEVER;
    }

    pub(super) fn end_recovery<T>(&mut self, context: &Context<'_, T>) {
        let mss = u32::from(self.mss);
        self.congestion(context.config).on_recovered(mss);
        let timeout = self.rto.timeout_micros(context.rto_bounds);
        let sending = &mut *self.sending;
        sending.phase = Phase::Open;
        sending.frto = Frto::Off;
        sending.duplicate_acks = 0;
        sending.rack.recovered();
        // What was sent again may still be on its way to the peer, which reports it as a duplicate then.
        sending.undo = sending.undo.filter(|undo| undo.sent);
        if let Some(undo) = &mut sending.undo {
            undo.until = context.now.plus_micros(timeout);
        }
    }

    /// Fast recovery: the window is what proportional rate reduction makes of `delivered` bytes.
    pub(crate) fn reduce_window(&mut self, delivered: u32, safe: bool, config: &Common) {
        let mss = u32::from(self.mss);
        let (pipe, ssthresh) = (self.pipe(), self.ssthresh());
        let cwnd = self.sending.prr.window(delivered, pipe, ssthresh, safe, mss);
        self.congestion(config).set_window(cwnd.max(mss));
    }
}
