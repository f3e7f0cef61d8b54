//! What a measurement found, for people and for programs: text for the terminal ([`facts`]), JSON ([`json`]), a page
//! with a plot ([`html`]), and the distributions of latencies in the two forms that tools for HdrHistogram read
//! ([`hgrm`], [`log`]). [`merge`] puts the logs of several machines together.
//!
//! The reports of other measurements are made of the same parts: [`text_table`], [`page`], [`chart`], [`numbers`],
//! [`spread`] and [`files`].

pub(crate) mod chart;
pub(crate) mod command;
mod facts;
pub(crate) mod files;
mod hgrm;
mod html;
mod json;
mod log;
mod merge;
pub(crate) mod numbers;
pub(crate) mod page;
mod plot;
pub(crate) mod spread;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod text_table;

use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use serde_json::{Map, Value};
use tidegate_lab::machine::Memory;

use crate::client::{Close, Direction, Measured, Plan, Workload};

/// Name, in tables and as the tag in logs, of what requests took.
const LATENCY: &str = "latency";

/// The same for what it took to connect.
const CONNECT: &str = "connect";

/// A measurement that is over.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// What the results depend on.
    pub(crate) environment: Map<String, Value>,
    /// The name of the client.
    pub(crate) client: &'static str,
    /// What it was asked to do.
    pub(crate) plan: Plan,
    /// When the part that counts began.
    pub(crate) start: SystemTime,
    /// What it found.
    pub(crate) measured: Measured,
    /// The memory of the server, if it was asked for.
    pub(crate) memory: Option<MemoryUse>,
}

/// The memory of a server process and of its kernel around a measurement, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// Before the first connection.
    pub(crate) before: Memory,
    /// The most there was of each until the end.
    pub(crate) highest: Memory,
}

impl Run {
    /// There was something, and nothing went wrong.
    pub(crate) fn passed(&self) -> bool {
        let least = match self.plan.workload {
            Workload::Hold => u64::from(self.plan.connections),
            _ => 1,
        };
        self.measured.errors.total() == 0 && self.measured.operations >= least
    }

    /// The results as a table for the terminal.
    pub(crate) fn text(&self) -> String {
        facts::text(self)
    }

    /// The results as one JSON object.
    pub(crate) fn json(&self) -> Value {
        json::value(self)
    }

    /// The results as one HTML page that needs nothing else.
    ///
    /// # Errors
    ///
    /// The plot cannot be drawn.
    pub(crate) fn html(&self) -> anyhow::Result<String> {
        html::of_run(self)
    }

    /// The distribution of what requests took, as `.hgrm` text in microseconds.
    pub(crate) fn hgrm(&self) -> String {
        hgrm::text(self.measured.latency.histogram())
    }

    /// All distributions as an interval log in nanoseconds.
    ///
    /// # Errors
    ///
    /// A histogram cannot be written.
    pub(crate) fn log(&self) -> anyhow::Result<Vec<u8>> {
        let comment = format!("tidegate-bench {}, {}, in nanoseconds", self.workload(), self.target());
        let duration = Duration::try_from_secs_f64(self.measured.seconds).unwrap_or_default();
        log::write(&comment, self.start, duration, &self.distributions())
    }

    /// What requests took and what it took to connect, in nanoseconds.
    fn distributions(&self) -> [(&'static str, &Histogram<u64>); 2] {
        [
            (LATENCY, self.measured.latency.histogram()),
            (CONNECT, self.measured.connect.histogram()),
        ]
    }

    /// The name of the workload, which is that of the subcommand.
    fn workload(&self) -> &'static str {
        workload_name(self.plan.workload)
    }

    /// What was requested.
    fn target(&self) -> String {
        format!("http://{}{}", self.plan.url.address, self.plan.url.path)
    }

    /// The number the run is made for: operations in a second; of `hold`, connections that answered.
    fn value(&self) -> f64 {
        match self.plan.workload {
            Workload::Hold => self.measured.operations as f64,
            _ => self.measured.per_second(),
        }
    }

    /// What [`Run::value`] is counted in.
    fn unit(&self) -> &'static str {
        match self.plan.workload {
            Workload::Cps { .. } => "connections/s",
            Workload::Rps { .. } | Workload::Latency { .. } => "requests/s",
            Workload::Throughput { .. } => "bytes/s",
            Workload::Hold => "connections",
        }
    }

    /// What one operation is; `None` where operations are bytes.
    fn operation(&self) -> Option<&'static str> {
        match self.plan.workload {
            Workload::Cps { .. } | Workload::Hold => Some("connection"),
            Workload::Rps { .. } | Workload::Latency { .. } => Some("request"),
            Workload::Throughput { .. } => None,
        }
    }

    /// Frames for each operation, both ways; `None` if the client does not know, or an operation is a byte.
    fn frames_per_operation(&self) -> Option<f64> {
        let frames = self.measured.frames?;
        let operations = self.measured.operations_with_warm_up;
        (self.operation().is_some() && operations > 0)
            .then(|| (frames.sent + frames.received) as f64 / operations as f64)
    }
}

impl MemoryUse {
    /// What one of them grew by for each of `connections`, in bytes; `None` if there are no connections.
    fn per_connection(&self, part: impl Fn(&Memory) -> u64, connections: u64) -> Option<f64> {
        let growth = part(&self.highest).saturating_sub(part(&self.before));
        (connections > 0).then(|| growth as f64 / connections as f64)
    }
}

/// The name of `workload` on the command line and in the results.
pub(crate) const fn workload_name(workload: Workload) -> &'static str {
    match workload {
        Workload::Cps { .. } => "cps",
        Workload::Rps { .. } => "rps",
        Workload::Latency { .. } => "latency",
        Workload::Throughput { .. } => "throughput",
        Workload::Hold => "hold",
    }
}

const fn close_name(close: Close) -> &'static str {
    match close {
        Close::Client => "client",
        Close::Server => "server",
        Close::Rst => "rst",
    }
}

const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Down => "down",
        Direction::Up => "up",
    }
}

/// Nanoseconds as microseconds.
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

#[cfg(test)]
mod samples;

#[cfg(test)]
mod tests {
    use super::samples::{run, with};
    use super::*;
    use crate::client::Frames;
    use crate::client::errors::Kind;

    #[test]
    fn an_error_or_no_operation_is_no_pass() {
        let mut run = run(Workload::Rps { pipeline: 1 });
        assert!(run.passed());
        run.measured.operations = 0;
        assert!(!run.passed());
        run.measured.operations = 1;
        run.measured.errors.add(Kind::Reset, "reset");
        assert!(!run.passed());
    }

    #[test]
    fn all_connections_that_were_held_must_answer() {
        let mut run = run(Workload::Hold);
        run.measured.operations = 64;
        assert!(run.passed());
        run.measured.operations = 63;
        assert!(!run.passed());
    }

    #[test]
    fn the_value_is_a_rate_but_for_hold() {
        let run = run(Workload::Cps { close: Close::Client });
        assert_eq!((run.value(), run.unit()), (500.0, "connections/s"));
        let run = with(
            run,
            Workload::Throughput {
                direction: Direction::Up,
            },
        );
        assert_eq!((run.value(), run.unit()), (500.0, "bytes/s"));
        let run = with(run, Workload::Hold);
        assert_eq!((run.value(), run.unit()), (1_000.0, "connections"));
    }

    #[test]
    fn frames_are_divided_by_what_they_were_for() {
        let mut run = run(Workload::Cps { close: Close::Client });
        assert_eq!(run.frames_per_operation(), Some(7.5));
        let bytes = with(
            run.clone(),
            Workload::Throughput {
                direction: Direction::Down,
            },
        );
        assert_eq!(bytes.frames_per_operation(), None);
        run.measured.operations_with_warm_up = 0;
        assert_eq!(run.frames_per_operation(), None);
        run.measured.frames = None;
        run.measured.operations_with_warm_up = 1;
        assert_eq!(run.frames_per_operation(), None);
        run.measured.frames = Some(Frames { sent: 1, received: 2 });
        assert_eq!(run.frames_per_operation(), Some(3.0));
    }

    #[test]
    fn memory_is_what_it_grew_by() {
        let memory = samples::memory();
        assert_eq!(memory.per_connection(|memory| memory.resident, 1_000), Some(320.0));
        assert_eq!(memory.per_connection(|memory| memory.slab, 1_000), Some(0.0));
        assert_eq!(memory.per_connection(|memory| memory.resident, 0), None);
    }

    #[test]
    fn the_log_of_a_run_has_its_distributions() {
        let text = String::from_utf8(run(Workload::Hold).log().unwrap()).unwrap();
        let intervals = log::parse(&text).unwrap();
        let tags: Vec<_> = intervals.iter().map(|interval| interval.tag.as_deref()).collect();
        assert_eq!(tags, [Some(LATENCY), Some(CONNECT)]);
        assert!(
            text.contains("#tidegate-bench hold, http://198.18.0.1:80/x, in nanoseconds\n"),
            "{text}"
        );
    }
}
