//! A snapshot as families of metrics, named and grouped as Prometheus' conventions ask for.

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use tidegate_tcp::histogram::Histogram;

use tidegate_control::State;

use super::Snapshot;
use crate::counter_rows::{Kind, Row};

/// The least and the largest upper bound of a histogram's buckets, as exponents of 2: 16 microseconds and 67 seconds.
const BOUNDS: (u32, u32) = (4, 26);

/// Metrics of one name.
#[derive(Debug)]
pub(super) struct Family {
    /// Without the prefix of all and the suffix of its kind.
    pub(super) name: String,
    pub(super) help: String,
    pub(super) kind: MetricType,
    pub(super) unit: Option<Unit>,
    pub(super) samples: Vec<Sample>,
}

/// One metric.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

/// The value of a metric.
#[derive(Debug)]
pub(super) enum Value {
    Whole(u64),
    Seconds(f64),
    Buckets {
        sum: f64,
        count: u64,
        /// Upper bound, and what is below it and in no bucket before.
        buckets: Vec<(f64, u64)>,
    },
    /// The labels are all there is.
    Info,
}

/// Counters that are one metric by a label: the beginning of their names, the metric's name, its label, and the help.
const GROUPS: [(&str, &str, &str, &str); 7] = [
    ("xdp_decapsulated", "", "", ""),
    (
        "xdp_",
        "xdp_frames",
        "verdict",
        "Frames that a receive queue of the device got, by the XDP program's verdict and its reason.",
    ),
    (
        "tcp_drop_",
        "tcp_dropped_segments",
        "reason",
        "Segments, or their data, that the engine dropped, by reason.",
    ),
    (
        "http_responses_",
        "http_responses",
        "class",
        "Responses by the class of their status.",
    ),
    (
        "driver_",
        "driver_lost_frames",
        "counter",
        "Frames lost as the device's driver counts them, by its own names; those that are not zero.",
    ),
    ("frames_total", "", "", ""),
    (
        "frames_",
        "frames",
        "place",
        "Frames of a shard's UMEM by where they are; those of other shards, that are in no sum, are foreign.",
    ),
];

/// Gauges of the connections, with the state each counts.
const STATES: [(&str, &str); 3] = [
    ("tcp_connections", "open"),
    ("tcp_half_open", "half_open"),
    ("tcp_time_wait", "time_wait"),
];

/// The name of the metric that a counter is part of, with its label and the help, if it is a part.
pub(super) fn grouped(name: &str) -> (&str, Option<(&'static str, String)>, Option<&'static str>) {
    if let Some((_, state)) = STATES.iter().find(|(gauge, _)| *gauge == name) {
        let help = "Connections: open are those from ESTABLISHED to LAST-ACK, half_open those in SYN-RECEIVED.";
        return ("tcp_connections", Some(("state", (*state).to_owned())), Some(help));
    }
    let group = GROUPS.iter().find(|(prefix, ..)| name.starts_with(prefix));
    match group {
        Some((prefix, family, label, help)) if !family.is_empty() => {
            (family, Some((label, name[prefix.len()..].to_owned())), Some(help))
        }
        // `_total` is what the names of counters end in.
        _ if name == "frames_total" => ("umem_frames", None, None),
        _ => (name, None, None),
    }
}

/// Documentation as plain text: without the marks of rustdoc, in one line.
pub(super) fn plain(description: &str) -> String {
    let text: String = description.chars().filter(|c| !"[]`".contains(*c)).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('\\', "")
}

/// The families of `rows`.
fn of_rows(rows: &[Row]) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for row in rows {
        let (name, label, help) = grouped(&row.name);
        // The XDP program counts by receive queue, whether a shard serves it or not.
        let of = if row.name.starts_with("xdp_") { "queue" } else { "shard" };
        let place = families.iter().position(|family| family.name == name);
        let place = place.unwrap_or_else(|| {
            families.push(Family {
                name: name.to_owned(),
                help: help.map_or_else(|| plain(&row.description), str::to_owned),
                kind: match row.kind {
                    Kind::Counter => MetricType::Counter,
                    Kind::Gauge => MetricType::Gauge,
                },
                unit: None,
                samples: Vec::new(),
            });
            families.len() - 1
        });
        let samples = &mut families[place].samples;
        let sample = |queue: Option<u32>, value: u64| Sample {
            labels: queue
                .map(|queue| (of, queue.to_string()))
                .into_iter()
                .chain(label.clone())
                .collect(),
            value: Value::Whole(value),
        };
        if row.queues.is_empty() {
            samples.push(sample(None, row.total));
        }
        samples.extend(row.queues.iter().map(|&(queue, value)| sample(Some(queue), value)));
    }
    families
}

/// The whole of a histogram in buckets of powers of two.
fn coarse(histogram: &Histogram) -> Value {
    let mut buckets: Vec<(f64, u64)> = (BOUNDS.0..=BOUNDS.1)
        .map(|exponent| (f64::from(1_u32 << exponent) / 1e6, 0))
        .chain([(f64::INFINITY, 0)])
        .collect();
    for (end, count) in histogram.buckets() {
        // The bounds of the buckets of a histogram are those of powers of two, and some between.
        let exponent = end.next_power_of_two().trailing_zeros();
        let place = exponent.saturating_sub(BOUNDS.0) as usize;
        let last = buckets.len() - 1;
        buckets[place.min(last)].1 += count;
    }
    Value::Buckets {
        sum: histogram.sum_micros() as f64 / 1e6,
        count: histogram.count(),
        buckets,
    }
}

/// A family of one kind of number or histogram for each shard.
fn by_shard(name: &str, help: &str, kind: MetricType, samples: impl Iterator<Item = (u32, Value)>) -> Family {
    Family {
        name: name.to_owned(),
        help: help.to_owned(),
        kind,
        unit: Some(Unit::Seconds),
        samples: samples
            .map(|(shard, value)| Sample {
                labels: vec![("shard", shard.to_string())],
                value,
            })
            .collect(),
    }
}

/// A family of one gauge.
fn gauge(name: &str, help: &str, unit: Option<Unit>, value: Value) -> Family {
    Family {
        name: name.to_owned(),
        help: help.to_owned(),
        kind: MetricType::Gauge,
        unit,
        samples: vec![Sample {
            labels: Vec::new(),
            value,
        }],
    }
}

/// Facts of the program and its queues.
fn infos(snapshot: &Snapshot) -> [Family; 2] {
    let info = &snapshot.info;
    let family = |name: &str, help: &str, samples| Family {
        name: name.to_owned(),
        help: help.to_owned(),
        kind: MetricType::Info,
        unit: None,
        samples,
    };
    let labels = |labels: Vec<(&'static str, String)>| Sample {
        labels,
        value: Value::Info,
    };
    let build = labels(vec![("version", env!("CARGO_PKG_VERSION").to_owned())]);
    let queues = info.queues.iter().map(|queue| {
        labels(vec![
            ("shard", queue.queue.to_string()),
            ("cpu", queue.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string())),
            ("xdp", info.xdp.clone()),
            ("af_xdp", if queue.zero_copy { "zero-copy" } else { "copy" }.to_owned()),
        ])
    });
    [
        family("build", "The version of tidegate.", vec![build]),
        family(
            "shard",
            "The CPU of each shard, where the kernel runs the XDP program, and how frames come to the AF_XDP socket.",
            queues.collect(),
        ),
    ]
}

/// Everything a scrape has, in its order.
pub(super) fn families(snapshot: &Snapshot) -> Vec<Family> {
    let mut families: Vec<Family> = infos(snapshot).into();
    let whole = |condition: bool| Value::Whole(condition.into());
    families.extend([
        gauge(
            "uptime",
            "Time since the process began to serve.",
            Some(Unit::Seconds),
            Value::Seconds(snapshot.uptime().as_secs_f64()),
        ),
        gauge(
            "ready",
            "Whether new connections are taken.",
            None,
            whole(snapshot.state == State::Serving),
        ),
        gauge(
            "flood",
            "Whether SYN cookies are on because a queue is under pressure.",
            None,
            whole(snapshot.is_flooded()),
        ),
    ]);
    families.extend(of_rows(&snapshot.rows()));
    let shards = &snapshot.report.shards;
    families.extend([
        by_shard(
            "shard_cpu",
            "Processor time of a shard's thread.",
            MetricType::Counter,
            shards
                .iter()
                .map(|shard| (shard.queue, Value::Seconds(shard.cpu_time.as_secs_f64()))),
        ),
        by_shard(
            "tcp_rtt",
            "Round-trip times, each measurement that a retransmission timeout is taken from.",
            MetricType::Histogram,
            shards.iter().map(|shard| (shard.queue, coarse(&shard.latencies.rtt))),
        ),
        by_shard(
            "tcp_accept",
            "Time from a SYN's first SYN-ACK to ESTABLISHED; SYNs that were answered with cookies are not counted.",
            MetricType::Histogram,
            shards
                .iter()
                .map(|shard| (shard.queue, coarse(&shard.latencies.accept))),
        ),
        by_shard(
            "http_response",
            "Time from the end of a request to when TCP had taken the last octet of its response; 0 for a response \
             from memory that found room at once.",
            MetricType::Histogram,
            shards
                .iter()
                .zip(&snapshot.services)
                .map(|(shard, counts)| (shard.queue, coarse(&counts.response_time))),
        ),
    ]);
    families
}
