//! Segments for flows that are not connections: LISTEN, SYN-RECEIVED, TIME-WAIT and CLOSED.

use core::time::Duration;

use super::receive::Hashed;
use super::{Engine, OnNoFlow, Received, context, send_bare};
use crate::application::{Application, ListenerId};
use crate::connection::open::{Handshake, Negotiated, Origin};
use crate::connection::receive::Arrival;
use crate::connection::window::syn_ack_window;
use crate::connection::{Connection, Context, Outcome, State};
use crate::counters::Counter;
use crate::flow_table::FlowSlot;
use crate::half_open::HalfOpen;
use crate::isn::TupleHash;
use crate::seq::SeqNumber;
use crate::sources::SourceId;
use crate::time::Instant;
use crate::time_wait::Meaning;
use crate::transmit::{Purpose, Transmit};
use crate::wire::emit::Header;
use crate::wire::{Flags, Segment};

/// First SYN-ACK time-out (RFC 6298, rule 2.1); each further one is twice as long.
pub(super) const SYN_ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// The minimum distance between all that the last incarnation of a connection sent and the beginning of the next.
/// Linux's.
const INCARNATION_STEP: u32 = 1 << 16;

impl<A: Application> Engine<A> {
    /// A segment for no known flow (RFC 9293, section 3.10.7.2; of what is not to a listener nobody is told).
    pub(super) fn closed_receives<T: Transmit>(
        &mut self,
        now: Instant,
        (segment, hash): Hashed<'_, '_>,
        on_no_flow: OnNoFlow,
        out: &mut T,
    ) -> Received {
        let Some(listener) = self.listener(&segment.key) else {
            // Another shard may have a connection that was accepted while there was a listener, or by another process;
            // and all of an engine without listeners is about connections it opened, which another may have done.
            let others = self.others(&segment.key, on_no_flow);
            if others != 0 && (self.listeners.is_empty() || self.shared_flows.is_some()) {
                return Received::NoFlow { others, then: 0 };
            }
            self.counters.bump(Counter::DropNotListening);
            return Received::Done;
        };
        // A listener that answered would answer itself ("land"). Linux drops what comes from outside with an own
        // source.
        if self.is_own_address(&segment.key) {
            self.counters.bump(Counter::DropBadSource);
            return Received::Done;
        }
        if segment.flags.contains(Flags::SYN) && !segment.flags.contains(Flags::ACK) {
            // Another shard may have an old connection of this flow, to challenge, or to begin the new one above (RFC
            // 5961, section 4.2; RFC 6191).
            let others = self.others(&segment.key, on_no_flow);
            if others != 0 && self.shared_flows.is_some() {
                return Received::NoFlow { others, then: 0 };
            }
            self.syn(now, listener, (segment, hash), None, out);
            return Received::Done;
        }
        self.stray_receives(now, listener, segment, on_no_flow, out)
    }

    /// A SYN to a listener: remembers it and answers. `last_nxt` is SND.NXT of the last incarnation, which is in
    /// TIME-WAIT: the new one has to begin above it (RFC 9293, section 3.6.1), even if that sent faster than the clock
    /// of initial sequence numbers ticks.
    fn syn<T: Transmit>(
        &mut self,
        now: Instant,
        listener: ListenerId,
        (segment, hash): Hashed<'_, '_>,
        last_nxt: Option<SeqNumber>,
        out: &mut T,
    ) {
        self.counters.bump(Counter::SynsIn);
        if self.refuses_syns || !self.accepts_connections() {
            self.counters.bump(Counter::DropDraining);
            return;
        }
        if self.half_open.len() >= self.common.config.max_half_open
            && let Some(oldest) = self.half_open.oldest()
        {
            self.remove_half_open(oldest);
            self.counters.bump(Counter::HalfOpenEvicted);
        }
        let Some(link) = self.acquire_answer_link(segment) else {
            self.counters.bump(Counter::DropLinkTableFull);
            return;
        };
        let mut negotiated = Negotiated::from_syn(&segment.options, segment.key.is_v4());
        negotiated.ecn = self.common.config.ecn && segment.flags.contains(Flags::ECE | Flags::CWR);
        let secret = TupleHash::new(self.secrets.isn, &segment.key);
        let iss = secret.initial(now);
        let iss = last_nxt.map_or(iss, |last| iss.max(last + INCARNATION_STEP));
        let half_open = HalfOpen::new(segment.key, link, listener, segment.seq, iss, &negotiated, now);
        self.flow_begins(&segment.key);
        self.tell_of(&segment.key, State::Listen, State::SynReceived);
        let slot = self.half_open.insert(half_open);
        self.table.insert(hash, FlowSlot::HalfOpen(slot));
        self.half_open_untimed.get_or_insert(slot);
        self.send_from_half_open(now, slot, secret, HalfOpen::syn_ack, Purpose::Handshake, out);
    }

    /// Sends the SYN-ACK again.
    fn repeat_syn_ack<T: Transmit>(&mut self, now: Instant, slot: u32, out: &mut T) {
        if let Some(half_open) = self.half_open.get(slot) {
            let hash = TupleHash::new(self.secrets.isn, &half_open.key);
            self.send_from_half_open(now, slot, hash, HalfOpen::syn_ack, Purpose::Handshake, out);
        }
    }

    fn send_from_half_open<T: Transmit>(
        &mut self,
        now: Instant,
        slot: u32,
        hash: TupleHash,
        header: impl FnOnce(&HalfOpen, u32, &crate::config::Config) -> Header,
        purpose: Purpose,
        out: &mut T,
    ) {
        let Some(half_open) = self.half_open.get(slot) else {
            return;
        };
        let timestamp = (now.as_millis() as u32).wrapping_add(hash.timestamp_offset());
        let header = header(half_open, timestamp, &self.common.config);
        if self.next_hops.is_none() {
            // Nothing has to be copied.
            let link = self.links.get(half_open.link);
            send_bare(&mut self.counters, link, &half_open.key, &header, purpose, out);
            return;
        }
        let (key, link) = (half_open.key, half_open.link);
        self.send_for_record(&key, link, &header, purpose, out);
    }

    /// The SYN-ACK was not acknowledged in time.
    pub(super) fn half_open_timer_fired<T: Transmit>(&mut self, now: Instant, slot: u32, out: &mut T) {
        let retries = self.common.config.syn_ack_retries;
        let Some(half_open) = self.half_open.get_mut(slot) else {
            return;
        };
        if half_open.retransmits >= retries {
            self.counters.bump(Counter::HalfOpenTimedOut);
            self.remove_half_open(slot);
            return;
        }
        half_open.retransmits += 1;
        let timeout = SYN_ACK_TIMEOUT * (1 << half_open.retransmits.min(16));
        self.half_open_timers
            .arm(slot, now + timeout.min(self.common.config.rto_max));
        self.counters.bump(Counter::SynAckRetransmits);
        self.repeat_syn_ack(now, slot, out);
    }

    /// A segment for a half-open connection (RFC 9293, section 3.10.7.4, SYN-RECEIVED).
    pub(super) fn half_open_receives<T: Transmit>(
        &mut self,
        now: Instant,
        slot: u32,
        (segment, hash): Hashed<'_, '_>,
        on_no_flow: OnNoFlow,
        out: &mut T,
    ) -> Received {
        let Some(half_open) = self.half_open.get_mut(slot) else {
            return Received::Done;
        };
        let (irs, iss, listener) = (half_open.irs, half_open.iss, half_open.listener);
        let (rcv_nxt, window) = (irs + 1, u32::from(syn_ack_window(&self.common.config)));
        let flags = segment.flags;
        if flags.contains(Flags::SYN) && !flags.contains(Flags::ACK) {
            if segment.seq == irs {
                // The SYN again: our answer was lost. Which of the two will be acknowledged cannot be told, so neither
                // is timed (Karn's algorithm).
                half_open.retransmits = half_open.retransmits.max(1);
                self.counters.bump(Counter::SynsIn);
                self.repeat_syn_ack(now, slot, out);
            } else {
                self.challenge_half_open(now, slot, out);
            }
            return Received::Done;
        }
        let in_window = (segment.seq - rcv_nxt) < window;
        if flags.contains(Flags::RST) {
            if segment.seq == rcv_nxt {
                self.counters.bump(Counter::HalfOpenReset);
                self.remove_half_open(slot);
            } else if in_window {
                self.challenge_half_open(now, slot, out);
            } else {
                self.counters.bump(Counter::DropOutOfWindow);
            }
            return Received::Done;
        }
        if !flags.contains(Flags::ACK) {
            self.counters.bump(Counter::DropNoAck);
            return Received::Done;
        }
        if segment.ack != iss + 1 {
            // The SYN may have been answered by a cookie too, or by another shard, which then has the connection.
            return self.stray_receives(now, listener, segment, on_no_flow, out);
        }
        if !in_window || flags.contains(Flags::SYN) {
            self.counters.bump(Counter::DropOutOfWindow);
            self.challenge_half_open(now, slot, out);
            return Received::Done;
        }
        if !self.accepts_connections() {
            // The sweep has not come to it yet, and might not come to what it would become.
            self.refuse_half_open(slot, Counter::DropDraining, out);
            return Received::Done;
        }
        match self.admit(now, &segment.key, out) {
            Ok(source) => self.promote(now, slot, (listener, source), (segment, hash), out),
            // The record stays, and a later segment of the client may find room.
            Err(full @ Counter::DropConnectionsFull) => self.counters.bump(full),
            Err(limit) => self.refuse_half_open(slot, limit, out),
        }
        Received::Done
    }

    /// The handshake is complete: the record becomes a connection, which then processes the segment.
    fn promote<T: Transmit>(
        &mut self,
        now: Instant,
        slot: u32,
        (listener, source): (ListenerId, SourceId),
        (segment, hash): Hashed<'_, '_>,
        out: &mut T,
    ) {
        let keepalive = self.keepalive(listener);
        let Some(half_open) = self.half_open.get(slot) else {
            return;
        };
        let (key, negotiated) = (&segment.key, half_open.negotiated());
        // Nobody looks at the clock of a connection without timestamps.
        let timestamp_offset = match negotiated.timestamp {
            Some(_) => TupleHash::new(self.secrets.isn, key).timestamp_offset(),
            None => 0,
        };
        let handshake = Handshake {
            origin: Origin {
                key,
                link: half_open.link,
                listener: Some(listener),
                iss: half_open.iss,
                timestamp_offset,
                keepalive,
            },
            irs: half_open.irs,
            negotiated,
        };
        let first_sent_at = half_open.first_sent_at(now);
        let sent_at = half_open.sent_at(now);
        let connection = Connection::accepted(handshake, &self.common.config, now);
        let place = self.connections.vacant_slot();
        self.take_half_open(slot);
        self.sources.open(place, source);
        self.table
            .replace(hash, FlowSlot::HalfOpen(slot), FlowSlot::Connection(place));
        // It is moved, in larger pieces than it was written in, when the processor has no writes of it under way any
        // more.
        self.connections.insert(connection);
        if self.complete_handshake(now, place, segment, sent_at, out) {
            self.latencies.accept.record(now.micros_since(first_sent_at));
        }
    }

    /// A connection in SYN-RECEIVED, just made, processes the segment that completed its handshake. `sent_at` is when
    /// the SYN-ACK was sent, `None` if that is not known or it was sent more than once. Returns whether the connection
    /// became ESTABLISHED.
    pub(super) fn complete_handshake<T: Transmit>(
        &mut self,
        now: Instant,
        slot: u32,
        segment: &Segment<'_>,
        sent_at: Option<Instant>,
        out: &mut T,
    ) -> bool {
        self.follow_next_hop(slot);
        let connection = &mut self.connections[slot];
        let mut context = context!(self, now, out);
        let arrival = connection.any_segment_arrives(segment, &mut self.application, &mut context);
        debug_assert_eq!(arrival, Arrival::Done);
        if self.next_hops.as_ref().is_none_or(|hops| hops.is_heard(slot)) {
            connection.tcb.follow(segment, context.links);
        }
        let established = connection.application.is_some();
        if let Some(sent_at) = sent_at.filter(|_| established) {
            connection.tcb.measured_handshake(sent_at, &mut context);
        }
        let outcome = if connection.tcb.is_quiet() {
            Outcome::Open
        } else {
            connection.flush_output(&mut context)
        };
        if !established && outcome == Outcome::Open {
            // The segment did not complete the handshake after all (PAWS): the connection is still in SYN-RECEIVED and
            // its timer asks again.
            let tcb = &mut connection.tcb;
            tcb.sending.acquire(context.send_states);
            tcb.sending.expect_progress(tcb.snd_una, false, now, context.config);
            tcb.sending.syn_sent_at = sent_at;
            tcb.start_retransmit_timer(now, context.rto_bounds);
        }
        self.settle(now, slot, outcome);
        established
    }

    fn challenge_half_open<T: Transmit>(&mut self, now: Instant, slot: u32, out: &mut T) {
        if !self.challenge_limit.allow(now) {
            self.counters.bump(Counter::ChallengeAcksLimited);
            return;
        }
        let Some(half_open) = self.half_open.get(slot) else {
            return;
        };
        self.counters.bump(Counter::ChallengeAcks);
        let hash = TupleHash::new(self.secrets.isn, &half_open.key);
        self.send_from_half_open(now, slot, hash, HalfOpen::challenge, Purpose::Control, out);
    }

    /// The time at which the first SYN-ACK still waited for has been waited for long enough, if there is one. They are
    /// sent in the order of the records, so only the further time-outs of a record need the wheel.
    pub(super) fn first_syn_ack_timeout(&self) -> Option<Instant> {
        let half_open = self.half_open.get(self.half_open_untimed?)?;
        Some((half_open.first_sent_at(self.now) + SYN_ACK_TIMEOUT).next_milli())
    }

    /// The record whose first time-out is due; its next one is to be armed.
    pub(super) fn first_syn_ack_due(&mut self, now: Instant) -> Option<u32> {
        let slot = self.half_open_untimed?;
        self.first_syn_ack_timeout().filter(|&due| due <= now)?;
        self.half_open_untimed = self.half_open.next(slot);
        Some(slot)
    }

    /// Takes a record and its timer away. What is still needed of it has been read: to move it would cost more.
    fn take_half_open(&mut self, slot: u32) {
        if self.half_open_untimed == Some(slot) {
            self.half_open_untimed = self.half_open.next(slot);
        }
        self.half_open_timers.cancel(slot);
        self.half_open.remove(slot);
    }

    pub(super) fn remove_half_open(&mut self, slot: u32) {
        if let Some(&HalfOpen { key, link, .. }) = self.half_open.get(slot) {
            self.take_half_open(slot);
            self.table.remove(self.table.hash(&key), FlowSlot::HalfOpen(slot));
            self.flow_ends(&key);
            self.tell_of(&key, State::SynReceived, State::Closed);
            self.links.release(link);
        }
    }

    /// A segment for a connection in TIME-WAIT.
    pub(super) fn time_wait_receives<T: Transmit>(
        &mut self,
        now: Instant,
        slot: u32,
        (segment, hash): Hashed<'_, '_>,
        on_no_flow: OnNoFlow,
        out: &mut T,
    ) -> Received {
        let Some(time_wait) = self.time_wait.get(slot) else {
            return Received::Done;
        };
        let (key, link, snd_nxt) = (segment.key, time_wait.link, time_wait.snd_nxt);
        // Of a new handshake's cookie, which another host made, if a SYN with the sequence number before this one could
        // begin a new connection: an old duplicate may be the acknowledgment of the cookie that this very connection
        // began with.
        if time_wait.may_begin_anew(segment.seq - 1, segment.options.timestamps)
            && let Some(cookie) = self.genuine_cookie(segment)
            && let Some(listener) = self.listener(&key)
        {
            if !(segment.ack - 1).after(snd_nxt) {
                // Where it begins, old duplicates of this connection would be taken for its own. The client comes
                // again, and then its SYN is answered here.
                self.counters.bump(Counter::DropCookieTimeWait);
                self.reset(now, segment, out);
                return Received::Done;
            }
            return self.cookie_acknowledged(now, listener, cookie, segment, on_no_flow, out);
        }
        match time_wait.meaning(segment) {
            Meaning::Reset => self.counters.bump(Counter::DropTimeWaitRst),
            Meaning::Ignorable => self.counters.bump(Counter::Duplicates),
            Meaning::Unknown => {
                self.remove_time_wait(slot);
                self.counters.bump(Counter::TimeWaitReset);
            }
            Meaning::NewConnection => {
                let Some(listener) = self.listener(&key) else {
                    self.counters.bump(Counter::DropNotListening);
                    return Received::Done;
                };
                self.remove_time_wait(slot);
                self.counters.bump(Counter::TimeWaitReused);
                self.syn(now, listener, (segment, hash), Some(snd_nxt), out);
            }
            meaning @ (Meaning::FinAgain | Meaning::OldSyn | Meaning::Unacceptable) => {
                let stamp = (now.as_millis() as u32).wrapping_add(time_wait.timestamp_offset);
                let header = time_wait.acknowledgment(stamp);
                if meaning == Meaning::FinAgain {
                    if let Some(record) = self.time_wait.get_mut(slot) {
                        record.begin_anew(now, self.common.config.msl);
                    }
                    self.time_wait.renew(slot);
                }
                if self.challenge_limit.allow(now) {
                    if meaning == Meaning::OldSyn
                        && let Some(record) = self.time_wait.get_mut(slot)
                    {
                        record.syn_answered = true;
                    }
                    self.send_for_record(&key, link, &header, Purpose::Control, out);
                } else {
                    self.counters.bump(Counter::ChallengeAcksLimited);
                }
            }
        }
        Received::Done
    }

    /// Sends an RST for a half-open connection that this side is about to give up. Returns whether there was a frame
    /// for it, and the device it leaves by.
    pub(super) fn reset_half_open<T: Transmit>(&mut self, slot: u32, out: &mut T) -> (bool, u8) {
        let Some(half_open) = self.half_open.get(slot) else {
            return (true, 0);
        };
        let (key, link) = (half_open.key, half_open.link);
        let header = Header {
            seq: half_open.iss + 1,
            ack: half_open.irs + 1,
            flags: Flags::RST | Flags::ACK,
            window: 0,
            options: crate::wire::Options::default(),
            ecn_capable: false,
        };
        let link = self.record_link(&key, link);
        let sent = self.send_bare(&link, &key, &header, Purpose::Control, out);
        (sent, link.device())
    }
}
