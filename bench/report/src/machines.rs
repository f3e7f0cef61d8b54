//! One measurement by several machines at the same time: rates are added, and histograms, but never percentiles.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::{Map, Value, json};
use tidegate_args::UsageError;

use crate::merge::Merged;
use crate::percentiles::{self, HOW_TO_READ_PERCENTILES};
use crate::stored::Stored;
use crate::{CLOSE, CONNECT, Column, FIRST_BYTE, LATENCY, Page, Report, Row, Section, catalog};

/// Numbers that are added.
const SUMS: [&str; 8] = [
    "connections",
    "offered_per_second",
    "operations",
    "value",
    "announced_ends",
    "unclean_ends",
    "error_count",
    "client_lost_frames",
];

/// Objects whose numbers are added, each by its name.
const SUMS_BY_NAME: [&str; 5] = ["errors", "statuses", "starts", "open_connections", "frames"];

/// Times of which the longest counts.
const LONGEST: [&str; 4] = ["seconds", "ramp_seconds", "warm_up_seconds", "time_wait_seconds"];

/// Texts of which the first that there is counts.
const FIRST: [&str; 2] = ["first_location", "first_error"];

/// Distributions, by field and tag.
const DISTRIBUTIONS: [(&str, &str); 4] = [
    ("latency_us", LATENCY),
    ("connect_us", CONNECT),
    ("first_byte_us", FIRST_BYTE),
    ("close_us", CLOSE),
];

/// The sides that can be at their limit, with what is said of one that is: the first that one machine names is that of
/// all. Where one client could not do more, the sum is no result of the server.
const LIMITS: [(&str, &str, &str); 3] = [
    ("client", "limited by the client: ", "; not a result of the server"),
    ("server", "limited by the server: ", ""),
    ("none", "neither side: ", ""),
];

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
    Column::name("limit", "{limit}"),
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
    let limit = limit(machines, &rows);
    total = total
        .with("limit", limit.as_ref().map(|(name, _)| *name))
        .with("limit_reason", limit.map(|(_, reason)| reason));
    for (field, tag) in DISTRIBUTIONS {
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

/// Returns what all machines did together, without latencies and without the side at its limit.
fn sum(rows: &[&Row]) -> Row {
    let numbers = |path: &str| rows.iter().map(|row| row.number(path)).collect::<Option<Vec<f64>>>();
    let add = |path: &str| numbers(path).map(|numbers| whole(numbers.iter().sum()));
    let mut total = Row::new();
    // Names and settings, and what is no figure of all machines unless it is added below.
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.fields().keys()).collect();
    for name in names {
        let value = rows[0]
            .get(name)
            .filter(|&value| rows.iter().all(|row| row.get(name) == Some(value)));
        total = total.with(name, value.cloned());
    }
    for name in SUMS {
        total = total.with(name, add(name));
    }
    for name in SUMS_BY_NAME {
        total = total.with(name, sum_by_name(name, rows));
    }
    for name in LONGEST {
        let longest = rows.iter().filter_map(|row| row.number(name)).max_by(f64::total_cmp);
        total = total.with(name, longest);
    }
    for name in FIRST {
        total = total.with(name, rows.iter().find_map(|row| row.get(name)).cloned());
    }
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
    let work = |row: &Row| row.number("client_busy").unwrap_or(0.0) + row.number("client_waited").unwrap_or(0.0);
    let busiest = rows.iter().max_by(|one, other| work(one).total_cmp(&work(other)));
    let of_busiest = |name: &str| busiest.and_then(|row| row.get(name)).cloned();
    let is_any = |name: &str| rows.iter().any(|row| row.get(name) == Some(&Value::Bool(true)));
    total
        .with("cpu", Value::Null)
        .with("cut_short", is_any("cut_short"))
        .with("client_busy", of_busiest("client_busy"))
        .with("client_waited", of_busiest("client_waited"))
        .with("frames_per_operation", mean("frames_per_operation"))
        .with(
            "cpu_us_per_operation",
            json!({"client": mean("cpu_us_per_operation.client"), "server": server}),
        )
        .with("memory", Value::Null)
}

/// Returns the sums of the numbers in the objects `field`, by name; `None` where a row has no such object.
fn sum_by_name(field: &str, rows: &[&Row]) -> Option<Value> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for row in rows {
        for (name, number) in row.get(field)?.as_object()? {
            *sums.entry(name).or_default() += number.as_f64().unwrap_or_default();
        }
    }
    Some(
        sums.into_iter()
            .map(|(name, sum)| (name.to_owned(), whole(sum)))
            .collect(),
    )
}

/// Returns the side that was at its limit, and why, by the machines that say so.
fn limit(machines: &[Machine], rows: &[&Row]) -> Option<(&'static str, String)> {
    LIMITS.into_iter().find_map(|(limit, ..)| {
        let reason = |(machine, row): (&Machine, &&Row)| {
            let is_it = row.get("limit")?.as_str() == Some(limit);
            is_it.then(|| format!("{}: {}", machine.name, row.fill("{limit_reason}")))
        };
        let reasons: Vec<String> = machines.iter().zip(rows).filter_map(reason).collect();
        (!reasons.is_empty()).then(|| (limit, reasons.join("; ")))
    })
}

/// Returns what is said of the side that was at its limit.
fn limit_phrase(total: &Row) -> Option<String> {
    let by = total.get("limit")?.as_str()?;
    let (_, before, after) = LIMITS.into_iter().find(|(limit, ..)| *limit == by)?;
    Some(total.fill(&format!("{before}{{limit_reason}}{after}")))
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
    let limit = limit_phrase(&total);
    let mut sections = Vec::new();
    if total.get("limit").and_then(Value::as_str) == Some("client") {
        sections.extend(limit.clone().map(Section::Alert));
    }
    sections.extend(percentiles::percentiles(merged.histograms()));
    sections.push(Section::Heading("Results".to_owned()));
    let facts = lines.iter().chain([&all_of_them]).map(|row| {
        let phrase = row
            .fill("{value:short} per second, p50 {latency_us.p50:us}, p99 {latency_us.p99:us}, {error_count} errors");
        (row.fill("{machine}"), phrase)
    });
    sections.push(Section::Facts(facts.collect()));
    sections.extend(limit.clone().map(Section::Text));
    sections.extend(notes.iter().cloned().map(Section::Text));
    sections.push(Section::HowToRead(HOW_TO_READ_PERCENTILES));
    let mut text = crate::table::text(COLUMNS, lines.iter().chain([&all_of_them]));
    text.extend(limit.map(|limit| limit + "\n"));
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
            "cpu_us_per_operation": {"client": cpu[0], "server": cpu[1]}, "method": "GET", "cut_short": false,
            "timeout_seconds": 10.0, "address": name,
            "unclean_ends": 2, "open_connections": {"max": 10, "at_end": 9}, "statuses": {"2xx": operations, "5xx": 1},
            "starts": {"due": operations, "late": 1}, "client_lost_frames": null, "limit": "none",
            "limit_reason": "all was done", "client_busy": 0.4, "client_waited": 0.1, "first_byte_us": null,
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
            ("method", json!("GET")),
            ("timeout_seconds", json!(10.0)),
            ("address", Value::Null),
            ("unclean_ends", json!(4)),
            ("open_connections", json!({"max": 20, "at_end": 18})),
            ("statuses", json!({"2xx": 4_000, "5xx": 2})),
            ("starts", json!({"due": 4_000, "late": 2})),
            ("client_lost_frames", Value::Null),
            ("cut_short", json!(false)),
            ("limit", json!("none")),
            ("limit_reason", json!("a: all was done; b: all was done")),
            ("first_byte_us", Value::Null),
        ] {
            assert_eq!(json[name], expected, "{name}");
        }
        // Of 1 to 1,000 and 1 to 3,000, 2,000 are at most 1,000.
        let p50 = json["latency_us"]["p50"].as_f64().unwrap();
        assert!((p50 - 1_000.0).abs() <= 2.0, "{p50}");
        assert_eq!(json["machines"][1]["machine"], "b");
        assert_eq!(report.text.lines().count(), 5, "{}", report.text);
        assert!(report.text.contains("all 2"), "{}", report.text);
    }

    #[test]
    fn what_one_client_could_not_do_is_no_result_of_the_server() {
        let of = |limits: [&[(&str, Value)]; 2]| {
            let mut machines = ["a", "b"].map(|name| machine(name, 10, [None; 2]));
            for (machine, fields) in machines.iter_mut().zip(limits) {
                for (name, value) in fields {
                    machine.report.rows[0] = machine.report.rows[0].clone().with(name, value.clone());
                }
            }
            together(&machines, &[]).unwrap()
        };
        let at = |limit: &str, busy: f64| {
            [
                ("limit", json!(limit)),
                ("limit_reason", json!(format!("by {limit}"))),
                ("client_busy", json!(busy)),
                ("client_waited", json!(0.0)),
            ]
        };
        let report = of([&at("server", 0.5), &at("client", 0.99)]);
        testing::assert_report("machines-client", &report);
        let json = report.json();
        assert_eq!(
            (&json["limit"], &json["limit_reason"]),
            (&json!("client"), &json!("b: by client"))
        );
        assert_eq!(
            (&json["client_busy"], &json["client_waited"]),
            (&json!(0.99), &json!(0.0))
        );
        const PHRASE: &str = "limited by the client: b: by client; not a result of the server";
        assert!(report.text.contains(PHRASE), "{}", report.text);
        assert!(matches!(&report.page.sections[0], Section::Alert(text) if text == PHRASE));

        let report = of([&at("none", 0.1), &at("server", 0.2)]);
        assert_eq!(report.json()["limit"], "server");
        assert!(!matches!(report.page.sections[0], Section::Alert(_)));
        let cut = [("cut_short", json!(true)), ("limit", Value::Null)];
        let json = of([&[("limit", Value::Null)], &cut]).json();
        assert_eq!((&json["cut_short"], &json["limit"]), (&json!(true), &Value::Null));
    }

    #[test]
    fn every_distribution_is_that_of_all_logs() {
        let parts = |values: u64| histogram((1..=values).map(|micros| micros * 1_000));
        let machines = [3, 5].map(|values| {
            let mut machine = machine("a", 10, [None; 2]);
            for (field, _) in &DISTRIBUTIONS[1..] {
                let quantiles = json!(Quantiles::of(&parts(values)));
                machine.report.rows[0] = machine.report.rows[0].clone().with(field, quantiles);
            }
            machine
        });
        let logs = [3, 5].map(|values| {
            let (latency, part) = (parts(10), parts(values));
            let all = DISTRIBUTIONS.map(|(_, tag)| (tag, if tag == LATENCY { &latency } else { &part }));
            let log = interval_log::write("", SystemTime::now(), Duration::from_secs(2), &all).unwrap();
            ("a log".to_owned(), String::from_utf8(log).unwrap())
        });
        let json = together(&machines, &logs).unwrap().json();
        assert_eq!(json["latency_us"]["count"], 20);
        for (field, _) in &DISTRIBUTIONS[1..] {
            assert_eq!(json[field]["count"], 8, "{field}: {json}");
        }
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
