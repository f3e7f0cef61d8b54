//! What can be wrong with one direction of a link.

use core::time::Duration;

use crate::middlebox::Middlebox;

/// Losses that come in bursts (Gilbert and Elliott): the link is good or bad for some time, and loses much while bad.
/// The times are real ones, not counted in packets, so that a burst also ends when nobody sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts {
    /// The longest good time.
    pub good: Duration,
    /// The longest bad time.
    pub bad: Duration,
    /// Frames lost in bad times, in a thousand.
    pub loss: u32,
}

/// A bottleneck: a bounded queue that drops at its tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits per second, above zero.
    pub bits_per_second: u64,
    /// Bytes that may wait.
    pub queue: u64,
    /// Marks ECN-capable packets once the queue is half full.
    pub marks: bool,
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
    /// When it begins, from the start of the run.
    pub from: Duration,
    /// When it ends.
    pub until: Duration,
}

/// What a direction does to frames. The default does nothing to them and takes no time. Chances are in a thousand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Frames lost, each by itself.
    pub loss: u32,
    /// Frames lost in bursts.
    pub bursts: Option<Bursts>,
    /// One-way delay.
    pub delay: Duration,
    /// Random further delay, at most; frames stay in order.
    pub jitter: Duration,
    /// Frames held back, so that later ones overtake them.
    pub reorder: u32,
    /// How long they are held back, at most.
    pub reorder_by: Duration,
    /// Frames delivered twice.
    pub duplicate: u32,
    /// Frames damaged, in a way that checksums notice for certain.
    pub corrupt: u32,
    /// Frames changed in a way that no checksum notices; see [`crate::middlebox::tamper`].
    pub tamper: u32,
    /// A bottleneck.
    pub rate: Option<Rate>,
    /// Changes of the MTU, in the order of time. Frames that are too long are dropped.
    pub mtu: Vec<MtuChange>,
    /// Whether a router answers frames that are too long. Otherwise the link is a black hole.
    pub too_big: bool,
    /// When the link is down.
    pub outages: Vec<Outage>,
    /// What happens to SYN segments.
    pub middlebox: Middlebox,
}
