//! One peer: what it remembers of its connection, and what it makes of a segment.

use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::{Flags, Options, Segment};

use super::script::Script;

/// Octets of text in a segment at most. Every path takes so many.
pub(super) const MAX_TEXT: u32 = 1_200;

/// SYNs that a peer sends in vain before it gives up.
const MAX_SYNS: u8 = 3;

/// The window scale that a script may ask for.
const MAX_SCALE: u8 = 14;

/// The state of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Not begun, or over.
    #[default]
    Closed,
    /// It has sent a SYN.
    SynSent,
    /// The handshake is complete.
    Established,
}

/// A peer. Octets of the request are counted from the first that it sends, those of the response from the first that
/// the server sends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    /// The number of its address and port.
    pub(super) number: u32,
    pub(super) state: State,
    /// SYNs it has sent.
    syns: u8,
    /// The shift of the windows it offers.
    scale: u8,
    /// ISS.
    iss: u32,
    /// IRS.
    irs: u32,
    /// Intervals since the handshake.
    step: u32,
    /// Octets of the request that the server has acknowledged.
    heard: u32,
    /// The end of what came of the response within the window.
    seen: u32,
    /// Octets of the response that it acknowledges.
    taken: u32,
    /// The right edge of its window: the first octet of the response that it has no room for.
    edge: u32,
}

/// The part of a received segment that a peer looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    flags: Flags,
    seq: u32,
    ack: u32,
    /// Octets of text.
    text: u32,
    /// The server agrees to window scaling.
    scales: bool,
}

impl Arrival {
    pub(super) fn of(segment: &Segment<'_>) -> Self {
        Self {
            flags: segment.flags,
            seq: segment.seq.0,
            ack: segment.ack.0,
            text: segment.payload.len() as u32,
            scales: segment.options.window_scale.is_some(),
        }
    }

    /// The sequence number of the RST that answers it where there is no connection, unless it is one itself.
    pub(super) fn reset_seq(&self) -> Option<u32> {
        (self.flags.contains(Flags::ACK) && !self.flags.contains(Flags::RST)).then_some(self.ack)
    }
}

/// A change in the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The handshake is complete.
    Completed,
    /// The server has sent RST, to the SYN or later.
    Reset,
    /// The server has sent FIN.
    Ended,
}

/// The segment that a peer answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// [`Peer::segment`].
    Segment,
    /// RST with this sequence number.
    Reset(u32),
}

/// The header of a segment to be sent, and which octets of the request follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) flags: Flags,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
    pub(super) options: Options,
    /// The first octet of the request, and the first after it.
    pub(super) text: (u32, u32),
}

impl Outgoing {
    /// An RST.
    pub(super) fn reset(seq: u32) -> Self {
        Self {
            flags: Flags::RST,
            seq,
            ack: 0,
            window: 0,
            options: Options::default(),
            text: (0, 0),
        }
    }
}

impl Peer {
    /// One that has not begun.
    pub(super) fn closed(number: u32) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    /// One that begins with a SYN.
    pub(super) fn new(number: u32, iss: u32) -> Self {
        Self {
            number,
            iss,
            state: State::SynSent,
            syns: 1,
            ..Self::default()
        }
    }

    /// Nothing came in a second. Whether the SYN is to be sent again; else the peer gives up.
    pub(super) fn retries(&mut self) -> bool {
        self.syns += 1;
        if self.syns > MAX_SYNS {
            self.state = State::Closed;
        }
        self.state == State::SynSent
    }

    /// An interval of the script is over.
    pub(super) fn interval_passes(&mut self, script: &dyn Script) {
        self.step += 1;
        if let Some(octets) = script.reads() {
            // It reads what came, and not what is still to come.
            self.edge = (self.edge + octets).min(self.taken + octets.max(script.room()));
        }
        self.take(script);
    }

    /// The SYN.
    pub(super) fn syn(&self, script: &dyn Script) -> Outgoing {
        Outgoing {
            flags: Flags::SYN,
            seq: self.iss,
            ack: 0,
            // Not zero, which servers do not expect of a SYN.
            window: script.room().clamp(1, u32::from(u16::MAX)) as u16,
            options: script.syn_options(),
            text: (0, 0),
        }
    }

    /// The segment that says how it is: the text that is due and not acknowledged, what is taken of the response, and
    /// the window.
    pub(super) fn segment(&self, script: &dyn Script) -> Outgoing {
        let text = (self.heard, self.said(script).min(self.heard + MAX_TEXT));
        let window = self.edge - self.taken;
        let mut options = Options::default();
        let response = SeqNumber(self.irs.wrapping_add(1));
        let blocks = script.sack_blocks(self.step, self.taken, self.seen);
        let sequence = |octet| SeqNumber(response.0.wrapping_add(octet));
        options.set_sack_blocks(blocks.into_iter().map(|(begin, end)| (sequence(begin), sequence(end))));
        Outgoing {
            flags: if text.1 > text.0 {
                Flags::ACK | Flags::PSH
            } else {
                Flags::ACK
            },
            seq: self.iss.wrapping_add(1).wrapping_add(self.heard),
            ack: sequence(self.taken).0,
            window: (window >> self.scale).min(u32::from(u16::MAX)) as u16,
            options,
            text,
        }
    }

    /// The state of a peer that is not closed after a segment of the server's, and the answer to that.
    pub(super) fn segment_arrives(
        &mut self,
        arrival: &Arrival,
        script: &dyn Script,
    ) -> (Option<Event>, Option<Answer>) {
        if arrival.flags.contains(Flags::RST) {
            self.state = State::Closed;
            return (Some(Event::Reset), None);
        }
        let acknowledged = arrival.ack.wrapping_sub(self.iss.wrapping_add(1));
        if arrival.flags.contains(Flags::SYN) {
            return self.syn_ack_arrives(arrival, acknowledged, script);
        }
        if self.state == State::SynSent {
            // The server has another connection of this address and port in mind (RFC 9293, section 3.5.2).
            return (None, Some(Answer::Reset(arrival.ack)));
        }
        if !script.is_kept() {
            let is_end = arrival.flags.contains(Flags::FIN);
            if is_end {
                self.state = State::Closed;
            }
            return (is_end.then_some(Event::Ended), None);
        }
        if acknowledged <= self.said(script) {
            self.heard = self.heard.max(acknowledged);
        }
        let begin = arrival.seq.wrapping_sub(self.irs.wrapping_add(1));
        let is_probe = begin.wrapping_sub(self.taken) > u32::MAX / 2;
        // A keepalive probe may begin before the response.
        let end = if begin > u32::MAX / 2 { 0 } else { begin + arrival.text };
        self.seen = self.seen.max(end.min(self.edge));
        self.take(script);
        if arrival.flags.contains(Flags::FIN) && end == self.taken {
            self.state = State::Closed;
            // One that is kept leaves nothing behind, so that there are no more than it should be.
            return (Some(Event::Ended), Some(Answer::Reset(arrival.ack)));
        }
        let wants_answer = arrival.text > 0 || is_probe || arrival.flags.contains(Flags::FIN);
        (
            None,
            (wants_answer && script.answers(self.taken)).then_some(Answer::Segment),
        )
    }

    fn syn_ack_arrives(
        &mut self,
        arrival: &Arrival,
        acknowledged: u32,
        script: &dyn Script,
    ) -> (Option<Event>, Option<Answer>) {
        if !arrival.flags.contains(Flags::ACK) || acknowledged != 0 {
            return (None, None);
        }
        if self.state == State::Established {
            // The answer to it was lost.
            return (None, Some(Answer::Segment));
        }
        self.state = State::Established;
        self.irs = arrival.seq;
        self.edge = script.room();
        self.scale = match script.syn_options().window_scale {
            Some(scale) if arrival.scales => scale.min(MAX_SCALE),
            _ => 0,
        };
        (Some(Event::Completed), Some(Answer::Segment))
    }

    /// Octets of the request that it has sent by now.
    fn said(&self, script: &dyn Script) -> u32 {
        script.said(self.step)
    }

    /// Acknowledges what came, as far as the script lets it. What was lost in between is acknowledged as well: nobody
    /// reads it.
    fn take(&mut self, script: &dyn Script) {
        self.taken = self.taken.max(self.seen.min(script.limit(self.step)));
        if script.reads().is_none() {
            self.edge = self.taken + script.room();
        }
    }
}
