//! `tidegate-bench`: clients that load a TCP server and check what it answers, and a link that is as bad as asked for.
//!
//! The clients use the kernel's sockets, so they work against any server; those that measure can use tidegate's own TCP
//! over AF_XDP instead.

// In tests those of the standard library, whose output is captured.
#[cfg_attr(not(test), macro_use)]
extern crate tidegate_output;

mod agent;
mod echo;
mod measure;
mod search;
mod serve_kernel;
mod steps;
mod sweep;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tidegate_args::UsageError;
use tidegate_runtime::Rejection;

/// Clients that load a TCP server and check what it answers.
///
/// Exit code: 0 when everything was as it should be, 1 when something failed, 2 for wrong arguments.
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// When the kernel refuses an XDP program, print its verifier's whole log.
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure new connections per second: each carries one request.
    Cps(measure::Cps),
    /// Measure requests per second on connections that stay open.
    Rps(measure::Rps),
    /// Measure what requests take at a fixed rate, counted from when each was due (coordinated omission).
    Latency(measure::Latency),
    /// Measure bytes per second in one direction: the body of the URL, or to a discard service at its address.
    Throughput(measure::Throughput),
    /// Open many connections, keep them, ask all of them, and see what memory each takes.
    Hold(measure::Hold),
    /// Search for the highest rate that meets objectives, by open loops.
    ///
    /// The rate is doubled until a step misses an objective or the server does not keep up, then the middle is taken
    /// again and again. A step that fails is repeated once. What is found is verified by a step of three times the
    /// duration, or as long as the objectives need to be shown, up to 10 minutes.
    Search(Box<search::Arguments>),
    /// Measure latencies at one rate after the other, by open loops, of one server or of several side by side.
    Sweep(Box<sweep::Arguments>),
    /// Serve HTTP and echo on the kernel's TCP by epoll, with tidegate's applications.
    ServeKernel(serve_kernel::Arguments),
    /// Compare tidegate with nginx and with the kernel's TCP in the lab; `scripts/lab.sh up` has to be done before,
    /// `scripts/compare.sh` does both.
    Compare(Box<tidegate_experiments::compare::Arguments>),
    /// Measure when another machine asks for it by `--agents`, so that several machines load a server together.
    Agent(agent::Arguments),
    /// Work with the results of earlier measurements.
    Report(tidegate_report::command::Arguments),
    /// Request one URL over many connections, each with one request under way, and check every response: `rps --verify`
    /// in short.
    Load(measure::CheckedLoad),
    /// Send a pseudo-random stream to an echo service and compare the SHA-256 of what was sent and what came back.
    Echo(echo::Arguments),
    /// Relay frames between two Ethernet devices, with loss, delay, reordering, duplication, corruption and a rate
    /// limit.
    ///
    /// A frame meets, in this order: loss, duplication (both copies go on, each for itself), corruption, the queue of
    /// the rate limit, the delay. Frames to multicast addresses, ARP and neighbour discovery are passed on at once and
    /// untouched unless --impair-all is given. The counts are printed at the end and at SIGUSR1; SIGINT and SIGTERM
    /// end it. Segmentation and checksums must not be left to the devices: `ethtool -K DEVICE tx off tso off gso off
    /// gro off`. `scripts/lab.sh up --middle` makes a place for it.
    Link(tidegate_link::Arguments),
    /// Transfer data in one direction over the kernel's TCP and measure it, or serve such transfers.
    Stream(tidegate_stream::Arguments),
    /// Send TCP segments with spoofed sources to a server, to see how it stands a flood.
    ///
    /// Targets and sources outside of 198.18.0.0/15 and 2001:2::/48, the addresses for benchmarks (RFC 2544, RFC 5180),
    /// are refused.
    Flood(tidegate_flood::Arguments),
    /// Compare how tidegate, nginx and bare XDP programs stand attacks; `scripts/lab.sh up` has to be done before,
    /// `scripts/resilience.sh` does both.
    Resilience(Box<tidegate_experiments::resilience::Arguments>),
    /// Compare the goodput of tidegate with that of the kernel's TCP over impaired links; `scripts/lab.sh up --middle`
    /// has to be done before, `scripts/goodput.sh` does both.
    Goodput(tidegate_experiments::goodput::Arguments),
    /// Measure the shares that flows of tidegate and of the kernel's TCP have of one queue; `scripts/lab.sh up
    /// --middle` has to be done before, `scripts/fairness.sh` does both.
    Fairness(tidegate_experiments::fairness::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let verbose = arguments.verbose;
    let result = match arguments.command {
        Command::Cps(arguments) => arguments.run(),
        Command::Rps(arguments) => arguments.run(),
        Command::Latency(arguments) => arguments.run(),
        Command::Throughput(arguments) => arguments.run(),
        Command::Hold(arguments) => arguments.run(),
        Command::Search(arguments) => search::run(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::ServeKernel(arguments) => serve_kernel::run(&arguments),
        Command::Compare(arguments) => tidegate_experiments::compare::run(&arguments),
        Command::Agent(arguments) => agent::run(&arguments),
        Command::Report(arguments) => tidegate_report::command::run(&arguments),
        Command::Load(arguments) => arguments.run(),
        Command::Echo(arguments) => echo::run(&arguments),
        Command::Link(arguments) => tidegate_link::run(&arguments),
        Command::Stream(arguments) => tidegate_stream::run(&arguments),
        Command::Flood(arguments) => tidegate_flood::run(&arguments),
        Command::Resilience(arguments) => tidegate_experiments::resilience::run(&arguments),
        Command::Goodput(arguments) => tidegate_experiments::goodput::run(&arguments),
        Command::Fairness(arguments) => tidegate_experiments::fairness::run(&arguments),
    };
    let result = result.and_then(|passed| {
        tidegate_output::finish().context("cannot write to standard output")?;
        Ok(passed)
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if let (true, Some(rejection)) = (verbose, rejection_in(&error)) {
                eprintln!("tidegate-bench: the verifier's log:\n{}", rejection.log());
            }
            eprintln!("tidegate-bench: error: {error:#}");
            if error.is::<UsageError>() {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// The rejection of a program that `error` is about, the flood's or the engine's.
fn rejection_in(error: &anyhow::Error) -> Option<&Rejection> {
    error.chain().find_map(|cause| {
        let runtime = cause.downcast_ref::<tidegate_runtime::Error>();
        cause.downcast_ref().or(match runtime {
            Some(tidegate_runtime::Error::Rejected(rejection)) => Some(rejection),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn limits_are_usage_errors() {
        for arguments in [
            &["load", "--url", "http://198.18.0.1:80/", "--connections", "10001"][..],
            &["load", "--url", "http://198.18.0.1:80/", "--connections", "0"],
            &["load", "--url", "http://198.18.0.1:80/", "--duration", "601s"],
            &["load", "--url", "http://198.18.0.1:80/", "--duration", "0s"],
            &["load", "--url", "http://198.18.0.1:80/", "--duration", "x"],
            &["load", "--url", "http://198.18.0.1:80/", "--duration", ""],
            &["load", "--url", "https://198.18.0.1/"],
            &["echo", "--target", "198.18.0.1"],
            &["echo", "--target", "198.18.0.1:0"],
            &["stream", "up", "--target", "[fe80::1%eth0]:9", "--bytes", "1MB"],
            &["rps", "--url", "http://[fe80::1%25]/"],
            &["rps", "--url", "https://name/"],
            &["cps", "--url", "http://name/", "--method", "A B"],
            &["echo", "--target", "198.18.0.1:7", "--bytes", "0"],
            &["link", "a", "b", "--loss", "0.5"],
            &["link", "a", "b", "--delay", "11s"],
            &["link", "a", "b", "--rate", "100"],
            &["link", "a", "b", "--limit", "0"],
            &["goodput", "--runs", "0"],
            &["goodput", "--control", "a control"],
            &["fairness", "--flows", "3"],
            &["resilience", "--open-rate", "0"],
            &["search", "cps", "--url", "http://198.18.0.1:80/", "--slo", "p99"],
            &[
                "search",
                "rps",
                "--url",
                "http://198.18.0.1:80/",
                "--slo",
                "p99<1s",
                "--precision",
                "2",
            ],
            &["sweep", "cps", "--url", "http://198.18.0.1:80/", "--rates", "10..1"],
        ] {
            let error = Arguments::try_parse_from(["tidegate-bench"].iter().chain(arguments))
                .expect_err("the arguments are out of range");
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{arguments:?}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn defaults_are_accepted() {
        for arguments in [
            &["load", "--url", "http://[2001:2::1]:80/x"][..],
            &["load", "--url", "http://[2001:2::1]:80/x", "--duration", "10m"],
            &["cps", "--url", "http://198.18.0.1:80/", "--verify"],
            &["echo", "--target", "[2001:2::1]:7"],
            &["link", "a", "b"],
            &["stream", "serve"],
            &["stream", "down", "--url", "http://198.18.0.1/1000"],
            &["stream", "up", "--target", "198.18.0.1:9", "--bytes", "1MB"],
            &["goodput"],
            &["fairness", "--control", "reno"],
            &["resilience"],
            &["compare"],
            &["cps", "--url", "http://198.18.0.1:80/"],
            &["rps", "--url", "http://198.18.0.1:80/", "--pipeline", "64"],
            &["rps", "--url", "http://[fe80::1%25eth0]/"],
            &["load", "--url", "http://name/", "--header", "A: b", "--timeout", "1m"],
            &["latency", "--url", "http://198.18.0.1:80/", "--rate", "1000"],
            &["throughput", "--url", "http://198.18.0.1:80/", "--direction", "up"],
            &["hold", "--url", "http://198.18.0.1:80/", "--connections", "10000000"],
            &["report", "merge", "one.hlog"],
            &["search", "cps", "--url", "http://198.18.0.1:80/", "--slo", "p99<1ms"],
            &["sweep", "rps", "--url", "a=http://198.18.0.1:80/", "--rates", "1k..1M"],
            &["report", "show", "one.json"],
            &[
                "report",
                "diff",
                "a.json,b.json",
                "runs",
                "--paired",
                "--threshold",
                "2.5%",
            ],
            &[
                "agent",
                "--listen",
                "127.0.0.1:0",
                "--token-file",
                "token",
                "--",
                "--client",
                "bypass",
            ],
            &[
                "rps",
                "--url",
                "http://198.18.0.1:80/",
                "--agents",
                "a:1,b:1",
                "--token-file",
                "token",
            ],
        ] {
            let parsed = Arguments::try_parse_from(["tidegate-bench"].iter().chain(arguments));
            assert!(parsed.is_ok(), "{arguments:?}: {parsed:?}");
        }
    }
}
