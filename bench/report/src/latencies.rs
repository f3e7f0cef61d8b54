//! Latencies and their quantiles.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency, in nanoseconds: two minutes. A longer one counts as this.
const MAX: u64 = 120_000_000_000;

/// Significant decimal digits that are kept.
const DIGITS: u8 = 3;

/// Latencies in nanoseconds, to three digits, up to two minutes.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// The number of latencies.
    pub count: u64,
    /// Half of all are at most this.
    pub p50: f64,
    /// 90 of 100 are at most this.
    pub p90: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// 999 of 1,000 are at most this.
    pub p999: f64,
    /// All are at most this.
    pub max: f64,
}

impl Quantiles {
    /// Returns the quantiles of a histogram in nanoseconds; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let quantile = |quantile| micros(histogram.value_at_quantile(quantile));
        // hdrhistogram does not define the maximum of nothing.
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: micros(histogram.max()),
        })
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// Returns an empty collection.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX, DIGITS);
        Self(histogram.expect("the bounds are constants that hdrhistogram allows"))
    }

    /// Records a latency.
    pub fn record(&mut self, latency: Duration) {
        self.record_nanos(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Records a latency in nanoseconds.
    fn record_nanos(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// Adds the latencies of another run.
    pub fn merge(&mut self, other: &Self) {
        let merged = self.0.add(&other.0);
        merged.expect("histograms with the same bounds can be added");
    }

    /// Takes away the latencies of `part`, which are among these.
    ///
    /// # Panics
    ///
    /// They are not.
    pub fn subtract(&mut self, part: &Self) {
        let rest = self.0.subtract(&part.0);
        rest.expect("the latencies are a part of the others, within the same bounds");
    }

    /// Forgets all of them, and keeps the memory.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Returns the number of latencies.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the quantiles; `None` if there are no latencies.
    pub fn quantiles(&self) -> Option<Quantiles> {
        Quantiles::of(&self.0)
    }

    /// Returns the latency that a part `quantile` of them, 0 to 1, is not above, in microseconds; `None` if there are
    /// none.
    pub fn at(&self, quantile: f64) -> Option<f64> {
        (!self.is_empty()).then(|| micros(self.0.value_at_quantile(quantile)))
    }

    /// Returns all of them, in nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}

/// Returns nanoseconds as microseconds.
pub(crate) fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

/// Histograms to test with.
#[cfg(test)]
pub(crate) mod testing {
    use hdrhistogram::Histogram;

    /// Returns a histogram of `values`, which are at most 120 s in nanoseconds.
    pub(crate) fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        histogram_up_to(super::MAX, values)
    }

    /// Returns a histogram of `values`, which are at most `highest`.
    pub(crate) fn histogram_up_to(highest: u64, values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, highest, 3).expect("the bounds are right");
        for value in values {
            histogram.record(value).expect("the value is within the bounds");
        }
        histogram
    }
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
        assert_eq!(latencies.len(), 0);
        assert!(latencies.is_empty() && latencies.quantiles().is_none() && latencies.at(0.5).is_none());
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let quantiles = latencies.quantiles().unwrap();
        assert_eq!((latencies.len(), quantiles.count), (1_000, 1_000));
        assert_near(quantiles.p50, 500.0);
        assert_near(quantiles.p90, 900.0);
        assert_near(quantiles.p99, 990.0);
        assert_near(quantiles.p999, 999.0);
        assert_near(latencies.at(0.95).unwrap(), 950.0);
        assert_near(quantiles.max, 1_000.0);
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_secs(10_000));
        latencies.record(Duration::MAX);
        assert_eq!(latencies.len(), 2);
        assert_near(latencies.quantiles().unwrap().max, micros(MAX));
    }

    #[test]
    fn merging_keeps_all() {
        let mut one = Latencies::new();
        let mut other = Latencies::new();
        one.record_nanos(1_000);
        other.record_nanos(9_000);
        one.merge(&other);
        assert_eq!(one.len(), 2);
        let quantiles = one.quantiles().unwrap();
        assert_near(quantiles.p50, 1.0);
        assert_near(quantiles.max, 9.0);
        assert_eq!(one.histogram().len(), 2);
        one.clear();
        assert!(one.is_empty() && one.quantiles().is_none());
    }

    #[test]
    fn what_is_taken_away_leaves_the_rest() {
        let mut all = Latencies::new();
        let mut part = Latencies::new();
        for millis in [1, 2, 2, 900_000] {
            all.record(Duration::from_millis(millis));
        }
        for millis in [2, 900_000] {
            part.record(Duration::from_millis(millis));
        }
        all.subtract(&part);
        let quantiles = all.quantiles().unwrap();
        assert_eq!(quantiles.count, 2);
        assert_near(quantiles.p50, 1_000.0);
        assert_near(quantiles.max, 2_000.0);
        all.subtract(&Latencies::new());
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn histograms_of_others_have_quantiles_too() {
        let histogram = testing::histogram_up_to(1_000_000_000_000, [900_000_000_000]);
        let quantiles = Quantiles::of(&histogram).unwrap();
        assert_eq!((quantiles.count, quantiles.p50), (1, quantiles.max));
        assert_near(quantiles.max, 900_000_000.0);
        assert_eq!(Quantiles::of(&testing::histogram([])), None);
    }
}
