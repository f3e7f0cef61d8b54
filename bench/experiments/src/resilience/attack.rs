//! The attacks that a server has to stand.

use clap::ValueEnum;
use tidegate_flood::Kind;

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
    /// All of the others and UDP datagrams, evenly
    Mix,
}

impl Attack {
    /// Returns the name on the command line and in the results.
    pub(super) fn name(self) -> &'static str {
        self.kind().name()
    }

    /// Returns the kind of the generator's packets.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Syn => Kind::Syn,
            Self::Ack => Kind::Ack,
            Self::Rst => Kind::Rst,
            Self::Fin => Kind::Fin,
            Self::SynAck => Kind::SynAck,
            Self::Mix => Kind::Mix,
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
}
