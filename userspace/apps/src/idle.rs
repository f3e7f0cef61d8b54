//! Ending connections on which nothing moves: what echo and discard, which know no requests, have in common.

use std::time::Duration;

use serde::Deserialize;
use tidegate_tcp::application::Stream;
use tidegate_tcp::time::Instant;

/// While the server drains, a connection on which nothing happened for so long counts as idle.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// Settings of the service.
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

/// The state of one connection.
pub struct Connection {
    /// The time of the last movement.
    pub(crate) last_activity: Instant,
}

/// Times the connections of one service on one shard.
///
/// A connection's timer is set once per period instead of once per segment, so it may find that there was activity.
pub(crate) struct IdleTimer {
    timeout: Duration,
    draining: bool,
}

impl IdleTimer {
    /// A timer with the given settings.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            timeout: config.idle_timeout,
            draining: false,
        }
    }

    /// The time a connection may idle; `None` without limit.
    fn limit(&self) -> Option<Duration> {
        let configured = Some(self.timeout).filter(|limit| !limit.is_zero());
        if self.draining {
            Some(configured.map_or(DRAIN_IDLE, |limit| limit.min(DRAIN_IDLE)))
        } else {
            configured
        }
    }

    /// Begins to time a connection that opens.
    pub(crate) fn open<S: Stream>(&self, stream: &mut S) -> Connection {
        stream.set_timer(self.limit());
        Connection {
            last_activity: stream.now(),
        }
    }

    /// Ends the connection if it has idled for long enough, else waits for the rest of that time. Returns whether
    /// [`Config::idle_timeout`] ended it, and not that the server drains.
    pub(crate) fn check<S: Stream>(&self, connection: &Connection, stream: &mut S) -> bool {
        let Some(limit) = self.limit() else { return false };
        let idle = stream.now().since(connection.last_activity);
        if idle < limit {
            stream.set_timer(Some(limit - idle));
            return false;
        }
        stream.set_timer(None);
        if self.draining || stream.unacknowledged() == 0 {
            stream.close();
        } else {
            // The peer has not read for the whole time: nothing is gained by keeping what it was sent.
            stream.abort();
        }
        !self.draining
    }

    /// Ends the connection if it is idle. From here on, a short pause is enough for [`IdleTimer::check`] to end one.
    pub(crate) fn drain<S: Stream>(&mut self, connection: &Connection, stream: &mut S) {
        self.draining = true;
        self.check(connection, stream);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_tcp::application::Application;

    use super::*;
    use crate::discard::{self, Discard};
    use crate::echo::{self, Echo};
    use crate::testing::{Driver, End, MockStream};

    fn driver<A: Application>(service: fn(Config) -> A) -> Driver<A> {
        let config = Config {
            idle_timeout: Duration::ZERO,
        };
        Driver::with_stream(service(config), MockStream::new(1000))
    }

    fn stays_open<A: Application>(service: fn(Config) -> A) {
        let mut driver = driver(service);
        assert_eq!(driver.stream.timer, None);
        driver.advance(Duration::from_secs(1_000_000));
        assert_eq!(driver.stream.end, End::Open);
    }

    #[test]
    fn zero_turns_the_idle_timeout_off() {
        stays_open(Echo::new);
        stays_open(Discard::new);
    }

    fn drained_while_idle<A: Application>(service: fn(Config) -> A) -> Driver<A> {
        let mut idle = driver(service);
        idle.advance(Duration::from_secs(2));
        idle.drain();
        assert_eq!(idle.stream.end, End::Closed);
        idle
    }

    fn drained_while_busy<A: Application>(service: fn(Config) -> A) -> Driver<A> {
        let mut busy = driver(service);
        busy.feed(b"x");
        busy.drain();
        assert_eq!(busy.stream.end, End::Open);
        busy.advance(Duration::from_millis(600));
        busy.feed(b"y");
        busy.advance(Duration::from_millis(600));
        assert_eq!(busy.stream.end, End::Open);
        busy.advance(Duration::from_millis(600));
        assert_eq!(busy.stream.end, End::Closed);
        busy
    }

    #[test]
    fn draining_closes_idle_connections_at_once_and_busy_ones_when_they_pause() {
        let idle = drained_while_idle(Echo::new);
        let mut busy = drained_while_busy(Echo::new);
        assert_eq!(busy.take_sent(), b"xy");
        for driver in [idle, busy] {
            assert_eq!(driver.application.counters().get(echo::Counter::IdleTimeouts), 0);
        }
        for driver in [drained_while_idle(Discard::new), drained_while_busy(Discard::new)] {
            assert_eq!(driver.application.counters().get(discard::Counter::IdleTimeouts), 0);
        }
    }
}
