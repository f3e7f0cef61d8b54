//! The server under test, in the lab's server namespace.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};

use super::counters::{CONNECTIONS, Counters};
use super::process::{Finished, Running};
use super::{BOTH_FAMILIES, DISCARD_PORT, ECHO_PORT, HTTP_PORT, Lab, Namespace, SERVER_DEVICE};

const READY_LINE: &str = "tidegate: ready";
const READY_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(15);
const LOG_LIMIT: Duration = Duration::from_secs(10);
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// `tidegate serve` with `arguments`, in the server's namespace.
pub(crate) fn serve_command(arguments: &[&str]) -> Command {
    let mut command = Namespace::Server.command(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("serve").args(arguments);
    command
}

/// Arguments of `serve` for HTTP, echo and discard on both of the lab's addresses, followed by `extra`.
pub(crate) fn default_arguments(extra: &[&str]) -> Vec<String> {
    let mut arguments = vec!["--iface".to_owned(), SERVER_DEVICE.to_owned()];
    for address in BOTH_FAMILIES {
        for (application, port) in [("http", HTTP_PORT), ("echo", ECHO_PORT), ("discard", DISCARD_PORT)] {
            let address = SocketAddr::new(address, port);
            arguments.push("--listen".to_owned());
            arguments.push(format!("{application}={address}"));
        }
    }
    arguments.extend(extra.iter().map(|&argument| argument.to_owned()));
    arguments
}

/// The load generator, which is built into the same directory as the server.
pub(crate) fn bench_binary() -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_tidegate")).with_file_name("tidegate-bench");
    assert!(
        binary.exists(),
        "{} is not there: run `cargo build --release` and then the tests with `--release`",
        binary.display()
    );
    binary
}

/// A running server. Dropping it kills it; it cannot outlive its lab.
pub(crate) struct Server<'lab> {
    process: Running,
    _lab: PhantomData<&'lab Lab>,
}

impl<'lab> Server<'lab> {
    /// Starts a server with the default listeners and `extra` arguments, and waits until it serves.
    pub(crate) fn start(_lab: &'lab Lab, extra: &[&str]) -> Self {
        let arguments = default_arguments(extra);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut process = Running::start(serve_command(&arguments));
        process.wait_until_ready(READY_LINE, READY_LIMIT);
        Self {
            process,
            _lab: PhantomData,
        }
    }

    /// The server's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its exit status if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Its command line and the last lines it printed.
    pub(crate) fn describe(&self) -> String {
        self.process.describe()
    }

    /// Waits until the server has logged a line that holds `fragment`, `times` times since its start.
    pub(crate) fn wait_for_log(&self, fragment: &str, times: usize) {
        let said = |lines: &[String]| lines.iter().filter(|line| line.contains(fragment)).count() >= times;
        assert!(
            self.process.stderr().wait_for(LOG_LIMIT, said),
            "{fragment:?} was not logged {times} times: {}",
            self.describe()
        );
    }

    /// How many lines of the log hold `fragment`.
    pub(crate) fn logged(&self, fragment: &str) -> usize {
        let lines = self.process.stderr().since(0);
        lines.iter().filter(|line| line.contains(fragment)).count()
    }

    /// Waits until the server has said `times` times that it is ready.
    pub(crate) fn wait_until_ready_again(&self, times: usize) {
        let ready = |lines: &[String]| lines.iter().filter(|line| line.trim() == READY_LINE).count() >= times;
        assert!(
            self.process.stdout().wait_for(READY_LIMIT, ready),
            "it was not ready {times} times: {}",
            self.describe()
        );
    }

    /// Waits until the server ends by itself.
    pub(crate) fn wait_for_end(self) -> Finished {
        self.process
            .wait(STOP_LIMIT)
            .unwrap_or_else(|problem| panic!("the server did not end by itself: {problem}"))
    }

    /// The counters now, asked for by SIGUSR1.
    pub(crate) fn counters(&self) -> Counters {
        let counters = Counters::parse(&self.process.report());
        assert!(!counters.is_empty(), "no counter in: {}", self.describe());
        counters
    }

    /// Waits until no connection is left, both by the population of the shards' tables and by what
    /// was accepted and ended. TIME-WAIT does not count.
    pub(crate) fn wait_until_no_connection(&self) -> Counters {
        let deadline = Instant::now() + IDLE_LIMIT;
        loop {
            let counters = self.counters();
            let population = counters.sum(CONNECTIONS);
            let not_ended = counters.accepted_and_not_ended();
            if population == 0 && not_ended == 0 {
                return counters;
            }
            assert!(
                Instant::now() < deadline,
                "after {IDLE_LIMIT:?} without traffic there are {population} connections; \
                 {not_ended} were accepted and never ended: {}",
                self.describe()
            );
        }
    }

    /// Processor time the process has used since its start, user and system.
    pub(crate) fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {path}: {error}"));
        let ticks = cpu_ticks(&stat).unwrap_or_else(|| panic!("{path} is not readable: {stat}"));
        let per_second = sysconf(SysconfVar::CLK_TCK)
            .ok()
            .flatten()
            .expect("the kernel tells its clock ticks per second");
        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }

    /// Resident memory of the process, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = line
            .and_then(|rest| rest.trim().strip_suffix("kB")?.trim_end().parse().ok())
            .unwrap_or_else(|| panic!("{path} has no VmRSS: {status}"));
        kilobytes * 1024
    }

    /// Kills the server with SIGKILL and waits for its end.
    pub(crate) fn kill(self) {
        self.process.kill();
    }

    /// Sends SIGTERM: the server begins to drain.
    pub(crate) fn begin_stop(self) -> Stopping {
        let printed = self.process.stdout().len();
        self.process.signal(Signal::SIGTERM);
        Stopping {
            process: self.process,
            printed,
        }
    }

    /// Stops the server by SIGTERM. It must end in time and with exit code 0; returns its last
    /// counters.
    pub(crate) fn stop(self) -> Counters {
        self.begin_stop().finish()
    }
}

/// A server that was told to stop. Dropping it kills it.
pub(crate) struct Stopping {
    process: Running,
    printed: usize,
}

impl Stopping {
    /// Waits until the server has said that it stops.
    pub(crate) fn wait_until_draining(&self) {
        let said = |lines: &[String]| lines.iter().any(|line| line == "tidegate: stopping");
        assert!(
            self.process.stdout().wait_for(LOG_LIMIT, said),
            "it does not stop: {}",
            self.process.describe()
        );
    }

    /// Waits for the server's end, however it ends.
    pub(crate) fn wait_for_end(self) -> Finished {
        self.process
            .wait(STOP_LIMIT)
            .unwrap_or_else(|problem| panic!("SIGTERM did not end the server: {problem}"))
    }

    /// Waits for the server's end, which must come in time and with exit code 0. Returns the
    /// counters it printed after the signal.
    pub(crate) fn finish(self) -> Counters {
        let printed = self.printed;
        let finished = self.wait_for_end().expect_success();
        let lines: Vec<&str> = finished.stdout.lines().skip(printed).collect();
        let counters = Counters::parse(&lines);
        assert!(!counters.is_empty(), "no counters at the end: {}", finished.describe());
        counters
    }
}

/// utime + stime, fields 14 and 15 of /proc/PID/stat. The name before them may hold spaces and
/// parentheses, so fields are counted from its last parenthesis.
pub(crate) fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}
