//! `goodput` and `fairness` of `tidegate-bench`, as short as they can be: that they measure, and not how fast.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::fixture::data::directory;
use crate::fixture::server::bench_binary;
use crate::fixture::{Finished, Lab, NAMESPACES, run};

const RUN_LIMIT: Duration = Duration::from_secs(120);

/// Runs a measurement in the lab.
fn bench(arguments: &[&str]) -> Finished {
    let mut command = Command::new(bench_binary());
    command.args(arguments).args(["--lab", NAMESPACES.name()]);
    command.args(["--tidegate", env!("CARGO_BIN_EXE_tidegate")]);
    run(command, RUN_LIMIT)
}

/// Runs a measurement in the lab and returns its rows.
fn rows(arguments: &[&str]) -> Vec<Value> {
    let directory = directory();
    let file = directory.path().join("results.json");
    bench(&[arguments, &["--json", &file.to_string_lossy()]].concat()).expect_success();
    let text = std::fs::read_to_string(&file).expect("the results were written");
    let results: Value = serde_json::from_str(&text).expect("the results are JSON");
    results["rows"].as_array().expect("an array of rows").clone()
}

#[track_caller]
fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or_else(|| panic!("no {name} in {row}"))
}

#[test]
fn goodput_is_measured_with_each_congestion_control_and_uploads_once() {
    let Some(_lab) = Lab::up_middle(1) else { return };
    let rows = rows(&[
        "goodput",
        "--runs",
        "1",
        "--duration",
        "500ms",
        "--only",
        "loss 1%",
        "--control",
        "cubic,reno",
    ]);
    let kinds: Vec<[&str; 2]> = rows
        .iter()
        .map(|row| ["direction", "control"].map(|name| row[name].as_str().unwrap_or_default()))
        .collect();
    let expected = [
        ["server to client", "cubic"],
        ["client to server", "cubic"],
        ["server to client", "reno"],
    ];
    assert_eq!(kinds, expected);
    for row in &rows {
        for name in [
            "tidegate",
            "linux",
            "ratio",
            "tidegate_queue_wait_ms",
            "linux_queue_wait_ms",
        ] {
            assert!(number(row, name) > 0.0, "{name}: {row}");
        }
        for name in ["tidegate_percent_again", "linux_percent_again"] {
            assert!((0.0..50.0).contains(&number(row, name)), "{name}: {row}");
        }
        let is_reno = row["control"] == "reno";
        assert_eq!(row["tidegate_vs_cubic"].is_number(), is_reno, "{row}");
    }
}

#[test]
fn the_shares_of_a_queue_are_compared_with_those_beside_linux() {
    let Some(_lab) = Lab::up_middle(1) else { return };
    let rows = rows(&[
        "fairness",
        "--runs",
        "1",
        "--duration",
        "1s",
        "--flows",
        "4",
        "--control",
        "reno",
        "--only",
        "tidegate/reno and Linux/reno",
    ]);
    let pairs: Vec<&Value> = rows.iter().map(|row| &row["pair"]).collect();
    let expected = [
        "tidegate/reno and Linux/reno, 4 flows",
        "Linux/reno and Linux/reno, 4 flows",
    ];
    assert_eq!(pairs, expected);
    for row in &rows {
        assert!(number(row, "total_mbits_per_second") > 0.0, "{row}");
        assert!(
            (number(row, "first_share") + number(row, "second_share") - 1.0).abs() < 0.01,
            "{row}"
        );
        assert!((0.25..=1.0).contains(&number(row, "jain")), "{row}");
        assert_eq!(
            row["flow_mbits_per_second"][0].as_array().map(Vec::len),
            Some(4),
            "{row}"
        );
    }
    assert!(number(&rows[0], "second_share_vs_linux") > 0.0, "{}", rows[0]);
}

#[test]
fn a_congestion_control_that_the_kernel_lacks_is_left_out_and_named() {
    let Some(_lab) = Lab::up_middle(1) else { return };
    for experiment in ["goodput", "fairness"] {
        let finished = bench(&[experiment, "--quick", "--control", "no-such"]);
        assert_eq!(finished.status.code(), Some(1), "{}", finished.describe());
        for phrase in ["no-such is left out", "none of the congestion controls no-such"] {
            assert!(finished.stderr.contains(phrase), "{}", finished.describe());
        }
    }
}
