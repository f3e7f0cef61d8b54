//! The plan of a flood: its packets, their target, its rate and duration.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_args::UsageError;
use tidegate_traffic_abi::{Flood, kind};

use crate::interface::Interface;
use crate::neighbour;
use crate::ranges::{self, Prefix};
use crate::rate::Rate;

/// The longest a flood goes on. There is no way around it.
pub const MAX_DURATION: Duration = Duration::from_secs(600);

/// The contents of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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
    /// Handshakes that are completed and abandoned
    #[value(skip)]
    Connect,
    /// Connections that are kept and say nothing
    #[value(skip)]
    Idle,
    /// Connections with an HTTP head that comes an octet at a time
    #[value(skip)]
    SlowHead,
    /// Connections that take a response a few octets at a time
    #[value(skip)]
    SlowRead,
    /// Connections that request and offer a window of zero
    #[value(skip)]
    ZeroWindow,
    /// Connections that request and offer windows of one octet and of zero in turns
    #[value(skip)]
    ZeroOneWindow,
    /// Connections with a tiny MSS and ever other SACK blocks while a response is outstanding
    #[value(skip)]
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
            _ => None,
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
    /// Their rate.
    pub rate: Rate,
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
        if self.kind.number().is_none() {
            return Err(UsageError(format!("floods of {} are not made yet", self.kind.name())));
        }
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
        if self.duration.is_zero() || self.duration > MAX_DURATION {
            return Err(UsageError(format!(
                "a flood goes on for more than nothing and at most {} s",
                MAX_DURATION.as_secs()
            )));
        }
        Ok(())
    }

    /// Has the target's Ethernet address resolved unless it was given. The process may start `ip` for it.
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
