//! Latencies and what is told of them.

use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;

/// A longer latency counts as this, in microseconds.
const LONGEST: u64 = 120_000_000;

/// Latencies, to three digits.
pub(super) struct Latencies(Histogram<u64>);

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantiles {
    /// Half of all are at most this.
    pub(super) p50: u64,
    /// 90 of 100 are.
    pub(super) p90: u64,
    /// 99 of 100 are.
    pub(super) p99: u64,
    /// All are.
    pub(super) max: u64,
}

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    ///
    /// The histogram cannot be made.
    pub(super) fn new() -> anyhow::Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3).context("cannot make a histogram of latencies")?;
        Ok(Self(histogram))
    }

    /// Counts one.
    pub(super) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    /// The quantiles; `None` if there are no latencies.
    pub(super) fn quantiles(&self) -> Option<Quantiles> {
        if self.0.is_empty() {
            return None;
        }
        Some(Quantiles {
            p50: self.0.value_at_quantile(0.50),
            p90: self.0.value_at_quantile(0.90),
            p99: self.0.value_at_quantile(0.99),
            max: self.0.max(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.quantiles(), None);
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let quantiles = Quantiles {
            p50: 500,
            p90: 900,
            p99: 990,
            max: 1_000,
        };
        assert_eq!(latencies.quantiles(), Some(quantiles));
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::from_secs(10_000));
        let max = latencies.quantiles().unwrap().max;
        assert!(max.abs_diff(LONGEST) <= LONGEST / 1_000, "{max}");
    }
}
