//! The phases of a run, and the load that is raised and lowered at its ends.

use std::time::Duration;

use tidegate_tcp::time::Instant;

/// A phase of a run. Those that a plan gives no time are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Nothing is sent.
    Initial,
    /// Connections are opened that the workload needs before its first request.
    Opening,
    /// The load is raised.
    Ramp,
    /// All of the load, before anything is counted.
    WarmUp,
    /// The phase that is measured.
    Sustain,
    /// Requests that were due while measuring are answered.
    Drain,
    /// The load is lowered.
    RampDown,
}

impl Phase {
    /// All phases, in the order of time.
    pub const ALL: [Self; 7] = [
        Self::Initial,
        Self::Opening,
        Self::Ramp,
        Self::WarmUp,
        Self::Sustain,
        Self::Drain,
        Self::RampDown,
    ];

    /// The name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Opening => "opening",
            Self::Ramp => "ramp",
            Self::WarmUp => "warm-up",
            Self::Sustain => "sustain",
            Self::Drain => "drain",
            Self::RampDown => "ramp-down",
        }
    }

    /// Returns whether latencies and errors of this phase are in the figures of a workload with a warm-up.
    pub const fn is_counted(self) -> bool {
        matches!(self, Self::Sustain | Self::Drain)
    }
}

/// Times around the warm-up and the measurement of a [`Plan`](crate::Plan), each of them zero by default. Nothing that
/// happens in them is in the figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ramp {
    /// Time before the first connection.
    pub initial: Duration,
    /// Time in which the load is raised linearly, before the warm-up: the rate of an open loop, the number of
    /// connections of a closed one.
    pub up: Duration,
    /// Time after the measurement in which no connection is opened, and those that are open are closed, evenly spread,
    /// each when what is under way on it is answered. The others go on meanwhile, unless the workload is an open
    /// loop, or responses are verified. Connections to a discard service stay open. A run that is cut short has no such
    /// time.
    pub down: Duration,
}

/// A load that is raised linearly from nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raising {
    start: Instant,
    /// In microseconds, at least 1.
    length: u64,
}

impl Raising {
    /// From `start` on for `length`; `None` if that is nothing.
    pub(crate) fn new(start: Instant, length: Duration) -> Option<Self> {
        let length = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        (length > 0).then_some(Self { start, length })
    }

    /// The connections there are to be at `now`, at least 1, of `all` in the end.
    pub(crate) fn connections(&self, now: Instant, all: u32) -> u32 {
        let elapsed = now.micros_since(self.start);
        if elapsed >= self.length {
            return all;
        }
        let part = u128::from(all) * u128::from(elapsed) / u128::from(self.length);
        (part as u32).saturating_add(1).min(all)
    }

    /// The time at which there are to be more connections than at `now`, of `all` in the end.
    pub(crate) fn next_connection(&self, now: Instant, all: u32) -> Instant {
        let micros = u128::from(self.connections(now, all)) * u128::from(self.length);
        self.start
            .plus_micros(micros.div_ceil(u128::from(all.max(1))).try_into().unwrap_or(u64::MAX))
    }

    /// The time of a schedule at `now`, which passes the slower the less the load is. A schedule with arrivals of any
    /// distribution so has those of the load that is raised.
    pub(crate) fn scheduled(&self, now: Instant) -> Instant {
        if now == Instant::NEVER {
            return now;
        }
        let elapsed = now.micros_since(self.start);
        let passed = if elapsed < self.length {
            let square = u128::from(elapsed) * u128::from(elapsed);
            (square / (2 * u128::from(self.length))) as u64
        } else {
            elapsed - (self.length - self.length / 2)
        };
        self.start.plus_micros(passed)
    }

    /// The first time at which a schedule has come to `scheduled`.
    pub(crate) fn real(&self, scheduled: Instant) -> Instant {
        let passed = scheduled.micros_since(self.start);
        let half = self.length / 2;
        let elapsed = if passed < half {
            let square = 2 * u128::from(self.length) * u128::from(passed);
            let root = square.isqrt();
            (root + u128::from(root * root < square)) as u64
        } else {
            passed.saturating_add(self.length - half)
        };
        self.start.plus_micros(elapsed)
    }
}

/// Returns how many of `all` connections are to be left when `elapsed` of the time `down` has passed.
pub(crate) fn connections_left(all: u32, elapsed: Duration, down: Duration) -> u32 {
    let left = down.saturating_sub(elapsed).as_micros();
    let part = u128::from(all) * left / down.as_micros().max(1);
    u32::try_from(part).unwrap_or(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    const START: Instant = Instant::from_millis(1_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn raising(length: Duration) -> Raising {
        Raising::new(START, length).unwrap()
    }

    #[test]
    fn phases_are_listed_in_order() {
        assert!(Phase::ALL.is_sorted());
    }

    #[test]
    fn connections_are_raised_evenly_to_all() {
        let raising = raising(SECOND);
        let at = |millis| raising.connections(START + Duration::from_millis(millis), 4);
        assert_eq!([0, 249, 250, 499, 750, 1_000, 9_000].map(at), [1, 1, 2, 2, 4, 4, 4]);
        let next = raising.next_connection(START + Duration::from_millis(300), 4);
        assert_eq!(next, START + Duration::from_millis(500));
        assert_eq!(Raising::new(START, Duration::ZERO).map(|_| ()), None);
    }

    #[test]
    fn half_of_the_requests_of_a_constant_rate_are_due_during_the_ramp() {
        for length in [SECOND, Duration::from_micros(999_999), Duration::from_secs(600)] {
            let raising = raising(length);
            let mut schedule = Schedule::even(START, 1_000, SECOND);
            let end = START + length;
            let mut count = 0_u64;
            while schedule.begin(raising.scheduled(end), raising.scheduled(end)).is_some() {
                count += 1;
            }
            let expected = (length.as_secs_f64() * 500.0).round() as u64;
            assert!(count.abs_diff(expected) <= 1, "{count} in {length:?}");
        }
    }

    #[test]
    fn a_request_is_due_at_the_time_it_is_said_to_be_and_not_before() {
        let raising = raising(Duration::from_micros(1_001));
        let mut last = START;
        for micros in 0..2_000 {
            let scheduled = START.plus_micros(micros);
            let real = raising.real(scheduled);
            assert!(raising.scheduled(real) >= scheduled, "{micros}");
            assert!(
                micros == 0 || raising.scheduled(real.minus_one()) < scheduled,
                "{micros}"
            );
            assert!(real >= last);
            last = real;
        }
        assert_eq!(raising.scheduled(Instant::NEVER), Instant::NEVER);
    }

    trait MinusOne {
        fn minus_one(self) -> Self;
    }

    impl MinusOne for Instant {
        fn minus_one(self) -> Self {
            self - Duration::from_micros(1)
        }
    }

    #[test]
    fn after_the_ramp_the_rate_is_the_whole() {
        let raising = raising(SECOND);
        let mut schedule = Schedule::even(START, 1_000, SECOND);
        let begin = START + SECOND;
        while schedule.begin(raising.scheduled(begin), Instant::NEVER).is_some() {}
        let mut due = Vec::new();
        while let Some(at) = schedule.begin(raising.scheduled(begin + Duration::from_millis(5)), Instant::NEVER) {
            due.push(raising.real(at).since(begin).as_micros());
        }
        assert_eq!(due, [1_000, 2_000, 3_000, 4_000, 5_000]);
    }

    #[test]
    fn connections_are_lowered_evenly_to_none() {
        let left = |millis| connections_left(4, Duration::from_millis(millis), SECOND);
        assert_eq!([0, 1, 250, 251, 750, 751, 2_000].map(left), [4, 3, 3, 2, 1, 0, 0]);
        assert_eq!(connections_left(4, Duration::ZERO, Duration::ZERO), 0);
    }
}
