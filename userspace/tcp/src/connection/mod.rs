//! One connection: its transmission control block and what happens to it.
//!
//! `open` brings it to ESTABLISHED, `receive` processes segments in the order of RFC 9293, section 3.10.7, `ack` what
//! acknowledgments say about what was sent, `loss` what of it is lost, `frto` whether a timeout was spurious,
//! `prediction` does both for the segment that was expected, `send` decides what leaves, `window` how much may come,
//! `path_mtu` how large a segment may be, `timers` what happens when nothing arrives, `socket` is what the application
//! sees. `sending` and `receiving` are the parts of a connection that an idle one does without.

pub(crate) mod ack;
mod common;
mod delivery;
mod frto;
pub(crate) mod keepalive;
mod lifetime;
mod loss;
pub(crate) mod open;
mod pacing;
mod path;
pub(crate) mod path_mtu;
pub(crate) mod prediction;
pub(crate) mod receive;
pub(crate) mod recv_state;
pub(crate) mod send;
pub(crate) mod send_state;
pub(crate) mod socket;
pub(crate) mod state;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod timers;
mod unread;
pub(crate) mod window;

use core::time::Duration;

use crate::application::{CloseReason, ListenerId};
use crate::config::Config;
use crate::congestion::{INITIAL_SSTHRESH, initial_window};
use crate::counters::Counters;
use crate::histogram::Latencies;
use crate::link::{LinkId, LinkTable};
use crate::recovery::rto::{Bounds, Rto};
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::address::CompactKey;
use crate::wire::options::Timestamps;
use crate::wire::{LinkHeader, Segment};

pub(crate) use common::Common;
use keepalive::{KeepaliveId, KeepaliveTable};
pub(crate) use lifetime::Lifetime;
pub(crate) use path_mtu::PathMtu;
use recv_state::RecvState;
use send_state::{LazySendState, SendStatePool};
pub use state::State;
pub(crate) use timers::{Deadlines, NearInstant};

/// The parts of the engine that a connection needs while something happens to it.
pub(crate) struct Context<'a, T> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Common,
    pub(crate) rto_bounds: Bounds,
    pub(crate) counters: &'a mut Counters,
    pub(crate) latencies: &'a mut Latencies,
    pub(crate) links: &'a mut LinkTable,
    pub(crate) totals: &'a mut Totals,
    pub(crate) send_states: &'a mut SendStatePool,
    pub(crate) keepalives: &'a KeepaliveTable,
    pub(crate) out: &'a mut T,
}

/// The outcome of an event for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It stays.
    Open,
    /// It goes to TIME-WAIT.
    TimeWait,
    /// It is gone.
    Closed(CloseReason),
}

/// Whether the application has had a complete request of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// It has not.
    Awaited,
    /// It has since the last event.
    Begun,
    /// It has, and the connection is listed accordingly.
    Listed,
}

/// Memory held by all connections of an engine together, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Out-of-order data with its overhead.
    pub(crate) reassembly: u64,
    /// In-order data no application has consumed, with its overhead.
    pub(crate) unread: u64,
    /// Memory held by data queued for sending.
    pub(crate) queued: u64,
}

impl Totals {
    /// All that was received and is held, in order or not.
    #[inline]
    pub(crate) fn received(&self) -> u64 {
        self.unread + self.reassembly
    }

    /// Whether it is so much that no more is to be promised: three quarters of what there may be. The last one is for
    /// data that comes in order.
    #[inline]
    pub(crate) fn is_receive_pressure(&self, config: &Config) -> bool {
        self.received() >= reassembly_share(config)
    }
}

/// The memory that may be held before nothing more is held out of order.
#[inline]
pub(crate) fn reassembly_share(config: &Config) -> u64 {
    config.receive_bytes_total - config.receive_bytes_total / 4
}

/// The knowledge needed to find out that retransmission was spurious, and to take its consequences back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Undo {
    /// SND.UNA when the recovery began: reports of what comes before it are of earlier ones.
    pub(crate) from: SeqNumber,
    /// TSval of the first retransmission and of the last.
    pub(crate) stamps: Option<(u32, u32)>,
    /// SND.UNA has moved since.
    pub(crate) answered: bool,
    /// Something was sent again.
    pub(crate) sent: bool,
    /// Retransmissions the peer has not reported as duplicates.
    pub(crate) retransmits: u32,
    /// The recovery is over, and until then what it sent again may be reported; [`Instant::NEVER`] while it goes on.
    pub(crate) until: Instant,
}

impl Undo {
    /// A recovery begins at SND.UNA.
    pub(crate) fn new(una: SeqNumber) -> Self {
        Self {
            from: una,
            stamps: None,
            answered: false,
            sent: false,
            retransmits: 0,
            until: Instant::NEVER,
        }
    }
}

/// The most an application is asked for beyond what both windows let go, in bytes, unless one segment is more.
const MAX_READ_AHEAD: u32 = 16 << 10;

/// A connection with what its application keeps.
#[repr(C)]
pub(crate) struct Connection<C> {
    /// `None` before ESTABLISHED.
    pub(crate) application: Option<C>,
    pub(crate) tcb: Tcb,
}

impl<C> Connection<C> {
    /// Reads a word of every cache line, wherever these begin, if the application keeps less than a line. The result
    /// means nothing.
    #[inline]
    pub(crate) fn touch(&self) -> u32 {
        let tcb = &self.tcb;
        let ends = u32::from(self.application.is_some()) ^ tcb.settled as u32;
        let sending = u32::from(tcb.sending.active().is_some());
        ends ^ tcb.snd_una.0 ^ sending ^ tcb.timestamp_offset ^ tcb.last_received.as_micros() as u32
    }
}

/// The transmission control block (RFC 9293, section 3.3.1).
///
/// The fields that every segment needs come first, in the order in which it is needed, in two cache lines; then the
/// timers and what belongs to timestamps; last what is rarely looked at.
#[repr(C)]
pub(crate) struct Tcb {
    /// SND.UNA: the first byte of the send queue, unless the SYN is not acknowledged.
    pub(crate) snd_una: SeqNumber,
    /// SND.NXT: never goes back; what is sent again, the scoreboard knows.
    pub(crate) snd_nxt: SeqNumber,
    /// SND.WND, in bytes.
    pub(crate) snd_wnd: u32,
    /// The largest SND.WND seen.
    pub(crate) max_snd_wnd: u32,
    /// SND.WL1.
    pub(crate) snd_wl1: SeqNumber,
    /// RCV.NXT.
    pub(crate) rcv_nxt: SeqNumber,
    /// The furthest RCV.NXT + RCV.WND that was offered.
    pub(crate) rcv_edge: SeqNumber,
    /// Last.ACK.sent (RFC 7323).
    pub(crate) last_ack_sent: SeqNumber,
    /// The buffer the window is offered from; grows up to `receive_buffer`.
    pub(crate) rcv_buffer: u32,
    /// RCV.NXT when the present measurement of the peer's rate began.
    pub(crate) tuning_from: SeqNumber,
    /// Bytes of text in a full segment, options already subtracted.
    pub(crate) mss: u16,
    /// The largest text received in one segment.
    pub(crate) rcv_mss: u16,
    /// TS.Recent.
    pub(crate) ts_recent: u32,
    pub(crate) sending: LazySendState,
    pub(crate) receiving: Option<Box<RecvState>>,

    pub(crate) key: CompactKey,
    pub(crate) link: LinkId,
    pub(crate) state: State,
    /// Snd.Wind.Shift (RFC 7323).
    pub(crate) snd_wind_shift: u8,
    /// Rcv.Wind.Shift (RFC 7323).
    pub(crate) rcv_wind_shift: u8,
    /// Timestamps were negotiated.
    pub(crate) timestamps: bool,
    /// SACK was negotiated.
    pub(crate) sack_permitted: bool,
    /// ECN was negotiated (RFC 3168).
    pub(crate) ecn: bool,
    /// A CE mark was received; acknowledgments carry ECE until the peer answers with CWR.
    pub(crate) ece_pending: bool,
    /// The last segment passed the checks that a blind attacker fails.
    pub(crate) accepted: bool,
    /// An acknowledgment has to go out now.
    pub(crate) ack_now: bool,
    /// Segments of text to be acknowledged each by itself.
    pub(crate) quick_acks: u8,
    /// The application wants FIN sent after the queue.
    pub(crate) fin_queued: bool,
    /// FIN has been sent; it stands right before SND.NXT.
    pub(crate) fin_sent: bool,
    /// The peer's FIN has been received in order.
    pub(crate) fin_received: bool,
    /// The application was told of the peer's FIN.
    pub(crate) end_of_stream_told: bool,
    /// The application called close: what still comes is thrown away.
    pub(crate) read_closed: bool,
    /// The application called abort.
    pub(crate) abort: bool,
    /// The send buffer was found full; the application is told when there is room.
    pub(crate) wants_writable: bool,
    /// The engine has this connection in its list of those that could not send.
    pub(crate) output_pending: bool,
    /// It is in that list.
    pub(crate) output_queued: bool,
    pub(crate) keepalive_probes_sent: u8,
    pub(crate) keepalive: KeepaliveId,

    pub(crate) timestamp_offset: u32,
    pub(crate) rto: Rto,
    /// The time at which TS.Recent was set, in units of [`age_units`].
    pub(crate) ts_recent_since: u16,
    /// The time something was last received.
    pub(crate) last_received: Instant,
    pub(crate) deadlines: Deadlines,
    /// The deadline of an acknowledgment, near the time something was last received.
    pub(crate) delayed_ack: NearInstant,

    /// The beginning of the present measurement of the peer's rate, in units of [`tuning_units`].
    pub(crate) tuning_since: u32,
    pub(crate) lifetime: Lifetime,
    /// The second of the engine's clock in which the connection was opened.
    pub(crate) opened: u32,
    /// The number of the listener, or [`NO_LISTENER`].
    listener: u16,
    pub(crate) service: Service,
    /// The state after the last event.
    pub(crate) settled: State,
}

/// A time in units of some four minutes, which wrap after half a year.
#[inline]
pub(crate) fn age_units(now: Instant) -> u16 {
    (now.as_micros() >> 28) as u16
}

/// A time in units of 64 microseconds, which wrap after three days.
#[inline]
pub(crate) fn tuning_units(now: Instant) -> u32 {
    (now.as_micros() >> 6) as u32
}

/// Marks a connection this side opened: there are fewer listeners.
const NO_LISTENER: u16 = u16::MAX;

impl Tcb {
    /// Sends back to where `segment`, the last one, came from, if it was accepted: the peer may be behind another
    /// router or device now, and nothing else can say so.
    #[inline(always)]
    pub(crate) fn follow(&mut self, segment: &Segment<'_>, links: &mut LinkTable) {
        if self.accepted && !segment.link.is_answered_by(links.get(self.link)) {
            self.move_to(&segment.link.reply(), links);
        }
    }

    #[cold]
    fn move_to(&mut self, header: &LinkHeader, links: &mut LinkTable) {
        if let Some(new) = links.acquire(header) {
            links.release(self.link);
            self.link = new;
        }
    }

    /// The listener that accepted the connection; `None` for one this side opened.
    #[inline]
    pub(crate) fn listener(&self) -> Option<ListenerId> {
        (self.listener != NO_LISTENER).then_some(ListenerId(self.listener))
    }

    /// Bytes of sequence space sent and not acknowledged.
    #[inline]
    pub(crate) fn flight(&self) -> u32 {
        self.snd_nxt - self.snd_una
    }

    /// Whether the peer has still to acknowledge something, FIN included, sent or not.
    #[inline]
    pub(crate) fn awaits_acknowledgment(&self) -> bool {
        self.flight() > 0 || self.queued() > 0 || (self.fin_queued && !self.fin_sent)
    }

    /// Whether more is to be sent than what is queued: FIN, or what the application has had no room for.
    #[inline]
    pub(crate) fn has_more(&self) -> bool {
        if self.fin_queued {
            !self.fin_sent
        } else {
            self.wants_writable
        }
    }

    /// The time for which the peer has sent next to nothing, less than half of a receive buffer. Where that took it
    /// more than three days, it is as long as nothing at all was received, or longer.
    pub(crate) fn quiet_for(&self, now: Instant) -> Duration {
        let units = tuning_units(now).wrapping_sub(self.tuning_since);
        let measured = Duration::from_micros(u64::from(units) << 6);
        measured.max(now.since(self.last_received))
    }

    /// Bytes queued for sending and not acknowledged.
    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.sending.send_queue.len()
    }

    /// Bytes queued and never sent.
    #[inline]
    pub(crate) fn unsent(&self) -> u32 {
        let flight = self.flight();
        let fin_in_flight = self.fin_sent && flight > 0;
        self.queued() as u32 - (flight - u32::from(fin_in_flight))
    }

    /// In-order bytes the application has not consumed.
    #[inline]
    pub(crate) fn unread(&self) -> usize {
        self.receiving.as_deref().map_or(0, |receiving| receiving.unread.len())
    }

    /// The congestion window.
    #[inline]
    pub(crate) fn cwnd(&self) -> u32 {
        match &self.sending.congestion {
            Some(controller) => controller.window(),
            None => initial_window(u32::from(self.mss)),
        }
    }

    /// The slow start threshold.
    #[inline]
    pub(crate) fn ssthresh(&self) -> u32 {
        match &self.sending.congestion {
            Some(controller) => controller.ssthresh(),
            None => INITIAL_SSTHRESH,
        }
    }

    /// Bytes that have not been sent and both windows would let go.
    fn usable(&self) -> u32 {
        let usable = self.snd_wnd.saturating_sub(self.flight());
        // What is lost is sent before.
        let taken = self.pipe().saturating_add(self.sending.scoreboard.lost());
        usable.min(self.cwnd().saturating_sub(taken))
    }

    /// Bytes the application may have queued beyond those that leave at once: a segment, so that the next
    /// acknowledgment finds something to send; and while the windows are large a few, so that it is asked for them
    /// together.
    fn read_ahead(&self, usable: u32) -> u32 {
        let window = self.flight().saturating_add(usable);
        (window / 64).min(MAX_READ_AHEAD).max(u32::from(self.mss))
    }

    /// Bytes the application may still queue. It follows both windows: a peer that reads nothing has nothing read ahead
    /// for it but a segment.
    pub(crate) fn send_space(&self, config: &Config, totals: &Totals) -> usize {
        if self.fin_queued || self.abort || !self.state.may_send() {
            return 0;
        }
        let queued = self.queued();
        let usable = self.usable();
        // Less than a segment does not leave.
        let leaving = usable - usable % u32::from(self.mss).max(1);
        let limit = self
            .flight()
            .saturating_add(leaving)
            .saturating_add(self.read_ahead(usable));
        // What was queued in this callback is not in the totals yet.
        let others = totals.queued - self.sending.counted_queued as u64;
        let shared = config
            .send_bytes_total
            .saturating_sub(others + self.sending.send_queue.held() as u64);
        let shared = usize::try_from(shared).unwrap_or(usize::MAX);
        let least = self.min_send_buffer(config).saturating_sub(queued);
        let limit = limit.min(config.send_buffer) as usize;
        limit.saturating_sub(queued).min(shared.max(least))
    }

    /// Bytes the application may have queued whatever the peer's window is and all connections together hold: a
    /// segment.
    #[inline]
    fn min_send_buffer(&self, config: &Config) -> usize {
        usize::from(self.mss).min(config.send_buffer as usize)
    }

    /// Whether the application may queue `length` more bytes.
    #[inline]
    pub(crate) fn may_queue(&self, length: usize, config: &Config, totals: &Totals) -> bool {
        // What every connection may queue need not be reckoned.
        if self.queued() + length <= self.min_send_buffer(config) {
            return !self.fin_queued && !self.abort && self.state.may_send();
        }
        length <= self.send_space(config, totals)
    }

    /// Whether the application should be asked for more: there is room, and not more than half of what is to wait for
    /// the next acknowledgment is queued behind what leaves now.
    #[inline]
    pub(crate) fn is_writable(&self, config: &Config, totals: &Totals) -> bool {
        if self.queued() == 0 {
            self.may_queue(1, config, totals)
        } else {
            self.is_writable_behind(config, totals)
        }
    }

    /// [`Tcb::is_writable`] where something is queued.
    fn is_writable_behind(&self, config: &Config, totals: &Totals) -> bool {
        let usable = self.usable();
        let waiting = i64::from(self.unsent()) - i64::from(usable);
        waiting <= i64::from(self.read_ahead(usable) / 2) && self.send_space(config, totals) > 0
    }

    /// Brings the engine's totals up to date.
    #[inline]
    pub(crate) fn account(&mut self, totals: &mut Totals) {
        if let Some(sending) = self.sending.active_mut() {
            let queued = sending.send_queue.held();
            totals.queued = totals.queued + queued as u64 - sending.counted_queued as u64;
            sending.counted_queued = queued;
        }
        if let Some(receiving) = self.receiving.as_deref_mut() {
            receiving.count(totals);
        }
    }

    /// Takes everything the connection holds out of the engine's totals: it is about to be forgotten.
    pub(crate) fn discount(&self, totals: &mut Totals) {
        if let Some(sending) = self.sending.active() {
            totals.queued -= sending.counted_queued as u64;
        }
        if let Some(receiving) = self.receiving.as_deref() {
            totals.unread -= receiving.counted_unread as u64;
            totals.reassembly -= receiving.reassembly.as_ref().map_or(0, |held| held.bytes() as u64);
        }
    }

    /// Gives back what an idle connection does without.
    #[inline(always)]
    pub(crate) fn release_idle(&mut self, now: Instant, send_states: &mut SendStatePool) {
        if self.flight() == 0 && !self.output_pending {
            self.sending.release_if_expendable(self.mss, now, send_states);
        }
        if self.receiving.as_deref().is_some_and(RecvState::is_empty) {
            self.receiving = None;
        }
    }

    /// This connection's timestamp clock: milliseconds with an offset of its own.
    #[inline]
    pub(crate) fn timestamp_now(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.timestamp_offset)
    }

    #[inline]
    pub(crate) fn timestamps_option(&self, now: Instant) -> Option<Timestamps> {
        self.timestamps.then(|| Timestamps {
            value: self.timestamp_now(now),
            echo: self.ts_recent,
        })
    }

    /// Whether one more challenge ACK, or ACK to a segment outside of the window, may be sent in this second. A rate
    /// above 65,534 is no limit.
    pub(crate) fn allow_challenge(&mut self, now: Instant, rate: u32) -> bool {
        self.lifetime.note_challenge(now) <= rate
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn a_connection_is_small() {
        // Ten million of them in 256 bytes each, with what the application keeps and their places in the tables.
        assert!(size_of::<Tcb>() <= 176, "{} bytes", size_of::<Tcb>());
    }

    #[test]
    fn every_cache_line_of_a_connection_is_touched() {
        const LINE: usize = 64;
        let read = [
            offset_of!(Tcb, snd_una),
            offset_of!(Tcb, sending),
            offset_of!(Tcb, timestamp_offset),
            offset_of!(Tcb, last_received),
            offset_of!(Tcb, settled),
        ];
        let mut covered = 0;
        for offset in read {
            assert!(offset < covered + LINE, "nothing of {covered} to {offset} is read");
            covered = offset + 1;
        }
        assert!(size_of::<Tcb>() < covered + LINE, "nothing behind {covered} is read");
        assert_eq!(offset_of!(Connection<()>, application), 0);
    }

    #[test]
    fn a_peer_is_quiet_for_as_long_as_it_has_sent_little_or_nothing() {
        let mut tcb = testing::tcb(true, false, 0);
        let begin = Instant::from_micros(5 << 40);
        (tcb.tuning_since, tcb.last_received) = (tuning_units(begin), begin);
        for micros in [0, 64, 1_000_000, 86_400_000_000] {
            tcb.last_received = begin.plus_micros(micros / 2);
            let quiet = tcb.quiet_for(begin.plus_micros(micros)).as_micros() as u64;
            assert!(quiet.abs_diff(micros) < 64, "{quiet} for {micros}");
        }
        // The units have wrapped, and nothing came meanwhile.
        tcb.last_received = begin;
        assert_eq!(
            tcb.quiet_for(begin.plus_micros(1 << 39)),
            Duration::from_micros(1 << 39)
        );
    }

    #[test]
    fn what_every_segment_needs_is_in_two_cache_lines() {
        assert_eq!(offset_of!(Tcb, snd_una), 0);
        assert!(offset_of!(Tcb, rto) <= 128, "{} bytes", offset_of!(Tcb, rto));
        // Its timers are in the third.
        let timers = offset_of!(Tcb, deadlines) + size_of::<Deadlines>();
        assert!(timers <= 192, "{timers} bytes");
    }
}
