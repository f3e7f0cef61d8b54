//! The link between both sides, `tidegate-bench link` in the middle of the lab.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;
use tidegate_lab::Child;

use super::Direction;

/// The octets of a full frame as the link counts them: an Ethernet header and an MTU of 1,500.
const FULL_FRAME: f64 = 1514.0;

/// A kind of link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Link {
    /// Bits per second; `None` is as fast as frames are relayed.
    pub(crate) rate: Option<u64>,
    /// Half of the round-trip time.
    pub(crate) delay: Duration,
    /// Frames that may wait for the rate.
    pub(crate) queue: u32,
    /// Further arguments of `tidegate-bench link`, which say what is wrong with it.
    pub(crate) impairments: &'static [&'static str],
}

impl Link {
    /// Returns a link with nothing wrong.
    pub(crate) const fn new(rate: u64, delay: Duration, queue: u32) -> Self {
        Self {
            rate: Some(rate),
            delay,
            queue,
            impairments: &[],
        }
    }

    /// Returns the same with `impairments`.
    pub(crate) const fn with(self, impairments: &'static [&'static str]) -> Self {
        Self { impairments, ..self }
    }

    /// Returns the same as fast as frames are relayed, with nothing wrong.
    pub(crate) const fn unlimited(self) -> Self {
        Self {
            rate: None,
            ..self.with(&[])
        }
    }

    /// Returns the rate in Mbit/s.
    pub(crate) fn mbits_per_second(self) -> Option<f64> {
        self.rate.map(|rate| rate as f64 / 1e6)
    }

    /// Returns the full frames that are on their way in a round trip at `rate` with a one-way delay of `delay`, the
    /// bandwidth-delay product.
    pub(crate) fn bdp_frames(rate: u64, delay: Duration) -> f64 {
        rate as f64 / 8.0 * 2.0 * delay.as_secs_f64() / FULL_FRAME
    }

    /// Returns the arguments of `tidegate-bench link` behind the devices.
    pub(super) fn arguments(self, seed: u64) -> Vec<String> {
        let mut arguments = vec![
            "--delay".to_owned(),
            humantime::format_duration(self.delay).to_string(),
            "--limit".to_owned(),
            self.queue.to_string(),
            "--seed".to_owned(),
            seed.to_string(),
        ];
        if let Some(rate) = self.rate {
            arguments.extend(["--rate".to_owned(), format!("{rate}bit")]);
        }
        arguments.extend(self.impairments.iter().map(|&argument| argument.to_owned()));
        arguments
    }
}

/// A link that relays.
pub(crate) struct RunningLink {
    child: Child,
    file: PathBuf,
}

/// The counts of a link that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct LinkCounts {
    /// Frames that were lost because this machine was too slow, not because the link is bad.
    pub(crate) overruns: u64,
    /// The mean time that a frame waited for the rate, towards the server and towards the client.
    queue_wait: [Option<Duration>; 2],
}

impl RunningLink {
    /// The link that `child` is, which writes its counts to `file` when it ends.
    pub(super) fn new(child: Child, file: PathBuf) -> Self {
        Self { child, file }
    }

    /// Returns whether it still relays.
    ///
    /// # Errors
    ///
    /// The process cannot be waited for.
    pub(crate) fn is_running(&mut self) -> anyhow::Result<bool> {
        self.child.is_running()
    }

    /// Ends the link.
    ///
    /// # Errors
    ///
    /// It has not written its counts.
    pub(crate) fn finish(self) -> anyhow::Result<LinkCounts> {
        let Self { child, file } = self;
        drop(child);
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let counts: Value = serde_json::from_str(&text).context("the counts of the link are no JSON")?;
        LinkCounts::of(&counts)
    }
}

impl LinkCounts {
    fn of(counts: &Value) -> anyhow::Result<Self> {
        let get = |direction: &str, name: &str| {
            counts[direction][name]
                .as_u64()
                .ok_or_else(|| anyhow!("the link has not counted {name} in direction {direction}"))
        };
        let mut all = Self::default();
        // The client's device is the first.
        for (wait, direction) in all.queue_wait.iter_mut().zip(["ab", "ba"]) {
            all.overruns += get(direction, "overrun")?;
            let frames =
                (get(direction, "sent")? + get(direction, "held")?).saturating_sub(get(direction, "unimpaired")?);
            let micros = get(direction, "queue_wait_us")?;
            *wait = (frames > 0).then(|| Duration::from_secs_f64(micros as f64 / 1e6 / frames as f64));
        }
        Ok(all)
    }

    /// Returns the mean time that a frame with data waited for the rate; `None` if there was none.
    pub(crate) fn queue_wait(&self, direction: Direction) -> Option<Duration> {
        match direction {
            Direction::Up => self.queue_wait[0],
            Direction::Down => self.queue_wait[1],
        }
    }
}

/// Checks that `tidegate-bench link` understands `link`.
#[cfg(test)]
pub(crate) fn assert_understood(link: Link) {
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        _arguments: tidegate_link::Arguments,
    }

    let arguments = link.arguments(7);
    let all = ["link", "a", "b"]
        .into_iter()
        .chain(arguments.iter().map(String::as_str));
    let parsed = Program::try_parse_from(all);
    assert!(parsed.is_ok(), "{link:?}: {:?}", parsed.err());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LINK: Link = Link::new(100_000_000, Duration::from_millis(10), 250).with(&["--loss", "1%"]);

    #[test]
    fn a_link_is_one_that_the_relay_understands() {
        assert_understood(LINK);
        assert_understood(LINK.unlimited());
        assert_understood(Link::new(1, Duration::from_micros(1_500), 1));
        let text = LINK.arguments(7).join(" ");
        assert_eq!(text, "--delay 10ms --limit 250 --seed 7 --rate 100000000bit --loss 1%");
        assert_eq!(
            LINK.unlimited().arguments(7).join(" "),
            "--delay 10ms --limit 250 --seed 7"
        );
    }

    #[test]
    fn full_frames_on_their_way_are_rate_by_round_trip() {
        assert_eq!(Link::bdp_frames(100_000_000, Duration::from_millis(10)).round(), 165.0);
        assert_eq!(LINK.mbits_per_second(), Some(100.0));
        assert_eq!(LINK.unlimited().mbits_per_second(), None);
    }

    #[test]
    fn the_wait_is_that_of_the_frames_that_waited() {
        let direction =
            |sent, wait| json!({"sent": sent, "held": 1, "unimpaired": 2, "overrun": 3, "queue_wait_us": wait});
        let counts = LinkCounts::of(&json!({"ab": direction(1, 0), "ba": direction(11, 5_000)})).unwrap();
        assert_eq!(counts.overruns, 6);
        assert_eq!(counts.queue_wait(Direction::Up), None);
        assert_eq!(counts.queue_wait(Direction::Down), Some(Duration::from_micros(500)));
        let error = LinkCounts::of(&json!({"ab": {}})).unwrap_err().to_string();
        assert!(error.contains("overrun"), "{error}");
    }
}
