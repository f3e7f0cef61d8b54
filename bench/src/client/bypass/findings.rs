//! What one shard of the client has found, and which part of it counts.

use std::fmt::Display;
use std::time::Duration;

use crate::client::errors::{Errors, Kind};
use tidegate_report::Latencies;

/// What counts at present.
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
pub(super) struct Findings {
    stage: Stage,
    operations: u64,
    operations_before: u64,
    /// What the shown rate is of.
    steps: u64,
    pub(super) latency: Latencies,
    pub(super) connect: Latencies,
    pub(super) announced_ends: u64,
    pub(super) errors: Errors,
}

impl Findings {
    /// Nothing yet, and the warm-up begins.
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::WarmUp,
            operations: 0,
            operations_before: 0,
            steps: 0,
            latency: Latencies::new(),
            connect: Latencies::new(),
            announced_ends: 0,
            errors: Errors::default(),
        }
    }

    /// The warm-up is over.
    pub(super) fn begin_measuring(&mut self) {
        self.stage = Stage::Measuring;
    }

    /// The measurement is over; what is under way may still fail, or turn out to be slow.
    pub(super) fn stop(&mut self) {
        self.stage = Stage::Stopped;
    }

    fn counts(&self) -> bool {
        self.stage != Stage::WarmUp
    }

    /// Counts operations.
    #[inline]
    pub(super) fn count(&mut self, operations: u64) {
        match self.stage {
            Stage::WarmUp => self.operations_before += operations,
            Stage::Measuring => self.operations += operations,
            Stage::Stopped => return,
        }
        self.steps += operations;
    }

    /// Shows that something was done that is no operation.
    pub(super) fn step(&mut self) {
        self.steps += 1;
    }

    /// Counts what a request, or a connection with its request, took.
    #[inline]
    pub(super) fn latency(&mut self, latency: Duration) {
        if self.counts() {
            self.latency.record(latency);
        }
    }

    /// Counts what establishing a connection took.
    #[inline]
    pub(super) fn connected(&mut self, latency: Duration) {
        if self.counts() {
            self.connect.record(latency);
        }
    }

    /// Counts a connection whose end the server announced, and that a new one takes the place of.
    pub(super) fn announced_end(&mut self) {
        if self.counts() {
            self.announced_ends += 1;
        }
    }

    /// Counts an error; `detail` is a phrase that says what was seen.
    pub(super) fn error(&mut self, kind: Kind, detail: impl Display) {
        if self.counts() {
            self.errors.add(kind, detail);
        }
    }

    /// Operations while measuring.
    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    /// Operations in all.
    pub(super) fn operations_with_warm_up(&self) -> u64 {
        self.operations_before + self.operations
    }

    /// What the shown rate is of.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Adds those of another shard.
    pub(super) fn merge(&mut self, other: &Self) {
        self.operations += other.operations;
        self.operations_before += other.operations_before;
        self.steps += other.steps;
        self.latency.merge(&other.latency);
        self.connect.merge(&other.connect);
        self.announced_ends += other.announced_ends;
        self.errors.merge(&other.errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn one_of_each(findings: &mut Findings) {
        findings.count(1);
        findings.latency(SECOND);
        findings.connected(SECOND);
        findings.error(Kind::Reset, "reset");
    }

    #[test]
    fn what_counts_depends_on_the_stage() {
        let mut findings = Findings::new();
        one_of_each(&mut findings);
        findings.begin_measuring();
        one_of_each(&mut findings);
        one_of_each(&mut findings);
        findings.stop();
        one_of_each(&mut findings);
        assert_eq!((findings.operations(), findings.operations_with_warm_up()), (2, 3));
        assert_eq!((findings.latency.len(), findings.connect.len()), (3, 3));
        assert_eq!(findings.errors.total(), 3);

        let mut both = Findings::new();
        both.merge(&findings);
        both.merge(&findings);
        assert_eq!((both.operations(), both.operations_with_warm_up()), (4, 6));
        assert_eq!((both.latency.len(), both.errors.total()), (6, 6));
    }
}
