//! A case's runs as a row of the report.

use serde_json::json;
use tidegate_report::format::three_digits;
use tidegate_report::{Column, Row, Spread};

use super::super::cpu::{Parts, Usage};
use super::super::plan::Case;
use super::{CellRuns, Results, Run};

/// The columns of the table.
pub(super) const COLUMNS: &[Column] = &[
    Column::name("workload", "{workload}"),
    Column::name("client", "{client}"),
    Column::name("target", "{target}"),
    Column::figure("per second", "{value:short}"),
    Column::figure("lowest..highest", "{value_min:short}..{value_max:short}"),
    Column::figure("p50", "{p50_us:us}"),
    Column::figure("p99", "{p99_us:us}"),
    Column::figure("p99.9", "{p999_us:us}"),
    Column::figure("CPU us/op", "{cpu_us_per_op:2}"),
    Column::figure("client core", "{cpu_us_per_op_by_core.client.total:2}"),
    Column::figure("server core", "{cpu_us_per_op_by_core.server.total:2}"),
    Column::figure("frames/s", "{frames_per_second:short}"),
    Column::figure("errors", "{errors}").alert("errors"),
];

/// Returns the row of the report. Fields that were not measured are null.
pub(super) fn row(results: &Results, row: &CellRuns<'_>) -> Row {
    let first = row.runs.first();
    let usage = row.usage();
    let answer = match row.case {
        Case::Server { target, .. } => results.answers.get(&target),
        Case::Reflect(_) => None,
    };
    let longest = row.quantile(|quantiles| quantiles.max);
    Row::new()
        .with("target", row.case.target_name())
        .with("client", row.case.client_name())
        .with("workload", row.case.workload_name())
        .with_spread("value", row.per_s().map(whole))
        .with("unit", row.case.unit())
        .with("runs", row.runs.len())
        .with(
            "values",
            row.runs.iter().map(|run| run.per_s.round()).collect::<Vec<_>>(),
        )
        .with("p50_us_values", row.values(|run| Some(run.quantiles?.p50)))
        .with("p99_us_values", row.values(|run| Some(run.quantiles?.p99)))
        .with("p999_us_values", row.values(|run| Some(run.quantiles?.p999)))
        .with("cpu_us_per_op_values", row.values(|run| run.usage.map(Usage::total)))
        .with("steal_seconds_values", row.values(|run| Some(run.steal.as_secs_f64())))
        .with("asked_per_s", first.and_then(|run| run.asked_per_s))
        .with_spread("p50_us", row.quantile(|quantiles| quantiles.p50))
        .with_spread("p99_us", row.quantile(|quantiles| quantiles.p99))
        .with_spread("p999_us", row.quantile(|quantiles| quantiles.p999))
        .with("max_us", longest.map(|spread| three_digits(spread.max)))
        .with_spread("cpu_us_per_op", row.cpu_us())
        .with(
            "cpu_us_per_op_by_core",
            usage.map(|Usage { client, server, .. }| json!({"client": core(client), "server": core(server)})),
        )
        .with(
            "cpu_us_per_op_of_server_process",
            usage
                .and_then(|usage| usage.process)
                .map(|[user, system]| json!({"user": three_digits(user), "system": three_digits(system)})),
        )
        .with_median("frames_per_op", row.spread(|run| run.frames_per_op))
        .with_spread("frames_per_second", row.spread(Run::frames_per_s).map(whole))
        .with_median(
            "interface_frames_per_second",
            row.spread(|run| run.interface_frames_per_s).map(whole),
        )
        .with("response_head_bytes", answer.map(|answer| answer.head))
        .with("response_body_bytes", answer.map(|answer| answer.body))
        .with(
            "time_wait_s",
            first.and_then(|run| run.time_wait).map(|time| time.as_secs_f64()),
        )
        .with("errors", row.errors())
        .with("errors_by_kind", json!(row.errors_by_kind()))
        .with("first_error", row.first_error())
}

fn whole(Spread { median, min, max }: Spread) -> Spread {
    Spread {
        median: median.round(),
        min: min.round(),
        max: max.round(),
    }
}

fn core(parts: Parts) -> serde_json::Value {
    json!({
        "user": three_digits(parts.user),
        "system": three_digits(parts.system),
        "irq": three_digits(parts.irq),
        "softirq": three_digits(parts.softirq),
        "total": three_digits(parts.total()),
    })
}
