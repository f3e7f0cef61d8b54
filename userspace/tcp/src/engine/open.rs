//! The active open (RFC 9293, section 3.10.1).

use core::fmt;
use core::hint::black_box;
use core::net::SocketAddr;

use super::{Engine, context};
use crate::application::Application;
use crate::connection::open::Origin;
use crate::connection::socket::Socket;
use crate::connection::{Connection, Context, Tcb};
use crate::flow_table::FlowSlot;
use crate::isn::TupleHash;
use crate::time::Instant;
use crate::transmit::Transmit;
use crate::wire::{FlowKey, LinkHeader};

/// A connection of this engine, by number. Numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u32);

/// The reason a connection could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The two addresses are of different families.
    FamilyMismatch,
    /// The 4-tuple is in use, TIME-WAIT included.
    InUse,
    /// `max_connections` are open.
    Full,
    /// Too many different link headers are in use.
    LinkTableFull,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FamilyMismatch => "local and remote address are of different families",
            Self::InUse => "the pair of addresses and ports is in use",
            Self::Full => "max_connections are open",
            Self::LinkTableFull => "too many different link headers are in use",
        })
    }
}

impl core::error::Error for ConnectError {}

impl<A: Application> Engine<A> {
    /// Says that [`Engine::connect`] will soon be called with these pairs of a local and a remote address: what it will
    /// need is read for all of them at once. With many connections that saves most of the waiting for memory.
    pub fn prepare(&self, pairs: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) {
        let touched = pairs.into_iter().fold(0, |touched, (local, remote)| {
            touched ^ self.table.prefetch(self.table.hash(&FlowKey::new(local, remote)))
        });
        black_box(touched);
    }

    /// Sends a SYN from `local` to `remote` through `link`, or as [`Engine::set_next_hops`] has it.
    /// [`Application::open`] is called when the connection reaches ESTABLISHED; one that does not within `user_timeout`
    /// disappears and counts as timed out.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says why not.
    pub fn connect<T: Transmit>(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        link: &LinkHeader,
        out: &mut T,
    ) -> Result<ConnectionId, ConnectError> {
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(ConnectError::FamilyMismatch);
        }
        let key = FlowKey::new(local, remote);
        if self.find(&key).is_some() {
            return Err(ConnectError::InUse);
        }
        if self.connections.len() >= self.common.config.max_connections {
            return Err(ConnectError::Full);
        }
        let link = self.links.acquire(link).ok_or(ConnectError::LinkTableFull)?;
        let hash = TupleHash::new(self.secrets.isn, &key);
        let origin = Origin {
            key: &key,
            link,
            listener: None,
            iss: hash.initial(now),
            timestamp_offset: hash.timestamp_offset(),
            keepalive: self.keepalives.number(self.common.config.keepalive()),
        };
        let tcb = Tcb::new(origin, &self.common.config, now);
        let slot = self.connections.insert(Connection { tcb, application: None });
        self.table.insert(self.table.hash(&key), FlowSlot::Connection(slot));
        self.flow_begins(&key);
        self.follow_next_hop(slot);
        let connection = &mut self.connections[slot];
        let mut context = context!(self, now, out);
        let outcome = connection.flush_output(&mut context);
        self.settle(now, slot, outcome);
        Ok(ConnectionId(slot))
    }

    /// Runs `action` on a connection outside of its callbacks, then sends what it queued. `None` when there is no such
    /// connection or it is not ESTABLISHED yet.
    pub fn with_connection<T: Transmit, R>(
        &mut self,
        now: Instant,
        id: ConnectionId,
        out: &mut T,
        action: impl FnOnce(&mut A, &mut A::Connection, &mut dyn crate::application::Stream) -> R,
    ) -> Option<R> {
        self.follow_next_hop(id.0);
        let connection = self.connections.get_mut(id.0)?;
        let application = &mut self.application;
        let mut context = context!(self, now, out);
        let result = connection.call(&mut context, |state, socket: &mut Socket<'_>| {
            action(application, state, socket)
        })?;
        connection.offer_unread(&mut self.application, &mut context);
        let outcome = connection.flush_output(&mut context);
        self.settle(now, id.0, outcome);
        Some(result)
    }
}
