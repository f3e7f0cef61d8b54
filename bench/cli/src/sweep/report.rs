//! The report of a sweep.

use serde_json::{Map, Value, json};
use tidegate_load::Limiter;
use tidegate_report::columns::SWEEP;
use tidegate_report::{Line, Page, Report, Row, Section};

use super::knee::knee;
use crate::steps::{Step, chart, curves};

/// The explanation, for the page.
const HOW_TO_READ: &[&str] = &[
    "Each point is a step that offers a rate, whether or not the server keeps up, and counts times from when \
     something was due. Both axes are logarithmic. The **knee** is the point of the line of p99 that is farthest below \
     the straight line between its ends: beyond it a little more load costs much more time.",
    "A step in which the machine's hypervisor took a processor away for long enough to show in p99 was made anew, up to \
     four times, and the one with the least of that is here.",
    "Where **limit** is client, the client could not have done more, or not in time: such a point is not a result of \
     the server.",
];

/// A sweep.
pub(super) struct Sweep {
    environment: Map<String, Value>,
    client: &'static str,
    unit: &'static str,
    names: Vec<String>,
    /// The rows of all steps so far, with the index of their server.
    rows: Vec<(usize, Row)>,
}

impl Sweep {
    /// A sweep of the servers with these names.
    pub(super) fn new(
        environment: Map<String, Value>,
        client: &'static str,
        unit: &'static str,
        names: Vec<String>,
    ) -> Self {
        Self {
            environment,
            client,
            unit,
            names,
            rows: Vec::new(),
        }
    }

    /// Adds a step of a server. Returns a line that says how it went.
    pub(super) fn add(&mut self, target: usize, step: &Step) -> String {
        let limit = step.measured.limit(&step.plan);
        let is_client = limit.as_ref().is_some_and(|limit| limit.by == Limiter::Client);
        let row = step
            .row(&self.names[target])
            .with("url", step.plan.url.to_string())
            .with("limited_by_client", is_client);
        let mut line = row.fill(
            "{target} {offered_per_second}/s: {value:0}/s done, p50 {latency_us.p50:us}, p99 {latency_us.p99:us}, \
             {error_count} errors",
        );
        if let Some(limit) = limit.filter(|limit| limit.by != Limiter::Neither) {
            line.push_str("; ");
            line.push_str(&limit.to_string());
        }
        self.rows.push((target, row));
        line
    }

    /// Whether every server completed something.
    pub(super) fn is_complete(&self) -> bool {
        (0..self.names.len()).all(|target| {
            let mut rows = self.rows.iter().filter(|(index, _)| *index == target);
            rows.any(|(_, row)| row.number("operations") > Some(0.0))
        })
    }

    /// The indices of the rows of a server that have latencies, by rate, and the points of p99.
    fn curve(&self, target: usize) -> (Vec<usize>, Vec<(f64, f64)>) {
        let rows = self.rows.iter().enumerate();
        rows.filter(|(_, (index, _))| *index == target)
            .filter_map(|(index, (_, row))| {
                let point = (row.number("offered_per_second")?, row.number("latency_us.p99")?);
                Some((index, point))
            })
            .unzip()
    }

    /// The row of the knee of a server. What the client limits has none: it would be the client's.
    fn knee(&self, target: usize) -> Option<usize> {
        let (rows, points) = self.curve(target);
        let index = rows.get(knee(&points)?).copied()?;
        let is_client = |row: &Row| row.get("limited_by_client") == Some(&Value::Bool(true));
        (!is_client(&self.rows[index].1)).then_some(index)
    }

    /// The report.
    pub(super) fn report(&self) -> Report {
        let knees: Vec<Option<usize>> = (0..self.names.len()).map(|target| self.knee(target)).collect();
        let mut report = Report {
            kind: "sweep",
            environment: self.environment.clone(),
            rows: self
                .rows
                .iter()
                .enumerate()
                .map(|(index, (_, row))| row.clone().with("knee", knees.contains(&Some(index)).then_some("knee")))
                .collect(),
            ..Report::default()
        };
        let knee_rate = |knee: &Option<usize>| knee.and_then(|index| self.rows[index].1.number("offered_per_second"));
        let rates: Vec<Value> = self
            .names
            .iter()
            .zip(&knees)
            .map(|(name, knee)| json!({"target": name, "knee_per_second": knee_rate(knee)}))
            .collect();
        report.more.insert("curves".to_owned(), rates.into());
        report.more.insert("client".to_owned(), self.client.into());
        report.more.insert("unit".to_owned(), self.unit.into());
        let mut by_server: Vec<usize> = (0..self.rows.len()).collect();
        by_server.sort_by_key(|&index| self.rows[index].0);
        report.text = report.table(SWEEP, &by_server);
        for (name, knee) in self.names.iter().zip(&knees) {
            report.text.push_str(&match knee_rate(knee) {
                Some(rate) => format!("\nknee of {name}: {rate} {}", self.unit),
                None => format!("\nknee of {name}: none found in this range"),
            });
        }
        report.page = Page {
            title: format!("tidegate-bench sweep: {}", self.names.join(", ")),
            introduction: format!("Latency by offered rate, in {}, {} client", self.unit, self.client),
            sections: self.sections(&report, &knees, by_server),
        };
        report
    }

    fn sections(&self, report: &Report, knees: &[Option<usize>], by_server: Vec<usize>) -> Vec<Section> {
        let mut sections = Vec::new();
        let limited = self
            .rows
            .iter()
            .filter(|(_, row)| row.get("limited_by_client") == Some(&Value::Bool(true)));
        let limited = limited.count();
        if limited > 0 {
            sections.push(Section::Alert(format!(
                "{limited} of {} steps were limited by the client, and are not results of the servers.",
                self.rows.len()
            )));
        }
        if self.names.len() > 1 {
            let line = |target: usize| Line {
                name: self.names[target].clone(),
                points: self.curve(target).1,
            };
            let at = |index: usize| {
                let row = &self.rows[index].1;
                Some((row.number("offered_per_second")?, row.number("latency_us.p99")?))
            };
            sections.push(Section::Lines(chart(
                "p99 of all".to_owned(),
                (0..self.names.len()).map(line).collect(),
                knees.iter().filter_map(|knee| at((*knee)?)).collect(),
            )));
        }
        for (target, name) in self.names.iter().enumerate() {
            sections.push(curves(name.clone(), report, &self.curve(target).0, knees[target]));
        }
        sections.extend([
            Section::Heading("Steps".to_owned()),
            Section::Table {
                columns: SWEEP,
                rows: by_server,
            },
            Section::HowToRead(HOW_TO_READ),
        ]);
        sections
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_report::testing::{self, assert_report, keys};

    use super::*;
    use crate::steps::tests::step;

    fn sweep(busy: f64) -> Sweep {
        let names = ["tidegate", "nginx"].map(str::to_owned).to_vec();
        let mut sweep = Sweep::new(testing::environment(), "kernel", "requests/s", names);
        for rate in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000] {
            for (target, limit) in [(0, 20_000), (1, 5_000)] {
                let latency = Duration::from_micros(if rate > limit { 80_000 } else { 200 });
                let line = sweep.add(target, &step(rate, rate.min(limit), latency, busy, "p99<1ms"));
                assert!(line.contains(&format!("{rate}/s: ")), "{line}");
            }
        }
        sweep
    }

    #[test]
    fn every_server_has_its_curve_and_its_knee() {
        let sweep = sweep(0.3);
        assert!(sweep.is_complete());
        let report = sweep.report();
        assert_report("sweep", &report);
        assert!(
            report
                .text
                .ends_with("knee of tidegate: 16000 requests/s\nknee of nginx: 4000 requests/s")
        );
        let json = report.json();
        assert_eq!(json["curves"][1]["knee_per_second"], 4_000.0);
        assert_eq!(keys(&json["curves"][0]), ["knee_per_second", "target"]);
        let marked: Vec<&Row> = report.rows.iter().filter(|row| row.get("knee").is_some()).collect();
        assert_eq!(marked.len(), 2);
        let charts = report.page.sections.iter().filter_map(|section| match section {
            Section::Lines(chart) => Some((chart.title.as_str(), chart.lines.len(), chart.marks.len())),
            _ => None,
        });
        let charts: Vec<_> = charts.collect();
        assert_eq!(charts, [("p99 of all", 2, 2), ("tidegate", 4, 1), ("nginx", 4, 1)]);
    }

    #[test]
    fn what_the_client_limits_is_said_to_be_and_has_no_knee() {
        let report = sweep(0.99).report();
        assert_report("sweep-client", &report);
        assert!(matches!(&report.page.sections[0], Section::Alert(text) if text.starts_with("12 of 12")));
        assert!(report.text.contains("knee of nginx: none found"), "{}", report.text);
    }

    #[test]
    fn a_server_that_completes_nothing_leaves_it_incomplete() {
        let mut sweep = Sweep::new(testing::environment(), "kernel", "requests/s", vec!["none".to_owned()]);
        sweep.add(0, &step(10, 0, Duration::ZERO, 0.1, "p99<1ms"));
        assert!(!sweep.is_complete());
        assert!(sweep.report().text.contains("none found"));
    }
}
