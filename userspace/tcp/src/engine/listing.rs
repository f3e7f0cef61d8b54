//! Questions about an engine's connections.

use core::net::SocketAddr;
use core::time::Duration;

use super::Engine;
use crate::application::{Application, ListenerId};
use crate::connection::State;

/// The number of flows of each kind an engine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    /// Connections from ESTABLISHED to LAST-ACK, and those this side is opening.
    pub connections: u32,
    /// Connections in SYN-RECEIVED that came from a listener.
    pub half_open: u32,
    /// Connections in TIME-WAIT.
    pub time_wait: u32,
}

impl Population {
    /// Adds another engine's.
    pub fn merge(&mut self, other: Self) {
        self.connections += other.connections;
        self.half_open += other.half_open;
        self.time_wait += other.time_wait;
    }
}

/// The agreement of a connection's SYNs, as it is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiatedOptions {
    /// Bytes of text in a full segment: the smaller of both sides' MSS, less the room that timestamps take, or less
    /// still where the path asks for it.
    pub mss: u16,
    /// Shift of the windows the peer offers, 0 to 14 (RFC 7323: Snd.Wind.Shift).
    pub send_window_shift: u8,
    /// Shift of the windows this side offers, 0 to 14 (RFC 7323: Rcv.Wind.Shift). Both are 0 without window scaling.
    pub receive_window_shift: u8,
    /// Segments carry timestamps (RFC 7323).
    pub timestamps: bool,
    /// Acknowledgments are selective (RFC 2018).
    pub sack: bool,
    /// Both sides do ECN (RFC 3168).
    pub ecn: bool,
}

/// One line of a connection listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// This side.
    pub local: SocketAddr,
    /// The peer; for a listener the unspecified address and port 0.
    pub peer: SocketAddr,
    /// The state.
    pub state: State,
    /// The listener that accepted the connection.
    pub listener: Option<ListenerId>,
    /// Bytes received that the application has not consumed.
    pub unread: usize,
    /// Bytes queued for sending and not acknowledged.
    pub unacknowledged: usize,
    /// Smoothed round-trip time; `None` before the first measurement.
    pub srtt: Option<Duration>,
    /// The agreement of the SYNs; `None` for listeners, before ESTABLISHED, and in TIME-WAIT.
    pub options: Option<NegotiatedOptions>,
}

impl<A: Application> Engine<A> {
    /// The number of flows of each kind.
    pub fn population(&self) -> Population {
        Population {
            connections: self.connections.len() as u32,
            half_open: self.half_open.len(),
            time_wait: self.time_wait.len(),
        }
    }

    /// Connections in SYN-RECEIVED that came from a listener.
    pub fn half_open(&self) -> u32 {
        self.half_open.len()
    }

    /// Memory of what all connections hold out of order, in bytes; at most `reassembly_bytes_total`.
    pub fn reassembly_bytes(&self) -> u64 {
        self.totals.reassembly
    }

    /// Memory held by what all connections have queued for sending, in bytes, overhead included.
    pub fn send_bytes(&self) -> u64 {
        self.totals.queued
    }

    /// Memory of all that connections have received and hold, in order or not, in bytes; at most `receive_bytes_total`,
    /// and for each connection a segment.
    pub fn received_bytes(&self) -> u64 {
        self.totals.received()
    }

    /// Every listener and every connection, in no particular order.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> + '_ {
        let bare = |local, peer, state, listener| ConnectionInfo {
            local,
            peer,
            state,
            listener,
            unread: 0,
            unacknowledged: 0,
            srtt: None,
            options: None,
        };
        let listeners = self.addresses.iter().map(move |(local, listener)| {
            let anyone = match local {
                SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
                SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
            };
            bare(local, anyone, State::Listen, Some(listener))
        });
        let half_open = self.half_open.iter().map(move |record| {
            let (local, peer) = (record.key.local(), record.key.peer());
            bare(local, peer, State::SynReceived, Some(record.listener))
        });
        let time_wait = self
            .time_wait
            .iter()
            .map(move |record| bare(record.key.local(), record.key.peer(), State::TimeWait, None));
        let open = self.connections.iter().map(|(_, connection)| {
            let tcb = &connection.tcb;
            ConnectionInfo {
                local: tcb.key.local(),
                peer: tcb.key.peer(),
                state: tcb.state,
                listener: tcb.listener(),
                unread: tcb.unread(),
                unacknowledged: tcb.queued(),
                srtt: tcb.rto.srtt(),
                options: connection.application.as_ref().map(|_| NegotiatedOptions {
                    mss: tcb.mss,
                    send_window_shift: tcb.snd_wind_shift,
                    receive_window_shift: tcb.rcv_wind_shift,
                    timestamps: tcb.timestamps,
                    sack: tcb.sack_permitted,
                    ecn: tcb.ecn,
                }),
            }
        });
        listeners.chain(half_open).chain(open).chain(time_wait)
    }
}
