//! The times at which the requests of an open loop are due, or the connections of one.

use std::time::Duration;

use tidegate_random::Random;
use tidegate_tcp::time::Instant;

/// The number of Poisson arrivals that are drawn at most to find out how many were missed; the rest is taken for as
/// many as there are on average.
const MAX_DRAWN: u64 = 1 << 20;

/// The spaces between what is due in an open loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// All equal.
    #[default]
    Constant,
    /// Those of a Poisson process, as independent users make it: short ones and long ones, exponentially distributed.
    Poisson {
        /// The same seed makes the same spaces.
        seed: u64,
    },
}

impl Arrival {
    /// The arrivals of one of several shards: together they are as those of one.
    pub(crate) fn of_shard(self, index: u32) -> Self {
        match self {
            Self::Constant => Self::Constant,
            Self::Poisson { seed } => Self::Poisson {
                seed: seed.wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            },
        }
    }
}

/// So many requests are due in each period, to the microsecond, and without drift.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    start: Instant,
    /// The number of those that were begun.
    begun: u64,
    times: Times,
}

#[derive(Clone, Debug)]
enum Times {
    /// Evenly spread.
    Even {
        count: u64,
        /// In microseconds.
        period: u64,
    },
    Poisson(Poisson),
}

#[derive(Clone, Debug)]
struct Poisson {
    random: Random,
    /// Microseconds between two on average.
    mean: f64,
    /// The next that was not drawn before, in microseconds after the start.
    next: f64,
    /// The one that was begun last.
    last: f64,
    /// The one that was put back.
    returned: Option<f64>,
    /// The number of those before the time that was asked for, in all.
    before: Option<(Instant, u64)>,
}

impl Poisson {
    fn new(seed: u64, mean: f64) -> Self {
        let mut poisson = Self {
            random: Random::new(seed),
            mean,
            next: 0.0,
            last: 0.0,
            returned: None,
            before: None,
        };
        poisson.draw();
        poisson
    }

    fn draw(&mut self) {
        // The fraction is below 1.
        self.next -= (1.0 - self.random.fraction()).ln() * self.mean;
    }

    fn due(&self) -> f64 {
        self.returned.unwrap_or(self.next)
    }

    fn begin(&mut self) {
        self.last = self.due();
        if self.returned.take().is_none() {
            self.draw();
        }
    }

    /// The number of those that are due before `end` microseconds and were not begun.
    fn count_before(&self, end: f64) -> u64 {
        let mut ahead = self.clone();
        let mut count = 0;
        while ahead.due() < end {
            if count == MAX_DRAWN {
                return count + ((end - ahead.due()) / self.mean) as u64;
            }
            count += 1;
            ahead.begin();
        }
        count
    }
}

impl Schedule {
    /// `count` requests, at least 1, evenly spread over each `period`, the first of them due at `start`.
    pub(super) fn even(start: Instant, count: u64, period: Duration) -> Self {
        let period = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
        Self {
            start,
            begun: 0,
            times: Times::Even { count, period },
        }
    }

    /// `rate` requests per second, at least 1, from `start` on.
    pub(super) fn at_rate(start: Instant, rate: u64, arrival: Arrival) -> Self {
        match arrival {
            Arrival::Constant => Self::even(start, rate, Duration::from_secs(1)),
            Arrival::Poisson { seed } => Self {
                start,
                begun: 0,
                times: Times::Poisson(Poisson::new(seed, 1e6 / rate as f64)),
            },
        }
    }

    /// The time at which the first request that was not begun is due.
    pub(super) fn next(&self) -> Instant {
        let micros = match &self.times {
            Times::Even { count, period } => {
                let periods = self.begun / count;
                // Up to 18 million million requests per second the product fits.
                let micros = self.begun % count * period / count;
                periods.saturating_mul(*period).saturating_add(micros)
            }
            // Never negative; beyond the range it is the end of it.
            Times::Poisson(poisson) => poisson.due() as u64,
        };
        self.start.plus_micros(micros)
    }

    /// Begins the next request if it is due at `now` and before `end`. Returns when it was due.
    pub(super) fn begin(&mut self, now: Instant, end: Instant) -> Option<Instant> {
        let due = self.next();
        (due <= now && due < end).then(|| {
            self.begun += 1;
            if let Times::Poisson(poisson) = &mut self.times {
                poisson.begin();
            }
            due
        })
    }

    /// The request begun last could not be sent: it is the next again.
    pub(super) fn put_back(&mut self) {
        self.begun = self.begun.saturating_sub(1);
        if let Times::Poisson(poisson) = &mut self.times {
            poisson.returned = Some(poisson.last);
        }
    }

    /// Returns the number of requests that are due before `end` and were not begun. Meant to be asked for one `end`,
    /// which takes time once only.
    pub(super) fn missed(&mut self, end: Instant) -> u64 {
        let all = match &mut self.times {
            Times::Even { count, period } => {
                // Request k is due before `end` if k / count of a period is less than the time until then.
                let time = end.since(self.start).as_micros() * u128::from(*count);
                u64::try_from(time.div_ceil(u128::from((*period).max(1)))).unwrap_or(u64::MAX)
            }
            Times::Poisson(poisson) => match poisson.before {
                Some((at, all)) if at == end => all,
                _ => {
                    // A request is due at the whole microsecond before its time.
                    let all = self.begun + poisson.count_before(end.since(self.start).as_micros() as f64);
                    poisson.before = Some((end, all));
                    all
                }
            },
        };
        all.saturating_sub(self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const START: Instant = Instant::from_millis(1_000);

    fn micros_after_start(at: Instant) -> u128 {
        at.since(START).as_micros()
    }

    #[test]
    fn requests_are_due_evenly_and_without_drift() {
        let mut schedule = Schedule::even(START, 3, SECOND);
        let due: Vec<u128> = (0..7)
            .filter_map(|_| schedule.begin(Instant::NEVER, Instant::NEVER))
            .map(micros_after_start)
            .collect();
        assert_eq!(due, [0, 333_333, 666_666, 1_000_000, 1_333_333, 1_666_666, 2_000_000]);
    }

    #[test]
    fn a_period_may_be_of_any_length() {
        let end = START + Duration::from_millis(20);
        let mut schedule = Schedule::even(START, 8, Duration::from_millis(20));
        assert_eq!(schedule.missed(end), 8);
        let due: Vec<u128> = (0..9)
            .filter_map(|_| schedule.begin(Instant::NEVER, end))
            .map(micros_after_start)
            .collect();
        assert_eq!(due, [0, 2_500, 5_000, 7_500, 10_000, 12_500, 15_000, 17_500]);
    }

    #[test]
    fn high_rates_are_met_for_long() {
        let mut schedule = Schedule::even(START, 4_000_000, SECOND);
        schedule.begun = 4_000_000 * 3_600 + 6;
        assert_eq!(micros_after_start(schedule.next()), 3_600_000_001);
    }

    #[test]
    fn only_what_is_due_is_begun_and_nothing_at_the_end_or_after() {
        let mut schedule = Schedule::even(START, 1_000, SECOND);
        let end = Instant::from_millis(1_003);
        assert_eq!(schedule.begin(START, end), Some(START));
        assert_eq!(schedule.begin(START, end), None);
        assert_eq!(schedule.missed(end), 2);
        // It comes late, and is due when it was.
        let late = Instant::from_millis(2_000);
        assert_eq!(schedule.begin(late, end), Some(Instant::from_millis(1_001)));
        assert_eq!(schedule.begin(late, end), Some(Instant::from_millis(1_002)));
        assert_eq!((schedule.begin(late, end), schedule.missed(end)), (None, 0));
    }

    #[test]
    fn what_was_missed_is_what_would_have_been_begun() {
        for (rate, millis) in [(3, 1_000), (3, 999), (1_000_003, 7), (7, 0), (1, 5_001)] {
            let mut schedule = Schedule::even(START, rate, SECOND);
            let end = START + Duration::from_millis(millis);
            let missed = schedule.missed(end);
            let mut begun = 0;
            while schedule.begin(Instant::NEVER, end).is_some() {
                begun += 1;
            }
            assert_eq!(
                (missed, schedule.missed(end)),
                (begun, 0),
                "{rate} per second, {millis} ms"
            );
        }
    }

    #[test]
    fn what_was_put_back_is_the_next() {
        let mut schedule = Schedule::even(START, 10, SECOND);
        let due = schedule.begin(START, Instant::NEVER);
        schedule.put_back();
        assert_eq!(schedule.begin(START, Instant::NEVER), due);
    }

    fn poisson(rate: u64, seed: u64) -> Schedule {
        Schedule::at_rate(START, rate, Arrival::Poisson { seed })
    }

    fn all_before(schedule: &mut Schedule, end: Instant) -> Vec<Instant> {
        std::iter::from_fn(|| schedule.begin(Instant::NEVER, end)).collect()
    }

    #[test]
    fn poisson_arrivals_have_their_rate_and_are_not_even() {
        let end = START + Duration::from_secs(100);
        let due = all_before(&mut poisson(1_000, 7), end);
        // The standard deviation is 316.
        assert!((98_500..101_500).contains(&due.len()), "{}", due.len());
        assert!(due.is_sorted() && due[0] >= START);
        // As many spaces as an exponential distribution has: 1 - 1/e of all are shorter than the mean.
        let short = due
            .windows(2)
            .filter(|pair| pair[1].since(pair[0]) < Duration::from_millis(1))
            .count();
        let part = short as f64 / due.len() as f64;
        assert!((0.625..0.64).contains(&part), "{part}");
    }

    #[test]
    fn a_seed_repeats_its_arrivals_and_shards_differ() {
        let end = START + SECOND;
        let due = |seed| all_before(&mut poisson(100, seed), end);
        assert_eq!(due(1), due(1));
        assert_ne!(due(1), due(2));
        let arrival = Arrival::Poisson { seed: 1 };
        assert_eq!(arrival.of_shard(0), arrival);
        assert_ne!(arrival.of_shard(1), arrival);
        assert_eq!(Arrival::Constant.of_shard(1), Arrival::Constant);
    }

    #[test]
    fn missed_poisson_arrivals_are_those_that_would_have_been_begun() {
        for (rate, millis) in [(3, 10_000), (1_000, 700), (50_000, 40)] {
            let mut schedule = poisson(rate, 3);
            let end = START + Duration::from_millis(millis);
            let first = schedule.begin(Instant::NEVER, end);
            let missed = schedule.missed(end);
            schedule.put_back();
            assert_eq!(schedule.missed(end), missed + 1);
            assert_eq!(schedule.begin(Instant::NEVER, end), first, "it is the next");
            assert_eq!(
                all_before(&mut schedule, end).len() as u64,
                missed,
                "{rate} in {millis} ms"
            );
            assert_eq!(schedule.missed(end), 0);
        }
    }

    #[test]
    fn very_many_missed_are_estimated() {
        let mut schedule = poisson(50_000_000, 3);
        let missed = schedule.missed(START + SECOND) as f64;
        assert!((missed / 5e7 - 1.0).abs() < 0.01, "{missed}");
    }
}
