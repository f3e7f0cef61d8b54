//! `tidegate-sim`: runs the simulation for many seeds, shows one, or attacks the engine.

// In tests those of the standard library, whose output is captured.
#[cfg_attr(not(test), macro_use)]
extern crate tidegate_output;

use core::time::Duration;
use std::io::BufWriter;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tidegate_abi::syn_cookie::Accepted;
use tidegate_sim::batch::{self, Batch};
use tidegate_sim::goodput::{self, Case, Flow};
use tidegate_sim::trace::Trace;
use tidegate_sim::{attack, forge, out_of_order};
use tidegate_tcp::congestion::Algorithm;

/// Failures that are shown whole; of all others only the seeds.
const FAILURES_SHOWN: usize = 3;

/// A deterministic simulation of tidegate's TCP engine over impaired links.
///
/// Exit code: 0 when all went well, 1 when something failed, 2 for wrong arguments.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate-sim",
    version,
    about,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
struct Arguments {
    /// Run this one seed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Print every segment, in tcpdump's manner.
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Congestion control of every engine; by default the seed decides.
    #[arg(long, value_name = "CONTROL", requires = "seed")]
    control: Option<Algorithm>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many seeds, each a scenario of its own, and sum up.
    Run(RunArguments),
    /// Attack: blind injections into connections, then every second byte of a window.
    Attack(AttackArguments),
    /// Forge acknowledgments of SYN cookies: guesses, then cookies of other handshakes and times.
    Forge(ForgeArguments),
    /// Measure the share of a bad link of 100 Mbit/s that each congestion control gets, alone and beside another.
    Goodput(GoodputArguments),
}

#[derive(Debug, Args)]
struct GoodputArguments {
    /// Seconds of simulated time of each run.
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    seconds: u16,

    /// Runs, each with another seed, to take the mean of.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,

    /// Percentage of losses that BBR tolerates (`bbr_loss_threshold`).
    #[arg(long, value_name = "PERCENT", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=100))]
    loss_threshold: u8,

    /// Only links whose name contains this, and one connection each.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Print the state of a sender with this congestion control, every hundredth of a second of the first run.
    #[arg(long, value_name = "CONTROL", requires = "only")]
    trace: Option<Algorithm>,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// The number of seeds.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    seeds: u64,

    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    start: u64,

    /// Threads; as many as there are cores if not given.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Congestion control of every engine; by default each seed decides.
    #[arg(long, value_name = "CONTROL")]
    control: Option<Algorithm>,
}

#[derive(Debug, Args)]
struct AttackArguments {
    /// The number of forged segments.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    tries: u64,

    /// The seed they are drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Window of the connection that gets every second byte, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(4096..=1 << 30))]
    window: u32,
}

#[derive(Debug, Args)]
struct ForgeArguments {
    /// The number of guesses, usually and as many again while bad cookies come in.
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    tries: u64,

    /// The seed they are drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::Run(arguments)) => run_batch(&arguments),
        Some(Command::Attack(arguments)) => run_attacks(&arguments),
        Some(Command::Forge(arguments)) => run_forge(&arguments),
        Some(Command::Goodput(arguments)) => run_goodput(&arguments).map(|()| true),
        None => run_one(arguments.seed.unwrap_or_default(), arguments.control, arguments.trace),
    };
    let result = result.and_then(|passed| {
        tidegate_output::finish().context("cannot write to standard output")?;
        Ok(passed)
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tidegate-sim: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn progress_bar(length: u64, what: &'static str) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} {msg} {per_sec} eta {eta}")?;
    Ok(ProgressBar::new(length).with_style(style).with_message(what))
}

fn run_batch(arguments: &RunArguments) -> Result<bool> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let batch = Batch {
        start: arguments.start,
        seeds: arguments.seeds,
        control: arguments.control,
        jobs: arguments.jobs.unwrap_or(cores),
    };
    let bar = progress_bar(batch.seeds, "seeds")?;
    let summary = batch.run(&|failed| {
        if failed {
            bar.set_message("seeds, some failed");
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    for failure in summary.failures.iter().take(FAILURES_SHOWN) {
        println!("{failure}\n");
    }
    println!("{summary}");
    if summary.failures.is_empty() {
        return Ok(true);
    }
    let seeds: Vec<String> = summary
        .failures
        .iter()
        .map(|failure| failure.seed.to_string())
        .collect();
    println!("failing seeds: {}", seeds.join(" "));
    Ok(false)
}

fn run_one(seed: u64, control: Option<Algorithm>, trace: bool) -> Result<bool> {
    let trace = trace.then(|| Trace::new(Box::new(BufWriter::new(tidegate_output::Stdout))));
    match batch::run_seed(seed, control, trace) {
        Ok(report) => {
            println!("seed {seed}: {report:#?}");
            Ok(true)
        }
        Err(failure) => {
            println!("{failure}");
            Ok(false)
        }
    }
}

fn run_attacks(arguments: &AttackArguments) -> Result<bool> {
    let bar = progress_bar(arguments.tries, "tries")?;
    let blind = attack::blind(arguments.tries, arguments.seed, |tries| bar.inc(tries));
    bar.finish_and_clear();
    let blind = match blind {
        Ok(report) => {
            println!(
                "blind injection: {} segments into {} connections closed and inserted nothing; {} bytes arrived",
                report.tries, report.connections, report.bytes
            );
            for (name, value) in &report.counters {
                println!("  {name:<28}{value:>14}");
            }
            true
        }
        Err(failure) => {
            println!("{failure}");
            false
        }
    };
    let out_of_order = match out_of_order::every_second_byte(arguments.window, arguments.window) {
        Ok(report) => {
            println!(
                "every second byte of {}: {} segments, at most {} of {} bytes held",
                arguments.window, report.segments, report.held, report.limit
            );
            true
        }
        Err(problem) => {
            println!("every second byte of {}: {problem}", arguments.window);
            false
        }
    };
    Ok(blind && out_of_order)
}

/// The mean shares of connections with these congestion controls, as words.
fn mean_shares(algorithms: &[Algorithm], case: &Case, arguments: &GoodputArguments) -> Result<Vec<String>> {
    let configs: Vec<_> = algorithms
        .iter()
        .map(|&algorithm| goodput::config(algorithm, arguments.loss_threshold))
        .collect();
    let mut sums = vec![(0.0, 0); configs.len()];
    for seed in 0..arguments.runs {
        let shares = goodput::shares(&configs, case, arguments.seconds.into(), seed.into());
        let shares = shares.map_err(anyhow::Error::msg)?;
        for (sum, (share, again)) in sums.iter_mut().zip(shares) {
            sum.0 += share;
            sum.1 += again;
        }
    }
    let runs = arguments.runs;
    let words = sums.iter().zip(algorithms).map(|((share, again), algorithm)| {
        let again = again / u64::from(runs);
        format!("{algorithm} {:.3} ({again} again)", share / f64::from(runs))
    });
    Ok(words.collect())
}

/// Prints the state of a connection with `algorithm` over the link of `case`.
fn trace_goodput(algorithm: Algorithm, case: &Case, arguments: &GoodputArguments) -> Result<()> {
    let lasts = Duration::from_secs(arguments.seconds.into());
    let bytes = case.rate() as usize / 8 * usize::from(arguments.seconds);
    let flows = [Flow::new(bytes, goodput::config(algorithm, arguments.loss_threshold))];
    let link = (&case.to_server, &case.to_client);
    let run = goodput::run_observed(&flows, link, lasts, 0, &mut |now, _, connection| {
        let Some(transfer) = &connection.transfer else { return };
        let millis = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1e3;
        let mbits = |rate: u64| rate as f64 * 8e-6;
        let model = transfer.model;
        println!(
            "{:.2} s {:<16} bw {:.2} Mbit/s min_rtt {:.2} ms srtt {:.2} ms pacing {:.2} Mbit/s cwnd {} ssthresh {} \
             in flight {} acked {} again {}",
            now.as_secs_f64(),
            model.map_or("", |model| model.state),
            mbits(model.map_or(0, |model| model.bandwidth)),
            millis(model.and_then(|model| model.min_rtt)),
            millis(connection.srtt),
            mbits(transfer.pacing_rate.unwrap_or(0)),
            transfer.cwnd,
            transfer
                .ssthresh
                .map_or("-".to_owned(), |ssthresh| ssthresh.to_string()),
            transfer.in_flight,
            transfer.bytes_acked,
            transfer.retransmitted_segments,
        );
    });
    let (outcomes, link) = run.map_err(anyhow::Error::msg)?;
    for (name, value) in &outcomes[0].counters {
        println!("{name:<32}{value:>12}");
    }
    println!("{link:?}");
    Ok(())
}

fn run_goodput(arguments: &GoodputArguments) -> Result<()> {
    println!("share of a link of 100 Mbit/s, 10 ms each way, and segments sent again");
    let only = arguments.only.as_deref();
    for case in goodput::cases() {
        if !case.name.contains(only.unwrap_or_default()) {
            continue;
        }
        if let Some(algorithm) = arguments.trace {
            trace_goodput(algorithm, &case, arguments)?;
        }
        let mut words = Vec::new();
        for &algorithm in Algorithm::ALL {
            words.append(&mut mean_shares(&[algorithm], &case, arguments)?);
        }
        println!("{:<56}{}", case.name, words.join("   "));
    }
    if only.is_some() {
        return Ok(());
    }
    println!("two connections that begin together");
    for (name, queue) in [
        ("queue 60 KB", 60_000),
        ("queue 250 KB", 250_000),
        ("queue 2.5 MB", 2_500_000),
    ] {
        let case = goodput::case(name, queue, |_| {});
        for pair in [
            [Algorithm::CUBIC, Algorithm::CUBIC],
            [Algorithm::BBR, Algorithm::CUBIC],
            [Algorithm::BBR, Algorithm::BBR],
        ] {
            let words = mean_shares(&pair, &case, arguments)?;
            println!("{name:<56}{}", words.join("   "));
        }
    }
    println!("20 MB without a bottleneck");
    for permille in [0, 1, 10, 20] {
        let mut words = Vec::new();
        for &algorithm in Algorithm::ALL {
            let mut times = Vec::new();
            for seed in 0..arguments.runs {
                let config = goodput::config(algorithm, arguments.loss_threshold);
                let time = goodput::time_without_bottleneck(config, 20_000_000, permille, seed.into());
                times.push(time.map_err(anyhow::Error::msg)?.unwrap_or(Duration::from_secs(60)));
            }
            times.sort_unstable();
            words.push(format!("{algorithm} {:.2} s", times[times.len() / 2].as_secs_f64()));
        }
        let name = format!("loss {} % both ways", f64::from(permille) / 10.0);
        println!("{name:<56}{}", words.join("   "));
    }
    Ok(())
}

fn run_forge(arguments: &ForgeArguments) -> Result<bool> {
    let usual = run_forge_on(arguments, Accepted::All, "usually")?;
    let strong = run_forge_on(arguments, Accepted::Strong, "while bad cookies come in")?;
    Ok(usual && strong)
}

fn run_forge_on(arguments: &ForgeArguments, accepted: Accepted, when: &str) -> Result<bool> {
    let bar = progress_bar(arguments.tries, "guesses")?;
    let result = forge::acknowledgments(arguments.tries, arguments.seed, accepted, |tries| bar.inc(tries));
    bar.finish_and_clear();
    match result {
        Ok(report) => {
            println!(
                "forged acknowledgments, {when}: {} without timestamps and {} with them; {} became connections, {:.2} were to be \
                 expected; {} were answered with RST",
                report.without_timestamps, report.with_timestamps, report.connections, report.expected, report.resets
            );
            println!("genuine cookies: all of {} were accepted; refused:", report.genuine);
            for (what, count) in &report.refused {
                println!("  {what:<32}{count:>10}");
            }
            Ok(true)
        }
        Err(problem) => {
            println!(
                "forged acknowledgments, {when}: {problem} (`tidegate-sim forge --tries {} --seed {}`)",
                arguments.tries, arguments.seed
            );
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_command_a_failure_prints_is_understood() {
        let arguments = Arguments::try_parse_from(["tidegate-sim", "--seed", "7", "--trace"]).unwrap();
        assert_eq!((arguments.seed, arguments.trace), (Some(7), true));
        let words = ["tidegate-sim", "--seed", "7", "--trace", "--control", "bbr"];
        let arguments = Arguments::try_parse_from(words).unwrap();
        assert_eq!(arguments.control, Some(Algorithm::BBR));
        assert!(Arguments::try_parse_from(["tidegate-sim", "--trace"]).is_err());
        assert!(Arguments::try_parse_from(["tidegate-sim", "attack", "--window", "10"]).is_err());
    }
}
