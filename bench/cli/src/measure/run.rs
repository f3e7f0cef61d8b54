//! A measurement that is over: its main figures, whether it passed, and its report.

use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use serde_json::{Map, Value};
use tidegate_lab::machine::Memory;
use tidegate_load::{Direction, Limit, Limiter, Measured, Plan, Workload};
use tidegate_report::{
    CLOSE, CONNECT, FIRST_BYTE, HOW_TO_READ_PERCENTILES, LATENCY, Page, Report, Section, hgrm, interval_log,
    percentiles,
};

use super::conditions::Conditions;
use super::options::Profile;
use super::rfc9411::{self, Judgement, Verdict};
use super::{series, summary};

/// A measurement that is over.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The facts the results depend on.
    pub(super) environment: Map<String, Value>,
    /// The name of the client.
    pub(super) client: &'static str,
    /// The plan it followed.
    pub(crate) plan: Plan,
    /// The profile it was measured by.
    pub(super) profile: Option<Profile>,
    /// The beginning of the part that counts.
    pub(super) start: SystemTime,
    /// Its results.
    pub(crate) measured: Measured,
    /// The conditions by which it fails.
    pub(super) conditions: Conditions,
    /// The memory of the server, if it was asked for.
    pub(super) memory: Option<MemoryUse>,
    /// The processor time of the server while measuring, if it was asked for.
    pub(super) server_cpu: Option<Duration>,
}

/// The memory of a server process and of its kernel around a measurement, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// Before the first connection.
    pub(super) before: Memory,
    /// The maximum of each until the end.
    pub(super) highest: Memory,
}

impl Run {
    /// Returns whether there were results of the whole time, and no errors or other reasons to fail; of a profile,
    /// whether its criteria are met, too.
    pub(super) fn passed(&self) -> bool {
        if let Some(judgement) = self.judgement() {
            return judgement.verdict() == Verdict::Met && self.conditions.none_holds();
        }
        let least = match self.plan.workload {
            Workload::Hold => u64::from(self.plan.connections),
            _ => 1,
        };
        !self.measured.cut_short
            && self.conditions.passed(self.measured.errors.total())
            && self.measured.operations >= least
    }

    /// Returns the judgement by the profile.
    pub(super) fn judgement(&self) -> Option<Judgement> {
        let Profile::Rfc9411 = self.profile?;
        Some(rfc9411::judge(&self.plan, &self.measured))
    }

    /// Returns the report. Its one row has its fields at the top of the JSON, too.
    pub(super) fn report(&self) -> Report {
        let facts = summary::facts(self);
        let row = self.row();
        let introduction = facts.iter().find(|(name, _)| *name == "workload");
        let limit = self.limit().filter(|limit| limit.by == Limiter::Client);
        let mut sections = Vec::new();
        sections.extend(limit.as_ref().map(|limit| Section::Alert(limit.to_string())));
        sections.push(Section::Tiles(self.tiles()));
        sections.extend(percentiles(self.distributions()));
        let charts = series::charts(self);
        let has_charts = !charts.is_empty();
        sections.extend(charts);
        let mut more = row.fields().clone();
        more.insert("series".to_owned(), series::json(&self.measured.series));
        if let Some(judgement) = self.judgement() {
            let lines = judgement.lines().map(|(name, text)| (name.replace('_', " "), text));
            sections.extend([
                Section::Heading("RFC 9411".to_owned()),
                Section::Text(format!("**{}**: {}", judgement.verdict().name(), judgement.summary())),
                Section::Facts(lines.collect()),
            ]);
            more.insert("profile".to_owned(), judgement.json());
        }
        sections.extend([
            Section::Heading(if limit.is_some() { "Figures" } else { "Results" }.to_owned()),
            Section::Facts(
                facts
                    .iter()
                    .map(|(name, text)| ((*name).to_owned(), text.clone()))
                    .collect(),
            ),
            Section::HowToRead(HOW_TO_READ_PERCENTILES),
        ]);
        if has_charts {
            sections.extend(
                series::HOW_TO_READ_COURSE
                    .iter()
                    .map(|&text| Section::Text(text.to_owned())),
            );
        }
        Report {
            kind: self.workload(),
            environment: self.environment.clone(),
            more,
            rows: vec![row],
            page: Page {
                title: format!("tidegate-bench {}: {}", self.workload(), self.target()),
                introduction: introduction.map(|(_, text)| text.clone()).unwrap_or_default(),
                sections,
            },
            text: summary::text(&facts),
        }
    }

    /// Returns the main numbers, each with a phrase that says what it is.
    fn tiles(&self) -> Vec<(String, String)> {
        let mut tiles = vec![match self.plan.workload {
            Workload::Throughput { .. } => (format!("{:.3}", self.value() * 8.0 / 1e9), "Gbit/s".to_owned()),
            _ => (format!("{:.0}", self.value()), self.unit().to_owned()),
        }];
        if let Some(quantiles) = self.measured.latency.quantiles() {
            tiles.push((format!("{:.1} us", quantiles.p50), "p50 latency".to_owned()));
            tiles.push((format!("{:.1} us", quantiles.p99), "p99 latency".to_owned()));
        }
        tiles.push((self.measured.errors.total().to_string(), "errors".to_owned()));
        tiles
    }

    /// Returns who was at the limit.
    pub(super) fn limit(&self) -> Option<Limit> {
        self.measured.limit(&self.plan)
    }

    /// Returns the latencies of requests as `.hgrm` text in microseconds.
    pub(super) fn hgrm(&self) -> String {
        hgrm::text(self.measured.latency.histogram())
    }

    /// Returns all distributions as an interval log in nanoseconds.
    ///
    /// # Errors
    ///
    /// A histogram cannot be written.
    pub(super) fn log(&self) -> anyhow::Result<Vec<u8>> {
        let comment = format!("tidegate-bench {}, {}, in nanoseconds", self.workload(), self.target());
        let duration = Duration::try_from_secs_f64(self.measured.seconds).unwrap_or_default();
        interval_log::write(&comment, self.start, duration, &self.distributions())
    }

    /// Returns the latencies of requests, and what they consist of, in nanoseconds.
    fn distributions(&self) -> [(&'static str, &Histogram<u64>); 4] {
        [
            (LATENCY, self.measured.latency.histogram()),
            (CONNECT, self.measured.connect.histogram()),
            (FIRST_BYTE, self.measured.first_byte.histogram()),
            (CLOSE, self.measured.close.histogram()),
        ]
    }

    /// Returns the method of the requests; `None` where none are sent.
    pub(super) fn method(&self) -> Option<&str> {
        let is_upload = self.plan.workload
            == Workload::Throughput {
                direction: Direction::Up,
            };
        (!is_upload).then(|| self.plan.http.request.method())
    }

    /// Returns the time a response may take; `None` where it is not an option.
    pub(super) fn timeout(&self) -> Option<Duration> {
        (self.method().is_some() && self.plan.workload != Workload::Hold).then_some(self.plan.http.timeout)
    }

    /// Returns the name of the workload, which is that of the subcommand.
    pub(super) fn workload(&self) -> &'static str {
        workload_name(self.plan.workload)
    }

    /// Returns the URL that was requested.
    pub(super) fn target(&self) -> String {
        self.plan.url.to_string()
    }

    /// Returns the main figure: operations in a second; of `hold`, connections that answered.
    pub(super) fn value(&self) -> f64 {
        match self.plan.workload {
            Workload::Hold => self.measured.operations as f64,
            _ => self.measured.per_second(),
        }
    }

    /// Returns the unit of [`Run::value`].
    pub(super) fn unit(&self) -> &'static str {
        match self.plan.workload {
            Workload::Cps { .. } | Workload::OpenCps { .. } => "connections/s",
            Workload::Rps { .. } | Workload::Latency { .. } => "requests/s",
            Workload::Throughput { .. } => "bytes/s",
            Workload::Hold => "connections",
        }
    }

    /// Returns the name of an operation; `None` where operations are bytes.
    pub(super) fn operation(&self) -> Option<&'static str> {
        match self.plan.workload {
            Workload::Cps { .. } | Workload::OpenCps { .. } | Workload::Hold => Some("connection"),
            Workload::Rps { .. } | Workload::Latency { .. } => Some("request"),
            Workload::Throughput { .. } => None,
        }
    }

    /// Returns the processor time of the client's threads for each operation, in microseconds.
    pub(super) fn client_cpu_us(&self) -> Option<f64> {
        self.per_operation(self.measured.window?.client_cpu)
    }

    /// Returns the processor time of the server for each operation, in microseconds.
    pub(super) fn server_cpu_us(&self) -> Option<f64> {
        self.per_operation(self.server_cpu?)
    }

    /// Returns the part of `time` for each operation, in microseconds.
    fn per_operation(&self, time: Duration) -> Option<f64> {
        let operations = self.measured.operations;
        (operations > 0).then(|| time.as_secs_f64() * 1e6 / operations as f64)
    }

    /// Returns the frames for each operation, both ways; `None` if the client does not know, or an operation is a byte.
    pub(super) fn frames_per_operation(&self) -> Option<f64> {
        let frames = self.measured.frames?;
        let operations = self.measured.operations_with_warm_up;
        (self.operation().is_some() && operations > 0)
            .then(|| (frames.sent + frames.received) as f64 / operations as f64)
    }
}

impl MemoryUse {
    /// Returns the growth of a part for each of `connections`, in bytes; `None` if there are no connections.
    pub(super) fn per_connection(&self, part: impl Fn(&Memory) -> u64, connections: u64) -> Option<f64> {
        let growth = part(&self.highest).saturating_sub(part(&self.before));
        (connections > 0).then(|| growth as f64 / connections as f64)
    }
}

/// Returns the name of `workload` on the command line and in the results.
pub(super) const fn workload_name(workload: Workload) -> &'static str {
    match workload {
        Workload::Cps { .. } | Workload::OpenCps { .. } => "cps",
        Workload::Rps { .. } => "rps",
        Workload::Latency { .. } => "latency",
        Workload::Throughput { .. } => "throughput",
        Workload::Hold => "hold",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_load::{Close, Frames, Kind};
    use tidegate_report::Latencies;
    use tidegate_report::testing::assert_report;

    use super::super::samples::{self, run, with};

    use super::*;

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
        let intervals = interval_log::parse(&text).unwrap();
        let tags: Vec<_> = intervals.iter().map(|interval| interval.tag.as_deref()).collect();
        // There is none of those that have no values.
        assert_eq!(tags, [LATENCY, CONNECT, FIRST_BYTE].map(Some));
        assert!(
            text.contains("#tidegate-bench hold, http://198.18.0.1:80/x, in nanoseconds\n"),
            "{text}"
        );
    }

    fn alerts(run: &Run) -> Vec<String> {
        let sections = run.report().page.sections;
        let alerts = sections.into_iter().filter_map(|section| match section {
            Section::Alert(text) => Some(text),
            _ => None,
        });
        alerts.collect()
    }

    #[test]
    fn figures_of_a_client_at_its_limit_are_no_results() {
        let mut run = run(Workload::Rps { pipeline: 1 });
        let value = run.report().json();
        assert_eq!(
            (&value["limit"], &value["client_busy"]),
            (&json!("server"), &json!(0.25))
        );
        assert!(alerts(&run).is_empty());
        assert!(run.report().html().contains("\"Results\""));
        run.measured.generator.busy = 0.99;
        let value = run.report().json();
        assert_eq!(value["limit"], "client");
        assert_eq!(
            value["limit_reason"],
            "its thread was busy 99 % of the time, and waited 5 % of it for a processor that others used"
        );
        assert!(
            alerts(&run)[0].ends_with("not a result of the server"),
            "{:?}",
            alerts(&run)
        );
        assert!(!run.report().html().contains("\"Results\""));
    }

    #[test]
    fn a_run_that_was_cut_short_is_no_pass_and_says_so() {
        let mut run = run(Workload::Rps { pipeline: 1 });
        run.measured.cut_short = true;
        assert!(!run.passed());
        let report = run.report();
        assert_eq!(report.json()["cut_short"], true);
        assert!(
            report
                .text
                .contains("measured   2.000 s, cut short: 2 s were asked for\n"),
            "{}",
            report.text
        );
    }

    #[test]
    fn a_profile_is_judged_everywhere() {
        let mut run = run(Workload::Rps { pipeline: 1 });
        run.profile = Some(Profile::Rfc9411);
        assert!(!run.passed(), "it is too short");
        let report = run.report();
        assert_report("rfc9411", &report);
        let json = report.json();
        assert_eq!(json["profile"]["verdict"], "not met");
        assert_eq!(json["profile"]["criteria"][0]["criterion"], "failed_transactions");
        assert_eq!(json["profile"]["criteria"][0]["verdict"], "not shown");
        for text in [
            "RFC 9411",
            "section 7.3",
            "not the RFC's phases",
            "each second deviates",
        ] {
            assert!(
                report.text.contains(text) && report.html().contains(text),
                "{text}: {}",
                report.text
            );
        }
        // Errors are judged by the profile.
        run.measured.errors.add(Kind::Reset, "reset");
        assert_eq!(run.report().json()["profile"]["criteria"][0]["verdict"], "not met");
    }

    /// The names of the lines of the chart.
    fn lines(run: &Run) -> Vec<String> {
        let sections = run.report().page.sections;
        let charts = sections.into_iter().filter_map(|section| match section {
            Section::Lines(chart) => Some(chart.lines),
            _ => None,
        });
        charts.flatten().map(|line| line.name).collect()
    }

    #[test]
    fn the_page_has_the_numbers_a_chart_and_the_facts() {
        let mut run = run(Workload::Rps { pipeline: 1 });
        run.measured.errors.add(Kind::Reset, "reset <by> peer");
        let what: Vec<(String, String)> = run.tiles();
        let what: Vec<(&str, &str)> = what.iter().map(|(number, what)| (&number[..], &what[..])).collect();
        assert_eq!((what[0], what[3]), (("500", "requests/s"), ("1", "errors")));
        assert_eq!((what[1].1, what[2].1), ("p50 latency", "p99 latency"));
        assert_eq!(lines(&run), [LATENCY, CONNECT, FIRST_BYTE]);
        let page = run.report().html();
        for text in [
            "http://198.18.0.1:80/x",
            r"reset \u003cby> peer",
            "one request at a time on each connection",
        ] {
            assert!(page.contains(text), "{text}");
        }
    }

    #[test]
    fn what_has_no_values_is_not_drawn() {
        let mut run = run(Workload::Throughput {
            direction: Direction::Up,
        });
        run.measured.connect = Latencies::new();
        run.measured.first_byte = Latencies::new();
        assert_eq!(lines(&run), [LATENCY]);
        run.measured.latency = Latencies::new();
        assert!(lines(&run).is_empty());
        let what: Vec<String> = run.tiles().into_iter().map(|(_, what)| what).collect();
        assert_eq!(what, ["Gbit/s", "errors"]);
    }
}
