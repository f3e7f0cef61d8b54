//! Goodput of tidegate over impaired links, beside that of the kernel's own TCP over the same links in the same run.
//!
//! The same Linux client measures both servers in turn, with the same congestion control in each, and each transfer has
//! the link for itself.

mod condition;
mod report;

use std::time::Duration;

use anyhow::bail;
use tidegate_args::duration::{self, ABOVE_ZERO};
use tidegate_lab::{Children, Place};
use tidegate_report::Spread;
use tidegate_stream::transfer::Until;

use self::condition::{CONDITIONS, Condition};
use self::report::{Figures, Transfers};
use crate::transfers::{Bench, CUBIC, Direction, Flow, Options, Stack, Tidegate};

/// The longest time a transfer goes on.
const MAX_DURATION: Duration = Duration::from_secs(120);

/// Arguments of `tidegate-bench goodput`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Transfers for each kind of link, direction, congestion control and server, 1 to 100.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The time each transfer goes on, at most 120s.
    #[arg(long, default_value = "10s", value_parser = duration::within(ABOVE_ZERO..=MAX_DURATION))]
    duration: Duration,
    /// Two runs of 3 s each: a first look, too short for a judgement.
    #[arg(long, conflicts_with_all = ["runs", "duration"])]
    quick: bool,
    /// Only links whose name contains this, for instance `loss 1%` or `queue`.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Seed of the links of the first run; those of each further run have the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    options: Options,
}

/// Measures everything and prints the table. Always true: how fast is fast enough is for the reader.
///
/// # Errors
///
/// The lab is not up, none of the congestion controls can be measured or tidegate refuses one, a server or the link
/// does not start, or a transfer fails.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let (runs, duration) = if arguments.quick {
        (2, Duration::from_secs(3))
    } else {
        (arguments.runs, arguments.duration)
    };
    let only = arguments.only.as_deref().unwrap_or_default();
    let conditions = condition::named(only);
    if conditions.is_empty() {
        let names: Vec<&str> = CONDITIONS.iter().map(|condition| condition.name).collect();
        bail!("no link is called {only:?}; there are: {}", names.join(", "));
    }
    let options = &arguments.options;
    options.files.check_writable()?;
    let lab = options.lab()?;
    let children = Children::new()?;
    let bench = Bench::set_up(&lab, &children, options, max_length(&conditions, duration))?;
    let measurement = Measurement {
        bench: &bench,
        runs,
        duration,
        seed: arguments.seed,
    };
    let mut rows = Vec::new();
    for condition in conditions {
        rows.extend(measurement.measure(condition)?);
    }
    let setting = format!(
        "Goodput in Mbit/s: median (lowest-highest) of {runs} runs of {} each; {}, tidegate --wait {}, seeds from {} on",
        humantime::format_duration(duration),
        options.family().title(),
        bench.wait(),
        arguments.seed
    );
    let environment = options.describe(
        &bench,
        [
            ("runs", runs.into()),
            ("seconds_per_run", duration.as_secs_f64().into()),
            ("first_seed", arguments.seed.into()),
        ],
    )?;
    let report = report::report(environment, setting, &rows);
    print!("{}", report.text);
    options.files.write(&report)?;
    Ok(true)
}

/// Returns a length that no transfer comes to the end of, whatever the machine can relay.
fn max_length(conditions: &[&Condition], duration: Duration) -> u64 {
    let fastest = conditions.iter().filter_map(|condition| condition.link.rate).max();
    let per_second = fastest.unwrap_or_default() / 8;
    // Where the rate is not limited for once, it is that of the machine.
    per_second * (duration.as_secs() + 1) * 20
}

/// The seed of the links of run number `run`, the first being 0.
fn seed_of(first: u64, run: u32) -> u64 {
    first.wrapping_add(u64::from(run))
}

/// The servers, and how they are measured.
struct Measurement<'a> {
    bench: &'a Bench<'a>,
    runs: u32,
    duration: Duration,
    seed: u64,
}

impl Measurement<'_> {
    /// Measures downloads with every congestion control over one kind of link, and uploads with the first of them: the
    /// sender of an upload is always the Linux client.
    fn measure(&self, condition: &Condition) -> anyhow::Result<Vec<Transfers>> {
        let mut rows = Vec::new();
        let mut carries = None;
        for control in &self.bench.controls {
            let mut tidegate = self.bench.start_tidegate(control)?;
            let directions = if rows.is_empty() {
                &Direction::BOTH[..]
            } else {
                &[Direction::Down]
            };
            let flow = |stack, direction| Flow {
                stack,
                control,
                direction,
            };
            // Addresses are resolved, and both servers are seen to answer, before anything counts.
            for stack in Stack::BOTH {
                for &direction in directions {
                    let flow = flow(stack, direction);
                    self.one(&mut tidegate, condition, self.seed, flow, Until::Bytes(1))?;
                }
            }
            if condition.is_fast() && carries.is_none() {
                carries = self.carries(&mut tidegate, condition)?;
            }
            for &direction in directions {
                let mut row = Transfers {
                    condition: *condition,
                    direction,
                    control: control.clone(),
                    link_carries: carries,
                    seeds: (0..self.runs).map(|run| seed_of(self.seed, run)).collect(),
                    tidegate: Vec::new(),
                    linux: Vec::new(),
                };
                for run in 0..self.runs {
                    // In turn, and each as often first as second.
                    let mut order = Stack::BOTH;
                    if run % 2 == 1 {
                        order.reverse();
                    }
                    for stack in order {
                        let figures = self.run(&mut tidegate, condition, run, flow(stack, direction))?;
                        match stack {
                            Stack::Tidegate => row.tidegate.push(figures),
                            Stack::Linux => row.linux.push(figures),
                        }
                    }
                }
                rows.push(row);
            }
        }
        Ok(rows)
    }

    fn run(&self, tidegate: &mut Tidegate, condition: &Condition, run: u32, flow: Flow) -> anyhow::Result<Figures> {
        let seed = seed_of(self.seed, run);
        let figures = self.one(tidegate, condition, seed, flow, Until::Elapsed(self.duration))?;
        eprintln!(
            "{}, {}, {}, run {} of {}, seed {seed}: {} {:.2} Mbit/s, longest pause {:.2} s",
            condition.name,
            flow.direction.name(),
            flow.control,
            run + 1,
            self.runs,
            flow.stack.name(),
            figures.mbits_per_second,
            figures.longest_pause.as_secs_f64()
        );
        Ok(figures)
    }

    /// Returns the Mbit/s that this machine relays: the median of plain flows of Linux over the link without its rate.
    fn carries(&self, tidegate: &mut Tidegate, condition: &Condition) -> anyhow::Result<Option<f64>> {
        let control = self.bench.controls.iter().find(|name| *name == CUBIC);
        let control = control.unwrap_or(&self.bench.controls[0]);
        let unlimited = Condition {
            link: condition.link.unlimited(),
            ..*condition
        };
        let flow = Flow {
            stack: Stack::Linux,
            control,
            direction: Direction::Down,
        };
        let mut rates = Vec::new();
        for run in 0..self.runs {
            let seed = seed_of(self.seed, run);
            let figures = self.one(tidegate, &unlimited, seed, flow, Until::Elapsed(self.duration))?;
            let rate = figures.mbits_per_second;
            eprintln!(
                "{}, run {} of {}: without its rate the link carries {rate:.0} Mbit/s",
                condition.name,
                run + 1,
                self.runs
            );
            rates.push(rate);
        }
        Ok(Spread::of(rates).map(|spread| spread.median))
    }

    /// One transfer over a link of its own.
    ///
    /// The random numbers of a link that serves several go on from one to the next, so that each transfer meets losses
    /// of its own; where there are few, their number and place decide more than the server does. New links with the
    /// same seed have the same losses for both servers of a run, frame by frame, which leaves less noise in the ratio.
    fn one(
        &self,
        tidegate: &mut Tidegate,
        condition: &Condition,
        seed: u64,
        flow: Flow,
        until: Until,
    ) -> anyhow::Result<Figures> {
        // Of an upload the client sends, which is Linux in any case.
        let segments = |tidegate: &Tidegate| match (flow.direction, flow.stack) {
            (Direction::Up, _) => self.bench.kernel_segments(Place::Client),
            (Direction::Down, Stack::Linux) => self.bench.kernel_segments(Place::Server),
            (Direction::Down, Stack::Tidegate) => tidegate.segments(),
        };
        let mut link = self.bench.start_link(condition.link, seed)?;
        let (sent, used) = (segments(tidegate)?, tidegate.processor_time());
        let transfers = self.bench.transfer(&[flow], until)?;
        let used = tidegate.processor_time().saturating_sub(used);
        let sent = segments(tidegate)?.since(sent);
        tidegate.check_running(&mut link)?;
        let counts = link.finish()?;
        let Some(transfer) = transfers.first() else {
            bail!("no transfer");
        };
        Ok(Figures {
            mbits_per_second: transfer.mbits_per_second(),
            bytes: transfer.bytes,
            longest_pause: transfer.longest_pause,
            percent_again: sent.percent_again(),
            queue_wait: counts.queue_wait(flow.direction),
            processor_time: (flow.stack == Stack::Tidegate).then_some(used),
            overruns: counts.overruns,
        })
    }
}

#[cfg(test)]
mod tests {
    use tidegate_report::testing::parse;

    use super::*;

    #[test]
    fn each_run_has_the_next_seed() {
        assert_eq!([0, 1, 2].map(|run| seed_of(7, run)), [7, 8, 9]);
        assert_eq!(seed_of(u64::MAX, 1), 0);
    }

    #[test]
    fn durations_have_a_limit() {
        let is_accepted = |text| parse::<Arguments>(&["--duration", text]).is_ok();
        assert!(is_accepted("120s"));
        for text in ["121s", "0s", "x"] {
            assert!(!is_accepted(text), "{text}");
        }
    }

    #[test]
    fn a_body_is_longer_than_what_the_fastest_link_carries() {
        let [slow, fast] = ["loss 0%", "1 Gbit/s"].map(|name| condition::named(name)[0]);
        assert!(max_length(&[slow], Duration::from_secs(10)) > 125_000_000);
        assert!(max_length(&[slow, fast], MAX_DURATION) > 15_000_000_000);
    }
}
