//! Finding loss and repairing it.
//!
//! `scoreboard` remembers what is outstanding and what the peer has selectively acknowledged, `rack` and the SACK rules
//! of RFC 6675 decide what is lost, `prr` how fast it may be sent again, `rto` when to give up waiting, `frto` whether
//! that was too early. `delivery_rate` measures how fast the path delivers, for congestion control that goes by it.

pub(crate) mod delivery_rate;
pub(crate) mod frto;
pub(crate) mod prr;
pub(crate) mod rack;
pub mod rto;
pub(crate) mod scoreboard;

use core::fmt;
use core::str::FromStr;

/// The way loss is found before the retransmission timer runs out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum LossDetection {
    /// By time: RACK-TLP (RFC 8985). Falls back to counting duplicates where the peer does not do SACK.
    #[default]
    Rack,
    /// By counting what was selectively acknowledged above a segment (RFC 6675).
    Sack,
}

impl fmt::Display for LossDetection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rack => "rack",
            Self::Sack => "sack",
        })
    }
}

impl FromStr for LossDetection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rack" => Ok(Self::Rack),
            "sack" => Ok(Self::Sack),
            other => Err(format!("{other:?} is no way to detect loss; there are: rack, sack")),
        }
    }
}

/// The sender's dealing with loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Fast recovery: proportional rate reduction drives the congestion window.
    Recovery,
    /// After a retransmission timeout: slow start from one segment.
    Loss,
}
