//! The results of a comparison: rows of several runs each, and their ratios.

mod page;
mod ratios;
mod row;
#[cfg(test)]
mod samples;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tidegate_report::format::three_digits;
use tidegate_report::{Quantiles, Report, Spread};

use self::ratios::Ratio;
use super::cpu::{Parts, Usage};
use super::plan::{Case, ClientKind, Target};
use crate::probe::Answer;

/// One measurement.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The case that was measured.
    pub(super) case: Case,
    /// The number of its round, from 0. Runs with the same one were made next to each other.
    pub(super) round: u32,
    /// Connections, requests or frames per second.
    pub(super) per_s: f64,
    /// The time each took; `None` if there was none, and for frames.
    pub(super) quantiles: Option<Quantiles>,
    /// Processor time for each, in microseconds; `None` if it was too short to see.
    pub(super) usage: Option<Usage>,
    /// Frames for each, both ways, as the client counts them; `None` if it cannot.
    pub(super) frames_per_op: Option<f64>,
    /// Frames per second, both ways, as the server's interface counts them.
    pub(super) interface_frames_per_s: Option<f64>,
    /// Requests per second that were due, where that was fixed.
    pub(super) asked_per_s: Option<u64>,
    /// The most time that a hypervisor has taken from one of this machine's processors meanwhile.
    pub(super) steal: Duration,
    /// The number of errors.
    pub(super) errors: u64,
    /// The number of errors of each kind.
    pub(super) errors_by_kind: BTreeMap<String, u64>,
    /// The first of them, as a phrase.
    pub(super) first_error: Option<String>,
    /// The duration of the client's TIME-WAIT, where it has any.
    pub(super) time_wait: Option<Duration>,
}

impl Run {
    /// Returns frames per second, both ways, as the client counts them.
    pub(super) fn frames_per_s(&self) -> Option<f64> {
        Some(self.frames_per_op? * self.per_s)
    }
}

/// All runs of one case.
struct CellRuns<'a> {
    case: Case,
    runs: Vec<&'a Run>,
}

impl CellRuns<'_> {
    /// Returns the spread of `value` over the runs that have it.
    fn spread(&self, value: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| value(run)))
    }

    /// Returns the value of each run, with three decimals; null where it has none.
    fn values(&self, value: impl Fn(&Run) -> Option<f64>) -> Value {
        self.runs
            .iter()
            .map(|run| value(run).map(three_digits))
            .collect::<Vec<_>>()
            .into()
    }

    /// Returns connections, requests or frames per second.
    fn per_s(&self) -> Option<Spread> {
        self.spread(|run| Some(run.per_s))
    }

    fn quantile(&self, quantile: fn(&Quantiles) -> f64) -> Option<Spread> {
        self.spread(|run| run.quantiles.as_ref().map(quantile))
    }

    /// Returns the processor time of an operation, in microseconds, on both cores.
    fn cpu_us(&self) -> Option<Spread> {
        self.spread(|run| run.usage.map(Usage::total))
    }

    /// Returns the median of each part of it. Their sum is not exactly the median of the sums.
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

/// The results of a whole comparison.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    environment: Map<String, Value>,
    runs: Vec<Run>,
    answers: BTreeMap<Target, Answer>,
}

impl Results {
    /// Returns results without runs. `environment` says what they depend on.
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

    /// Sets the parts of a response of `target`.
    pub(super) fn set_answer(&mut self, target: Target, answer: Answer) {
        self.answers.insert(target, answer);
    }

    /// Adds a line to the environment.
    pub(super) fn add_environment(&mut self, name: &str, value: impl Into<Value>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// Returns whether `case` was measured at least once.
    pub(super) fn has(&self, case: Case) -> bool {
        self.runs.iter().any(|run| run.case == case)
    }

    /// Returns the median of what `case` reached per second.
    pub(super) fn median(&self, case: Case) -> Option<f64> {
        Some(self.row(case)?.per_s()?.median)
    }

    /// Returns one row for each case that was measured, by workload, client and target.
    fn rows(&self) -> Vec<CellRuns<'_>> {
        let mut cases: BTreeMap<Case, Vec<&Run>> = BTreeMap::new();
        for run in &self.runs {
            cases.entry(run.case).or_default().push(run);
        }
        cases.into_iter().map(|(case, runs)| CellRuns { case, runs }).collect()
    }

    fn row(&self, case: Case) -> Option<CellRuns<'_>> {
        self.rows().into_iter().find(|row| row.case == case)
    }
}

impl Results {
    /// Returns the report.
    pub(super) fn report(&self) -> Report {
        let rows = self.rows();
        let mut report = Report {
            kind: "compare",
            environment: self.environment.clone(),
            rows: rows.iter().map(|row| row::row(self, row)).collect(),
            more: self.ratios(),
            ..Report::default()
        };
        report.text = self.text(&report);
        report.page = page::page(self, &report);
        report
    }

    /// Returns the fields of the ratios. Those that were not measured are null.
    fn ratios(&self) -> Map<String, Value> {
        let client = ratios::main_client(self);
        let ratios = ratios::all(self, client);
        let frames = [ratios::cps_frames(self, client)];
        let mut fields = Map::new();
        let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        set("ratios", medians(&ratios).into());
        set("ratios_spread", ends(&ratios).into());
        set("ratios_client", client.name().into());
        let mut more = medians(&frames);
        more.extend(ends(&frames));
        set("more_ratios", more.into());
        // With both clients measured, those of the other one.
        if client == ClientKind::Bypass && ratios::clients(self).contains(&ClientKind::Kernel) {
            set(
                "kernel_client_ratios",
                medians(&ratios::all(self, ClientKind::Kernel)).into(),
            );
        }
        fields
    }

    /// Returns one table, then the ratios, then the first error of each row that has any.
    fn text(&self, report: &Report) -> String {
        let all: Vec<usize> = (0..report.rows.len()).collect();
        let mut text = report.table(row::COLUMNS, &all);
        for client in ratios::clients(self) {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "\nRatios, {} client: median (lowest..highest) of the runs",
                client.name()
            );
            for Ratio { meaning, spread, .. } in ratios::shown(self, client) {
                let _ = writeln!(text, "  {meaning}: {}", ratio(spread));
            }
        }
        for (title, error) in first_errors(self) {
            let _ = writeln!(text, "\n{title}: the first error: {error}");
        }
        text
    }
}

fn medians(ratios: &[Ratio]) -> Map<String, Value> {
    let median = |ratio: &Ratio| json!(ratio.spread.map(|spread| three_digits(spread.median)));
    ratios
        .iter()
        .map(|ratio| (ratio.name.to_owned(), median(ratio)))
        .collect()
}

fn ends(ratios: &[Ratio]) -> Map<String, Value> {
    let mut ends = Map::new();
    for Ratio { name, spread, .. } in ratios {
        let end = |of: fn(Spread) -> f64| json!(spread.map(of).map(three_digits));
        ends.insert(format!("{name}_min"), end(|spread| spread.min));
        ends.insert(format!("{name}_max"), end(|spread| spread.max));
    }
    ends
}

/// Returns the rows that have errors, by title, and the first error of each.
fn first_errors(results: &Results) -> impl Iterator<Item = (String, &str)> {
    let rows = results.rows().into_iter();
    rows.filter_map(|row| {
        let error = row.runs.iter().find_map(|run| run.first_error.as_deref())?;
        Some((row.case.title(), error))
    })
}

/// Returns a ratio as people write it: `3.10 (2.95..3.22)`; `-` if there is none.
fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |Spread { median, min, max }| format!("{median:.2} ({min:.2}..{max:.2})"),
    )
}

#[cfg(test)]
mod tests {
    use tidegate_report::testing::{assert_report, keys};

    use super::super::plan::Load;
    use super::samples::{case, report, run};
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
            .map(|row| (row.case.workload_name(), row.case.target_name()))
            .collect();
        assert_eq!(names[0], ("cps", "tidegate"));
        assert_eq!(names[5], ("rps", "serve-kernel"));
        assert_eq!(names[9], ("reflect", "af-xdp-reflect"));
        assert_eq!(report.median(case(Load::Rps, Target::Nginx)), Some(170_000.0));
        assert!(report.has(case(Load::Cps, Target::Nginx)));
        let kernel = Case::Server {
            load: Load::Cps,
            client: ClientKind::Kernel,
            target: Target::Nginx,
        };
        assert!(!report.has(kernel));
        assert_eq!(report.median(kernel), None);
    }

    #[test]
    fn errors_add_up_by_kind() {
        let mut report = Results::default();
        for (kind, count) in [("reset", 2), ("refused", 1), ("reset", 3)] {
            let mut run = run(case(Load::Cps, Target::Nginx), 0, 1.0);
            run.errors = count;
            run.errors_by_kind.insert(kind.to_owned(), count);
            run.first_error = Some(format!("a {kind}"));
            report.add(run);
        }
        let row = &report.rows()[0];
        assert_eq!(row.errors(), 6);
        assert_eq!(row.errors_by_kind(), BTreeMap::from([("refused", 1), ("reset", 5)]));
        assert_eq!(first_errors(&report).next().unwrap().1, "a reset");
    }

    #[test]
    fn the_parts_of_processor_time_are_medians_too() {
        let mut report = Results::default();
        for (round, user) in [(0, 1.0), (1, 5.0), (2, 2.0)] {
            let mut run = run(case(Load::Rps, Target::Tidegate), round, 1.0);
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
    fn a_row_shows_what_was_measured() {
        let text = report().report().text;
        let row = text
            .lines()
            .find(|line| line.starts_with("rps") && line.contains("tidegate"))
            .unwrap();
        for part in [
            "bypass",
            "510k",
            "459k..612k",
            "50us",
            "120us",
            "400us",
            "8.00",
            "4.00",
            "1.02M",
        ] {
            assert!(row.contains(part), "{part}: {row}");
        }
        assert!(row.ends_with(" 0"), "{row}");
    }

    #[test]
    fn ratios_come_with_their_spread() {
        let text = report().report().text;
        assert!(
            text.contains("requests per second, tidegate to nginx: 3.00 (3.00..3.00)\n"),
            "{text}"
        );
        assert!(text.contains("Ratios, bypass client"), "{text}");
        assert!(!text.contains("Ratios, kernel client"), "{text}");
        let spread = Spread {
            median: 3.1,
            min: 2.954,
            max: 3.218,
        };
        assert_eq!(ratio(Some(spread)), "3.10 (2.95..3.22)");
        assert_eq!(ratio(None), "-");
    }

    #[test]
    fn errors_are_told() {
        let mut results = report();
        results.runs[0].errors = 7;
        results.runs[0].first_error = Some("connection reset".to_owned());
        let text = results.report().text;
        assert!(
            text.contains("tidegate cps (bypass): the first error: connection reset"),
            "{text}"
        );
    }

    #[test]
    fn the_keys_are_those_that_others_read() {
        let value = report().report().json();
        for key in ["schema_version", "kind", "environment", "rows", "ratios"] {
            assert!(value.get(key).is_some(), "{key}");
        }
        assert_eq!(
            keys(&value["ratios"]),
            [
                "cps_vs_kernel",
                "cps_vs_nginx",
                "frames_vs_reflect",
                "p99_vs_kernel",
                "rps_vs_kernel",
                "rps_vs_nginx",
            ]
        );
        assert_eq!(keys(&value["ratios_spread"]).len(), 12);
        for row in value["rows"].as_array().unwrap() {
            for key in [
                "target",
                "client",
                "workload",
                "value",
                "unit",
                "p50_us",
                "p99_us",
                "cpu_us_per_op",
                "errors",
            ] {
                assert!(row.get(key).is_some(), "{key}");
            }
        }
    }

    #[test]
    fn the_values_are_those_of_the_rows() {
        let value = report().report().json();
        let row = &value["rows"][3];
        assert_eq!((&row["target"], &row["workload"]), (&json!("tidegate"), &json!("rps")));
        assert_eq!((&row["client"], &row["unit"]), (&json!("bypass"), &json!("requests/s")));
        assert_eq!(row["value"], 510_000.0);
        assert_eq!(row["values"], json!([459_000.0, 510_000.0, 612_000.0]));
        assert_eq!((&row["p50_us"], &row["p99_us"]), (&json!(50.0), &json!(120.0)));
        assert_eq!(row["cpu_us_per_op"], 8.0);
        assert_eq!(row["cpu_us_per_op_by_core"]["server"]["softirq"], 0.75);
        assert_eq!(row["frames_per_second"], 1_020_000.0);
        assert_eq!((&row["errors"], &row["runs"]), (&json!(0), &json!(3)));
        assert_eq!(row["response_head_bytes"], 180);
        assert_eq!(row["time_wait_s"], 2.0);
        assert_eq!(value["rows"][6]["asked_per_s"], 102_000);
        assert_eq!(value["ratios"]["rps_vs_nginx"], 3.0);
        assert_eq!(value["ratios"]["frames_vs_reflect"], 0.85);
        assert_eq!(value["ratios_spread"]["p99_vs_kernel_max"], 0.5);
        assert_eq!(value["more_ratios"]["cps_frames_vs_reflect"], 0.16);
        assert_eq!(value["more_ratios"]["cps_frames_vs_reflect_min"], 0.16);
        assert_eq!(value["ratios_client"], "bypass");
        assert_eq!(value.get("kernel_client_ratios"), None);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let value = report().report().json();
        let reflect = &value["rows"][9];
        assert_eq!(reflect["target"], "af-xdp-reflect");
        for key in [
            "p50_us",
            "p99_us",
            "response_head_bytes",
            "cpu_us_per_op_of_server_process",
        ] {
            assert_eq!(reflect[key], Value::Null, "{key}");
        }
        let nothing = Results::default().report().json();
        assert_eq!(nothing["ratios"]["cps_vs_nginx"], Value::Null);
        assert_eq!(nothing["rows"], json!([]));
    }

    #[test]
    fn the_other_clients_ratios_have_a_place_of_their_own() {
        let mut results = report();
        for (target, per_s) in [(Target::Tidegate, 90.0), (Target::Nginx, 60.0)] {
            let case = Case::Server {
                load: Load::Cps,
                client: ClientKind::Kernel,
                target,
            };
            results.add(run(case, 0, per_s));
        }
        let report = results.report();
        let value = report.json();
        assert_eq!(value["kernel_client_ratios"]["cps_vs_nginx"], 1.5);
        assert_eq!(value["ratios"]["cps_vs_nginx"], 4.0);
        assert_report("compare-both", &report);
    }
}
