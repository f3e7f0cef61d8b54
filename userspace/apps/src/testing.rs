//! A stream without a network, and a driver that calls an application the way the engine does.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tidegate_tcp::application::{Application, ListenerId, Stream};
use tidegate_tcp::time::Instant;

/// The state in which the application has left its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Open,
    Shutdown,
    Closed,
    Aborted,
}

/// A stream that collects what is sent; its send buffer empties only when the test says so.
pub(crate) struct MockStream {
    pub(crate) listener: Option<ListenerId>,
    pub(crate) now: Instant,
    pub(crate) timer: Option<Instant>,
    peer_finished: bool,
    pub(crate) end: End,
    /// The application has had a complete request.
    pub(crate) served: bool,
    sent: Vec<u8>,
    capacity: usize,
    queued: usize,
    exhausted: bool,
}

impl MockStream {
    /// A stream with a send buffer of `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            listener: Some(ListenerId(0)),
            now: Instant::from_millis(1000),
            timer: None,
            peer_finished: false,
            end: End::Open,
            served: false,
            sent: Vec::new(),
            capacity,
            queued: 0,
            exhausted: false,
        }
    }

    /// The bytes sent so far and not taken.
    pub(crate) fn sent(&self) -> &[u8] {
        &self.sent
    }

    fn ended(&self) -> bool {
        matches!(self.end, End::Closed | End::Aborted)
    }
}

impl Stream for MockStream {
    fn listener(&self) -> Option<ListenerId> {
        self.listener
    }

    fn local(&self) -> SocketAddr {
        (Ipv4Addr::new(198, 18, 0, 1), 80).into()
    }

    fn peer(&self) -> SocketAddr {
        (Ipv4Addr::new(198, 18, 0, 2), 40_000).into()
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn peer_finished(&self) -> bool {
        self.peer_finished
    }

    fn send_space(&self) -> usize {
        if self.end == End::Open {
            self.capacity - self.queued
        } else {
            0
        }
    }

    fn send(&mut self, data: &mut Bytes) -> usize {
        let taken = self.send_copy(data);
        data.advance(taken);
        taken
    }

    fn send_copy(&mut self, data: &[u8]) -> usize {
        let taken = data.len().min(self.send_space());
        self.sent.extend_from_slice(&data[..taken]);
        self.queued += taken;
        if self.queued == self.capacity {
            self.exhausted = true;
        }
        taken
    }

    fn unacknowledged(&self) -> usize {
        self.queued
    }

    fn shutdown(&mut self) {
        if self.end == End::Open {
            self.end = End::Shutdown;
        }
    }

    fn close(&mut self) {
        if self.end != End::Aborted {
            self.end = End::Closed;
        }
    }

    fn abort(&mut self) {
        self.end = End::Aborted;
    }

    fn mark_served(&mut self) {
        self.served = true;
    }

    fn set_timer(&mut self, after: Option<Duration>) {
        self.timer = after.map(|after| self.now + after);
    }
}

/// One connection of an application, driven as the engine drives it: unconsumed data is offered again with new
/// data and after `writable` and `timeout`, never in between.
pub(crate) struct Driver<A: Application> {
    pub(crate) application: A,
    pub(crate) stream: MockStream,
    pub(crate) connection: A::Connection,
    unconsumed: Vec<u8>,
    end_of_stream_told: bool,
}

impl<A: Application> Driver<A> {
    /// Opens a connection with a send buffer larger than any test fills.
    pub(crate) fn new(application: A) -> Self {
        Self::with_stream(application, MockStream::new(16 << 20))
    }

    /// Opens a connection on `stream`.
    pub(crate) fn with_stream(mut application: A, mut stream: MockStream) -> Self {
        let connection = application.open(&mut stream);
        Self {
            application,
            stream,
            connection,
            unconsumed: Vec::new(),
            end_of_stream_told: false,
        }
    }

    /// Data from the peer arrives.
    pub(crate) fn feed(&mut self, data: &[u8]) {
        assert!(!self.stream.peer_finished, "data after FIN");
        self.unconsumed.extend_from_slice(data);
        self.offer();
    }

    /// The peer's FIN arrives.
    pub(crate) fn finish(&mut self) {
        self.stream.peer_finished = true;
        self.offer();
    }

    /// The peer acknowledges everything, again and again until nothing is sent any more.
    pub(crate) fn acknowledge_all(&mut self) {
        while self.stream.queued > 0 {
            self.acknowledge(self.stream.queued);
        }
    }

    /// The peer acknowledges `amount` bytes.
    pub(crate) fn acknowledge(&mut self, amount: usize) {
        self.stream.queued -= amount.min(self.stream.queued);
        let free = self.stream.capacity - self.stream.queued;
        if self.stream.exhausted && free * 2 >= self.stream.capacity {
            self.stream.exhausted = false;
            if self.stream.end == End::Open {
                self.application.writable(&mut self.connection, &mut self.stream);
            }
            self.offer();
        }
    }

    /// Time passes; timers that are due meanwhile fire.
    pub(crate) fn advance(&mut self, by: Duration) {
        let until = self.stream.now + by;
        while let Some(due) = self
            .stream
            .timer
            .filter(|&due| due <= until && self.stream.end != End::Aborted)
        {
            self.stream.now = self.stream.now.max(due);
            self.stream.timer = None;
            self.application.timeout(&mut self.connection, &mut self.stream);
            self.offer();
        }
        self.stream.now = until;
    }

    /// The server begins to stop.
    pub(crate) fn drain(&mut self) {
        self.application.drain(&mut self.connection, &mut self.stream);
    }

    /// The bytes sent since the last call.
    pub(crate) fn take_sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.stream.sent)
    }

    /// Bytes in the receive buffer.
    pub(crate) fn unconsumed(&self) -> usize {
        self.unconsumed.len()
    }

    fn offer(&mut self) {
        if self.stream.ended() {
            self.unconsumed.clear();
            return;
        }
        if !self.unconsumed.is_empty() {
            let consumed = self
                .application
                .receive(&mut self.connection, &mut self.stream, &self.unconsumed);
            assert!(consumed <= self.unconsumed.len(), "consumed more than was offered");
            self.unconsumed.drain(..consumed);
        }
        self.tell_end_of_stream();
    }

    fn tell_end_of_stream(&mut self) {
        let due = self.stream.peer_finished && self.unconsumed.is_empty() && !self.end_of_stream_told;
        if due && !self.stream.ended() {
            self.end_of_stream_told = true;
            self.application.end_of_stream(&mut self.connection, &mut self.stream);
        }
    }
}
