//! The Internet checksum (RFC 1071).

use super::address::{Address, is_v4};

const PROTOCOL_TCP: u32 = 6;
const PROTOCOL_ICMPV6: u32 = 58;

/// One's complement sum of `data`, not folded. An odd last byte counts as if a zero followed.
///
/// The sum is over 32-bit words in memory order: one's complement addition does not care which, as long as the
/// result is stored in memory order too (RFC 1071, section 2, B).
#[inline]
fn sum(data: &[u8]) -> u64 {
    let mut total = 0_u64;
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        total += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_ne_bytes(last))
}

#[inline]
fn fold(mut total: u64) -> u16 {
    total = (total & 0xffff_ffff) + (total >> 32);
    total = (total & 0xffff_ffff) + (total >> 32);
    let mut total = total as u32;
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    total as u16
}

/// Checksum of an IPv4 header, in memory order: zero when the header holds the right one.
#[inline]
pub fn ipv4_header(header: &[u8]) -> [u8; 2] {
    (!fold(sum(header))).to_ne_bytes()
}

/// Checksum over pseudo-header and segment, as a number that is zero when the segment holds the right one
/// (RFC 9293, section 3.1; RFC 8200, section 8.1).
#[inline]
pub fn tcp(source: &Address, destination: &Address, segment: &[u8]) -> u16 {
    // The v4-mapped prefix of an IPv4 address (ff:ff) adds nothing in one's complement, but the shorter sum is cheaper.
    let addresses = if is_v4(source) {
        sum(&source[12..]) + sum(&destination[12..])
    } else {
        sum(source) + sum(destination)
    };
    let pseudo = sum(&PROTOCOL_TCP.to_be_bytes()) + sum(&(segment.len() as u32).to_be_bytes());
    !fold(addresses + pseudo + sum(segment))
}

/// Checksum over an ICMPv4 message, as a number that is zero when the message holds the right one (RFC 792).
pub fn icmp_v4(message: &[u8]) -> u16 {
    !fold(sum(message))
}

/// Checksum over pseudo-header and ICMPv6 message, as a number that is zero when the message holds the right one
/// (RFC 4443, section 2.3).
pub fn icmp_v6(source: &Address, destination: &Address, message: &[u8]) -> u16 {
    let pseudo = sum(&PROTOCOL_ICMPV6.to_be_bytes()) + sum(&(message.len() as u32).to_be_bytes());
    !fold(sum(source) + sum(destination) + pseudo + sum(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::address::from_v4;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn reference(data: &[u8]) -> u16 {
        let mut total = 0_u32;
        for pair in data.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        !(total as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(ipv4_header(&data), (!0xddf2_u16).to_be_bytes());
    }

    #[test]
    fn a_segment_with_its_checksum_sums_to_zero() {
        let (a, b) = (from_v4([198, 18, 0, 1]), from_v4([198, 18, 0, 2]));
        let mut segment = [7_u8; 33];
        segment[16..18].fill(0);
        let value = tcp(&a, &b, &segment);
        segment[16..18].copy_from_slice(&value.to_ne_bytes());
        assert_eq!(tcp(&a, &b, &segment), 0);
        segment[30] ^= 1;
        assert_ne!(tcp(&a, &b, &segment), 0);
    }

    #[test]
    fn an_icmp_message_with_its_checksum_sums_to_zero() {
        let (a, b) = ([0x20; 16], [0x21; 16]);
        let mut message = [9_u8; 29];
        message[2..4].fill(0);
        let value = icmp_v4(&message);
        assert_eq!(value.to_ne_bytes(), reference(&message).to_be_bytes());
        message[2..4].copy_from_slice(&value.to_ne_bytes());
        assert_eq!(icmp_v4(&message), 0);
        assert_ne!(icmp_v6(&a, &b, &message), 0);

        message[2..4].fill(0);
        let value = icmp_v6(&a, &b, &message);
        let pseudo = [&a[..], &b, &[0, 0, 0, 29, 0, 0, 0, 58], &message].concat();
        assert_eq!(value.to_ne_bytes(), reference(&pseudo).to_be_bytes());
        message[2..4].copy_from_slice(&value.to_ne_bytes());
        assert_eq!(icmp_v6(&a, &b, &message), 0);
        assert_ne!(icmp_v6(&b, &[0x22; 16], &message), 0);
        message[28] ^= 1;
        assert_ne!(icmp_v6(&a, &b, &message), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(ipv4_header(&data), reference(&data).to_be_bytes());
        }
    }
}
