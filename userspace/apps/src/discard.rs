//! The discard service (RFC 863): what arrives is thrown away, then the connection is closed when the peer is done.

use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::counters::define_counters;

use crate::idle::IdleTimer;
pub use crate::idle::{Config, Connection};

define_counters! {
    /// The events that are counted. All count from when the application was made.
    pub enum Counter {
        /// Connections that were opened.
        Connections = "discard_connections",
        /// Bytes thrown away.
        Bytes = "discard_bytes",
        /// Connections ended because nothing arrived for `idle_timeout`.
        IdleTimeouts = "discard_idle_timeouts",
    }

    /// The values of all counters of one application.
    pub struct Counters;
}

/// The discard service of one shard.
pub struct Discard {
    idle: IdleTimer,
    counters: Counters,
}

impl Discard {
    /// A discard service with the given settings.
    pub fn new(config: Config) -> Self {
        Self {
            idle: IdleTimer::new(config),
            counters: Counters::default(),
        }
    }

    /// Works as `other` does from now on, and counts on.
    pub(crate) fn work_as(&mut self, other: Self) {
        self.idle = other.idle;
    }

    /// The counters since this value was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Application for Discard {
    type Connection = Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Connection {
        self.counters.bump(Counter::Connections);
        self.idle.open(stream)
    }

    fn receive<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, data: &[u8]) -> usize {
        stream.mark_served();
        connection.last_activity = stream.now();
        self.counters.add(Counter::Bytes, data.len() as u64);
        data.len()
    }

    fn end_of_stream<S: Stream>(&mut self, _connection: &mut Connection, stream: &mut S) {
        stream.set_timer(None);
        stream.close();
    }

    fn writable<S: Stream>(&mut self, _connection: &mut Connection, _stream: &mut S) {}

    fn timeout<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        if self.idle.check(connection, stream) {
            self.counters.bump(Counter::IdleTimeouts);
        }
    }

    fn drain<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        self.idle.drain(connection, stream);
    }

    fn closed(&mut self, _connection: Connection, _reason: CloseReason) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{Driver, End, MockStream};

    fn driver(idle_timeout: Duration) -> Driver<Discard> {
        Driver::with_stream(Discard::new(Config { idle_timeout }), MockStream::new(1000))
    }

    #[test]
    fn everything_is_consumed_nothing_is_answered_and_the_connection_closes_after_the_peer() {
        let mut driver = driver(Duration::from_secs(300));
        assert!(!driver.stream.served);
        driver.feed(&[7; 100_000]);
        assert!(driver.stream.served);
        driver.feed(b"more");
        assert_eq!(driver.unconsumed(), 0);
        assert!(driver.take_sent().is_empty());
        assert_eq!(driver.stream.end, End::Open);
        driver.finish();
        assert_eq!(driver.stream.end, End::Closed);
        assert_eq!(driver.application.counters().get(Counter::Bytes), 100_004);
    }

    #[test]
    fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
        let mut driver = driver(Duration::from_secs(10));
        driver.advance(Duration::from_secs(9));
        driver.feed(b"x");
        driver.advance(Duration::from_secs(9));
        assert_eq!(driver.stream.end, End::Open);
        driver.advance(Duration::from_secs(1));
        assert_eq!(driver.stream.end, End::Closed);
        assert_eq!(driver.application.counters().get(Counter::IdleTimeouts), 1);
    }
}
