//! The pairs of senders that share a queue.

use crate::transfers::Stack;

/// A TCP with a congestion control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) stack: Stack,
    pub(super) control: String,
}

impl Sender {
    pub(super) fn new(stack: Stack, control: &str) -> Self {
        Self {
            stack,
            control: control.to_owned(),
        }
    }

    /// Returns its name, such as `tidegate/bbr`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.stack.name(), self.control)
    }
}

/// Two senders, each with half of the flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) first: Sender,
    pub(super) second: Sender,
}

impl Pair {
    fn new(first: Sender, second: Sender) -> Self {
        Self { first, second }
    }

    /// Returns its name, such as `tidegate/bbr and Linux/cubic`.
    pub(super) fn name(&self) -> String {
        format!("{} and {}", self.first.name(), self.second.name())
    }

    /// Returns the pair whose second sender has the share that this one's is compared with: Linux in tidegate's place.
    /// `None` unless the first is tidegate and the second is Linux.
    pub(super) fn baseline(&self) -> Option<Self> {
        (self.first.stack == Stack::Tidegate && self.second.stack == Stack::Linux)
            .then(|| Self::new(Sender::new(Stack::Linux, &self.first.control), self.second.clone()))
    }

    /// Returns whether these are the same two senders, in whatever order.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self == other || (self.first == other.second && self.second == other.first)
    }

    /// Returns the congestion control that tidegate has to be started with.
    pub(super) fn tidegate_control(&self) -> Option<&str> {
        [&self.first, &self.second]
            .into_iter()
            .find(|sender| sender.stack == Stack::Tidegate)
            .map(|sender| sender.control.as_str())
    }
}

/// Returns the pairs whose name contains `only`, and those they are compared with.
///
/// Each of tidegate's congestion controls is beside each of Linux's and beside itself, and each of Linux's beside each
/// of Linux's. One tidegate has one congestion control, and one interface has one tidegate, so two of its controls are
/// in no pair.
pub(super) fn pairs(controls: &[String], only: &str) -> Vec<Pair> {
    let sender = |stack, control: &String| Sender::new(stack, control);
    let mut pairs = Vec::new();
    for first in controls {
        for second in controls {
            pairs.push(Pair::new(sender(Stack::Tidegate, first), sender(Stack::Linux, second)));
        }
    }
    for (index, first) in controls.iter().enumerate() {
        for second in &controls[index..] {
            pairs.push(Pair::new(sender(Stack::Linux, first), sender(Stack::Linux, second)));
        }
    }
    for control in controls {
        let tidegate = sender(Stack::Tidegate, control);
        pairs.push(Pair::new(tidegate.clone(), tidegate));
    }
    let chosen: Vec<&Pair> = pairs.iter().filter(|pair| pair.name().contains(only)).collect();
    let is_baseline = |pair: &Pair| {
        let mut baselines = chosen.iter().filter_map(|chosen| chosen.baseline());
        baselines.any(|baseline| baseline.is_like(pair))
    };
    pairs
        .iter()
        .filter(|pair| chosen.contains(pair) || is_baseline(pair))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(controls: &[&str], only: &str) -> Vec<String> {
        let controls: Vec<String> = controls.iter().map(|&name| name.to_owned()).collect();
        pairs(&controls, only).iter().map(Pair::name).collect()
    }

    #[test]
    fn every_sender_is_beside_every_other_but_tidegate_beside_another_of_its_own() {
        let expected = [
            "tidegate/cubic and Linux/cubic",
            "tidegate/cubic and Linux/bbr",
            "tidegate/bbr and Linux/cubic",
            "tidegate/bbr and Linux/bbr",
            "Linux/cubic and Linux/cubic",
            "Linux/cubic and Linux/bbr",
            "Linux/bbr and Linux/bbr",
            "tidegate/cubic and tidegate/cubic",
            "tidegate/bbr and tidegate/bbr",
        ];
        assert_eq!(names(&["cubic", "bbr"], ""), expected);
        assert_eq!(names(&["reno"], "").len(), 3);
    }

    #[test]
    fn a_choice_brings_what_it_is_compared_with() {
        let expected = ["tidegate/bbr and Linux/cubic", "Linux/cubic and Linux/bbr"];
        assert_eq!(names(&["cubic", "bbr"], "tidegate/bbr and Linux/cubic"), expected);
        assert_eq!(
            names(&["cubic", "bbr"], "Linux/bbr and Linux/bbr"),
            ["Linux/bbr and Linux/bbr"]
        );
        assert!(names(&["cubic", "bbr"], "no such").is_empty());
    }

    #[test]
    fn only_tidegate_beside_linux_has_a_baseline() {
        let controls = ["cubic".to_owned(), "bbr".to_owned()];
        for pair in pairs(&controls, "") {
            let baseline = pair.baseline();
            let is_mixed = pair.first.stack != pair.second.stack;
            assert_eq!(baseline.is_some(), is_mixed, "{}", pair.name());
            if let Some(baseline) = baseline {
                assert_eq!(baseline.second, pair.second);
                assert_eq!(baseline.first, Sender::new(Stack::Linux, &pair.first.control));
                assert_eq!(pair.tidegate_control(), Some(pair.first.control.as_str()));
            }
        }
    }
}
