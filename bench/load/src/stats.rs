//! The counts and latencies of one thread of a client.

use std::fmt::Display;
use std::time::Duration;

use tidegate_report::Latencies;

use crate::errors::{Errors, Failure, Kind};
use crate::series::Histograms;
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

/// Counts and latencies. Latencies are those of the present second, whether they count or not; see
/// [`Recorder`](crate::recorder::Recorder).
#[derive(Debug)]
pub(crate) struct Stats {
    stage: Stage,
    /// Everything has counted from the beginning.
    counts_all: bool,
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
    /// Connections that did not end by FIN when all was done.
    pub(crate) unclean_ends: u64,
    pub(crate) errors: Errors,
    /// Errors of all stages.
    errors_in_all: [u64; Kind::ALL.len()],
}

impl Stats {
    /// Nothing yet, and the warm-up begins.
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::WarmUp,
            counts_all: false,
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
            unclean_ends: 0,
            errors: Errors::default(),
            errors_in_all: [0; Kind::ALL.len()],
        }
    }

    /// The warm-up is over.
    pub(crate) fn begin_measuring(&mut self) {
        self.stage = Stage::Measuring;
    }

    /// There is no warm-up.
    pub(crate) fn count_all(&mut self) {
        self.counts_all = true;
        self.begin_measuring();
    }

    /// Whether there was no warm-up.
    pub(crate) fn counts_all(&self) -> bool {
        self.counts_all
    }

    /// From now on nothing counts.
    pub(crate) fn pause(&mut self) {
        self.stage = Stage::WarmUp;
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
            Stage::Stopped => {}
        }
        self.steps += operations;
    }

    /// Shows that something was done that is no operation.
    pub(crate) fn step(&mut self) {
        self.steps += 1;
    }

    /// Returns the latencies since this was last called, and goes on with `spare`.
    pub(crate) fn take_latencies(&mut self, spare: Histograms) -> Histograms {
        let Histograms {
            latency,
            connect,
            parts,
        } = spare;
        Histograms {
            latency: std::mem::replace(&mut self.latency, latency),
            connect: std::mem::replace(&mut self.connect, connect),
            parts: std::mem::replace(&mut self.parts, parts),
        }
    }

    /// Counts what a request, or a connection with its request, took.
    #[inline]
    pub(crate) fn latency(&mut self, latency: Duration) {
        self.latency.record(latency);
    }

    /// Counts the time until the first and the last byte of a response that came in parts, whose latency is counted,
    /// too. Of all others the first byte came with the last one, so that nothing is counted twice.
    pub(crate) fn in_parts(&mut self, first: Duration, last: Duration) {
        self.parts.0.record(first);
        self.parts.1.record(last);
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
        self.connect.record(latency);
    }

    /// Counts a connection whose end the server announced, and that a new one takes the place of.
    pub(crate) fn announced_end(&mut self) {
        if self.counts() {
            self.announced_ends += 1;
        }
    }

    /// Counts a connection that did not end by FIN when all was done.
    pub(crate) fn unclean_end(&mut self) {
        if self.counts() {
            self.unclean_ends += 1;
        }
    }

    /// Errors of all stages, by kind.
    pub(crate) fn errors_in_all(&self) -> [u64; Kind::ALL.len()] {
        self.errors_in_all
    }

    /// Counts an error; `detail` is a phrase that says what was seen.
    pub(crate) fn error(&mut self, kind: Kind, detail: impl Display) {
        self.errors_in_all[kind as usize] += 1;
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

    /// Adds those of another shard, whose run is over: its recorder has its latencies.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.operations += other.operations;
        self.operations_before += other.operations_before;
        self.close.merge(&other.close);
        self.announced_ends += other.announced_ends;
        self.statuses.merge(&other.statuses);
        self.note_location(other.location.as_deref());
        self.unclean_ends += other.unclean_ends;
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
        assert_eq!((stats.errors.total(), stats.errors_in_all().iter().sum()), (3, 4));
        // The time they belong to is another's business.
        assert_eq!((stats.latency.len(), stats.connect.len(), stats.steps()), (4, 4, 4));
        let taken = stats.take_latencies(Histograms::new());
        assert_eq!((taken.latency.len(), stats.latency.len()), (4, 0));

        let mut both = Stats::new();
        both.merge(&stats);
        both.merge(&stats);
        assert_eq!((both.operations(), both.operations_with_warm_up()), (4, 6));
        assert_eq!(both.errors.total(), 6);
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
