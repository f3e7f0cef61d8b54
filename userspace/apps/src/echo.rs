//! The echo service (RFC 862): what arrives is sent back, then the connection is closed when the peer is done.

use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::counters::define_counters;

use crate::idle::IdleTimer;
pub use crate::idle::{Config, Connection};

define_counters! {
    /// The events that are counted. All count from when the application was made.
    pub enum Counter {
        /// Connections that were opened.
        Connections = "echo_connections",
        /// Bytes sent back.
        Bytes = "echo_bytes",
        /// Connections ended because nothing moved for `idle_timeout`.
        IdleTimeouts = "echo_idle_timeouts",
    }

    /// The values of all counters of one application.
    pub struct Counters;
}

/// The echo service of one shard.
pub struct Echo {
    idle: IdleTimer,
    counters: Counters,
}

impl Echo {
    /// An echo service with the given settings.
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

impl Application for Echo {
    type Connection = Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Connection {
        self.counters.bump(Counter::Connections);
        self.idle.open(stream)
    }

    fn receive<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, data: &[u8]) -> usize {
        // What finds no room stays unconsumed, which narrows the window offered to the peer.
        let echoed = stream.send_copy(data);
        if echoed > 0 {
            stream.mark_served();
            connection.last_activity = stream.now();
            self.counters.add(Counter::Bytes, echoed as u64);
        }
        echoed
    }

    fn end_of_stream<S: Stream>(&mut self, _connection: &mut Connection, stream: &mut S) {
        stream.set_timer(None);
        stream.close();
    }

    fn writable<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        connection.last_activity = stream.now();
    }

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

    fn driver(idle_timeout: Duration, capacity: usize) -> Driver<Echo> {
        Driver::with_stream(Echo::new(Config { idle_timeout }), MockStream::new(capacity))
    }

    #[test]
    fn bytes_come_back_and_the_connection_closes_after_the_peer() {
        let mut driver = driver(Duration::from_secs(300), 1000);
        assert!(!driver.stream.served);
        driver.feed(b"hello ");
        assert!(driver.stream.served);
        driver.feed(b"world");
        assert_eq!(driver.take_sent(), b"hello world");
        assert_eq!(driver.stream.end, End::Open);
        driver.finish();
        assert_eq!(driver.stream.end, End::Closed);
        assert_eq!(driver.application.counters().get(Counter::Bytes), 11);
    }

    #[test]
    fn a_full_send_buffer_holds_back_the_peer_and_loses_nothing() {
        let mut driver = driver(Duration::from_secs(300), 10);
        let data: Vec<u8> = (0..=255).collect();
        driver.feed(&data);
        driver.finish();
        assert_eq!(driver.unconsumed(), 246);
        assert_eq!(driver.stream.end, End::Open, "not before everything was echoed");
        driver.acknowledge_all();
        assert_eq!(driver.take_sent(), data);
        assert_eq!(driver.stream.end, End::Closed);
    }

    #[test]
    fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
        let mut driver = driver(Duration::from_secs(10), 1000);
        driver.advance(Duration::from_secs(9));
        driver.feed(b"x");
        driver.acknowledge_all();
        driver.advance(Duration::from_secs(9));
        assert_eq!(driver.stream.end, End::Open);
        driver.advance(Duration::from_secs(1));
        assert_eq!(driver.stream.end, End::Closed);
        assert_eq!(driver.application.counters().get(Counter::IdleTimeouts), 1);
    }

    #[test]
    fn a_peer_that_never_reads_is_aborted() {
        let mut driver = driver(Duration::from_secs(10), 1000);
        driver.feed(b"x");
        driver.advance(Duration::from_secs(10));
        assert_eq!(driver.stream.end, End::Aborted);
    }
}
