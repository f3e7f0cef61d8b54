//! The profile of RFC 9411: the phases of its section 4.3.4, and the criteria its tests are validated by.
//!
//! The RFC is about devices between client and server; the same phases and criteria are applied to a server here.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_args::UsageError;
use tidegate_load::{Arrival, Close, Kind, Measured, Phase, Plan, Point, Ramp, Workload};

/// The time without sessions, at least (initialization phase).
const INITIAL: Duration = Duration::from_secs(5);

/// The time in which the load is raised, and that in which it is lowered, unless another is asked for. The RFC names
/// none.
pub(super) const RAMP: Duration = Duration::from_secs(30);

/// The time that is measured, at least (sustain phase).
pub(super) const SUSTAIN: Duration = Duration::from_secs(300);

/// Less than one transaction in so many may fail, and less than one connection be terminated unexpectedly: 0.001 %. Of
/// fewer none may fail, which says nothing then.
const MIN_ATTEMPTED: u64 = 100_000;

/// The deviation of the rate of a second from the mean, and that of the number of connections.
const MAX_RATE_DEVIATION: f64 = 0.05;
const MAX_CONNECTIONS_DEVIATION: f64 = 0.10;

/// Statistics have to be sampled in less time than this.
const MAX_SAMPLING: Duration = Duration::from_secs(2);

/// Seconds that are shorter, as the last may be, are no samples: their rate is one of chance.
const MIN_SAMPLE: Duration = Duration::from_millis(500);

/// The phases around the measurement when the load is raised in the time `up`.
pub(super) fn ramp(up: Duration) -> Ramp {
    Ramp {
        initial: INITIAL,
        up,
        down: up,
    }
}

/// Checks that the RFC has a test of `workload`, with an open loop's operations due by `arrival`.
///
/// # Errors
///
/// It has none (a usage error).
pub(super) fn check(workload: Workload, arrival: Arrival) -> Result<(), UsageError> {
    let text = match workload {
        // By chance alone the rate of a second would deviate more than the RFC allows.
        _ if matches!(arrival, Arrival::Poisson { .. }) => {
            "--profile rfc9411 needs a constant rate; leave --arrival poisson out"
        }
        Workload::Cps { close: Close::Rst } | Workload::OpenCps { close: Close::Rst, .. } => {
            "--profile rfc9411 needs connections that end by FIN; leave --close rst out"
        }
        Workload::Throughput { .. } | Workload::Hold => "--profile rfc9411 is for cps, rps and latency",
        _ => return Ok(()),
    };
    Err(UsageError(text.to_owned()))
}

/// The test that a workload is, with the section of the RFC.
fn test(workload: Workload) -> (&'static str, &'static str) {
    match workload {
        Workload::Latency { .. } => ("7.4", "HTTP transaction latency"),
        Workload::Cps { .. } | Workload::OpenCps { .. } => ("7.2", "TCP connections per second with HTTP traffic"),
        _ => ("7.3", "HTTP throughput"),
    }
}

/// A judgement of a criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Met,
    /// The run was too short, or has no figure for it.
    NotShown,
    NotMet,
}

impl Verdict {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotShown => "not shown",
            Self::NotMet => "not met",
        }
    }

    const fn of(is_met: bool) -> Self {
        if is_met { Self::Met } else { Self::NotMet }
    }
}

/// A criterion with what was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Criterion {
    /// A name, for programs.
    pub(super) name: &'static str,
    /// The condition.
    pub(super) limit: &'static str,
    /// A phrase about what was found.
    pub(super) found: String,
    /// The judgement.
    pub(super) verdict: Verdict,
}

/// The judgement of a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judgement {
    section: &'static str,
    test: &'static str,
    /// The differences from the phases of the RFC.
    pub(super) deviations: Vec<String>,
    /// The criteria.
    pub(super) criteria: Vec<Criterion>,
}

/// Judges a run that followed `plan`.
pub(super) fn judge(plan: &Plan, measured: &Measured) -> Judgement {
    let seconds: Vec<&Point> = measured
        .series
        .iter()
        .filter(|point| point.phase == Phase::Sustain && point.length >= MIN_SAMPLE)
        .collect();
    let (section, test) = test(plan.workload);
    let mut criteria = vec![
        failed_transactions(measured),
        terminated_connections(measured),
        constant(
            "constant_rate",
            "each second deviates less than 5 % from the mean rate",
            MAX_RATE_DEVIATION,
            &seconds,
            |point| point.per_second(),
        ),
        constant(
            "constant_connections",
            "the open connections of each second deviate less than 10 % from their mean",
            MAX_CONNECTIONS_DEVIATION,
            &seconds,
            |point| point.open_mean,
        ),
    ];
    if let Some(rate) = plan.workload.rate() {
        criteria.push(target_rate(rate, &seconds));
    }
    Judgement {
        section,
        test,
        deviations: deviations(plan, measured),
        criteria,
    }
}

/// The differences from the traffic load profile of section 4.3.4.
fn deviations(plan: &Plan, measured: &Measured) -> Vec<String> {
    let mut found = Vec::new();
    let Ramp { initial, up, down } = plan.ramp;
    let seconds = |time: Duration| time.as_secs_f64();
    if measured.cut_short {
        found.push(format!(
            "the run was cut short after {:.1} s of sustain",
            measured.seconds
        ));
    } else if plan.duration < SUSTAIN {
        found.push(format!(
            "sustain took {} s, and should take {} s at least",
            seconds(plan.duration),
            SUSTAIN.as_secs()
        ));
    }
    if initial < INITIAL {
        found.push(format!(
            "initialization took {} s, and should take {} s",
            seconds(initial),
            INITIAL.as_secs()
        ));
    }
    if up.is_zero() {
        found.push("the load was not raised".to_owned());
    }
    if up != down {
        found.push(format!(
            "ramp-up took {} s and ramp-down {} s",
            seconds(up),
            seconds(down)
        ));
    }
    if !plan.warm_up.is_zero() {
        found.push(format!("there was a warm-up of {} s", seconds(plan.warm_up)));
    }
    let longest = measured.series.iter().map(|point| point.length).max();
    if let Some(longest) = longest
        && longest >= MAX_SAMPLING
    {
        found.push(format!(
            "the sampling interval was {:.1} s at one time, and must be less than {} s",
            seconds(longest),
            MAX_SAMPLING.as_secs()
        ));
    }
    found
}

fn failed_transactions(measured: &Measured) -> Criterion {
    let errors = measured.errors.total();
    // Of `cps` an operation is a connection, with many requests maybe. Each good response has its latency, and so has a
    // redirect, which is a failure here: any status but 200 is. Those of one class are not told apart.
    let attempted = measured.latency.len() + errors;
    let failed = errors + measured.statuses.redirects();
    Criterion {
        name: "failed_transactions",
        limit: "less than 0.001 % of all transactions fail",
        found: format!("{failed} of {attempted} failed"),
        verdict: part_below(failed, attempted),
    }
}

fn terminated_connections(measured: &Measured) -> Criterion {
    let series = &measured.series;
    let before = series.iter().rfind(|point| point.phase < Phase::Sustain);
    let while_measuring = series.iter().filter(|point| point.phase == Phase::Sustain);
    let connections =
        before.map_or(0, |point| u64::from(point.open)) + while_measuring.map(|point| point.connects).sum::<u64>();
    let terminated = measured.errors.count(Kind::Reset) + measured.unclean_ends;
    Criterion {
        name: "terminated_connections",
        limit: "less than 0.001 % of all connections are terminated by an unexpected RST, and not closed by FIN",
        found: format!("{terminated} of {connections} were"),
        verdict: part_below(terminated, connections),
    }
}

/// Judges whether `count` is less than one in [`MIN_ATTEMPTED`] of `all`.
fn part_below(count: u64, all: u64) -> Verdict {
    if count == 0 && all < MIN_ATTEMPTED {
        return Verdict::NotShown;
    }
    Verdict::of(count.saturating_mul(MIN_ATTEMPTED) < all)
}

fn constant(
    name: &'static str,
    limit: &'static str,
    max: f64,
    seconds: &[&Point],
    value: impl Fn(&Point) -> f64,
) -> Criterion {
    let values: Vec<f64> = seconds.iter().map(|&point| value(point)).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let deviations = values.iter().map(|value| (value / mean - 1.0).abs());
    let (found, verdict) = if values.len() < 2 {
        (format!("only {} seconds", values.len()), Verdict::NotShown)
    } else if mean > 0.0 {
        let worst = deviations.fold(0.0, f64::max);
        (
            format!(
                "{:.2} % at most, mean {mean:.1}, {} seconds",
                worst * 100.0,
                values.len()
            ),
            Verdict::of(worst < max),
        )
    } else {
        ("there was nothing".to_owned(), Verdict::NotMet)
    };
    Criterion {
        name,
        limit,
        found,
        verdict,
    }
}

fn target_rate(rate: u64, seconds: &[&Point]) -> Criterion {
    let least = seconds.iter().map(|point| point.per_second()).reduce(f64::min);
    Criterion {
        name: "target_rate",
        limit: "the rate that was asked for is reached, and kept within 5 % in each second",
        found: match least {
            Some(least) => format!("{least:.1} of {rate} at least"),
            None => "no whole second".to_owned(),
        },
        verdict: match least {
            Some(least) => Verdict::of(least >= rate as f64 * (1.0 - MAX_RATE_DEVIATION)),
            None => Verdict::NotShown,
        },
    }
}

impl Judgement {
    /// The judgement of all of it: the worst of the criteria, and not shown by other phases than the RFC's.
    pub(super) fn verdict(&self) -> Verdict {
        let worst = self.criteria.iter().map(|criterion| criterion.verdict).max();
        let worst = worst.unwrap_or(Verdict::NotShown);
        if self.deviations.is_empty() {
            worst
        } else {
            worst.max(Verdict::NotShown)
        }
    }

    /// A sentence about all of it.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("section {}, {}: {}", self.section, self.test, self.verdict().name());
        if !self.deviations.is_empty() {
            text += &format!("; not the RFC's phases: {}", self.deviations.join(", "));
        }
        text
    }

    /// A phrase for each criterion.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        self.criteria.iter().map(|criterion| {
            let phrase = format!(
                "{}: {} ({})",
                criterion.limit,
                criterion.verdict.name(),
                criterion.found
            );
            (criterion.name, phrase)
        })
    }

    pub(super) fn json(&self) -> Value {
        let criteria: Vec<Value> = self
            .criteria
            .iter()
            .map(|criterion| {
                json!({
                    "criterion": criterion.name,
                    "limit": criterion.limit,
                    "found": criterion.found,
                    "verdict": criterion.verdict.name(),
                })
            })
            .collect();
        json!({
            "profile_name": "rfc9411",
            "section": self.section,
            "test": self.test,
            "verdict": self.verdict().name(),
            "deviations": self.deviations,
            "criteria": criteria,
        })
    }
}

#[cfg(test)]
mod tests {
    use tidegate_report::Latencies;

    use super::super::samples::{point, run};
    use super::*;

    /// A run as the RFC has it, with 1,000 connections in each second.
    fn whole(workload: Workload) -> (Plan, Measured) {
        let mut run = run(workload);
        run.plan.ramp = ramp(RAMP);
        run.plan.warm_up = Duration::ZERO;
        run.plan.duration = SUSTAIN;
        run.measured.operations = 300_000;
        run.measured.latency = latencies(300_000);
        run.measured.seconds = 300.0;
        run.measured.series = (0..300)
            .map(|second| Point {
                operations: 1_000,
                connects: 1_000,
                ..point(Phase::Sustain, second)
            })
            .collect();
        (run.plan, run.measured)
    }

    fn latencies(count: u64) -> Latencies {
        let mut latencies = Latencies::new();
        for _ in 0..count {
            latencies.record(Duration::from_millis(1));
        }
        latencies
    }

    fn verdict(judgement: &Judgement, name: &str) -> Verdict {
        let found = judgement.criteria.iter().find(|criterion| criterion.name == name);
        found.expect("there is such a criterion").verdict
    }

    const CPS: Workload = Workload::Cps { close: Close::Client };

    const OPEN_CPS: Workload = Workload::OpenCps {
        close: Close::Client,
        rate: 1_000,
    };

    #[test]
    fn a_run_without_a_flaw_meets_everything() {
        for workload in [CPS, OPEN_CPS, Workload::Latency { rate: 1_000 }] {
            let (plan, measured) = whole(workload);
            let judgement = judge(&plan, &measured);
            assert_eq!(judgement.verdict(), Verdict::Met, "{judgement:?}");
            assert_eq!(judgement.deviations, [""; 0]);
        }
        assert_eq!(test(OPEN_CPS).0, "7.2");
        for workload in [OPEN_CPS, Workload::Latency { rate: 1_000 }] {
            let (plan, measured) = whole(workload.with_rate(1_100));
            assert_eq!(verdict(&judge(&plan, &measured), "target_rate"), Verdict::NotMet);
        }
    }

    #[test]
    fn failures_count_from_one_in_a_hundred_thousand() {
        let (plan, mut measured) = whole(CPS);
        for (failures, expected) in [(2, Verdict::Met), (2, Verdict::NotMet)] {
            for _ in 0..failures {
                measured.errors.add(Kind::Reset, "reset");
            }
            let judgement = judge(&plan, &measured);
            assert_eq!(verdict(&judgement, "failed_transactions"), expected);
            assert_eq!(verdict(&judgement, "terminated_connections"), expected);
        }
        // What went wrong when all was done is no failed transaction.
        let (plan, mut measured) = whole(CPS);
        measured.unclean_ends = 4;
        let judgement = judge(&plan, &measured);
        assert_eq!(verdict(&judgement, "failed_transactions"), Verdict::Met);
        assert_eq!(verdict(&judgement, "terminated_connections"), Verdict::NotMet);
    }

    #[test]
    fn too_few_operations_show_nothing_and_one_failure_of_them_shows_enough() {
        let (plan, mut measured) = whole(CPS);
        measured.latency = latencies(MIN_ATTEMPTED - 1);
        assert_eq!(
            verdict(&judge(&plan, &measured), "failed_transactions"),
            Verdict::NotShown
        );
        measured.errors.add(Kind::Status, "404");
        assert_eq!(
            verdict(&judge(&plan, &measured), "failed_transactions"),
            Verdict::NotMet
        );
    }

    #[test]
    fn each_request_on_a_connection_is_a_transaction() {
        let (plan, mut measured) = whole(CPS);
        // 100 requests on each connection.
        measured.operations = 3_000;
        assert_eq!(verdict(&judge(&plan, &measured), "failed_transactions"), Verdict::Met);
        measured.errors.add(Kind::Status, "404");
        let judgement = judge(&plan, &measured);
        assert_eq!(verdict(&judgement, "failed_transactions"), Verdict::Met);
        assert_eq!(judgement.criteria[0].found, "1 of 300001 failed");
    }

    #[test]
    fn redirects_are_failed_transactions() {
        let (plan, mut measured) = whole(CPS);
        measured.statuses.add([299_997, 3, 0, 0]);
        let judgement = judge(&plan, &measured);
        assert_eq!(verdict(&judgement, "failed_transactions"), Verdict::NotMet);
        assert_eq!(judgement.criteria[0].found, "3 of 300000 failed");
    }

    #[test]
    fn a_second_that_deviates_is_found() {
        for (operations, expected) in [(1_049, Verdict::Met), (1_051, Verdict::NotMet), (940, Verdict::NotMet)] {
            let (plan, mut measured) = whole(CPS);
            measured.series[7].operations = operations;
            assert_eq!(
                verdict(&judge(&plan, &measured), "constant_rate"),
                expected,
                "{operations}"
            );
        }
        let (plan, mut measured) = whole(CPS);
        measured.series[7].open_mean *= 1.2;
        assert_eq!(
            verdict(&judge(&plan, &measured), "constant_connections"),
            Verdict::NotMet
        );
        measured.series.truncate(1);
        let judgement = judge(&plan, &measured);
        assert_eq!(verdict(&judgement, "constant_connections"), Verdict::NotShown);
        measured.series.clear();
        assert_eq!(verdict(&judge(&plan, &measured), "constant_rate"), Verdict::NotShown);
    }

    #[test]
    fn other_phases_are_named_and_show_nothing() {
        let (mut plan, measured) = whole(CPS);
        plan.duration = Duration::from_secs(2);
        plan.ramp.down = Duration::ZERO;
        let judgement = judge(&plan, &measured);
        assert_eq!(judgement.verdict(), Verdict::NotShown);
        let summary = judgement.summary();
        for phrase in ["not shown", "sustain took 2 s", "300 s", "ramp-down 0 s"] {
            assert!(summary.contains(phrase), "{phrase}: {summary}");
        }
        let (plan, mut measured) = whole(CPS);
        measured.cut_short = true;
        measured.series[3].length = MAX_SAMPLING;
        assert_eq!(judge(&plan, &measured).deviations.len(), 2);
    }

    #[test]
    fn the_rfc_has_no_test_of_some() {
        for (workload, expected) in [
            (CPS, true),
            (Workload::Rps { pipeline: 1 }, true),
            (Workload::Cps { close: Close::Rst }, false),
            (OPEN_CPS, true),
            (
                Workload::OpenCps {
                    close: Close::Rst,
                    rate: 1,
                },
                false,
            ),
            (Workload::Hold, false),
        ] {
            assert_eq!(check(workload, Arrival::Constant).is_ok(), expected, "{workload:?}");
        }
        let error = check(OPEN_CPS, Arrival::Poisson { seed: 1 }).unwrap_err();
        assert!(error.0.contains("a constant rate"), "{error}");
    }
}
