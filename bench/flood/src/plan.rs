//! The plan of a flood: its packets, their target, its rate and duration.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_args::UsageError;
use tidegate_traffic_abi::{Flood, kind};

use crate::interface::Interface;
use crate::neighbour;
use crate::ranges::{self, Prefix};
use crate::rate::Rate;
use crate::sink::Sink;

/// The longest a flood goes on. There is no way around it.
pub const MAX_DURATION: Duration = Duration::from_secs(600);

/// The most connections that a flood keeps.
pub const MAX_CONNECTIONS: u32 = 4_000_000;

/// Connections that are kept unless more or fewer are asked for.
pub(crate) const DEFAULT_CONNECTIONS: u32 = 1_000;

/// The path that is requested unless another is asked for.
pub(crate) const DEFAULT_PATH: &str = "/";

/// The longest path, in octets: a request is one segment.
const MAX_PATH: usize = 1_000;

/// The contents of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// SYNs, with the options of common systems
    Syn,
    /// Bare ACKs, half of them with timestamps
    Ack,
    /// RSTs
    Rst,
    /// FINs, half of them with timestamps
    Fin,
    /// SYN-ACKs, with the options of common systems
    #[value(name = "synack")]
    SynAck,
    /// SYNs with text
    SynData,
    /// Fragments of TCP segments, as many first ones as later ones
    Fragment,
    /// UDP datagrams with random content
    UdpNoise,
    /// All of those above, evenly
    Mix,
    /// Connections that are opened and abandoned: no FIN, no RST, no answer
    Connect,
    /// Connections that stay open and say nothing
    Idle,
    /// Connections with an HTTP head that comes an octet a second and has no end
    SlowHead,
    /// Connections that read a response through a window of 256 octets, 32 a second
    SlowRead,
    /// Connections that request something and have no room for it
    ZeroWindow,
    /// Connections that request something and have room for one octet, and for none, in turns
    ZeroOneWindow,
    /// Connections with an MSS of 48 octets that soon acknowledge next to nothing of a response, with other SACK blocks
    /// each time
    TinyMss,
}

impl Kind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Ack => "ack",
            Self::Rst => "rst",
            Self::Fin => "fin",
            Self::SynAck => "synack",
            Self::Mix => "mix",
            Self::UdpNoise => "udp-noise",
            Self::SynData => "syn-data",
            Self::Fragment => "fragment",
            Self::Connect => "connect",
            Self::Idle => "idle",
            Self::SlowHead => "slow-head",
            Self::SlowRead => "slow-read",
            Self::ZeroWindow => "zero-window",
            Self::ZeroOneWindow => "zero-one-window",
            Self::TinyMss => "tiny-mss",
        }
    }

    /// Whether it needs connections, and so what the server answers to the sources.
    pub fn needs_connections(self) -> bool {
        self.number().is_none()
    }

    /// Whether it keeps connections.
    pub(crate) fn keeps_connections(self) -> bool {
        self.needs_connections() && self != Self::Connect
    }

    /// Whether its connections request something.
    pub(crate) fn requests(self) -> bool {
        self.keeps_connections() && self != Self::Idle
    }

    /// Its number in the XDP program; `None` if that does not make it.
    fn number(self) -> Option<u32> {
        match self {
            Self::Syn => Some(kind::SYN),
            Self::Ack => Some(kind::ACK),
            Self::Rst => Some(kind::RST),
            Self::Fin => Some(kind::FIN),
            Self::SynAck => Some(kind::SYN_ACK),
            Self::Mix => Some(kind::MIX),
            Self::UdpNoise => Some(kind::UDP),
            Self::SynData => Some(kind::SYN_DATA),
            Self::Fragment => Some(kind::FRAGMENT),
            Self::Connect
            | Self::Idle
            | Self::SlowHead
            | Self::SlowRead
            | Self::ZeroWindow
            | Self::ZeroOneWindow
            | Self::TinyMss => None,
        }
    }
}

/// The maker of the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Maker {
    /// The kernel where it can, else this program.
    #[default]
    Auto,
    /// The kernel: BPF_PROG_TEST_RUN with live frames (Linux 5.18).
    LiveFrames,
    /// This program, through an AF_XDP socket.
    AfXdp,
}

/// A flood.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The interface to send on.
    pub interface: String,
    /// Where to.
    pub target: SocketAddr,
    /// Instead of the target's address, one at random from this prefix for each packet, with the target's port and
    /// Ethernet address.
    pub targets: Option<Prefix>,
    /// The Ethernet address to send to; without one, the kernel resolves the target's.
    pub target_mac: Option<[u8; 6]>,
    /// Where the packets seem to come from; without it, the family's default.
    pub sources: Option<Prefix>,
    /// The kind of packets.
    pub kind: Kind,
    /// Their rate. Of a kind that needs connections: new connections, and acknowledgments of [`Kind::TinyMss`] as well.
    pub rate: Rate,
    /// Connections at the same time, 1 to [`MAX_CONNECTIONS`], of a kind that keeps them. New ones replace those that
    /// the server ends.
    pub connections: u32,
    /// The path of the kinds that request something; it begins with a slash.
    pub path: String,
    /// The duration, at most [`MAX_DURATION`].
    pub duration: Duration,
    /// The CPU to send from; without one, any.
    pub cpu: Option<usize>,
    /// Seed of all that is random.
    pub seed: u64,
    /// The maker of the frames.
    pub maker: Maker,
}

impl Plan {
    /// A flood of 5 s at the highest rate, everything else being by default.
    pub fn new(interface: impl Into<String>, target: SocketAddr, kind: Kind) -> Self {
        Self {
            interface: interface.into(),
            target,
            targets: None,
            target_mac: None,
            sources: None,
            kind,
            rate: Rate::Max,
            connections: DEFAULT_CONNECTIONS,
            path: DEFAULT_PATH.to_owned(),
            duration: Duration::from_secs(5),
            cpu: None,
            seed: 1,
            maker: Maker::Auto,
        }
    }

    /// The prefix of the sources.
    pub fn sources(&self) -> Prefix {
        self.sources.unwrap_or_else(|| Prefix::sources_for(self.target.ip()))
    }

    /// Checks that this may be sent at all.
    ///
    /// # Errors
    ///
    /// A [`UsageError`] when the target is outside of the ranges of benchmarks, one of the prefixes is of the other
    /// family, or it would go on for too long.
    pub fn check(&self) -> Result<(), UsageError> {
        ranges::check_target(self.target).map_err(UsageError)?;
        for (name, prefix) in [("sources", Some(self.sources())), ("targets", self.targets)] {
            if let Some(prefix) = prefix
                && prefix.is_ipv4() != self.target.is_ipv4()
            {
                return Err(UsageError(format!(
                    "the {name} {prefix} and the target {} are not of the same family",
                    self.target
                )));
            }
        }
        if self.kind.needs_connections() {
            self.check_connections()?;
        }
        if self.duration.is_zero() || self.duration > MAX_DURATION {
            return Err(UsageError(format!(
                "a flood goes on for more than nothing and at most {} s",
                MAX_DURATION.as_secs()
            )));
        }
        Ok(())
    }

    fn check_connections(&self) -> Result<(), UsageError> {
        let kind = self.kind.name();
        let refusal = if self.targets.is_some() {
            format!("{kind} has one target; leave the prefix of targets out")
        } else if self.maker == Maker::LiveFrames {
            format!("{kind} needs what the server answers, which the kernel's maker does not see; leave it out")
        } else if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            format!("{} connections; it must be 1 to {MAX_CONNECTIONS}", self.connections)
        } else if !is_path(&self.path) {
            format!("`{}` is not a path; it begins with a slash, without spaces", self.path)
        } else {
            return Ok(());
        };
        Err(UsageError(refusal))
    }

    /// Attaches the program that takes what the server answers.
    ///
    /// # Errors
    ///
    /// The kernel or the interface's driver refuses it, or there is a program already.
    pub(crate) fn attach_sink(&self) -> anyhow::Result<Sink> {
        let sources = self.sources();
        let (v4, v6) = if sources.is_ipv4() {
            (sources, Prefix::SOURCES_V6)
        } else {
            (Prefix::SOURCES_V4, sources)
        };
        Sink::attach(&self.interface, v4, v6)
    }

    /// Has the Ethernet address of the way to the target resolved unless it was given.
    ///
    /// # Errors
    ///
    /// The plan is not allowed, or nobody answers for the target.
    pub fn resolve(&mut self) -> anyhow::Result<[u8; 6]> {
        self.check()?;
        let mac = match self.target_mac {
            Some(mac) => mac,
            None => {
                // A wrong name is told by what it is, and not by what cannot be sent on it.
                Interface::find(&self.interface)?;
                neighbour::resolve(&self.interface, self.target.ip())?
            }
        };
        self.target_mac = Some(mac);
        Ok(mac)
    }

    /// The settings of the XDP program for this plan.
    pub(crate) fn settings(&self, interface: &Interface, target_mac: [u8; 6]) -> Flood {
        let (source, source_mask) = self.sources().words();
        let (target, target_mask) = match self.targets {
            Some(targets) => targets.words(),
            None => (ranges::words(self.target.ip()), [u32::MAX; 4]),
        };
        Flood {
            source,
            source_mask,
            target,
            target_mask,
            interface: interface.index,
            version: if self.target.is_ipv4() { 4 } else { 6 },
            kind: self.kind.number().unwrap_or(u32::MAX),
            target_port: self.target.port(),
            target_mac,
            source_mac: interface.mac,
            reserved: 0,
        }
    }
}

/// Whether `text` can be the path of a request.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= MAX_PATH && text.bytes().all(|octet| octet.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn plan() -> Plan {
        Plan {
            target_mac: Some([2, 0, 0, 0, 0, 1]),
            duration: MAX_DURATION,
            ..Plan::new("tgc0", "198.18.0.1:80".parse().unwrap(), Kind::Syn)
        }
    }

    #[test]
    fn what_is_allowed_is_allowed() {
        plan().check().unwrap();
        assert_eq!(plan().sources(), Prefix::SOURCES_V4);
        assert_eq!(plan().resolve().unwrap(), [2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn what_is_not_allowed_is_refused_whoever_asks() {
        let refused = |change: fn(&mut Plan)| {
            let mut plan = plan();
            change(&mut plan);
            let error = plan.resolve().unwrap_err();
            assert!(error.is::<UsageError>(), "{error}");
            error.to_string()
        };
        assert!(refused(|plan| plan.target = "10.0.0.1:80".parse().unwrap()).contains("only made within"));
        assert!(refused(|plan| plan.target = "198.18.0.1:0".parse().unwrap()).contains("no port"));
        assert!(refused(|plan| plan.sources = Some(Prefix::SOURCES_V6)).contains("the sources"));
        assert!(refused(|plan| plan.targets = Some(Prefix::SOURCES_V6)).contains("the targets"));
        assert!(refused(|plan| plan.duration = MAX_DURATION + Duration::from_millis(1)).contains("at most 600 s"));
        assert!(refused(|plan| plan.duration = Duration::ZERO).contains("more than nothing"));
        let refused = |change: fn(&mut Plan)| {
            let mut plan = Plan {
                kind: Kind::SlowRead,
                ..plan()
            };
            plan.check().unwrap();
            change(&mut plan);
            plan.resolve().unwrap_err().to_string()
        };
        assert!(refused(|plan| plan.target = "10.0.0.1:80".parse().unwrap()).contains("only made within"));
        assert!(refused(|plan| plan.targets = "198.18.1.0/24".parse().ok()).contains("one target"));
        assert!(refused(|plan| plan.maker = Maker::LiveFrames).contains("kernel's maker"));
        for connections in [0, MAX_CONNECTIONS + 1] {
            let plan = Plan {
                kind: Kind::Idle,
                connections,
                ..plan()
            };
            assert!(plan.check().unwrap_err().0.contains("must be 1 to 4000000"));
        }
        for path in ["", "file", "/a b", "/a\r\nb"] {
            let plan = Plan {
                kind: Kind::SlowRead,
                path: path.to_owned(),
                ..plan()
            };
            assert!(plan.check().unwrap_err().0.contains("not a path"), "{path:?}");
        }
    }

    #[test]
    fn no_kind_has_a_target_outside_of_the_ranges() {
        for &kind in Kind::value_variants() {
            for target in ["192.0.2.1:80", "198.20.0.1:80", "[2001:db8::1]:80", "[2001:2:1::1]:80"] {
                let plan = Plan::new("tgc0", target.parse().unwrap(), kind);
                let error = plan.check().unwrap_err();
                assert!(error.0.contains("only made within"), "{}: {error}", kind.name());
            }
            let inside = Plan::new("tgc0", "198.18.0.1:80".parse().unwrap(), kind);
            inside.check().unwrap();
        }
    }

    #[test]
    fn settings_are_those_of_the_plan() {
        let interface = Interface {
            index: 7,
            mac: [2, 0, 0, 0, 0, 2],
        };
        let settings = plan().settings(&interface, [2, 0, 0, 0, 0, 1]);
        assert_eq!((settings.interface, settings.version, settings.target_port), (7, 4, 80));
        assert_eq!(settings.target, [0xc612_0001, 0, 0, 0]);
        assert_eq!(settings.target_mask[0], u32::MAX);
        assert_eq!(settings.source_mask, [0xffff_0000, 0, 0, 0]);
        assert_eq!((settings.target_mac[5], settings.source_mac[5]), (1, 2));
        let carpet = Plan {
            targets: "198.18.1.0/24".parse().ok(),
            ..plan()
        };
        let settings = carpet.settings(&interface, [2, 0, 0, 0, 0, 1]);
        assert_eq!(
            (settings.target[0], settings.target_mask[0]),
            (0xc612_0100, 0xffff_ff00)
        );
    }

    #[test]
    fn kinds_are_called_what_the_command_line_calls_them() {
        for kind in Kind::value_variants() {
            let value = kind.to_possible_value().unwrap();
            assert_eq!(value.get_name(), kind.name());
        }
    }
}
