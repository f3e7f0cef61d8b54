//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use super::ParseError;
use super::address::{Address, V4_PREFIX, from_v4, v4_octets};
use super::checksum;
use super::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use super::ip_options;

/// Length of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Length of the IPv6 header.
pub const IPV6_HEADER: usize = 40;

pub(super) const PROTOCOL_TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
pub(super) const ECN_FIELD: u8 = 0b11;
pub(super) const ECN_CE: u8 = 0b11;
const ECN_ECT_0: u8 = 0b10;
const MAX_EXTENSION_HEADERS: usize = 6;
/// The offset and the "more fragments" bit of an IPv6 fragment header.
const FRAGMENT_OFFSET_AND_MORE: u16 = 0xfff9;

/// An IP packet that carries a whole TCP segment.
pub struct Packet<'a> {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// A router marked the packet: CE (RFC 3168, section 5).
    pub congestion_experienced: bool,
    /// The TCP segment, link padding removed.
    pub payload: &'a [u8],
}

/// Reads an IP packet.
///
/// # Errors
///
/// [`ParseError::Malformed`] for anything that is not one whole TCP segment, [`ParseError::Checksum`] for a damaged
/// IPv4 header, [`ParseError::SourceRoute`] for one with a source route.
#[inline]
pub fn parse(ethertype: u16, packet: &[u8], verify: bool) -> Result<Packet<'_>, ParseError> {
    match ethertype {
        ETHERTYPE_IPV4 => parse_v4(packet, verify),
        ETHERTYPE_IPV6 => parse_v6(packet).ok_or(ParseError::Malformed),
        _ => Err(ParseError::Malformed),
    }
}

#[inline]
fn parse_v4(packet: &[u8], verify: bool) -> Result<Packet<'_>, ParseError> {
    let fixed: &[u8; IPV4_HEADER] = packet.first_chunk().ok_or(ParseError::Malformed)?;
    let header_length = usize::from(fixed[0] & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4
        || header_length < IPV4_HEADER
        || total_length < header_length
        || total_length > packet.len()
        || fixed[9] != PROTOCOL_TCP
    {
        return Err(ParseError::Malformed);
    }
    if verify && checksum::ipv4_header(&packet[..header_length]) != [0, 0] {
        return Err(ParseError::Checksum);
    }
    let more_fragments_and_offset = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff;
    if more_fragments_and_offset != 0 {
        return Err(ParseError::Malformed);
    }
    ip_options::check_v4(&packet[IPV4_HEADER..header_length])?;
    Ok(Packet {
        source: from_v4([fixed[12], fixed[13], fixed[14], fixed[15]]),
        destination: from_v4([fixed[16], fixed[17], fixed[18], fixed[19]]),
        congestion_experienced: fixed[1] & ECN_FIELD == ECN_CE,
        payload: &packet[header_length..total_length],
    })
}

#[inline]
fn parse_v6(packet: &[u8]) -> Option<Packet<'_>> {
    let (fixed, rest) = packet.split_first_chunk::<IPV6_HEADER>()?;
    let payload_length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let mut payload = rest.get(..payload_length)?;
    let mut next_header = fixed[6];
    for place in 0..=MAX_EXTENSION_HEADERS {
        match next_header {
            PROTOCOL_TCP => {
                let address = |at: usize| {
                    let mut address = [0; 16];
                    address.copy_from_slice(&fixed[at..at + 16]);
                    address
                };
                let (source, destination) = (address(8), address(24));
                // These would be taken for IPv4 addresses.
                if source[..12] == V4_PREFIX || destination[..12] == V4_PREFIX {
                    return None;
                }
                return Some(Packet {
                    source,
                    destination,
                    congestion_experienced: (fixed[1] >> 4) & ECN_FIELD == ECN_CE,
                    payload,
                });
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let &[next, length, ..] = payload else { return None };
                let (header, rest) = payload.split_at_checked((usize::from(length) + 1) * 8)?;
                let is_acceptable = match next_header {
                    // Segments left.
                    ROUTING => header[3] == 0,
                    // Nowhere but right behind the IPv6 header (RFC 8200, section 4.1).
                    HOP_BY_HOP if place > 0 => false,
                    _ => ip_options::is_acceptable_v6(&header[2..]),
                };
                if !is_acceptable {
                    return None;
                }
                (next_header, payload) = (next, rest);
            }
            FRAGMENT => {
                let (&[next, _, high, low, ..], rest) = payload.split_first_chunk::<8>()?;
                // An atomic fragment is a whole packet (RFC 6946).
                if u16::from_be_bytes([high, low]) & FRAGMENT_OFFSET_AND_MORE != 0 {
                    return None;
                }
                (next_header, payload) = (next, rest);
            }
            _ => return None,
        }
    }
    None
}

/// An IPv4 header for `payload_length` bytes of TCP, its checksum zero.
#[inline]
pub(super) fn words_v4(
    source: [u8; 4],
    destination: [u8; 4],
    ecn_capable: bool,
    payload_length: usize,
) -> [[u8; 4]; IPV4_HEADER / 4] {
    let ecn = if ecn_capable { ECN_ECT_0 } else { 0 };
    let [high, low] = ((IPV4_HEADER + payload_length) as u16).to_be_bytes();
    [
        [0x45, ecn, high, low],
        [0, 0, 0x40, 0],
        [64, PROTOCOL_TCP, 0, 0],
        source,
        destination,
    ]
}

/// Writes an IPv4 header for `payload_length` bytes of TCP into the first 20 bytes of `buffer`.
///
/// DF is set, so the identification may stay zero (RFC 6864, section 4.1).
#[inline]
pub(crate) fn write_v4(
    buffer: &mut [u8],
    source: &Address,
    destination: &Address,
    ecn_capable: bool,
    payload_length: usize,
) {
    let header = &mut buffer[..IPV4_HEADER];
    let mut words = words_v4(v4_octets(source), v4_octets(destination), ecn_capable, payload_length);
    let [first, second] = checksum::of_sum(checksum::sum_words(words));
    [words[2][2], words[2][3]] = [first, second];
    for (place, word) in header.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word;
    }
}

/// Writes an IPv6 header for `payload_length` bytes of TCP into the first 40 bytes of `buffer`.
#[inline]
pub(crate) fn write_v6(
    buffer: &mut [u8],
    source: &Address,
    destination: &Address,
    ecn_capable: bool,
    payload_length: usize,
) {
    let header = &mut buffer[..IPV6_HEADER];
    let ecn = if ecn_capable { ECN_ECT_0 << 4 } else { 0 };
    let [high, low] = (payload_length as u16).to_be_bytes();
    header[..8].copy_from_slice(&[0x60, ecn, 0, 0, high, low, PROTOCOL_TCP, 64]);
    header[8..24].copy_from_slice(source);
    header[24..40].copy_from_slice(destination);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; IPV4_HEADER];
        write_v4(
            &mut packet,
            &from_v4([198, 18, 0, 1]),
            &from_v4([198, 18, 0, 2]),
            false,
            payload.len(),
        );
        packet.extend_from_slice(payload);
        packet
    }

    fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; IPV6_HEADER];
        write_v6(&mut packet, &[0x20; 16], &[0x21; 16], false, payload.len());
        packet[6] = next_header;
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn padding_after_the_packet_is_cut_off() {
        let mut packet = v4(b"segment");
        packet.extend_from_slice(&[0; 6]);
        assert_eq!(parse(ETHERTYPE_IPV4, &packet, true).ok().unwrap().payload, b"segment");
    }

    #[test]
    fn a_damaged_v4_header_is_a_checksum_error_and_a_fragment_is_malformed() {
        let mut packet = v4(b"segment");
        packet[8] ^= 1;
        assert_eq!(parse(ETHERTYPE_IPV4, &packet, true).err(), Some(ParseError::Checksum));
        assert!(parse(ETHERTYPE_IPV4, &packet, false).is_ok());
        packet[6] |= 0x20;
        assert_eq!(parse(ETHERTYPE_IPV4, &packet, false).err(), Some(ParseError::Malformed));
    }

    #[test]
    fn no_prefix_of_a_packet_is_read_past_its_end() {
        let (four, six) = (v4(b"segment"), v6(PROTOCOL_TCP, b"segment"));
        for length in 0..four.len() {
            assert!(parse(ETHERTYPE_IPV4, &four[..length], true).is_err());
        }
        for length in 0..six.len() {
            assert!(parse(ETHERTYPE_IPV6, &six[..length], true).is_err());
        }
    }

    #[test]
    fn extension_headers_are_walked_and_bounded() {
        let hop_by_hop = [DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
        let destination = [PROTOCOL_TCP, 0, 1, 4, 0, 0, 0, 0];
        let packet = v6(HOP_BY_HOP, &[&hop_by_hop[..], &destination, b"segment"].concat());
        assert_eq!(parse(ETHERTYPE_IPV6, &packet, true).ok().unwrap().payload, b"segment");

        let routing = [PROTOCOL_TCP, 0, 0, 1, 0, 0, 0, 0];
        assert!(
            parse(ETHERTYPE_IPV6, &v6(ROUTING, &routing), true).is_err(),
            "segments left"
        );

        let chain = [DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSION_HEADERS + 1);
        assert!(parse(ETHERTYPE_IPV6, &v6(DESTINATION_OPTIONS, &chain), true).is_err());
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_packet_and_any_other_is_malformed() {
        let fragment = |offset_and_more: u16| {
            let [high, low] = offset_and_more.to_be_bytes();
            [PROTOCOL_TCP, 0, high, low, 1, 2, 3, 4]
        };
        let packet = v6(FRAGMENT, &[&fragment(0)[..], b"segment"].concat());
        assert_eq!(parse(ETHERTYPE_IPV6, &packet, true).ok().unwrap().payload, b"segment");
        // The two reserved bits are not looked at.
        assert!(
            parse(
                ETHERTYPE_IPV6,
                &v6(FRAGMENT, &[&fragment(6)[..], b"segment"].concat()),
                true
            )
            .is_ok()
        );
        for real in [1, 8, 9, 0x8000, 0xfff8] {
            let packet = v6(FRAGMENT, &[&fragment(real)[..], b"segment"].concat());
            assert!(parse(ETHERTYPE_IPV6, &packet, true).is_err(), "{real:#x}");
        }
        for length in 0..8 {
            assert!(parse(ETHERTYPE_IPV6, &v6(FRAGMENT, &fragment(0)[..length]), true).is_err());
        }
        // Between other headers, and as the last that is walked through.
        let destination = [FRAGMENT, 0, 1, 4, 0, 0, 0, 0];
        let packet = v6(
            DESTINATION_OPTIONS,
            &[&destination[..], &fragment(0), b"segment"].concat(),
        );
        assert_eq!(parse(ETHERTYPE_IPV6, &packet, true).ok().unwrap().payload, b"segment");
        let mut chain = [FRAGMENT, 0, 0, 0, 1, 2, 3, 4].repeat(MAX_EXTENSION_HEADERS + 1);
        chain[MAX_EXTENSION_HEADERS * 8] = PROTOCOL_TCP;
        assert!(parse(ETHERTYPE_IPV6, &v6(FRAGMENT, &chain), true).is_err());
    }

    #[test]
    fn extension_headers_that_a_host_may_not_skip_are_refused() {
        let padding = [1, 4, 0, 0, 0, 0];
        let header = |next: u8, options: [u8; 6]| [&[next, 0][..], &options].concat();
        for (first, headers) in [
            // Hop-by-hop behind another header, also behind itself.
            (
                DESTINATION_OPTIONS,
                [header(HOP_BY_HOP, padding), header(PROTOCOL_TCP, padding)],
            ),
            (HOP_BY_HOP, [header(HOP_BY_HOP, padding), header(PROTOCOL_TCP, padding)]),
            // Options that are to be discarded if unknown: a jumbo payload, a home address.
            (
                HOP_BY_HOP,
                [
                    header(DESTINATION_OPTIONS, [0xc2, 4, 0, 1, 0, 0]),
                    header(PROTOCOL_TCP, padding),
                ],
            ),
            (
                HOP_BY_HOP,
                [
                    header(DESTINATION_OPTIONS, padding),
                    header(PROTOCOL_TCP, [0xc9, 4, 0, 0, 0, 0]),
                ],
            ),
        ] {
            let packet = v6(first, &[&headers.concat()[..], b"segment"].concat());
            assert!(parse(ETHERTYPE_IPV6, &packet, true).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn a_mapped_address_on_the_wire_is_refused() {
        let mut packet = v6(PROTOCOL_TCP, b"segment");
        packet[8..20].copy_from_slice(&V4_PREFIX);
        assert!(parse(ETHERTYPE_IPV6, &packet, true).is_err());
    }
}
