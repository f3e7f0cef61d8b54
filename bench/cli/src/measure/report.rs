//! The report of a measurement.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use tidegate_lab::machine::Memory;
use tidegate_load::{Arrival, Close, Direction, Limit, Limiter, Measured, Plan, Starts, Workload, hex};
use tidegate_report::format::three_digits;
use tidegate_report::objective::Finding;
use tidegate_report::{
    CLOSE, CONNECT, FIRST_BYTE, HOW_TO_READ_PERCENTILES, LATENCY, Page, Report, Row, Section, hgrm, interval_log,
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

    /// Returns the figures. Fields that were not measured, or are not of the workload, are null.
    fn row(&self) -> Row {
        let (measured, plan) = (&self.measured, &self.plan);
        let seconds = |time: Duration| time.as_secs_f64();
        let mut row = Row::new()
            .with("workload", self.workload())
            .with("client", self.client)
            .with("target", self.target())
            .with("address", plan.url.address.to_string())
            .with("method", self.method())
            .with("requests_per_connection", plan.requests_per_connection())
            .with("timeout_seconds", self.timeout().map(seconds))
            .with("connections", plan.connections)
            .with("cpu", plan.cpu)
            .with("operations", measured.operations)
            .with("value", self.value())
            .with("unit", self.unit())
            .with("seconds", measured.seconds)
            .with("initial_seconds", seconds(plan.ramp.initial))
            .with("ramp_seconds", seconds(plan.ramp.up))
            .with("warm_up_seconds", seconds(plan.warm_up))
            .with("ramp_down_seconds", seconds(plan.ramp.down))
            .with("cut_short", measured.cut_short)
            .with(
                "open_connections",
                json!({"max": measured.open.max, "at_end": measured.open.at_end}),
            )
            .with("unclean_ends", measured.unclean_ends)
            .with("latency_us", json!(measured.latency.quantiles()))
            .with("connect_us", json!(measured.connect.quantiles()))
            .with("first_byte_us", json!(measured.first_byte.quantiles()))
            .with("close_us", json!(measured.close.quantiles()))
            .with("statuses", json!(measured.statuses.iter().collect::<BTreeMap<_, _>>()))
            .with("first_location", measured.first_location.as_deref())
            .with("announced_ends", measured.announced_ends)
            .with("error_count", measured.errors.total())
            .with("errors", json!(measured.errors.iter().collect::<BTreeMap<_, _>>()))
            .with("first_error", measured.errors.first())
            .with(
                "frames",
                measured
                    .frames
                    .map(|frames| json!({"sent": frames.sent, "received": frames.received})),
            )
            .with("frames_per_operation", self.frames_per_operation())
            .with(
                "body",
                measured
                    .body
                    .map(|body| json!({"length": body.length, "sha256": hex(&body.sha256)})),
            )
            .with("cpu_us_per_operation", self.cpu_json())
            .with("time_wait_seconds", measured.time_wait.map(seconds))
            .with("memory", self.memory.map(|memory| memory.json(measured.operations)));
        for field in ["close", "pipeline", "direction"] {
            row = row.with(field, Value::Null);
        }
        row = with_limit(row, plan, measured).with(
            "conditions",
            json!(self.conditions.findings.iter().map(Finding::json).collect::<Vec<_>>()),
        );
        match plan.workload {
            Workload::Cps { close } | Workload::OpenCps { close, .. } => row.with("close", close_name(close)),
            Workload::Rps { pipeline } => row.with("pipeline", pipeline),
            Workload::Throughput { direction } => row.with("direction", direction_name(direction)),
            Workload::Latency { .. } | Workload::Hold => row,
        }
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
    fn timeout(&self) -> Option<Duration> {
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

    fn cpu_json(&self) -> Value {
        json!({"client": self.client_cpu_us(), "server": self.server_cpu_us()})
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
    fn json(self, connections: u64) -> Value {
        let part = |part: fn(&Memory) -> u64| {
            json!({
                "before_bytes": part(&self.before),
                "highest_bytes": part(&self.highest),
                "bytes_per_connection": self.per_connection(part, connections),
            })
        };
        json!({
            "server_resident": part(|memory| memory.resident),
            "kernel_unreclaimable": part(|memory| memory.kernel),
            "kernel_slab": part(|memory| memory.slab),
        })
    }

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

/// Returns `row` with who was at the limit, and the client's own part, which that is judged by.
pub(crate) fn with_limit(row: Row, plan: &Plan, measured: &Measured) -> Row {
    let limit = measured.limit(plan);
    let generator = &measured.generator;
    let rate = plan.workload.rate();
    row.with("limit", limit.as_ref().map(|limit| limit.by.name()))
        .with("limit_reason", limit.map(|limit| limit.reason))
        .with("client_busy", three_digits(generator.busy))
        .with("client_waited", three_digits(generator.waited))
        .with("client_lost_frames", measured.frames.map(|_| generator.lost_frames))
        .with("offered_per_second", rate)
        .with("arrival", rate.map(|_| arrival_name(plan.arrival)))
        .with("seed", rate.and_then(|_| seed(plan.arrival)))
        .with("starts", generator.starts.as_ref().map(starts_json))
}

fn starts_json(starts: &Starts) -> Value {
    json!({
        "due": starts.due,
        "begun": starts.begun,
        "late": starts.late,
        "held_back": starts.held_back,
        "missed": starts.missed(),
    })
}

pub(super) const fn arrival_name(arrival: Arrival) -> &'static str {
    match arrival {
        Arrival::Constant => "constant",
        Arrival::Poisson { .. } => "poisson",
    }
}

/// Returns the seed of the spaces, where they have one.
pub(super) const fn seed(arrival: Arrival) -> Option<u64> {
    match arrival {
        Arrival::Constant => None,
        Arrival::Poisson { seed } => Some(seed),
    }
}

pub(super) const fn close_name(close: Close) -> &'static str {
    match close {
        Close::Client => "client",
        Close::Server => "server",
        Close::Rst => "rst",
    }
}

pub(super) const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Down => "down",
        Direction::Up => "up",
    }
}

#[cfg(test)]
mod tests {
    use tidegate_load::{Body, Frames, Kind};
    use tidegate_report::Latencies;
    use tidegate_report::testing::{assert_report, keys};

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

    #[test]
    fn the_keys_are_those_that_others_read_whatever_was_measured() {
        for workload in [
            Workload::Cps { close: Close::Rst },
            Workload::Rps { pipeline: 16 },
            Workload::Latency { rate: 1_000 },
            Workload::OpenCps {
                close: Close::Rst,
                rate: 500,
            },
            Workload::Throughput {
                direction: Direction::Up,
            },
            Workload::Hold,
        ] {
            let mut run = run(workload);
            run.measured.generator.starts = workload.rate().map(|_| Starts::default());
            run.conditions = Conditions::of(&["p99>2ms".parse().unwrap()], &run.measured);
            run.memory = Some(samples::memory());
            let report = run.report();
            assert_report(run.workload(), &report);
            let value = report.json();
            assert_eq!(
                keys(&value["rows"][0]),
                [
                    "address",
                    "announced_ends",
                    "arrival",
                    "body",
                    "client",
                    "client_busy",
                    "client_lost_frames",
                    "client_waited",
                    "close",
                    "close_us",
                    "conditions",
                    "connect_us",
                    "connections",
                    "cpu",
                    "cpu_us_per_operation",
                    "cut_short",
                    "direction",
                    "error_count",
                    "errors",
                    "first_byte_us",
                    "first_error",
                    "first_location",
                    "frames",
                    "frames_per_operation",
                    "initial_seconds",
                    "latency_us",
                    "limit",
                    "limit_reason",
                    "memory",
                    "method",
                    "offered_per_second",
                    "open_connections",
                    "operations",
                    "pipeline",
                    "ramp_down_seconds",
                    "ramp_seconds",
                    "requests_per_connection",
                    "seconds",
                    "seed",
                    "starts",
                    "statuses",
                    "target",
                    "time_wait_seconds",
                    "timeout_seconds",
                    "unclean_ends",
                    "unit",
                    "value",
                    "warm_up_seconds",
                    "workload",
                ],
                "{workload:?}"
            );
            for key in keys(&value["rows"][0]) {
                assert_eq!(value[key], value["rows"][0][key], "{key}");
            }
            assert_eq!(
                keys(&value["latency_us"]),
                ["count", "max", "p50", "p90", "p99", "p999"]
            );
        }
    }

    #[test]
    fn the_values_are_those_of_the_run() {
        let mut run = run(Workload::Cps { close: Close::Server });
        run.plan.ramp.initial = Duration::from_secs(5);
        run.plan.ramp.down = Duration::from_millis(1_500);
        run.measured.errors.add(Kind::Reset, "reset by peer");
        run.memory = Some(samples::memory());
        run.server_cpu = Some(Duration::from_millis(3));
        run.measured.body = Some(Body::of(b"abc"));
        let value = run.report().json();
        for (key, expected) in [
            ("workload", json!("cps")),
            ("close", json!("server")),
            ("pipeline", Value::Null),
            ("client", json!("bypass")),
            ("target", json!("http://198.18.0.1:80/x")),
            ("address", json!("198.18.0.1:80")),
            ("method", json!("GET")),
            ("requests_per_connection", json!(1)),
            ("timeout_seconds", json!(10.0)),
            ("statuses", json!({"2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0})),
            ("connections", json!(64)),
            ("operations", json!(1_000)),
            ("value", json!(500.0)),
            ("unit", json!("connections/s")),
            ("seconds", json!(2.0)),
            ("initial_seconds", json!(5.0)),
            ("ramp_seconds", json!(1.0)),
            ("ramp_down_seconds", json!(1.5)),
            ("warm_up_seconds", json!(0.5)),
            ("cut_short", json!(false)),
            ("open_connections", json!({"max": 64, "at_end": 60})),
            ("unclean_ends", json!(0)),
            ("error_count", json!(1)),
            ("errors", json!({"reset": 1})),
            ("first_error", json!("reset by peer")),
            ("frames", json!({"sent": 8_000, "received": 7_000})),
            ("frames_per_operation", json!(7.5)),
            ("cpu_us_per_operation", json!({"client": 500.0, "server": 3.0})),
            ("time_wait_seconds", json!(2.0)),
            (
                "body",
                json!({"length": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}),
            ),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
        assert_eq!(value["latency_us"]["count"], 1_000);
        let p50 = value["latency_us"]["p50"].as_f64().unwrap();
        assert!((p50 - 500.0).abs() < 1.0, "{p50}");
        assert_eq!(value["connect_us"]["count"], 1);
        assert_eq!(value["first_byte_us"]["max"].as_f64().map(f64::round), Some(100.0));
        assert_eq!(value["memory"]["server_resident"]["bytes_per_connection"], 320.0);
        assert_eq!(value["memory"]["kernel_unreclaimable"]["highest_bytes"], 2_640_000);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let mut run = run(Workload::Hold);
        run.measured.latency = Latencies::new();
        run.measured.frames = None;
        run.measured.time_wait = None;
        let value = run.report().json();
        for key in [
            "body",
            "latency_us",
            "frames",
            "frames_per_operation",
            "time_wait_seconds",
            "first_error",
            "close_us",
            "first_location",
            "requests_per_connection",
            "timeout_seconds",
            "memory",
            "seed",
        ] {
            assert_eq!(value[key], Value::Null, "{key}");
        }
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
    fn an_open_loop_says_how_it_kept_its_times() {
        let mut run = run(Workload::OpenCps {
            close: Close::Rst,
            rate: 510,
        });
        run.plan.arrival = Arrival::Poisson { seed: u64::MAX };
        run.measured.generator.starts = Some(Starts {
            due: 1_020,
            begun: 1_010,
            late: 3,
            held_back: 7,
            under_way: 0,
        });
        let value = run.report().json();
        assert_eq!(value["offered_per_second"], 510);
        assert_eq!(
            (&value["workload"], &value["arrival"], &value["seed"]),
            (&json!("cps"), &json!("poisson"), &json!(u64::MAX))
        );
        let starts = json!({"due": 1_020, "begun": 1_010, "late": 3, "held_back": 7, "missed": 10});
        assert_eq!(value["starts"], starts);
        assert_eq!(value["limit"], "server");
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
