//! A host at one end of the link, whatever TCP it runs.

use core::time::Duration;

use tidegate_tcp::time::Instant;

use crate::script::Script;

/// A host with one application and at most one connection. Times are counted from the start of the run.
pub trait Host {
    /// Opens the connection actively.
    ///
    /// # Errors
    ///
    /// The reason that is not possible, in words.
    fn connect(&mut self, now: Duration) -> Result<(), String>;

    /// A frame arrives.
    fn receive(&mut self, now: Duration, frame: &[u8]);

    /// Time has come for what [`Host::next_deadline`] announced.
    fn turn(&mut self, now: Duration);

    /// The time at which [`Host::turn`] is next needed; `None` while no timer is running.
    fn next_deadline(&mut self, now: Duration) -> Option<Duration>;

    /// Frames that were sent and not yet taken away, oldest first.
    fn outbox(&mut self) -> &mut Vec<Vec<u8>>;

    /// The application.
    fn script(&self) -> &Script;

    /// Checks that nothing is left of the connection.
    ///
    /// # Errors
    ///
    /// The remains, in words.
    fn check_empty(&self) -> Result<(), String>;

    /// Frames received and frames sent, as the host itself counts them.
    fn frames(&self) -> (u64, u64);

    /// The counters of the host's TCP, zeros left out.
    fn counters(&self) -> Vec<(&'static str, u64)>;
}

/// A host's clock, which does not begin at zero when the run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    origin: u64,
}

impl Clock {
    /// A clock that shows `origin` microseconds at the start of the run.
    pub const fn new(origin: u64) -> Self {
        Self { origin }
    }

    /// The clock, in microseconds, `now` after the start.
    pub const fn micros(&self, now: Duration) -> u64 {
        self.origin + now.as_micros() as u64
    }

    /// The clock `now` after the start, as the engine wants it.
    pub const fn instant(&self, now: Duration) -> Instant {
        Instant::from_micros(self.micros(now))
    }

    /// The time after the start at which the clock shows `micros`.
    pub const fn since_start(&self, micros: u64) -> Duration {
        Duration::from_micros(micros.saturating_sub(self.origin))
    }
}

/// A host's clock at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockStart {
    /// This many microseconds.
    At(u64),
    /// Whatever makes the initial sequence number this far from 2^32, if the host's depends on the clock.
    IsnWrap(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_counts_from_its_origin() {
        let clock = Clock::new(7_000_000);
        let now = Duration::from_secs(3);
        assert_eq!(clock.micros(now), 10_000_000);
        assert_eq!(clock.since_start(10_000_000), now);
        assert_eq!(clock.since_start(1), Duration::ZERO);
        assert_eq!(clock.instant(now), Instant::from_millis(10_000));
    }
}
