//! Many seeds on several threads, and what came of them in sum.

use core::any::Any;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Instant;

use tidegate_tcp::congestion::Algorithm;

use crate::check::{self, Failure, Report};
use crate::link::LinkCounters;
use crate::scenario::Scenario;
use crate::trace::Trace;

/// The number of the slowest seeds that are remembered.
const SLOWEST: usize = 5;

/// Runs the scenario of `seed`, with one congestion control on all engines where one is given. A panic is a failure
/// like any other.
///
/// # Errors
///
/// The fault.
pub fn run_seed(seed: u64, control: Option<Algorithm>, trace: Option<Trace>) -> Result<Report, Box<Failure>> {
    let mut scenario = Scenario::generate(seed);
    if let Some(control) = control {
        scenario.set_control(control);
    }
    panic::catch_unwind(AssertUnwindSafe(|| check::run(&scenario, trace))).unwrap_or_else(|panic| {
        Err(Box::new(Failure {
            seed,
            control,
            problem: format!("panicked: {}", message(&*panic)),
            scenario: scenario.to_string(),
            state: String::new(),
        }))
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// A row of seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The first seed.
    pub start: u64,
    /// The number of them.
    pub seeds: u64,
    /// The congestion control of every engine; by default each seed has its own.
    pub control: Option<Algorithm>,
    /// Threads, at least one.
    pub jobs: usize,
}

impl Batch {
    /// Runs all seeds. `progress` is called after each one, from any thread, with whether it failed.
    pub fn run(&self, progress: &(dyn Fn(bool) + Sync)) -> Summary {
        let next = AtomicU64::new(self.start);
        let end = self.start.saturating_add(self.seeds);
        let work = || {
            let mut summary = Summary::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return summary;
                }
                let begin = Instant::now();
                let result = run_seed(seed, self.control, None);
                progress(result.is_err());
                summary.add(seed, begin.elapsed(), result);
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            let mut total = Summary::default();
            for worker in workers {
                match worker.join() {
                    Ok(summary) => total.merge(summary),
                    Err(panic) => panic::resume_unwind(panic),
                }
            }
            total
        })
    }
}

/// The outcome of many runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Those that were aborted as planned.
    pub aborted: u64,
    /// Those that smoltcp left incomplete; see [`Report::stalled`].
    pub stalled: u64,
    /// Events handled.
    pub events: u64,
    /// Bytes that applications received.
    pub bytes: u64,
    /// Segments sent.
    pub segments: u64,
    /// Segments that carried nothing new.
    pub retransmissions: u64,
    /// The frames of the links.
    pub link: LinkCounters,
    /// Simulated time.
    pub simulated: Duration,
    /// The seeds that took longest, and how long.
    pub slowest: Vec<(Duration, u64)>,
    /// The runs that failed, by seed.
    pub failures: Vec<Failure>,
}

impl Summary {
    fn add(&mut self, seed: u64, took: Duration, result: Result<Report, Box<Failure>>) {
        self.runs += 1;
        self.slowest.push((took, seed));
        self.keep_slowest();
        match result {
            Ok(report) => {
                self.aborted += u64::from(report.aborted);
                self.stalled += u64::from(report.stalled);
                self.events += report.events;
                self.bytes += report.bytes;
                self.segments += report.segments;
                self.retransmissions += report.retransmissions;
                self.link.merge(&report.link);
                self.simulated += report.simulated;
            }
            Err(failure) => self.failures.push(*failure),
        }
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.aborted += other.aborted;
        self.stalled += other.stalled;
        self.events += other.events;
        self.bytes += other.bytes;
        self.segments += other.segments;
        self.retransmissions += other.retransmissions;
        self.link.merge(&other.link);
        self.simulated += other.simulated;
        self.slowest.extend(other.slowest);
        self.keep_slowest();
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.seed);
    }

    fn keep_slowest(&mut self) {
        self.slowest.sort_unstable_by(|left, right| right.cmp(left));
        self.slowest.truncate(SLOWEST);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = &self.link;
        let rows = [
            ("runs", self.runs),
            ("  failed", self.failures.len() as u64),
            ("  aborted as planned", self.aborted),
            ("  left incomplete by smoltcp", self.stalled),
            ("events", self.events),
            ("bytes received", self.bytes),
            ("segments sent", self.segments),
            ("  retransmissions", self.retransmissions),
            ("frames delivered", link.delivered),
            ("  lost by chance", link.impaired.lost),
            ("  lost in bursts", link.impaired.lost_in_bursts),
            ("  dropped, queue full", link.impaired.queue_full),
            ("  dropped, too big", link.too_big),
            ("  dropped, link down", link.link_down),
            ("  duplicated", link.impaired.duplicated),
            ("  reordered", link.impaired.reordered),
            ("  corrupted", link.impaired.corrupted),
            ("  marked, congestion", link.marked),
            ("simulated hours", self.simulated.as_secs() / 3600),
        ];
        for (name, value) in rows {
            writeln!(f, "{name:<30}{value:>16}")?;
        }
        let slowest: Vec<String> = self
            .slowest
            .iter()
            .map(|(took, seed)| format!("{seed} ({} ms)", took.as_millis()))
            .collect();
        write!(f, "slowest seeds: {}", slowest.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_kept_by_seed_and_the_slowest_by_time() {
        let failure = |seed| {
            Err(Box::new(Failure {
                seed,
                control: None,
                problem: String::new(),
                scenario: String::new(),
                state: String::new(),
            }))
        };
        let mut total = Summary::default();
        for seeds in [[5, 1, 9], [7, 2, 4]] {
            let mut part = Summary::default();
            for seed in seeds {
                part.add(seed, Duration::from_millis(seed), failure(seed));
            }
            total.merge(part);
        }
        let seeds: Vec<u64> = total.failures.iter().map(|failure| failure.seed).collect();
        assert_eq!(seeds, [1, 2, 4, 5, 7, 9]);
        let slowest: Vec<u64> = total.slowest.iter().map(|&(_, seed)| seed).collect();
        assert_eq!(slowest, [9, 7, 5, 4, 2]);
        assert_eq!(total.runs, 6);
        assert!(total.to_string().contains("slowest seeds: 9 (9 ms), 7 (7 ms)"));
    }

    #[test]
    fn a_panic_has_a_message() {
        for panic in [Box::new("text") as Box<dyn Any + Send>, Box::new("text".to_owned())] {
            assert_eq!(message(&*panic), "text");
        }
        assert_eq!(message(&5), "no message");
    }
}
