//! `tidegate-bench flood`.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use tidegate_args::UsageError;
use tidegate_args::duration::{self, ABOVE_ZERO};
use tidegate_args::signals::{Event, Signals};
use tidegate_report::files;

use crate::generator::{Generator, Totals};
use crate::neighbour;
use crate::peers::Connections;
use crate::plan::{DEFAULT_CONNECTIONS, DEFAULT_PATH, Kind, MAX_CONNECTIONS, MAX_DURATION, Maker, Plan};
use crate::progress::Progress;
use crate::ranges::{self, Prefix};
use crate::rate::Rate;

/// Milliseconds between two looks at the flood.
const POLL_INTERVAL: u8 = 100;

/// Arguments of `tidegate-bench flood`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The interface to send on.
    #[arg(long, value_name = "DEV")]
    iface: String,
    /// Where to: an address in 198.18.0.0/15 or 2001:2::/48, and a port.
    #[arg(long, value_name = "ADDR:PORT", value_parser = ranges::parse_target)]
    target: SocketAddr,
    /// Draw the destination address of every packet from this prefix, within the same ranges; port and Ethernet address
    /// are still those of --target.
    #[arg(long, value_name = "PREFIX")]
    targets: Option<Prefix>,
    /// The kind of segments.
    #[arg(long, value_enum)]
    kind: Kind,
    /// Frames per second, for example 5000, 100k or 1m, or max for as many as go; of the kinds that make connections:
    /// new connections per second, and of tiny-mss as many acknowledgments as well.
    #[arg(long, value_name = "PPS|max", default_value = "max")]
    rate: Rate,
    /// Connections at the same time, of the kinds that keep them: 1 to 4,000,000. New ones replace those that the
    /// server ends (default: 1000)
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS))
    )]
    connections: Option<u32>,
    /// The path that slow-head, slow-read, zero-window, zero-one-window and tiny-mss request (default: /)
    #[arg(long)]
    path: Option<String>,
    /// Duration, at most 10m.
    #[arg(long, default_value = "5s", value_parser = duration::within(ABOVE_ZERO..=MAX_DURATION))]
    duration: Duration,
    /// Where the packets seem to come from, within the same ranges as the target (default: 198.19.0.0/16 or
    /// 2001:2:0:8000::/49)
    #[arg(long, value_name = "PREFIX")]
    sources: Option<Prefix>,
    /// The Ethernet address to send to (default: the target's, as the kernel resolves it)
    #[arg(long, value_name = "MAC", value_parser = neighbour::parse_mac)]
    target_mac: Option<[u8; 6]>,
    /// The CPU to send from (default: any)
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Seed of all that is random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The maker of the frames.
    #[arg(long, value_enum, default_value_t)]
    maker: Maker,
    /// Write the figures to this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Arguments {
    /// Checks that the kind has a use for what was given for some of them.
    fn check(&self) -> Result<(), UsageError> {
        let refusal = if self.connections.is_some() && !self.kind.keeps_connections() {
            "--connections: it keeps no connections"
        } else if self.path.is_some() && !self.kind.requests() {
            "--path: it requests nothing"
        } else {
            return Ok(());
        };
        Err(UsageError(format!(
            "{} has no use for {refusal}; leave the option out",
            self.kind.name()
        )))
    }

    fn plan(&self) -> Plan {
        Plan {
            interface: self.iface.clone(),
            target: self.target,
            targets: self.targets,
            target_mac: self.target_mac,
            sources: self.sources,
            kind: self.kind,
            rate: self.rate,
            connections: self.connections.unwrap_or(DEFAULT_CONNECTIONS),
            path: self.path.clone().unwrap_or_else(|| DEFAULT_PATH.to_owned()),
            duration: self.duration,
            cpu: self.cpu,
            seed: self.seed,
            maker: self.maker,
        }
    }
}

/// Sends until the time is over or a signal asks to stop, and prints what was sent. False if nothing left the
/// interface, or no handshake was completed where that is what the kind does.
///
/// # Errors
///
/// The arguments do not go together (a usage error), the interface cannot be used, nobody answers for the target, the
/// kernel refuses to send, or the figures cannot be written.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    arguments.check()?;
    let mut plan = arguments.plan();
    // It may start a process, which must not begin with the signals blocked.
    plan.resolve()?;
    if let Some(file) = &arguments.json {
        files::check_writable(file)?;
    }
    let signals = Signals::take_over()?;
    let generator = Generator::start(plan.clone())?;
    eprintln!(
        "tidegate-bench flood: {} to {} from {}, {}, {}",
        plan.kind.name(),
        destination(&plan),
        plan.sources(),
        rate(&plan),
        way(&plan, generator.is_live_frames())
    );
    let mut progress = Progress::new(plan.duration)?;
    while !generator.is_finished() && !is_stopped(&signals)? {
        progress.show(generator.sent(), generator.connections());
    }
    progress.finish();
    let totals = generator.stop()?;
    println!(
        "{} frames in {:.3} s: {:.0} frames/s, {}",
        totals.sent,
        totals.seconds,
        totals.per_second(),
        way(&plan, totals.live_frames)
    );
    if let Some(connections) = &totals.connections {
        println!("{}", phrase(connections));
    }
    if let Some(lost) = loss(&plan.interface, &totals) {
        eprintln!("tidegate-bench: {lost}");
    }
    if let Some(file) = &arguments.json {
        files::write_json(file, &figures(&plan, &totals))?;
    }
    let in_vain = totals.connections.is_some_and(|connections| connections.completed == 0);
    Ok(totals.sent > 0 && totals.interface_sent != Some(0) && !in_vain)
}

/// Waits for a moment; true if a signal asked to stop.
fn is_stopped(signals: &Signals) -> anyhow::Result<bool> {
    let mut descriptors = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match poll(&mut descriptors, POLL_INTERVAL) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno).context("cannot wait for signals"),
    }
    while let Some(event) = signals.next()? {
        if event == Event::Stop {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The target, and the prefix where addresses are drawn from one.
fn destination(plan: &Plan) -> String {
    match plan.targets {
        Some(targets) => format!("{targets} by way of {}", plan.target),
        None => plan.target.to_string(),
    }
}

/// The rate, which is one of connections if the kind needs them.
fn rate(plan: &Plan) -> String {
    match plan.rate {
        Rate::Pps(rate) if plan.kind.needs_connections() => format!("{rate} connections/s"),
        Rate::Max if plan.kind.needs_connections() => "as many connections as go".to_owned(),
        rate => rate.to_string(),
    }
}

/// The connections in words.
fn phrase(connections: &Connections) -> String {
    let Connections {
        begun,
        completed,
        kept,
        reset,
        ended,
        unanswered,
    } = connections;
    format!(
        "{begun} connections begun, {completed} completed, {kept} kept, {reset} reset by the server, {ended} ended by \
         it, {unanswered} not answered"
    )
}

fn way(plan: &Plan, live_frames: bool) -> &'static str {
    if plan.kind.needs_connections() {
        "sent through AF_XDP sockets"
    } else if live_frames {
        "made in the kernel (live frames of BPF_PROG_TEST_RUN)"
    } else {
        "sent through an AF_XDP socket (this kernel has no live frames)"
    }
}

/// A sentence if much less left the interface than was made.
fn loss(interface: &str, totals: &Totals) -> Option<String> {
    let left = totals.interface_sent?;
    (left.saturating_mul(10) < totals.sent.saturating_mul(9)).then(|| {
        format!(
            "of {} frames, {interface} says it has sent {left}. If it is a veth device, its peer needs an XDP program \
             in native mode or `gro on`, and drops what its queue has no room for; some drivers do not count what XDP \
             sends",
            totals.sent
        )
    })
}

fn figures(plan: &Plan, totals: &Totals) -> Value {
    json!({
        "interface": plan.interface,
        "target": plan.target.to_string(),
        "targets": plan.targets.map(|targets| targets.to_string()),
        "sources": plan.sources().to_string(),
        "kind": plan.kind.name(),
        "rate_per_s": match plan.rate {
            Rate::Pps(rate) => Some(rate),
            Rate::Max => None,
        },
        "seed": plan.seed,
        "frames": totals.sent,
        "interface_frames": totals.interface_sent,
        "seconds": totals.seconds,
        "frames_per_s": totals.per_second(),
        "live_frames": totals.live_frames,
        "connections": totals.connections.map(|connections| json!({
            "begun": connections.begun,
            "completed": connections.completed,
            "kept": connections.kept,
            "reset_by_server": connections.reset,
            "ended_by_server": connections.ended,
            "unanswered": connections.unanswered,
        })),
    })
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{Parser, ValueEnum};

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    const NEEDED: [&str; 7] = ["flood", "--iface", "tgc0", "--target", "198.18.0.1:80", "--kind", "syn"];

    fn parse(more: &[&str]) -> Result<Arguments, clap::Error> {
        let all = NEEDED.iter().chain(more);
        Program::try_parse_from(all).map(|program| program.arguments)
    }

    #[test]
    fn arguments_are_taken() {
        let plan = parse(&["--rate", "100k", "--cpu", "1", "--sources", "198.19.4.0/24"])
            .unwrap()
            .plan();
        assert_eq!(
            (plan.rate, plan.cpu, plan.kind),
            (Rate::Pps(100_000), Some(1), Kind::Syn)
        );
        assert_eq!(plan.sources().to_string(), "198.19.4.0/24");
        plan.check().unwrap();
        let plan = parse(&[]).unwrap().plan();
        assert_eq!((plan.rate, plan.duration), (Rate::Max, Duration::from_secs(5)));
        let plan = parse(&["--targets", "198.18.1.0/24"]).unwrap().plan();
        assert_eq!(destination(&plan), "198.18.1.0/24 by way of 198.18.0.1:80");
        let plan = parse(&["--target-mac", "02:00:00:00:00:01"]).unwrap().plan();
        assert_eq!(plan.target_mac, Some([2, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn an_option_that_the_kind_has_no_use_for_is_refused() {
        for kind in Kind::value_variants() {
            let check = |more: &[&str]| {
                let mut arguments = parse(more).unwrap();
                arguments.kind = *kind;
                arguments.check()
            };
            check(&[]).unwrap();
            let (keeps, requests) = (kind.keeps_connections(), kind.requests());
            assert_eq!(check(&["--connections", "10"]).is_ok(), keeps, "{}", kind.name());
            assert_eq!(check(&["--path", "/file"]).is_ok(), requests, "{}", kind.name());
        }
        let refusal = parse(&["--path", "/file"]).unwrap().check().unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "syn has no use for --path: it requests nothing; leave the option out"
        );
    }

    #[test]
    fn there_is_no_way_around_the_limits() {
        for more in [
            &["--duration", "601s"][..],
            &["--duration", "0s"],
            &["--sources", "10.0.0.0/8"],
            &["--sources", "::/0"],
            &["--targets", "10.0.0.0/8"],
            &["--targets", "198.18.0.0/14"],
            &["--targets", "2001:2::/47"],
            &["--rate", "0"],
            &["--connections", "0"],
            &["--connections", "4000001"],
            &["--target-mac", "ff:ff:ff:ff:ff:ff"],
        ] {
            assert_eq!(parse(more).unwrap_err().kind(), ErrorKind::ValueValidation, "{more:?}");
        }
        let mut arguments = NEEDED;
        arguments[4] = "192.0.2.1:80";
        let error = Program::try_parse_from(arguments).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::ValueValidation, 2));
        let error = Program::try_parse_from(["flood", "--target", "198.18.0.1:80", "--kind", "syn"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
        for option in ["--sources", "--targets"] {
            let arguments = parse(&[option, "2001:2::/64"]).unwrap();
            let error: UsageError = arguments.plan().check().unwrap_err();
            assert!(error.to_string().contains("same family"), "{option}: {error}");
        }
    }

    #[test]
    fn no_flood_begins_whose_figures_could_not_be_written() {
        let arguments = parse(&[
            "--target-mac",
            "02:00:00:00:00:01",
            "--json",
            "/no-such-directory/figures.json",
        ])
        .unwrap();
        let error = run(&arguments).unwrap_err();
        assert!(
            error.to_string().contains("/no-such-directory/figures.json"),
            "{error:#}"
        );
    }

    #[test]
    fn a_loss_is_told() {
        let mut totals = Totals {
            sent: 1000,
            seconds: 1.0,
            live_frames: true,
            interface_sent: Some(990),
            connections: None,
        };
        assert_eq!(loss("tgc0", &totals), None);
        totals.interface_sent = Some(0);
        assert!(loss("tgc0", &totals).unwrap().contains("tgc0 says it has sent 0"));
        totals.interface_sent = None;
        assert_eq!(loss("tgc0", &totals), None);
    }

    #[test]
    fn figures_have_names() {
        let plan = parse(&["--rate", "1m"]).unwrap().plan();
        let totals = Totals {
            sent: 1000,
            seconds: 2.0,
            live_frames: true,
            interface_sent: None,
            connections: Some(Connections {
                begun: 10,
                completed: 9,
                kept: 8,
                reset: 1,
                ended: 0,
                unanswered: 1,
            }),
        };
        let text = phrase(&totals.connections.unwrap());
        assert_eq!(
            text,
            "10 connections begun, 9 completed, 8 kept, 1 reset by the server, 0 ended by it, 1 not answered"
        );
        let figures = figures(&plan, &totals);
        assert_eq!(figures["connections"]["kept"], 8);
        assert_eq!(figures["connections"]["reset_by_server"], 1);
        assert_eq!(figures["rate_per_s"], 1_000_000);
        assert_eq!(figures["frames_per_s"], 500.0);
        assert_eq!(figures["target"], "198.18.0.1:80");
        assert!(figures["targets"].is_null());
        assert!(figures["interface_frames"].is_null());
    }
}
