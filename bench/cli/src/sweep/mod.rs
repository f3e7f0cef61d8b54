//! `tidegate-bench sweep`: the latency of one server or several at one rate after the other.

mod knee;
mod rates;
mod report;

use tidegate_args::UsageError;
use tidegate_args::url::{UnresolvedUrl, Url};
use tidegate_report::objective::Objectives;

use self::rates::Rates;
use self::report::Sweep;
use crate::steps::{Command, MAX_ATTEMPTS, Offered, StepOptions};

/// The number of rates of a range without another wish.
const DEFAULT_POINTS: u32 = 10;

/// The part of the operations that p99 leaves out, and is drawn by.
const TAIL: f64 = 0.01;

/// Arguments of `tidegate-bench sweep`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command<SweepOptions>,
}

#[derive(Debug, clap::Args)]
struct SweepOptions {
    /// URL to request, http://ADDRESS:PORT/PATH, with a name for the results, or without. May be given several times:
    /// the servers are measured in turns at each rate.
    #[arg(long = "url", required = true, value_name = "[NAME=]URL", value_parser = parse_target)]
    targets: Vec<Target>,
    /// The rates per second: the ends of a range, such as 1k..100k, or a list, such as 1000,2k,5k.
    #[arg(long, value_name = "A..B|LIST", value_parser = rates::parse)]
    rates: Rates,
    /// The number of rates of a range, its ends included, 2 to 100 (default: 10)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100))]
    points: Option<u32>,
    #[command(flatten)]
    steps: StepOptions,
}

/// A server with a name.
#[derive(Clone, Debug)]
struct Target {
    name: String,
    url: UnresolvedUrl,
}

fn parse_target(text: &str) -> Result<Target, String> {
    let named = text.split_once('=').filter(|(name, _)| !name.contains("://"));
    let (name, url) = match named {
        Some(("", _)) => {
            return Err(format!(
                "`{text}` has an empty name; write it like nginx=http://192.0.2.1/"
            ));
        }
        Some((name, url)) => (Some(name), url),
        None => (None, text),
    };
    let url: UnresolvedUrl = url.parse()?;
    Ok(Target {
        name: name.map_or_else(|| url.authority().to_owned(), str::to_owned),
        url,
    })
}

/// Measures, and prints each step and the curves. True if every server completed something.
///
/// # Errors
///
/// The arguments do not go together (a usage error), a client could not begin, or a file cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let (offered, options) = arguments.command.parts();
    options.run(offered)
}

impl SweepOptions {
    /// Checks that results can be told apart, and that every argument has an effect.
    fn check(&self) -> Result<(), UsageError> {
        if let (Rates::List(_), Some(points)) = (&self.rates, self.points) {
            return Err(UsageError(format!(
                "--points {points} is for a range of rates; --rates lists each, so leave it out or write A..B"
            )));
        }
        for (index, target) in self.targets.iter().enumerate() {
            if self.targets[..index].iter().any(|other| other.name == target.name) {
                return Err(UsageError(format!(
                    "two servers have the name {name}; give each one of its own, as in --url {name}-2=URL",
                    name = target.name
                )));
            }
        }
        Ok(())
    }

    fn run(&self, offered: Offered) -> anyhow::Result<bool> {
        self.check()?;
        self.steps.files.check_writable()?;
        let urls: Vec<Url> = self
            .targets
            .iter()
            .map(|target| target.url.resolve())
            .collect::<Result<_, _>>()?;
        let mut sweep = Sweep::new(
            self.steps.client.environment()?,
            self.steps.client.name(),
            offered.unit(),
            self.targets.iter().map(|target| target.name.clone()).collect(),
        );
        for rate in self.rates.points(self.points.unwrap_or(DEFAULT_POINTS)) {
            for (index, url) in urls.iter().enumerate() {
                let objectives = Objectives::default();
                let run = || {
                    self.steps
                        .run(url, offered, rate, self.steps.step_duration, &objectives)
                };
                let mut step = run()?;
                for _ in 1..MAX_ATTEMPTS {
                    if !(step.measured.keeps_up() && step.measured.may_be_late_by(step.steal, TAIL)) {
                        break;
                    }
                    let again = run()?;
                    if again.steal < step.steal {
                        step = again;
                    }
                }
                println!("{}", sweep.add(index, &step));
            }
        }
        let report = sweep.report();
        println!("\n{}", report.text);
        self.steps.files.write(&report)?;
        Ok(sweep.is_complete())
    }
}

#[cfg(test)]
mod tests {
    use tidegate_report::testing::parse;

    use super::*;

    #[test]
    fn a_server_may_have_a_name() {
        let target = parse_target("nginx=http://198.18.0.1:80/x=y").unwrap();
        assert_eq!((target.name.as_str(), target.url.path()), ("nginx", "/x=y"));
        let target = parse_target("http://198.18.0.1:80/x=y").unwrap();
        assert_eq!((target.name.as_str(), target.url.path()), ("198.18.0.1:80", "/x=y"));
        for text in ["=http://198.18.0.1/", "nginx=", "nginx=https://198.18.0.1/"] {
            assert!(parse_target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn points_are_those_of_a_range() {
        let arguments = [
            "cps",
            "--url",
            "http://127.0.0.1:1/",
            "--points",
            "5",
            "--rates",
            "1k,2k",
        ];
        let error = run(&parse(&arguments).unwrap()).unwrap_err();
        assert!(
            error.is::<UsageError>() && error.to_string().starts_with("--points 5 is for a range"),
            "{error:#}"
        );
    }

    #[test]
    fn two_servers_of_one_name_are_refused() {
        let url = "http://127.0.0.1:1/";
        let arguments: Arguments = parse(&["cps", "--url", url, "--url", url, "--rates", "1"]).unwrap();
        let error = run(&arguments).unwrap_err();
        assert!(
            error.is::<UsageError>() && error.to_string().contains("two servers have the name"),
            "{error:#}"
        );
    }
}
