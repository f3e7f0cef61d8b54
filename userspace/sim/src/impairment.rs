//! The faults of one direction of a link.

use core::num::NonZeroU64;
use core::time::Duration;

use tidegate_impair::{Chance, Rate, Room};

use crate::middlebox::Middlebox;

/// Returns a bottleneck with a queue of `bytes` bytes. The simulation's clocks count microseconds.
pub(crate) fn bottleneck(bits_per_second: u64, bytes: u64) -> Rate {
    Rate {
        bits_per_second: NonZeroU64::new(bits_per_second).expect("a link that carries something"),
        room: Room::Bytes(bytes),
        granularity: Duration::from_micros(1),
    }
}

/// A change of the MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtuChange {
    /// When, from the start of the run.
    pub at: Duration,
    /// The MTU from then on, in bytes without the Ethernet header.
    pub mtu: u16,
}

/// A time during which the link is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The beginning, from the start of the run.
    pub from: Duration,
    /// The end.
    pub until: Duration,
}

/// The treatment of frames by a direction. The default does nothing to them and takes no time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// The faults of a bad link: loss, duplication, damage, a bottleneck, delay and reordering.
    pub link: tidegate_impair::Impairment,
    /// Marks ECN-capable packets once the queue of the bottleneck is half full.
    pub marks: bool,
    /// Frames changed in a way that no checksum notices; see [`crate::middlebox::tamper`].
    pub tamper: Chance,
    /// Changes of the MTU, in the order of time. Frames that are too long are dropped.
    pub mtu: Vec<MtuChange>,
    /// Whether a router answers frames that are too long. Otherwise the link is a black hole.
    pub too_big: bool,
    /// The times at which the link is down.
    pub outages: Vec<Outage>,
    /// The treatment of SYN segments.
    pub middlebox: Middlebox,
}
