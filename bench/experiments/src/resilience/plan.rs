//! Which cases there are, in which order they are measured, and how long each may take.

use std::time::Duration;

use tidegate_lab::Family;

/// The SYNs that are offered per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Offered {
    /// No flood.
    Nothing,
    /// So many per second.
    Pps(u64),
    /// As many as the generator makes.
    Max,
}

impl Offered {
    /// The name in the results, such as `500k`.
    pub(super) fn name(self) -> String {
        match self {
            Self::Nothing => "0".to_owned(),
            Self::Pps(rate) if rate >= 1_000_000 && rate.is_multiple_of(1_000_000) => format!("{}M", rate / 1_000_000),
            Self::Pps(rate) if rate >= 1_000 && rate.is_multiple_of(1_000) => format!("{}k", rate / 1_000),
            Self::Pps(rate) => rate.to_string(),
            Self::Max => "max".to_owned(),
        }
    }
}

/// A server under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// tidegate with `--syn-cookies auto`.
    TidegateAuto,
    /// tidegate with `--syn-cookies never`.
    TidegateNever,
    /// A listener of the kernel with `net.ipv4.tcp_syncookies` = 1: cookies when the queue of half-open connections is
    /// full.
    LinuxOnOverflow,
    /// A listener of the kernel with `net.ipv4.tcp_syncookies` = 2: a cookie for every SYN.
    LinuxAlways,
}

impl Target {
    /// All of them, in the order of the results.
    pub(super) const ALL: [Self; 4] = [
        Self::TidegateAuto,
        Self::TidegateNever,
        Self::LinuxOnOverflow,
        Self::LinuxAlways,
    ];

    /// The name in the results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::TidegateAuto => "tidegate auto",
            Self::TidegateNever => "tidegate never",
            Self::LinuxOnOverflow => "linux tcp_syncookies=1",
            Self::LinuxAlways => "linux tcp_syncookies=2",
        }
    }

    /// The port it listens on.
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::TidegateAuto => 80,
            Self::TidegateNever => 81,
            Self::LinuxOnOverflow => 8080,
            Self::LinuxAlways => 8081,
        }
    }
}

/// A limit to all servers: an XDP program that does next to nothing with each SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// It is sent back as it is by XDP_TX.
    Transmit,
    /// It is dropped by XDP_DROP.
    Drop,
}

/// The target of the flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// A server.
    Server(Target),
    /// A bare XDP program.
    Bare(Limit),
}

impl Subject {
    /// Whether a ratio of the results is made of it.
    fn is_in_ratios(&self) -> bool {
        matches!(
            self,
            Self::Server(Target::TidegateAuto | Target::LinuxOnOverflow) | Self::Bare(Limit::Transmit)
        )
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// The IP version.
    pub(super) family: Family,
    /// The flood.
    pub(super) offered: Offered,
    /// Its target.
    pub(super) subject: Subject,
}

impl Case {
    /// A line for people that says which one it is.
    pub(super) fn title(&self) -> String {
        let subject = match self.subject {
            Subject::Server(target) => target.name(),
            Subject::Bare(Limit::Transmit) => "bare XDP_TX",
            Subject::Bare(Limit::Drop) => "bare XDP_DROP",
        };
        format!("{}, {} SYN/s, {subject}", self.family.title(), self.offered.name())
    }

    fn has_clients(&self) -> bool {
        matches!(self.subject, Subject::Server(_))
    }
}

/// The extent of a run, and the time of each part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// The floods, in the order they are measured.
    pub(super) rates: &'static [Offered],
    /// The servers.
    pub(super) targets: &'static [Target],
    /// The number of times that the parts of the ratios are measured at the highest rate.
    pub(super) rounds_at_max: usize,
    /// The IP versions the bare XDP programs are measured with.
    pub(super) bare: &'static [Family],
    /// Clients that connect during the window.
    pub(super) clients: u32,
    /// The time the open connections run before anything counts.
    pub(super) lead_in: Duration,
    /// The time their throughput is measured before the flood.
    pub(super) before: Duration,
    /// From the begin of the flood until anything counts.
    pub(super) settle: Duration,
    /// The time everything is measured.
    pub(super) window: Duration,
    /// The time clients that are late are waited for after the window, at most.
    pub(super) tail: Duration,
    /// The time the responses under way on the open connections are waited for at the end.
    pub(super) finish: Duration,
    /// The time that starting and stopping a server may take, for the arithmetic of `limit`.
    pub(super) change: Duration,
    /// The time all cases together may take; `None` if there is no limit.
    pub(super) limit: Option<Duration>,
}

impl Scale {
    /// The whole test.
    pub(super) const FULL: Self = Self {
        rates: &[
            Offered::Nothing,
            Offered::Pps(100_000),
            Offered::Pps(500_000),
            Offered::Pps(1_000_000),
            Offered::Max,
        ],
        targets: &Target::ALL,
        rounds_at_max: 3,
        bare: &[Family::V4, Family::V6],
        clients: 1_000,
        lead_in: Duration::from_millis(500),
        before: Duration::from_secs(1),
        settle: Duration::from_millis(500),
        window: Duration::from_secs(4),
        tail: Duration::from_secs(20),
        finish: Duration::from_secs(10),
        change: Duration::from_secs(2),
        limit: None,
    };

    /// A first look that ends within 55 s. The time without which it could not is taken from the clients that are late.
    pub(super) const QUICK: Self = Self {
        rates: &[Offered::Nothing, Offered::Pps(500_000), Offered::Max],
        targets: &[Target::TidegateAuto, Target::LinuxOnOverflow],
        rounds_at_max: 1,
        bare: &[Family::V4],
        clients: 250,
        lead_in: Duration::from_millis(200),
        before: Duration::from_millis(400),
        settle: Duration::from_millis(300),
        window: Duration::from_millis(1_000),
        tail: Duration::from_secs(4),
        finish: Duration::from_millis(300),
        change: Duration::from_millis(1_000),
        limit: Some(Duration::from_secs(51)),
    };

    /// All cases in the order they are measured: every flood meets all subjects in turn, and each time another one is
    /// the first.
    pub(super) fn cases(&self, families: &[Family]) -> Vec<Case> {
        let mut cases = Vec::new();
        let mut round = 0;
        for &family in families {
            for &offered in self.rates {
                let mut subjects: Vec<Subject> = self.targets.iter().copied().map(Subject::Server).collect();
                if offered == Offered::Max && self.bare.contains(&family) {
                    subjects.extend([Limit::Transmit, Limit::Drop].map(Subject::Bare));
                }
                let first = round % subjects.len().max(1);
                subjects.rotate_left(first);
                let case = |subject| Case {
                    family,
                    offered,
                    subject,
                };
                cases.extend(subjects.iter().copied().map(case));
                round += 1;
                if offered == Offered::Max {
                    subjects.retain(Subject::is_in_ratios);
                    for _ in 1..self.rounds_at_max {
                        cases.extend(subjects.iter().copied().map(case));
                    }
                }
            }
        }
        cases
    }

    /// Returns the time of `case` if no client is late.
    pub(super) fn base(&self, case: &Case) -> Duration {
        match case.subject {
            Subject::Server(_) => self.change + self.lead_in + self.before + self.settle + self.window + self.finish,
            Subject::Bare(_) => self.change / 2 + self.settle + self.window,
        }
    }

    /// The time the first case of `rest` may wait for clients that are late, when all cases before it took `elapsed`.
    /// The time that the limit leaves is shared by the cases that have clients. `None` when there is no time for the
    /// case.
    pub(super) fn tail_of_first(&self, elapsed: Duration, rest: &[Case]) -> Option<Duration> {
        let Some(limit) = self.limit else {
            return Some(self.tail);
        };
        let first = rest.first()?;
        if elapsed + self.base(first) > limit {
            return None;
        }
        let needed: Duration = rest.iter().map(|case| self.base(case)).sum();
        let sharing = rest.iter().filter(|case| case.has_clients()).count();
        let spare = limit.saturating_sub(elapsed + needed);
        let share = spare / u32::try_from(sharing).unwrap_or(u32::MAX).max(1);
        Some(share.min(self.tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Family; 2] = [Family::V4, Family::V6];

    #[test]
    fn every_flood_meets_every_target_once_and_the_highest_those_of_the_ratios_three_times() {
        let cases = Scale::FULL.cases(&BOTH);
        let servers = cases.iter().filter(|case| matches!(case.subject, Subject::Server(_)));
        assert_eq!(servers.count(), 2 * (5 * 4 + 2 * 2));
        for &family in &BOTH {
            for &offered in Scale::FULL.rates {
                for target in Target::ALL {
                    let same = Case {
                        family,
                        offered,
                        subject: Subject::Server(target),
                    };
                    let times = if offered == Offered::Max && same.subject.is_in_ratios() {
                        3
                    } else {
                        1
                    };
                    assert_eq!(cases.iter().filter(|&&case| case == same).count(), times, "{same:?}");
                }
            }
            for limit in [Limit::Transmit, Limit::Drop] {
                let bare = Case {
                    family,
                    offered: Offered::Max,
                    subject: Subject::Bare(limit),
                };
                assert!(cases.contains(&bare), "{bare:?}");
            }
        }
    }

    #[test]
    fn each_target_is_first_in_some_round() {
        let cases = Scale::FULL.cases(&BOTH);
        for target in Target::ALL {
            let first = cases.iter().enumerate().any(|(index, case)| {
                let begins = index == 0 || cases[index - 1].offered != case.offered;
                begins && case.subject == Subject::Server(target)
            });
            assert!(first, "{target:?} is never the first");
        }
    }

    #[test]
    fn a_quick_run_keeps_its_limit_and_has_time_for_every_cell() {
        let scale = Scale::QUICK;
        let limit = scale.limit.unwrap();
        assert!(limit < Duration::from_secs(55));
        let cases = scale.cases(&BOTH);
        let mut elapsed = Duration::ZERO;
        for index in 0..cases.len() {
            let tail = scale
                .tail_of_first(elapsed, &cases[index..])
                .unwrap_or_else(|| panic!("no time for {:?}", cases[index]));
            elapsed += scale.base(&cases[index]);
            if cases[index].has_clients() {
                assert!(tail > Duration::ZERO, "{:?}", cases[index]);
                elapsed += tail;
            }
        }
        assert!(elapsed <= limit, "{elapsed:?}");
    }

    #[test]
    fn time_that_is_lost_is_taken_from_late_clients_and_then_from_cells() {
        let scale = Scale::QUICK;
        let limit = scale.limit.unwrap();
        let cases = scale.cases(&BOTH);
        assert_eq!(scale.tail_of_first(limit / 2, &cases), Some(Duration::ZERO));
        assert_eq!(scale.tail_of_first(limit, &cases), None);
        assert_eq!(Scale::FULL.tail_of_first(limit * 100, &cases), Some(Scale::FULL.tail));
    }

    #[test]
    fn rates_are_written_short() {
        let names: Vec<String> = Scale::FULL.rates.iter().map(|rate| rate.name()).collect();
        assert_eq!(names, ["0", "100k", "500k", "1M", "max"]);
        assert_eq!(Offered::Pps(1_500).name(), "1500");
    }
}
