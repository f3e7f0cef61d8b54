//! Dates as HTTP writes them (RFC 9110, section 5.6.7), and the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_tcp::time::Instant;

/// The minimum time between two readings of the wall clock: dates have no finer resolution.
const RESOLUTION: Duration = Duration::from_secs(1);

/// The last second an IMF-fixdate can express, in the year 9999.
const LATEST: u64 = 253_402_300_799;

/// The wall clock, read at most once a second of the stream's time.
pub(super) struct Clock {
    /// The time of the next reading.
    due: Instant,
    seconds: u64,
    text: String,
}

impl Clock {
    /// A clock that was not read yet.
    pub(super) fn new() -> Self {
        Self {
            due: Instant::ZERO,
            seconds: 0,
            text: String::new(),
        }
    }

    /// Reads the wall clock if the last reading is a second old.
    #[inline]
    pub(super) fn update(&mut self, now: Instant) {
        if now >= self.due {
            self.read();
            self.due = now + RESOLUTION;
        }
    }

    #[cold]
    fn read(&mut self) {
        self.set(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        );
    }

    fn set(&mut self, seconds: u64) {
        self.seconds = seconds;
        self.text = format(seconds);
    }

    /// Stops the clock at `seconds` since 1970.
    #[cfg(test)]
    pub(super) fn hold(&mut self, seconds: u64) {
        self.set(seconds);
        self.due = Instant::NEVER;
    }

    /// Seconds since 1970 at the last reading.
    pub(super) fn seconds(&self) -> u64 {
        self.seconds
    }

    /// The last reading as an IMF-fixdate.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Seconds since 1970 as an IMF-fixdate.
pub(super) fn format(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(LATEST)))
}

/// A date in any of the three formats a recipient must accept, as seconds since 1970.
pub(super) fn parse(value: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_formats_are_read_and_the_first_is_written() {
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(date.as_bytes()), Some(784_111_777), "{date}");
        }
        for date in ["", "yesterday", "Sun, 06 Nov 1994 25:49:37 GMT", "\u{fc}"] {
            assert_eq!(parse(date.as_bytes()), None, "{date}");
        }
    }

    #[test]
    fn a_second_after_the_last_year_does_not_panic() {
        assert_eq!(format(u64::MAX), format(LATEST));
    }

    #[test]
    fn the_wall_clock_is_read_once_a_second() {
        let mut clock = Clock::new();
        clock.update(Instant::ZERO);
        assert_eq!(parse(clock.text().as_bytes()), Some(clock.seconds()));
        assert_ne!(clock.seconds(), 0);
        // A reading would put this right.
        clock.set(1);
        clock.update(Instant::from_millis(999));
        assert_eq!(clock.seconds(), 1);
        clock.update(Instant::from_millis(1000));
        assert_ne!(clock.seconds(), 1);
        assert_eq!(parse(clock.text().as_bytes()), Some(clock.seconds()));
    }
}
