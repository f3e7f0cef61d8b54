//! One measurement by several machines at the same time: rates are added, and histograms, but never percentiles.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Map, Value, json};
use tidegate_args::UsageError;

use crate::merge::Merged;
use crate::percentiles::{self, HOW_TO_READ_PERCENTILES};
use crate::stored::Stored;
use crate::{CONNECT, Column, LATENCY, Page, Report, Row, Section, catalog};

/// The names that all machines have in common, or the row has none.
const NAMES: [&str; 8] = [
    "workload",
    "client",
    "target",
    "unit",
    "pipeline",
    "close",
    "direction",
    "body",
];

/// Numbers that are added.
const SUMS: [&str; 6] = [
    "connections",
    "offered_per_second",
    "operations",
    "value",
    "announced_ends",
    "error_count",
];

/// Times of which the longest counts.
const LONGEST: [&str; 3] = ["seconds", "warm_up_seconds", "time_wait_seconds"];

/// The columns of the table of machines.
const COLUMNS: &[Column] = &[
    Column::name("machine", "{machine}"),
    Column::figure("connections", "{connections}"),
    Column::figure("operations", "{operations}"),
    Column::figure("per second", "{value:short}"),
    Column::figure("p50", "{latency_us.p50:us}"),
    Column::figure("p99", "{latency_us.p99:us}"),
    Column::figure("p99.9", "{latency_us.p999:us}"),
    Column::figure("max", "{latency_us.max:us}"),
    Column::figure("frames/op", "{frames_per_operation:2}"),
    Column::figure("client CPU us/op", "{cpu_us_per_operation.client:3}"),
    Column::figure("errors", "{error_count}").alert("error_count"),
];

/// The result of one machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its report.
    report: Stored,
}

impl Machine {
    /// Returns the result of the machine `name` from the JSON of a single measurement.
    ///
    /// # Errors
    ///
    /// It is no report of this version.
    pub fn new(name: &str, json: &str) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            report: Stored::parse(name, json)?,
        })
    }
}

/// Returns the report of one measurement by several machines. `logs` are the interval logs of all of them, each with
/// the name by which errors call it. Where these do not hold the latencies of all machines, there are none.
///
/// # Errors
///
/// A report is of no single measurement, or they are of different ones (usage errors), or a log is broken.
pub fn together(machines: &[Machine], logs: &[(String, String)]) -> anyhow::Result<Report> {
    let mut merged = Merged::default();
    for (name, log) in logs {
        merged.add(log).with_context(|| format!("cannot merge {name}"))?;
    }
    let rows: Vec<&Row> = machines.iter().map(single).collect::<Result<_, _>>()?;
    let (Some(first), Some(row)) = (machines.first(), rows.first()) else {
        return Err(UsageError("there is no report of a machine".to_owned()).into());
    };
    for (machine, other) in machines.iter().zip(&rows) {
        if other.get("workload") != row.get("workload") {
            return Err(UsageError(format!(
                "{} is a measurement of `{}` and {} one of `{}`; only one can be put together",
                first.name, first.report.kind, machine.name, machine.report.kind
            ))
            .into());
        }
    }
    let mut notes = Vec::new();
    let mut total = sum(&rows);
    for (field, tag) in [("latency_us", LATENCY), ("connect_us", CONNECT)] {
        let counts = rows.iter().filter_map(|row| row.number(&format!("{field}.count")));
        let wanted = counts.sum::<f64>() as u64;
        let quantiles = merged.quantiles(tag).filter(|quantiles| quantiles.count == wanted);
        if quantiles.is_none() && wanted > 0 {
            let held = merged.quantiles(tag).map_or(0, |quantiles| quantiles.count);
            notes.push(format!(
                "{tag}: the logs hold {held} of {wanted} values, so there are no percentiles of all machines; give the \
                 --log of each"
            ));
        }
        total = total.with(field, json!(quantiles));
    }
    let lines: Vec<Row> = machines
        .iter()
        .zip(&rows)
        .map(|(machine, row)| (*row).clone().with("machine", machine.name.as_str()))
        .collect();
    Ok(report(&first.report.kind, total, lines, &notes, &merged, machines))
}

/// Returns the row of a single measurement.
fn single(machine: &Machine) -> Result<&Row, UsageError> {
    let Stored { kind, rows, .. } = &machine.report;
    match rows.as_slice() {
        [row] if catalog::single(kind).is_some() => Ok(row),
        _ => Err(UsageError(format!(
            "{}: reports of the kind `{kind}` cannot be put together; those of single measurements can",
            machine.name
        ))),
    }
}

/// Returns what all machines did together, without latencies.
fn sum(rows: &[&Row]) -> Row {
    let numbers = |path: &str| rows.iter().map(|row| row.number(path)).collect::<Option<Vec<f64>>>();
    let add = |path: &str| numbers(path).map(|numbers| whole(numbers.iter().sum()));
    let mut total = Row::new();
    for name in NAMES {
        let value = rows[0]
            .get(name)
            .filter(|&value| rows.iter().all(|row| row.get(name) == Some(value)));
        total = total.with(name, value.cloned());
    }
    for name in SUMS {
        total = total.with(name, add(name));
    }
    for name in LONGEST {
        let longest = rows.iter().filter_map(|row| row.number(name)).max_by(f64::total_cmp);
        total = total.with(name, longest);
    }
    let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, count) in rows.iter().filter_map(|row| row.get("errors")?.as_object()).flatten() {
        *errors.entry(kind).or_default() += count.as_u64().unwrap_or_default();
    }
    let frames = add("frames.sent").zip(add("frames.received"));
    let operations = add("operations")
        .and_then(|number| number.as_f64())
        .filter(|&number| number > 0.0);
    // For each operation of all machines; each figure is one for those of its own machine.
    let share = |path: &str, row: &Row| Some(row.number(path)? * row.number("operations")? / operations?);
    let mean = |path: &str| rows.iter().map(|row| share(path, row)).sum::<Option<f64>>();
    let servers: Vec<f64> = rows
        .iter()
        .filter_map(|row| share("cpu_us_per_operation.server", row))
        .collect();
    // Two that looked at the same server would count its time twice.
    let server = if let [server] = servers[..] { Some(server) } else { None };
    total
        .with("cpu", Value::Null)
        .with("errors", json!(errors))
        .with(
            "first_error",
            rows.iter().find_map(|row| row.get("first_error")).cloned(),
        )
        .with(
            "frames",
            frames.map(|(sent, received)| json!({"sent": sent, "received": received})),
        )
        .with("frames_per_operation", mean("frames_per_operation"))
        .with(
            "cpu_us_per_operation",
            json!({"client": mean("cpu_us_per_operation.client"), "server": server}),
        )
        .with("memory", Value::Null)
}

/// Returns a whole number without a fraction.
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && (0.0..1e15).contains(&number) {
        (number as u64).into()
    } else {
        number.into()
    }
}

fn report(kind: &str, total: Row, lines: Vec<Row>, notes: &[String], merged: &Merged, machines: &[Machine]) -> Report {
    let all_of_them = total.clone().with("machine", format!("all {}", machines.len()));
    let mut sections: Vec<Section> = percentiles::percentiles(merged.histograms()).into_iter().collect();
    sections.push(Section::Heading("Results".to_owned()));
    let facts = lines.iter().chain([&all_of_them]).map(|row| {
        let phrase = row
            .fill("{value:short} per second, p50 {latency_us.p50:us}, p99 {latency_us.p99:us}, {error_count} errors");
        (row.fill("{machine}"), phrase)
    });
    sections.push(Section::Facts(facts.collect()));
    sections.extend(notes.iter().cloned().map(Section::Text));
    sections.push(Section::HowToRead(HOW_TO_READ_PERCENTILES));
    let mut text = crate::table::text(COLUMNS, lines.iter().chain([&all_of_them]));
    for note in notes {
        text += &format!("note: {note}\n");
    }
    let environments: Vec<Value> = machines
        .iter()
        .map(|machine| json!(machine.report.environment()))
        .collect();
    let mut more: Map<String, Value> = total.fields().clone();
    let with_environment = |(row, environment): (Row, Value)| json!(row.with("environment", environment));
    more.insert(
        "machines".to_owned(),
        lines.into_iter().zip(environments).map(with_environment).collect(),
    );
    Report {
        kind: catalog::single(kind).unwrap_or("merge"),
        environment: machines
            .first()
            .and_then(|machine| machine.report.environment())
            .cloned()
            .unwrap_or_default(),
        page: Page {
            title: format!("tidegate-bench {kind}: {} machines", machines.len()),
            introduction: format!(
                "One measurement by {} machines: {}.",
                machines.len(),
                total.fill("{workload}, {target}")
            ),
            sections,
        },
        rows: vec![total],
        more,
        text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::latencies::testing::histogram;
    use crate::{Quantiles, interval_log, testing};

    fn machine(name: &str, operations: u64, cpu: [Option<f64>; 2]) -> Machine {
        let latency = histogram((1..=operations).map(|micros| micros * 1_000));
        let row = json!({
            "workload": "rps", "client": "kernel", "target": "http://198.18.0.1/", "connections": 10, "unit": "requests/s",
            "operations": operations, "value": operations as f64 / 2.0, "seconds": 2.0, "error_count": 1,
            "errors": {name: 1, "reset": 0}, "first_error": format!("of {name}"), "cpu": 1, "pipeline": 1,
            "latency_us": Quantiles::of(&latency), "connect_us": null, "announced_ends": 0,
            "frames": {"sent": operations, "received": operations}, "frames_per_operation": 2.0,
            "cpu_us_per_operation": {"client": cpu[0], "server": cpu[1]},
        });
        let report =
            json!({"schema_version": 1, "kind": "rps", "environment": {"kernel": "6.1 <script>"}, "rows": [row]});
        Machine::new(name, &report.to_string()).unwrap()
    }

    fn log(operations: u64) -> (String, String) {
        let latency = histogram((1..=operations).map(|micros| micros * 1_000));
        let log = interval_log::write("", SystemTime::now(), Duration::from_secs(2), &[(LATENCY, &latency)]).unwrap();
        ("a log".to_owned(), String::from_utf8(log).unwrap())
    }

    #[test]
    fn rates_and_histograms_are_added() {
        let machines = [
            machine("a", 1_000, [Some(2.0), None]),
            machine("b", 3_000, [Some(4.0), Some(8.0)]),
        ];
        let report = together(&machines, &[log(1_000), log(3_000)]).unwrap();
        testing::assert_report("machines", &report);
        let json = report.json();
        for (name, expected) in [
            ("kind", json!("rps")),
            ("operations", json!(4_000)),
            ("value", json!(2_000)),
            ("connections", json!(20)),
            ("seconds", json!(2.0)),
            ("error_count", json!(2)),
            ("errors", json!({"a": 1, "b": 1, "reset": 0})),
            ("first_error", json!("of a")),
            ("frames", json!({"sent": 4_000, "received": 4_000})),
            ("frames_per_operation", json!(2.0)),
            ("cpu_us_per_operation", json!({"client": 3.5, "server": 6.0})),
            ("connect_us", Value::Null),
            ("target", json!("http://198.18.0.1/")),
        ] {
            assert_eq!(json[name], expected, "{name}");
        }
        // Of 1 to 1,000 and 1 to 3,000, 2,000 are at most 1,000.
        let p50 = json["latency_us"]["p50"].as_f64().unwrap();
        assert!((p50 - 1_000.0).abs() <= 2.0, "{p50}");
        assert_eq!(json["machines"][1]["machine"], "b");
        assert_eq!(report.text.lines().count(), 4, "{}", report.text);
        assert!(report.text.contains("all 2"), "{}", report.text);
    }

    #[test]
    fn without_all_logs_there_are_no_percentiles() {
        let machines = [
            machine("a", 1_000, [None, Some(1.0)]),
            machine("b", 3_000, [Some(4.0), Some(8.0)]),
        ];
        for logs in [&[][..], &[log(3_000)], &[log(3_000), log(3_000)]] {
            let report = together(&machines, logs).unwrap();
            assert_eq!(report.json()["latency_us"], Value::Null);
            assert!(report.text.contains("of 4000 values"), "{}", report.text);
            assert_eq!(
                report.json()["cpu_us_per_operation"],
                json!({"client": null, "server": null})
            );
        }
    }

    #[test]
    fn only_the_same_measurement_can_be_put_together() {
        let mut other = machine("b", 1, [None; 2]);
        other.report.rows[0] = other.report.rows[0].clone().with("workload", "cps");
        other.report.kind = "cps".to_owned();
        let error = together(&[machine("a", 1, [None; 2]), other.clone()], &[]).unwrap_err();
        assert!(
            error.is::<UsageError>() && error.to_string().contains("a is a measurement of `rps` and b"),
            "{error}"
        );
        other.report.kind = "compare".to_owned();
        let error = together(&[other], &[]).unwrap_err().to_string();
        assert!(error.contains("kind `compare` cannot be put together"), "{error}");
        assert!(together(&[], &[]).is_err());
    }
}
