//! An impaired link: frames relayed between two devices, with loss, delay, reordering, duplication, corruption and a
//! rate limit, in either direction.
//!
//! It needs nothing of the kernel but packet sockets, so it works where netem is missing. The model of what is wrong
//! with the link is `tidegate_impair`; this crate moves the frames. [`run`] is `tidegate-bench link`:
//!
//! ```no_run
//! use clap::Parser;
//!
//! #[derive(Parser)]
//! struct Program {
//!     #[command(flatten)]
//!     link: tidegate_link::Arguments,
//! }
//!
//! let program = Program::parse_from(["link", "tgm0", "tgm1", "--delay", "10ms", "--loss", "1%"]);
//! assert!(tidegate_link::run(&program.link).is_ok());
//! ```

// In tests those of the standard library, whose output is captured.
#[cfg_attr(not(test), macro_use)]
extern crate tidegate_output;

mod default_route;
mod device;
mod direction;
mod frame;
mod relay;
mod report;
mod schedule;

use std::io::Write;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::prctl::set_timerslack;
use tidegate_args::UsageError;
use tidegate_args::signals::Signals;
use tidegate_args::{bit_rate, duration};
use tidegate_impair::{Chance, Damage, Impairment, Path, Rate, Reordering, Room};
use tidegate_random::Random;

use self::device::Device;
use self::direction::{Direction, VlanStep};
use self::relay::Relay;

/// The longest delay.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Arguments of `tidegate-bench link`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// One device.
    #[arg(value_name = "DEV_A")]
    device_a: String,
    /// The other device.
    #[arg(value_name = "DEV_B")]
    device_b: String,
    /// The directions to impair: ab is from DEV_A to DEV_B. Frames of the other direction are passed on untouched.
    #[arg(long, value_enum, default_value_t = Impaired::Both)]
    direction: Impaired,
    /// Frames to lose.
    #[arg(long, default_value = "0%")]
    loss: Chance,
    /// Frames to send twice.
    #[arg(long, default_value = "0%")]
    duplicate: Chance,
    /// Frames to change one bit of, anywhere behind the Ethernet header.
    #[arg(long, default_value = "0%")]
    corrupt: Chance,
    /// Frames that skip the delay, so that they overtake those before them; needs --delay.
    #[arg(long, default_value = "0%")]
    reorder: Chance,
    /// The time each frame takes, at most 10s.
    #[arg(long, default_value = "0ms", value_parser = duration::within(Duration::ZERO..=MAX_DELAY))]
    delay: Duration,
    /// Largest deviation from the delay, at most the delay, evenly distributed. It changes no order.
    #[arg(long, default_value = "0ms", value_parser = duration::within(Duration::ZERO..=MAX_DELAY))]
    jitter: Duration,
    /// Bits per second, for example 100mbit, counted with the Ethernet header and without preamble and checksum.
    #[arg(long, value_parser = bit_rate::parse)]
    rate: Option<NonZeroU64>,
    /// Frames that may wait for the rate limit in each direction, 1 to 1,000,000; more are thrown away.
    #[arg(long, value_name = "FRAMES", default_value_t = 1000, value_parser = limits())]
    limit: u32,
    /// Impair what the link needs to work, too: multicast, ARP and neighbour discovery.
    #[arg(long)]
    impair_all: bool,
    /// The VLAN that DEV_B's end of the link is in, 1 to 4094: its tag is put into what is sent there and taken out of
    /// what comes from there; what comes without it is thrown away.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    vlan: Option<u16>,
    /// Seed of all that is random. The same frames in the same order meet the same fate.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End after this time; without it, at a signal.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Write the counts to this file as JSON at the end.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Which directions are impaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Impaired {
    /// Both, each with its own random numbers.
    Both,
    /// From DEV_A to DEV_B.
    Ab,
    /// From DEV_B to DEV_A.
    Ba,
}

impl Impaired {
    fn contains(self, direction: usize) -> bool {
        match self {
            Self::Both => true,
            Self::Ab => direction == 0,
            Self::Ba => direction == 1,
        }
    }
}

fn limits() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1_000_000)
}

impl Arguments {
    fn impairment(&self) -> Result<Impairment, UsageError> {
        if self.device_a == self.device_b {
            return Err(UsageError(format!(
                "DEV_A and DEV_B are both {}; a link has two different ends",
                self.device_a
            )));
        }
        if self.jitter > self.delay {
            return Err(UsageError(format!(
                "--jitter {} is more than --delay {}; no frame can arrive before it was sent",
                humantime::format_duration(self.jitter),
                humantime::format_duration(self.delay)
            )));
        }
        if !self.reorder.is_never() && self.delay.is_zero() {
            return Err(UsageError(
                "--reorder needs --delay: the frames it picks overtake those that are delayed".to_owned(),
            ));
        }
        let rate = self.rate.map(|bits_per_second| Rate {
            bits_per_second,
            room: Room::Frames(self.limit as usize),
            granularity: Duration::from_nanos(1),
        });
        Ok(Impairment {
            loss: self.loss,
            bursts: None,
            duplicate: self.duplicate,
            corrupt: self.corrupt,
            damage: Damage::OneBit,
            rate,
            // The model counts from the shortest delay.
            delay: self.delay - self.jitter,
            jitter: 2 * self.jitter,
            reorder: self.reorder,
            reordering: Reordering::SkipDelay,
        })
    }
}

/// Relays until the end, and prints what was done. Always true.
///
/// # Errors
///
/// The arguments do not go together ([`UsageError`]), a device cannot be used, or the counts cannot be written.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let impairment = arguments.impairment()?;
    let names = [&arguments.device_a, &arguments.device_b];
    for name in names {
        if default_route::is_on(name)? {
            bail!(
                "{name} carries this machine's default route, and relaying its frames could cut the machine off; \
                 use devices of a namespace of their own (`scripts/lab.sh up --middle` makes one)"
            );
        }
    }
    // The kernel else wakes a sleeper up to 50 microseconds late, to save wake-ups.
    set_timerslack(1).context("cannot set the timer slack")?;
    let signals = Signals::take_over()?;
    let devices = [Device::open(names[0])?, Device::open(names[1])?];
    let mut random = Random::new(arguments.seed);
    let random = [random.fork(), random.fork()];
    let mut relay = Relay::new(devices, |number, longest| {
        let path = arguments
            .direction
            .contains(number)
            .then(|| Path::new(impairment, random[number].clone()));
        let mut direction = Direction::new(path, arguments.impair_all, longest);
        if let Some(id) = arguments.vlan {
            direction.set_vlan(if number == 0 {
                VlanStep::Push(id)
            } else {
                VlanStep::Pop(id)
            });
        }
        direction
    });
    say("tidegate-bench link: ready\n");
    relay.run(&signals, arguments.duration, |counts| say(&report::text(counts)))?;
    let counts = relay.counts()?;
    say(&report::text(&counts));
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", report::json(&counts));
        std::fs::write(path, text).with_context(|| format!("cannot write the counts to {}", path.display()))?;
    }
    Ok(true)
}

/// Prints at once. A closed standard output is no reason to end the link: nobody wants to read it.
fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn impairment(arguments: &[&str]) -> Result<Impairment, UsageError> {
        let all = ["link"].iter().chain(arguments);
        Program::try_parse_from(all).unwrap().arguments.impairment()
    }

    #[test]
    fn arguments_that_cannot_go_together_are_usage_errors() {
        for (arguments, phrase) in [
            (&["a", "a"][..], "two different ends"),
            (&["a", "b", "--delay", "1ms", "--jitter", "2ms"][..], "--jitter 2ms"),
            (&["a", "b", "--reorder", "1%"][..], "--reorder needs --delay"),
        ] {
            let error = impairment(arguments).unwrap_err().to_string();
            assert!(error.contains(phrase), "{error}");
        }
    }

    #[test]
    fn arguments_are_taken() {
        let impairment = impairment(&["a", "b", "--delay", "5ms", "--jitter", "2ms", "--rate", "1mbit"]).unwrap();
        assert_eq!(impairment.delay, Duration::from_millis(3), "the shortest");
        assert_eq!(impairment.jitter, Duration::from_millis(4));
        let rate = impairment.rate.unwrap();
        assert_eq!((rate.bits_per_second.get(), rate.room), (1_000_000, Room::Frames(1000)));
        assert!(Program::try_parse_from(["link", "a", "b", "--delay", "11s"]).is_err());
    }

    #[test]
    fn each_direction_can_be_left_alone() {
        let impaired = |impaired: Impaired| [impaired.contains(0), impaired.contains(1)];
        assert_eq!(impaired(Impaired::Both), [true, true]);
        assert_eq!(impaired(Impaired::Ab), [true, false]);
        assert_eq!(impaired(Impaired::Ba), [false, true]);
    }
}
