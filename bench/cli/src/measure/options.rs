//! Options of all measurements: the target, the client, and where the results go.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{io, process, thread};

use clap::ValueEnum;
use serde_json::{Map, Value};
use tidegate_args::url::Url;
use tidegate_args::{UsageError, duration};
use tidegate_lab::environment;
use tidegate_load::{BypassClient, Client, KernelClient, Verify};
use tidegate_report::{Report, ReportFiles, files};

use super::bypass::BypassOptions;
use super::report::Run;
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

/// Arguments of every measurement.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// URL to request: http://ADDRESS:PORT/PATH, with IPv6 addresses in brackets.
    #[arg(long)]
    pub(super) url: Url,
    /// The TCP that the client uses.
    #[arg(long, value_enum, default_value = "kernel")]
    client: ClientKind,
    /// The CPU the client runs on (default: any)
    #[arg(long, value_name = "N")]
    pub(super) cpu: Option<usize>,
    /// Compare every body with the first by SHA-256, not only its length, and wait at the end for what is under way.
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    files: ReportFiles,
    /// Write the distribution of the latency to this file as .hgrm text, in microseconds.
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write the latencies to this file as an interval log of HdrHistogram, in nanoseconds; `report merge` reads it.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Look at the processor time of this process, the server, and of those it has started; `hold` also at its memory
    /// and the kernel's. It must be on this machine.
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Option<u32>,
    #[command(flatten)]
    pub(super) agents: Agents,
    /// End when standard input does, as an agent's measurement has to.
    #[arg(long, hide = true)]
    end_with_input: bool,
    #[command(flatten)]
    bypass: BypassOptions,
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
    /// Time that passes before anything is counted, at most 10m.
    #[arg(long, default_value = "1s", value_parser = duration::within(Duration::ZERO..=MAX_DURATION))]
    pub(super) warm_up: Duration,
    /// Time that is measured, at most 10m.
    #[arg(long, default_value = "5s", value_parser = duration::within(MIN_DURATION..=MAX_DURATION))]
    pub(super) duration: Duration,
}

impl Options {
    /// Those of a measurement by sockets that verifies every response.
    pub(super) fn verifying(url: Url, files: ReportFiles) -> Self {
        Self {
            url,
            client: ClientKind::Kernel,
            cpu: None,
            verify: true,
            files,
            hgrm: None,
            log: None,
            server_pid: None,
            agents: Agents::default(),
            end_with_input: false,
            bypass: BypassOptions::default(),
        }
    }

    /// The bodies that responses have to have.
    pub(super) fn verify(&self) -> Verify {
        if self.verify { Verify::Alike } else { Verify::Length }
    }

    /// The client that was chosen, to load `target`.
    ///
    /// # Errors
    ///
    /// Arguments do not go together (a usage error).
    pub(super) fn client(&self, target: SocketAddr) -> anyhow::Result<Box<dyn Client>> {
        match self.client {
            ClientKind::Kernel => {
                self.bypass.refuse()?;
                Ok(Box::new(KernelClient::new()))
            }
            ClientKind::Bypass => Ok(Box::new(BypassClient::new(self.bypass.settings(target)?))),
        }
    }

    /// The name of that client in the results.
    pub(super) const fn client_name(&self) -> &'static str {
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
    pub(super) fn environment(&self) -> anyhow::Result<Map<String, Value>> {
        let mut environment = environment::describe()?;
        if self.client == ClientKind::Bypass {
            self.bypass.describe(&mut environment);
        }
        Ok(environment)
    }

    /// Returns whether files are asked for.
    pub(super) fn writes_files(&self) -> bool {
        !self.files.is_empty() || self.hgrm.is_some() || self.log.is_some()
    }

    /// Has the agents measure; see [`Agents::run`].
    ///
    /// # Errors
    ///
    /// Those of it, and `--hgrm`, which takes one distribution (a usage error).
    pub(super) fn ask_agents(&self) -> anyhow::Result<bool> {
        if self.hgrm.is_some() {
            let text = "--hgrm does not go with --agents; `report merge --hgrm` makes it of what --log writes";
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
