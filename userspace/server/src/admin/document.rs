//! docs/metrics.md, the Grafana dashboard and the alerts against a scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use prometheus_client::metrics::MetricType;

use super::families::{families, grouped, plain};
use super::metrics::metrics;
use super::tests::snapshot;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The line of docs/metrics.md after which all is made from the code.
const MARK: &str = "<!-- `make docs` writes what follows. -->\n";

/// The name of a family's samples as they are asked for.
fn sample_name(name: &str, kind: MetricType, unit: Option<&str>) -> String {
    let unit = unit.map_or_else(String::new, |unit| format!("_{unit}"));
    let suffix = match kind {
        MetricType::Counter => "_total",
        MetricType::Info => "_info",
        _ => "",
    };
    format!("tidegate_{name}{unit}{suffix}")
}

/// The tables of docs/metrics.md.
fn tables() -> String {
    let snapshot = snapshot(1);
    let mut text = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for family in families(&snapshot) {
        let name = sample_name(
            &family.name,
            family.kind,
            family.unit.as_ref().map(|unit| unit.as_str()),
        );
        let labels: BTreeSet<&str> = family
            .samples
            .iter()
            .flat_map(|sample| sample.labels.iter().map(|(label, _)| *label))
            .collect();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        text += &format!(
            "| `{name}` | {} | {} | {} |\n",
            family.kind.as_str(),
            labels.join(", "),
            family.help
        );
    }
    // The values of labels that stand for counters of their own.
    let mut values: BTreeMap<(String, &str), String> = BTreeMap::new();
    for row in snapshot.rows() {
        // A driver's names are its own.
        if let (family, Some((label, value)), _) = grouped(&row.name)
            && family != "driver_lost_frames"
        {
            let kind = if row.kind == crate::counter_rows::Kind::Counter {
                MetricType::Counter
            } else {
                MetricType::Gauge
            };
            let rows = values.entry((sample_name(family, kind, None), label)).or_default();
            *rows += &format!("| `{value}` | {} |\n", plain(&row.description));
        }
    }
    for ((name, label), rows) in values {
        text += &format!("\n### `{name}` by `{label}`\n\n| `{label}` | meaning |\n|---|---|\n{rows}");
    }
    text
}

#[test]
fn the_document_lists_the_metrics_of_a_scrape() {
    const DOCUMENT: &str = "docs/metrics.md";
    let written = read(DOCUMENT);
    let (introduction, current) = written.split_once(MARK).expect("the mark in docs/metrics.md");
    let tables = format!("\n{}", tables());
    if env::var_os("TIDEGATE_UPDATE_DOCS").is_some() {
        fs::write(root().join(DOCUMENT), format!("{introduction}{MARK}{tables}"))
            .expect("docs/metrics.md can be written");
        return;
    }
    for (line, made) in current.lines().zip(tables.lines()) {
        assert_eq!(line, made, "docs/metrics.md is out of date; `make docs` writes it anew");
    }
    assert_eq!(current.len(), tables.len(), "docs/metrics.md is cut off or goes on");
}

/// The names of all samples of a scrape, each line of which is read as OpenMetrics' grammar has it.
fn scraped() -> BTreeSet<String> {
    let scrape = metrics(&snapshot(1));
    let body = scrape.strip_suffix("# EOF\n").expect("the end of the scrape");
    let mut names = BTreeSet::new();
    let mut samples = BTreeSet::new();
    let (mut family, mut described) = (String::new(), BTreeSet::new());
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (keyword, rest) = comment.split_once(' ').expect(line);
            let (name, text) = rest.split_once(' ').expect(line);
            assert!(["HELP", "TYPE", "UNIT"].contains(&keyword), "{line}");
            assert!(!text.is_empty(), "{line}");
            if name != family {
                assert!(described.insert(name.to_owned()), "{name} is described twice");
                family = name.to_owned();
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect(line);
        value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        assert!(labels.ends_with('}'), "{line}");
        assert!(name.starts_with(&family), "{line} is not of {family}");
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        );
        assert!(samples.insert(sample.to_owned()), "{sample} comes twice");
        names.insert(name.to_owned());
    }
    names
}

#[test]
fn a_scrape_is_openmetrics_and_has_every_counter_once() {
    let names = scraped();
    for name in [
        "tidegate_build_info",
        "tidegate_uptime_seconds",
        "tidegate_tcp_passive_opens_total",
        "tidegate_tcp_rtt_seconds_bucket",
        "tidegate_http_response_seconds_sum",
        "tidegate_afxdp_kernel_rx_ring_full_total",
        "tidegate_shard_cpu_seconds_total",
    ] {
        assert!(names.contains(name), "no {name}");
    }
    let snapshot = snapshot(1);
    let scrape = metrics(&snapshot);
    for sample in [
        "tidegate_tcp_dropped_segments_total{shard=\"1\",reason=\"bad_ack\"} 7",
        "tidegate_tcp_connections{shard=\"1\",state=\"open\"} 41",
        "tidegate_xdp_frames_total{queue=\"2\",verdict=\"redirect\"} 0",
        "tidegate_syn_cookies_active{shard=\"1\"} 1",
        "tidegate_flood 1",
        "tidegate_frames{shard=\"0\",place=\"pool\"} 60",
        "tidegate_umem_frames{shard=\"0\"} 100",
        "tidegate_driver_lost_frames_total{counter=\"rx_missed_errors\"} 1",
        "tidegate_shard_cpu_seconds_total{shard=\"0\"} 0.4",
        // 300 microseconds are between 256 and 512.
        "tidegate_tcp_rtt_seconds_bucket{le=\"0.000256\",shard=\"0\"} 0",
        "tidegate_tcp_rtt_seconds_bucket{le=\"0.000512\",shard=\"0\"} 10",
        "tidegate_tcp_rtt_seconds_count{shard=\"0\"} 10",
        "tidegate_tcp_rtt_seconds_sum{shard=\"0\"} 0.003",
        "tidegate_tcp_accept_seconds_bucket{le=\"67.108864\",shard=\"0\"} 0",
        "tidegate_tcp_accept_seconds_bucket{le=\"+Inf\",shard=\"0\"} 1",
    ] {
        assert!(scrape.lines().any(|line| line == sample), "no {sample} in\n{scrape}");
    }
    let counted = scrape.lines().filter(|line| !line.starts_with('#')).count();
    let in_text = snapshot.rows().iter().map(|row| row.queues.len().max(1)).sum::<usize>();
    assert!(counted > in_text, "{counted} samples of {in_text} values");
}

/// The values that `text` compares `label` with; alternatives of a pattern are taken apart.
fn values_in<'a>(text: &'a str, label: &str) -> BTreeSet<&'a str> {
    let mut values = BTreeSet::new();
    for rest in text.split(label).skip(1) {
        let compared = rest.trim_start_matches(['=', '~', '!']);
        if compared.len() < rest.len()
            && let Some(value) = compared.strip_prefix('"').and_then(|value| value.split('"').next())
        {
            values.extend(value.split('|'));
        }
    }
    values
}

#[test]
fn queries_compare_labels_with_values_that_exist() {
    let scrape = metrics(&snapshot(1));
    let mut compared = 0;
    for file in [
        "grafana/tidegate.json",
        "prometheus/rules.yml",
        "prometheus/rules-test.yml",
    ] {
        let text = read(&format!("scripts/deploy/{file}")).replace("\\\"", "\"");
        for label in ["verdict", "reason", "state", "place"] {
            for value in values_in(&text, label) {
                let exists = scrape.contains(&format!("{label}=\"{value}\""));
                assert!(exists, "{file}: no {label} is {value}");
                compared += 1;
            }
        }
    }
    assert!(compared > 15, "only {compared} values found");
}

/// Every name of a metric of tidegate's in `text`.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("tidegate_"))
        .collect()
}

#[test]
fn queries_of_the_dashboard_and_of_the_alerts_are_for_metrics_that_exist() {
    let names = scraped();
    for file in [
        "grafana/tidegate.json",
        "prometheus/rules.yml",
        "prometheus/rules-test.yml",
    ] {
        let text = read(&format!("scripts/deploy/{file}"));
        let asked = metrics_in(&text);
        assert!(asked.len() > 15, "only {asked:?} in {file}");
        for name in asked {
            assert!(names.contains(name), "{file} asks for {name}");
        }
    }
    serde_json::from_str::<serde_json::Value>(&read("scripts/deploy/grafana/tidegate.json")).expect("JSON");
}

#[test]
fn every_alert_has_a_heading_in_the_runbook() {
    let operations = read("docs/operations.md");
    let rules = read("scripts/deploy/prometheus/rules.yml");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut count = 0;
    for alert in alerts {
        assert!(operations.lines().any(|line| line == format!("### {alert}")), "{alert}");
        let anchor = format!("runbook: docs/operations.md#{}", alert.to_lowercase());
        assert!(rules.contains(&anchor), "{anchor}");
        count += 1;
    }
    assert!(count > 10, "only {count} alerts");
}
