//! The subjects of measurement: rates, targets, and the cases made of them.

use tidegate_lab::Family;

use super::attack::Attack;

/// The packets of an attack, or new connections, that are offered per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Offered {
    /// No attack.
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
    /// nginx on the kernel's TCP, with `net.ipv4.tcp_syncookies` = 1, which is the default.
    Nginx,
}

impl Target {
    /// All of them, in the order of the results.
    pub(super) const ALL: [Self; 5] = [
        Self::TidegateAuto,
        Self::TidegateNever,
        Self::LinuxOnOverflow,
        Self::LinuxAlways,
        Self::Nginx,
    ];

    /// The name in the results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::TidegateAuto => "tidegate auto",
            Self::TidegateNever => "tidegate never",
            Self::LinuxOnOverflow => "linux tcp_syncookies=1",
            Self::LinuxAlways => "linux tcp_syncookies=2",
            Self::Nginx => "nginx",
        }
    }

    /// The port it listens on.
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::TidegateAuto => 80,
            Self::TidegateNever => 81,
            Self::LinuxOnOverflow => 8080,
            Self::LinuxAlways => 8081,
            Self::Nginx => 8082,
        }
    }

    /// Whether it meets `attack`. The others differ from these in how they treat SYNs.
    pub(super) fn meets(self, attack: Attack) -> bool {
        attack == Attack::SYN || matches!(self, Self::TidegateAuto | Self::Nginx)
    }
}

/// A limit to all servers: an XDP program that does next to nothing with each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// A SYN is sent back as it is by XDP_TX.
    Transmit,
    /// Packets from the addresses of the attack are dropped by XDP_DROP.
    Drop,
}

/// A server whose score is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contender {
    /// The server by itself.
    Plain(Target),
    /// The ceiling: tidegate behind a program that drops the attack by its addresses.
    Filtered,
}

impl Contender {
    /// All of them, in the order of the results.
    pub(super) const ALL: [Self; 3] = [
        Self::Plain(Target::TidegateAuto),
        Self::Filtered,
        Self::Plain(Target::Nginx),
    ];

    /// Returns the name in the results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain(target) => target.name(),
            Self::Filtered => "bare filter",
        }
    }

    /// Returns the server.
    pub(super) const fn target(self) -> Target {
        match self {
            Self::Plain(target) => target,
            Self::Filtered => Target::TidegateAuto,
        }
    }
}

/// The subject of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// A server.
    Server(Target),
    /// A bare XDP program.
    Bare(Limit),
    /// The highest rate that a server stands.
    Score(Contender),
}

impl Subject {
    /// Whether a ratio of the results is made of it.
    pub(super) fn is_in_ratios(&self) -> bool {
        matches!(
            self,
            Self::Server(Target::TidegateAuto | Target::LinuxOnOverflow) | Self::Bare(_)
        )
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// The IP version.
    pub(super) family: Family,
    /// The attack; `None` if there is none.
    pub(super) attack: Option<Attack>,
    /// Its rate. That of a score is searched for.
    pub(super) offered: Offered,
    /// Its target.
    pub(super) subject: Subject,
}

impl Case {
    /// A line for people that says which one it is.
    pub(super) fn title(&self) -> String {
        let attack = self.attack.map_or("no attack", Attack::name);
        let rate = self.offered.name();
        let subject = match self.subject {
            Subject::Server(target) => target.name(),
            Subject::Bare(Limit::Transmit) => "bare XDP_TX",
            Subject::Bare(Limit::Drop) => "bare XDP_DROP",
            Subject::Score(contender) => {
                return format!("{}, {attack}, score of {}", self.family.title(), contender.name());
            }
        };
        format!("{}, {attack} {rate}/s, {subject}", self.family.title())
    }

    pub(super) fn has_clients(&self) -> bool {
        matches!(self.subject, Subject::Server(_))
    }
}

/// The part of all cases that was chosen.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    /// The IP versions.
    pub(super) families: &'static [Family],
    /// The attacks.
    pub(super) attacks: Vec<Attack>,
    /// Whether nginx is installed.
    pub(super) has_nginx: bool,
}

impl Selection {
    /// Whether `target` can be measured.
    pub(super) fn has(&self, target: Target) -> bool {
        target != Target::Nginx || self.has_nginx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_short() {
        let rates = [
            Offered::Nothing,
            Offered::Pps(1_500),
            Offered::Pps(100_000),
            Offered::Pps(1_000_000),
            Offered::Max,
        ];
        assert_eq!(rates.map(Offered::name), ["0", "1500", "100k", "1M", "max"]);
    }
}
