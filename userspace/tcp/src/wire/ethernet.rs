//! Ethernet II headers with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const TPID_8021Q: u16 = 0x8100;
const TPID_8021AD: u16 = 0x88a8;

/// Length of a link header without tags.
pub(crate) const UNTAGGED: usize = 14;

/// Longest link header: two addresses, two tags, the ethertype.
pub const MAX_LINK_HEADER: usize = 22;

/// A received frame, which starts at its Ethernet header. Bytes alone are one of device 0.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its contents.
    pub bytes: &'a [u8],
    /// The number of the device it was received from.
    pub device: u8,
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Frame<'a> {
    #[inline]
    fn from(bytes: &'a T) -> Self {
        Self {
            bytes: bytes.as_ref(),
            device: 0,
        }
    }
}

/// An Ethernet header ready to be sent, destination, source, tags and ethertype, and the device it is to leave by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkHeader {
    bytes: [u8; MAX_LINK_HEADER],
    length: u8,
    device: u8,
}

impl LinkHeader {
    /// An untagged header on device 0; `ipv4` chooses the ethertype.
    #[inline]
    pub fn new(destination: [u8; 6], source: [u8; 6], ipv4: bool) -> Self {
        let mut bytes = [0; MAX_LINK_HEADER];
        bytes[..6].copy_from_slice(&destination);
        bytes[6..12].copy_from_slice(&source);
        let ethertype = if ipv4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        Self {
            bytes,
            length: UNTAGGED as u8,
            device: 0,
        }
    }

    /// The same header on another device.
    #[inline]
    #[must_use]
    pub fn on_device(self, device: u8) -> Self {
        Self { device, ..self }
    }

    /// The number of the device it is to leave by.
    #[inline]
    pub fn device(&self) -> u8 {
        self.device
    }

    /// The header's bytes: 14, 18 or 22 of them.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Its bytes if it has no tags.
    #[inline]
    pub(super) fn untagged(&self) -> Option<&[u8; UNTAGGED]> {
        self.bytes
            .first_chunk()
            .filter(|_| usize::from(self.length) == UNTAGGED)
    }

    /// Writes the header to the front of `buffer` and returns what comes after it.
    #[inline]
    pub(crate) fn write<'a>(&self, buffer: &'a mut [u8]) -> &'a mut [u8] {
        let (header, rest) = buffer.split_at_mut(usize::from(self.length));
        header.copy_from_slice(self.as_bytes());
        rest
    }
}

impl core::fmt::Debug for LinkHeader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "LinkHeader({:02x?} on device {})", self.as_bytes(), self.device)
    }
}

/// The Ethernet header of a received frame, with its tags: 14, 18 or 22 bytes; and the device it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedLink<'a> {
    bytes: &'a [u8],
    /// Device 0 until somebody who knows says otherwise: it is not in the frame.
    pub(crate) device: u8,
}

impl<'a> ReceivedLink<'a> {
    /// The first 14 bytes of an untagged frame.
    #[inline]
    pub(super) fn untagged(header: &'a [u8; UNTAGGED]) -> Self {
        Self {
            bytes: header,
            device: 0,
        }
    }

    /// The header that answers: addresses swapped, tags kept, by the same device.
    #[inline]
    pub fn reply(self) -> LinkHeader {
        let mut bytes = [0; MAX_LINK_HEADER];
        bytes[..6].copy_from_slice(&self.bytes[6..12]);
        bytes[6..12].copy_from_slice(&self.bytes[..6]);
        bytes[12..self.bytes.len()].copy_from_slice(&self.bytes[12..]);
        LinkHeader {
            bytes,
            length: self.bytes.len() as u8,
            device: self.device,
        }
    }

    /// Whether `header` is [`ReceivedLink::reply`].
    #[inline]
    pub(crate) fn is_answered_by(self, header: &LinkHeader) -> bool {
        let (Some(received), Some(reply)) = (self.bytes.first_chunk(), header.bytes.first_chunk()) else {
            return false;
        };
        usize::from(header.length) == self.bytes.len()
            && header.device == self.device
            && is_swapped(received, reply)
            && (self.bytes.len() == UNTAGGED || header.as_bytes()[UNTAGGED..] == self.bytes[UNTAGGED..])
    }
}

/// Whether one untagged header is the other with its addresses swapped.
#[inline]
fn is_swapped(one: &[u8; UNTAGGED], other: &[u8; UNTAGGED]) -> bool {
    // The first address and a part of the second; the second address and the ethertype.
    let first = |header: &[u8; UNTAGGED]| header.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let last = |header: &[u8; UNTAGGED]| header.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let addresses = (first(one) ^ last(other)) | (first(other) ^ last(one));
    (addresses << 16) | (last(one) ^ last(other)) >> 48 == 0
}

/// Splits a frame into its Ethernet header, its ethertype and what follows.
/// `None`: too short, more than two tags, or a group address as destination or source.
#[inline]
pub fn parse(frame: &[u8]) -> Option<(ReceivedLink<'_>, u16, &[u8])> {
    let mut length = UNTAGGED;
    loop {
        let ethertype = frame.get(length - 2..length)?;
        let ethertype = u16::from_be_bytes([ethertype[0], ethertype[1]]);
        if ethertype == TPID_8021Q || ethertype == TPID_8021AD {
            length += 4;
            if length > MAX_LINK_HEADER {
                return None;
            }
            continue;
        }
        if (frame[0] | frame[6]) & 1 != 0 {
            return None;
        }
        let (header, rest) = frame.split_at(length);
        let link = ReceivedLink {
            bytes: header,
            device: 0,
        };
        return Some((link, ethertype, rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_kept_and_addresses_swapped() {
        let mut frame = vec![
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 8, 0, 0x45,
        ];
        let (received, ethertype, rest) = parse(&frame).unwrap();
        assert_eq!(ethertype, ETHERTYPE_IPV4);
        assert_eq!(rest, [0x45]);
        let link = received.reply();
        assert!(received.is_answered_by(&link));
        for changed in 0..22 {
            let mut other = frame.clone();
            other[changed] ^= 1;
            let other = ReceivedLink {
                bytes: &other[..22],
                device: 0,
            };
            assert!(!other.is_answered_by(&link), "{changed}");
        }
        let shorter = ReceivedLink {
            bytes: &frame[..18],
            device: 0,
        };
        assert!(!shorter.is_answered_by(&link));
        let elsewhere = ReceivedLink { device: 1, ..received };
        assert!(!elsewhere.is_answered_by(&link), "another device");
        assert_eq!(elsewhere.reply(), link.on_device(1));
        assert_eq!(link.as_bytes()[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        assert_eq!(link.as_bytes()[12..], frame[12..22]);

        frame.splice(20..20, [0x81, 0, 0, 9]);
        assert!(parse(&frame).is_none(), "a third tag");
    }

    #[test]
    fn short_frames_and_group_addresses_are_refused() {
        let frame = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        assert!(parse(&frame).is_some());
        for length in 0..frame.len() {
            assert!(parse(&frame[..length]).is_none());
        }
        let mut group = frame;
        group[0] = 0xff;
        assert!(parse(&group).is_none());
    }
}
