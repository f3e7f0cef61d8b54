//! Latencies and what is told of them.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A longer latency counts as this, in nanoseconds: two minutes.
const LONGEST: u64 = 120_000_000_000;

/// Significant decimal digits that are kept.
const DIGITS: u8 = 3;

/// Latencies in nanoseconds, to three digits, up to two minutes.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS);
        Self(histogram.expect("the bounds are constants that hdrhistogram allows"))
    }

    /// Counts one.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.record_nanos(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts one, in nanoseconds.
    pub(crate) fn record_nanos(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// Adds those of another run.
    pub(crate) fn merge(&mut self, other: &Self) {
        let merged = self.0.add(&other.0);
        merged.expect("histograms with the same bounds can be added");
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// The latency in microseconds that the part `quantile`, 0 to 1, of all does not exceed; 0 if there are none.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        micros(self.0.value_at_quantile(quantile))
    }

    /// The longest in microseconds; 0 if there are none.
    pub(crate) fn max_us(&self) -> f64 {
        // hdrhistogram does not define the maximum of nothing.
        if self.0.is_empty() { 0.0 } else { micros(self.0.max()) }
    }

    /// All of them, in nanoseconds.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= expected / 1_000.0, "{found} for {expected}");
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new();
        assert_eq!((latencies.len(), latencies.max_us()), (0, 0.0));
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }
        assert_eq!(latencies.len(), 1_000);
        assert_near(latencies.quantile_us(0.5), 500.0);
        assert_near(latencies.quantile_us(0.99), 990.0);
        assert_near(latencies.max_us(), 1_000.0);
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_secs(10_000));
        latencies.record(Duration::MAX);
        assert_eq!(latencies.len(), 2);
        assert_near(latencies.max_us(), micros(LONGEST));
    }

    #[test]
    fn merging_keeps_all() {
        let mut one = Latencies::new();
        let mut other = Latencies::new();
        one.record_nanos(1_000);
        other.record_nanos(9_000);
        one.merge(&other);
        assert_eq!(one.len(), 2);
        assert_near(one.quantile_us(0.5), 1.0);
        assert_near(one.max_us(), 9.0);
        assert_eq!(one.histogram().len(), 2);
    }
}
