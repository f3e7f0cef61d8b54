//! The attacks that a server has to stand.

use clap::ValueEnum;
use tidegate_flood::{Kind, Prefix};
use tidegate_lab::Family;

/// Connections of an attack that keeps them.
const CONNECTIONS: u32 = 10_000;

/// The same if they are idle: as many as tidegate has places by default.
const IDLE_CONNECTIONS: u32 = 262_144;

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Attack {
    /// SYNs, with the options of common systems
    Syn,
    /// Bare ACKs of no connection
    Ack,
    /// RSTs of no connection
    Rst,
    /// FINs of no connection
    Fin,
    /// SYN-ACKs that answer nothing
    #[value(name = "synack")]
    SynAck,
    /// All kinds of packets, evenly
    Mix,
    /// SYNs with text
    SynData,
    /// Fragments of TCP segments
    Fragment,
    /// SYNs to all addresses of a prefix
    Carpet,
    /// Connections that are opened and abandoned
    Connect,
    /// 262,144 connections that say nothing
    Idle,
    /// 10,000 connections with a request head that has no end
    SlowHead,
    /// 10,000 connections that read a response slowly
    SlowRead,
    /// 10,000 connections that request something and have no room for it
    ZeroWindow,
    /// 10,000 connections that request something and have room for one octet, and for none, in turns
    ZeroOneWindow,
    /// 10,000 connections with a tiny MSS and SACK blocks that never agree
    TinyMss,
}

impl Attack {
    /// Returns the name on the command line and in the results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Carpet => "carpet",
            other => other.kind().name(),
        }
    }

    /// Returns the generator's kind.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Syn | Self::Carpet => Kind::Syn,
            Self::Ack => Kind::Ack,
            Self::Rst => Kind::Rst,
            Self::Fin => Kind::Fin,
            Self::SynAck => Kind::SynAck,
            Self::Mix => Kind::Mix,
            Self::SynData => Kind::SynData,
            Self::Fragment => Kind::Fragment,
            Self::Connect => Kind::Connect,
            Self::Idle => Kind::Idle,
            Self::SlowHead => Kind::SlowHead,
            Self::SlowRead => Kind::SlowRead,
            Self::ZeroWindow => Kind::ZeroWindow,
            Self::ZeroOneWindow => Kind::ZeroOneWindow,
            Self::TinyMss => Kind::TinyMss,
        }
    }

    /// Returns the prefix that destinations are drawn from, if they are.
    pub(super) fn targets(self, family: Family) -> Option<Prefix> {
        let prefix = match family {
            Family::V4 => Prefix::CARPET_V4,
            Family::V6 => Prefix::CARPET_V6,
        };
        (self == Self::Carpet).then_some(prefix)
    }

    /// Returns the number of connections that it keeps, if it does.
    pub(super) fn connections(self) -> u32 {
        match self {
            Self::Idle => IDLE_CONNECTIONS,
            _ => CONNECTIONS,
        }
    }

    /// Returns whether it needs connections, so that its rate is one of connections and not of packets.
    pub(super) fn needs_connections(self) -> bool {
        self.kind().needs_connections()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_are_called_what_the_command_line_calls_them() {
        for attack in Attack::value_variants() {
            assert_eq!(attack.to_possible_value().unwrap().get_name(), attack.name());
        }
    }

    #[test]
    fn only_a_carpet_has_many_targets() {
        for &attack in Attack::value_variants() {
            for family in Family::ALL {
                assert_eq!(attack.targets(family).is_some(), attack.name() == "carpet");
            }
        }
    }

    #[test]
    fn every_kind_of_the_generator_but_noise_is_an_attack() {
        for kind in Kind::value_variants() {
            let found = Attack::value_variants().iter().any(|attack| attack.kind() == *kind);
            assert_eq!(found, *kind != Kind::UdpNoise, "{}", kind.name());
        }
    }
}
