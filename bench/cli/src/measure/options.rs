//! Options of all measurements: the target, the client, and where the results go.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{io, process, thread};

use clap::ValueEnum;
use serde_json::{Map, Value};
use tidegate_args::url::UnresolvedUrl;
use tidegate_args::{UsageError, duration};
use tidegate_lab::environment;
use tidegate_load::{BypassClient, Client, KernelClient, Plan, Ramp, Verify};
use tidegate_report::objective::Objectives;
use tidegate_report::{Report, ReportFiles, files};

use super::bypass::BypassOptions;
use super::http::{self, MIN_TIMEOUT, RequestOptions};
use super::live::Live;
use super::rfc9411;
use super::run::Run;
use crate::agent::Agents;

/// Shortest time to measure.
pub(super) const MIN_DURATION: Duration = Duration::from_millis(1);

/// Longest time to measure, or to warm up.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(600);

/// The TCP that the client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ClientKind {
    /// The kernel's, by epoll: works with every target from everywhere.
    Kernel,
    /// tidegate's own, over AF_XDP: many source addresses and ports from one core, several times cheaper.
    Bypass,
}

/// A known way to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Profile {
    /// The phases of RFC 9411, section 4.3.4: 5 s without load, a ramp, 300 s that are measured, a ramp-down. The
    /// criteria are those of its tests: of cps section 7.2, of rps 7.3, of latency 7.4.
    Rfc9411,
}

impl Profile {
    /// Checks that the profile has a run by `plan`.
    ///
    /// # Errors
    ///
    /// It has not (a usage error).
    pub(super) fn check(self, plan: &Plan) -> Result<(), UsageError> {
        match self {
            Self::Rfc9411 => rfc9411::check(plan.workload, plan.arrival),
        }
    }
}

/// Arguments of every client.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientOptions {
    /// The TCP that the client uses.
    #[arg(long, value_enum, default_value = "kernel")]
    client: ClientKind,
    /// The CPU the client runs on (default: any)
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<usize>,
    /// Compare every body with the first by SHA-256, not only its length, and wait at the end for what is under way.
    #[arg(long)]
    verify: bool,
    /// Take bodies of any length; without it each has to be as long as the first.
    #[arg(long, conflicts_with = "verify")]
    any_length: bool,
    #[command(flatten)]
    pub(crate) request: RequestOptions,
    #[command(flatten)]
    bypass: BypassOptions,
}

/// Arguments of every measurement.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// URL to request: http://HOST:PORT/PATH, with IPv6 addresses in brackets, such as [fe80::1%25eth0]; a name is
    /// resolved once.
    #[arg(long)]
    pub(super) url: UnresolvedUrl,
    #[command(flatten)]
    pub(super) client: ClientOptions,
    #[command(flatten)]
    files: ReportFiles,
    /// Write the distribution of the latency to this file as .hgrm text, in microseconds.
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write the latencies to this file as an interval log of HdrHistogram, in nanoseconds; `report merge` reads it.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Look at the processor time of this process, the server, and of those it has started; `hold` instead at its
    /// memory and the kernel's. It must be on this machine.
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Option<u32>,
    /// Show the run on the whole terminal while it lasts.
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    pub(super) live: Live,
    #[command(flatten)]
    pub(super) agents: Agents,
    /// End when standard input does, as an agent's measurement has to.
    #[arg(long, hide = true)]
    end_with_input: bool,
}

/// Arguments of the measurements that keep a server busy.
#[derive(Debug, clap::Args)]
pub(super) struct Load {
    /// Connections at the same time, 1 to 100,000.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(super) connections: u32,
    /// Time in which the load is raised linearly before the warm-up, at most 10m: the rate of an open loop, else the
    /// number of connections (default: 0s, with --profile 30s)
    #[arg(long, value_name = "TIME", value_parser = duration::within(Duration::ZERO..=MAX_DURATION))]
    pub(super) ramp: Option<Duration>,
    /// Time that passes before anything is counted, at most 10m (default: 1s, with --profile 0s)
    #[arg(long, value_name = "TIME", value_parser = duration::within(Duration::ZERO..=MAX_DURATION))]
    pub(super) warm_up: Option<Duration>,
    /// Time that is measured, at most 10m (default: 5s, with --profile 300s)
    #[arg(long, value_name = "TIME", value_parser = duration::within(MIN_DURATION..=MAX_DURATION))]
    pub(super) duration: Option<Duration>,
    /// Measure in the phases of a standard, which --ramp and --duration shorten, and judge the run by its criteria: it
    /// passes if all are met.
    #[arg(long, value_name = "NAME", value_enum)]
    pub(super) profile: Option<Profile>,
    /// The time a complete response, or the server's close, may take, 1ms to 10m; of throughput --direction down, the
    /// next bytes.
    #[arg(long, default_value = "10s", value_parser = duration::within(MIN_TIMEOUT..=MAX_DURATION))]
    pub(super) timeout: Duration,
    /// Exit with code 1 if this holds, or if the run was too short to show that it does not, such as p99>2ms or
    /// connect.p99.9>=5ms,errors>0.1%,rate<10k: each condition by itself. May be given several times. Without a
    /// condition about errors, any error is a failure.
    #[arg(long, value_name = "CONDITIONS")]
    pub(super) fail_if: Vec<Objectives>,
}

/// The time that is measured without another wish.
const DEFAULT_DURATION: Duration = Duration::from_secs(5);

/// The time before anything is counted without another wish.
const DEFAULT_WARM_UP: Duration = Duration::from_secs(1);

impl Load {
    /// The times before the warm-up and after the measurement.
    pub(super) fn ramp(&self) -> Ramp {
        match self.profile {
            Some(Profile::Rfc9411) => rfc9411::ramp(self.ramp.unwrap_or(rfc9411::RAMP)),
            None => Ramp {
                up: self.ramp.unwrap_or_default(),
                ..Ramp::default()
            },
        }
    }

    /// The time before anything is counted.
    pub(super) fn warm_up(&self) -> Duration {
        self.warm_up.unwrap_or(match self.profile {
            Some(Profile::Rfc9411) => Duration::ZERO,
            None => DEFAULT_WARM_UP,
        })
    }

    /// The time that is measured.
    pub(super) fn duration(&self) -> Duration {
        self.duration.unwrap_or(match self.profile {
            Some(Profile::Rfc9411) => rfc9411::SUSTAIN,
            None => DEFAULT_DURATION,
        })
    }
}

impl Options {
    /// Those of a measurement by sockets that verifies every response.
    pub(super) fn verifying(url: UnresolvedUrl, request: RequestOptions, files: ReportFiles) -> Self {
        Self {
            url,
            client: ClientOptions {
                client: ClientKind::Kernel,
                cpu: None,
                verify: true,
                any_length: false,
                request,
                bypass: BypassOptions::default(),
            },
            files,
            hgrm: None,
            log: None,
            live: Live::Never,
            server_pid: None,
            agents: Agents::default(),
            end_with_input: false,
        }
    }

    /// Returns whether files are asked for.
    pub(super) fn writes_files(&self) -> bool {
        !self.files.is_empty() || self.hgrm.is_some() || self.log.is_some()
    }

    /// Has the agents measure; see [`Agents::run`].
    ///
    /// # Errors
    ///
    /// Those of it, and `--hgrm`, which takes one distribution, or `--server-pid`, which is a process of this machine
    /// (usage errors).
    pub(super) fn ask_agents(&self) -> anyhow::Result<bool> {
        if self.hgrm.is_some() {
            let text = "--hgrm does not go with --agents; `report merge --hgrm` makes it of what --log writes";
            return Err(UsageError(text.to_owned()).into());
        }
        if self.server_pid.is_some() {
            let text =
                "--server-pid does not go with --agents, which run on other machines than the process; leave it out";
            return Err(UsageError(text.to_owned()).into());
        }
        self.agents.run(&self.files, self.log.as_ref())
    }

    /// Ends the process with exit code 1 as soon as standard input ends, if that is asked for.
    pub(super) fn end_with_input(&self) {
        if self.end_with_input {
            thread::spawn(|| {
                // Nothing is sent, so this returns at the end of the one who would.
                let _ = io::copy(&mut io::stdin(), &mut io::sink());
                process::exit(1);
            });
        }
    }

    /// Checks that the files that are asked for can be written.
    ///
    /// # Errors
    ///
    /// One cannot be made or written.
    pub(super) fn check_writable(&self) -> anyhow::Result<()> {
        self.files.check_writable()?;
        [&self.hgrm, &self.log]
            .into_iter()
            .flatten()
            .try_for_each(|file| files::check_writable(file))
    }

    /// Writes them.
    ///
    /// # Errors
    ///
    /// One cannot be written.
    pub(super) fn write(&self, run: &Run, report: &Report) -> anyhow::Result<()> {
        self.files.write(report)?;
        if let Some(file) = &self.hgrm {
            files::write(file, run.hgrm())?;
        }
        if let Some(file) = &self.log {
            files::write(file, run.log()?)?;
        }
        Ok(())
    }
}

/// A link-local address of IPv6 is one of several, unless it says of which interface.
fn check_zone(target: SocketAddr) -> Result<(), UsageError> {
    match target {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => Err(UsageError(format!(
            "{} is the address of a host on every link; write the interface behind it: [{}%25INTERFACE]",
            v6.ip(),
            v6.ip()
        ))),
        _ => Ok(()),
    }
}

impl ClientOptions {
    /// The bodies that responses have to have.
    pub(crate) fn verify(&self) -> Verify {
        match (self.verify, self.any_length) {
            (true, _) => Verify::Alike,
            (false, true) => Verify::Any,
            (false, false) => Verify::Length,
        }
    }

    /// Refuses the arguments about requests and responses that were given: there are none.
    ///
    /// # Errors
    ///
    /// There are some (a usage error).
    pub(super) fn refuse_requests(&self) -> Result<(), UsageError> {
        self.request.refuse()?;
        http::refuse(&[(self.verify, "--verify"), (self.any_length, "--any-length")])
    }

    /// The client that was chosen, to load `target`.
    ///
    /// # Errors
    ///
    /// Arguments do not go together (a usage error).
    pub(crate) fn build(&self, target: SocketAddr) -> anyhow::Result<Box<dyn Client>> {
        match self.client {
            ClientKind::Kernel => {
                self.bypass.refuse()?;
                check_zone(target)?;
                Ok(Box::new(KernelClient::new()))
            }
            ClientKind::Bypass => Ok(Box::new(BypassClient::new(self.bypass.settings(target)?))),
        }
    }

    /// The name of that client in the results.
    pub(crate) const fn name(&self) -> &'static str {
        match self.client {
            ClientKind::Kernel => "kernel",
            ClientKind::Bypass => "bypass",
        }
    }

    /// Returns the facts that the results depend on.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub(crate) fn environment(&self) -> anyhow::Result<Map<String, Value>> {
        let mut environment = environment::describe()?;
        if self.client == ClientKind::Bypass {
            self.bypass.describe(&mut environment);
        }
        Ok(environment)
    }
}
