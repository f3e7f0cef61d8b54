//! The rate of a flood, and its pace in userspace.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The interval at which frames are sent when a rate is given.
const TICK: Duration = Duration::from_micros(200);

/// Frames overdue by more than this are left out.
const CATCH_UP: Duration = Duration::from_millis(100);

/// The longest time without sending whose frames may be sent at once, at 1.2 times the rate: the thread is woken a
/// little late every time.
const MAX_GAP: Duration = Duration::from_millis(1);

/// Frames sent by one system call without a rate: some milliseconds' worth, so that the end is not far off.
const MAX_AT_ONCE: u32 = 16_384;

/// The highest rate, in frames per second.
const MAX_RATE: u64 = 100_000_000;

/// The number of frames sent in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// This many, 1 to 100,000,000.
    Pps(u64),
    /// As many as go.
    Max,
}

impl Rate {
    /// Returns the time in which each of `count` has one turn, at least 1 ms.
    pub(crate) fn round(self, count: u32) -> Duration {
        const MIN: Duration = Duration::from_millis(1);
        match self {
            Self::Pps(rate) => Duration::from_secs_f64(f64::from(count) / rate.max(1) as f64).max(MIN),
            Self::Max => MIN,
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let (digits, unit) = [("k", 1_000), ("m", 1_000_000)]
            .into_iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits, unit)))
            .unwrap_or((text, 1));
        Some(digits)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u64>().ok()?.checked_mul(unit))
            .filter(|rate| (1..=MAX_RATE).contains(rate))
            .map(Self::Pps)
            .ok_or_else(|| {
                format!("`{text}` is not a rate; write frames per second like 5000, 100k or 1m, at most 100m, or max")
            })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pps(rate) => write!(f, "{rate} frames/s"),
            Self::Max => f.write_str("as many frames as go"),
        }
    }
}

/// Says how many frames are due.
pub(crate) struct Pace {
    rate: Rate,
    /// Frames that have been due so far, whether they were sent or left out.
    passed: u64,
    /// Before this none is sent even if it is overdue.
    earliest: Duration,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            passed: 0,
            earliest: Duration::ZERO,
        }
    }

    /// Returns the number of frames to send now, `elapsed` after the start. Overdue ones are made up for at 1.2 times
    /// the rate, and left out if it is by more than 0.1 s: a flood that stood still does not come back as a burst.
    pub(crate) fn due(&mut self, elapsed: Duration) -> u32 {
        let Rate::Pps(rate) = self.rate else {
            return MAX_AT_ONCE;
        };
        const SECOND: u128 = 1_000_000_000;
        let frames_in = |time: Duration| (time.as_nanos() * u128::from(rate) / SECOND) as u64;
        // At most 10^8 a second, for longer than any process lives.
        let total = frames_in(elapsed);
        self.passed = self.passed.max(total.saturating_sub(frames_in(CATCH_UP).max(1)));
        self.earliest = self.earliest.max(elapsed.saturating_sub(MAX_GAP));
        let Some(gap) = elapsed.checked_sub(self.earliest) else {
            return 0;
        };
        // One more than fits is paid for by the time to the next.
        let most = frames_in(gap * 6 / 5) + 1;
        let due = total.saturating_sub(self.passed).min(most);
        self.passed += due;
        self.earliest += Duration::from_nanos((u128::from(due) * SECOND * 5 / (6 * u128::from(rate))) as u64);
        // No more than 10^8 come within a second.
        due as u32
    }

    /// Returns the time to wait when `since` has passed since the last frames were due.
    pub(crate) fn pause(&self, since: Duration) -> Duration {
        match self.rate {
            Rate::Pps(_) => TICK.saturating_sub(since),
            Rate::Max => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        for (text, rate) in [
            ("1", Rate::Pps(1)),
            ("5000", Rate::Pps(5000)),
            ("100k", Rate::Pps(100_000)),
            ("1m", Rate::Pps(1_000_000)),
            ("100m", Rate::Pps(MAX_RATE)),
            ("max", Rate::Max),
        ] {
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
        for text in [
            "",
            "0",
            "0k",
            "k",
            "-1",
            "+1",
            "1.5m",
            "1M",
            "101m",
            "1 k",
            "Max",
            "99999999999999999999m",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_due_adds_up_to_the_rate() {
        let mut pace = Pace::new(Rate::Pps(333_333));
        let sent: u64 = (1..=1000)
            .map(|millis| u64::from(pace.due(Duration::from_millis(millis))))
            .sum();
        assert_eq!(sent, 333_333);
    }

    #[test]
    fn nothing_is_due_twice_or_before_its_time() {
        let mut pace = Pace::new(Rate::Pps(10));
        assert_eq!(pace.due(Duration::from_millis(99)), 0);
        assert_eq!(pace.due(Duration::from_millis(100)), 1);
        assert_eq!(pace.due(Duration::from_millis(100)), 0);
        assert_eq!(pace.due(Duration::from_millis(50)), 0);
        assert_eq!(pace.due(Duration::from_millis(200)), 1);
    }

    #[test]
    fn only_the_latest_is_made_up_for_and_that_at_1_2_times_the_rate() {
        let mut pace = Pace::new(Rate::Pps(100_000));
        let mut until = |from: u64, to: u64| -> u64 {
            (from..to)
                .map(|tick| u64::from(pace.due(Duration::from_micros(200 * tick))))
                .sum()
        };
        // After a second in which nothing was sent: the millisecond before, and then those after.
        assert_eq!(until(5_000, 5_001), 121);
        assert_eq!(until(5_001, 5_051), 50 * 24);
        // 0.1 s were overdue, and 0.7 s have gone since.
        assert_eq!(until(5_051, 8_501) + 121 + 50 * 24, 80_000);
        assert_eq!(until(8_501, 8_506), 100, "when nothing is overdue");
    }

    #[test]
    fn what_is_asked_for_ever_again_is_due_no_faster() {
        let mut pace = Pace::new(Rate::Pps(1_000_000));
        let begin = Duration::from_millis(20);
        let due: u64 = (0..1_000)
            .map(|micros| u64::from(pace.due(begin + Duration::from_micros(micros))))
            .sum();
        // A millisecond's at once, and then those of another.
        assert!((2_399..=2_401).contains(&due), "{due}");
    }

    #[test]
    fn a_rate_is_kept_by_those_who_come_late_every_time() {
        let mut pace = Pace::new(Rate::Pps(1_000));
        let due: u64 = (1..10_000)
            .map(|step| u64::from(pace.due(Duration::from_micros(170 * step))))
            .sum();
        assert_eq!(due, 1_699);
    }

    #[test]
    fn without_a_rate_there_is_always_something_due() {
        let mut pace = Pace::new(Rate::Max);
        assert_eq!(pace.due(Duration::ZERO), MAX_AT_ONCE);
        assert_eq!(pace.due(Duration::ZERO), MAX_AT_ONCE);
        assert_eq!(pace.pause(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_pause_lasts_until_the_next_tick() {
        let pace = Pace::new(Rate::Pps(1000));
        assert_eq!(pace.pause(Duration::ZERO), TICK);
        assert_eq!(pace.pause(TICK / 4), TICK - TICK / 4);
        assert_eq!(pace.pause(Duration::from_millis(5)), Duration::ZERO);
    }
}
