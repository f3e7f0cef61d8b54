//! From SYN to ESTABLISHED: what both sides' options make of a connection, and the active open.

use super::keepalive::KeepaliveId;
use super::receive::Arrival;
use super::send::mss_of;
use super::send_state::LazySendState;
use super::socket::Socket;
use super::window::{syn_ack_window, window_shift};
use super::{
    Connection, Context, Deadlines, Lifetime, NO_LISTENER, NearInstant, Service, State, Tcb, age_units, tuning_units,
};
use crate::application::{Application, ListenerId};
use crate::config::Config;
use crate::counters::Counter;
use crate::link::LinkId;
use crate::recovery::rto::Rto;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::transmit::Transmit;
use crate::wire::address::CompactKey;
use crate::wire::{Flags, FlowKey, Options, Segment};

/// The least text a segment is cut to, whatever the peer asks for: a tiny MSS is an attack (CVE-2019-11479). Linux's
/// value.
const MIN_MSS: u16 = 48;

/// The part of every segment that timestamps take.
const TIMESTAMPS_LENGTH: u16 = 12;

/// MSS of a peer that sent none (RFC 9293, section 3.7.1).
pub(crate) fn default_mss(ipv4: bool) -> u16 {
    if ipv4 { 536 } else { 1220 }
}

/// The agreement of the two SYNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Negotiated {
    /// The peer's MSS.
    pub(crate) mss: u16,
    /// The peer's shift; `None`: no window scaling either way.
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    /// The peer's TSval on its SYN; `None`: no timestamps.
    pub(crate) timestamp: Option<u32>,
    /// Both sides do ECN.
    pub(crate) ecn: bool,
}

impl Negotiated {
    /// From the options of the peer's SYN, all of which this side offers or accepts.
    pub(crate) fn from_syn(options: &Options, ipv4: bool) -> Self {
        Self {
            mss: options.mss.unwrap_or_else(|| default_mss(ipv4)),
            window_scale: options.window_scale,
            sack_permitted: options.sack_permitted,
            timestamp: options.timestamps.map(|timestamps| timestamps.value),
            ecn: false,
        }
    }

    /// Bytes of text in a full segment.
    fn text_per_segment(&self, mtu: u16, ipv4: bool) -> u16 {
        let stamped = if self.timestamp.is_some() { TIMESTAMPS_LENGTH } else { 0 };
        self.mss.min(mss_of(mtu, ipv4)).saturating_sub(stamped).max(MIN_MSS)
    }
}

/// The parameters of a connection before the peer has said anything.
pub(crate) struct Origin<'a> {
    pub(crate) key: &'a FlowKey,
    pub(crate) link: LinkId,
    pub(crate) listener: Option<ListenerId>,
    pub(crate) iss: SeqNumber,
    pub(crate) timestamp_offset: u32,
    pub(crate) keepalive: KeepaliveId,
}

/// A listener's handshake whose SYN-ACK has just been acknowledged.
pub(crate) struct Handshake<'a> {
    pub(crate) origin: Origin<'a>,
    /// The peer's initial sequence number.
    pub(crate) irs: SeqNumber,
    pub(crate) negotiated: Negotiated,
}

impl Tcb {
    /// A connection in SYN-SENT whose SYN has not been sent yet.
    #[inline(always)]
    pub(crate) fn new(origin: Origin<'_>, config: &Config, now: Instant) -> Self {
        let Origin {
            key,
            link,
            listener,
            iss,
            timestamp_offset,
            keepalive,
        } = origin;
        let mss = default_mss(key.is_v4());
        Self {
            snd_una: iss,
            snd_nxt: iss,
            snd_wnd: 0,
            max_snd_wnd: 0,
            snd_wl1: SeqNumber(0),
            rcv_nxt: SeqNumber(0),
            rcv_edge: SeqNumber(0),
            last_ack_sent: SeqNumber(0),
            rcv_buffer: config.receive_buffer_initial.min(config.receive_buffer),
            tuning_from: SeqNumber(0),
            mss,
            rcv_mss: mss,
            sending: LazySendState::default(),
            receiving: None,
            key: CompactKey::new(key),
            link,
            state: State::SynSent,
            settled: State::Closed,
            snd_wind_shift: 0,
            rcv_wind_shift: window_shift(config.receive_buffer),
            timestamps: true,
            sack_permitted: true,
            ecn: config.ecn,
            ece_pending: false,
            accepted: false,
            ack_now: false,
            quick_acks: 0,
            fin_queued: false,
            fin_sent: false,
            fin_received: false,
            end_of_stream_told: false,
            read_closed: false,
            abort: false,
            wants_writable: false,
            output_pending: false,
            output_queued: false,
            keepalive_probes_sent: 0,
            keepalive,
            ts_recent: 0,
            rto: Rto::default(),
            timestamp_offset,
            ts_recent_since: age_units(now),
            last_received: now,
            deadlines: Deadlines::default(),
            delayed_ack: NearInstant::NEVER,
            tuning_since: tuning_units(now),
            listener: listener.map_or(NO_LISTENER, |listener| listener.0),
            service: Service::Awaited,
            lifetime: Lifetime::new(iss),
            opened: now.as_secs() as u32,
        }
    }

    /// Takes over what the SYNs agreed on.
    #[inline]
    fn negotiate(&mut self, negotiated: &Negotiated, irs: SeqNumber, now: Instant, config: &Config) {
        self.rcv_nxt = irs + 1;
        self.mss = negotiated.text_per_segment(config.mtu, self.key.is_v4());
        if let Some(sending) = self.sending.active_mut() {
            // The initial window is one of segments of the size agreed on, whatever became of the SYN.
            sending.congestion = None;
        }
        self.tuning_from = self.rcv_nxt;
        self.lifetime.receives_from(self.rcv_nxt);
        self.ecn = negotiated.ecn;
        self.sack_permitted = negotiated.sack_permitted;
        self.timestamps = negotiated.timestamp.is_some();
        self.ts_recent = negotiated.timestamp.unwrap_or(0);
        self.ts_recent_since = age_units(now);
        match negotiated.window_scale {
            Some(shift) => self.snd_wind_shift = shift,
            None => self.rcv_wind_shift = 0,
        }
    }
}

impl<C> Connection<C> {
    /// The connection of a listener's handshake; it is in SYN-RECEIVED until it has processed the segment that
    /// completed the handshake. Made where it stays if its caller puts it there.
    #[inline(always)]
    pub(crate) fn accepted(handshake: Handshake<'_>, config: &Config, now: Instant) -> Self {
        let Handshake {
            origin,
            irs,
            negotiated,
        } = handshake;
        let iss = origin.iss;
        let mut connection = Self {
            tcb: Tcb::new(origin, config, now),
            application: None,
        };
        let tcb = &mut connection.tcb;
        tcb.negotiate(&negotiated, irs, now, config);
        tcb.state = State::SynReceived;
        tcb.settled = State::SynReceived;
        tcb.snd_nxt = iss + 1;
        tcb.rcv_edge = tcb.rcv_nxt + u32::from(syn_ack_window(config));
        tcb.last_ack_sent = tcb.rcv_nxt;
        connection
    }

    /// Our SYN was acknowledged: tells the application.
    pub(crate) fn establish<A, T>(&mut self, application: &mut A, context: &mut Context<'_, T>)
    where
        A: Application<Connection = C>,
    {
        self.tcb.state = State::Established;
        self.tcb.start_keepalive(context.keepalives);
        self.tcb.recall_path(context);
        let state = application.open(&mut Socket::new(&mut self.tcb, context));
        self.application = Some(state);
        if !self.tcb.may_queue(1, context.config, context.totals) {
            self.tcb.wants_writable = true;
        }
    }

    /// A segment for a connection in SYN-SENT (RFC 9293, section 3.10.7.3).
    pub(crate) fn syn_sent<A, T>(
        &mut self,
        segment: &Segment<'_>,
        application: &mut A,
        context: &mut Context<'_, T>,
    ) -> Arrival
    where
        A: Application<Connection = C>,
        T: Transmit,
    {
        let tcb = &mut self.tcb;
        let acknowledges = segment.flags.contains(Flags::ACK);
        if acknowledges && segment.ack != tcb.snd_nxt {
            return if segment.flags.contains(Flags::RST) {
                context.counters.bump(Counter::DropBadAck);
                Arrival::Done
            } else {
                Arrival::Refuse
            };
        }
        if segment.flags.contains(Flags::RST) {
            if acknowledges {
                return Arrival::Reset;
            }
            context.counters.bump(Counter::DropNoConnection);
            return Arrival::Done;
        }
        if !segment.flags.contains(Flags::SYN) {
            context.counters.bump(Counter::DropNoAck);
            return Arrival::Done;
        }
        let mut negotiated = Negotiated::from_syn(&segment.options, tcb.key.is_v4());
        // RFC 3168, section 6.1.1: a SYN asks with both flags, a SYN-ACK agrees with one.
        negotiated.ecn =
            tcb.ecn && segment.flags.contains(Flags::ECE) && segment.flags.contains(Flags::CWR) != acknowledges;
        tcb.negotiate(&negotiated, segment.seq, context.now, context.config);
        tcb.snd_wnd = u32::from(segment.window);
        tcb.max_snd_wnd = tcb.snd_wnd;
        tcb.snd_wl1 = segment.seq;
        tcb.accept(context.now);
        tcb.rcv_edge = tcb.rcv_nxt + tcb.rcv_buffer.min(u32::from(u16::MAX));
        if acknowledges {
            tcb.syn_acknowledged(segment, context);
            tcb.ack_now = true;
            context.counters.bump(Counter::ActiveOpens);
            self.establish(application, context);
        } else {
            // Simultaneous open: both sides are in SYN-RECEIVED until their SYN-ACKs have crossed.
            tcb.state = State::SynReceived;
            tcb.ack_now = true;
        }
        Arrival::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_size_respects_both_sides_and_has_a_floor() {
        let negotiated = |mss, timestamp| Negotiated {
            mss,
            window_scale: None,
            sack_permitted: false,
            timestamp,
            ecn: false,
        };
        assert_eq!(negotiated(1460, Some(1)).text_per_segment(1500, true), 1448);
        assert_eq!(negotiated(9000, None).text_per_segment(1500, true), 1460);
        assert_eq!(negotiated(9000, None).text_per_segment(1500, false), 1440);
        assert_eq!(negotiated(0, Some(1)).text_per_segment(1500, true), MIN_MSS);
    }
}
