//! What can be asked about an engine's connections.

use core::net::SocketAddr;
use core::time::Duration;

use super::Engine;
use crate::application::{Application, ListenerId};
use crate::connection::State;

/// How many flows of each kind an engine has.
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
    /// Smoothed round-trip time.
    pub srtt: Option<Duration>,
}

impl<A: Application> Engine<A> {
    /// How many flows of each kind there are.
    pub fn population(&self) -> Population {
        Population {
            connections: self.connections.len() as u32,
            half_open: self.half_open.len(),
            time_wait: self.time_wait.len(),
        }
    }

    /// Out-of-order bytes held by all connections, overhead included.
    pub fn reassembly_bytes(&self) -> u64 {
        self.totals.reassembly
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
        };
        let listeners = self.listeners.iter().enumerate().map(move |(index, listener)| {
            let local = listener.address;
            let anyone = match local {
                SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
                SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
            };
            bare(local, anyone, State::Listen, Some(ListenerId(index as u16)))
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
                listener: tcb.listener,
                unread: tcb.unread.len(),
                unacknowledged: tcb.send_queue.len(),
                srtt: tcb.rto.srtt(),
            }
        });
        listeners.chain(half_open).chain(open).chain(time_wait)
    }
}
