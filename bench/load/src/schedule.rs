//! The times at which the requests of an open loop are due, or the connections of one.

use std::time::Duration;

use tidegate_tcp::time::Instant;

/// So many requests are due in each period, evenly spread, to the microsecond, and without drift.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Instant,
    count: u64,
    /// In microseconds.
    period: u64,
    /// The number of those that were begun.
    begun: u64,
}

impl Schedule {
    /// `count` requests, at least 1, in each `period`, the first of them due at `start`.
    pub(super) fn new(start: Instant, count: u64, period: Duration) -> Self {
        Self {
            start,
            count,
            period: u64::try_from(period.as_micros()).unwrap_or(u64::MAX),
            begun: 0,
        }
    }

    /// The time at which the first request that was not begun is due.
    pub(super) fn next(&self) -> Instant {
        let periods = self.begun / self.count;
        // Up to 18 million million requests per second the product fits.
        let micros = self.begun % self.count * self.period / self.count;
        self.start
            .plus_micros(periods.saturating_mul(self.period).saturating_add(micros))
    }

    /// Begins the next request if it is due at `now` and before `end`. Returns when it was due.
    pub(super) fn begin(&mut self, now: Instant, end: Instant) -> Option<Instant> {
        let due = self.next();
        (due <= now && due < end).then(|| {
            self.begun += 1;
            due
        })
    }

    /// The request begun last could not be sent: it is the next again.
    pub(super) fn put_back(&mut self) {
        self.begun = self.begun.saturating_sub(1);
    }

    /// Returns the number of requests that are due before `end` and were not begun.
    pub(super) fn missed(&self, end: Instant) -> u64 {
        // Request k is due before `end` if k / count of a period is less than the time until then.
        let time = end.since(self.start).as_micros() * u128::from(self.count);
        let all = time.div_ceil(u128::from(self.period.max(1)));
        u64::try_from(all).unwrap_or(u64::MAX).saturating_sub(self.begun)
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
        let mut schedule = Schedule::new(START, 3, SECOND);
        let due: Vec<u128> = (0..7)
            .filter_map(|_| schedule.begin(Instant::NEVER, Instant::NEVER))
            .map(micros_after_start)
            .collect();
        assert_eq!(due, [0, 333_333, 666_666, 1_000_000, 1_333_333, 1_666_666, 2_000_000]);
    }

    #[test]
    fn a_period_may_be_of_any_length() {
        let end = START + Duration::from_millis(20);
        let mut schedule = Schedule::new(START, 8, Duration::from_millis(20));
        assert_eq!(schedule.missed(end), 8);
        let due: Vec<u128> = (0..9)
            .filter_map(|_| schedule.begin(Instant::NEVER, end))
            .map(micros_after_start)
            .collect();
        assert_eq!(due, [0, 2_500, 5_000, 7_500, 10_000, 12_500, 15_000, 17_500]);
    }

    #[test]
    fn high_rates_are_met_for_long() {
        let mut schedule = Schedule::new(START, 4_000_000, SECOND);
        schedule.begun = 4_000_000 * 3_600 + 6;
        assert_eq!(micros_after_start(schedule.next()), 3_600_000_001);
    }

    #[test]
    fn only_what_is_due_is_begun_and_nothing_at_the_end_or_after() {
        let mut schedule = Schedule::new(START, 1_000, SECOND);
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
            let mut schedule = Schedule::new(START, rate, SECOND);
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
        let mut schedule = Schedule::new(START, 10, SECOND);
        let due = schedule.begin(START, Instant::NEVER);
        schedule.put_back();
        assert_eq!(schedule.begin(START, Instant::NEVER), due);
    }
}
