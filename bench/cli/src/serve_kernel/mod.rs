//! tidegate's applications on the kernel's TCP, by `tidegate-kernel-host`, for comparing tidegate's TCP with the
//! kernel's under equal application code.

mod bucket;
mod limited;
mod listen;
mod spin;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tidegate_apps::{Listen, ServiceKind, Services, discard, echo, http};
use tidegate_args::signals::{Event, Signals};
use tidegate_args::{UsageError, rate};
use tidegate_kernel_host::Server;

use self::bucket::Bucket;
use self::limited::Limited;
use self::spin::Spinning;

/// The line printed when all threads listen.
const READY: &str = "ready";

/// The interval at which the threads are looked after.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Arguments of `tidegate-bench serve-kernel`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Service and address: http, echo or discard, for example http=198.18.0.1:80; IPv6 addresses go in brackets. May
    /// be given several times.
    #[arg(long, required = true, value_name = "SERVICE=ADDRESS:PORT", value_parser = listen::parse)]
    listen: Vec<Listen>,
    /// The directory whose files http serves; without it, one built-in page.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Threads, 1 to 256, each with its own listening sockets (SO_REUSEPORT).
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// The CPUs the threads are bound to, as many as there are threads.
    #[arg(long, value_name = "N,N...", value_delimiter = ',')]
    cpu: Vec<usize>,
    /// Serve at most so many requests a second, all threads and services together, 1 to 10,000,000: a known limit for
    /// the verification of measurements. What is more waits in the order it came. At the end the number that was served
    /// is printed.
    #[arg(long, value_name = "RATE", value_parser = rate::within(1..=10_000_000))]
    max_rate: Option<u64>,
    /// End after so long, for example 60s; without it, at SIGINT or SIGTERM.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Keep the processor busy for so long at each request; for tests of measurements. It would do so again whenever a
    /// request of a limited rate is offered, so the two exclude each other.
    #[arg(
        long,
        hide = true,
        value_name = "TIME",
        value_parser = humantime::parse_duration,
        conflicts_with = "max_rate"
    )]
    spin: Option<Duration>,
}

impl Arguments {
    /// Checks that clap cannot do by itself.
    fn check(&self) -> Result<(), UsageError> {
        Listen::check_distinct(self.listen.iter().copied()).map_err(|error| UsageError(error.to_string()))?;
        if !self.cpu.is_empty() && self.cpu.len() != usize::from(self.threads) {
            return Err(UsageError(format!(
                "{} CPUs are given for {} threads; give --cpu one for each, or leave it out",
                self.cpu.len(),
                self.threads
            )));
        }
        let http = self.listen.iter().any(|listen| listen.service == ServiceKind::Http);
        if self.root.is_some() && !http {
            return Err(UsageError(
                "a root directory is given, but no http listener that would serve it".to_owned(),
            ));
        }
        Ok(())
    }

    /// The applications of each thread, with the settings the server has by default.
    fn applications(&self) -> Result<Vec<Services>, UsageError> {
        let kinds: Vec<ServiceKind> = self.listen.iter().map(|listen| listen.service).collect();
        let http = http::Config {
            root: self.root.clone(),
            ..http::Config::default()
        };
        (0..self.threads)
            .map(|_| {
                Services::new(
                    kinds.clone(),
                    echo::Config::default(),
                    discard::Config::default(),
                    http.clone(),
                )
                .map_err(|error| UsageError(error.to_string()))
            })
            .collect()
    }
}

/// Serves until the time is over or a signal ends it. Always true.
///
/// # Errors
///
/// The arguments do not go together (a usage error), an address cannot be listened on, a CPU not be used, or the kernel
/// refuses something else.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    arguments.check()?;
    let bucket = arguments.max_rate.map(|rate| Arc::new(Bucket::new(rate)));
    let applications = arguments.applications()?.into_iter();
    allow_open_files()?;
    // Before the threads are started, so that they have the signals blocked, too.
    let signals = Signals::take_over()?;
    let addresses: Vec<SocketAddr> = arguments.listen.iter().map(|listen| listen.address).collect();
    let report: fn(&io::Error) = |error| {
        eprintln!("tidegate-bench serve-kernel: some connections are not served: {error}");
    };
    let cpus = &arguments.cpu;
    let server = match (arguments.spin, &bucket) {
        (Some(time), _) => {
            let spinning = applications.map(|application| Spinning { application, time });
            Server::start(&addresses, cpus, spinning.collect(), report)
        }
        (None, Some(bucket)) => {
            let limited = applications.map(|application| Limited::new(application, Arc::clone(bucket)));
            Server::start(&addresses, cpus, limited.collect(), report)
        }
        (None, None) => Server::start(&addresses, cpus, applications.collect(), report),
    }?;
    for listen in &arguments.listen {
        println!("listening on {}: {}", listen.address, listen.service.name());
    }
    println!("{READY}");
    wait(&signals, &server, arguments.duration)?;
    server.stop()?;
    if let (Some(rate), Some(bucket)) = (arguments.max_rate, bucket) {
        println!("--max-rate {rate}: {}", bucket.through());
    }
    Ok(true)
}

/// Every connection takes a descriptor.
fn allow_open_files() -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")?;
    }
    Ok(())
}

/// Returns when the time is over, a signal asks to stop, or a thread has ended.
fn wait(signals: &Signals, server: &Server, duration: Option<Duration>) -> anyhow::Result<()> {
    let end = duration.and_then(|duration| Instant::now().checked_add(duration));
    while server.is_running() {
        let left = match end {
            Some(end) => end.saturating_duration_since(Instant::now()),
            None => POLL_INTERVAL,
        };
        if left.is_zero() {
            return Ok(());
        }
        let timeout = PollTimeout::try_from(left.min(POLL_INTERVAL)).unwrap_or(PollTimeout::MAX);
        let mut descriptors = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for signals"),
        }
        while let Some(event) = signals.next()? {
            if event == Event::Stop {
                return Ok(());
            }
        }
    }
    Ok(())
}
