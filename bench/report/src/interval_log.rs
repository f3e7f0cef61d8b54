//! Interval logs: histograms as lines of text, the way HdrHistogram writes and reads them, so that those of several
//! machines can be merged.
//!
//! Each distribution of a run is one interval with its name as the tag. The values are nanoseconds, the histograms in
//! the V2 format, deflated.

use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

/// Nanoseconds in a millisecond, in which a log states the highest value of an interval for people.
const MAX_VALUE_DIVISOR: f64 = 1e6;

/// A histogram of a log.
#[derive(Clone, Debug)]
pub struct Interval {
    /// The name of the distribution.
    pub tag: Option<String>,
    /// The values, in nanoseconds.
    pub histogram: Histogram<u64>,
}

/// Returns the log of a measurement that began at `start` and took `duration`. Distributions without values are left
/// out. `comment` is for people; tags must be without comma, space and line break.
///
/// # Errors
///
/// A histogram cannot be written.
pub fn write(
    comment: &str,
    start: SystemTime,
    duration: Duration,
    distributions: &[(&str, &Histogram<u64>)],
) -> anyhow::Result<Vec<u8>> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(comment)
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(MAX_VALUE_DIVISOR)
        .begin_log_with(&mut log, &mut serializer)
        .context("cannot write the interval log")?;
    for &(name, histogram) in distributions {
        if histogram.is_empty() {
            continue;
        }
        let tag = Tag::new(name).ok_or_else(|| anyhow!("`{name}` cannot be the tag of an interval"))?;
        writer
            .write_histogram(histogram, Duration::ZERO, duration, Some(tag))
            .with_context(|| format!("cannot write the histogram `{name}`"))?;
    }
    Ok(log)
}

/// Returns the intervals of a log.
///
/// # Errors
///
/// A line is broken, and the error says which; or there is no interval.
pub fn parse(text: &str) -> anyhow::Result<Vec<Interval>> {
    let mut intervals = Vec::new();
    let mut deserializer = Deserializer::new();
    // Line by line, because the parser of a whole log does not say where it found an interval.
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let number = index + 1;
        let ended = format!("{line}\n");
        for entry in IntervalLogIterator::new(ended.as_bytes()) {
            match entry {
                Ok(LogEntry::Interval(interval)) => {
                    let histogram =
                        decode(&interval, &mut deserializer).with_context(|| format!("line {number} is broken"))?;
                    intervals.push(Interval {
                        tag: interval.tag().map(|tag| tag.as_str().to_owned()),
                        histogram,
                    });
                }
                Ok(LogEntry::StartTime(_) | LogEntry::BaseTime(_)) => {}
                Err(_) => bail!(
                    "line {number} is neither a comment nor an interval \
                     ([Tag=NAME,]START,LENGTH,MAXIMUM,HISTOGRAM)"
                ),
            }
        }
    }
    if intervals.is_empty() {
        bail!("there is no interval in it; it must be an interval log of HdrHistogram, as --log writes it");
    }
    Ok(intervals)
}

fn decode(interval: &IntervalLogHistogram<'_>, deserializer: &mut Deserializer) -> anyhow::Result<Histogram<u64>> {
    let bytes = STANDARD
        .decode(interval.encoded_histogram())
        .context("its histogram is not base64")?;
    deserializer
        .deserialize(&mut bytes.as_slice())
        .context("its histogram cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latencies::testing::histogram;

    fn log(distributions: &[(&str, &Histogram<u64>)]) -> String {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let bytes = write("a comment", start, Duration::from_secs(5), distributions).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let latency = histogram([1_000, 2_000_000, 60_000_000_000]);
        let connect = histogram([77]);
        let text = log(&[
            ("latency", &latency),
            ("nothing", &histogram([])),
            ("connect", &connect),
        ]);
        for part in [
            "#[Histogram log format version 1.3]\n",
            "#a comment\n",
            "#[StartTime: 1700000000.000 ",
            "#[BaseTime: 1700000000.000 ",
            "\nTag=latency,0.000,5.000,",
            "\nTag=connect,0.000,5.000,",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let intervals = parse(&text).unwrap();
        let tags: Vec<_> = intervals.iter().map(|interval| interval.tag.as_deref()).collect();
        assert_eq!(tags, [Some("latency"), Some("connect")]);
        assert!(intervals[0].histogram == latency && intervals[1].histogram == connect);
    }

    #[test]
    fn intervals_may_have_no_tag_and_lines_other_ends() {
        let text = log(&[("latency", &histogram([5]))]).replace("Tag=latency,", "");
        let text = text.replace('\n', "\r\n");
        let intervals = parse(&format!("\n{}", text.trim_end())).unwrap();
        assert_eq!(intervals.len(), 1);
        assert_eq!(intervals[0].tag, None);
        assert_eq!(intervals[0].histogram.len(), 1);
    }

    #[test]
    fn the_legend_of_other_writers_is_passed_over() {
        let legend = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";
        let text = legend.to_owned() + &log(&[("latency", &histogram([5]))]);
        assert_eq!(parse(&text).unwrap().len(), 1);
    }

    #[test]
    fn broken_logs_are_refused_with_the_line() {
        let good = log(&[("latency", &histogram([5, 6, 7]))]);
        let line = good.lines().count();
        // Part of the compressed histogram, and still whole groups of base64.
        let shortened = &good[..good.len() - 25];
        for (text, phrase) in [
            (good.clone() + "nonsense\n", format!("line {} is neither", line + 1)),
            (good.clone() + "1.0,2.0,x\n", format!("line {} is neither", line + 1)),
            (shortened.to_owned(), format!("line {line} is broken")),
            ("1.0,2.0,3.0,****\n".to_owned(), "not base64".to_owned()),
            ("1.0,2.0,3.0,AAAAAAAA\n".to_owned(), "cannot be read".to_owned()),
            ("#only a comment\n".to_owned(), "no interval".to_owned()),
            (String::new(), "no interval".to_owned()),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(&phrase), "{phrase}: {error}");
        }
    }

    #[test]
    fn a_tag_that_would_break_the_line_is_refused() {
        let values = histogram([1]);
        let result = write("", SystemTime::now(), Duration::ZERO, &[("a,b", &values)]);
        assert!(result.unwrap_err().to_string().contains("a,b"));
    }
}
