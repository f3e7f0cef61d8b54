//! Packets of several frames (`XDP_USE_SG`, Linux 6.6): received ones are put together, so that each lies in one piece.

use crate::MAX_DEVICES;

/// The limits of packets of several frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiBuffer {
    /// Bytes of the longest packet of several frames, Ethernet header included. Longer ones are dropped.
    pub max_packet: usize,
    /// Packets of several frames that may be in somebody's hand at once, and so the number of buffers of `max_packet`
    /// bytes that are ever made. What is received beyond that is dropped.
    pub max_held: usize,
}

/// A received packet of several frames, in one piece.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
}

/// Why a packet of several frames was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It is longer than [`MultiBuffer::max_packet`].
    TooLong,
    /// As many as [`MultiBuffer::max_held`] are in somebody's hand.
    NoBuffer,
}

/// The contribution of a frame to a packet.
#[derive(Debug)]
pub(crate) enum Added {
    /// A part, and more of it follows.
    Part,
    /// The last part.
    Whole(Box<Packet>),
    /// The last part of one that is dropped.
    Lost(Loss),
}

/// Puts packets of several frames together.
#[derive(Debug)]
pub(crate) struct Assembler {
    limits: MultiBuffer,
    /// Buffers made so far.
    made: usize,
    #[expect(
        clippy::vec_box,
        reason = "it goes in and out as it is within a received frame, which is to be small"
    )]
    free: Vec<Box<Packet>>,
    /// By device: the packet whose last frame has not come yet. The kernel is not relied on to give all of them at
    /// once.
    under_way: [Option<Result<Box<Packet>, Loss>>; MAX_DEVICES],
}

impl Assembler {
    pub(crate) fn new(limits: MultiBuffer) -> Self {
        Self {
            limits,
            made: 0,
            free: Vec::new(),
            under_way: [const { None }; MAX_DEVICES],
        }
    }

    /// Whether the next frame from a device goes on with a packet.
    #[inline]
    pub(crate) fn is_under_way(&self, device: usize) -> bool {
        self.under_way[device].is_some()
    }

    /// Adds the contents of a frame from a device, of a packet that goes on in the next one if there is `more` of it.
    pub(crate) fn add(&mut self, device: usize, contents: &[u8], more: bool) -> Added {
        let begun = self.under_way[device].take().unwrap_or_else(|| self.begin());
        let packet = begun.and_then(|mut packet| {
            if packet.bytes.len() + contents.len() > self.limits.max_packet {
                self.recycle(packet);
                return Err(Loss::TooLong);
            }
            packet.bytes.extend_from_slice(contents);
            Ok(packet)
        });
        match packet {
            packet if more => {
                self.under_way[device] = Some(packet);
                Added::Part
            }
            Ok(packet) => Added::Whole(packet),
            Err(loss) => Added::Lost(loss),
        }
    }

    /// Takes back the buffer of a packet that has been dealt with.
    pub(crate) fn recycle(&mut self, mut packet: Box<Packet>) {
        packet.bytes.clear();
        self.free.push(packet);
    }

    fn begin(&mut self) -> Result<Box<Packet>, Loss> {
        if let Some(packet) = self.free.pop() {
            return Ok(packet);
        }
        if self.made == self.limits.max_held {
            return Err(Loss::NoBuffer);
        }
        self.made += 1;
        let bytes = Vec::with_capacity(self.limits.max_packet);
        Ok(Box::new(Packet { bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MultiBuffer = MultiBuffer {
        max_packet: 10,
        max_held: 2,
    };

    #[track_caller]
    fn whole(added: Added) -> Box<Packet> {
        match added {
            Added::Whole(packet) => packet,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn expect_lost(added: &Added, expected: Loss) {
        assert!(
            matches!(added, Added::Lost(loss) if *loss == expected),
            "{added:?} and not {expected:?}"
        );
    }

    #[test]
    fn frames_become_one_packet_in_their_order() {
        let mut assembler = Assembler::new(LIMITS);
        for _ in 0..3 {
            assert!(!assembler.is_under_way(0));
            assert!(matches!(assembler.add(0, b"abcd", true), Added::Part));
            assert!(assembler.is_under_way(0));
            assert!(matches!(assembler.add(0, b"efgh", true), Added::Part));
            let packet = whole(assembler.add(0, b"ij", false));
            assert_eq!(packet.bytes, b"abcdefghij");
            assembler.recycle(packet);
        }
        assert_eq!(assembler.made, 1, "a buffer that came back is used again");
    }

    #[test]
    fn packets_of_two_devices_are_kept_apart() {
        let mut assembler = Assembler::new(LIMITS);
        assert!(matches!(assembler.add(0, b"ab", true), Added::Part));
        assert!(!assembler.is_under_way(1));
        assert!(matches!(assembler.add(1, b"cd", true), Added::Part));
        assert_eq!(whole(assembler.add(0, b"ef", false)).bytes, b"abef");
        assert_eq!(whole(assembler.add(1, b"gh", false)).bytes, b"cdgh");
    }

    #[test]
    fn a_packet_that_is_too_long_is_dropped_to_its_end_and_the_next_is_whole() {
        let mut assembler = Assembler::new(LIMITS);
        assert!(matches!(assembler.add(0, b"abcdef", true), Added::Part));
        assert!(matches!(assembler.add(0, b"ghijk", true), Added::Part));
        // Short again, but of the same packet.
        assert!(matches!(assembler.add(0, b"l", true), Added::Part));
        expect_lost(&assembler.add(0, b"m", false), Loss::TooLong);
        assert!(matches!(assembler.add(0, b"nop", true), Added::Part));
        assert_eq!(whole(assembler.add(0, b"q", false)).bytes, b"nopq");
        assert_eq!(assembler.made, 1, "the buffer of the one that was dropped came back");
    }

    #[test]
    fn no_more_buffers_are_made_than_packets_may_be_held() {
        let mut assembler = Assembler::new(LIMITS);
        let mut next = || {
            assert!(matches!(assembler.add(0, b"a", true), Added::Part));
            assembler.add(0, b"b", false)
        };
        let held = [whole(next()), whole(next())];
        expect_lost(&next(), Loss::NoBuffer);
        for packet in held {
            assembler.recycle(packet);
        }
        assert!(matches!(assembler.add(0, b"c", true), Added::Part));
        assert_eq!(whole(assembler.add(0, b"d", false)).bytes, b"cd");
    }
}
