//! `/api/v1`: snapshots and rates as JSON. Names are added, and none is taken away or changes its meaning.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidegate_control::State;
use tidegate_runtime::ShardReport;
use tidegate_tcp::histogram::Histogram;

use super::Snapshot;
use super::families::plain;
use super::latency::latency;
use crate::counter_rows::Row;

/// Counters that count something lost, beside those whose names say so.
const LOSSES: [&str; 10] = [
    "afxdp_handover_full",
    "afxdp_rx_too_long",
    "afxdp_rx_no_buffer",
    "afxdp_tx_link_gone",
    "afxdp_kernel_rx_dropped",
    "afxdp_kernel_rx_invalid_descs",
    "afxdp_kernel_tx_invalid_descs",
    "afxdp_kernel_rx_ring_full",
    "afxdp_kernel_rx_fill_ring_empty_descs",
    "tcp_half_open_evicted",
];

/// Rates by name, with the counters that each is the sum of.
const RATES: [(&str, &[&str]); 13] = [
    ("connections", &["tcp_passive_opens"]),
    ("requests", &["http_requests"]),
    ("responses_4xx", &["http_responses_4xx"]),
    ("responses_5xx", &["http_responses_5xx"]),
    ("rx_frames", &["afxdp_rx_frames"]),
    ("rx_bytes", &["afxdp_rx_bytes"]),
    ("tx_frames", &["afxdp_tx_frames"]),
    ("tx_bytes", &["afxdp_tx_bytes"]),
    ("syns", &["tcp_syns_in"]),
    ("cookies_sent", &["xdp_tx_syn_cookie"]),
    ("cookie_connections", &["tcp_cookie_connections"]),
    ("retransmits", &["tcp_rto_retransmits", "tcp_fast_retransmits"]),
    ("segments", &["tcp_frames_out"]),
];

/// Whether the counter of this name is of something that was lost.
pub(crate) fn is_loss(name: &str) -> bool {
    LOSSES.contains(&name) || name.contains("_drop_") || name.contains("_lost") || name.starts_with("driver_")
}

fn state(snapshot: &Snapshot) -> Value {
    json!({
        "state": snapshot.state,
        "ready": snapshot.state == State::Serving,
        "flood": snapshot.is_flooded(),
        "cookies": snapshot.report.syn_cookies.iter().any(|cookies| cookies.active),
        "uptime_seconds": snapshot.uptime().as_secs_f64(),
    })
}

/// Facts of the server beside its counters.
pub(super) fn info(snapshot: &Snapshot) -> Value {
    let info = &snapshot.info;
    let queues = info.queues.iter().map(|queue| {
        json!({
            "queue": queue.queue,
            "cpu": queue.cpu,
            "af_xdp": if queue.zero_copy { "zero-copy" } else { "copy" },
            "frames": queue.frames,
        })
    });
    let mut value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "interfaces": info.interfaces,
        "devices": info.devices,
        "xdp": info.xdp,
        "queues": queues.collect::<Vec<_>>(),
        "listeners": info.listeners,
    });
    extend(&mut value, state(snapshot));
    value
}

/// All counters by the names that SIGUSR1 prints, each in total and by queue, and the latencies.
pub(super) fn report(snapshot: &Snapshot) -> Value {
    let counters: Map<String, Value> = snapshot
        .rows()
        .into_iter()
        .map(|row| {
            let queues: BTreeMap<String, u64> = row
                .queues
                .iter()
                .map(|(queue, value)| (queue.to_string(), *value))
                .collect();
            (row.name, json!({ "total": row.total, "queues": queues }))
        })
        .collect();
    let mut value = json!({
        "counters": counters,
        "latencies_us": {
            "rtt": buckets(&total(snapshot, |shard| &shard.latencies.rtt)),
            "accept": buckets(&total(snapshot, |shard| &shard.latencies.accept)),
            "response": buckets(&responses(snapshot)),
        },
    });
    extend(&mut value, state(snapshot));
    value
}

/// The rates between two snapshots, and the state at the second.
pub(super) fn rates(before: &Snapshot, now: &Snapshot) -> Value {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let (rows_before, rows) = (before.rows(), now.rows());
    let earlier: BTreeMap<&str, u64> = rows_before.iter().map(|row| (row.name.as_str(), row.total)).collect();
    let rate = |row: &Row| {
        let before = earlier.get(row.name.as_str()).copied().unwrap_or(0);
        row.total.saturating_sub(before) as f64 / seconds
    };
    let rate_of = |name: &&str| rows.iter().find(|row| row.name == *name).map_or(0.0, rate);
    let rates = RATES.map(|(name, counters)| (name, counters.iter().map(rate_of).sum::<f64>()));
    let drops: Vec<Value> = rows
        .iter()
        .filter(|row| row.total > 0 && is_loss(&row.name))
        .map(|row| {
            json!({ "name": row.name, "rate": rate(row), "total": row.total, "meaning": plain(&row.description) })
        })
        .collect();
    let mut population = tidegate_tcp::engine::Population::default();
    now.report
        .shards
        .iter()
        .for_each(|shard| population.merge(shard.population));
    let mut value = json!({
        "seconds": seconds,
        "rates": rates.into_iter().collect::<BTreeMap<_, _>>(),
        "connections": {
            "open": population.connections,
            "half_open": population.half_open,
            "time_wait": population.time_wait,
        },
        "drops": drops,
        "latencies_us": {
            "rtt": latency(
                &total(before, |shard| &shard.latencies.rtt),
                &total(now, |shard| &shard.latencies.rtt),
            ),
            "accept": latency(
                &total(before, |shard| &shard.latencies.accept),
                &total(now, |shard| &shard.latencies.accept),
            ),
            "response": latency(&responses(before), &responses(now)),
        },
        "shards": shards(before, now, seconds),
    });
    extend(&mut value, state(now));
    value
}

/// The rates and the load of each shard.
fn shards(before: &Snapshot, now: &Snapshot, seconds: f64) -> Vec<Value> {
    let shard = |shard: &ShardReport| {
        let none = ShardReport::default();
        let earlier = before.report.shards.iter().find(|earlier| earlier.queue == shard.queue);
        let earlier = earlier.unwrap_or(&none);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let turns = shard.port.turns.saturating_sub(earlier.port.turns);
        let worked = shard.port.turns_worked.saturating_sub(earlier.port.turns_worked);
        let cookies = now
            .report
            .syn_cookies
            .iter()
            .find(|cookies| cookies.queue == shard.queue);
        json!({
            "shard": shard.queue,
            "cpu": shard.cpu_time.saturating_sub(earlier.cpu_time).as_secs_f64() / seconds,
            "worked": if turns == 0 { 0.0 } else { worked as f64 / turns as f64 },
            "rx_frames": rate(shard.port.rx_frames, earlier.port.rx_frames),
            "tx_frames": rate(shard.port.tx_frames, earlier.port.tx_frames),
            "connections": shard.population.connections,
            "cookies": cookies.is_some_and(|cookies| cookies.active),
            "frames_free": shard.frames.pool,
            "frames": shard.frames.total,
        })
    };
    now.report.shards.iter().map(shard).collect()
}

/// The sum of one histogram over all shards.
fn total(snapshot: &Snapshot, of: impl Fn(&ShardReport) -> &Histogram) -> Histogram {
    let mut sum = Histogram::default();
    snapshot.report.shards.iter().for_each(|shard| sum.merge(of(shard)));
    sum
}

fn responses(snapshot: &Snapshot) -> Histogram {
    let mut sum = Histogram::default();
    snapshot
        .services
        .iter()
        .for_each(|counts| sum.merge(&counts.response_time));
    sum
}

/// The buckets that are not empty: the duration that is above each, in microseconds, and its count.
fn buckets(histogram: &Histogram) -> Vec<(u64, u64)> {
    histogram.buckets().filter(|(_, count)| *count > 0).collect()
}

/// Adds the fields of another object.
fn extend(object: &mut Value, other: Value) {
    if let (Value::Object(object), Value::Object(other)) = (object, other) {
        object.extend(other);
    }
}
