//! The report of a search.

use serde_json::{Map, Value, json};
use tidegate_args::percent;
use tidegate_load::{Limit, Limiter};
use tidegate_report::columns::SEARCH;
use tidegate_report::format::printable;
use tidegate_report::objective::{Finding, Outcome};
use tidegate_report::{Page, Report, Row, Section};

use super::FoundRate;
use super::algorithm::Purpose;
use crate::steps::{Step, curves};

/// The explanation, for the page.
const HOW_TO_READ: &[&str] = &[
    "Each step offers a rate for some time, whether or not the server keeps up, and counts times from when something \
     was due. It fails if an objective is missed, or if less than 99 % of what was due is completed. A step that \
     fails is repeated once, and first made anew, up to four times, if that may be for a processor of the client's \
     machine that its hypervisor took away. The highest rate that did not fail is **verified** by a longer step.",
    "**not shown**: the step was too short to tell, such as no error in 1,000 operations where fewer than one in \
     100,000 is the objective.",
];

/// A search.
pub(super) struct Search {
    /// The facts the results depend on.
    pub(super) environment: Map<String, Value>,
    /// The name of the client.
    pub(super) client: &'static str,
    /// The URL.
    pub(super) target: String,
    /// The unit of rates.
    pub(super) unit: &'static str,
    pub(super) slo: String,
    pub(super) precision: f64,
    /// The steps so far.
    pub(super) steps: Vec<SearchStep>,
}

/// A step of a search.
pub(super) struct SearchStep {
    pub(super) step: Step,
    pub(super) purpose: Purpose,
    /// It repeats the one before, which failed.
    pub(super) is_repeated: bool,
    /// It is not made anew for what a hypervisor did.
    pub(super) counts: bool,
}

impl SearchStep {
    fn purpose(&self) -> String {
        let name = self.purpose.name();
        if self.is_repeated {
            format!("{name} again")
        } else {
            name.to_owned()
        }
    }

    /// Why the objectives are not met or not shown.
    fn why(&self) -> Option<String> {
        let not_shown = || {
            let findings = self.step.findings.iter();
            let texts: Vec<String> = findings
                .filter(|finding| finding.outcome == Outcome::NotShown)
                .map(ToString::to_string)
                .collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        };
        match &self.step.failure {
            Some(failure) => Some(failure.reason.clone()),
            None => not_shown(),
        }
    }
}

impl Search {
    /// Says what is searched for.
    pub(super) fn heading(&self) -> String {
        format!(
            "search for the highest rate, in {}, that meets {} to {} %: {}, {} client",
            self.unit,
            self.slo,
            percent::number(self.precision),
            self.target,
            self.client
        )
    }

    /// A line that says how a step went.
    pub(super) fn line(&self, step: &SearchStep) -> String {
        let row = self.row(step);
        let mut line = row.fill(
            "{purpose} {offered_per_second}/s: {outcome}; {value:0}/s done, p50 {latency_us.p50:us}, p99 \
             {latency_us.p99:us}, {error_count} errors, client busy {client_busy:%}",
        );
        if let Some(why) = step.why() {
            line.push_str("; ");
            line.push_str(&why);
        }
        if !step.counts {
            line.push_str("; once more");
        }
        line
    }

    fn row(&self, step: &SearchStep) -> Row {
        let conditions: Vec<Value> = step.step.findings.iter().map(Finding::json).collect();
        step.step
            .row(&self.target)
            .with("purpose", step.purpose())
            .with("outcome", step.step.outcome.name())
            .with("why", step.why())
            .with("counts", step.counts)
            .with("conditions", conditions)
    }

    /// The side that was at its limit above the rate that was found, and a phrase that says why.
    fn limit(found: &FoundRate) -> (Limiter, String) {
        match &found.above {
            None => (
                Limiter::Neither,
                "none was found: the highest rate that was to be tried holds up".to_owned(),
            ),
            Some((rate, Some(Limit { by, reason }))) => (*by, format!("at {rate}/s {reason}")),
            Some((rate, None)) => (Limiter::Server, format!("at {rate}/s it did not hold up")),
        }
    }

    /// The seconds for which `rate` was verified.
    fn verified_seconds(&self, rate: u64) -> Option<f64> {
        let mut steps = self.steps.iter().rev();
        let step = steps.find(|step| step.purpose == Purpose::Verify && step.step.rate() == rate)?;
        Some(step.step.measured.seconds)
    }

    /// The findings, as names and phrases.
    fn facts(&self, found: &FoundRate) -> Vec<(&'static str, String)> {
        let (by, reason) = Self::limit(found);
        let mut facts = vec![("objectives", self.slo.clone())];
        facts.push(match found.rate {
            None => ("found", "no rate that meets the objectives and holds up".to_owned()),
            Some((rate, outcome)) => {
                let seconds = self.verified_seconds(rate).unwrap_or_default();
                let unit = self.unit;
                match (outcome, by) {
                    (Outcome::Met, Limiter::Server) => (
                        "result",
                        format!("{rate} {unit} is the highest rate that meets them, verified for {seconds:.1} s"),
                    ),
                    (Outcome::Met, _) => (
                        "found",
                        format!("at least {rate} {unit} meets them, verified for {seconds:.1} s"),
                    ),
                    _ => (
                        "found",
                        format!("{rate} {unit} misses none of them, but {seconds:.1} s were too short to show that it meets all"),
                    ),
                }
            }
        });
        facts.push((
            "limit",
            match by {
                Limiter::Client => format!("the client: {reason}; not a result of the server"),
                Limiter::Server => format!("the server: {reason}"),
                Limiter::Neither => reason,
            },
        ));
        facts
    }

    /// The report.
    pub(super) fn report(&self, found: &FoundRate) -> Report {
        let facts = self.facts(found);
        let (by, reason) = Self::limit(found);
        let text: Vec<String> = facts
            .iter()
            .map(|(name, phrase)| format!("{name:<11}{}", printable(phrase)))
            .collect();
        let mut report = Report {
            kind: "search",
            environment: self.environment.clone(),
            rows: self.steps.iter().map(|step| self.row(step)).collect(),
            ..Report::default()
        };
        report.more.insert(
            "found".to_owned(),
            json!({
                "target": self.target,
                "client": self.client,
                "unit": self.unit,
                "objectives": self.slo,
                "precision": self.precision,
                "rate": found.rate.map(|(rate, _)| rate),
                "outcome": found.rate.map_or(Outcome::NotMet, |(_, outcome)| outcome).name(),
                "verified_seconds": found.rate.and_then(|(rate, _)| self.verified_seconds(rate)),
                "limit": by.name(),
                "limit_reason": reason,
            }),
        );
        let all: Vec<usize> = (0..report.rows.len()).collect();
        let mut by_rate = all.clone();
        by_rate.sort_by_key(|&index| self.steps[index].step.rate());
        let mut sections = Vec::new();
        if by == Limiter::Client {
            sections.push(Section::Alert(format!(
                "Limited by the client: {reason}. This is not a result of the server."
            )));
        }
        sections.extend([
            Section::Facts(
                facts
                    .iter()
                    .map(|(name, text)| ((*name).to_owned(), text.clone()))
                    .collect(),
            ),
            curves("Latency by offered rate".to_owned(), &report, &by_rate, None),
            Section::Heading("Steps".to_owned()),
            Section::Table {
                columns: SEARCH,
                rows: all,
            },
            Section::HowToRead(HOW_TO_READ),
        ]);
        report.page = Page {
            title: format!("tidegate-bench search: {}", self.target),
            introduction: self.heading(),
            sections,
        };
        report.text = text.join("\n");
        report
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_report::testing::{self, assert_report, keys};

    use super::*;
    use crate::steps::tests::step;

    const SHORT: Duration = Duration::from_micros(200);
    const LONG: Duration = Duration::from_millis(5);

    /// A search that found 1,000/s, above which the client was busy for `busy` of its time.
    fn search(busy: f64, slo: &str) -> Search {
        let steps = [
            (step(1_000, 1_000, SHORT, 0.2, slo), Purpose::Bracket, false),
            (step(2_000, 2_000, LONG, busy, slo), Purpose::Bracket, false),
            (step(2_000, 2_000, LONG, busy, slo), Purpose::Bracket, true),
            (step(1_000, 1_000, SHORT, 0.2, slo), Purpose::Verify, false),
        ];
        let step = |(step, purpose, is_repeated)| SearchStep {
            step,
            purpose,
            is_repeated,
            counts: true,
        };
        Search {
            environment: testing::environment(),
            client: "kernel",
            target: "http://198.18.0.1:80/x".to_owned(),
            unit: "requests/s",
            slo: slo.to_owned(),
            precision: 0.02,
            steps: steps.into_iter().map(step).collect(),
        }
    }

    fn found(search: &Search) -> FoundRate {
        FoundRate {
            rate: Some((1_000, search.steps[3].step.outcome)),
            above: Some((2_000, search.steps[2].step.failure.clone())),
        }
    }

    #[test]
    fn what_the_server_limits_is_a_result() {
        let search = search(0.3, "p99<1ms");
        let report = search.report(&found(&search));
        assert_report("search", &report);
        assert!(
            report
                .text
                .contains("\nresult     1000 requests/s is the highest rate that meets them, verified for 1.0 s\n"),
            "{}",
            report.text
        );
        assert!(
            report
                .text
                .contains("\nlimit      the server: at 2000/s p99<1ms: not met (5.0ms of 2000)")
        );
        let json = report.json();
        assert_eq!(json["found"]["rate"], 1_000);
        assert_eq!(json["found"]["outcome"], "met");
        assert_eq!(json["found"]["limit"], "server");
        assert_eq!(json["rows"][2]["purpose"], "bracket again");
        assert_eq!(json["rows"][2]["outcome"], "not met");
        assert_eq!(
            keys(&json["found"]),
            [
                "client",
                "limit",
                "limit_reason",
                "objectives",
                "outcome",
                "precision",
                "rate",
                "target",
                "unit",
                "verified_seconds"
            ]
        );
    }

    #[test]
    fn what_the_client_limits_is_none() {
        let search = search(0.99, "p99<1ms");
        let report = search.report(&found(&search));
        assert_report("search-client", &report);
        assert!(!report.text.contains("\nresult "), "{}", report.text);
        assert!(report.text.contains("at least 1000 requests/s meets them"));
        assert!(report.text.contains("not a result of the server"));
        assert_eq!(report.json()["found"]["limit"], "client");
        assert!(matches!(report.page.sections[0], Section::Alert(_)));
    }

    #[test]
    fn what_was_not_shown_is_never_met() {
        let search = search(0.3, "p99<1ms,errors<0.001%");
        let report = search.report(&found(&search));
        let json = report.json();
        assert_eq!(json["found"]["outcome"], "not shown");
        assert!(!report.text.contains("\nresult "), "{}", report.text);
        assert!(
            report.text.contains("too short to show that it meets all"),
            "{}",
            report.text
        );
        let line = search.line(&search.steps[0]);
        assert!(
            line.starts_with("bracket 1000/s: not shown; 1000/s done, p50 200.1us"),
            "{line}"
        );
        assert!(line.contains("299574 are needed to tell"), "{line}");
    }

    #[test]
    fn nothing_found_and_no_end_found_are_said() {
        let search = search(0.3, "p99<1ms");
        let none = FoundRate {
            rate: None,
            above: found(&search).above,
        };
        let report = search.report(&none);
        assert!(report.text.contains("no rate that meets"), "{}", report.text);
        assert_eq!(report.json()["found"]["outcome"], "not met");
        let all = FoundRate {
            above: None,
            ..found(&search)
        };
        let report = search.report(&all);
        assert!(report.text.contains("at least 1000 requests/s"), "{}", report.text);
        assert_eq!(report.json()["found"]["limit"], "none");
    }
}
