//! The discard service (RFC 863): what arrives is thrown away, then the connection is closed when the peer is done.

use std::time::Duration;

use serde::Deserialize;
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::time::Instant;

use crate::idle;

crate::counters::define_counters! {
    /// Connections that were opened.
    Connections = "discard_connections",
    /// Bytes thrown away.
    Bytes = "discard_bytes",
    /// Connections ended because nothing arrived for `idle_timeout`.
    IdleTimeouts = "discard_idle_timeouts",
}

/// Settings of the discard service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A connection on which nothing arrived for so long is ended; zero turns this off.
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

/// The discard service of one shard.
pub struct Discard {
    config: Config,
    counters: Counters,
    draining: bool,
}

/// What the discard service keeps for each connection.
pub struct Connection {
    last_activity: Instant,
}

impl Discard {
    /// A discard service with the given settings.
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
        if !self.draining {
            self.counters.bump(Counter::IdleTimeouts);
        }
        stream.close();
    }
}

impl Application for Discard {
    type Connection = Connection;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Connection {
        self.counters.bump(Counter::Connections);
        stream.set_timer(self.idle_limit());
        Connection {
            last_activity: stream.now(),
        }
    }

    fn receive<S: Stream>(&mut self, connection: &mut Connection, stream: &mut S, data: &[u8]) -> usize {
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

    fn driver(idle_timeout: Duration) -> Driver<Discard> {
        Driver::with_stream(Discard::new(Config { idle_timeout }), MockStream::new(1000))
    }

    #[test]
    fn everything_is_consumed_nothing_is_answered_and_the_connection_closes_after_the_peer() {
        let mut driver = driver(Duration::from_secs(300));
        driver.feed(&[7; 100_000]);
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

    #[test]
    fn zero_turns_the_idle_timeout_off() {
        let mut driver = driver(Duration::ZERO);
        assert_eq!(driver.stream.timer, None);
        driver.advance(Duration::from_secs(1_000_000));
        assert_eq!(driver.stream.end, End::Open);
    }

    #[test]
    fn draining_closes_idle_connections_at_once_and_busy_ones_when_they_pause() {
        let mut idle = driver(Duration::ZERO);
        idle.advance(Duration::from_secs(2));
        idle.drain();
        assert_eq!(idle.stream.end, End::Closed);
        assert_eq!(idle.application.counters().get(Counter::IdleTimeouts), 0);

        let mut busy = driver(Duration::ZERO);
        busy.feed(b"x");
        busy.drain();
        assert_eq!(busy.stream.end, End::Open);
        busy.advance(Duration::from_millis(600));
        busy.feed(b"y");
        busy.advance(Duration::from_millis(600));
        assert_eq!(busy.stream.end, End::Open);
        busy.advance(Duration::from_millis(600));
        assert_eq!(busy.stream.end, End::Closed);
    }
}
