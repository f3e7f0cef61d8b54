//! Latencies of several runs, put together: percentiles cannot be averaged, histograms can be added.

use std::collections::BTreeMap;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use tidegate_args::UsageError;

use super::{LATENCY, hgrm, log, micros, text_table};

/// The name of what has no tag.
const NO_TAG: &str = "(no tag)";

/// The names of the columns.
pub(super) const COLUMNS: [&str; 9] = [
    "tag",
    "logs",
    "intervals",
    "values",
    "p50 us",
    "p90 us",
    "p99 us",
    "p99.9 us",
    "max us",
];

/// Histograms by tag.
#[derive(Clone, Debug, Default)]
pub(super) struct Merged {
    tags: BTreeMap<String, Part>,
    logs: u64,
}

/// What was found under one tag.
#[derive(Clone, Debug)]
struct Part {
    /// In nanoseconds.
    histogram: Histogram<u64>,
    intervals: u64,
    logs: u64,
    /// The number of the log that was last added.
    last_log: u64,
}

impl Merged {
    /// Adds an interval log.
    ///
    /// # Errors
    ///
    /// The log is broken, and the error says in which line; or a histogram has too great values to be added.
    pub(super) fn add(&mut self, text: &str) -> anyhow::Result<()> {
        let intervals = log::parse(text)?;
        self.logs += 1;
        for interval in intervals {
            let tag = interval.tag.unwrap_or_else(|| NO_TAG.to_owned());
            let part = self.tags.entry(tag).or_insert_with(|| Part::like(&interval.histogram));
            part.histogram
                .add(&interval.histogram)
                .context("a histogram cannot be added to the others of its tag")?;
            part.intervals += 1;
            if part.last_log != self.logs {
                part.last_log = self.logs;
                part.logs += 1;
            }
        }
        Ok(())
    }

    /// Tags and what was recorded under each, in nanoseconds.
    pub(super) fn histograms(&self) -> impl Iterator<Item = (&str, &Histogram<u64>)> {
        self.tags.iter().map(|(tag, part)| (tag.as_str(), &part.histogram))
    }

    /// The distribution of `tag` as `.hgrm` text in microseconds; without one, that of requests if there is one, else
    /// the only one.
    ///
    /// # Errors
    ///
    /// There is no such tag, or a choice has to be made (usage errors).
    pub(super) fn hgrm(&self, tag: Option<&str>) -> anyhow::Result<String> {
        let known = || self.tags.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let part = match tag {
            Some(tag) => self
                .tags
                .get(tag)
                .ok_or_else(|| UsageError(format!("there is nothing with the tag `{tag}`; there is: {}", known()))),
            None if self.tags.len() == 1 => self
                .tags
                .values()
                .next()
                .ok_or_else(|| UsageError("there is nothing to write".to_owned())),
            None => self.tags.get(LATENCY).ok_or_else(|| {
                UsageError(format!(
                    "--hgrm takes one distribution; choose one by --tag from: {}",
                    known()
                ))
            }),
        };
        Ok(hgrm::text(&part?.histogram))
    }

    /// One for each tag, in the order of [`COLUMNS`].
    pub(super) fn rows(&self) -> Vec<[String; COLUMNS.len()]> {
        let row = |(tag, part): (&String, &Part)| {
            let latency = |nanos: u64| format!("{:.1}", micros(nanos));
            let quantile = |quantile: f64| latency(part.histogram.value_at_quantile(quantile));
            [
                tag.clone(),
                part.logs.to_string(),
                part.intervals.to_string(),
                part.histogram.len().to_string(),
                quantile(0.5),
                quantile(0.9),
                quantile(0.99),
                quantile(0.999),
                latency(part.histogram.max()),
            ]
        };
        self.tags.iter().map(row).collect()
    }

    /// The table as text.
    pub(super) fn text(&self) -> String {
        text_table::text(COLUMNS, &self.rows(), 1)
    }

    /// One object: `files`, and `tags` with one object for each.
    pub(super) fn json(&self, files: &[String]) -> Value {
        let tags: Map<String, Value> = self
            .tags
            .iter()
            .map(|(tag, part)| {
                let quantile = |quantile: f64| micros(part.histogram.value_at_quantile(quantile));
                let value = json!({
                    "logs": part.logs,
                    "intervals": part.intervals,
                    "latency_us": {
                        "count": part.histogram.len(),
                        "p50": quantile(0.5),
                        "p90": quantile(0.9),
                        "p99": quantile(0.99),
                        "p999": quantile(0.999),
                        "max": micros(part.histogram.max()),
                    },
                });
                (tag.clone(), value)
            })
            .collect();
        json!({ "files": files, "tags": tags })
    }
}

impl Part {
    /// Nothing yet, to which histograms such as `model` and greater ones can be added.
    fn like(model: &Histogram<u64>) -> Self {
        let mut histogram = model.clone();
        histogram.reset();
        histogram.auto(true);
        Self {
            histogram,
            intervals: 0,
            logs: 0,
            last_log: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::testing::{histogram, histogram_up_to};
    use super::*;

    fn log_of(distributions: &[(&str, &Histogram<u64>)]) -> String {
        let log = log::write("", SystemTime::now(), Duration::from_secs(1), distributions).unwrap();
        String::from_utf8(log).unwrap()
    }

    fn merged() -> Merged {
        let fast = histogram((1..=99).map(|micros| micros * 1_000));
        let connect = histogram([5_000]);
        // Made by something with another range.
        let slow = histogram_up_to(1_000_000_000_000, [900_000_000_000]);
        let mut merged = Merged::default();
        merged
            .add(&log_of(&[("latency", &fast), ("connect", &connect)]))
            .unwrap();
        merged.add(&log_of(&[("latency", &slow), ("latency", &slow)])).unwrap();
        merged
    }

    #[test]
    fn histograms_are_added_by_tag() {
        let merged = merged();
        let text = merged.text();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1][..4], ["connect", "1", "1", "1"]);
        assert_eq!(rows[2][..4], ["latency", "2", "3", "101"]);
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(widths.iter().all(|&width| width == widths[0]), "{text}");

        let json = merged.json(&["one".to_owned(), "two".to_owned()]);
        assert_eq!(json["files"], json!(["one", "two"]));
        let latency = &json["tags"]["latency"]["latency_us"];
        assert_eq!(latency["count"], 101);
        let near = |key: &str, expected: f64| {
            let found = latency[key].as_f64().unwrap();
            assert!((found - expected).abs() <= expected / 1_000.0, "{key}: {found}");
        };
        near("p50", 51.0);
        near("max", 900_000_000.0);
    }

    #[test]
    fn a_distribution_can_be_written_when_it_is_clear_which() {
        let merged = merged();
        let latency = merged.hgrm(None).unwrap();
        assert!(latency.contains("Total count    =          101]"), "{latency}");
        assert!(merged.hgrm(Some("connect")).unwrap().contains("=            1]"));
        let error = merged.hgrm(Some("x")).unwrap_err();
        assert!(error.is::<UsageError>());
        assert!(error.to_string().ends_with("there is: connect, latency"), "{error}");

        let one = histogram_up_to(10_000, [7]);
        let mut others = Merged::default();
        others.add(&log_of(&[("a", &one)])).unwrap();
        assert!(others.hgrm(None).is_ok());
        others.add(&log_of(&[("b", &one)])).unwrap();
        let error = others.hgrm(None).unwrap_err();
        assert!(
            error.is::<UsageError>() && error.to_string().ends_with("a, b"),
            "{error}"
        );
    }

    #[test]
    fn a_broken_log_is_an_error() {
        let error = Merged::default().add("nonsense\n").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
