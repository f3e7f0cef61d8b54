//! What a run found: rows of several runs each, and what follows from them.

mod html;
mod json;
mod plot;
mod ratios;
#[cfg(test)]
mod samples;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::cpu::{Parts, Usage};
use super::plan::{Cell, Target};
use super::probe::Answer;
use crate::results::files::ReportFormats;
use crate::results::spread::Spread;

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quantiles {
    /// Of 50 in 100.
    pub(super) p50: f64,
    /// Of 99 in 100.
    pub(super) p99: f64,
    /// Of 999 in 1000.
    pub(super) p999: f64,
    /// Of all.
    pub(super) max: f64,
}

/// One measurement.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// What was measured.
    pub(super) cell: Cell,
    /// The number of its round, from 0. Runs with the same one were made next to each other.
    pub(super) round: u32,
    /// Connections, requests or frames per second.
    pub(super) per_s: f64,
    /// How long each took; `None` if there was none, and for frames.
    pub(super) quantiles: Option<Quantiles>,
    /// Processor time for each, in microseconds; `None` if it was too short to see.
    pub(super) usage: Option<Usage>,
    /// Frames for each, both ways, as the client counts them; `None` if it cannot.
    pub(super) frames_per_op: Option<f64>,
    /// Frames per second, both ways, as the server's interface counts them.
    pub(super) interface_frames_per_s: Option<f64>,
    /// Requests per second that were due, where that was fixed.
    pub(super) asked_per_s: Option<u64>,
    /// What went wrong, in all.
    pub(super) errors: u64,
    /// The same by kind.
    pub(super) errors_by_kind: BTreeMap<String, u64>,
    /// The first of them, as a phrase.
    pub(super) first_error: Option<String>,
    /// How long the client's TIME-WAIT lasts, where it has any.
    pub(super) time_wait: Option<Duration>,
}

impl Run {
    /// Frames per second, both ways, as the client counts them.
    pub(super) fn frames_per_s(&self) -> Option<f64> {
        Some(self.frames_per_op? * self.per_s)
    }
}

/// All runs of one cell.
struct Row<'a> {
    cell: Cell,
    runs: Vec<&'a Run>,
}

impl Row<'_> {
    /// What `value` gives for the runs that have it.
    fn spread(&self, value: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| value(run)))
    }

    /// Connections, requests or frames per second.
    fn per_s(&self) -> Option<Spread> {
        self.spread(|run| Some(run.per_s))
    }

    fn quantile(&self, quantile: fn(&Quantiles) -> f64) -> Option<Spread> {
        self.spread(|run| run.quantiles.as_ref().map(quantile))
    }

    /// Processor time for each operation, in microseconds, on both cores.
    fn cpu_us(&self) -> Option<Spread> {
        self.spread(|run| run.usage.map(Usage::total))
    }

    /// The median of each part of it. Their sum is not exactly the median of the sums.
    fn usage(&self) -> Option<Usage> {
        let part = |value: &dyn Fn(Usage) -> f64| Some(self.spread(|run| run.usage.map(value))?.median);
        let core = |of: fn(Usage) -> Parts| {
            Some(Parts {
                user: part(&|usage| of(usage).user)?,
                system: part(&|usage| of(usage).system)?,
                irq: part(&|usage| of(usage).irq)?,
                softirq: part(&|usage| of(usage).softirq)?,
            })
        };
        let process = |index: usize| self.spread(|run| Some(run.usage?.process?[index]));
        Some(Usage {
            client: core(|usage| usage.client)?,
            server: core(|usage| usage.server)?,
            process: match (process(0), process(1)) {
                (Some(user), Some(system)) => Some([user.median, system.median]),
                _ => None,
            },
        })
    }

    fn errors(&self) -> u64 {
        self.runs.iter().map(|run| run.errors).sum()
    }

    fn errors_by_kind(&self) -> BTreeMap<&str, u64> {
        let mut all = BTreeMap::new();
        for (kind, count) in self.runs.iter().flat_map(|run| &run.errors_by_kind) {
            *all.entry(kind.as_str()).or_default() += count;
        }
        all
    }

    fn first_error(&self) -> Option<&str> {
        self.runs.iter().find_map(|run| run.first_error.as_deref())
    }
}

/// A whole comparison.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    environment: Map<String, Value>,
    runs: Vec<Run>,
    answers: BTreeMap<Target, Answer>,
}

impl Report {
    /// A report without runs. `environment` says what they depend on.
    pub(super) fn new(environment: Map<String, Value>) -> Self {
        Self {
            environment,
            ..Self::default()
        }
    }

    /// Adds a run.
    pub(super) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// Notes what a response of `target` consists of.
    pub(super) fn set_answer(&mut self, target: Target, answer: Answer) {
        self.answers.insert(target, answer);
    }

    /// Adds a line to the environment.
    pub(super) fn add_environment(&mut self, name: &str, value: impl Into<Value>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// Whether `cell` was measured at least once.
    pub(super) fn has(&self, cell: Cell) -> bool {
        self.runs.iter().any(|run| run.cell == cell)
    }

    /// What `cell` reached per second, in the middle of its runs.
    pub(super) fn median(&self, cell: Cell) -> Option<f64> {
        Some(self.row(cell)?.per_s()?.median)
    }

    /// One row for each cell that was measured, by workload, client and target.
    fn rows(&self) -> Vec<Row<'_>> {
        let mut cells: BTreeMap<Cell, Vec<&Run>> = BTreeMap::new();
        for run in &self.runs {
            cells.entry(run.cell).or_default().push(run);
        }
        cells.into_iter().map(|(cell, runs)| Row { cell, runs }).collect()
    }

    fn row(&self, cell: Cell) -> Option<Row<'_>> {
        self.rows().into_iter().find(|row| row.cell == cell)
    }
}

impl ReportFormats for Report {
    fn text(&self) -> String {
        table::text(self)
    }

    fn json(&self) -> Value {
        json::value(self)
    }

    fn html(&self) -> anyhow::Result<String> {
        html::page(self)
    }
}

/// Microseconds as people write them: `87.2us`, `4.2ms`, `1.03s`; `-` if there are none.
fn micros(micros: Option<f64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(micros) if micros < 999.95 => format!("{micros:.1}us"),
        Some(micros) if micros < 999_950.0 => format!("{:.1}ms", micros / 1e3),
        Some(micros) => format!("{:.2}s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{ClientKind, Load};
    use super::samples::{cell, report, run};
    use super::*;

    #[test]
    fn runs_of_one_cell_make_one_row() {
        let report = report();
        let rows = report.rows();
        // Three targets under three loads, and two shapes of the reflect.
        assert_eq!(rows.len(), 3 * 3 + 2);
        assert!(rows.iter().all(|row| row.runs.len() == 3));
        let names: Vec<_> = rows
            .iter()
            .map(|row| (row.cell.workload_name(), row.cell.target_name()))
            .collect();
        assert_eq!(names[0], ("cps", "tidegate"));
        assert_eq!(names[5], ("rps", "serve-kernel"));
        assert_eq!(names[9], ("reflect", "af-xdp-reflect"));
        assert_eq!(report.median(cell(Load::Rps, Target::Nginx)), Some(170_000.0));
        assert!(report.has(cell(Load::Cps, Target::Nginx)));
        let kernel = Cell::Server {
            load: Load::Cps,
            client: ClientKind::Kernel,
            target: Target::Nginx,
        };
        assert!(!report.has(kernel));
        assert_eq!(report.median(kernel), None);
    }

    #[test]
    fn errors_add_up_by_kind() {
        let mut report = Report::default();
        for (kind, count) in [("reset", 2), ("refused", 1), ("reset", 3)] {
            let mut run = run(cell(Load::Cps, Target::Nginx), 0, 1.0);
            run.errors = count;
            run.errors_by_kind.insert(kind.to_owned(), count);
            run.first_error = Some(format!("a {kind}"));
            report.add(run);
        }
        let row = &report.rows()[0];
        assert_eq!(row.errors(), 6);
        assert_eq!(row.errors_by_kind(), BTreeMap::from([("refused", 1), ("reset", 5)]));
        assert_eq!(row.first_error(), Some("a reset"));
    }

    #[test]
    fn the_parts_of_processor_time_are_medians_too() {
        let mut report = Report::default();
        for (round, user) in [(0, 1.0), (1, 5.0), (2, 2.0)] {
            let mut run = run(cell(Load::Rps, Target::Tidegate), round, 1.0);
            let usage = run.usage.as_mut().unwrap();
            usage.client.user = user;
            usage.process = Some([user, 0.5]);
            report.add(run);
        }
        let usage = report.rows()[0].usage().unwrap();
        assert_eq!(usage.client.user, 2.0);
        assert_eq!(usage.process, Some([2.0, 0.5]));
    }

    #[test]
    fn microseconds_are_written_short() {
        let written: Vec<String> = [None, Some(87.23), Some(4_210.0), Some(1_030_000.0)]
            .into_iter()
            .map(micros)
            .collect();
        assert_eq!(written, ["-", "87.2us", "4.2ms", "1.03s"]);
    }
}
