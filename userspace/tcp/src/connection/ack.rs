//! What an acknowledgment tells the sender (RFC 9293, section 3.10.7.4, fifth check; RFC 5681, 6675, 8985).

use core::time::Duration;

use super::{Context, Tcb, Undo};
use crate::congestion::{Acked, CongestionControl};
use crate::counters::Counter;
use crate::recovery::prr::Prr;
use crate::recovery::scoreboard::{DUP_THRESH, Delivered};
use crate::recovery::{LossDetection, Phase};
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::options::SackBlock;
use crate::wire::{Flags, Segment};

/// Round-trip times above this are a peer's nonsense in TSecr, in milliseconds.
const MAX_ECHOED_RTT: u32 = 60_000;

/// SRTT to assume before the first measurement.
const UNKNOWN_RTT: Duration = Duration::from_secs(1);

/// The first block of an acknowledgment is a D-SACK if it lies below the acknowledgment or within the second block
/// (RFC 2883, section 4).
fn is_dsack(blocks: &[SackBlock], ack: SeqNumber) -> bool {
    match *blocks {
        [(left, right), ..] if left.before(ack) && right.at_or_before(ack) => true,
        [(left, right), (outer_left, outer_right), ..] => {
            left.at_or_after(outer_left) && right.at_or_before(outer_right)
        }
        _ => false,
    }
}

impl Undo {
    /// Whether an echoed timestamp is of a retransmission, but not of the last one: its acknowledgment was lost, and how long
    /// ago it arrived is unknown. (One of the original says that the path has become slow, and counts.)
    fn is_ambiguous(&self, echo: SeqNumber) -> bool {
        self.stamps
            .is_some_and(|(first, last)| echo.at_or_after(SeqNumber(first)) && echo.before(SeqNumber(last)))
    }
}

impl Tcb {
    /// What is thought to be in the network (RFC 6675, `pipe`).
    pub(crate) fn pipe(&self) -> u32 {
        // Without SACK each duplicate acknowledgment stands for a segment that has left.
        let left = u32::from(self.duplicate_acks) * u32::from(self.mss);
        self.flight()
            .saturating_sub(self.scoreboard.sacked() + self.scoreboard.lost())
            .saturating_sub(left)
    }

    pub(crate) fn srtt(&self) -> Duration {
        self.rto.srtt().unwrap_or(UNKNOWN_RTT)
    }

    /// Whether selective acknowledgments enlarge the window: after a timeout, and on a path that is known to reorder, where
    /// they say little about loss. Otherwise the first duplicates leave it alone (RFC 3042).
    fn grows_by_sack(&self) -> bool {
        self.sack_permitted && (self.phase == Phase::Loss || self.rack.reordering_seen())
    }

    /// Takes in an acknowledgment between SND.UNA and SND.NXT.
    pub(crate) fn take_acknowledgment<T>(&mut self, segment: &Segment<'_>, window: u32, context: &mut Context<'_, T>) {
        let mss = u32::from(self.mss);
        let flight = self.flight();
        let lost_before = self.scoreboard.lost();
        let advanced = segment.ack.after(self.snd_una);
        let duplicate = !advanced && self.is_duplicate_ack(segment, window);
        let mut delivered = Delivered::default();
        let blocks = segment.options.sack.as_slice();
        let dsack = self.sack_permitted && is_dsack(blocks, segment.ack);
        if advanced {
            self.advance_una(segment.ack, &mut delivered, context.now);
        }
        if self.sack_permitted {
            self.scoreboard.sack(blocks, self.snd_una, self.snd_nxt, &mut delivered);
        } else if duplicate && usize::from(self.duplicate_acks) + 1 < self.scoreboard.len() {
            self.duplicate_acks += 1;
            delivered.bytes += mss;
        }
        let rtt = self.measure(&delivered, advanced, segment, context);
        if dsack {
            context.counters.bump(Counter::DsacksIn);
            self.rack.dsack(self.snd_una, self.snd_nxt);
        }
        self.end_probe(segment.ack, dsack, flight, context.now);
        self.detect_spurious(advanced, dsack, segment, context);
        if advanced && self.phase != Phase::Open && segment.ack.at_or_after(self.recovery_point) {
            self.end_recovery();
        }
        self.detect_loss(&delivered, advanced, segment, context);
        let newly_lost = self.scoreboard.lost() > lost_before;
        if self.phase == Phase::Open && self.scoreboard.lost() > 0 {
            self.begin_recovery(flight, context);
        }
        if self.phase == Phase::Recovery {
            let pipe = self.pipe();
            let ssthresh = self.congestion.ssthresh();
            let safe = advanced && !newly_lost;
            let cwnd = self.prr.window(delivered.bytes, pipe, ssthresh, safe, mss);
            self.congestion.set_window(cwnd.max(mss));
        } else if delivered.bytes > 0 && (advanced || self.grows_by_sack()) {
            let slow_start = self.congestion.window() < self.congestion.ssthresh();
            let acked = Acked {
                now: context.now,
                bytes: delivered.bytes,
                flight,
                limited: self.cwnd_limited || (slow_start && flight.saturating_mul(2) >= self.congestion.window()),
                rtt,
                srtt: self.rto.srtt(),
                snd_una: self.snd_una,
                snd_nxt: self.snd_nxt,
            };
            self.congestion.on_ack(&acked, mss);
        }
        self.take_congestion_echo(segment, flight, context);
        if advanced {
            self.rto.reset_backoff();
            if self.flight() == 0 {
                self.stop_retransmit_timer();
            } else {
                self.restart_retransmit_timer(context.now, context.config);
            }
            self.schedule_probe(context);
        }
    }

    fn advance_una(&mut self, ack: SeqNumber, delivered: &mut Delivered, now: Instant) {
        let acked = ack - self.snd_una;
        let segments_before = self.scoreboard.len();
        self.scoreboard.acknowledge(ack, delivered);
        let fin_acked = self.fin_sent && ack == self.snd_nxt;
        self.send_queue.consume((acked - u32::from(fin_acked)) as usize);
        self.snd_una = ack;
        self.progress_at = now;
        if self.phase == Phase::Open {
            self.duplicate_acks = 0;
        } else {
            // One segment filled the hole; the others had shown themselves by duplicates (as in Linux).
            let others = (segments_before - self.scoreboard.len()).saturating_sub(1);
            let eaten = others.min(usize::from(self.duplicate_acks)) as u16;
            self.duplicate_acks -= eaten;
            delivered.bytes = delivered.bytes.saturating_sub(u32::from(eaten) * u32::from(self.mss));
        }
    }

    /// RFC 5681, section 2.
    fn is_duplicate_ack(&self, segment: &Segment<'_>, window: u32) -> bool {
        segment.ack == self.snd_una
            && self.flight() > 0
            && segment.payload.is_empty()
            && !segment.flags.intersects(Flags::SYN | Flags::FIN)
            && window == self.snd_wnd
    }

    /// Feeds the retransmission timeout from what was sent only once, or else from an echoed timestamp.
    fn measure<T>(
        &mut self,
        delivered: &Delivered,
        advanced: bool,
        segment: &Segment<'_>,
        context: &Context<'_, T>,
    ) -> Option<Duration> {
        // While the timer is backed off, acknowledgments may have been lost for long: what they report now arrived long ago.
        let timed = delivered
            .timed
            .filter(|_| self.rto.backoffs() == 0)
            .map(|sent_at| context.now.since(sent_at));
        let echoed = segment
            .options
            .timestamps
            .filter(|timestamps| advanced && self.timestamps && timestamps.echo != 0)
            .filter(|timestamps| {
                !self
                    .undo
                    .is_some_and(|undo| undo.is_ambiguous(SeqNumber(timestamps.echo)))
            })
            .map(|timestamps| self.timestamp_now(context.now).wrapping_sub(timestamps.echo))
            .filter(|&millis| millis <= MAX_ECHOED_RTT)
            .map(|millis| Duration::from_millis(u64::from(millis) + 1));
        // Both can only be too long. An echo counts whole milliseconds, so it is rounded up.
        let rtt = match (timed, echoed) {
            (Some(timed), Some(echoed)) => timed.min(echoed),
            (timed, echoed) => timed.or(echoed)?,
        };
        self.rto.sample(rtt, context.config.rto_min, context.config.rto_max);
        Some(rtt)
    }

    fn detect_loss<T>(
        &mut self,
        delivered: &Delivered,
        advanced: bool,
        segment: &Segment<'_>,
        context: &mut Context<'_, T>,
    ) {
        self.deadlines.reorder = Instant::NEVER;
        if self.flight() == 0 {
            return;
        }
        let mss = u32::from(self.mss);
        if !self.sack_permitted {
            match self.phase {
                // After a timeout the duplicates are answers to what was sent again (RFC 6582, section 4.1).
                Phase::Open
                    if u32::from(self.duplicate_acks) >= DUP_THRESH
                        && self.snd_una.at_or_after(self.recovery_point) =>
                {
                    self.scoreboard.mark_head_lost();
                }
                // A partial acknowledgment shows the next loss (RFC 6582, section 3.2, step 3).
                Phase::Recovery if advanced => self.scoreboard.mark_head_lost(),
                _ => {}
            }
            return;
        }
        match context.config.loss_detection {
            LossDetection::Sack => {
                if delivered.newly_sacked > 0 {
                    self.scoreboard.mark_lost_by_sack(mss);
                }
            }
            LossDetection::Rack => {
                let echo_before = match (self.timestamps, segment.options.timestamps, delivered.newest) {
                    (true, Some(timestamps), Some((sent_at, ..))) => {
                        SeqNumber(timestamps.echo).before(SeqNumber(self.timestamp_now(sent_at)))
                    }
                    _ => false,
                };
                self.rack.update(delivered, echo_before, context.now);
                if delivered.bytes > 0 || self.scoreboard.sacked() > 0 {
                    self.rack_loss(context.now);
                }
            }
        }
    }

    /// RACK's look at what is outstanding, now and by its timer.
    pub(crate) fn rack_loss(&mut self, now: Instant) {
        let (srtt, mss) = (self.srtt(), u32::from(self.mss));
        let in_recovery = self.phase != Phase::Open;
        let again = self.rack.detect_loss(&mut self.scoreboard, in_recovery, srtt, mss, now);
        self.deadlines.reorder = again.unwrap_or(Instant::NEVER);
    }

    /// Enters fast recovery; `flight` bytes were outstanding when the loss was found.
    pub(crate) fn begin_recovery<T>(&mut self, flight: u32, context: &mut Context<'_, T>) {
        context.counters.bump(Counter::Recoveries);
        self.phase = Phase::Recovery;
        self.recovery_point = self.snd_nxt;
        self.congestion.on_congestion(context.now, flight, u32::from(self.mss));
        self.prr = Prr::new(flight);
        self.undo = Some(Undo::default());
        self.tail_probe = None;
        self.deadlines.probe = Instant::NEVER;
    }

    fn end_recovery(&mut self) {
        if self.phase == Phase::Recovery {
            self.congestion.on_recovered(u32::from(self.mss));
        }
        self.phase = Phase::Open;
        self.duplicate_acks = 0;
        self.rack.recovered();
    }

    /// Eifel (RFC 3522, RFC 4015): the first acknowledgment that moves SND.UNA echoes a timestamp from before the first
    /// retransmission, so the original arrived. Or the peer reports every retransmission as a duplicate (RFC 3708).
    fn detect_spurious<T>(&mut self, advanced: bool, dsack: bool, segment: &Segment<'_>, context: &mut Context<'_, T>) {
        let Some(undo) = &mut self.undo else { return };
        if dsack {
            undo.retransmits = undo.retransmits.saturating_sub(1);
        }
        let mut spurious = dsack && undo.sent && undo.retransmits == 0;
        if advanced && !undo.answered {
            undo.answered = true;
            if let (Some((first, _)), true, Some(timestamps)) =
                (undo.stamps, self.timestamps, segment.options.timestamps)
            {
                spurious |= timestamps.echo != 0 && SeqNumber(timestamps.echo).before(SeqNumber(first));
            }
        }
        if spurious {
            context.counters.bump(Counter::SpuriousRetransmits);
            self.undo = None;
            self.congestion.undo();
            self.scoreboard.unmark_lost();
            self.phase = Phase::Open;
            self.duplicate_acks = 0;
        }
    }

    /// RFC 3168, section 6.1.2: an echo of congestion counts once per round trip.
    fn take_congestion_echo<T>(&mut self, segment: &Segment<'_>, flight: u32, context: &mut Context<'_, T>) {
        if !self.ecn || !segment.flags.contains(Flags::ECE) || self.phase != Phase::Open {
            return;
        }
        if self.snd_una.before(self.cwr_point) {
            return;
        }
        context.counters.bump(Counter::CongestionEchoes);
        let mss = u32::from(self.mss);
        self.undo = None;
        self.congestion.on_congestion(context.now, flight, mss);
        self.congestion.on_recovered(mss);
        self.cwr_point = self.snd_nxt;
        self.cwr_pending = true;
    }

    /// Ends the episode of a tail loss probe (RFC 8985, section 7.4).
    fn end_probe(&mut self, ack: SeqNumber, dsack: bool, flight: u32, now: Instant) {
        let Some((end, retransmission)) = self.tail_probe else {
            return;
        };
        if ack.before(end) {
            return;
        }
        self.tail_probe = None;
        if retransmission && !dsack && self.phase == Phase::Open {
            // The probe repaired a loss that nothing else has told of.
            let mss = u32::from(self.mss);
            self.undo = None;
            self.congestion.on_congestion(now, flight, mss);
            self.congestion.on_recovered(mss);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dsacks_are_told_from_sacks() {
        let block = |left, right| (SeqNumber(left), SeqNumber(right));
        assert!(is_dsack(&[block(100, 200)], SeqNumber(300)));
        assert!(is_dsack(&[block(400, 500), block(300, 600)], SeqNumber(200)));
        assert!(!is_dsack(&[block(400, 500), block(600, 700)], SeqNumber(200)));
        assert!(!is_dsack(&[block(400, 500)], SeqNumber(200)));
        assert!(!is_dsack(&[], SeqNumber(200)));
    }
}
