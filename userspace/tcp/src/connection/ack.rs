//! Acknowledgments, as the sender takes them (RFC 9293, section 3.10.7.4, fifth check; RFC 5681, 6675, 8985).

use core::time::Duration;

use super::{Context, Tcb, Undo};
use crate::congestion::Acked;
use crate::counters::Counter;
use crate::recovery::Phase;
use crate::recovery::frto::Frto;
use crate::recovery::rack::RoundTrips;
use crate::recovery::scoreboard::{Delivered, Work};
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
    /// Whether an echoed timestamp is of a retransmission, but not of the last one: its acknowledgment was lost, and
    /// how long ago it arrived is unknown. (One of the original says that the path has become slow, and counts.)
    fn is_ambiguous(&self, echo: SeqNumber) -> bool {
        self.stamps
            .is_some_and(|(first, last)| echo.at_or_after(SeqNumber(first)) && echo.before(SeqNumber(last)))
    }
}

impl Tcb {
    /// The bytes thought to be in the network (RFC 6675, `pipe`).
    pub(crate) fn pipe(&self) -> u32 {
        let sending = &*self.sending;
        // Without SACK each duplicate acknowledgment stands for a segment that has left.
        let left = u32::from(sending.duplicate_acks) * u32::from(self.mss);
        self.flight()
            .saturating_sub(sending.scoreboard.sacked() + sending.scoreboard.lost())
            .saturating_sub(left)
    }

    pub(crate) fn srtt(&self) -> Duration {
        self.rto.srtt().unwrap_or(UNKNOWN_RTT)
    }

    /// SRTT, and the longest that most round trips take.
    pub(crate) fn round_trips(&self) -> RoundTrips {
        RoundTrips {
            smoothed: self.srtt(),
            longest: self.rto.longest().unwrap_or(2 * UNKNOWN_RTT),
        }
    }

    /// Whether selective acknowledgments enlarge the window: after a timeout, and on a path that is known to reorder,
    /// where they say little about loss. Otherwise the first duplicates leave it alone (RFC 3042).
    fn grows_by_sack(&self) -> bool {
        self.sack_permitted && (self.sending.phase == Phase::Loss || self.sending.rack.reordering_seen())
    }

    /// Takes in an acknowledgment between SND.UNA and SND.NXT.
    pub(crate) fn process_ack<T>(&mut self, segment: &Segment<'_>, window: u32, context: &mut Context<'_, T>) {
        let flight = self.flight();
        if segment.options.sack.is_empty() {
            if flight == 0 {
                if self
                    .sending
                    .active()
                    .is_some_and(|sending| sending.tail_probe.is_some())
                {
                    let duplicate = self.is_duplicate_ack(segment, window);
                    self.end_probe(segment.ack, false, duplicate, flight, context);
                }
                self.take_congestion_echo(segment, flight, context);
                return;
            }
            if segment.ack == self.snd_nxt && self.sending.is_undisturbed() {
                self.take_full_acknowledgment(segment, flight, context);
                return;
            }
        }
        self.take_partial_acknowledgment(segment, flight, window, context);
    }

    /// Everything outstanding, `flight` bytes, is acknowledged, and nothing of it was lost, reported or sent again:
    /// what [`Tcb::take_partial_acknowledgment`] does then.
    #[inline(always)]
    pub(super) fn take_full_acknowledgment<T>(
        &mut self,
        segment: &Segment<'_>,
        flight: u32,
        context: &mut Context<'_, T>,
    ) {
        self.check_app_limited();
        let fin_acked = self.fin_sent;
        self.set_una(segment.ack);
        let mut sent_at = None;
        let more = self.has_more();
        if let Some(sending) = self.sending.active_mut() {
            sent_at = sending.scoreboard.acknowledge_all(segment.ack);
            sending.send_queue.consume((flight - u32::from(fin_acked)) as usize);
            sending.duplicate_acks = 0;
            sending.stop_timers(more);
            if more || sending.send_queue.len() > 0 {
                sending.note_progress(segment.ack, more, context.now, context.config);
            }
        }
        let rtt = self.measure(sent_at, true, segment, context);
        self.note_delivered(flight, rtt, context.now);
        self.grow_window(flight, flight, rtt, context);
        self.take_congestion_echo(segment, flight, context);
        self.rto.reset_backoff();
    }

    /// An acknowledgment that may have left something outstanding, or tell of losses.
    fn take_partial_acknowledgment<T>(
        &mut self,
        segment: &Segment<'_>,
        flight: u32,
        window: u32,
        context: &mut Context<'_, T>,
    ) {
        let mss = u32::from(self.mss);
        let segments = self.sending.scoreboard.len();
        self.check_app_limited();
        self.count_work(context);
        let lost_before = self.sending.scoreboard.lost();
        let advanced = segment.ack.after(self.snd_una);
        let acked = if advanced { segment.ack - self.snd_una } else { 0 };
        let duplicate = !advanced && self.is_duplicate_ack(segment, window);
        let mut delivered = Delivered::default();
        let blocks = segment.options.sack.as_slice();
        let dsack = self.sack_permitted && is_dsack(blocks, segment.ack);
        if advanced {
            self.advance_una(segment.ack, &mut delivered, context);
        }
        if self.sack_permitted {
            // Where nothing was outstanding, nothing can be selectively acknowledged.
            if flight > 0 {
                let (una, nxt) = (self.snd_una, self.snd_nxt);
                self.sending.scoreboard.sack(blocks, una, nxt, &mut delivered);
            }
        } else if duplicate && usize::from(self.sending.duplicate_acks) + 1 < self.sending.scoreboard.len() {
            self.sending.duplicate_acks = self.sending.duplicate_acks.saturating_add(1);
            delivered.bytes += mss;
        }
        // Without SACK a duplicate stands for a segment, which is a guess of which a peer can have as many as it likes.
        let certain = if self.sack_permitted { delivered.bytes } else { acked };
        let rtt = self.measure(delivered.timed, advanced, segment, context);
        self.note_delivered(certain, rtt, context.now);
        if dsack {
            context.counters.bump(Counter::DsacksIn);
            self.sending.rack.dsack(self.snd_una, self.snd_nxt);
        }
        self.end_probe(segment.ack, dsack, duplicate && blocks.is_empty(), flight, context);
        self.detect_spurious(advanced, dsack.then(|| blocks[0].1), segment, context);
        self.judge_timeout(segment.ack, advanced, duplicate, &delivered, context);
        let recovered = |point: SeqNumber| segment.ack.at_or_after(point);
        if advanced && self.sending.phase != Phase::Open && self.sending.recovery_point.is_none_or(recovered) {
            self.end_recovery(context);
        }
        let lost_again = self.detect_loss(&delivered, advanced, segment, context);
        let newly_lost = self.sending.scoreboard.lost() > lost_before;
        if self.needs_recovery(lost_again) {
            self.begin_recovery(flight, context);
        }
        self.report_losses(context);
        if self.sending.phase == Phase::Recovery && !self.controller_drives_recovery() {
            let safe = advanced && !newly_lost;
            self.reduce_window(delivered.bytes, safe, context.config);
        } else if self.measures_rate() {
            if certain > 0 || newly_lost {
                self.grow_window(certain, flight, rtt, context);
            }
        } else if delivered.bytes > 0 && (advanced || self.grows_by_sack()) {
            self.grow_window(delivered.bytes, flight, rtt, context);
        }
        self.take_congestion_echo(segment, flight, context);
        if advanced {
            self.rto.reset_backoff();
            if self.flight() == 0 {
                self.stop_retransmit_timer();
            } else {
                self.restart_retransmit_timer(context.now, context.rto_bounds);
            }
            self.schedule_probe(context);
        }
        let work = self.count_work(context);
        debug_assert!(work.is_bounded(segments), "{work:?} for {segments} segments");
    }

    /// Counts the work on what is outstanding since it was last counted, and returns it.
    fn count_work<T>(&mut self, context: &mut Context<'_, T>) -> Work {
        let sending = self.sending.active_mut();
        let work = sending.map_or(Work::default(), |sending| sending.scoreboard.take_work());
        context
            .counters
            .add(Counter::OutstandingVisited, u64::from(work.visited));
        work
    }

    /// Outside of fast recovery the window grows by the `bytes` that were acknowledged, if it was what limited sending;
    /// `flight` were outstanding before.
    fn grow_window<T>(&mut self, bytes: u32, flight: u32, rtt: Option<u64>, context: &Context<'_, T>) {
        let window = self.cwnd();
        let half_full = flight.saturating_mul(2) >= window;
        // A connection that has never filled its window leaves it alone, and has no use for congestion control.
        if !half_full && !self.sending.cwnd_limited && self.sending.congestion.is_none() {
            return;
        }
        let slow_start = window < self.ssthresh();
        let limited = self.sending.cwnd_limited || (slow_start && (half_full || self.is_paced_below(window, flight)));
        let acked = Acked {
            now: context.now,
            bytes,
            flight,
            limited,
            rtt: rtt.map(Duration::from_micros),
            reordering: self.sending.rack.is_reordering(),
            srtt: self.rto.srtt(),
            snd_una: self.snd_una,
            snd_nxt: self.snd_nxt,
            delivery: self.take_delivery(context.now),
        };
        let mss = u32::from(self.mss);
        self.congestion(context.config).on_ack(&acked, mss);
    }

    fn advance_una<T>(&mut self, ack: SeqNumber, delivered: &mut Delivered, context: &Context<'_, T>) {
        let acked = ack - self.snd_una;
        let fin_acked = self.fin_sent && ack == self.snd_nxt;
        self.set_una(ack);
        let more = self.has_more();
        let sending = &mut *self.sending;
        let segments_before = sending.scoreboard.len();
        sending.scoreboard.acknowledge(ack, delivered);
        sending.send_queue.consume((acked - u32::from(fin_acked)) as usize);
        sending.note_progress(ack, more, context.now, context.config);
        if sending.phase == Phase::Open {
            sending.duplicate_acks = 0;
        } else {
            // One segment filled the hole; the others had shown themselves by duplicates (as in Linux).
            let others = (segments_before - sending.scoreboard.len()).saturating_sub(1);
            let eaten = others.min(usize::from(sending.duplicate_acks)) as u16;
            sending.duplicate_acks -= eaten;
            delivered.bytes = delivered.bytes.saturating_sub(u32::from(eaten) * u32::from(self.mss));
        }
    }

    /// RFC 5681, section 2, but for its condition (a): something need not be outstanding.
    fn is_duplicate_ack(&self, segment: &Segment<'_>, window: u32) -> bool {
        segment.ack == self.snd_una
            && segment.payload.is_empty()
            && !segment.flags.intersects(Flags::SYN | Flags::FIN)
            && window == self.snd_wnd
    }

    /// Feeds the retransmission timeout from what was sent only once, at `sent_at`, or else from an echoed timestamp.
    /// Returns the round-trip time in microseconds.
    fn measure<T>(
        &mut self,
        sent_at: Option<Instant>,
        advanced: bool,
        segment: &Segment<'_>,
        context: &mut Context<'_, T>,
    ) -> Option<u64> {
        // While the timer is backed off, acknowledgments may have been lost for long: what they report now arrived long
        // ago.
        let timed = sent_at
            .filter(|_| self.rto.backoffs() == 0)
            .map(|sent_at| context.now.micros_since(sent_at));
        let echoed = segment
            .options
            .timestamps
            .filter(|_| self.timestamps)
            .filter(|timestamps| advanced && timestamps.echo != 0)
            .filter(|timestamps| {
                let undo = self.sending.undo.as_ref();
                !undo.is_some_and(|undo| undo.is_ambiguous(SeqNumber(timestamps.echo)))
            })
            .map(|timestamps| self.timestamp_now(context.now).wrapping_sub(timestamps.echo))
            .filter(|&millis| millis <= MAX_ECHOED_RTT)
            .map(|millis| (u64::from(millis) + 1) * 1000);
        // Both can only be too long. An echo counts whole milliseconds, so it is rounded up.
        let rtt = match (timed, echoed) {
            (Some(timed), Some(echoed)) => timed.min(echoed),
            (timed, echoed) => timed.or(echoed)?,
        };
        self.rto.sample_micros(rtt);
        context.latencies.rtt.record(rtt);
        Some(rtt)
    }

    /// Eifel (RFC 3522, RFC 4015): the first acknowledgment that moves SND.UNA echoes a timestamp from before the first
    /// retransmission, so the original arrived. Or the peer reports every retransmission as a duplicate (RFC 3708), no
    /// later than a retransmission timeout after the recovery was over; `dsack` is the end of what it reports.
    fn detect_spurious<T>(
        &mut self,
        advanced: bool,
        dsack: Option<SeqNumber>,
        segment: &Segment<'_>,
        context: &mut Context<'_, T>,
    ) {
        let Some(sending) = self.sending.active_mut() else {
            return;
        };
        if sending.undo.is_some_and(|undo| undo.until < context.now) {
            sending.undo = None;
        }
        let Some(undo) = &mut sending.undo else {
            return;
        };
        let reported = dsack.is_some_and(|end| end.after(undo.from)) && undo.sent;
        if reported {
            undo.retransmits = undo.retransmits.saturating_sub(1);
        }
        let mut spurious = reported && undo.retransmits == 0;
        if advanced && !undo.answered {
            undo.answered = true;
            if let (Some((first, _)), true, Some(timestamps)) =
                (undo.stamps, self.timestamps, segment.options.timestamps)
            {
                spurious |= timestamps.echo != 0 && SeqNumber(timestamps.echo).before(SeqNumber(first));
            }
        }
        if spurious {
            self.take_back(context);
        }
    }

    /// What was sent again had not been lost: its consequences are taken back. False, and nothing is changed, if that
    /// was found too often lately.
    pub(super) fn take_back<T>(&mut self, context: &mut Context<'_, T>) -> bool {
        if !self.sending.scoreboard.unmark_lost() {
            return false;
        }
        context.counters.bump(Counter::SpuriousRetransmits);
        self.congestion(context.config).undo(context.now);
        let sending = &mut *self.sending;
        sending.undo = None;
        sending.frto = Frto::Off;
        sending.phase = Phase::Open;
        sending.duplicate_acks = 0;
        true
    }

    /// RFC 3168, section 6.1.2: an echo of congestion counts once per round trip. CWR goes with what is sent after the
    /// reduction, so an echo says nothing new until some of that is acknowledged.
    fn take_congestion_echo<T>(&mut self, segment: &Segment<'_>, flight: u32, context: &mut Context<'_, T>) {
        if !self.ecn || !segment.flags.contains(Flags::ECE) || self.sending.phase != Phase::Open {
            return;
        }
        let unseen = |point: SeqNumber| point.at_or_after(self.snd_una) && point.at_or_before(self.snd_nxt);
        if self.sending.cwr_point.is_some_and(unseen) {
            return;
        }
        context.counters.bump(Counter::CongestionEchoes);
        self.sending.undo = None;
        let mss = u32::from(self.mss);
        self.congestion(context.config).on_mark(context.now, flight, mss);
        self.sending.cwr_point = Some(self.snd_nxt);
        self.sending.cwr_pending = true;
    }

    /// Ends the episode of a tail loss probe (RFC 8985, section 7.4.2). `duplicate`: a duplicate acknowledgment without
    /// blocks.
    fn end_probe<T>(&mut self, ack: SeqNumber, dsack: bool, duplicate: bool, flight: u32, context: &Context<'_, T>) {
        let Some((end, retransmission)) = self.sending.tail_probe else {
            return;
        };
        // Of a segment sent twice, the first acknowledgment may be of either copy.
        let ambiguous = retransmission && ack == end && !dsack && !duplicate;
        if ack.before(end) || ambiguous {
            return;
        }
        self.sending.tail_probe = None;
        if retransmission && !dsack && ack != end && self.sending.phase == Phase::Open {
            // No second copy arrived: the probe repaired a loss that nothing else has told of.
            let mss = u32::from(self.mss);
            self.sending.undo = None;
            let controller = self.congestion(context.config);
            controller.on_congestion(context.now, flight, mss);
            controller.on_recovered(mss);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::keepalive::KeepaliveTable;
    use crate::connection::send_state::SendStatePool;
    use crate::connection::testing::{NOW, tcb};
    use crate::connection::{Common, Totals};
    use crate::counters::Counters;
    use crate::histogram::Latencies;
    use crate::link::LinkTable;
    use crate::recovery::rto::Bounds;
    use crate::recovery::scoreboard::DUP_THRESH;
    use crate::wire::{Options, ethernet};

    /// More octets than sequence numbers can be apart to be compared.
    const LONG_AGO: u32 = (1 << 31) + 100_000;

    /// A connection without SACK that has just sent `segments` segments of one octet each.
    fn sent(segments: u32) -> Tcb {
        let mut tcb = tcb(true, false, segments);
        tcb.sack_permitted = false;
        for offset in 0..segments {
            let seq = tcb.snd_una + offset;
            tcb.sending.scoreboard.push(seq, seq + 1, NOW);
        }
        tcb
    }

    /// The peer acknowledges nothing new, with these flags; returns what was counted.
    fn acknowledge(tcb: &mut Tcb, flags: Flags) -> Counters {
        let (link, ..) = ethernet::parse(&[2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 0]).unwrap();
        let segment = Segment {
            link,
            key: tcb.key.get(),
            seq: tcb.rcv_nxt,
            ack: tcb.snd_una,
            flags,
            window: 0,
            options: Options::default(),
            congestion_experienced: false,
            payload: &[],
        };
        let mut counters = Counters::default();
        let mut context = Context {
            now: NOW,
            config: &Common::default(),
            rto_bounds: Bounds::new(Duration::from_millis(200), Duration::from_secs(120)),
            counters: &mut counters,
            latencies: &mut Latencies::default(),
            links: &mut LinkTable::default(),
            totals: &mut Totals::default(),
            send_states: &mut SendStatePool::default(),
            keepalives: &KeepaliveTable::default(),
            out: &mut (),
        };
        tcb.process_ack(&segment, tcb.snd_wnd, &mut context);
        counters
    }

    #[test]
    fn a_recovery_of_long_ago_does_not_keep_the_next_one_from_beginning() {
        let una = sent(10).snd_una;
        for (point, begins) in [
            (None, true),
            (Some(una), true),
            (Some(una - LONG_AGO), true),
            (Some(una + 1), false),
            (Some(una + 10), false),
        ] {
            let mut tcb = sent(10);
            tcb.sending.recovery_point = point;
            for _ in 0..DUP_THRESH {
                acknowledge(&mut tcb, Flags::ACK);
            }
            assert_eq!(tcb.sending.phase == Phase::Recovery, begins, "{point:?}");
        }
    }

    #[test]
    fn congestion_of_long_ago_does_not_count_for_an_echo_of_now() {
        let una = sent(10).snd_una;
        for (point, counts) in [
            (None, 1),
            (Some(una - 1), 1),
            (Some(una - LONG_AGO), 1),
            (Some(una), 0),
            (Some(una + 10), 0),
        ] {
            let mut tcb = sent(10);
            tcb.ecn = true;
            tcb.sending.cwr_point = point;
            let counters = acknowledge(&mut tcb, Flags::ACK | Flags::ECE);
            assert_eq!(counters.get(Counter::CongestionEchoes), counts, "{point:?}");
        }
    }

    #[test]
    fn duplicates_are_counted_up_to_a_bound() {
        let mut tcb = sent(u32::from(u16::MAX) + 10);
        tcb.sending.duplicate_acks = u16::MAX - 1;
        for _ in 0..3 {
            acknowledge(&mut tcb, Flags::ACK);
        }
        assert_eq!(tcb.sending.duplicate_acks, u16::MAX);
    }

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
