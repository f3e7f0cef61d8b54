//! Conditions by which a measurement fails, for use in CI: `--fail-if 'p99>2ms'`.

use tidegate_args::UsageError;
use tidegate_load::{Measured, Plan, Workload};
use tidegate_report::objective::{Finding, Objectives, Outcome, Sample};

/// The conditions of a run, evaluated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    pub(super) findings: Vec<Finding>,
    /// One of them is about errors, so that it decides about them.
    judge_errors: bool,
}

impl Conditions {
    /// Evaluates `fail_if` for what was measured.
    pub(super) fn of(fail_if: &[Objectives], measured: &Measured) -> Self {
        let sample = sample(measured);
        Self {
            findings: fail_if
                .iter()
                .flat_map(|conditions| conditions.evaluate(&sample))
                .collect(),
            judge_errors: fail_if.iter().any(Objectives::judge_errors),
        }
    }

    /// Checks that a run by `plan` has what the conditions are about.
    ///
    /// # Errors
    ///
    /// One is about connecting, and connections are opened before anything is measured (a usage error).
    pub(super) fn check(fail_if: &[Objectives], plan: &Plan) -> Result<(), UsageError> {
        // Connections that are replaced are opened while measuring, too.
        match plan.requests_per_connection() {
            Some(_) => Ok(()),
            None => check_connect(fail_if, plan.workload, "--fail-if"),
        }
    }

    /// Whether the run passes: each condition is known not to hold, and there are no errors if none is about them.
    pub(super) fn passed(&self, errors: u64) -> bool {
        (self.judge_errors || errors == 0) && self.none_holds()
    }

    /// Whether each condition is known not to hold.
    pub(super) fn none_holds(&self) -> bool {
        self.findings.iter().all(|finding| finding.outcome == Outcome::NotMet)
    }

    /// A phrase for each condition.
    pub(super) fn phrases(&self) -> impl Iterator<Item = String> {
        self.findings.iter().map(|finding| {
            let Finding {
                condition, observed, ..
            } = finding;
            match finding.outcome {
                Outcome::Met => format!("{condition} holds, so this is a failure ({observed})"),
                Outcome::NotMet => format!("{condition} does not hold ({observed})"),
                Outcome::NotShown => format!(
                    "{condition}: the run was too short to show that it does not hold, so this is a failure ({observed})"
                ),
            }
        })
    }
}

/// Checks that `workload` opens connections while it is measured if one of `objectives`, given by `option`, is about
/// that.
///
/// # Errors
///
/// It does not (a usage error).
pub(crate) fn check_connect(objectives: &[Objectives], workload: Workload, option: &str) -> Result<(), UsageError> {
    let connects = matches!(workload, Workload::Cps { .. } | Workload::OpenCps { .. });
    if !connects && objectives.iter().any(Objectives::judge_connect) {
        return Err(UsageError(format!(
            "{option} has a condition about connect, but this measurement keeps its connections; use cps for that"
        )));
    }
    Ok(())
}

/// The figures that conditions are about.
pub(crate) fn sample(measured: &Measured) -> Sample<'_> {
    Sample {
        latency: &measured.latency,
        connect: &measured.connect,
        errors: measured.errors.total(),
        rate: measured.per_second(),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_load::{Close, Kind};

    use super::super::samples::run;
    use super::*;

    fn conditions(texts: &[&str], errors: u64) -> Conditions {
        // 1,000 latencies, of 1 us to 1 ms, and 500 per second.
        let mut measured = run(Workload::Rps { pipeline: 1 }).measured;
        for _ in 0..errors {
            measured.errors.add(Kind::Reset, "reset");
        }
        let fail_if: Vec<Objectives> = texts.iter().map(|text| text.parse().unwrap()).collect();
        Conditions::of(&fail_if, &measured)
    }

    #[test]
    fn a_run_fails_by_each_condition_that_holds_or_is_not_shown_not_to() {
        for (texts, errors, passed) in [
            (&[][..], 0, true),
            (&[], 1, false),
            (&["p99>2ms"], 0, true),
            (&["p99>2ms"], 1, false),
            (&["p99>0.5ms"], 0, false),
            (&["p99>2ms,rate<501"], 0, false),
            (&["p99>2ms", "rate<501"], 0, false),
            // 1,000 show that it is less than 1 %, and not that it is less than 0.1 %.
            (&["errors>1%"], 0, true),
            (&["errors>1%"], 2, true),
            (&["errors>1%"], 20, false),
            (&["errors>0.1%"], 0, false),
        ] {
            assert_eq!(
                conditions(texts, errors).passed(errors),
                passed,
                "{texts:?}, {errors} errors"
            );
        }
    }

    #[test]
    fn a_line_says_which_condition_held() {
        let phrases: Vec<String> = conditions(&["p99>0.5ms,p99>2ms", "errors>0.1%"], 0).phrases().collect();
        assert!(
            phrases[0].starts_with("p99>0.5ms holds, so this is a failure (99"),
            "{phrases:?}"
        );
        assert!(phrases[1].starts_with("p99>2ms does not hold (99"), "{phrases:?}");
        assert!(
            phrases[2].contains("too short to show that it does not hold"),
            "{phrases:?}"
        );
    }

    #[test]
    fn connecting_is_no_part_of_requests_on_open_connections() {
        let connect = ["connect.p99>1ms".parse().unwrap()];
        let cps = run(Workload::Cps { close: Close::Rst }).plan;
        Conditions::check(&connect, &cps).unwrap();
        let mut latency = run(Workload::Latency { rate: 1 }).plan;
        Conditions::check(&["p99>1ms".parse().unwrap()], &latency).unwrap();
        let error = Conditions::check(&connect, &latency).unwrap_err();
        assert!(
            error.0.starts_with("--fail-if has a condition about connect"),
            "{error}"
        );
        latency.http.requests_per_connection = Some(100);
        Conditions::check(&connect, &latency).unwrap();
    }
}
