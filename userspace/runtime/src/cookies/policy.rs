//! Whether the SYNs of one queue are to be answered with cookies: thresholds and hysteresis.

use core::fmt;
use core::time::Duration;
use std::time::Instant;

/// The least time a rate is taken over.
pub(crate) const WINDOW: Duration = Duration::from_millis(10);

/// Why cookies are turned on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// This many SYNs per second.
    SynRate(u64),
    /// This many half-open connections.
    HalfOpen(u32),
    /// This many bad cookies per second.
    BadCookies(u64),
    /// All have been below half of their thresholds for this long.
    Quiet(Duration),
    /// The settings ask for them.
    Always,
    /// They are not to be made.
    Never,
    /// The server stops.
    Stop,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SynRate(rate) => write!(f, "{} SYN/s", Grouped(*rate)),
            Self::HalfOpen(count) => write!(f, "{} half-open connections", Grouped(u64::from(*count))),
            Self::BadCookies(rate) => write!(f, "{} bad cookies/s", Grouped(*rate)),
            Self::Quiet(duration) => write!(f, "quiet for {duration:?}"),
            Self::Always => f.write_str("mode always"),
            Self::Never => f.write_str("mode never"),
            Self::Stop => f.write_str("the server stops"),
        }
    }
}

/// A number with a comma between each three digits.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// The thresholds that turn cookies on and off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thresholds {
    /// SYNs per second that turn them on.
    pub(crate) syn_rate: u64,
    /// Half-open connections that turn them on.
    pub(crate) half_open: u32,
    /// Bad cookies per second that have strong ones made.
    pub(crate) bad_cookies: u64,
    /// The time both have to be below half of that before they are turned off.
    pub(crate) off_after: Duration,
}

/// The decision for one queue.
#[derive(Debug)]
pub(crate) struct Policy {
    thresholds: Thresholds,
    /// The cause that a rate is.
    cause: fn(u64) -> Cause,
    on: bool,
    /// Beginning of the window the next rate is taken over, and the SYNs counted until then.
    window: (Instant, u64),
    /// Since when both are below half of their thresholds.
    quiet: Option<Instant>,
}

impl Policy {
    /// The policy of strong cookies, by the bad ones, of which none has been counted until `now`.
    pub(crate) fn of_bad_cookies(thresholds: Thresholds, now: Instant, count: u64) -> Self {
        let thresholds = Thresholds {
            syn_rate: thresholds.bad_cookies,
            half_open: u32::MAX,
            ..thresholds
        };
        Self {
            cause: Cause::BadCookies,
            ..Self::new(thresholds, now, count)
        }
    }

    /// Cookies are off, and `syns` SYNs have been counted until `now`.
    pub(crate) fn new(thresholds: Thresholds, now: Instant, syns: u64) -> Self {
        Self {
            thresholds,
            cause: Cause::SynRate,
            on: false,
            window: (now, syns),
            quiet: None,
        }
    }

    /// Decides anew from `now` on, until when `syns` SYNs have been counted; cookies are `on` so far.
    pub(crate) fn begin_anew(&mut self, now: Instant, syns: u64, on: bool) {
        self.window = (now, syns);
        self.on = on;
        self.quiet = None;
    }

    /// Looks at the load at `now`: `syns` SYNs counted so far and `half_open` half-open connections. Returns whether
    /// cookies are to be on from now on, and why, when that changes.
    pub(crate) fn look(&mut self, now: Instant, syns: u64, half_open: u32) -> Option<(bool, Cause)> {
        let rate = self.rate(now, syns);
        if self.on {
            self.off(now, rate, half_open)
        } else {
            self.on(rate, half_open)
        }
    }

    /// SYNs per second in the window that ends at `now`, if it is long enough; the next one begins then.
    fn rate(&mut self, now: Instant, syns: u64) -> Option<u64> {
        let (began, before) = self.window;
        let elapsed = now.saturating_duration_since(began);
        if elapsed < WINDOW {
            return None;
        }
        self.window = (now, syns);
        let rate = u128::from(syns.saturating_sub(before)) * 1_000_000_000 / elapsed.as_nanos();
        Some(u64::try_from(rate).unwrap_or(u64::MAX))
    }

    fn on(&mut self, rate: Option<u64>, half_open: u32) -> Option<(bool, Cause)> {
        let cause = if half_open >= self.thresholds.half_open {
            Cause::HalfOpen(half_open)
        } else {
            (self.cause)(rate.filter(|&rate| rate >= self.thresholds.syn_rate)?)
        };
        self.on = true;
        self.quiet = None;
        Some((true, cause))
    }

    fn off(&mut self, now: Instant, rate: Option<u64>, half_open: u32) -> Option<(bool, Cause)> {
        let busy = rate.is_some_and(|rate| rate.saturating_mul(2) >= self.thresholds.syn_rate);
        if busy || u64::from(half_open) * 2 >= u64::from(self.thresholds.half_open) {
            self.quiet = None;
            return None;
        }
        // Without a rate nothing is known about the SYNs since the last look.
        rate?;
        let quiet = now.saturating_duration_since(*self.quiet.get_or_insert(now));
        if quiet < self.thresholds.off_after {
            return None;
        }
        self.on = false;
        Some((false, Cause::Quiet(self.thresholds.off_after)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds {
        syn_rate: 20_000,
        half_open: 8192,
        bad_cookies: 1000,
        off_after: Duration::from_secs(10),
    };

    /// A policy with a clock and a number of SYNs that only move on.
    struct Load {
        policy: Policy,
        now: Instant,
        syns: u64,
    }

    impl Load {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                policy: Policy::new(THRESHOLDS, now, 500),
                now,
                syns: 500,
            }
        }

        /// A look after `millis` at `rate` SYNs per second.
        fn after(&mut self, millis: u64, rate: u64, half_open: u32) -> Option<(bool, Cause)> {
            self.now += Duration::from_millis(millis);
            self.syns += rate * millis / 1000;
            self.policy.look(self.now, self.syns, half_open)
        }
    }

    #[test]
    fn the_rate_turns_them_on_within_one_window() {
        let mut load = Load::new();
        assert_eq!(load.after(3_600_000, 10, 0), None);
        assert_eq!(load.after(1, 1_000_000, 0), None, "too short for a rate");
        assert_eq!(load.after(9, 1_000_000, 0), Some((true, Cause::SynRate(1_000_000))));
        assert_eq!(load.after(10, 1_000_000, 0), None, "they are on");
    }

    #[test]
    fn the_threshold_itself_turns_them_on_and_one_less_does_not() {
        let mut load = Load::new();
        assert_eq!(load.after(100, 19_990, 8191), None);
        assert_eq!(load.after(100, 20_000, 0), Some((true, Cause::SynRate(20_000))));
    }

    #[test]
    fn half_open_connections_turn_them_on_at_once() {
        let mut load = Load::new();
        assert_eq!(load.after(0, 0, 8191), None);
        assert_eq!(load.after(0, 0, 8192), Some((true, Cause::HalfOpen(8192))));
    }

    #[test]
    fn they_go_off_after_both_were_low_for_long_enough() {
        let mut load = Load::new();
        assert!(load.after(100, 50_000, 0).is_some());
        assert_eq!(load.after(100, 9_990, 0), None, "quiet from here on");
        for _ in 0..99 {
            assert_eq!(load.after(100, 9_990, 4095), None);
        }
        let off = Some((false, Cause::Quiet(Duration::from_secs(10))));
        assert_eq!(load.after(100, 9_990, 4095), off);
        assert_eq!(load.after(100, 9_990, 4095), None, "they are off");
    }

    #[test]
    fn each_of_the_two_keeps_them_on() {
        for (rate, half_open) in [(10_000, 0), (0, 4096)] {
            let mut load = Load::new();
            assert!(load.after(100, 50_000, 0).is_some());
            for _ in 0..1000 {
                assert_eq!(load.after(100, rate, half_open), None, "{rate} {half_open}");
            }
        }
    }

    #[test]
    fn one_busy_window_starts_the_wait_anew() {
        let mut load = Load::new();
        assert!(load.after(100, 50_000, 0).is_some());
        for _ in 0..90 {
            assert_eq!(load.after(100, 0, 0), None);
        }
        assert_eq!(load.after(100, 15_000, 0), None);
        for _ in 0..100 {
            assert_eq!(load.after(100, 0, 0), None);
        }
        assert!(load.after(100, 0, 0).is_some());
    }

    #[test]
    fn a_rate_around_the_threshold_does_not_flap() {
        let mut load = Load::new();
        let mut edges = 0;
        for window in 0..1000 {
            let rate = if window % 2 == 0 { 19_000 } else { 21_000 };
            edges += u32::from(load.after(100, rate, 0).is_some());
        }
        assert_eq!(edges, 1);
    }

    #[test]
    fn looks_that_are_too_close_for_a_rate_do_not_end_the_flood() {
        let mut load = Load::new();
        assert!(load.after(100, 50_000, 0).is_some());
        for _ in 0..9 {
            assert_eq!(load.after(1, 50_000, 0), None);
            assert!(load.policy.quiet.is_none());
        }
    }

    #[test]
    fn bad_cookies_have_a_threshold_of_their_own() {
        let mut load = Load::new();
        load.policy = Policy::of_bad_cookies(THRESHOLDS, load.now, 0);
        load.syns = 0;
        assert_eq!(load.after(100, 990, 0), None);
        let on = Some((true, Cause::BadCookies(1000)));
        assert_eq!(load.after(100, 1000, 0), on);
        assert_eq!(load.after(100, 490, 0), None, "quiet from here on");
        for _ in 0..99 {
            assert_eq!(load.after(100, 490, 0), None);
        }
        assert_eq!(
            load.after(100, 490, 0),
            Some((false, Cause::Quiet(Duration::from_secs(10))))
        );
    }

    #[test]
    fn causes_are_sentences() {
        assert_eq!(Cause::SynRate(53_000).to_string(), "53,000 SYN/s");
        assert_eq!(Cause::SynRate(1_234_567).to_string(), "1,234,567 SYN/s");
        assert_eq!(Cause::SynRate(999).to_string(), "999 SYN/s");
        assert_eq!(Cause::HalfOpen(8192).to_string(), "8,192 half-open connections");
        assert_eq!(Cause::BadCookies(1000).to_string(), "1,000 bad cookies/s");
        assert_eq!(Cause::Quiet(Duration::from_secs(10)).to_string(), "quiet for 10s");
    }
}
