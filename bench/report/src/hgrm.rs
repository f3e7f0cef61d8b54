//! The distribution of a histogram as text, the way `outputPercentileDistribution` of the Java HdrHistogram writes it.
//! Its plotter and others read that.

use std::fmt::Write;

use hdrhistogram::Histogram;

/// Lines for each half of the distance that is left to 100 %: the default of the original.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Nanoseconds, in which latencies are kept, in a microsecond, in which they are written.
const SCALE: f64 = 1_000.0;

/// Returns the text. The histogram is in nanoseconds; the values in the text are microseconds with three decimals.
pub fn text(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / SCALE;
        let quantile = step.quantile_iterated_to();
        // Writing to a String cannot fail.
        let _ = write!(text, "{value:12.3} {quantile:2.12} {count:10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.mean() / SCALE,
        histogram.stdev() / SCALE,
        histogram.max() as f64 / SCALE,
        histogram.len(),
        histogram.buckets(),
        sub_buckets(histogram)
    );
    text
}

/// Cells in each of the histogram's buckets: enough for its digits, and a power of two.
fn sub_buckets(histogram: &Histogram<u64>) -> u64 {
    (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latencies::testing::histogram;

    #[test]
    fn a_small_histogram_is_written_as_the_original_writes_it() {
        let expected = "\
\x20      Value     Percentile TotalCount 1/(1-Percentile)

       0.500 0.000000000000          1           1.00
       0.500 0.100000000000          1           1.11
       0.500 0.200000000000          1           1.25
       1.000 0.300000000000          2           1.43
       1.000 0.400000000000          2           1.67
       1.000 0.500000000000          2           2.00
       1.500 0.550000000000          3           2.22
       1.500 0.600000000000          3           2.50
       1.500 0.650000000000          3           2.86
       1.500 0.700000000000          3           3.33
       2.000 0.750000000000          4           4.00
       2.000 1.000000000000          4
#[Mean    =        1.250, StdDeviation   =        0.559]
#[Max     =        2.000, Total count    =            4]
#[Buckets =           27, SubBuckets     =         2048]
";
        assert_eq!(text(&histogram([2_000, 500, 1_500, 1_000])), expected);
    }

    #[test]
    fn an_empty_histogram_has_no_lines() {
        let text = text(&histogram([]));
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains("Total count    =            0]"), "{text}");
    }

    #[test]
    fn sub_buckets_follow_from_the_digits() {
        for (digits, count) in [(0, 2), (1, 32), (2, 256), (3, 2_048), (4, 32_768), (5, 262_144)] {
            let histogram = Histogram::<u64>::new(digits).unwrap();
            assert_eq!(sub_buckets(&histogram), count, "{digits} digits");
        }
    }
}
