//! `/metrics`: a snapshot in OpenMetrics' text format.

use core::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Snapshot;
use super::families::{Family, Value, families};

/// The media type of OpenMetrics' text format.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The prefix of all names.
const PREFIX: &str = "tidegate";

/// No exemplars have labels: there are none.
type NoLabels = [(&'static str, &'static str); 0];

/// Families as a collector.
#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let mut metric =
                encoder.encode_descriptor(&family.name, &family.help, family.unit.as_ref(), family.kind)?;
            for sample in &family.samples {
                match &sample.value {
                    Value::Info => metric.encode_info(&sample.labels)?,
                    value => encode(metric.encode_family(&sample.labels)?, family.kind, value)?,
                }
            }
        }
        Ok(())
    }
}

fn encode(mut encoder: MetricEncoder<'_>, kind: MetricType, value: &Value) -> fmt::Result {
    match (kind, value) {
        (MetricType::Counter, Value::Whole(value)) => encoder.encode_counter::<NoLabels, _, u64>(value, None),
        (MetricType::Counter, Value::Seconds(value)) => encoder.encode_counter::<NoLabels, _, f64>(value, None),
        (_, Value::Whole(value)) => encoder.encode_gauge(value),
        (_, Value::Seconds(value)) => encoder.encode_gauge(value),
        (_, Value::Buckets { sum, count, buckets }) => {
            encoder.encode_histogram::<NoLabels>(*sum, *count, buckets, None)
        }
        (_, Value::Info) => Ok(()),
    }
}

/// The text of a scrape.
pub(super) fn metrics(snapshot: &Snapshot) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Families(families(snapshot))));
    let mut scrape = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut scrape, &registry);
    scrape
}
