//! The Internet checksum (RFC 1071).

use super::address::{Address, is_v4, v4_octets};

const PROTOCOL_TCP: u32 = 6;
const PROTOCOL_ICMPV6: u32 = 58;

/// Bytes added up per step: two chains of additions, each of two words.
const STEP: usize = 32;

/// The sum of a text, for those who send the same one many times: it is in the checksum of every segment that carries
/// just this text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSum(pub(super) u64);

impl TextSum {
    /// The sum of `text`.
    #[inline]
    pub fn of(text: &[u8]) -> Self {
        Self(sum(text))
    }
}

/// One's complement sum of `data`, not folded: at most 2^35 for what fits a packet, so that sums can be added up. An
/// odd last byte counts as if a zero followed.
///
/// The sum is over words in memory order: one's complement addition does not care which, nor how long they are, as long
/// as the result is stored in memory order too (RFC 1071, section 2, B and C).
#[inline]
pub(super) fn sum(data: &[u8]) -> u64 {
    // The high half of 128 bits counts the carries out of the low one: an addition and an addition with carry for each
    // word, which no vector instructions of 128 bits are faster at.
    let word = |word: &[u8; 8]| u128::from(u64::from_ne_bytes(*word));
    let (mut even, mut odd) = (0_u128, 0_u128);
    let (steps, rest) = data.as_chunks::<STEP>();
    for step in steps {
        let (words, _) = step.as_chunks::<8>();
        even += word(&words[0]);
        odd += word(&words[1]);
        even += word(&words[2]);
        odd += word(&words[3]);
    }
    let (words, mut rest) = rest.as_chunks::<8>();
    for next in words {
        even += word(next);
    }
    if let Some((next, after)) = rest.split_first_chunk::<4>() {
        odd += u128::from(u32::from_ne_bytes(*next));
        rest = after;
    }
    if let Some((next, after)) = rest.split_first_chunk::<2>() {
        odd += u128::from(u16::from_ne_bytes(*next));
        rest = after;
    }
    if let &[last] = rest {
        odd += u128::from(u16::from_ne_bytes([last, 0]));
    }
    let total = even + odd;
    let low = total as u64;
    (low & 0xffff_ffff) + (low >> 32) + (total >> 64) as u64
}

/// [`sum`] of words that are at hand.
#[inline]
pub(super) fn sum_words<const N: usize>(words: [[u8; 4]; N]) -> u64 {
    words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()
}

/// The sum as it is: 0xffff when data that holds its own checksum is undamaged.
#[inline]
fn fold(total: u64) -> u16 {
    // Adding a number to itself with its halves exchanged leaves the sum of both, carry included, in the upper half.
    let total = (total.wrapping_add(total.rotate_right(32)) >> 32) as u32;
    (total.wrapping_add(total.rotate_right(16)) >> 16) as u16
}

/// The checksum of data with this sum, in memory order: zero when the data holds the right one.
#[inline]
pub(super) fn of_sum(total: u64) -> [u8; 2] {
    (!fold(total)).to_ne_bytes()
}

/// Checksum of an IPv4 header, in memory order: zero when the header holds the right one.
#[inline]
pub fn ipv4_header(header: &[u8]) -> [u8; 2] {
    of_sum(sum(header))
}

/// Sum of the pseudo-header of a segment of `length` bytes between IPv4 addresses (RFC 9293, section 3.1).
#[inline]
pub(super) fn pseudo_v4(source: [u8; 4], destination: [u8; 4], length: usize) -> u64 {
    sum_words([
        source,
        destination,
        PROTOCOL_TCP.to_be_bytes(),
        (length as u32).to_be_bytes(),
    ])
}

/// Sum of the pseudo-header of a segment of `length` bytes, whichever the family (RFC 8200, section 8.1).
#[inline]
pub(super) fn pseudo(source: &Address, destination: &Address, length: usize) -> u64 {
    // The v4-mapped prefix of an IPv4 address (ff:ff) adds nothing in one's complement, but the shorter sum is cheaper.
    if is_v4(source) {
        pseudo_v4(v4_octets(source), v4_octets(destination), length)
    } else {
        sum(source) + sum(destination) + sum_words([PROTOCOL_TCP.to_be_bytes(), (length as u32).to_be_bytes()])
    }
}

/// Checksum over pseudo-header and segment, as a number that is zero when the segment holds the right one
/// (RFC 9293, section 3.1; RFC 8200, section 8.1).
#[inline]
pub fn tcp(source: &Address, destination: &Address, segment: &[u8]) -> u16 {
    !fold(pseudo(source, destination, segment.len()) + sum(segment))
}

/// Checksum over an ICMPv4 message, as a number that is zero when the message holds the right one (RFC 792).
pub fn icmp_v4(message: &[u8]) -> u16 {
    !fold(sum(message))
}

/// Checksum over pseudo-header and ICMPv6 message, as a number that is zero when the message holds the right one
/// (RFC 4443, section 2.3).
pub fn icmp_v6(source: &Address, destination: &Address, message: &[u8]) -> u16 {
    let pseudo = sum_words([PROTOCOL_ICMPV6.to_be_bytes(), (message.len() as u32).to_be_bytes()]);
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

    #[test]
    fn carries_are_not_lost() {
        for length in 0..200 {
            let data = vec![0xff; length];
            assert_eq!(ipv4_header(&data), reference(&data).to_be_bytes(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn parts_may_be_added_up(parts in proptest::collection::vec(any::<[u8; 4]>(), 0..20)) {
            let whole: u64 = parts.iter().map(|part| sum(part)).sum();
            prop_assert_eq!(of_sum(whole), reference(parts.as_flattened()).to_be_bytes());
            if let Ok(parts) = <[[u8; 4]; 3]>::try_from(&parts[..]) {
                prop_assert_eq!(of_sum(sum_words(parts)), of_sum(sum(parts.as_flattened())));
            }
        }

        #[test]
        fn agrees_with_the_definition(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(ipv4_header(&data), reference(&data).to_be_bytes());
        }
    }
}
