//! What was found so far, and which part of it counts.

use std::time::{Duration, Instant};

use crate::client::Measured;
use crate::client::errors::{Errors, Failure, Kind};
use crate::client::progress::Progress;
use tidegate_report::Latencies;

/// Between two looks at the rate that is shown.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Counts and latencies. What it has when the warm-up is over is forgotten then.
pub(super) struct Recorder<'a> {
    progress: &'a Progress,
    unit: &'static str,
    warm_up: Duration,
    duration: Duration,
    start: Instant,
    /// When the warm-up is over, and then when the measurement is.
    boundary: Instant,
    /// Since when is counted; `None` during the warm-up.
    since: Option<Instant>,
    /// Since when is not counted any more.
    stopped: Option<Instant>,
    operations: u64,
    operations_before: u64,
    latency: Latencies,
    connect: Latencies,
    announced_ends: u64,
    errors: Errors,
    /// What the shown rate is of.
    steps: u64,
    /// When the rate was last shown, and how many steps there were then.
    last_look: (Instant, u64),
}

impl<'a> Recorder<'a> {
    /// Counts `unit` for `duration`, which begins when `warm_up` is over, which begins at `now`.
    pub(super) fn new(
        progress: &'a Progress,
        unit: &'static str,
        warm_up: Duration,
        duration: Duration,
        now: Instant,
    ) -> Self {
        let mut recorder = Self {
            progress,
            unit,
            warm_up,
            duration,
            start: now,
            boundary: now,
            since: None,
            stopped: None,
            operations: 0,
            operations_before: 0,
            latency: Latencies::new(),
            connect: Latencies::new(),
            announced_ends: 0,
            errors: Errors::default(),
            steps: 0,
            last_look: (now, 0),
        };
        recorder.restart(now);
        recorder
    }

    /// Forgets everything; the warm-up begins at `now`.
    pub(super) fn restart(&mut self, now: Instant) {
        self.start = now;
        self.since = None;
        self.forget();
        self.operations_before = 0;
        self.boundary = now + self.warm_up;
        if self.warm_up.is_zero() {
            self.begin_measuring(now);
        }
    }

    fn begin_measuring(&mut self, now: Instant) {
        self.operations_before += self.operations;
        self.forget();
        self.since = Some(now);
        self.boundary = now + self.duration;
    }

    fn forget(&mut self) {
        self.operations = 0;
        self.latency = Latencies::new();
        self.connect = Latencies::new();
        self.announced_ends = 0;
        self.errors = Errors::default();
    }

    /// To be called between any two lots of events: ends the warm-up when it is time, and shows how it is.
    pub(super) fn turn(&mut self, now: Instant) {
        if self.since.is_none() && now >= self.boundary {
            self.begin_measuring(now);
        }
        let interval = now.duration_since(self.last_look.0);
        if interval >= LOOK_INTERVAL {
            let rate = (self.steps - self.last_look.1) as f64 / interval.as_secs_f64();
            self.progress.update(now.duration_since(self.start), rate, self.unit);
            self.last_look = (now, self.steps);
        }
    }

    /// When [`Recorder::turn`] should be called the next time at the latest.
    pub(super) fn next_turn(&self, now: Instant) -> Instant {
        let look = self.last_look.0 + LOOK_INTERVAL;
        if self.boundary > now {
            look.min(self.boundary)
        } else {
            look
        }
    }

    /// When the measurement began; `None` during the warm-up.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When the measurement is over; `None` during the warm-up.
    pub(super) fn end(&self) -> Option<Instant> {
        self.since.map(|_| self.boundary)
    }

    /// Operations count no more from `now` on, if they still did; latencies and errors do.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stopped.get_or_insert(now);
    }

    /// Counts operations.
    pub(super) fn operations(&mut self, count: u64) {
        if self.stopped.is_none() {
            self.operations += count;
            self.steps += count;
        }
    }

    /// Shows that something was done that is no operation.
    pub(super) fn step(&mut self) {
        self.steps += 1;
    }

    /// Counts what a request, or a connection with its request, took.
    pub(super) fn latency(&mut self, latency: Duration) {
        self.latency.record(latency);
    }

    /// Counts what establishing a connection took.
    pub(super) fn connected(&mut self, latency: Duration) {
        self.connect.record(latency);
    }

    /// Counts a connection whose end the server announced, and that a new one takes the place of.
    pub(super) fn announced_end(&mut self) {
        self.announced_ends += 1;
    }

    /// Counts an error.
    pub(super) fn failure(&mut self, failure: &Failure) {
        self.errors.add(failure.kind, &failure.detail);
    }

    /// What was found until `now`, or until it was stopped.
    pub(super) fn finish(mut self, now: Instant) -> Measured {
        let until = self.stopped.unwrap_or(now);
        let seconds = self
            .since
            .map_or(0.0, |since| until.duration_since(since).as_secs_f64());
        if self.operations == 0 && self.errors.total() == 0 {
            let unit = self.unit;
            let detail = format!("no {unit} were completed in the {seconds:.1} s that were measured");
            self.errors.add(Kind::Unfinished, detail);
        }
        Measured {
            operations: self.operations,
            seconds,
            latency: self.latency,
            connect: self.connect,
            announced_ends: self.announced_ends,
            errors: self.errors,
            frames: None,
            operations_with_warm_up: self.operations_before + self.operations,
            time_wait: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failure() -> Failure {
        Failure::new(Kind::Reset, "reset")
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let progress = Progress::hidden();
        let start = Instant::now();
        let mut recorder = Recorder::new(&progress, "requests", SECOND, 2 * SECOND, start);
        assert_eq!((recorder.since(), recorder.end()), (None, None));
        recorder.operations(5);
        recorder.latency(SECOND);
        recorder.connected(SECOND);
        recorder.failure(&failure());

        recorder.turn(start + SECOND);
        assert_eq!(recorder.since(), Some(start + SECOND));
        assert_eq!(recorder.end(), Some(start + 3 * SECOND));
        recorder.operations(2);
        recorder.latency(SECOND);

        let measured = recorder.finish(start + 3 * SECOND);
        assert_eq!((measured.operations, measured.operations_with_warm_up), (2, 7));
        assert_eq!(measured.seconds, 2.0);
        assert_eq!((measured.latency.len(), measured.connect.len()), (1, 0));
        assert_eq!(measured.errors.total(), 0);
    }

    #[test]
    fn without_a_warm_up_everything_counts_until_it_is_stopped() {
        let progress = Progress::hidden();
        let start = Instant::now();
        let mut recorder = Recorder::new(&progress, "requests", Duration::ZERO, SECOND, start);
        recorder.operations(1);
        recorder.failure(&failure());
        recorder.stop(start + SECOND);
        recorder.operations(1);
        recorder.latency(SECOND);
        let measured = recorder.finish(start + 2 * SECOND);
        assert_eq!((measured.operations, measured.seconds), (1, 1.0));
        assert_eq!((measured.latency.len(), measured.errors.total()), (1, 1));
    }

    #[test]
    fn nothing_at_all_is_an_error() {
        let progress = Progress::hidden();
        let start = Instant::now();
        let recorder = Recorder::new(&progress, "requests", Duration::ZERO, SECOND, start);
        let measured = recorder.finish(start + SECOND);
        assert_eq!(measured.errors.iter().collect::<Vec<_>>(), [("unfinished", 1)]);
    }

    #[test]
    fn the_next_turn_is_never_in_the_past() {
        let progress = Progress::hidden();
        let start = Instant::now();
        let mut recorder = Recorder::new(&progress, "requests", Duration::ZERO, LOOK_INTERVAL / 2, start);
        assert_eq!(recorder.next_turn(start), start + LOOK_INTERVAL / 2);
        let late = start + SECOND;
        recorder.turn(late);
        assert_eq!(recorder.next_turn(late), late + LOOK_INTERVAL);
    }
}
