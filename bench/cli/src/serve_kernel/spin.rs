//! A server that is slower than it has to be, by a known time for each request, to find out whether measurements see
//! it.

use std::hint;
use std::time::{Duration, Instant};

use tidegate_tcp::application::{Application, CloseReason, Stream};

/// An application that keeps the processor busy before it looks at what arrived.
pub(super) struct Spinning<A> {
    pub(super) application: A,
    /// Time for each call that brings data: for each request where they do not come several at a time.
    pub(super) time: Duration,
}

impl<A: Application> Application for Spinning<A> {
    type Connection = A::Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Self::Connection {
        self.application.open(stream)
    }

    fn receive<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S, data: &[u8]) -> usize {
        let begin = Instant::now();
        while begin.elapsed() < self.time {
            hint::spin_loop();
        }
        self.application.receive(connection, stream, data)
    }

    fn end_of_stream<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S) {
        self.application.end_of_stream(connection, stream);
    }

    fn writable<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S) {
        self.application.writable(connection, stream);
    }

    fn timeout<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S) {
        self.application.timeout(connection, stream);
    }

    fn drain<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S) {
        self.application.drain(connection, stream);
    }

    fn publish(&mut self) {
        self.application.publish();
    }

    fn closed(&mut self, connection: Self::Connection, reason: CloseReason) {
        self.application.closed(connection, reason);
    }
}
