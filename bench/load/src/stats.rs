//! The counts and latencies of one thread of a client.

use std::fmt::Display;
use std::time::Duration;

use tidegate_report::Latencies;

use crate::errors::{Errors, Failure, Kind};
use crate::statuses::Statuses;

/// Which of them count at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Operations, but not as measured.
    WarmUp,
    /// Everything.
    Measuring,
    /// Latencies and errors, but no operations any more.
    Stopped,
}

/// Counts and latencies.
#[derive(Debug)]
pub(crate) struct Stats {
    stage: Stage,
    operations: u64,
    operations_before: u64,
    /// The steps that the shown rate counts.
    steps: u64,
    pub(crate) latency: Latencies,
    pub(crate) connect: Latencies,
    /// From the last byte of the last response until the server's FIN.
    pub(crate) close: Latencies,
    /// Of the responses that came in parts: until the first byte, and until the last.
    parts: (Latencies, Latencies),
    pub(crate) announced_ends: u64,
    pub(crate) statuses: Statuses,
    pub(crate) location: Option<String>,
    pub(crate) errors: Errors,
}

impl Stats {
    /// Nothing yet, and the warm-up begins.
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::WarmUp,
            operations: 0,
            operations_before: 0,
            steps: 0,
            latency: Latencies::new(),
            connect: Latencies::new(),
            close: Latencies::new(),
            parts: Default::default(),
            announced_ends: 0,
            statuses: Statuses::default(),
            location: None,
            errors: Errors::default(),
        }
    }

    /// The warm-up is over.
    pub(crate) fn begin_measuring(&mut self) {
        self.stage = Stage::Measuring;
    }

    /// The measurement is over; what is under way may still fail, or turn out to be slow.
    pub(crate) fn stop(&mut self) {
        self.stage = Stage::Stopped;
    }

    fn counts(&self) -> bool {
        self.stage != Stage::WarmUp
    }

    /// Counts operations.
    #[inline]
    pub(crate) fn count(&mut self, operations: u64) {
        match self.stage {
            Stage::WarmUp => self.operations_before += operations,
            Stage::Measuring => self.operations += operations,
            Stage::Stopped => return,
        }
        self.steps += operations;
    }

    /// Shows that something was done that is no operation.
    pub(crate) fn step(&mut self) {
        self.steps += 1;
    }

    /// Counts what a request, or a connection with its request, took.
    #[inline]
    pub(crate) fn latency(&mut self, latency: Duration) {
        if self.counts() {
            self.latency.record(latency);
        }
    }

    /// Counts the time until the first and the last byte of a response that came in parts, whose latency is counted,
    /// too. Of all others the first byte came with the last one, so that nothing is counted twice.
    pub(crate) fn in_parts(&mut self, first: Duration, last: Duration) {
        if self.counts() {
            self.parts.0.record(first);
            self.parts.1.record(last);
        }
    }

    /// Returns the times until the first byte of all responses whose latency was counted.
    pub(crate) fn first_byte(&self) -> Latencies {
        let (first, last) = &self.parts;
        let mut all = self.latency.clone();
        all.subtract(last);
        all.merge(first);
        all
    }

    /// Counts responses of each class, 2xx to 5xx.
    #[inline]
    pub(crate) fn responses(&mut self, classes: [u32; 4]) {
        if self.counts() {
            self.statuses.add(classes);
        }
    }

    /// Keeps the Location field of a redirect, if it is the first.
    pub(crate) fn note_location(&mut self, location: Option<&str>) {
        if self.location.is_none() {
            self.location = location.map(str::to_owned);
        }
    }

    /// Counts the time a server took to end a connection after its last response.
    #[inline]
    pub(crate) fn closed(&mut self, latency: Duration) {
        if self.counts() {
            self.close.record(latency);
        }
    }

    /// Counts what establishing a connection took.
    #[inline]
    pub(crate) fn connected(&mut self, latency: Duration) {
        if self.counts() {
            self.connect.record(latency);
        }
    }

    /// Counts a connection whose end the server announced, and that a new one takes the place of.
    pub(crate) fn announced_end(&mut self) {
        if self.counts() {
            self.announced_ends += 1;
        }
    }

    /// Counts an error; `detail` is a phrase that says what was seen.
    pub(crate) fn error(&mut self, kind: Kind, detail: impl Display) {
        if self.counts() {
            self.errors.add(kind, detail);
        }
    }

    /// Counts an error.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        self.error(failure.kind, &failure.detail);
    }

    /// Operations while measuring.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// Operations in all.
    pub(crate) fn operations_with_warm_up(&self) -> u64 {
        self.operations_before + self.operations
    }

    /// The steps that the shown rate counts.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Adds those of another shard.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.operations += other.operations;
        self.operations_before += other.operations_before;
        self.steps += other.steps;
        self.latency.merge(&other.latency);
        self.connect.merge(&other.connect);
        self.close.merge(&other.close);
        self.parts.0.merge(&other.parts.0);
        self.parts.1.merge(&other.parts.1);
        self.announced_ends += other.announced_ends;
        self.statuses.merge(&other.statuses);
        self.note_location(other.location.as_deref());
        self.errors.merge(&other.errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn one_of_each(stats: &mut Stats) {
        stats.count(1);
        stats.latency(SECOND);
        stats.connected(SECOND);
        stats.error(Kind::Reset, "reset");
    }

    #[test]
    fn what_counts_depends_on_the_stage() {
        let mut stats = Stats::new();
        one_of_each(&mut stats);
        stats.begin_measuring();
        one_of_each(&mut stats);
        one_of_each(&mut stats);
        stats.stop();
        one_of_each(&mut stats);
        assert_eq!((stats.operations(), stats.operations_with_warm_up()), (2, 3));
        assert_eq!((stats.latency.len(), stats.connect.len()), (3, 3));
        assert_eq!(stats.errors.total(), 3);

        let mut both = Stats::new();
        both.merge(&stats);
        both.merge(&stats);
        assert_eq!((both.operations(), both.operations_with_warm_up()), (4, 6));
        assert_eq!((both.latency.len(), both.errors.total()), (6, 6));
    }
    #[test]
    fn the_first_byte_of_a_response_in_one_piece_is_its_last() {
        let mut stats = Stats::new();
        stats.begin_measuring();
        let millis = Duration::from_millis;
        for (first, last) in [(5, 5), (1, 9), (7, 7), (2, 300_000)] {
            stats.latency(millis(last));
            if first < last {
                stats.in_parts(millis(first), millis(last));
            }
        }
        let mut both = Stats::new();
        both.merge(&stats);
        both.merge(&stats);
        for (stats, count) in [(&stats, 4), (&both, 8)] {
            let found = stats.first_byte().quantiles().unwrap();
            assert_eq!((found.count, found.p50.round()), (count, 2_001.0));
            assert!((found.max - 7_000.0).abs() < 7.0, "{found:?}");
            // Two minutes are the longest that is told apart.
            assert!(stats.latency.quantiles().unwrap().max > 100e6);
        }
    }

    #[test]
    fn the_first_location_is_kept() {
        let mut stats = Stats::new();
        for (location, expected) in [(None, None), (Some("/a"), Some("/a")), (Some("/b"), Some("/a"))] {
            stats.note_location(location);
            assert_eq!(stats.location.as_deref(), expected);
        }
    }
}
