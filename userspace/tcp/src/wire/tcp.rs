//! The TCP header (RFC 9293, section 3.1).

use crate::seq::SeqNumber;

/// Length of the header without options.
pub const TCP_HEADER: usize = 20;

/// Control bits of the TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push function.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x20);
    /// ECN-Echo (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Whether all bits of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl core::ops::BitOr for Flags {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl core::ops::BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

pub(super) struct Header<'a> {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) seq: SeqNumber,
    pub(super) ack: SeqNumber,
    pub(super) flags: Flags,
    pub(super) window: u16,
    pub(super) options: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// Reads the header of a segment; `None` when the segment is shorter than its header or the header than 20 bytes.
#[inline]
pub(super) fn parse(segment: &[u8]) -> Option<Header<'_>> {
    let fixed: &[u8; TCP_HEADER] = segment.first_chunk()?;
    let header_length = usize::from(fixed[12] >> 4) * 4;
    if header_length < TCP_HEADER || header_length > segment.len() {
        return None;
    }
    let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    Some(Header {
        source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
        destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
        seq: SeqNumber(word(4)),
        ack: SeqNumber(word(8)),
        flags: Flags(fixed[13]),
        window: u16::from_be_bytes([fixed[14], fixed[15]]),
        options: &segment[TCP_HEADER..header_length],
        payload: &segment[header_length..],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_offset_is_checked_against_both_ends() {
        let mut segment = [0; 24];
        segment[12] = 6 << 4;
        assert!(parse(&segment).is_some_and(|header| header.options.len() == 4 && header.payload.is_empty()));
        segment[12] = 7 << 4;
        assert!(parse(&segment).is_none());
        segment[12] = 4 << 4;
        assert!(parse(&segment).is_none());
        assert!(parse(&segment[..19]).is_none());
    }
}
