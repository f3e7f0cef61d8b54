//! Received frames, and how any shard reads them.

use xsk_rs::{FrameDesc, Umem};

use crate::frame::Frame;
use crate::port::Port;

/// A received frame with the place of its contents. Whoever has it, and nobody else, may read them.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) frame: Frame,
    /// As the kernel gave it.
    pub(super) descriptor: FrameDesc,
    /// The shard whose UMEM it is in.
    pub(super) owner: u16,
}

/// All shards' UMEMs, for reading.
///
/// A segment that was handed over is read where it lies; only its token travels.
pub(crate) struct Umems(Box<[Umem]>);

impl Umems {
    /// The UMEMs of `ports`, which are in the order of their shards.
    pub(crate) fn of(ports: &[Port]) -> Self {
        Self(ports.iter().map(|port| port.umem.clone()).collect())
    }

    /// The contents of a segment, Ethernet header first.
    #[inline]
    pub(crate) fn bytes<'a>(&'a self, segment: &'a Segment) -> &'a [u8] {
        let umem = &self.0[usize::from(segment.owner)];
        // SAFETY: segments are only made by `Port::receive`, from descriptors the kernel gave for frames of the UMEM
        // `owner`. The segment has the only token of its frame, so neither the kernel nor another thread writes to it
        // while the segment exists, and the result borrows the segment. Between threads segments go through queues,
        // which order the kernel's and the owner's writes before the reads here.
        unsafe { umem.data(&segment.descriptor) }.contents()
    }
}
