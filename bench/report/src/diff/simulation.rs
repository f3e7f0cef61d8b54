//! How often a comparison is wrong, by simulated runs: the noise of a shared machine, with outliers and a machine that
//! becomes slower and faster meanwhile.

use serde_json::json;
use tidegate_random::Random;

use super::{Settings, compare};
use crate::Report;
use crate::stored::Stored;

/// Reports of each side.
const RUNS: usize = 20;

/// Rows of reports with many figures, five in each row.
const MANY_ROWS: usize = 6;

/// Rows of reports with few.
const FEW_ROWS: usize = 2;

/// The standard deviation of a run.
const NOISE: f64 = 0.03;

/// The same of processor time, to which waiting does not count.
const CPU_NOISE: f64 = 0.015;

/// A binary, by the factors of its figures.
#[derive(Clone, Copy)]
struct Binary {
    per_second: f64,
    cpu_us: f64,
}

const ORDINARY: Binary = Binary {
    per_second: 1.0,
    cpu_us: 1.0,
};

/// A number of the normal distribution (Irwin and Hall's approximation: a sum of twelve).
fn normal(random: &mut Random) -> f64 {
    (0..12).map(|_| random.fraction()).sum::<f64>() - 6.0
}

/// The factor by which a run misses its figure: one in twenty is disturbed, and loses up to 40 %.
fn noise(random: &mut Random, deviation: f64) -> f64 {
    let outlier = if random.permille(50) {
        1.0 - 0.4 * random.fraction()
    } else {
        1.0
    };
    outlier * (deviation * normal(random)).exp()
}

/// The report of one run. `pace` is what the machine does at the time.
fn run(random: &mut Random, binary: Binary, pace: f64, rows: usize) -> Stored {
    let row = |target: usize| {
        let speed = pace * noise(random, NOISE);
        json!({
            "workload": "rps",
            "target": format!("http://198.18.0.1:{target}/"),
            "value": 100_000.0 * binary.per_second * speed,
            "latency_us": {
                "p50": 80.0 / speed / noise(random, NOISE),
                "p99": 300.0 / speed / noise(random, NOISE).powi(3),
            },
            "cpu_us_per_operation": {"server": 4.0 * binary.cpu_us / noise(random, CPU_NOISE)},
            "error_count": u64::from(random.permille(20)),
        })
    };
    let rows: Vec<_> = (0..rows).map(row).collect();
    let report = json!({"schema_version": 1, "kind": "rps", "environment": {}, "rows": rows});
    Stored::parse("a run", &report.to_string()).unwrap()
}

/// Compares runs of the ordinary binary with runs of `new`.
fn simulate(seed: u64, new: Binary, paired: bool, rows: usize) -> (Report, bool) {
    let mut random = Random::new(seed);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for index in 0..RUNS {
        // A machine that is slower in the middle, by a tenth; pairs see the same of it.
        let pace = |random: &mut Random| {
            if paired {
                1.0 - 0.1 * (index as f64 / 6.0).sin()
            } else {
                (0.01 * normal(random)).exp()
            }
        };
        let now = pace(&mut random);
        before.push(run(&mut random, ORDINARY, now, rows));
        let now = pace(&mut random);
        after.push(run(&mut random, new, now, rows));
    }
    let settings = Settings {
        threshold: 0.03,
        paired,
        ignored: Vec::new(),
    };
    compare(&before, &after, &settings).unwrap()
}

/// The verdicts of the figures of `path`.
fn verdicts<'a>(report: &'a Report, path: &str) -> Vec<&'a str> {
    let rows = report
        .rows
        .iter()
        .filter(|row| row.get("figure").and_then(|figure| figure.as_str()) == Some(path));
    rows.filter_map(|row| row.get("verdict")?.as_str()).collect()
}

/// The part of ten comparisons that fail, and in which `path` became worse in every row.
fn found(path: &str, new: Binary, paired: bool) -> f64 {
    let is_found = |seed: u64| {
        let (report, has_regressed) = simulate(1_000 + seed, new, paired, FEW_ROWS);
        let verdicts = verdicts(&report, path);
        assert_eq!(verdicts.len(), FEW_ROWS);
        has_regressed && verdicts.iter().all(|&verdict| verdict == "worse")
    };
    (0..10).filter(|&seed| is_found(seed)).count() as f64 / 10.0
}

#[test]
fn the_same_binary_is_hardly_ever_called_another() {
    for paired in [true, false] {
        let mut alarms = Vec::new();
        for seed in 0..20 {
            let (report, has_regressed) = simulate(seed, ORDINARY, paired, MANY_ROWS);
            assert_eq!(report.rows.len(), 5 * MANY_ROWS);
            let is_alarm = |row: &&crate::Row| row.fill("{verdict}") == "better" || row.fill("{verdict}") == "worse";
            if let Some(row) = report.rows.iter().find(is_alarm) {
                alarms.push(row.fill("{row} {figure} {change_text} {interval_text} {p_text}"));
            } else {
                assert!(!has_regressed);
            }
        }
        assert!(alarms.len() <= 1, "paired {paired}: {alarms:?}");
    }
}

#[test]
fn a_tenth_fewer_requests_are_found() {
    let slower = Binary {
        per_second: 0.9,
        ..ORDINARY
    };
    for paired in [true, false] {
        let found = found("value", slower, paired);
        assert!(found >= 0.9, "paired {paired}: {found}");
    }
}

#[test]
fn a_twentieth_more_processor_time_is_found() {
    let dearer = Binary {
        cpu_us: 1.05,
        ..ORDINARY
    };
    let found = found("cpu_us_per_operation.server", dearer, true);
    assert!(found >= 0.9, "{found}");
}

#[test]
fn without_the_correction_there_would_be_false_alarms() {
    let uncorrected = (0..20)
        .filter(|&seed| {
            let (report, _) = simulate(seed, ORDINARY, true, MANY_ROWS);
            report
                .rows
                .iter()
                .any(|row| row.number("p_value").is_some_and(|p| p <= 0.05))
        })
        .count();
    assert!(uncorrected >= 5, "{uncorrected} of 20");
}
