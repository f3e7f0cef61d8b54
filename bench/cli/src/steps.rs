//! Steps of `search` and `sweep`: open loops at one rate after the other.

use std::time::Duration;

use tidegate_args::url::Url;
use tidegate_args::{duration, rate};
use tidegate_lab::machine::CoreTime;
use tidegate_load::{Close, Limit, Limiter, Measured, Plan, Progress, Ramp, Workload};
use tidegate_report::objective::{Finding, Objectives, Outcome};
use tidegate_report::{Line, Lines, Mark, Report, ReportFiles, Row, Scale, Section, XAxis, YAxis};

use crate::measure::conditions::sample;
use crate::measure::{ClientOptions, OpenLoop, with_limit};

/// Connections at the same time, by default: new ones, and those that stay open.
const NEW_CONNECTIONS: u32 = 1_000;
const OPEN_CONNECTIONS: u32 = 64;

/// Limits of the time of a step, and of its warm-up.
const MIN_STEP: Duration = Duration::from_millis(100);
pub(crate) const MAX_STEP: Duration = Duration::from_secs(600);

/// The percentiles of a curve: the name of its line, and the field.
const PERCENTILES: [(&str, &str); 4] = [
    ("p50", "latency_us.p50"),
    ("p90", "latency_us.p90"),
    ("p99", "latency_us.p99"),
    ("p99.9", "latency_us.p999"),
];

/// The number of times that a step is made at most while a hypervisor may have made its figures.
pub(crate) const MAX_ATTEMPTS: u32 = 5;

/// The operations that are due in a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Offered {
    /// New connections.
    Cps(Close),
    /// Requests on connections that stay open.
    Rps,
}

impl Offered {
    /// The unit of a rate.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Cps(_) => "connections/s",
            Self::Rps => "requests/s",
        }
    }

    /// The workload at `rate`.
    pub(crate) const fn at(self, rate: u64) -> Workload {
        match self {
            Self::Cps(close) => Workload::OpenCps { close, rate },
            Self::Rps => Workload::Latency { rate },
        }
    }
}

/// The operations, and the arguments of what is done with their steps.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command<O: clap::Args> {
    /// Offer new connections: each carries one request.
    Cps {
        /// The side that ends a connection when the response is complete.
        #[arg(long, value_enum, default_value = "client")]
        close: Close,
        #[command(flatten)]
        options: O,
    },
    /// Offer requests on connections that stay open.
    Rps {
        #[command(flatten)]
        options: O,
    },
}

impl<O: clap::Args> Command<O> {
    /// Returns both.
    pub(crate) fn parts(&self) -> (Offered, &O) {
        match self {
            Self::Cps { close, options } => (Offered::Cps(*close), options),
            Self::Rps { options } => (Offered::Rps, options),
        }
    }
}

/// Arguments of all steps.
#[derive(Debug, clap::Args)]
pub(crate) struct StepOptions {
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    #[command(flatten)]
    pub(crate) files: ReportFiles,
    /// Connections at the same time, 1 to 100,000; new ones that are due when there are as many wait (default: 1000 for
    /// cps, 64 for rps)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: Option<u32>,
    /// The time that a step measures, 100ms to 10m.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration::within(MIN_STEP..=MAX_STEP))]
    pub(crate) step_duration: Duration,
    /// The time that passes before in each step, at most 10m.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::within(Duration::ZERO..=MAX_STEP))]
    pub(crate) warm_up: Duration,
    #[command(flatten)]
    open_loop: OpenLoop,
}

/// A step that is over.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) plan: Plan,
    pub(crate) measured: Measured,
    /// The most time that a hypervisor has taken from one of this machine's processors, the warm-up included.
    pub(crate) steal: Duration,
    /// The objectives.
    pub(crate) findings: Vec<Finding>,
    /// All of them, and whether the server kept up and the client offered what it should.
    pub(crate) outcome: Outcome,
    /// Why they are not met, if they are not.
    pub(crate) failure: Option<Limit>,
    /// The steal may be all that makes it fail.
    pub(crate) is_disturbed: bool,
}

impl StepOptions {
    /// Runs one step.
    ///
    /// # Errors
    ///
    /// Arguments do not go together (a usage error), or the client cannot begin.
    pub(crate) fn run(
        &self,
        url: &Url,
        offered: Offered,
        rate: u64,
        duration: Duration,
        objectives: &Objectives,
    ) -> anyhow::Result<Step> {
        let plan = Plan {
            url: url.clone(),
            workload: offered.at(rate),
            connections: self.connections.unwrap_or(match offered {
                Offered::Cps(_) => NEW_CONNECTIONS,
                Offered::Rps => OPEN_CONNECTIONS,
            }),
            ramp: Ramp::default(),
            warm_up: self.warm_up,
            duration,
            verify: self.client.verify(),
            spread: None,
            arrival: self.open_loop.arrival()?,
            cpu: self.client.cpu,
            http: self.client.request.http(None, None),
        };
        let mut client = self.client.build(plan.target())?;
        let progress = Progress::new(&format!("{rate} {}", offered.unit()), plan.warm_up + plan.duration);
        let before = CoreTime::of_all()?;
        let measured = client.run(&plan, &progress);
        progress.finish();
        let steal = CoreTime::most_stolen(&before, &CoreTime::of_all()?);
        Ok(Step::of(plan, measured?, steal, objectives))
    }
}

impl Step {
    /// Judges what was measured by `plan`.
    pub(crate) fn of(plan: Plan, measured: Measured, steal: Duration, objectives: &Objectives) -> Self {
        let findings = objectives.evaluate(&sample(&measured));
        let failure = failure(&plan, &measured, steal, &findings);
        let outcome = match &failure {
            Some(_) => Outcome::NotMet,
            None => Finding::worst(&findings),
        };
        Self {
            plan,
            measured,
            steal,
            findings,
            outcome,
            is_disturbed: failure.as_ref().is_some_and(|&(_, is_disturbed)| is_disturbed),
            failure: failure.map(|(limit, _)| limit),
        }
    }

    /// The rate that was offered, per second.
    pub(crate) fn rate(&self) -> u64 {
        self.plan.workload.rate().unwrap_or_default()
    }

    /// The figures.
    pub(crate) fn row(&self, target: &str) -> Row {
        let measured = &self.measured;
        let row = Row::new()
            .with("target", target)
            .with("connections", self.plan.connections)
            .with("operations", measured.operations)
            .with("value", measured.per_second())
            .with("seconds", measured.seconds)
            .with("latency_us", serde_json::json!(measured.latency.quantiles()))
            .with("connect_us", serde_json::json!(measured.connect.quantiles()))
            .with("error_count", measured.errors.total())
            .with("first_error", measured.errors.first())
            .with("steal_seconds", self.steal.as_secs_f64());
        with_limit(row, &self.plan, measured)
    }
}

/// Why a step fails, and whether that may be for the steal alone; `None` if it does not fail, or was too short to tell.
///
/// An operation that the client began late counts from when it was due, so objectives that are met are met all the
/// same.
fn failure(plan: &Plan, measured: &Measured, steal: Duration, findings: &[Finding]) -> Option<(Limit, bool)> {
    let missed: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.outcome == Outcome::NotMet)
        .collect();
    let starts = measured.generator.starts.unwrap_or_default();
    if missed.is_empty() && measured.keeps_up() {
        return None;
    }
    let behind = || format!("{} of {} that were due were completed", measured.operations, starts.due);
    // What the client began late may be all that is beyond a percentile.
    let is_own = |finding: &&Finding| {
        finding
            .tail
            .is_some_and(|tail| starts.late > 0 && starts.late as f64 > starts.due as f64 * tail)
    };
    let is_stolen = |finding: &&Finding| finding.tail.is_some_and(|tail| measured.may_be_late_by(steal, tail));
    let mut is_disturbed = false;
    let mut reasons: Vec<String> = missed.iter().map(ToString::to_string).collect();
    let by = if let Some(reason) = measured.exhaustion() {
        reasons.extend((!measured.keeps_up()).then(behind));
        reasons.push(reason);
        Limiter::Client
    } else if measured.keeps_up() && missed.iter().all(is_own) {
        reasons.push(format!(
            "{} of {} starts were late by the client",
            starts.late, starts.due
        ));
        Limiter::Client
    } else if measured.keeps_up() && missed.iter().all(|finding| is_own(finding) || is_stolen(finding)) {
        reasons.push(format!(
            "the hypervisor took a processor of this machine away for {} ms",
            steal.as_millis()
        ));
        is_disturbed = true;
        Limiter::Client
    } else {
        let limit = measured.limit(plan).filter(|limit| limit.by == Limiter::Server);
        match limit {
            Some(limit) => reasons.push(limit.reason),
            None => reasons.extend((!measured.keeps_up()).then(behind)),
        }
        Limiter::Server
    };
    if plan.workload.rate().is_some() && measured.operations == 0 {
        reasons.extend(measured.errors.first().map(str::to_owned));
    }
    let limit = Limit {
        by,
        reason: reasons.join("; "),
    };
    Some((limit, is_disturbed))
}

/// A chart of the percentiles of `rows` by the rate that was offered. `knee` is the row to mark.
pub(crate) fn curves(title: String, report: &Report, rows: &[usize], knee: Option<usize>) -> Section {
    let point = |path: &str, index: usize| {
        let row = report.rows.get(index)?;
        Some((row.number("offered_per_second")?, row.number(path)?))
    };
    let line = |(name, path): (&str, &str)| Line {
        name: name.to_owned(),
        points: rows.iter().filter_map(|&index| point(path, index)).collect(),
    };
    Section::Lines(chart(
        title,
        PERCENTILES.into_iter().map(line).collect(),
        knee.and_then(|index| point("latency_us.p99", index))
            .into_iter()
            .collect(),
    ))
}

/// A chart of latencies by the rate that was offered, with marks at the knees.
pub(crate) fn chart(title: String, lines: Vec<Line>, knees: Vec<(f64, f64)>) -> Lines {
    Lines {
        title,
        x: XAxis {
            title: "offered per second",
            names: None,
            scale: Some(Scale::Number),
        },
        y: YAxis {
            title: "latency",
            scale: Scale::Micros,
        },
        lines,
        marks: knees
            .into_iter()
            .map(|at| Mark {
                at,
                text: "knee".to_owned(),
            })
            .collect(),
    }
}

/// Parses a rate per second of an open loop: `9500`, `10k`, `1.2M`.
///
/// # Errors
///
/// A sentence.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    rate::within(1..=crate::measure::MAX_RATE)(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use tidegate_load::{Generator, Kind, Starts};

    use super::*;
    use crate::measure::samples::run;

    /// A step at `rate` for one second of which `completed` were answered, each in `latency`, with a client that had
    /// `busy` of its time to do.
    pub(crate) fn step(rate: u64, completed: u64, latency: Duration, busy: f64, slo: &str) -> Step {
        let run = run(Offered::Rps.at(rate));
        let mut measured = run.measured;
        measured.operations = completed;
        measured.seconds = 1.0;
        measured.latency = tidegate_report::Latencies::new();
        for _ in 0..completed {
            measured.latency.record(latency);
        }
        measured.generator = Generator {
            busy,
            starts: Some(Starts {
                due: rate,
                begun: rate,
                late: 0,
                held_back: 0,
                under_way: 0,
            }),
            ..Generator::default()
        };
        Step::of(run.plan, measured, Duration::ZERO, &slo.parse().unwrap())
    }

    const SHORT: Duration = Duration::from_micros(200);
    const LONG: Duration = Duration::from_millis(5);

    fn by(step: &Step) -> Option<Limiter> {
        step.failure.as_ref().map(|failure| failure.by)
    }

    #[test]
    fn a_step_fails_by_an_objective_or_by_not_keeping_up() {
        let slo = "p99<1ms";
        let met = step(10_000, 10_000, SHORT, 0.2, slo);
        assert_eq!((met.outcome, by(&met)), (Outcome::Met, None));
        let slow = step(10_000, 10_000, LONG, 0.2, slo);
        assert_eq!((slow.outcome, by(&slow)), (Outcome::NotMet, Some(Limiter::Server)));
        let behind = step(10_000, 9_000, SHORT, 0.2, slo);
        assert_eq!((behind.outcome, by(&behind)), (Outcome::NotMet, Some(Limiter::Server)));
        assert!(behind.failure.unwrap().reason.contains("9000 of 10000"));
    }

    #[test]
    fn a_step_that_met_its_objectives_is_good_however_busy_the_client_was() {
        let busy = step(10_000, 10_000, SHORT, 0.99, "p99<1ms");
        assert_eq!((busy.outcome, by(&busy)), (Outcome::Met, None));
        let slow = step(10_000, 10_000, LONG, 0.99, "p99<1ms");
        assert_eq!(by(&slow), Some(Limiter::Client));
    }

    #[test]
    fn too_few_operations_show_nothing() {
        let step = step(1_000, 1_000, SHORT, 0.2, "p99<1ms,errors<0.001%");
        assert_eq!((step.outcome, by(&step)), (Outcome::NotShown, None));
    }

    #[test]
    fn a_percentile_of_late_starts_is_the_clients() {
        let mut step = step(10_000, 10_000, SHORT, 0.2, "p99.9<1ms");
        for _ in 0..50 {
            step.measured.latency.record(LONG);
        }
        let judge = |late: u64, slo: &str| {
            let mut measured = step.measured.clone();
            measured.generator.starts.as_mut().unwrap().late = late;
            by(&Step::of(
                step.plan.clone(),
                measured,
                Duration::ZERO,
                &slo.parse().unwrap(),
            ))
        };
        assert_eq!(judge(0, "p99.9<1ms"), Some(Limiter::Server));
        assert_eq!(judge(50, "p99.9<1ms"), Some(Limiter::Client));
        // But not where something else is missed, too.
        assert_eq!(judge(50, "p99.9<1ms,p50<0.1ms"), Some(Limiter::Server));
        assert_eq!(
            judge(2_000, "p50<0.1ms"),
            Some(Limiter::Server),
            "half of all were too slow"
        );
        assert_eq!(judge(2_000, "p50<1ms"), None);
    }

    #[test]
    fn a_percentile_of_what_was_due_while_a_processor_was_taken_away_is_not_the_servers() {
        let mut step = step(10_000, 10_000, SHORT, 0.2, "p99<1ms");
        for _ in 0..150 {
            step.measured.latency.record(LONG);
        }
        let judge = |steal: u64, completed: u64, slo: &str| {
            let mut measured = step.measured.clone();
            measured.operations = completed;
            let steal = Duration::from_millis(steal);
            let step = Step::of(step.plan.clone(), measured, steal, &slo.parse().unwrap());
            (by(&step), step.is_disturbed)
        };
        assert_eq!(judge(0, 10_000, "p99<1ms"), (Some(Limiter::Server), false));
        assert_eq!(judge(10, 10_000, "p99<1ms"), (Some(Limiter::Client), true));
        assert_eq!(
            judge(10, 10_000, "p90<0.1ms"),
            (Some(Limiter::Server), false),
            "a tenth"
        );
        assert_eq!(judge(10, 10_000, "p99<9ms"), (None, false));
        assert_eq!(
            judge(10, 9_000, "p99<1ms"),
            (Some(Limiter::Server), false),
            "it is behind"
        );
    }

    #[test]
    fn a_server_that_answers_nothing_is_the_reason() {
        let mut step = step(1_000, 0, SHORT, 0.1, "errors<1%");
        step.measured
            .errors
            .add(Kind::Refused, "the server answered the SYN with RST");
        let step = Step::of(step.plan, step.measured, Duration::ZERO, &"errors<1%".parse().unwrap());
        let failure = step.failure.unwrap();
        assert_eq!(failure.by, Limiter::Server);
        assert!(failure.reason.contains("RST"), "{failure}");
    }
}
