//! The figures of a measurement, as fields for JSON and tables.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_lab::machine::Memory;
use tidegate_load::{Arrival, Close, Direction, Measured, Plan, Starts, Workload, hex};
use tidegate_report::Row;
use tidegate_report::format::three_digits;
use tidegate_report::objective::Finding;

use super::run::{MemoryUse, Run};

impl Run {
    /// Returns the figures. Fields that were not measured, or are not of the workload, are null.
    pub(super) fn row(&self) -> Row {
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

    fn cpu_json(&self) -> Value {
        json!({"client": self.client_cpu_us(), "server": self.server_cpu_us()})
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
    use tidegate_load::{Body, Kind};
    use tidegate_report::Latencies;
    use tidegate_report::testing::{assert_report, keys};

    use super::super::conditions::Conditions;
    use super::super::samples::{self, run};
    use super::*;

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
}
