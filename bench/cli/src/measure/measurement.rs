//! A measurement from its arguments to its results.

use std::time::{Instant, SystemTime};

use tidegate_args::UsageError;
use tidegate_load::{Arrival, Plan, Window, Workload};
use tidegate_report::objective::Objectives;

use super::conditions::Conditions;
use super::live;
use super::options::{Load, Options, Profile};
use super::run::Run;
use super::server_cpu::ServerCpu;
use super::server_memory::ServerMemory;

/// A measurement that is to be made.
pub(super) struct Measurement<'a> {
    pub(super) options: &'a Options,
    pub(super) plan: Plan,
    pub(super) profile: Option<Profile>,
    /// Conditions by which it fails.
    pub(super) fail_if: &'a [Objectives],
}

impl<'a> Measurement<'a> {
    /// # Errors
    ///
    /// The URL has a name that cannot be resolved, or a zone that is none.
    pub(super) fn of(
        options: &'a Options,
        load: &'a Load,
        workload: Workload,
        requests: Option<u32>,
    ) -> anyhow::Result<Self> {
        let plan = Plan {
            url: options.url.resolve()?,
            workload,
            connections: load.connections,
            ramp: load.ramp(),
            warm_up: load.warm_up(),
            duration: load.duration(),
            verify: options.client.verify(),
            spread: None,
            arrival: Arrival::Constant,
            cpu: options.client.cpu,
            http: options.client.request.http(Some(load.timeout), requests),
        };
        Ok(Self {
            options,
            plan,
            profile: load.profile,
            fail_if: &load.fail_if,
        })
    }

    pub(super) fn arriving(mut self, arrival: Arrival) -> Self {
        self.plan.arrival = arrival;
        self
    }

    /// Measures, prints the results, and writes the files that were asked for. True when there was something, nothing
    /// went wrong, and no condition to fail by holds.
    ///
    /// # Errors
    ///
    /// The arguments do not go together (a usage error), the client could not begin, the server's memory or processor
    /// time cannot be read, or a file cannot be written.
    pub(super) fn run(self) -> anyhow::Result<bool> {
        let Self {
            options,
            plan,
            profile,
            fail_if,
        } = self;
        Conditions::check(fail_if, &plan)?;
        if let Some(profile) = profile {
            profile.check(&plan)?;
        }
        options.end_with_input();
        if options.agents.are_asked() {
            if !fail_if.is_empty() || profile.is_some() {
                let text = "--fail-if and --profile do not go with --agents; they judge the run of one machine";
                return Err(UsageError(text.to_owned()).into());
            }
            return options.ask_agents();
        }
        let mut client = options.client.build(plan.target())?;
        // It is found out now, and not when all is measured.
        options.check_writable()?;
        let environment = options.client.environment()?;
        // Before the client binds this thread to a CPU, which the threads it starts would share.
        let holds = plan.workload == Workload::Hold;
        let server = |wanted| options.server_pid.filter(|_| wanted);
        let memory = server(holds).map(ServerMemory::watch).transpose()?;
        let cpu = server(!holds).map(ServerCpu::watch).transpose()?;

        let progress = live::progress(options.live, &plan, options.client.name())?;
        let clocks = (Instant::now(), SystemTime::now());
        let measured = client.run(&plan, &progress);
        progress.finish();
        let measured = measured?;
        // What was measured is told even if the server has ended.
        let mut trouble = None;
        let memory = memory.and_then(|memory| memory.finish().map_err(|error| trouble = Some(error)).ok());
        let server_cpu = cpu.map(|cpu| cpu.finish(measured.window));
        let server_cpu = server_cpu.and_then(|cpu| cpu.map_err(|error| trouble = Some(error)).ok().flatten());

        let run = Run {
            environment,
            client: options.client.name(),
            plan,
            profile,
            start: start(clocks, measured.window),
            conditions: Conditions::of(fail_if, &measured),
            measured,
            memory,
            server_cpu,
        };
        let report = run.report();
        println!("{}", report.text);
        options.write(&run, &report)?;
        match trouble {
            None => Ok(run.passed()),
            Some(error) => Err(error),
        }
    }
}

/// Returns the beginning of the part that counts, by both clocks at the beginning of the run. Without a window all of
/// it counts.
fn start((instant, time): (Instant, SystemTime), window: Option<Window>) -> SystemTime {
    window.map_or(time, |window| time + window.begin.saturating_duration_since(instant))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_part_that_counts_begins_with_its_window() {
        let clocks = (Instant::now(), SystemTime::UNIX_EPOCH);
        let begin = clocks.0 + Duration::from_secs(3);
        let window = Window {
            begin,
            end: begin,
            client_cpu: Duration::ZERO,
        };
        let since = |window| start(clocks, window).duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since(Some(window)), Duration::from_secs(3));
        assert_eq!(since(None), Duration::ZERO);
    }
}
