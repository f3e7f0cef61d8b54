//! The shares that flows of tidegate and of the kernel's TCP have of one queue, beside those that flows of the kernel's
//! TCP have among themselves.
//!
//! All flows are downloads to one Linux client through the same link, and begin at the same time.

mod plan;
mod report;

use std::time::Duration;

use anyhow::bail;
use tidegate_args::duration::{self, ABOVE_ZERO};
use tidegate_args::{UsageError, bit_rate};
use tidegate_lab::Children;
use tidegate_stream::transfer::{Transfer, Until};

use self::plan::Pair;
use self::report::Shared;
use crate::transfers::{Bench, Direction, Flow, Link, Options, Tidegate};

/// The longest time that flows share the link.
const MAX_DURATION: Duration = Duration::from_secs(600);

/// The longest one-way delay.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// Arguments of `tidegate-bench fairness`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Runs of each pair and number of flows, 1 to 100.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The time that the flows share the link, at most 10m.
    #[arg(long, default_value = "60s", value_parser = duration::within(ABOVE_ZERO..=MAX_DURATION))]
    duration: Duration,
    /// One run of 5 s: a first look, too short for a judgement.
    #[arg(long, conflicts_with_all = ["runs", "duration"])]
    quick: bool,
    /// Only pairs whose name contains this, for instance `tidegate/bbr and Linux/cubic`, and those they are compared
    /// with.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Numbers of flows at the same time, separated by commas, even and 2 to 64: half are of one sender, half of the
    /// other.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [2, 8], value_parser = flows)]
    flows: Vec<u32>,
    /// Bits per second of the link, for example 100mbit.
    #[arg(long, default_value = "100mbit", value_parser = bit_rate::parse)]
    rate: std::num::NonZeroU64,
    /// The time each frame takes, half of the round-trip time; at most 1s.
    #[arg(long, default_value = "10ms", value_parser = duration::within(ABOVE_ZERO..=MAX_DELAY))]
    delay: Duration,
    /// The queue as a multiple of what is on its way at full rate (the bandwidth-delay product), 0.05 to 100.
    #[arg(long, value_name = "BDP", default_value_t = 1.0, value_parser = queue)]
    queue: f64,
    #[command(flatten)]
    options: Options,
}

fn flows(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|count| (2..=64).contains(count) && count % 2 == 0)
        .ok_or_else(|| "it must be an even number from 2 to 64".to_owned())
}

fn queue(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|multiple| (0.05..=100.0).contains(multiple))
        .ok_or_else(|| "it must be a number from 0.05 to 100".to_owned())
}

impl Arguments {
    /// The link, whose queue has at least one frame.
    ///
    /// # Errors
    ///
    /// The queue has more frames than a link takes.
    fn link(&self) -> Result<Link, UsageError> {
        const MAX_QUEUE: f64 = 1_000_000.0;
        let frames = (Link::bdp_frames(self.rate.get(), self.delay) * self.queue)
            .round()
            .max(1.0);
        if frames > MAX_QUEUE {
            return Err(UsageError(format!(
                "a queue of --queue {} at this rate and delay has {frames:.0} frames; a link takes 1,000,000",
                self.queue
            )));
        }
        Ok(Link::new(self.rate.get(), self.delay, frames as u32))
    }
}

/// Measures everything and prints the table. Always true: how fair is fair enough is for the reader.
///
/// # Errors
///
/// The arguments do not go together (a usage error), the lab is not up, none of the congestion controls can be measured
/// or tidegate refuses one, a server or the link does not start, or a transfer fails.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let (runs, duration) = if arguments.quick {
        (1, Duration::from_secs(5))
    } else {
        (arguments.runs, arguments.duration)
    };
    let link = arguments.link()?;
    let options = &arguments.options;
    options.files.check_writable()?;
    let lab = options.lab()?;
    let children = Children::new()?;
    // Whatever a queue holds, nothing comes in faster than the rate.
    let length = link.rate.unwrap_or_default() / 8 * (duration.as_secs() + 1) * 2;
    let bench = Bench::set_up(&lab, &children, options, length)?;
    let only = arguments.only.as_deref().unwrap_or_default();
    let pairs = plan::pairs(&bench.controls, only);
    if pairs.is_empty() {
        let names: Vec<String> = plan::pairs(&bench.controls, "").iter().map(Pair::name).collect();
        bail!("no pair is called {only:?}; there are: {}", names.join(", "));
    }
    let mut shared: Vec<Shared> = arguments
        .flows
        .iter()
        .flat_map(|&flows| pairs.iter().map(move |pair| Shared::new(pair.clone(), flows)))
        .collect();
    for run in 0..runs {
        for shared in &mut shared {
            let (rates, overruns) = measure(&bench, link, run, shared, duration)?;
            let outcome = shared.add(rates, overruns);
            eprintln!(
                "{}, {} flows, run {} of {runs}: {outcome}",
                shared.pair.name(),
                shared.flows,
                run + 1
            );
        }
    }
    let setting = format!(
        "Shares of one queue: medians of {runs} runs of {} each; {} Mbit/s, {} each way, a queue of {} frames, {}, \
         tidegate --wait {}",
        humantime::format_duration(duration),
        link.mbits_per_second().unwrap_or_default(),
        humantime::format_duration(link.delay),
        link.queue,
        options.family().title(),
        bench.wait()
    );
    let environment = options.describe(
        &bench,
        [
            ("runs", runs.into()),
            ("seconds_per_run", duration.as_secs_f64().into()),
            ("link_mbits_per_second", link.mbits_per_second().into()),
            ("link_delay_ms", (link.delay.as_secs_f64() * 1e3).into()),
            ("link_queue_frames", link.queue.into()),
        ],
    )?;
    let report = report::report(environment, setting, &shared);
    print!("{}", report.text);
    options.files.write(&report)?;
    Ok(true)
}

/// Has the flows of `shared` share a link, those of both senders in turn. Returns the Mbit/s of each of them, and the
/// frames that the relay lost because this machine was too slow.
fn measure(
    bench: &Bench,
    link: Link,
    run: u32,
    shared: &Shared,
    duration: Duration,
) -> anyhow::Result<(Vec<f64>, u64)> {
    let pair = &shared.pair;
    let mut tidegate: Option<Tidegate> = match pair.tidegate_control() {
        Some(control) => Some(bench.start_tidegate(control)?),
        None => None,
    };
    let senders = [&pair.first, &pair.second];
    let flows: Vec<Flow> = senders
        .into_iter()
        .cycle()
        .take(shared.flows as usize)
        .map(|sender| Flow {
            stack: sender.stack,
            control: &sender.control,
            direction: Direction::Down,
        })
        .collect();
    let mut link = bench.start_link(link, run.into())?;
    // Addresses are resolved, and both servers are seen to answer, before anything counts.
    bench.transfer(&flows[..2], Until::Bytes(1))?;
    let transfers = bench.transfer(&flows, Until::Elapsed(duration))?;
    if let Some(tidegate) = &mut tidegate {
        tidegate.check_running(&mut link)?;
    }
    let rates = transfers.iter().map(Transfer::mbits_per_second).collect();
    Ok((rates, link.finish()?.overruns))
}

#[cfg(test)]
mod tests {
    use tidegate_report::testing::parse;

    use super::*;
    use crate::transfers::assert_understood;

    #[test]
    fn flows_come_in_two_halves() {
        assert_eq!(parse::<Arguments>(&[]).unwrap().flows, [2, 8]);
        assert_eq!(parse::<Arguments>(&["--flows", "4,64"]).unwrap().flows, [4, 64]);
        for text in ["0", "1", "3", "66", "x", ""] {
            assert!(parse::<Arguments>(&["--flows", text]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_queue_is_a_multiple_of_what_is_on_its_way() {
        let link = |arguments: &[&str]| parse::<Arguments>(arguments).unwrap().link();
        let default = link(&[]).unwrap();
        assert_eq!(
            (default.rate, default.delay),
            (Some(100_000_000), Duration::from_millis(10))
        );
        assert_eq!(default.queue, 165);
        assert_understood(default);
        assert_eq!(link(&["--queue", "0.5", "--rate", "10mbit"]).unwrap().queue, 8);
        let short = link(&["--queue", "0.05", "--delay", "1ms", "--rate", "1mbit"]).unwrap();
        assert_eq!(short.queue, 1);
        let error = link(&["--queue", "100", "--delay", "1s", "--rate", "10gbit"]).unwrap_err();
        assert!(error.to_string().contains("1,000,000"), "{error}");
        for text in ["0", "101", "NaN", "x"] {
            assert!(parse::<Arguments>(&["--queue", text]).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_a_limit() {
        assert!(parse::<Arguments>(&["--duration", "10m"]).is_ok());
        assert!(parse::<Arguments>(&["--duration", "601s"]).is_err());
        assert!(parse::<Arguments>(&["--quick", "--runs", "2"]).is_err());
    }
}
