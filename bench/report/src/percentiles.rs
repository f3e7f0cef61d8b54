//! The chart of latency by percentile.

use hdrhistogram::Histogram;

use crate::latencies::micros;
use crate::{Line, Lines, Scale, Section, XAxis, YAxis};

/// Points for each half of the distance that is left to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 10;

/// The explanation of the chart, for the page.
pub const HOW_TO_READ_PERCENTILES: &[&str] = &[
    "The chart shows which part of all latencies is at most how long. Each step to the right leaves a tenth of what \
     was left before, so rare delays have as much room as common ones; each step up is ten times as long. A flat line \
     is a server that treats all alike. A line ends at the longest of all that were counted.",
    "A latency is counted from the beginning of a request until its last byte; of **cps** from the SYN; of **latency** \
     from when the request was due, so that a server that stands still for a second is seen as slow by all who would \
     have come in that second. **connect** is from the SYN until the connection is established.",
];

/// Returns a chart with a line for each distribution that has values; nothing if none has. The histograms
/// are in nanoseconds.
pub fn percentiles<'a>(distributions: impl IntoIterator<Item = (&'a str, &'a Histogram<u64>)>) -> Option<Section> {
    let lines: Vec<Line> = distributions
        .into_iter()
        .filter(|(_, histogram)| !histogram.is_empty())
        .map(|(name, histogram)| line(name, histogram))
        .collect();
    if lines.is_empty() {
        return None;
    }
    Some(Section::Lines(Lines {
        title: "Latency by percentile".to_owned(),
        x: XAxis {
            title: "percentile",
            names: None,
            scale: None,
        },
        y: YAxis {
            title: "latency",
            scale: Scale::Micros,
        },
        lines,
        marks: Vec::new(),
    }))
}

/// Returns the line of `histogram`: the number of nines, and the latency in microseconds.
fn line(name: &str, histogram: &Histogram<u64>) -> Line {
    // The longest of n stands where one of n is longer; further right there is nothing to know.
    let last = (histogram.len().max(1) as f64).log10();
    let points = histogram
        .iter_quantiles(TICKS_PER_HALF_DISTANCE)
        .map(|step| {
            let rest = 1.0 - step.quantile_iterated_to();
            let nines = if rest > 0.0 { (-rest.log10()).min(last) } else { last };
            (nines, micros(step.value_iterated_to()))
        })
        .collect();
    Line {
        name: name.to_owned(),
        points,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latencies::testing::histogram;

    #[test]
    fn points_are_where_the_quantiles_are() {
        let line = line("latency", &histogram((1..=1_000).map(|value| value * 1_000)));
        assert_eq!(line.points[0], (0.0, 1.0));
        let &(x, y) = line.points.last().unwrap();
        assert!((x - 3.0).abs() < 1e-9 && (y - 1_000.0).abs() < 1.0, "{x} {y}");
        assert!(
            line.points
                .is_sorted_by(|one, other| one.0 <= other.0 && one.1 <= other.1)
        );
    }

    #[test]
    fn what_has_no_values_is_not_drawn() {
        let (some, none) = (histogram([42_000]), histogram([]));
        assert!(percentiles([("latency", &none)]).is_none());
        let Some(Section::Lines(chart)) = percentiles([("latency", &none), ("connect", &some)]) else {
            panic!("there is a chart");
        };
        let names: Vec<&str> = chart.lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["connect"]);
        assert!(chart.lines[0].points.iter().all(|&(x, _)| x == 0.0));
    }
}
