//! `tidegate-bench search`: the highest rate that meets objectives.

mod algorithm;
mod report;

use std::time::Duration;

use tidegate_args::url::UnresolvedUrl;
use tidegate_args::{UsageError, percent};
use tidegate_report::objective::{Finding, Objectives, Outcome, time_for};

use self::algorithm::{Found, Judged, Purpose, Range};
use self::report::{Search, SearchStep};
use crate::measure::MAX_RATE;
use crate::measure::conditions::check_connect;
use crate::steps::{Command, MAX_ATTEMPTS, MAX_STEP, Offered, StepOptions, parse_rate};

/// The duration of a verification in that of a step, at least.
const VERIFICATION: u32 = 3;

/// A verification that has to be as long as an objective needs is so much longer, as not every step has as many.
const RESERVE: f64 = 1.05;

/// Arguments of `tidegate-bench search`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command<SearchOptions>,
}

#[derive(Debug, clap::Args)]
struct SearchOptions {
    /// URL to request: http://HOST:PORT/PATH, with IPv6 addresses in brackets, such as [fe80::1%25eth0]; a name is
    /// resolved once.
    #[arg(long)]
    url: UnresolvedUrl,
    /// Objectives that all have to be met, such as connect.p99<1ms,errors<0.001%. There are percentiles and max of
    /// latency (also without that word) and, for cps, of connect, errors in percent, and rate.
    #[arg(long, value_name = "OBJECTIVES")]
    slo: Objectives,
    /// The first rate that is tried, and the lowest.
    #[arg(long, value_name = "RATE", default_value = "100", value_parser = parse_rate)]
    from: u64,
    /// The highest rate (default: 50M)
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    to: Option<u64>,
    /// The part by which the rate may be found too low, 0.1% to 50%.
    #[arg(long, value_name = "PERCENT", default_value = "2%", value_parser = percent::within(0.1..=50.0))]
    precision: f64,
    #[command(flatten)]
    steps: StepOptions,
}

/// Searches, and prints each step and what was found. True if there is a rate that is shown to meet the objectives.
///
/// # Errors
///
/// The arguments do not go together (a usage error), a client could not begin, or a file cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let (offered, options) = arguments.command.parts();
    options.run(offered)
}

impl SearchOptions {
    fn run(&self, offered: Offered) -> anyhow::Result<bool> {
        let range = self.range()?;
        check_connect(std::slice::from_ref(&self.slo), offered.at(range.from), "--slo")?;
        self.steps.files.check_writable()?;
        let url = self.url.resolve()?;
        let environment = self.steps.client.environment()?;
        let mut search = Search {
            environment,
            client: self.steps.client.name(),
            target: url.to_string(),
            unit: offered.unit(),
            slo: self.slo.to_string(),
            precision: self.precision,
            steps: Vec::new(),
        };
        println!("{}", search.heading());
        let mut needed = 0;
        let found = algorithm::search(range, |rate, purpose, is_repeated| {
            let duration = self.duration(purpose, rate, needed);
            let mut attempts = 1..=MAX_ATTEMPTS;
            loop {
                let step = self.steps.run(&url, offered, rate, duration, &self.slo)?;
                needed = needed.max(most_needed(&step.findings));
                let judged = Judged {
                    outcome: step.outcome,
                    comment: step.failure.clone(),
                };
                let counts = !step.is_disturbed || attempts.next() == Some(MAX_ATTEMPTS);
                let step = SearchStep {
                    step,
                    purpose,
                    is_repeated,
                    counts,
                };
                println!("{}", search.line(&step));
                search.steps.push(step);
                if counts {
                    return Ok(judged);
                }
            }
        })?;
        let report = search.report(&found);
        println!("\n{}", report.text);
        self.steps.files.write(&report)?;
        Ok(matches!(found.rate, Some((_, Outcome::Met))))
    }

    fn range(&self) -> Result<Range, UsageError> {
        let (from, to) = (self.from, self.to.unwrap_or(MAX_RATE));
        if from > to {
            return Err(UsageError(format!(
                "--from {from} is above --to {to}; the search goes from a low rate to a high one"
            )));
        }
        Ok(Range {
            from,
            to,
            precision: self.precision,
        })
    }

    /// The duration of a step at `rate`, of which a verification has to have `needed` operations.
    fn duration(&self, purpose: Purpose, rate: u64, needed: u64) -> Duration {
        let step = self.steps.step_duration;
        if purpose != Purpose::Verify {
            return step;
        }
        (step * VERIFICATION)
            .max(time_for(needed, rate as f64 / RESERVE))
            .min(MAX_STEP)
    }
}

/// The operations that the most demanding of `findings` needs to be shown.
fn most_needed(findings: &[Finding]) -> u64 {
    findings.iter().filter_map(|finding| finding.needed).max().unwrap_or(0)
}

/// A search whose steps say why they failed.
type FoundRate = Found<Option<tidegate_load::Limit>>;

#[cfg(test)]
mod tests {
    use tidegate_report::testing::parse;

    use super::*;

    fn options(arguments: &[&str]) -> SearchOptions {
        let common = ["--url", "http://198.18.0.1/", "--slo", "p99<1ms"];
        parse(&[&common, arguments].concat()).unwrap()
    }

    #[test]
    fn a_precision_is_a_percentage() {
        assert_eq!(options(&["--precision", "0.5%"]).precision, 0.005);
        assert_eq!(options(&[]).precision, 0.02);
        let common = ["--url", "http://198.18.0.1/", "--slo", "p99<1ms"];
        for text in ["2", "0%", "51%"] {
            let all = [&common[..], &["--precision", text]].concat();
            assert_eq!(parse::<SearchOptions>(&all).unwrap_err().exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn a_range_begins_at_its_lower_end() {
        let range = options(&["--from", "1k", "--to", "2k"]).range().unwrap();
        assert_eq!((range.from, range.to), (1_000, 2_000));
        assert_eq!(options(&[]).range().unwrap().to, MAX_RATE);
        let error = options(&["--from", "2k", "--to", "1k"]).range().unwrap_err();
        assert!(error.0.contains("--from 2000 is above --to 1000"), "{error}");
    }

    #[test]
    fn a_verification_is_as_long_as_it_needs_to_be() {
        let options = options(&["--step-duration", "2s"]);
        let seconds = |purpose, rate, needed| options.duration(purpose, rate, needed).as_secs_f64();
        assert_eq!(seconds(Purpose::Bisect, 1_000, 300_000), 2.0);
        assert_eq!(seconds(Purpose::Verify, 1_000, 0), 6.0);
        assert_eq!(seconds(Purpose::Verify, 10_000, 300_000), 31.5);
        assert_eq!(seconds(Purpose::Verify, 10, 300_000), 600.0);
    }

    #[test]
    fn connecting_is_no_part_of_requests_on_open_connections() {
        let arguments: Arguments = parse(&["rps", "--url", "http://127.0.0.1:1/", "--slo", "connect.p99<1ms"]).unwrap();
        let error = run(&arguments).unwrap_err();
        assert!(error.is::<UsageError>(), "{error:#}");
        assert!(
            error.to_string().starts_with("--slo has a condition about connect"),
            "{error:#}"
        );
    }
}
