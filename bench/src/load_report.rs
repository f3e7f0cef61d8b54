//! What a load run found, for people and for programs.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::connection::{Failure, FailureKind};
use crate::http_client::Response;

/// Latencies are kept in microseconds up to this one; a longer one counts as this.
const LONGEST_LATENCY: u64 = 120_000_000;

/// Counts, latencies and the first response, which all others have to equal.
pub(crate) struct LoadReport {
    requests: u64,
    body_bytes: u64,
    failures: [u64; FailureKind::ALL.len()],
    first_failure: Option<Failure>,
    reference: Option<Response>,
    latency: Histogram<u64>,
    elapsed: Duration,
}

impl LoadReport {
    /// An empty report.
    ///
    /// # Errors
    ///
    /// The histogram cannot be made.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            requests: 0,
            body_bytes: 0,
            failures: [0; FailureKind::ALL.len()],
            first_failure: None,
            reference: None,
            latency: Histogram::new_with_bounds(1, LONGEST_LATENCY, 3).context("cannot make the latency histogram")?,
            elapsed: Duration::ZERO,
        })
    }

    /// Counts a complete response, as a failure if it is not what it has to be.
    pub(crate) fn response(&mut self, response: Response, latency: Duration) {
        if response.status != 200 {
            self.failure(Failure::new(
                FailureKind::Status,
                format!("the status is {}", response.status),
            ));
            return;
        }
        let reference = *self.reference.get_or_insert(response);
        if response.length != reference.length {
            let detail = format!(
                "a body of {} bytes; the first had {}",
                response.length, reference.length
            );
            self.failure(Failure::new(FailureKind::BodyLength, detail));
            return;
        }
        if response.hash != reference.hash {
            let detail = format!(
                "a body with SHA-256 {}; the first had {}",
                hex(&response.hash),
                hex(&reference.hash)
            );
            self.failure(Failure::new(FailureKind::BodyContent, detail));
            return;
        }
        self.requests += 1;
        self.body_bytes += response.length;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency.saturating_record(micros);
    }

    /// Counts a failed request.
    pub(crate) fn failure(&mut self, failure: Failure) {
        self.failures[failure.kind as usize] += 1;
        self.first_failure.get_or_insert(failure);
    }

    /// Ends the measurement: it took `elapsed`.
    pub(crate) fn finish(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    /// There were responses, and all were as they should be.
    pub(crate) fn passed(&self) -> bool {
        self.requests > 0 && self.failures.iter().all(|&count| count == 0)
    }

    fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.requests as f64 / seconds
        } else {
            0.0
        }
    }

    fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        FailureKind::ALL
            .iter()
            .map(|&kind| (kind.name(), self.failures[kind as usize]))
    }

    /// The report as one JSON object: `requests`, `seconds`, `requests_per_second`, `body_bytes`, `body_length`,
    /// `body_sha256`, `latency_us` (`p50`, `p90`, `p99`, `max`) and `errors` (one number for each kind).
    pub(crate) fn json(&self) -> Value {
        let errors: Map<String, Value> = self
            .failures()
            .map(|(name, count)| (name.to_owned(), Value::from(count)))
            .collect();
        json!({
            "requests": self.requests,
            "seconds": self.elapsed.as_secs_f64(),
            "requests_per_second": self.rate(),
            "body_bytes": self.body_bytes,
            "body_length": self.reference.map(|response| response.length),
            "body_sha256": self.reference.map(|response| hex(&response.hash)),
            "latency_us": {
                "p50": self.latency.value_at_quantile(0.50),
                "p90": self.latency.value_at_quantile(0.90),
                "p99": self.latency.value_at_quantile(0.99),
                "max": self.latency.max(),
            },
            "errors": errors,
        })
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "requests  {}", self.requests)?;
        writeln!(f, "duration  {:.3} s", self.elapsed.as_secs_f64())?;
        writeln!(f, "rate      {:.0} requests/s", self.rate())?;
        if let Some(reference) = &self.reference {
            let hash = hex(&reference.hash);
            writeln!(f, "body      {} bytes each, SHA-256 {hash}", reference.length)?;
        }
        writeln!(
            f,
            "latency   p50 {} us, p90 {} us, p99 {} us, max {} us",
            self.latency.value_at_quantile(0.50),
            self.latency.value_at_quantile(0.90),
            self.latency.value_at_quantile(0.99),
            self.latency.max()
        )?;
        let errors: Vec<String> = self
            .failures()
            .filter(|&(_, count)| count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        match &self.first_failure {
            None => write!(f, "errors    none"),
            Some(first) => write!(f, "errors    {} (the first: {})", errors.join(", "), first.detail),
        }
    }
}

/// `bytes` in lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, length: u64, fill: u8) -> Response {
        Response {
            status,
            length,
            hash: [fill; 32],
            keep_alive: true,
        }
    }

    #[test]
    fn every_kind_has_the_index_of_its_place() {
        for (index, kind) in FailureKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
    }

    #[test]
    fn a_run_without_responses_has_not_passed() {
        assert!(!LoadReport::new().unwrap().passed());
    }

    #[test]
    fn responses_must_equal_the_first() {
        let mut report = LoadReport::new().unwrap();
        report.response(response(200, 5, 1), Duration::from_micros(100));
        report.response(response(200, 5, 1), Duration::from_micros(300));
        assert!(report.passed());
        report.response(response(404, 5, 1), Duration::ZERO);
        report.response(response(200, 6, 1), Duration::ZERO);
        report.response(response(200, 5, 2), Duration::ZERO);
        assert!(!report.passed());
        report.finish(Duration::from_secs(2));
        let json = report.json();
        assert_eq!(json["requests"], 2);
        assert_eq!(json["requests_per_second"], 1.0);
        assert_eq!(json["body_bytes"], 10);
        assert_eq!(json["latency_us"]["max"], 300);
        for kind in ["status", "body_length", "body_content"] {
            assert_eq!(json["errors"][kind], 1, "{kind}");
        }
        assert_eq!(json["errors"]["connect"], 0);
        let text = report.to_string();
        assert!(
            text.contains("status 1, body_length 1, body_content 1 (the first: the status is 404)"),
            "{text}"
        );
    }

    #[test]
    fn hex_keeps_leading_zeros() {
        assert_eq!(hex(&[0x00, 0x0f, 0xa0]), "000fa0");
    }
}
