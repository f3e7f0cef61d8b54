//! Objectives of a measurement: `connect.p99<1ms,errors<0.001%,rate>=10k`.
//!
//! A run that is too short for an objective says neither that it is met nor that it is not: it is
//! [`Outcome::NotShown`].
//!
//! ```
//! use std::time::Duration;
//! use tidegate_report::objective::{Objectives, Outcome, Sample};
//! use tidegate_report::Latencies;
//!
//! let objectives: Objectives = "p50<1ms,errors<0.001%".parse().expect("the objectives are right");
//! let mut latency = Latencies::new();
//! for _ in 0..1_000 {
//!     latency.record(Duration::from_micros(250));
//! }
//! let sample = Sample { latency: &latency, connect: &Latencies::new(), errors: 0, rate: 1_000.0 };
//! let outcomes: Vec<Outcome> = objectives.evaluate(&sample).iter().map(|finding| finding.outcome).collect();
//! // No error in 1,000 operations may still be one in 400.
//! assert_eq!(outcomes, [Outcome::Met, Outcome::NotShown]);
//! ```

mod bounds;
mod parse;

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Latencies;
use crate::format::{micros, short};

pub use parse::ParseError;

/// Conditions that all have to hold; by default none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objectives(Vec<Objective>);

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    metric: Metric,
    comparison: Comparison,
    /// Nanoseconds, a part of one, or operations per second.
    limit: f64,
    /// The condition as it was written.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    /// A percentile, by the part of all that is at most as long, above 0 and below 1.
    Percentile(Distribution, f64),
    /// The longest.
    Max(Distribution),
    /// Errors in all operations that were tried.
    Errors,
    /// Operations per second.
    Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distribution {
    Latency,
    Connect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// The figures that objectives are about.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The time that operations took.
    pub latency: &'a Latencies,
    /// The time it took to connect.
    pub connect: &'a Latencies,
    /// The number of errors.
    pub errors: u64,
    /// Operations per second.
    pub rate: f64,
}

/// The outcome of an objective, the better one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The condition holds.
    Met,
    /// The run was too short to tell.
    NotShown,
    /// The condition does not hold.
    NotMet,
}

/// The outcome of one objective, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The condition as it was written.
    pub condition: String,
    /// Its outcome.
    pub outcome: Outcome,
    /// The observation, a phrase.
    pub observed: String,
    /// Operations with which the same observation would have shown that the objective is met, if there were too few.
    pub needed: Option<u64>,
    /// Of a percentile, the part of all operations that may be beyond it.
    pub tail: Option<f64>,
}

impl Outcome {
    /// The name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotShown => "not shown",
            Self::NotMet => "not met",
        }
    }

    /// The outcome of the opposite condition.
    const fn negated(self) -> Self {
        match self {
            Self::Met => Self::NotMet,
            Self::NotShown => Self::NotShown,
            Self::NotMet => Self::Met,
        }
    }

    const fn of(holds: bool) -> Self {
        if holds { Self::Met } else { Self::NotMet }
    }
}

impl Finding {
    /// The outcome of all of `findings` together: the worst.
    pub fn worst(findings: &[Self]) -> Outcome {
        findings
            .iter()
            .map(|finding| finding.outcome)
            .max()
            .unwrap_or(Outcome::Met)
    }

    /// The finding in the JSON of a report.
    pub fn json(&self) -> Value {
        json!({"condition": self.condition, "outcome": self.outcome.name(), "observed": self.observed})
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.condition, self.outcome.name(), self.observed)
    }
}

impl fmt::Display for Objectives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|objective| objective.text.as_str()).collect();
        f.write_str(&texts.join(","))
    }
}

impl Objectives {
    /// Evaluates each of them, in the order they were written.
    pub fn evaluate(&self, sample: &Sample<'_>) -> Vec<Finding> {
        self.0.iter().map(|objective| objective.evaluate(sample)).collect()
    }

    /// Whether one of them is about errors.
    pub fn judge_errors(&self) -> bool {
        self.0.iter().any(|objective| objective.metric == Metric::Errors)
    }

    /// Whether one of them is about connecting, which only some measurements do.
    pub fn judge_connect(&self) -> bool {
        self.0.iter().any(|objective| {
            matches!(
                objective.metric,
                Metric::Percentile(Distribution::Connect, _) | Metric::Max(Distribution::Connect)
            )
        })
    }
}

/// A judgement, before it is given the words of its objective.
struct Judgement {
    outcome: Outcome,
    observed: String,
    needed: Option<u64>,
}

impl Objective {
    fn evaluate(&self, sample: &Sample<'_>) -> Finding {
        let Judgement {
            outcome,
            observed,
            needed,
        } = match self.metric {
            Metric::Percentile(distribution, part) => self.judge_percentile(sample.of(distribution), part),
            Metric::Max(distribution) => self.judge_max(sample.of(distribution)),
            Metric::Errors => self.judge_errors(sample),
            Metric::Rate => Judgement {
                outcome: Outcome::of(self.comparison.holds(sample.rate, self.limit)),
                observed: format!("{} per second", short(sample.rate)),
                needed: None,
            },
        };
        Finding {
            condition: self.text.clone(),
            outcome,
            observed,
            needed,
            tail: match self.metric {
                Metric::Percentile(_, part) => Some(1.0 - part),
                Metric::Max(_) => Some(0.0),
                Metric::Errors | Metric::Rate => None,
            },
        }
    }

    fn judge_percentile(&self, latencies: &Latencies, part: f64) -> Judgement {
        let histogram = latencies.histogram();
        let count = histogram.len();
        let rest = 1.0 - part;
        // Fewer could all be within by luck.
        let least = bounds::needed(0, rest);
        if count >= least {
            let value = histogram.value_at_quantile(part) as f64;
            return Judgement {
                outcome: Outcome::of(self.comparison.holds(value, self.limit)),
                observed: format!("{} of {count}", micros(value / 1e3)),
                needed: None,
            };
        }
        // Few that are too long already show that they are no small part.
        let (limit, is_inclusive) = (self.limit as u64, self.comparison.includes_below());
        let too_long = match limit.saturating_add(u64::from(is_inclusive)) {
            0 => count,
            lowest => histogram.count_between(lowest, u64::MAX),
        };
        let is_exceeded = count > 0 && bounds::lower(too_long) / count as f64 > rest;
        let below = if is_exceeded {
            Outcome::NotMet
        } else {
            Outcome::NotShown
        };
        Judgement {
            outcome: if self.comparison.is_upper() {
                below
            } else {
                below.negated()
            },
            observed: format!("{too_long} of {count} beyond it, and {least} are needed to tell"),
            needed: (!is_exceeded).then_some(least),
        }
    }

    fn judge_max(&self, latencies: &Latencies) -> Judgement {
        if latencies.is_empty() {
            return Judgement {
                outcome: Outcome::NotShown,
                observed: "there was none".to_owned(),
                needed: Some(1),
            };
        }
        let (max, count) = (latencies.histogram().max() as f64, latencies.len());
        Judgement {
            outcome: Outcome::of(self.comparison.holds(max, self.limit)),
            observed: format!("{} of {count}", micros(max / 1e3)),
            needed: None,
        }
    }

    fn judge_errors(&self, sample: &Sample<'_>) -> Judgement {
        let errors = sample.errors;
        let count = sample.latency.len() + errors;
        let mut observed = format!("{errors} in {count} operations");
        if self.limit == 0.0 {
            // Only `errors>0%` gets here, which is about this run alone.
            return Judgement {
                outcome: Outcome::of(errors > 0),
                observed,
                needed: None,
            };
        }
        let (share, upper) = match count {
            0 => (0.0, 1.0),
            count => (errors as f64 / count as f64, bounds::upper(errors) / count as f64),
        };
        let (is_upper, is_inclusive) = (self.comparison.is_upper(), self.comparison.includes_below());
        let is_below = |value: f64| value < self.limit || (is_inclusive && value == self.limit);
        let below = match (is_below(share), is_below(upper)) {
            (false, _) => Outcome::NotMet,
            (true, false) => Outcome::NotShown,
            (true, true) => Outcome::Met,
        };
        let needed = (below == Outcome::NotShown).then(|| bounds::needed(errors, self.limit));
        if let Some(needed) = needed {
            observed.push_str(&format!(
                ", which may by chance be too few; {needed} are needed to tell"
            ));
        }
        Judgement {
            outcome: if is_upper { below } else { below.negated() },
            observed,
            needed,
        }
    }
}

impl Sample<'_> {
    fn of(&self, distribution: Distribution) -> &Latencies {
        match distribution {
            Distribution::Latency => self.latency,
            Distribution::Connect => self.connect,
        }
    }
}

impl Comparison {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Below => value < limit,
            Self::AtMost => value <= limit,
            Self::Above => value > limit,
            Self::AtLeast => value >= limit,
        }
    }

    /// Whether the limit is an upper one.
    const fn is_upper(self) -> bool {
        matches!(self, Self::Below | Self::AtMost)
    }

    /// Whether the limit itself belongs to what is below it.
    const fn includes_below(self) -> bool {
        matches!(self, Self::AtMost | Self::Above)
    }
}

/// The time of a run of operations at `rate` per second in which there are `needed`.
pub fn time_for(needed: u64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(needed as f64 / rate).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests;
