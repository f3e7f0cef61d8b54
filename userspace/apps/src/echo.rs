//! The echo service (RFC 862): what arrives is sent back, then the connection is closed when the peer is done.

use std::time::Duration;

use serde::Deserialize;
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::time::Instant;

use crate::idle;

crate::counters::define_counters! {
    /// Connections that were opened.
    Connections = "echo_connections",
    /// Bytes sent back.
    Bytes = "echo_bytes",
    /// Connections ended because nothing moved for `idle_timeout`.
    IdleTimeouts = "echo_idle_timeouts",
}

/// Settings of the echo service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A connection on which nothing moved for so long is ended; zero turns this off.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(300),
        }
    }
}

/// The echo service of one shard.
pub struct Echo {
    config: Config,
    counters: Counters,
    draining: bool,
}

/// What the echo service keeps for each connection.
pub struct Connection {
    last_activity: Instant,
}

impl Echo {
    /// An echo service with the given settings.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            counters: Counters::default(),
            draining: false,
        }
    }

    /// The counters since this value was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How long a connection may idle; `None` without limit.
    fn idle_limit(&self) -> Option<Duration> {
        idle::limit(self.config.idle_timeout, self.draining)
    }

    /// Ends the connection if it has idled for long enough, else waits for the rest of that time.
    ///
    /// The timer is set once per period instead of once per segment, so it may find that there was activity.
    fn check_idle<S: Stream>(&mut self, connection: &Connection, stream: &mut S) {
        let Some(limit) = self.idle_limit() else { return };
        let idle = stream.now().since(connection.last_activity);
        if idle < limit {
            stream.set_timer(Some(limit - idle));
            return;
        }
        stream.set_timer(None);
        if self.draining {
            stream.close();
            return;
        }
        self.counters.bump(Counter::IdleTimeouts);
        if stream.unacknowledged() == 0 {
            stream.close();
        } else {
            // The peer has not read for the whole time: nothing is gained by keeping what it was sent.
            stream.abort();
        }
    }
}

impl Application for Echo {
    type Connection = Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Connection {
        self.counters.bump(Counter::Connections);
        stream.set_timer(self.idle_limit());
        Connection {
            last_activity: stream.now(),
        }
    }

    fn receive<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, data: &[u8]) -> usize {
        // What finds no room stays unconsumed, which narrows the window offered to the peer.
        let echoed = stream.send_copy(data);
        if echoed > 0 {
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
        self.check_idle(connection, stream);
    }

    fn drain<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S) {
        self.draining = true;
        self.check_idle(connection, stream);
    }

    fn closed(&mut self, _connection: Connection, _reason: CloseReason) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Driver, End, MockStream};

    fn driver(idle_timeout: Duration, capacity: usize) -> Driver<Echo> {
        Driver::with_stream(Echo::new(Config { idle_timeout }), MockStream::new(capacity))
    }

    #[test]
    fn bytes_come_back_and_the_connection_closes_after_the_peer() {
        let mut driver = driver(Duration::from_secs(300), 1000);
        driver.feed(b"hello ");
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

    #[test]
    fn zero_turns_the_idle_timeout_off() {
        let mut driver = driver(Duration::ZERO, 1000);
        assert_eq!(driver.stream.timer, None);
        driver.advance(Duration::from_secs(1_000_000));
        assert_eq!(driver.stream.end, End::Open);
    }

    #[test]
    fn draining_closes_idle_connections_at_once_and_busy_ones_when_they_pause() {
        let mut idle = driver(Duration::ZERO, 1000);
        idle.advance(Duration::from_secs(2));
        idle.drain();
        assert_eq!(idle.stream.end, End::Closed);

        let mut busy = driver(Duration::ZERO, 1000);
        busy.feed(b"x");
        busy.drain();
        assert_eq!(busy.stream.end, End::Open);
        busy.advance(Duration::from_millis(600));
        busy.feed(b"y");
        busy.advance(Duration::from_millis(600));
        assert_eq!(busy.stream.end, End::Open);
        busy.advance(Duration::from_millis(600));
        assert_eq!(busy.stream.end, End::Closed);
        assert_eq!(busy.take_sent(), b"xy");
    }
}
