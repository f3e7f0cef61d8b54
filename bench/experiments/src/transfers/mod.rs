//! Transfers between a Linux client and servers on tidegate and on the kernel's TCP, over a link as bad as asked for:
//! the parts that [`goodput`](crate::goodput) and [`fairness`](crate::fairness) share.
//!
//! A Linux client is on one side of the link. On the other side are tidegate and servers on the kernel's TCP, one for
//! each congestion control, on ports of the same address.

mod control;
mod link;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use tempfile::TempDir;
use tidegate_args::url::Url;
use tidegate_lab::arrangement::SERVER_DEVICE;
use tidegate_lab::machine::{self, SegmentsSent};
use tidegate_lab::{Child, Children, Family, Lab, Place};
use tidegate_report::ReportFiles;
use tidegate_runtime::WaitStrategy;
use tidegate_stream::serve;
use tidegate_stream::transfer::{self, Transfer, Until};

pub(crate) use self::control::CUBIC;
use self::control::Controls;
#[cfg(test)]
pub(crate) use self::link::assert_understood;
pub(crate) use self::link::{Link, RunningLink};
use crate::setup::{Setup, directory, this_program, wait_name};

/// The devices in the middle, the client's side first.
const MIDDLE_DEVICES: [&str; 2] = ["tgm0", "tgm1"];

/// The least of the bytes that a client may queue beyond what it can send.
const MIN_NOT_SENT_LIMIT: u64 = 131_072;

/// The time a link goes on after its transfers: several round trips with a full queue.
const AFTERMATH: Duration = Duration::from_millis(250);

/// The ports of tidegate.
const HTTP_PORT: u16 = 80;
const DISCARD_PORT: u16 = 9;

/// The port of the first of the kernel's servers; one for each congestion control follows.
const KERNEL_HTTP_PORT: u16 = 8080;
/// The port of what throws away uploads on the kernel's TCP.
const KERNEL_DISCARD_PORT: u16 = 8009;

/// The arguments that both experiments take.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    controls: Controls,
    /// Use IPv6.
    #[arg(long)]
    ipv6: bool,
    /// The way tidegate waits for frames.
    #[arg(long, value_name = "STRATEGY", value_enum, default_value_t = WaitStrategy::Adaptive)]
    wait: WaitStrategy,
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    pub(crate) files: ReportFiles,
}

impl Options {
    /// Finds the lab, which must be up with a middle.
    ///
    /// # Errors
    ///
    /// It is not.
    pub(crate) fn lab(&self) -> anyhow::Result<Lab> {
        self.setup.lab_with_middle()
    }

    pub(crate) fn family(&self) -> Family {
        if self.ipv6 { Family::V6 } else { Family::V4 }
    }

    /// Returns the facts the results depend on: the machine, what these options say, and `more`.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub(crate) fn describe<const COUNT: usize>(
        &self,
        bench: &Bench,
        more: [(&str, Value); COUNT],
    ) -> anyhow::Result<Map<String, Value>> {
        let own: [(&str, Value); 3] = [
            ("controls", bench.controls.as_slice().into()),
            ("ip_version", self.family().title().into()),
            ("wait", bench.wait.as_str().into()),
        ];
        let mut environment = tidegate_lab::environment::describe()?;
        environment.extend(
            own.into_iter()
                .chain(more)
                .map(|(name, value)| (name.to_owned(), value)),
        );
        Ok(environment)
    }
}

/// A TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    /// tidegate's.
    Tidegate,
    /// The kernel's.
    Linux,
}

impl Stack {
    /// Both.
    pub(crate) const BOTH: [Self; 2] = [Self::Tidegate, Self::Linux];

    /// Returns its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Linux => "Linux",
        }
    }
}

/// The direction of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The server under test sends, a Linux client receives.
    Down,
    /// A Linux client sends, the server under test receives.
    Up,
}

impl Direction {
    /// Both, in the order they are measured.
    pub(crate) const BOTH: [Self; 2] = [Self::Down, Self::Up];

    /// Returns its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Down => "server to client",
            Self::Up => "client to server",
        }
    }
}

/// One connection that moves data one way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow<'a> {
    /// The server's TCP.
    pub(crate) stack: Stack,
    /// The congestion control of the sender. tidegate's is the one it was started with.
    pub(crate) control: &'a str,
    /// The direction of the data.
    pub(crate) direction: Direction,
}

/// The servers on the kernel's TCP, and all that a server of tidegate and a link need.
pub(crate) struct Bench<'a> {
    lab: &'a Lab,
    children: &'a Children,
    address: IpAddr,
    program: PathBuf,
    wait: String,
    /// The congestion controls that are measured.
    pub(crate) controls: Vec<String>,
    /// Path of a body that no transfer reaches the end of.
    path: String,
    /// The files that tidegate serves, its configuration files, and the counts of links.
    work: TempDir,
}

impl<'a> Bench<'a> {
    /// Starts the servers on the kernel's TCP, for transfers of `length` bytes at most.
    ///
    /// # Errors
    ///
    /// None of the congestion controls can be measured, a server cannot listen, or a file not be made.
    pub(crate) fn set_up(lab: &'a Lab, children: &'a Children, options: &Options, length: u64) -> anyhow::Result<Self> {
        for place in [Place::Client, Place::Server] {
            // What one connection learned of the path must not be what the next one begins with.
            lab.set_variable(place, "net.ipv4.tcp_no_metrics_save", 1)?;
        }
        let work = directory("transfers")?;
        let program = options.setup.tidegate()?;
        let controls = options.controls.usable(lab, &program, work.path())?;
        let address = options.family().server();
        lab.inside(Place::Server, || {
            for (port, control) in (KERNEL_HTTP_PORT..).zip(&controls) {
                serve::source(SocketAddr::new(address, port), Some(control))?;
            }
            serve::sink(SocketAddr::new(address, KERNEL_DISCARD_PORT), None)
        })?;
        // The kernel's server makes a body of the length that is its path; tidegate serves a file, all holes, of that
        // name and length.
        let root = root(work.path());
        let file = root.join(length.to_string());
        fs::create_dir(&root)
            .and_then(|()| fs::File::create(&file))
            .and_then(|file| file.set_len(length))
            .with_context(|| format!("cannot make {}", file.display()))?;
        Ok(Self {
            lab,
            children,
            address,
            program,
            wait: wait_name(options.wait)?,
            controls,
            path: format!("/{length}"),
            work,
        })
    }

    /// Returns the way tidegate waits for frames, as its command line has it.
    pub(crate) fn wait(&self) -> &str {
        &self.wait
    }

    /// Starts tidegate with `control`. It runs until the result is dropped.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(crate) fn start_tidegate(&self, control: &str) -> anyhow::Result<Tidegate> {
        let configuration = control::write_configuration(control, self.work.path())?;
        let mut command = self.lab.command(Place::Server, &self.program);
        command.args([
            "serve",
            "--quiet",
            "--iface",
            SERVER_DEVICE,
            "--drain",
            "1s",
            "--wait",
            &self.wait,
        ]);
        for (service, port) in [("http", HTTP_PORT), ("discard", DISCARD_PORT)] {
            command.args([
                "--listen",
                &format!("{service}={}", SocketAddr::new(self.address, port)),
            ]);
        }
        command.arg("--config").arg(configuration);
        command.arg("--root").arg(root(self.work.path()));
        let child = self.children.start(command, "tidegate: ready")?;
        Ok(Tidegate { child })
    }

    /// Starts a link, all random numbers of which follow from `seed`.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(crate) fn start_link(&self, link: Link, seed: u64) -> anyhow::Result<RunningLink> {
        self.lab
            .set_variable(Place::Client, "net.ipv4.tcp_notsent_lowat", not_sent_limit(link))?;
        let file = self.work.path().join("link.json");
        let mut command: Command = self.lab.command(Place::Middle, &this_program()?);
        command.arg("link").args(MIDDLE_DEVICES).args(link.arguments(seed));
        command.arg("--json").arg(&file);
        let child = self.children.start(command, "tidegate-bench link: ready")?;
        Ok(RunningLink::new(child, file))
    }

    /// Transfers on all of `flows` at the same time until `until`. What is left of the connections ends before this
    /// returns, so that it does not disturb the next ones.
    ///
    /// # Errors
    ///
    /// One of them fails.
    pub(crate) fn transfer(&self, flows: &[Flow], until: Until) -> anyhow::Result<Vec<Transfer>> {
        let begin = Barrier::new(flows.len());
        let transfers = self.lab.inside(Place::Client, || {
            thread::scope(|scope| {
                let threads: Vec<_> = flows
                    .iter()
                    .map(|flow| {
                        let begin = &begin;
                        scope.spawn(move || {
                            begin.wait();
                            self.one(flow, until)
                                .with_context(|| format!("{}, {}", flow.stack.name(), flow.direction.name()))
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause)))
                    .collect()
            })
        })?;
        thread::sleep(AFTERMATH);
        Ok(transfers)
    }

    fn one(&self, flow: &Flow, until: Until) -> anyhow::Result<Transfer> {
        match flow.direction {
            Direction::Down => {
                let address = SocketAddr::new(self.address, self.http_port(flow)?);
                let url = format!("http://{address}{}", self.path)
                    .parse::<Url>()
                    .map_err(anyhow::Error::msg)?;
                transfer::download(&url, Some(until), Some(flow.control))
            }
            Direction::Up => {
                let port = match flow.stack {
                    Stack::Tidegate => DISCARD_PORT,
                    Stack::Linux => KERNEL_DISCARD_PORT,
                };
                transfer::upload(SocketAddr::new(self.address, port), until, Some(flow.control))
            }
        }
    }

    fn http_port(&self, flow: &Flow) -> anyhow::Result<u16> {
        if flow.stack == Stack::Tidegate {
            return Ok(HTTP_PORT);
        }
        (KERNEL_HTTP_PORT..)
            .zip(&self.controls)
            .find_map(|(port, control)| (control == flow.control).then_some(port))
            .with_context(|| format!("no server of the kernel's has {}", flow.control))
    }

    /// Returns the segments that the kernel at `place` has sent.
    ///
    /// # Errors
    ///
    /// Its table cannot be read.
    pub(crate) fn kernel_segments(&self, place: Place) -> anyhow::Result<SegmentsSent> {
        self.lab.inside(place, machine::tcp_segments_sent)
    }
}

/// The bytes that a client may queue beyond what it can send: what `link` carries in 10 ms. It decides how long an
/// upload goes on after its last write, and with the default, which is no limit, that is longer than the rest on a bad
/// link.
fn not_sent_limit(link: Link) -> u64 {
    (link.rate.unwrap_or_default() / 8 / 100).max(MIN_NOT_SENT_LIMIT)
}

/// The directory that tidegate serves.
fn root(work: &Path) -> PathBuf {
    work.join("root")
}

/// A server of tidegate.
pub(crate) struct Tidegate {
    child: Child,
}

impl Tidegate {
    /// Checks that both it and `link` still run.
    ///
    /// # Errors
    ///
    /// One has ended.
    pub(crate) fn check_running(&mut self, link: &mut RunningLink) -> anyhow::Result<()> {
        if !link.is_running()? || !self.child.is_running()? {
            bail!("the link or tidegate ended in mid-run");
        }
        Ok(())
    }

    /// Returns the processor time it has used, in user mode and in the kernel. Soft interrupts are not in it.
    pub(crate) fn processor_time(&self) -> Duration {
        machine::processor_time(self.child.id()).iter().sum()
    }

    /// Returns the segments it has sent.
    ///
    /// # Errors
    ///
    /// It has ended, or does not print its counters.
    pub(crate) fn segments(&self) -> anyhow::Result<SegmentsSent> {
        let lines = self.child.report()?;
        let get = |name| sum(&lines, name).with_context(|| format!("tidegate does not count {name}"));
        Ok(SegmentsSent {
            all: get("tcp_frames_out")?,
            again: get("tcp_fast_retransmits")? + get("tcp_rto_retransmits")?,
        })
    }
}

/// The sum of counter `name` over all queues, of lines like `NAME{queue="0"} VALUE`; `None` if there is no such line.
fn sum(lines: &[String], name: &str) -> Option<u64> {
    let values = lines.iter().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        labels.starts_with('{').then(|| value.parse::<u64>().ok())?
    });
    values.reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_queue_more_where_more_is_sent() {
        let limit = |rate| not_sent_limit(Link::new(rate, Duration::from_millis(1), 100));
        assert_eq!(limit(100_000_000), 131_072);
        assert_eq!(limit(1_000_000_000), 1_250_000);
    }

    #[test]
    fn a_counter_is_summed_over_queues_by_its_whole_name() {
        let lines = [
            "tcp_frames_out{queue=\"0\"} 5",
            "tcp_frames_out{queue=\"1\"} 7",
            "tcp_frames_out_more{queue=\"0\"} 100",
            "more_tcp_frames_out{queue=\"0\"} 100",
            "tcp_frames_out",
        ]
        .map(str::to_owned);
        assert_eq!(sum(&lines, "tcp_frames_out"), Some(12));
        assert_eq!(sum(&lines, "tcp_frames"), None);
    }
}
