//! Goodput of tidegate over impaired links, beside that of the kernel's own TCP over the same links in the same run.
//!
//! A Linux client is on one side of the link. On the other side are tidegate and a server on the kernel's TCP, on ports
//! of the same address. The same client measures both in turn, with CUBIC on every side, and each transfer has the link
//! for itself.

mod report;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use tempfile::TempDir;
use tidegate_args::duration::{self, ABOVE_ZERO};
use tidegate_args::url::Url;
use tidegate_lab::arrangement::SERVER_DEVICE;
use tidegate_lab::{Child, Children};
use tidegate_lab::{Family, Lab, Place};
use tidegate_report::ReportFiles;

use tidegate_stream::serve;
use tidegate_stream::transfer::{self, Transfer, Until};

use self::report::{Direction, Transfers};
use crate::setup::{Setup, directory, this_program};

const CONGESTION: &str = "cubic";

/// The devices in the middle, the client's side first.
const MIDDLE_DEVICES: [&str; 2] = ["tgm0", "tgm1"];

/// Half of the round-trip time.
const ONE_WAY_DELAY: &str = "10ms";
const RATE: &str = "100mbit";
/// The rate in bytes per second.
const RATE_BYTES: u64 = 12_500_000;
/// Frames that may wait for the rate limit: about one and a half times what is on its way at full rate.
const QUEUE: &str = "250";

/// Bytes a client may queue beyond what it can send. It decides how long an upload goes on after its last
/// write, and with the default, which is no limit, that is longer than the rest on a bad link.
const NOT_SENT_LIMIT: u32 = 131_072;

/// The time a link goes on after its transfer: several round trips with a full queue.
const AFTERMATH: Duration = Duration::from_millis(250);

/// The longest time a transfer goes on.
const MAX_DURATION: Duration = Duration::from_secs(120);

/// A kind of link: its name and what is given to `tidegate-bench link` beside delay and rate.
struct Condition {
    name: &'static str,
    arguments: &'static [&'static str],
}

impl Condition {
    const fn new(name: &'static str, arguments: &'static [&'static str]) -> Self {
        Self { name, arguments }
    }
}

const CONDITIONS: [Condition; 5] = [
    Condition::new("loss 0%", &[]),
    Condition::new("loss 0.1%", &["--loss", "0.1%"]),
    Condition::new("loss 1%", &["--loss", "1%"]),
    Condition::new("loss 3%", &["--loss", "3%"]),
    Condition::new("reordering 25%", &["--reorder", "25%"]),
];

/// Arguments of `tidegate-bench goodput`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Transfers for each kind of link, direction and server, 1 to 100.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The time each transfer goes on, at most 120s.
    #[arg(long, default_value = "10s", value_parser = duration::within(ABOVE_ZERO..=MAX_DURATION))]
    duration: Duration,
    /// Two runs of 3 s each: a first look, too short for a judgement.
    #[arg(long, conflicts_with_all = ["runs", "duration"])]
    quick: bool,
    /// Only links whose name contains this, for instance `loss 1%` or `reordering`.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Use IPv6.
    #[arg(long)]
    ipv6: bool,
    /// Seed of the links of the first run; those of each further run have the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    files: ReportFiles,
}

/// Measures everything and prints the table. Always true: how fast is fast enough is for the reader.
///
/// # Errors
///
/// The lab is not up, a server or the link does not start, or a transfer fails.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let (runs, duration) = if arguments.quick {
        (2, Duration::from_secs(3))
    } else {
        (arguments.runs, arguments.duration)
    };
    let only = arguments.only.as_deref().unwrap_or_default();
    let conditions: Vec<&Condition> = CONDITIONS
        .iter()
        .filter(|condition| condition.name.contains(only))
        .collect();
    if conditions.is_empty() {
        let names: Vec<&str> = CONDITIONS.iter().map(|condition| condition.name).collect();
        bail!("no link is called {only:?}; there are: {}", names.join(", "));
    }
    arguments.files.check_writable()?;
    let lab = arguments.setup.lab_with_middle()?;
    let children = Children::new()?;
    let address = if arguments.ipv6 { Family::V6 } else { Family::V4 }.server();
    let mut bench = Bench::set_up(&lab, &children, arguments, address, duration)?;
    let mut rows = Vec::new();
    for condition in conditions {
        rows.extend(bench.measure(condition, runs)?);
    }
    let setting = format!(
        "Goodput in Mbit/s: median (lowest-highest) of {runs} runs of {} each; {RATE}, {ONE_WAY_DELAY} each way, a \
         queue of {QUEUE} frames, {}, {CONGESTION} on all sides, seeds from {} on",
        humantime::format_duration(duration),
        if arguments.ipv6 { "IPv6" } else { "IPv4" },
        arguments.seed
    );
    let report = report::report(describe(arguments, runs, duration)?, setting, &rows);
    print!("{}", report.text);
    arguments.files.write(&report)?;
    Ok(true)
}

/// Returns the facts the results depend on.
fn describe(arguments: &Arguments, runs: u32, duration: Duration) -> anyhow::Result<Map<String, Value>> {
    let entries: [(&str, Value); 8] = [
        ("runs", runs.into()),
        ("seconds_per_run", duration.as_secs_f64().into()),
        ("link_rate", RATE.into()),
        ("link_delay_each_way", ONE_WAY_DELAY.into()),
        ("link_queue_frames", QUEUE.into()),
        ("congestion_control", CONGESTION.into()),
        ("ip_version", if arguments.ipv6 { "IPv6" } else { "IPv4" }.into()),
        ("first_seed", arguments.seed.into()),
    ];
    let mut environment = tidegate_lab::environment::describe()?;
    environment.extend(entries.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Ok(environment)
}

/// The server on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Tidegate,
    Linux,
}

impl Peer {
    fn http_port(self) -> u16 {
        match self {
            Self::Tidegate => 80,
            Self::Linux => 8080,
        }
    }

    fn discard_port(self) -> u16 {
        match self {
            Self::Tidegate => 9,
            Self::Linux => 8009,
        }
    }
}

/// The seed of the links of run number `run`, the first being 0.
fn seed_of(first: u64, run: u32) -> u64 {
    first.wrapping_add(u64::from(run))
}

/// Both servers, and what the links between them and the client need.
struct Bench<'a> {
    lab: &'a Lab,
    children: &'a Children,
    address: IpAddr,
    duration: Duration,
    seed: u64,
    /// Path of a body that no transfer reaches the end of.
    path: String,
    tidegate: Child,
    /// The directory tidegate serves; it has to be there as long as tidegate runs.
    _root: TempDir,
}

impl<'a> Bench<'a> {
    fn set_up(
        lab: &'a Lab,
        children: &'a Children,
        arguments: &Arguments,
        address: IpAddr,
        duration: Duration,
    ) -> anyhow::Result<Self> {
        for place in [Place::Client, Place::Server] {
            // What one connection learned of the path must not be what the next one begins with.
            lab.set_variable(place, "net.ipv4.tcp_no_metrics_save", 1)?;
            lab.set_variable(place, "net.ipv4.tcp_notsent_lowat", NOT_SENT_LIMIT)?;
        }
        lab.inside(Place::Server, || {
            serve::source(SocketAddr::new(address, Peer::Linux.http_port()), Some(CONGESTION))?;
            serve::sink(SocketAddr::new(address, Peer::Linux.discard_port()), Some(CONGESTION))
        })?;
        // The kernel's server makes a body of the length that is its path; tidegate serves a file, all holes, of that
        // name and length.
        let length = RATE_BYTES * (duration.as_secs() + 1) * 2;
        let root = directory("goodput")?;
        let file = root.path().join(length.to_string());
        std::fs::File::create(&file)
            .and_then(|file| file.set_len(length))
            .with_context(|| format!("cannot make {}", file.display()))?;
        let program = arguments.setup.tidegate()?;
        let tidegate = children.start(tidegate_command(lab, &program, address, root.path()), "tidegate: ready")?;
        Ok(Self {
            lab,
            children,
            address,
            duration,
            seed: arguments.seed,
            path: format!("/{length}"),
            tidegate,
            _root: root,
        })
    }

    /// Measures both directions over one kind of link.
    fn measure(&mut self, condition: &Condition, runs: u32) -> anyhow::Result<Vec<Transfers>> {
        // Addresses are resolved, and both servers are seen to answer, before anything counts.
        for peer in [Peer::Tidegate, Peer::Linux] {
            for direction in Direction::BOTH {
                self.transfer_over_link(condition, self.seed, peer, direction, Until::Bytes(1))?;
            }
        }
        let mut rows = Vec::new();
        for direction in Direction::BOTH {
            let mut row = Transfers {
                condition: condition.name.to_owned(),
                direction,
                seeds: (0..runs).map(|run| seed_of(self.seed, run)).collect(),
                tidegate: Vec::new(),
                linux: Vec::new(),
            };
            for run in 0..runs {
                let seed = seed_of(self.seed, run);
                // In turn, and each as often first as second.
                let order = if run % 2 == 0 {
                    [Peer::Tidegate, Peer::Linux]
                } else {
                    [Peer::Linux, Peer::Tidegate]
                };
                for peer in order {
                    let until = Until::Elapsed(self.duration);
                    let transfer = self.transfer_over_link(condition, seed, peer, direction, until)?;
                    let rate = transfer.mbits_per_second();
                    eprintln!(
                        "{}, {}, run {} of {runs}, seed {seed}: {peer:?} {rate:.2} Mbit/s, longest pause {:.2} s",
                        condition.name,
                        direction.name(),
                        run + 1,
                        transfer.longest_pause.as_secs_f64()
                    );
                    match peer {
                        Peer::Tidegate => row.tidegate.push(rate),
                        Peer::Linux => row.linux.push(rate),
                    }
                }
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// One transfer over a link of its own.
    ///
    /// The random numbers of a link that serves several go on from one to the next, so that each transfer meets losses
    /// of its own; where there are few, their number and place decide more than the server does. New links with the
    /// same seed have the same losses for both servers of a run, frame by frame, which leaves less noise in the ratio.
    fn transfer_over_link(
        &mut self,
        condition: &Condition,
        seed: u64,
        peer: Peer,
        direction: Direction,
        until: Until,
    ) -> anyhow::Result<Transfer> {
        let command = self.link_command(condition, seed)?;
        let mut link = self.children.start(command, "tidegate-bench link: ready")?;
        let transfer = self.transfer(peer, direction, until)?;
        // What is left of the connection ends on this link, and does not use up random numbers of the next one.
        thread::sleep(AFTERMATH);
        if !link.is_running()? || !self.tidegate.is_running()? {
            bail!("the link or tidegate ended in mid-run");
        }
        Ok(transfer)
    }

    fn transfer(&self, peer: Peer, direction: Direction, until: Until) -> anyhow::Result<Transfer> {
        self.lab
            .inside(Place::Client, || match direction {
                Direction::Down => {
                    let address = SocketAddr::new(self.address, peer.http_port());
                    let url = format!("http://{address}{}", self.path)
                        .parse::<Url>()
                        .map_err(anyhow::Error::msg)?;
                    transfer::download(&url, Some(until), Some(CONGESTION))
                }
                Direction::Up => {
                    let address = SocketAddr::new(self.address, peer.discard_port());
                    transfer::upload(address, until, Some(CONGESTION))
                }
            })
            .with_context(|| format!("{peer:?}, {}", direction.name()))
    }

    fn link_command(&self, condition: &Condition, seed: u64) -> anyhow::Result<Command> {
        let mut command = self.lab.command(Place::Middle, &this_program()?);
        command.arg("link").args(MIDDLE_DEVICES);
        command.args(["--delay", ONE_WAY_DELAY, "--rate", RATE, "--limit", QUEUE]);
        command.args(condition.arguments);
        command.args(["--seed", &seed.to_string()]);
        Ok(command)
    }
}

fn tidegate_command(lab: &Lab, program: &Path, address: IpAddr, root: &Path) -> Command {
    let mut command = lab.command(Place::Server, program);
    command.args(["serve", "--iface", SERVER_DEVICE, "--drain", "1s"]);
    for (service, port) in [
        ("http", Peer::Tidegate.http_port()),
        ("discard", Peer::Tidegate.discard_port()),
    ] {
        command.args(["--listen", &format!("{service}={}", SocketAddr::new(address, port))]);
    }
    command.arg("--root").arg(root);
    command
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        _arguments: Arguments,
    }

    #[derive(Debug, Parser)]
    struct Link {
        #[command(flatten)]
        arguments: tidegate_link::Arguments,
    }

    #[test]
    fn every_kind_of_link_is_one_the_link_understands() {
        for condition in &CONDITIONS {
            let all = [
                "link",
                "a",
                "b",
                "--delay",
                ONE_WAY_DELAY,
                "--rate",
                RATE,
                "--limit",
                QUEUE,
            ]
            .iter()
            .chain(condition.arguments);
            let parsed = Link::try_parse_from(all);
            assert!(parsed.is_ok(), "{}: {:?}", condition.name, parsed.err());
        }
    }

    #[test]
    fn each_run_has_the_next_seed() {
        assert_eq!([0, 1, 2].map(|run| seed_of(7, run)), [7, 8, 9]);
        assert_eq!(seed_of(u64::MAX, 1), 0);
    }

    #[test]
    fn durations_have_a_limit() {
        let is_accepted = |text| Program::try_parse_from(["goodput", "--duration", text]).is_ok();
        assert!(is_accepted("120s"));
        for text in ["121s", "0s", "x"] {
            assert!(!is_accepted(text), "{text}");
        }
    }
}
