//! The results of a run as JSON.

use serde_json::{Map, Value, json};
use tidegate_lab::machine::Memory;

use super::{MemoryUse, Run, close_name, direction_name};
use crate::client::Workload;
use crate::client::latency::Latencies;

/// One object. What was not measured, or is not of the workload, is null.
pub(super) fn value(run: &Run) -> Value {
    let measured = &run.measured;
    let errors: Map<String, Value> = measured
        .errors
        .iter()
        .map(|(name, count)| (name.to_owned(), count.into()))
        .collect();
    let mut value = json!({
        "environment": run.environment,
        "workload": run.workload(),
        "client": run.client,
        "target": run.target(),
        "connections": run.plan.connections,
        "cpu": run.plan.cpu,
        "operations": measured.operations,
        "value": run.value(),
        "unit": run.unit(),
        "seconds": measured.seconds,
        "warm_up_seconds": run.plan.warm_up.as_secs_f64(),
        "latency_us": latency(&measured.latency),
        "connect_us": latency(&measured.connect),
        "announced_ends": measured.announced_ends,
        "error_count": measured.errors.total(),
        "errors": errors,
        "first_error": measured.errors.first(),
        "frames": measured.frames.map(|frames| json!({
            "sent": frames.sent,
            "received": frames.received,
        })),
        "frames_per_operation": run.frames_per_operation(),
        "time_wait_seconds": measured.time_wait.map(|time| time.as_secs_f64()),
        "memory": run.memory.as_ref().map(|found| memory(found, measured.operations)),
        "close": null,
        "pipeline": null,
        "offered_per_second": null,
        "direction": null,
    });
    match run.plan.workload {
        Workload::Cps { close } => value["close"] = close_name(close).into(),
        Workload::Rps { pipeline } => value["pipeline"] = pipeline.into(),
        Workload::Latency { rate } => value["offered_per_second"] = rate.into(),
        Workload::Throughput { direction } => value["direction"] = direction_name(direction).into(),
        Workload::Hold => {}
    }
    value
}

fn latency(latencies: &Latencies) -> Value {
    if latencies.len() == 0 {
        return Value::Null;
    }
    json!({
        "count": latencies.len(),
        "p50": latencies.quantile_us(0.5),
        "p90": latencies.quantile_us(0.9),
        "p99": latencies.quantile_us(0.99),
        "p999": latencies.quantile_us(0.999),
        "max": latencies.max_us(),
    })
}

fn memory(memory: &MemoryUse, connections: u64) -> Value {
    let part = |part: fn(&Memory) -> u64| {
        json!({
            "before_bytes": part(&memory.before),
            "highest_bytes": part(&memory.highest),
            "bytes_per_connection": memory.per_connection(part, connections),
        })
    };
    json!({
        "server_resident": part(|memory| memory.resident),
        "kernel_unreclaimable": part(|memory| memory.kernel),
        "kernel_slab": part(|memory| memory.slab),
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::super::testing::keys;
    use super::*;
    use crate::client::errors::Kind;
    use crate::client::{Close, Direction};

    #[test]
    fn the_keys_are_those_that_others_read_whatever_was_measured() {
        for workload in [
            Workload::Cps { close: Close::Rst },
            Workload::Rps { pipeline: 16 },
            Workload::Latency { rate: 1_000 },
            Workload::Throughput {
                direction: Direction::Up,
            },
            Workload::Hold,
        ] {
            let value = value(&samples::run(workload));
            assert_eq!(
                keys(&value),
                [
                    "announced_ends",
                    "client",
                    "close",
                    "connect_us",
                    "connections",
                    "cpu",
                    "direction",
                    "environment",
                    "error_count",
                    "errors",
                    "first_error",
                    "frames",
                    "frames_per_operation",
                    "latency_us",
                    "memory",
                    "offered_per_second",
                    "operations",
                    "pipeline",
                    "seconds",
                    "target",
                    "time_wait_seconds",
                    "unit",
                    "value",
                    "warm_up_seconds",
                    "workload",
                ],
                "{workload:?}"
            );
            assert_eq!(
                keys(&value["latency_us"]),
                ["count", "max", "p50", "p90", "p99", "p999"]
            );
        }
    }

    #[test]
    fn the_values_are_those_of_the_run() {
        let mut run = samples::run(Workload::Cps { close: Close::Server });
        run.measured.errors.add(Kind::Reset, "reset by peer");
        run.memory = Some(samples::memory());
        let value = value(&run);
        for (key, expected) in [
            ("workload", json!("cps")),
            ("close", json!("server")),
            ("pipeline", Value::Null),
            ("client", json!("bypass")),
            ("target", json!("http://198.18.0.1:80/x")),
            ("connections", json!(64)),
            ("operations", json!(1_000)),
            ("value", json!(500.0)),
            ("unit", json!("connections/s")),
            ("seconds", json!(2.0)),
            ("warm_up_seconds", json!(1.5)),
            ("error_count", json!(1)),
            ("errors", json!({"reset": 1})),
            ("first_error", json!("reset by peer")),
            ("frames", json!({"sent": 8_000, "received": 7_000})),
            ("frames_per_operation", json!(7.5)),
            ("time_wait_seconds", json!(2.0)),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
        assert_eq!(value["latency_us"]["count"], 1_000);
        let p50 = value["latency_us"]["p50"].as_f64().unwrap();
        assert!((p50 - 500.0).abs() < 1.0, "{p50}");
        assert_eq!(value["connect_us"]["count"], 1);
        assert_eq!(value["memory"]["server_resident"]["bytes_per_connection"], 320.0);
        assert_eq!(value["memory"]["kernel_unreclaimable"]["highest_bytes"], 2_640_000);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let mut run = samples::run(Workload::Hold);
        run.measured.latency = Latencies::new();
        run.measured.frames = None;
        run.measured.time_wait = None;
        let value = value(&run);
        for key in [
            "latency_us",
            "frames",
            "frames_per_operation",
            "time_wait_seconds",
            "first_error",
            "memory",
        ] {
            assert_eq!(value[key], Value::Null, "{key}");
        }
    }
}
