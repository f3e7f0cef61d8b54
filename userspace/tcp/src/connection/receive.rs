//! Segments that arrive for a connection, processed in the order of RFC 9293, section 3.10.7.4.

use super::{Connection, Context, NearInstant, State, Tcb, age_units, reassembly_share};
use crate::application::Application;
use crate::counters::Counter;
use crate::reassembly::{Held, Limits, Reassembly};
use crate::recovery::Phase;
use crate::recovery::rto::Bounds;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::transmit::Transmit;
use crate::wire::{Flags, Segment};

/// Segments that are acknowledged each by itself after one was missing or came twice: the sender's window is small
/// then, and grows by acknowledgments. Linux's number.
const QUICK_ACKS: u8 = 16;

/// A timestamp older than this says nothing any more (RFC 7323, section 5.5): 24 days and some minutes, in units of
/// [`age_units`].
const TS_RECENT_MAX_AGE: u16 = ((24 * 24 * 3600 * 1_000_000_u64) >> 28) as u16 + 2;

/// The engine's part after the arrival of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Nothing more.
    Done,
    /// The peer reset the connection.
    Reset,
    /// The segment is answered with RST; the connection stays.
    Refuse,
}

impl<C> Connection<C> {
    /// Processes a segment. The caller runs [`Connection::flush_output`] afterwards.
    #[inline(always)]
    pub(crate) fn segment_arrives<A, T>(
        &mut self,
        segment: &Segment<'_>,
        application: &mut A,
        context: &mut Context<'_, T>,
    ) -> Arrival
    where
        A: Application<Connection = C>,
        T: Transmit,
    {
        if self.take_if_predicted(segment, application, context) {
            return Arrival::Done;
        }
        self.any_segment_arrives(segment, application, context)
    }

    /// [`Connection::segment_arrives`] of all but the segments that make up most of what arrives.
    #[inline(never)]
    pub(crate) fn any_segment_arrives<A, T>(
        &mut self,
        segment: &Segment<'_>,
        application: &mut A,
        context: &mut Context<'_, T>,
    ) -> Arrival
    where
        A: Application<Connection = C>,
        T: Transmit,
    {
        if self.take_if_predicted_once(segment, application, context) {
            return Arrival::Done;
        }
        if self.tcb.state == State::SynSent {
            return self.syn_sent(segment, application, context);
        }
        let tcb = &mut self.tcb;
        tcb.accepted = false;
        if matches!(tcb.state, State::TimeWait | State::Closed) {
            return tcb.ended_receives(segment, context);
        }
        let crossing = tcb.is_crossing(segment);
        // Any other SYN may be of a peer that has restarted. It is challenged wherever it stands and whatever its
        // options say, since nothing else tells that peer of this connection (RFC 5961, section 4.2).
        if segment.flags.contains(Flags::SYN) && !crossing {
            tcb.challenge(context);
            return Arrival::Done;
        }
        // The timestamp check comes before the sequence check (RFC 7323, section 5.3).
        if tcb.is_stale(segment, context.now) {
            context.counters.bump(Counter::DropPaws);
            tcb.answer_unacceptable(segment, context);
            return Arrival::Done;
        }
        // First, the sequence number.
        if !crossing && !tcb.acceptable(segment) {
            self.unacceptable_arrives(segment, application, context);
            return Arrival::Done;
        }
        // Second, RST.
        if segment.flags.contains(Flags::RST) {
            return tcb.reset_arrives(segment, context);
        }
        // Fourth, SYN: see above. Fifth, ACK.
        if !segment.flags.contains(Flags::ACK) {
            context.counters.bump(Counter::DropNoAck);
            return Arrival::Done;
        }
        if tcb.state == State::SynReceived {
            if segment.ack != tcb.snd_nxt {
                return Arrival::Refuse;
            }
            self.handshake_ends(segment, application, context);
        }
        if !self.acknowledgment(segment, application, context) {
            return Arrival::Done;
        }
        self.tcb.take_congestion_mark(segment, context);
        self.tcb.accept(context.now);
        self.tcb.update_ts_recent(segment, context.now);
        // Sixth, URG: urgent data is delivered in line (RFC 6093), so there is nothing to do.
        // Seventh and eighth, text and FIN.
        if !segment.payload.is_empty() || segment.flags.contains(Flags::FIN) {
            self.text(segment, application, context);
        }
        Arrival::Done
    }

    /// Answers a segment whose sequence number is not acceptable.
    #[cold]
    fn unacceptable_arrives<A, T>(&mut self, segment: &Segment<'_>, application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
        T: Transmit,
    {
        let tcb = &mut self.tcb;
        if segment.flags.contains(Flags::RST) {
            context.counters.bump(Counter::DropOutOfWindow);
            return;
        }
        if tcb.is_old(segment) {
            context.counters.bump(Counter::Duplicates);
            tcb.note_duplicate(segment.seq, segment.seq + segment.payload.len() as u32);
        } else {
            context.counters.bump(Counter::DropOutOfWindow);
        }
        tcb.answer_unacceptable(segment, context);
        // A closed window makes every segment with text unacceptable, yet its acknowledgment counts; and so does
        // that of a segment sent again (RFC 9293, section 3.10.7.4).
        if tcb.acknowledgment_counts(segment) && self.acknowledgment(segment, application, context) {
            self.tcb.accept(context.now);
        }
    }

    /// The acknowledgment of this side's SYN: the connection is ESTABLISHED.
    fn handshake_ends<A, T>(&mut self, segment: &Segment<'_>, application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
        T: Transmit,
    {
        let tcb = &mut self.tcb;
        tcb.snd_wl1 = segment.seq - 1;
        context.counters.bump(match tcb.listener() {
            Some(_) => Counter::PassiveOpens,
            None => Counter::ActiveOpens,
        });
        tcb.syn_acknowledged(segment, context);
        // How much the application may queue depends on it.
        tcb.update_send_window(segment, tcb.window_of(segment), true, context);
        self.establish(application, context);
    }

    /// Processes the acknowledgment; false when the segment is to be dropped for it.
    fn acknowledgment<A, T>(&mut self, segment: &Segment<'_>, application: &mut A, context: &mut Context<'_, T>) -> bool
    where
        A: Application<Connection = C>,
    {
        let tcb = &mut self.tcb;
        // RFC 5961, section 5.2.
        let old = segment.ack.before(tcb.snd_una);
        if segment.ack.after(tcb.snd_nxt) || (old && segment.ack.before(tcb.snd_una - tcb.max_snd_wnd)) {
            context.counters.bump(Counter::DropBadAck);
            tcb.challenge(context);
            return false;
        }
        let window = tcb.window_of(segment);
        let advances = segment.ack.after(tcb.snd_una);
        if !old {
            tcb.process_ack(segment, window, context);
        }
        tcb.update_send_window(segment, window, advances, context);
        if tcb.fin_sent && tcb.flight() == 0 {
            match tcb.state {
                State::FinWait1 => tcb.state = State::FinWait2,
                State::Closing => tcb.state = State::TimeWait,
                State::LastAck => tcb.state = State::Closed,
                _ => {}
            }
        }
        self.tell_writable(application, context);
        true
    }

    /// Processes text and FIN.
    fn text<A, T>(&mut self, segment: &Segment<'_>, application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        let tcb = &mut self.tcb;
        if !tcb.state.may_receive() {
            // The peer's FIN has been received; whatever follows it is a retransmission.
            tcb.ack_now = true;
            return;
        }
        let fin = segment.flags.contains(Flags::FIN);
        // Text follows the SYN it comes with.
        let seq = segment.seq + u32::from(segment.flags.contains(Flags::SYN));
        let end = seq + segment.payload.len() as u32;
        // Only what lies between RCV.NXT and the offered edge is new.
        let from = seq.max(tcb.rcv_nxt);
        let to = end.min(tcb.rcv_edge);
        let fin_fits = fin && to == end;
        let fresh = if from.before(to) {
            &segment.payload[(from - seq) as usize..(to - seq) as usize]
        } else {
            &[]
        };
        if seq.before(tcb.rcv_nxt) {
            tcb.note_duplicate(seq, end.min(tcb.rcv_nxt));
        }
        tcb.note_segment_size(segment.payload.len());
        if fresh.len() < segment.payload.len() && end.after(tcb.rcv_edge) {
            context.counters.bump(Counter::DropReceiveBufferFull);
            tcb.ack_now = true;
        }
        if fresh.is_empty() && !segment.payload.is_empty() && !(fin_fits && end == tcb.rcv_nxt) {
            context.counters.bump(Counter::Duplicates);
            tcb.quick_acks = QUICK_ACKS;
            tcb.ack_now = true;
            return;
        }
        if from != tcb.rcv_nxt {
            self.hold(from, fresh, fin_fits.then_some(end), context);
            return;
        }
        if !self.deliver(fresh, application, context) {
            return;
        }
        let tcb = &mut self.tcb;
        let gap = tcb.receiving.as_deref().is_some_and(|held| held.reassembly.is_some());
        let tcb = &mut self.tcb;
        if gap {
            // Closing a gap is acknowledged at once (RFC 5681, section 4.2).
            tcb.ack_now = true;
            self.deliver_held(fresh.len() as u32, application, context);
        }
        let tcb = &mut self.tcb;
        if fin_fits && end == tcb.rcv_nxt && !tcb.fin_received {
            self.fin(context);
        }
        if self.tcb.fin_received {
            self.offer_unread(application, context);
        }
        self.tcb.schedule_ack(context);
    }

    /// Holds what came out of order.
    fn hold<T>(&mut self, from: SeqNumber, fresh: &[u8], fin_at: Option<SeqNumber>, context: &mut Context<'_, T>) {
        let tcb = &mut self.tcb;
        tcb.quick_acks = QUICK_ACKS;
        tcb.ack_now = true;
        let config = context.config;
        let rcv_nxt = tcb.rcv_nxt;
        let receiving = tcb.receiving.get_or_insert_default();
        let reassembly = receiving.reassembly.get_or_insert_default();
        let before = reassembly.bytes();
        if !fresh.is_empty() {
            let limits = Limits {
                bytes: config.reassembly_bytes as usize,
                ranges: config.reassembly_ranges as usize,
            };
            let more = config.reassembly_bytes_total.saturating_sub(context.totals.reassembly);
            let more = more.min(reassembly_share(config).saturating_sub(context.totals.received()));
            let more = usize::try_from(more).unwrap_or(usize::MAX);
            let held = reassembly.insert(from - rcv_nxt, fresh, limits, more);
            context.counters.bump(match held {
                Held::Stored => Counter::OutOfOrder,
                Held::Known => Counter::Duplicates,
                Held::Refused => Counter::DropReassemblyFull,
            });
            if held == Held::Known {
                receiving.dsack = Some((from, from + fresh.len() as u32));
            }
        }
        if let Some(fin_at) = fin_at {
            reassembly.insert_fin(fin_at - rcv_nxt);
        }
        context.totals.reassembly += (reassembly.bytes() - before) as u64;
        if reassembly.is_empty() {
            receiving.reassembly = None;
        }
    }

    /// Delivers what was held and is now in order.
    fn deliver_held<A, T>(&mut self, advanced: u32, application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        let mut advanced = Some(advanced);
        loop {
            // It stays where it is, so that its far end can be given up for its near one.
            let receiving = self.tcb.receiving.as_deref_mut();
            let Some(reassembly) = receiving.and_then(|held| held.reassembly.as_mut()) else {
                return;
            };
            if let Some(advanced) = advanced.take() {
                reassembly.advance(advanced);
            }
            let before = reassembly.bytes();
            let piece = reassembly.pop();
            context.totals.reassembly -= (before - reassembly.bytes()) as u64;
            let Some(piece) = piece else { break };
            if !self.deliver(&piece, application, context) {
                // The peer sends the rest again, too.
                let receiving = self.tcb.receiving.as_deref_mut();
                if let Some(rest) = receiving.and_then(|held| held.reassembly.take()) {
                    context.totals.reassembly -= rest.bytes() as u64;
                }
                return;
            }
        }
        let Some(receiving) = self.tcb.receiving.as_deref_mut() else {
            return;
        };
        let fin_is_next = receiving.reassembly.as_ref().is_some_and(Reassembly::fin_is_next);
        if receiving.reassembly.as_ref().is_some_and(Reassembly::is_empty) {
            receiving.reassembly = None;
        }
        if fin_is_next {
            self.fin(context);
        }
    }

    /// Gives in-order text to the application, or keeps what it does not take. False: there is no memory for it, and it
    /// has not been received.
    pub(super) fn deliver<A, T>(&mut self, text: &[u8], application: &mut A, context: &mut Context<'_, T>) -> bool
    where
        A: Application<Connection = C>,
    {
        if text.is_empty() {
            return true;
        }
        let mut kept = false;
        if let Some(receiving) = self.tcb.receiving.as_deref_mut()
            && !receiving.unread.is_empty()
        {
            kept = receiving.keep(text, context.config, context.totals);
            if !kept {
                context.counters.bump(Counter::DropReceiveBytesTotal);
                self.tcb.ack_now = true;
                return false;
            }
        }
        self.tcb.rcv_nxt += text.len() as u32;
        self.tcb.tune_receive_buffer(context);
        if self.tcb.read_closed || self.tcb.abort {
            context.counters.bump(Counter::DropAfterClose);
            return true;
        }
        context.counters.add(Counter::BytesIn, text.len() as u64);
        if kept {
            self.offer_unread(application, context);
        } else {
            self.give(text, application, context);
        }
        true
    }

    /// Gives text to the application, for which nothing is kept.
    #[inline(always)]
    fn give<A, T>(&mut self, text: &[u8], application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        let consumed = self.call(context, |state, socket| application.receive(state, socket, text));
        let consumed = consumed.unwrap_or(0);
        if consumed < text.len() {
            self.tcb.keep_rest(&text[consumed..], context);
        }
    }

    /// [`Connection::deliver`] where nothing is kept, and the application may have it.
    #[inline(always)]
    pub(super) fn deliver_directly<A, T>(&mut self, text: &[u8], application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        self.tcb.rcv_nxt += text.len() as u32;
        self.tcb.tune_receive_buffer(context);
        context.counters.add(Counter::BytesIn, text.len() as u64);
        self.give(text, application, context);
    }

    /// The peer's FIN is next.
    pub(super) fn fin<T>(&mut self, context: &mut Context<'_, T>) {
        let tcb = &mut self.tcb;
        // Nothing can follow FIN, whatever a peer has sent there.
        let receiving = tcb.receiving.as_deref_mut();
        if let Some(reassembly) = receiving.and_then(|held| held.reassembly.take()) {
            context.totals.reassembly -= reassembly.bytes() as u64;
        }
        tcb.rcv_nxt += 1;
        tcb.rcv_edge = tcb.rcv_edge.max(tcb.rcv_nxt);
        tcb.fin_received = true;
        tcb.ack_now = true;
        tcb.state = match tcb.state {
            State::Established => State::CloseWait,
            State::FinWait1 => State::Closing,
            State::FinWait2 => State::TimeWait,
            other => other,
        };
    }
}

impl Tcb {
    /// Keeps what the application has left of a segment's text.
    #[inline(never)]
    fn keep_rest<T>(&mut self, rest: &[u8], context: &mut Context<'_, T>) {
        if !self.read_closed && !self.abort {
            let receiving = self.receiving.get_or_insert_default();
            let kept = receiving.keep(rest, context.config, context.totals);
            debug_assert!(kept, "there is memory for what a segment leaves");
        }
    }

    /// A segment for a connection in TIME-WAIT or CLOSED.
    #[cold]
    fn ended_receives<T: Transmit>(&mut self, segment: &Segment<'_>, context: &mut Context<'_, T>) -> Arrival {
        // It is here only because its application has not read everything. The peer's FIN may need an answer;
        // nothing else matters (RFC 1337).
        if segment.flags.contains(Flags::RST) {
            // But of a peer that does not know what its SYN was answered with: it begins anew.
            if segment.seq == self.rcv_nxt && self.lifetime.syn_answered() {
                return Arrival::Reset;
            }
        } else if segment.length() > 0 {
            // A SYN-ACK is an old one of this connection.
            let begins = segment.flags.contains(Flags::SYN) && !segment.flags.contains(Flags::ACK);
            self.answer_unacceptable(segment, context);
            if begins && self.ack_now {
                self.lifetime.note_syn_answered();
            }
        }
        Arrival::Done
    }

    /// Whether the segment is the SYN-ACK of a simultaneous open, which repeats the peer's SYN (RFC 9293, section 3.5,
    /// figure 7).
    #[inline]
    fn is_crossing(&self, segment: &Segment<'_>) -> bool {
        self.state == State::SynReceived
            && segment.flags.contains(Flags::SYN | Flags::ACK)
            && segment.seq + 1 == self.rcv_nxt
            && segment.ack == self.snd_nxt
    }

    /// An acceptable RST: only the exact sequence number resets (RFC 5961, section 3.2).
    #[cold]
    fn reset_arrives<T: Transmit>(&mut self, segment: &Segment<'_>, context: &mut Context<'_, T>) -> Arrival {
        if segment.seq == self.rcv_nxt {
            return Arrival::Reset;
        }
        self.challenge(context);
        Arrival::Done
    }

    /// Whether the timestamp says that the segment is an old one (PAWS; RFC 7323, section 5.3). One without a timestamp
    /// has none to be checked, and is taken as Linux takes it: section 3.2 only says SHOULD of dropping it.
    #[inline]
    fn is_stale(&self, segment: &Segment<'_>, now: Instant) -> bool {
        self.timestamps
            && !segment.flags.contains(Flags::RST)
            && segment
                .options
                .timestamps
                .is_some_and(|timestamps| SeqNumber(timestamps.value).before(SeqNumber(self.ts_recent)))
            && !self.ts_recent_is_old(now)
    }

    /// Notes how much text a segment had.
    #[inline]
    pub(super) fn note_segment_size(&mut self, length: usize) {
        self.rcv_mss = self.rcv_mss.max(length.min(usize::from(u16::MAX)) as u16);
    }

    /// Notes that the text from `from` to `to` had been received before, for a D-SACK (RFC 2883). It is sent at once:
    /// an acknowledgment that waited could be overtaken by text, which reports nothing.
    fn note_duplicate(&mut self, from: SeqNumber, to: SeqNumber) {
        if self.sack_permitted && from.before(to) {
            self.ack_now = true;
            self.receiving.get_or_insert_default().dsack = Some((from, to));
        }
    }

    /// Whether TS.Recent was set so long ago that it no longer says which timestamps are older.
    fn ts_recent_is_old(&self, now: Instant) -> bool {
        age_units(now).wrapping_sub(self.ts_recent_since) >= TS_RECENT_MAX_AGE
    }

    /// The receiver's part of ECN (RFC 3168, section 6.1.3): a mark is echoed until the sender has answered it.
    fn take_congestion_mark<T>(&mut self, segment: &Segment<'_>, context: &mut Context<'_, T>) {
        if !self.ecn {
            return;
        }
        if segment.flags.contains(Flags::CWR) {
            self.ece_pending = false;
        }
        if segment.congestion_experienced {
            context.counters.bump(Counter::CongestionMarks);
            self.ece_pending = true;
            self.ack_now = true;
        }
    }

    /// The acceptability test (RFC 9293, section 3.10.7.4, table 6).
    fn acceptable(&self, segment: &Segment<'_>) -> bool {
        let length = segment.length();
        let window = self.rcv_edge.saturating_since(self.rcv_nxt);
        if window == 0 {
            return length == 0 && segment.seq == self.rcv_nxt;
        }
        let within = |seq: SeqNumber| seq.at_or_after(self.rcv_nxt) && seq.before(self.rcv_edge);
        // An empty segment may also stand right at the edge: it is what a sender that has filled the window sends.
        if length == 0 {
            return within(segment.seq) || segment.seq == self.rcv_edge;
        }
        within(segment.seq) || within(segment.seq + (length - 1))
    }

    /// Whether all of the segment lies before the window.
    fn is_old(&self, segment: &Segment<'_>) -> bool {
        segment.length() > 0 && (segment.seq + segment.length()).at_or_before(self.rcv_nxt)
    }

    /// Whether the acknowledgment of an unacceptable segment may be used: one right at a closed window, or one that was
    /// already received. What it says is then checked like any other.
    fn acknowledgment_counts(&self, segment: &Segment<'_>) -> bool {
        let flags = segment.flags;
        if !flags.contains(Flags::ACK) || flags.intersects(Flags::SYN | Flags::RST) || self.state == State::SynReceived
        {
            return false;
        }
        segment.seq == self.rcv_nxt || self.is_old(segment) && self.rcv_nxt - segment.seq <= self.rcv_window_max()
    }

    fn rcv_window_max(&self) -> u32 {
        u32::from(u16::MAX) << self.rcv_wind_shift
    }

    /// Answers an unacceptable segment: text at once, since the peer is sending it again for want of an acknowledgment;
    /// empty ones within limits, since two confused sides would answer each other for ever.
    fn answer_unacceptable<T>(&mut self, segment: &Segment<'_>, context: &mut Context<'_, T>) {
        let text_again = !segment.flags.contains(Flags::SYN) && self.is_old(segment);
        if text_again || self.allow_challenge(context.now, context.config.challenge_ack_rate) {
            self.ack_now = true;
        } else {
            context.counters.bump(Counter::ChallengeAcksLimited);
        }
    }

    /// Notes that the peer itself has been heard.
    #[inline]
    pub(crate) fn accept(&mut self, now: Instant) {
        self.accepted = true;
        self.last_received = now;
    }

    /// Sends a challenge ACK, within limits (RFC 5961, sections 3.2, 4.2, 5.2 and 7).
    fn challenge<T>(&mut self, context: &mut Context<'_, T>) {
        if self.allow_challenge(context.now, context.config.challenge_ack_rate) {
            context.counters.bump(Counter::ChallengeAcks);
            self.ack_now = true;
        } else {
            context.counters.bump(Counter::ChallengeAcksLimited);
        }
    }

    /// RFC 7323, section 4.3, rule 2.
    #[inline]
    pub(super) fn update_ts_recent(&mut self, segment: &Segment<'_>, now: Instant) {
        if let Some(timestamps) = segment.options.timestamps.filter(|_| self.timestamps) {
            let newer =
                SeqNumber(timestamps.value).at_or_after(SeqNumber(self.ts_recent)) || self.ts_recent_is_old(now);
            if newer && segment.seq.at_or_before(self.last_ack_sent) {
                self.ts_recent = timestamps.value;
                self.ts_recent_since = age_units(now);
            }
        }
    }

    /// The SYN this side sent was acknowledged.
    pub(crate) fn syn_acknowledged<T>(&mut self, segment: &Segment<'_>, context: &mut Context<'_, T>) {
        self.set_una(segment.ack);
        let mut sent_at = None;
        let mss = u32::from(self.mss);
        // A listener's handshake had no need of it.
        if let Some(sending) = self.sending.active_mut() {
            sending.stop_timers(false);
            sending.phase = Phase::Open;
            if let Some(controller) = &mut sending.congestion {
                controller.on_recovered(mss);
            }
            sending.recovery_point = None;
            sending.cwr_point = None;
            sent_at = sending.syn_sent_at.take();
        }
        self.rto.reset_backoff();
        if let Some(sent_at) = sent_at {
            self.measured_handshake(sent_at, context);
        }
    }

    /// The SYN or SYN-ACK that was sent at `sent_at`, and only once, has been acknowledged.
    pub(crate) fn measured_handshake<T>(&mut self, sent_at: Instant, context: &mut Context<'_, T>) {
        let rtt = context.now.micros_since(sent_at);
        self.rto.sample_micros(rtt);
        context.latencies.rtt.record(rtt);
    }

    /// SEG.WND, in bytes. That of a SYN-ACK is never scaled (RFC 7323, section 2.2).
    #[inline]
    fn window_of(&self, segment: &Segment<'_>) -> u32 {
        let shift = if segment.flags.contains(Flags::SYN) {
            0
        } else {
            self.snd_wind_shift
        };
        u32::from(segment.window) << shift
    }

    /// RFC 9293, section 3.10.7.4, fifth check. `advances` says that no segment before this one has acknowledged as
    /// much: it was sent after all of them, though its text may be sent again. By SND.WL1 alone the window would stay
    /// as it was, and so its edge would move to where the peer never offered it. Linux asks the same.
    #[inline]
    pub(super) fn update_send_window<T>(
        &mut self,
        segment: &Segment<'_>,
        window: u32,
        advances: bool,
        context: &Context<'_, T>,
    ) {
        // SND.WL2 is an acknowledgment that was taken in, so never behind SND.UNA: what is not before SND.UNA is not
        // before SND.WL2 either.
        if segment.ack.before(self.snd_una) || (segment.seq.before(self.snd_wl1) && !advances) {
            return;
        }
        let opened = window > self.snd_wnd;
        self.snd_wnd = window;
        self.max_snd_wnd = self.max_snd_wnd.max(window);
        self.snd_wl1 = segment.seq;
        if opened && self.sending.persist {
            self.window_opened(context.now, context.rto_bounds);
        }
    }

    /// The window that is probed has opened, and may now be worth using. If not, the time when it is used all the same
    /// may have come nearer, but is not put off, however often a small window opens.
    #[cold]
    fn window_opened(&mut self, now: Instant, bounds: Bounds) {
        self.rto.reset_backoff();
        let timeout = self.rto.timeout_micros(bounds);
        let deadline = &mut self.sending.deadlines.retransmit;
        *deadline = now.plus_micros(timeout).min(*deadline);
    }

    /// Every segment is acknowledged at once after a loss; otherwise at least every second full segment is acknowledged
    /// at once, the rest within `delayed_ack` (RFC 9293, section 3.8.6.3).
    #[inline]
    pub(super) fn schedule_ack<T>(&mut self, context: &Context<'_, T>) {
        let unacknowledged = self.rcv_nxt - self.last_ack_sent;
        if unacknowledged > 0 && self.quick_acks > 0 {
            self.quick_acks -= 1;
            self.ack_now = true;
        } else if unacknowledged >= 2 * u32::from(self.rcv_mss) {
            self.ack_now = true;
        } else if unacknowledged > 0 && !self.delayed_ack.is_set() {
            self.delayed_ack = NearInstant::new(context.now + context.config.delayed_ack);
        }
    }
}
