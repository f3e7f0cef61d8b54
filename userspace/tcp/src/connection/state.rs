//! Connection states (RFC 9293, section 3.3.2).

use core::fmt;

/// The state of a connection. CLOSED is the absence of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Waiting for connection requests; kept as a listener, not as a connection.
    Listen,
    /// SYN sent, waiting for the peer's.
    SynSent,
    /// SYNs exchanged, waiting for ours to be acknowledged.
    SynReceived,
    /// Open both ways.
    Established,
    /// FIN sent, not acknowledged.
    FinWait1,
    /// FIN sent and acknowledged, the peer may still send.
    FinWait2,
    /// The peer has sent FIN, this side may still send.
    CloseWait,
    /// Both have sent FIN, ours is not acknowledged and was sent before the peer's was known.
    Closing,
    /// Both have sent FIN, ours, sent last, is not acknowledged.
    LastAck,
    /// Waiting until no segment of the connection can be in the network any more.
    TimeWait,
    /// No connection.
    Closed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Listen => "LISTEN",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
        })
    }
}

impl State {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Listen,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
        Self::Closed,
    ];

    /// Whether the peer may still send text.
    #[inline]
    pub(crate) fn may_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }

    /// Whether this side may still send new text.
    #[inline]
    pub(crate) fn may_send(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }
}
