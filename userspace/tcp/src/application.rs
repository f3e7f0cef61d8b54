//! Applications, which run on connections: callbacks, called from within the engine.
//!
//! The traits know nothing of the engine, so the same application also runs on the kernel's sockets.

use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;

use crate::time::Instant;
use crate::wire::checksum::TextSum;

/// A listener, by the order in which it was added to the engine (0 is the first).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// The reason a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Both sides sent FIN and had it acknowledged.
    Finished,
    /// The peer sent RST.
    ResetByPeer,
    /// This side sent RST: [`Stream::abort`], or the end of draining.
    Aborted,
    /// The peer stopped acknowledging data, probes or keepalives (RFC 9293, section 3.8.3; RFC 1122, section 4.2.3.6).
    TimedOut,
    /// This side sent RST: the table of connections was full, and a newer one took the place.
    Evicted,
}

/// A connection as its application sees it during a callback.
pub trait Stream {
    /// The listener that accepted it; `None` for a connection this side opened.
    fn listener(&self) -> Option<ListenerId>;

    /// This side's address and port.
    fn local(&self) -> SocketAddr;

    /// The peer's address and port.
    fn peer(&self) -> SocketAddr;

    /// The time of the event that led to this callback.
    fn now(&self) -> Instant;

    /// Whether the peer has sent FIN: nothing follows the data offered. Data left unconsumed when FIN arrives is
    /// offered once more, so that an application that waits for the rest of something learns that it will not come.
    fn peer_finished(&self) -> bool;

    /// The number of bytes that [`Stream::send`] would take now. Zero after [`Stream::shutdown`], [`Stream::close`] or
    /// [`Stream::abort`]. It follows what the peer's window and the network's allow to be sent: what is produced for a
    /// connection should not be more, or a peer that does not read has it held. When it was exhausted and there is room
    /// again, [`Application::writable`] is called.
    fn send_space(&self) -> usize;

    /// Queues the front of `data` for sending, as much as [`Stream::send_space`] allows, and removes it from `data`.
    /// Returns how many bytes were taken. More than a few bytes are shared, not copied, until the peer has acknowledged
    /// them, and count as much memory: `data` should not be a small part of a large buffer that nobody else needs. The
    /// last segment of what is queued at the end of a callback carries PSH.
    fn send(&mut self, data: &mut Bytes) -> usize;

    /// Queues all of `data` for sending, like [`Stream::send`], or nothing if there is not room for all of it; says
    /// which. `sum` must be the sum of `data`: for what is sent many times it need not be taken for every segment.
    fn send_whole(&mut self, data: &Bytes, sum: TextSum) -> bool {
        let _ = sum;
        let fits = data.len() <= self.send_space();
        if fits {
            self.send(&mut data.clone());
        }
        fits
    }

    /// Queues a copy of the front of `data`. Returns how many bytes were taken.
    fn send_copy(&mut self, data: &[u8]) -> usize;

    /// Bytes queued and not yet acknowledged by the peer.
    fn unacknowledged(&self) -> usize;

    /// Sends FIN after what is queued; receiving goes on (half-close).
    fn shutdown(&mut self);

    /// Sends FIN after what is queued; what the peer still sends is acknowledged and thrown away, for a bounded time.
    /// [`Application::receive`] is not called again.
    fn close(&mut self);

    /// Sends RST and forgets the connection at the end of the callback.
    fn abort(&mut self);

    /// Tells that the peer has made a complete request, of whatever kind the application serves. Where the table of
    /// connections is full, those whose peers have made none are the first to give way to new ones.
    fn mark_served(&mut self) {}

    /// Has [`Application::timeout`] called once after `after`, replacing what was set before; `None` cancels.
    fn set_timer(&mut self, after: Option<Duration>);
}

/// An application: one value of this type per shard, one `Connection` per connection.
///
/// Callbacks must not block; they run on the shard's thread between two segments.
pub trait Application {
    /// The application's state of one connection.
    type Connection;

    /// A connection reached ESTABLISHED.
    fn open<S: Stream>(&mut self, stream: &mut S) -> Self::Connection;

    /// In-order data arrived. Returns how many bytes of `data` were consumed, at most `data.len()`.
    ///
    /// Data that is not consumed stays in the receive buffer, narrows the window offered to the peer, and is offered
    /// again (with what arrived since) after the next [`Application::writable`] or [`Application::timeout`], or
    /// together with the next data from the peer.
    fn receive<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S, data: &[u8]) -> usize;

    /// The peer sent FIN and everything before it has been consumed. Sending is still possible (half-close): the
    /// application ends the connection with [`Stream::close`] or [`Stream::shutdown`] when it has sent all it has to.
    fn end_of_stream<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S);

    /// There is room to send again after [`Stream::send_space`] had been exhausted.
    fn writable<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S);

    /// The timer set by [`Stream::set_timer`] ran out.
    fn timeout<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S);

    /// The server is going to stop: finish what is under way and close what is idle. Called once per connection;
    /// connections opened later are not told.
    fn drain<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S);

    /// The engine's counters are about to be read: an application that is to be read in other threads leaves a copy of
    /// its own for them.
    fn publish(&mut self) {}

    /// The connection is no more; called exactly once for each [`Application::open`].
    /// In TIME-WAIT the connection is already gone for the application.
    fn closed(&mut self, connection: Self::Connection, reason: CloseReason);
}
