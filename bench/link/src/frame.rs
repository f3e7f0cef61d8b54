//! Frames, the buffers they are in, and which of them keep a link usable.

use tidegate_impair::ETHERNET_HEADER;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q and 802.1ad.
const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];
const ICMPV6: u8 = 58;
/// Router solicitation to redirect (RFC 4861, section 4).
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// The octets a frame may have beyond the MTU: the Ethernet header and two 802.1Q tags.
pub(crate) const BEYOND_MTU: usize = ETHERNET_HEADER + 2 * TAG;

/// Bytes of an 802.1Q tag.
const TAG: usize = 4;

/// The part of a buffer before what the kernel writes: room for the tag it took out, and for [`Frame::push_vlan`].
const HEADROOM: usize = 2 * TAG;

/// The type of tags that are put in.
const VLAN: u16 = ETHERTYPES_VLAN[0];

/// An 802.1Q tag that the kernel took out of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Tag protocol identifier.
    pub(crate) tpid: u16,
    /// Tag control information: priority and VLAN.
    pub(crate) tci: u16,
}

/// The kernel's account of a frame it handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes of the frame, also of those for which the buffer had no room.
    pub(crate) length: usize,
    /// The outermost tag, which is not among the bytes.
    pub(crate) tag: Option<Tag>,
    /// The transport checksum is left for a device to fill in.
    pub(crate) checksum_missing: bool,
}

/// A frame in its buffer. The tag that the kernel takes out has its place before the rest, as has one more.
#[derive(Debug)]
pub(crate) struct Frame {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes on the wire, as far as is known.
    pub(crate) length: usize,
    /// The transport checksum was left for a device to fill in.
    pub(crate) checksum_missing: bool,
}

impl Frame {
    fn new(longest: usize) -> Self {
        Self {
            buffer: vec![0; HEADROOM + longest].into_boxed_slice(),
            start: HEADROOM,
            end: HEADROOM,
            length: 0,
            checksum_missing: false,
        }
    }

    /// Where the kernel may write.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[HEADROOM..]
    }

    /// Takes note of what the kernel wrote into [`Frame::room`], and puts the tag back into its place.
    pub(crate) fn set_received(&mut self, received: Received) {
        self.start = HEADROOM;
        self.end = self.buffer.len().min(HEADROOM + received.length);
        self.length = received.length;
        self.checksum_missing = received.checksum_missing;
        if let Some(tag) = received.tag
            && received.length >= ETHERNET_HEADER
        {
            self.push(tag);
        }
    }

    /// Puts the tag of VLAN `id` in, before any other.
    pub(crate) fn push_vlan(&mut self, id: u16) {
        if self.bytes().len() >= ETHERNET_HEADER {
            self.push(Tag { tpid: VLAN, tci: id });
        }
    }

    /// Takes the first tag out, if it is that of VLAN `id`, and returns whether it was.
    pub(crate) fn pop_vlan(&mut self, id: u16) -> bool {
        let tag = self.bytes().get(12..ETHERNET_HEADER + TAG);
        // The priority, in the four bits before the number, may be any.
        let is_it = tag
            .is_some_and(|tag| tag[..2] == VLAN.to_be_bytes() && tag[2] & 0xf == (id >> 8) as u8 && tag[3] == id as u8);
        if is_it {
            self.buffer.copy_within(self.start..self.start + 12, self.start + TAG);
            self.start += TAG;
            self.length -= TAG;
        }
        is_it
    }

    /// Puts a tag in behind the two addresses.
    fn push(&mut self, tag: Tag) {
        self.buffer.copy_within(self.start..self.start + 12, self.start - TAG);
        self.start -= TAG;
        let at = self.start + 12;
        self.buffer[at..at + 2].copy_from_slice(&tag.tpid.to_be_bytes());
        self.buffer[at + 2..at + TAG].copy_from_slice(&tag.tci.to_be_bytes());
        self.length += TAG;
    }

    /// The frame, from the destination address on.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The frame, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }
}

/// Buffers to use again.
#[derive(Debug)]
pub(crate) struct Pool {
    longest: usize,
    free: Vec<Frame>,
}

impl Pool {
    /// A pool of buffers for frames of at most `longest` bytes.
    pub(crate) fn new(longest: usize) -> Self {
        Self {
            longest,
            free: Vec::new(),
        }
    }

    /// A buffer with any content.
    pub(crate) fn take(&mut self) -> Frame {
        self.free.pop().unwrap_or_else(|| Frame::new(self.longest))
    }

    /// A copy of `frame`.
    pub(crate) fn copy(&mut self, frame: &Frame) -> Frame {
        let mut copy = self.take();
        copy.buffer[frame.start..frame.end].copy_from_slice(frame.bytes());
        copy.start = frame.start;
        copy.end = frame.end;
        copy.length = frame.length;
        copy.checksum_missing = frame.checksum_missing;
        copy
    }

    /// Takes a buffer back.
    pub(crate) fn give(&mut self, frame: Frame) {
        self.free.push(frame);
    }
}

/// Whether a frame may be impaired and the link still be usable: it is unicast, and neither ARP nor neighbour
/// discovery.
pub(crate) fn may_be_impaired(frame: &[u8]) -> bool {
    let multicast = frame.first().is_none_or(|first| first & 1 != 0);
    !multicast && !resolves_addresses(frame)
}

fn resolves_addresses(frame: &[u8]) -> bool {
    let mut at = 12;
    loop {
        let Some(&[high, low]) = frame.get(at..at + 2) else {
            return false;
        };
        match u16::from_be_bytes([high, low]) {
            ETHERTYPE_ARP => return true,
            ETHERTYPE_IPV6 => {
                // Next header is byte 6 of the header; the type is the first byte behind its 40.
                let ip = at + 2;
                return frame.get(ip + 6) == Some(&ICMPV6)
                    && frame
                        .get(ip + 40)
                        .is_some_and(|kind| NEIGHBOUR_DISCOVERY.contains(kind));
            }
            ethertype if ETHERTYPES_VLAN.contains(&ethertype) => at += TAG,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn frame(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = ADDRESSES.to_vec();
        bytes.extend(parts.concat());
        bytes
    }

    fn ipv6(next_header: u8, first: u8) -> Vec<u8> {
        let mut header = vec![0x86, 0xdd, 0x60];
        header.resize(2 + 40, 0);
        header[2 + 6] = next_header;
        header.push(first);
        header
    }

    fn received(pool: &mut Pool, bytes: &[u8], tag: Option<Tag>) -> Frame {
        let mut frame = pool.take();
        frame.room()[..bytes.len()].copy_from_slice(bytes);
        frame.set_received(Received {
            length: bytes.len(),
            tag,
            checksum_missing: false,
        });
        frame
    }

    #[test]
    fn only_unicast_that_resolves_no_address_is_impaired() {
        assert!(may_be_impaired(&frame(&[&[8, 0, 0x45]])));
        assert!(may_be_impaired(&frame(&[&ipv6(6, 135)])));
        assert!(may_be_impaired(&frame(&[&ipv6(ICMPV6, 128)])), "an echo request");
        assert!(!may_be_impaired(&frame(&[&ipv6(ICMPV6, 135)])));
        assert!(!may_be_impaired(&frame(&[&[8, 6]])));
        assert!(!may_be_impaired(&frame(&[&[0x81, 0, 0, 7, 8, 6]])));
        assert!(!may_be_impaired(&frame(&[
            &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8],
            &ipv6(ICMPV6, 136)
        ])));
        let mut multicast = frame(&[&[8, 0, 0x45]]);
        multicast[0] = 0x33;
        assert!(!may_be_impaired(&multicast));
    }

    #[test]
    fn frames_cut_short_are_no_special_case() {
        let whole = frame(&[&[0x81, 0, 0, 7], &ipv6(ICMPV6, 135)]);
        for length in 0..whole.len() {
            let _ = may_be_impaired(&whole[..length]);
        }
        assert!(!may_be_impaired(&[]));
    }

    #[test]
    fn a_tag_is_put_back() {
        let mut pool = Pool::new(64);
        let bytes = frame(&[&[8, 0, 0x45, 1, 2, 3]]);
        assert_eq!(received(&mut pool, &bytes, None).bytes(), bytes);
        let tag = Tag { tpid: 0x8100, tci: 7 };
        let tagged = received(&mut pool, &bytes, Some(tag));
        assert_eq!(tagged.bytes(), frame(&[&[0x81, 0, 0, 7], &[8, 0, 0x45, 1, 2, 3]]));
        assert_eq!(tagged.length, bytes.len() + TAG);
    }

    #[test]
    fn the_tag_of_a_vlan_is_put_in_before_others_and_taken_out() {
        let mut pool = Pool::new(64);
        let rest: &[u8] = &[8, 0, 0x45, 1, 2, 3];
        for (tag, inner) in [
            (None, &[][..]),
            (Some(Tag { tpid: 0x8100, tci: 7 }), &[0x81, 0, 0, 7][..]),
        ] {
            let mut received = received(&mut pool, &frame(&[rest]), tag);
            let length = received.length;
            received.push_vlan(0x123);
            assert_eq!(received.bytes(), frame(&[&[0x81, 0, 1, 0x23], inner, rest]));
            assert_eq!(received.length, length + TAG);
            assert!(!received.pop_vlan(0x23) && !received.pop_vlan(0x124));
            assert!(received.pop_vlan(0x123));
            assert_eq!(received.bytes(), frame(&[inner, rest]));
            assert_eq!(received.length, length);
            assert!(!received.pop_vlan(0x123), "another tag, or none");
        }
        // With a priority, and a frame cut short.
        let mut urgent = received(
            &mut pool,
            &frame(&[rest]),
            Some(Tag {
                tpid: 0x8100,
                tci: 0xe123,
            }),
        );
        assert!(urgent.pop_vlan(0x123));
        assert_eq!(urgent.bytes(), frame(&[rest]));
        let mut short = received(&mut pool, &ADDRESSES, None);
        short.push_vlan(7);
        assert!(!short.pop_vlan(7));
        assert_eq!(short.bytes(), ADDRESSES);
    }

    #[test]
    fn a_buffer_keeps_nothing_of_its_last_frame() {
        let mut pool = Pool::new(64);
        let tagged = received(&mut pool, &frame(&[&[8, 0, 1]]), Some(Tag { tpid: 0x8100, tci: 7 }));
        let copy = pool.copy(&tagged);
        assert_eq!(copy.bytes(), tagged.bytes());
        assert_eq!(copy.length, tagged.length);
        pool.give(tagged);
        let bytes = frame(&[&[8, 0]]);
        assert_eq!(received(&mut pool, &bytes, None).bytes(), bytes);
    }

    #[test]
    fn a_frame_longer_than_its_buffer_is_known_to_be() {
        let mut pool = Pool::new(64);
        let mut frame = pool.take();
        frame.set_received(Received {
            length: 9000,
            ..Received::default()
        });
        assert_eq!(frame.bytes().len(), 64);
        assert_eq!(frame.length, 9000);
    }
}
