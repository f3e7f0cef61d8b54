//! Percentiles of what histograms have counted between two snapshots.

use serde_json::{Value, json};
use tidegate_tcp::histogram::Histogram;

/// The percentiles that are told.
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

/// Number and percentiles, in microseconds, of the durations in `now` that are not in `before`; without any, they are
/// null.
pub(crate) fn latency(before: &Histogram, now: &Histogram) -> Value {
    let counts = now.buckets().zip(before.buckets());
    // What an earlier runtime of this process had counted may be in the second only.
    let buckets: Vec<(u64, u64)> = counts
        .map(|((end, now), (_, before))| (end, now.saturating_sub(before)))
        .collect();
    let count: u64 = buckets.iter().map(|(_, count)| count).sum();
    let mut latency = json!({ "count": count });
    for (name, part) in PERCENTILES {
        latency[name] = percentile(&buckets, part).map_or(Value::Null, Value::from);
    }
    latency
}

/// The duration that `part` of all do not exceed, as if those of a bucket were spread evenly. Each bucket is given by
/// its end and its count.
fn percentile(buckets: &[(u64, u64)], part: f64) -> Option<u64> {
    let count: u64 = buckets.iter().map(|(_, count)| count).sum();
    let rank = part * count as f64;
    let (mut below, mut start) = (0, 0);
    for &(end, count) in buckets {
        if count > 0 && (below + count) as f64 >= rank {
            let within = (rank - below as f64) / count as f64;
            return Some(start + ((end - start) as f64 * within).round() as u64);
        }
        below += count;
        start = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_came_since() {
        let mut before = Histogram::default();
        (0..1000).for_each(|_| before.record(100_000));
        let mut now = before.clone();
        assert_eq!(latency(&before, &now)["p50"], Value::Null);
        (0..90).for_each(|_| now.record(100));
        (0..10).for_each(|_| now.record(5000));
        let found = latency(&before, &now);
        assert_eq!(found["count"], 100);
        let within = |name: &str, low: u64, high: u64| {
            let value = found[name].as_u64().unwrap();
            assert!((low..=high).contains(&value), "{name} is {value}");
        };
        within("p50", 96, 112);
        within("p90", 96, 112);
        within("p99", 4096, 5120);
    }
}
