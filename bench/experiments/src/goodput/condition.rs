//! The kinds of links that goodput is measured over.

use std::time::Duration;

use crate::transfers::Link;

/// A kind of link and its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Condition {
    /// Its name.
    pub(super) name: &'static str,
    /// The link.
    pub(super) link: Link,
}

impl Condition {
    const fn new(name: &'static str, link: Link) -> Self {
        Self { name, link }
    }

    /// Returns whether it is so fast that the machine may be too slow to relay it, and not only the servers.
    pub(super) fn is_fast(&self) -> bool {
        self.link.rate.is_some_and(|rate| rate > RATE)
    }
}

/// The rate of all links but the fast one, in bits per second.
const RATE: u64 = 100_000_000;

/// Half of their round-trip time.
const DELAY: Duration = Duration::from_millis(10);

/// A queue of about one and a half times what is on its way at full rate, 165 frames.
const LINK: Link = Link::new(RATE, DELAY, 250);

/// All of them.
pub(super) const CONDITIONS: [Condition; 11] = [
    Condition::new("loss 0%", LINK),
    Condition::new("loss 0.1%", LINK.with(&["--loss", "0.1%"])),
    Condition::new("loss 1%", LINK.with(&["--loss", "1%"])),
    Condition::new("loss 2%", LINK.with(&["--loss", "2%"])),
    Condition::new("loss 3%", LINK.with(&["--loss", "3%"])),
    Condition::new("reordering 25%", LINK.with(&["--reorder", "25%"])),
    Condition::new("corruption 0.5%", LINK.with(&["--corrupt", "0.5%"])),
    // Something of everything.
    Condition::new(
        "mix",
        Link::new(RATE, Duration::from_millis(5), 250).with(&[
            "--loss",
            "2%",
            "--duplicate",
            "1%",
            "--corrupt",
            "0.5%",
            "--reorder",
            "5%",
        ]),
    ),
    // A fifth of what is on its way, and ten times as much.
    Condition::new("shallow queue", Link::new(RATE, DELAY, 33)),
    Condition::new("deep queue", Link::new(RATE, DELAY, 1_650)),
    // As much on its way as with the others, and as long a queue.
    Condition::new("1 Gbit/s", Link::new(1_000_000_000, Duration::from_millis(1), 250)),
];

/// Returns the conditions whose name contains `text`.
pub(super) fn named(text: &str) -> Vec<&'static Condition> {
    CONDITIONS
        .iter()
        .filter(|condition| condition.name.contains(text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfers::assert_understood;

    #[test]
    fn every_kind_of_link_is_one_the_link_understands() {
        for condition in &CONDITIONS {
            assert_understood(condition.link);
        }
    }

    #[test]
    fn queues_are_as_long_as_their_names_say() {
        for condition in &CONDITIONS {
            let rate = condition.link.rate.unwrap();
            let in_flight = Link::bdp_frames(rate, condition.link.delay);
            let queue = f64::from(condition.link.queue) / in_flight;
            let expected = match condition.name {
                "shallow queue" => 0.2,
                "deep queue" => 10.0,
                // Of a shorter way.
                "mix" => 3.0,
                _ => 1.5,
            };
            assert!((queue / expected - 1.0).abs() < 0.05, "{}: {queue}", condition.name);
        }
    }

    #[test]
    fn names_are_different_and_chosen_by_a_part() {
        let names: std::collections::BTreeSet<&str> = CONDITIONS.iter().map(|condition| condition.name).collect();
        assert_eq!(names.len(), CONDITIONS.len());
        assert_eq!(named("queue").len(), 2);
        assert_eq!(named("loss 1%").len(), 1);
        assert_eq!(named("").len(), CONDITIONS.len());
        assert!(named("no such").is_empty());
    }

    #[test]
    fn only_the_fast_link_may_be_too_fast_for_the_machine() {
        let fast: Vec<&str> = CONDITIONS
            .iter()
            .filter_map(|condition| condition.is_fast().then_some(condition.name))
            .collect();
        assert_eq!(fast, ["1 Gbit/s"]);
    }
}
