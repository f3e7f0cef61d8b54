//! Merging latencies of several runs: percentiles cannot be averaged, histograms can be added.

use std::collections::BTreeMap;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use tidegate_args::UsageError;

use crate::percentiles::{self, HOW_TO_READ_PERCENTILES};
use crate::{Column, LATENCY, Page, Quantiles, Report, Row, Section, hgrm, interval_log};

/// The name for intervals without a tag.
const NO_TAG: &str = "(no tag)";

const COLUMNS: &[Column] = &[
    Column::name("tag", "{tag}"),
    Column::figure("logs", "{logs}"),
    Column::figure("intervals", "{intervals}"),
    Column::figure("values", "{latency_us.count}"),
    Column::figure("p50 us", "{latency_us.p50:1}"),
    Column::figure("p90 us", "{latency_us.p90:1}"),
    Column::figure("p99 us", "{latency_us.p99:1}"),
    Column::figure("p99.9 us", "{latency_us.p999:1}"),
    Column::figure("max us", "{latency_us.max:1}"),
];

/// Histograms by tag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merged {
    tags: BTreeMap<String, Part>,
    logs: u64,
}

/// The intervals of one tag.
#[derive(Clone, Debug)]
struct Part {
    /// The values, in nanoseconds.
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
    pub(crate) fn add(&mut self, text: &str) -> anyhow::Result<()> {
        let intervals = interval_log::parse(text)?;
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

    /// Returns the quantiles of `tag`; `None` if there is nothing.
    pub(crate) fn quantiles(&self, tag: &str) -> Option<Quantiles> {
        Quantiles::of(&self.tags.get(tag)?.histogram)
    }

    /// Returns the distributions by tag.
    pub(crate) fn histograms(&self) -> impl Iterator<Item = (&str, &Histogram<u64>)> {
        self.tags.iter().map(|(tag, part)| (tag.as_str(), &part.histogram))
    }

    /// Returns the distribution of `tag` as `.hgrm` text in microseconds; without one, that of requests if there is
    /// one, else the only one.
    ///
    /// # Errors
    ///
    /// There is no such tag, or a choice has to be made (usage errors).
    pub(crate) fn hgrm(&self, tag: Option<&str>) -> anyhow::Result<String> {
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

    /// Returns the report of what was read from `files`.
    pub(crate) fn report(&self, files: &[String]) -> Report {
        let row = |(tag, part): (&String, &Part)| {
            Row::new()
                .with("tag", tag.as_str())
                .with("logs", part.logs)
                .with("intervals", part.intervals)
                .with("latency_us", json!(Quantiles::of(&part.histogram)))
        };
        let rows: Vec<Row> = self.tags.iter().map(row).collect();
        let tags: Map<String, Value> = self
            .tags
            .keys()
            .zip(&rows)
            .map(|(tag, row)| {
                let mut fields = row.fields().clone();
                fields.remove("tag");
                (tag.clone(), fields.into())
            })
            .collect();
        let all: Vec<usize> = (0..rows.len()).collect();
        let mut sections: Vec<Section> = percentiles::percentiles(self.histograms()).into_iter().collect();
        sections.extend([
            Section::Heading("Results".to_owned()),
            Section::Table {
                columns: COLUMNS,
                rows: all.clone(),
            },
            Section::HowToRead(HOW_TO_READ_PERCENTILES),
            Section::Heading("Files".to_owned()),
            Section::Facts(
                (1..)
                    .zip(files)
                    .map(|(number, file): (u32, &String)| (number.to_string(), file.clone()))
                    .collect(),
            ),
        ]);
        let mut report = Report {
            kind: "merge",
            rows,
            page: Page {
                title: "tidegate-bench: merged latencies".to_owned(),
                introduction: format!("The interval logs of {} files, put together by tag.", files.len()),
                sections,
            },
            ..Report::default()
        };
        report.more.insert("files".to_owned(), files.into());
        report.more.insert("tags".to_owned(), tags.into());
        report.text = report.table(COLUMNS, &all);
        report
    }
}

impl Part {
    /// Returns an empty one, to which histograms such as `model` and greater ones can be added.
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

    use super::*;
    use crate::latencies::testing::{histogram, histogram_up_to};
    use crate::testing;

    fn log_of(distributions: &[(&str, &Histogram<u64>)]) -> String {
        let log = interval_log::write("", SystemTime::now(), Duration::from_secs(1), distributions).unwrap();
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
        let report = merged.report(&["<one>.hlog".to_owned(), "two".to_owned()]);
        let text = &report.text;
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1][..4], ["connect", "1", "1", "1"]);
        assert_eq!(rows[2][..4], ["latency", "2", "3", "101"]);
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(widths.iter().all(|&width| width == widths[0]), "{text}");

        let json = report.json();
        assert_eq!(json["files"], json!(["<one>.hlog", "two"]));
        assert_eq!(
            (&json["kind"], &json["rows"][1]["tag"]),
            (&json!("merge"), &json!("latency"))
        );
        assert_eq!(json["rows"][1]["latency_us"], json["tags"]["latency"]["latency_us"]);
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
    fn the_page_of_the_report_has_a_line_and_a_row_for_each_tag() {
        let mut report = merged().report(&["one <1>.hlog".to_owned()]);
        report.environment = testing::environment();
        testing::assert_report("merge", &report);
        let lines = report.page.sections.iter().find_map(|section| match section {
            Section::Lines(chart) => Some(&chart.lines),
            _ => None,
        });
        let names: Vec<&str> = lines.unwrap().iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["connect", "latency"]);
        let has_table = |section: &Section| matches!(section, Section::Table { rows, .. } if rows == &[0, 1]);
        assert!(report.page.sections.iter().any(has_table));
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

    #[test]
    fn without_a_tag_there_is_a_name_for_it() {
        let log = log_of(&[("x", &histogram([5_000]))]).replace("Tag=x,", "");
        let mut merged = Merged::default();
        merged.add(&log).unwrap();
        let report = merged.report(&[]);
        assert_eq!(report.rows[0].fill("{tag}: {latency_us.max:0} us"), "(no tag): 5 us");
        assert!(merged.hgrm(None).is_ok());
    }
}
