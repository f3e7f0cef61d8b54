//! The report as JSON.

use serde_json::{Map, Value, json};

use super::super::cpu::{Parts, Usage};
use super::super::plan::{Cell, ClientKind};
use super::ratios::{self, Ratio};
use super::{Report, Row};
use crate::results::numbers::three_digits;
use crate::results::spread::Spread;

/// One object: `environment`, `rows`, `ratios`, and what there is to say about the spread of these. What was not measured
/// is null.
pub(super) fn value(report: &Report) -> Value {
    let client = ratios::main_client(report);
    let ratios = ratios::all(report, client);
    let mut spread = Map::new();
    for ratio in &ratios {
        spread.insert(format!("{}_min", ratio.name), of(ratio.spread, |spread| spread.min));
        spread.insert(format!("{}_max", ratio.name), of(ratio.spread, |spread| spread.max));
    }
    let more = ratios::cps_frames(report, client);
    let mut value = json!({
        "environment": report.environment,
        "rows": report.rows().iter().map(|row| row_value(report, row)).collect::<Vec<_>>(),
        "ratios": medians(&ratios),
        "ratios_spread": spread,
        "ratios_client": client.name(),
        "more_ratios": {
            "cps_frames_vs_reflect": of(more.spread, |spread| spread.median),
            "cps_frames_vs_reflect_min": of(more.spread, |spread| spread.min),
            "cps_frames_vs_reflect_max": of(more.spread, |spread| spread.max),
        },
    });
    // With both clients measured, those of the other one.
    if client == ClientKind::Bypass && ratios::clients(report).contains(&ClientKind::Kernel) {
        value["kernel_client_ratios"] = Value::Object(medians(&ratios::all(report, ClientKind::Kernel)));
    }
    value
}

fn medians(ratios: &[Ratio]) -> Map<String, Value> {
    ratios
        .iter()
        .map(|ratio| (ratio.name.to_owned(), of(ratio.spread, |spread| spread.median)))
        .collect()
}

fn row_value(report: &Report, row: &Row<'_>) -> Value {
    let per_s = row.per_s();
    let p50 = row.quantile(|quantiles| quantiles.p50);
    let p99 = row.quantile(|quantiles| quantiles.p99);
    let p999 = row.quantile(|quantiles| quantiles.p999);
    let longest = row.quantile(|quantiles| quantiles.max);
    let cpu = row.cpu_us();
    let usage = row.usage();
    let answer = match row.cell {
        Cell::Server { target, .. } => report.answers.get(&target),
        Cell::Reflect(_) => None,
    };
    json!({
        "target": row.cell.target_name(),
        "client": row.cell.client_name(),
        "workload": row.cell.workload_name(),
        "value": per_s.map(|spread| spread.median.round()),
        "unit": row.cell.unit(),
        "p50_us": median(p50),
        "p99_us": median(p99),
        "cpu_us_per_op": median(cpu),
        "errors": row.errors(),
        "runs": row.runs.len(),
        "value_min": per_s.map(|spread| spread.min.round()),
        "value_max": per_s.map(|spread| spread.max.round()),
        "values": row.runs.iter().map(|run| run.per_s.round()).collect::<Vec<_>>(),
        "asked_per_s": row.runs.first().and_then(|run| run.asked_per_s),
        "p99_us_min": of(p99, |spread| spread.min),
        "p99_us_max": of(p99, |spread| spread.max),
        "p999_us": median(p999),
        "max_us": of(longest, |spread| spread.max),
        "cpu_us_per_op_min": of(cpu, |spread| spread.min),
        "cpu_us_per_op_max": of(cpu, |spread| spread.max),
        "cpu_us_per_op_by_core": usage.map(by_core),
        "cpu_us_per_op_of_server_process": usage.and_then(|usage| usage.process).map(|[user, system]| {
            json!({"user": three_digits(user), "system": three_digits(system)})
        }),
        "frames_per_op": median(row.spread(|run| run.frames_per_op)),
        "frames_per_second": row.spread(super::Run::frames_per_s).map(|spread| spread.median.round()),
        "interface_frames_per_second":
            row.spread(|run| run.interface_frames_per_s).map(|spread| spread.median.round()),
        "response_head_bytes": answer.map(|answer| answer.head),
        "response_body_bytes": answer.map(|answer| answer.body),
        "time_wait_s": row.runs.first().and_then(|run| run.time_wait).map(|time| time.as_secs_f64()),
        "errors_by_kind": row.errors_by_kind(),
        "first_error": row.first_error(),
    })
}

fn by_core(usage: Usage) -> Value {
    let core = |parts: Parts| {
        json!({
            "user": three_digits(parts.user),
            "system": three_digits(parts.system),
            "irq": three_digits(parts.irq),
            "softirq": three_digits(parts.softirq),
        })
    };
    json!({"client": core(usage.client), "server": core(usage.server)})
}

fn median(spread: Option<Spread>) -> Value {
    of(spread, |spread| spread.median)
}

fn of(spread: Option<Spread>, value: fn(Spread) -> f64) -> Value {
    spread.map(value).map(three_digits).into()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{report, run};
    use super::*;
    use crate::compare::plan::{Load, Target};
    use crate::results::testing::keys;

    #[test]
    fn the_keys_are_those_that_others_read() {
        let value = value(&report());
        for key in ["environment", "rows", "ratios"] {
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
        let value = value(&report());
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
        assert_eq!(value["ratios_client"], "bypass");
        assert_eq!(value.get("kernel_client_ratios"), None);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let value = value(&report());
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
        let nothing = super::value(&Report::default());
        assert_eq!(nothing["ratios"]["cps_vs_nginx"], Value::Null);
        assert_eq!(nothing["rows"], json!([]));
    }

    #[test]
    fn the_other_clients_ratios_have_a_place_of_their_own() {
        let mut report = report();
        for (target, per_s) in [(Target::Tidegate, 90.0), (Target::Nginx, 60.0)] {
            let cell = Cell::Server {
                load: Load::Cps,
                client: ClientKind::Kernel,
                target,
            };
            report.add(run(cell, 0, per_s));
        }
        let value = value(&report);
        assert_eq!(value["kernel_client_ratios"]["cps_vs_nginx"], 1.5);
        assert_eq!(value["ratios"]["cps_vs_nginx"], 4.0);
    }
}
