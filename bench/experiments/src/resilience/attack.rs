//! The attacks that a server has to stand.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use tidegate_flood::{Kind, Prefix};
use tidegate_lab::Family;

/// Connections of an attack that keeps them.
const CONNECTIONS: u32 = 10_000;

/// The same if they are idle: as many as tidegate has places by default.
const IDLE_CONNECTIONS: u32 = 262_144;

/// An attack: a kind of the generator's packets or connections, to one address or to many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attack {
    is_carpet: bool,
    kind: Kind,
}

impl Attack {
    pub(super) const SYN: Self = Self::of(Kind::Syn);
    pub(super) const ACK: Self = Self::of(Kind::Ack);

    /// SYNs to all addresses of a prefix.
    const CARPET: Self = Self {
        is_carpet: true,
        kind: Kind::Syn,
    };

    /// All of them: UDP is nothing that a TCP server has to stand.
    const ALL: [Self; 16] = [
        Self::SYN,
        Self::ACK,
        Self::of(Kind::Rst),
        Self::of(Kind::Fin),
        Self::of(Kind::SynAck),
        Self::of(Kind::SynData),
        Self::of(Kind::Fragment),
        Self::of(Kind::Mix),
        Self::of(Kind::Connect),
        Self::of(Kind::Idle),
        Self::of(Kind::SlowHead),
        Self::of(Kind::SlowRead),
        Self::of(Kind::ZeroWindow),
        Self::of(Kind::ZeroOneWindow),
        Self::of(Kind::TinyMss),
        Self::CARPET,
    ];

    const fn of(kind: Kind) -> Self {
        Self { is_carpet: false, kind }
    }

    /// Returns the name on the command line and in the results.
    pub(super) fn name(self) -> &'static str {
        if self.is_carpet { "carpet" } else { self.kind.name() }
    }

    /// Returns the generator's kind.
    pub(super) fn kind(self) -> Kind {
        self.kind
    }

    /// Returns the prefix that destinations are drawn from, if they are.
    pub(super) fn targets(self, family: Family) -> Option<Prefix> {
        let prefix = match family {
            Family::V4 => Prefix::CARPET_V4,
            Family::V6 => Prefix::CARPET_V6,
        };
        self.is_carpet.then_some(prefix)
    }

    /// Returns the number of connections that it keeps, if it does.
    pub(super) fn connections(self) -> u32 {
        match self.kind {
            Kind::Idle => IDLE_CONNECTIONS,
            _ => CONNECTIONS,
        }
    }

    /// Returns whether it needs connections, so that its rate is one of connections and not of packets.
    pub(super) fn needs_connections(self) -> bool {
        self.kind.needs_connections()
    }
}

impl ValueEnum for Attack {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        if self.is_carpet {
            Some(PossibleValue::new(self.name()).help("SYNs to all addresses of a prefix"))
        } else {
            self.kind.to_possible_value()
        }
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
