//! The properties of one direction of a link.

use core::num::NonZeroU64;
use core::time::Duration;

use crate::chance::Chance;

/// Losses that come in bursts (Gilbert and Elliott): the link is good or bad for some time, and loses much while bad.
/// The times are real ones, not counted in packets, so that a burst also ends when nobody sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts {
    /// The longest good time.
    pub good: Duration,
    /// The longest bad time.
    pub bad: Duration,
    /// Frames lost in bad times.
    pub loss: Chance,
}

/// A bottleneck: a bounded queue that drops at its tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits per second, counted from the Ethernet header to the end of the payload.
    pub bits_per_second: NonZeroU64,
    /// The room of the queue.
    pub room: Room,
    /// The unit that the time of a frame on the wire is rounded up to.
    pub granularity: Duration,
}

/// The room of a queue. A frame that finds less is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Bytes, those of the frame on the wire included.
    Bytes(u64),
    /// Frames, the one on the wire included.
    Frames(usize),
}

/// The fate of frames that are picked for reordering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reordering {
    /// They are held back up to this time, so that later ones overtake them.
    HoldBack(Duration),
    /// They skip the delay, and so overtake those sent before them.
    SkipDelay,
}

/// Damage to frames. Their Ethernet header has none, since damage on a wire meets its frame check sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damage {
    /// One bit flips, anywhere behind the Ethernet header.
    #[default]
    OneBit,
    /// One bit or a burst of up to 15 flips, where the checksums of IP or TCP notice it for certain.
    Noticed,
}

/// The treatment of frames by a direction. The default does nothing to them and takes no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impairment {
    /// Frames lost, each by itself.
    pub loss: Chance,
    /// Frames lost in bursts.
    pub bursts: Option<Bursts>,
    /// Frames delivered twice.
    pub duplicate: Chance,
    /// Frames damaged.
    pub corrupt: Chance,
    /// The damage.
    pub damage: Damage,
    /// A bottleneck.
    pub rate: Option<Rate>,
    /// The one-way delay.
    pub delay: Duration,
    /// The longest random further delay, in whole microseconds; frames stay in order.
    pub jitter: Duration,
    /// Frames that change their place.
    pub reorder: Chance,
    /// Their way of changing it.
    pub reordering: Reordering,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            loss: Chance::NEVER,
            bursts: None,
            duplicate: Chance::NEVER,
            corrupt: Chance::NEVER,
            damage: Damage::OneBit,
            rate: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: Chance::NEVER,
            reordering: Reordering::SkipDelay,
        }
    }
}
