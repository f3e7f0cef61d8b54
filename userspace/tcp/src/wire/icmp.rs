//! ICMP "too big": fragmentation needed and DF set (RFC 792, RFC 1191), packet too big (RFC 4443, section 3.2).

use super::address::{Address, FlowKey, from_v4, is_v4};
use super::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use super::ip::{IPV4_HEADER, IPV6_HEADER};
use super::{ParseError, checksum};
use crate::seq::SeqNumber;

const PROTOCOL_ICMPV4: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMPV6: u8 = 58;

const V4_DESTINATION_UNREACHABLE: u8 = 3;
const V4_FRAGMENTATION_NEEDED: u8 = 4;
/// Its code is to be ignored (RFC 4443, section 3.2).
const V6_PACKET_TOO_BIG: u8 = 2;

/// Type, code, checksum, and four octets in which the MTU is.
const ICMP_HEADER: usize = 8;

/// MTUs of common links (RFC 1191, section 7), for routers that do not tell theirs.
const PLATEAUS: [u16; 11] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// A router's report of a packet it could not forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// The flow of the quoted segment; its source is "local".
    pub key: FlowKey,
    /// SEG.SEQ of the quoted segment.
    pub seq: SeqNumber,
    /// Length in bytes of the packet that was too big, IP header included, as the quote has it.
    pub quoted_length: u16,
    /// The largest packet that passes, in bytes, IP header included: what the router said or, if it said nothing
    /// (before RFC 1191), the next plateau below the quoted length. Not checked for any bounds.
    pub mtu: u16,
}

impl TooBig {
    /// Reads a frame that starts at its Ethernet header. The checksums of the message and of an IPv4 header around it
    /// are always verified, since devices do not do it for ICMP. Those of the quoted packet cannot be.
    ///
    /// # Errors
    ///
    /// [`ParseError::Malformed`] for anything but such a message about a TCP segment from the host it is sent to;
    /// [`ParseError::Checksum`] for a damaged one.
    pub fn parse(frame: &[u8]) -> Result<Self, ParseError> {
        let (_, ethertype, packet) = ethernet::parse(frame).ok_or(ParseError::Malformed)?;
        match ethertype {
            ETHERTYPE_IPV4 => parse_v4(packet),
            ETHERTYPE_IPV6 => parse_v6(packet),
            _ => Err(ParseError::Malformed),
        }
    }
}

fn parse_v4(packet: &[u8]) -> Result<TooBig, ParseError> {
    let fixed: &[u8; IPV4_HEADER] = packet.first_chunk().ok_or(ParseError::Malformed)?;
    let header_length = v4_header_length(fixed).ok_or(ParseError::Malformed)?;
    let total_length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff;
    if fixed[9] != PROTOCOL_ICMPV4 || fragment != 0 {
        return Err(ParseError::Malformed);
    }
    let message = packet.get(header_length..total_length).ok_or(ParseError::Malformed)?;
    let (header, quote) = message
        .split_first_chunk::<ICMP_HEADER>()
        .ok_or(ParseError::Malformed)?;
    if header[0] != V4_DESTINATION_UNREACHABLE || header[1] != V4_FRAGMENTATION_NEEDED {
        return Err(ParseError::Malformed);
    }
    if checksum::ipv4_header(&packet[..header_length]) != [0, 0] || checksum::icmp_v4(message) != 0 {
        return Err(ParseError::Checksum);
    }
    let destination = from_v4([fixed[16], fixed[17], fixed[18], fixed[19]]);
    let mut too_big = quoted_v4(quote).ok_or(ParseError::Malformed)?;
    if too_big.key.local != destination {
        return Err(ParseError::Malformed);
    }
    too_big.mtu = match u16::from_be_bytes([header[6], header[7]]) {
        0 => plateau_below(too_big.quoted_length),
        mtu => mtu,
    };
    Ok(too_big)
}

fn parse_v6(packet: &[u8]) -> Result<TooBig, ParseError> {
    let (fixed, rest) = packet.split_first_chunk::<IPV6_HEADER>().ok_or(ParseError::Malformed)?;
    let payload_length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if fixed[0] >> 4 != 6 || fixed[6] != PROTOCOL_ICMPV6 {
        return Err(ParseError::Malformed);
    }
    let message = rest.get(..payload_length).ok_or(ParseError::Malformed)?;
    let (header, quote) = message
        .split_first_chunk::<ICMP_HEADER>()
        .ok_or(ParseError::Malformed)?;
    if header[0] != V6_PACKET_TOO_BIG {
        return Err(ParseError::Malformed);
    }
    let (source, destination) = v6_addresses(fixed);
    if checksum::icmp_v6(&source, &destination, message) != 0 {
        return Err(ParseError::Checksum);
    }
    let mut too_big = quoted_v6(quote).ok_or(ParseError::Malformed)?;
    if too_big.key.local != destination {
        return Err(ParseError::Malformed);
    }
    let mtu = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    too_big.mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    Ok(too_big)
}

fn v4_header_length(header: &[u8; IPV4_HEADER]) -> Option<usize> {
    let length = usize::from(header[0] & 0x0f) * 4;
    (header[0] >> 4 == 4 && length >= IPV4_HEADER).then_some(length)
}

fn v6_addresses(header: &[u8; IPV6_HEADER]) -> (Address, Address) {
    let address = |at: usize| {
        let mut address = [0; 16];
        address.copy_from_slice(&header[at..at + 16]);
        address
    };
    (address(8), address(24))
}

/// Reads the quoted packet, of which only the IP header and eight octets need be there; the MTU is left open.
fn quoted_v4(quote: &[u8]) -> Option<TooBig> {
    let fixed: &[u8; IPV4_HEADER] = quote.first_chunk()?;
    let header_length = v4_header_length(fixed)?;
    let fragment_offset = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff;
    if fixed[9] != PROTOCOL_TCP || fragment_offset != 0 {
        return None;
    }
    quoted_segment(
        from_v4([fixed[12], fixed[13], fixed[14], fixed[15]]),
        from_v4([fixed[16], fixed[17], fixed[18], fixed[19]]),
        u16::from_be_bytes([fixed[2], fixed[3]]),
        &quote[header_length.min(quote.len())..],
    )
}

/// The same for IPv6. This side sends no extension headers.
fn quoted_v6(quote: &[u8]) -> Option<TooBig> {
    let (fixed, segment) = quote.split_first_chunk::<IPV6_HEADER>()?;
    let (source, destination) = v6_addresses(fixed);
    // A mapped address on the wire would be taken for an IPv4 one.
    if fixed[0] >> 4 != 6 || fixed[6] != PROTOCOL_TCP || is_v4(&source) || is_v4(&destination) {
        return None;
    }
    let payload_length = u16::from_be_bytes([fixed[4], fixed[5]]);
    let length = payload_length.saturating_add(IPV6_HEADER as u16);
    quoted_segment(source, destination, length, segment)
}

fn quoted_segment(local: Address, remote: Address, quoted_length: u16, segment: &[u8]) -> Option<TooBig> {
    let &[a, b, c, d, e, f, g, h] = segment.first_chunk::<8>()?;
    Some(TooBig {
        key: FlowKey {
            remote,
            local,
            remote_port: u16::from_be_bytes([c, d]),
            local_port: u16::from_be_bytes([a, b]),
        },
        seq: SeqNumber(u32::from_be_bytes([e, f, g, h])),
        quoted_length,
        mtu: 0,
    })
}

/// The largest plateau below `length`, and the smallest one if there is none.
fn plateau_below(length: u16) -> u16 {
    let [.., smallest] = PLATEAUS;
    PLATEAUS
        .into_iter()
        .find(|&plateau| plateau < length)
        .unwrap_or(smallest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::emit::{self, Header};
    use crate::wire::{Flags, LinkHeader, Options};
    use proptest::prelude::*;

    const FAMILIES: [(&str, &str); 2] = [
        ("198.18.0.1:80", "198.18.0.2:40000"),
        ("[2001:2::1]:80", "[2001:2::2]:40000"),
    ];

    fn key(family: (&str, &str)) -> FlowKey {
        FlowKey::new(family.0.parse().unwrap(), family.1.parse().unwrap())
    }

    /// The packet of a segment with `text` zeros, without its Ethernet header.
    fn packet(key: &FlowKey, text: usize) -> Vec<u8> {
        let link = LinkHeader::new([2; 6], [4; 6], key.is_v4());
        let header = Header {
            seq: SeqNumber(0x8182_8384),
            ack: SeqNumber(1),
            flags: Flags::ACK,
            window: 1000,
            options: Options::default(),
            ecn_capable: false,
        };
        let mut frame = vec![0; 100 + text];
        let length = emit::frame(&mut frame, &link, key, &header, text, |text| text.fill(0));
        frame[14..length].to_vec()
    }

    /// An ICMP message of `kind` and `code` from a router to the local host of `key`, its checksums right.
    fn message(key: &FlowKey, kind: u8, code: u8, mtu: u32, quote: &[u8]) -> Vec<u8> {
        let mut message = [&[kind, code, 0, 0][..], &mtu.to_be_bytes(), quote].concat();
        let mut frame = vec![2; 12];
        if key.is_v4() {
            let sum = checksum::icmp_v4(&message);
            message[2..4].copy_from_slice(&sum.to_ne_bytes());
            let mut ip = [0; IPV4_HEADER];
            ip[0] = 0x45;
            let total_length = (IPV4_HEADER + message.len()) as u16;
            ip[2..4].copy_from_slice(&total_length.to_be_bytes());
            ip[8] = 64;
            ip[9] = PROTOCOL_ICMPV4;
            ip[12..16].copy_from_slice(&[198, 18, 0, 254]);
            ip[16..20].copy_from_slice(&key.local[12..]);
            let sum = checksum::ipv4_header(&ip);
            ip[10..12].copy_from_slice(&sum);
            frame.extend_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
            frame.extend_from_slice(&ip);
        } else {
            let router = [0x20; 16];
            let sum = checksum::icmp_v6(&router, &key.local, &message);
            message[2..4].copy_from_slice(&sum.to_ne_bytes());
            frame.extend_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
            frame.extend_from_slice(&[0x60, 0, 0, 0]);
            frame.extend_from_slice(&(message.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[PROTOCOL_ICMPV6, 64]);
            frame.extend_from_slice(&router);
            frame.extend_from_slice(&key.local);
        }
        frame.extend_from_slice(&message);
        frame
    }

    fn too_big(key: &FlowKey, mtu: u32, quote: &[u8]) -> Vec<u8> {
        let (kind, code) = if key.is_v4() { (3, 4) } else { (2, 0) };
        message(key, kind, code, mtu, quote)
    }

    fn ip_header(key: &FlowKey) -> usize {
        if key.is_v4() { IPV4_HEADER } else { IPV6_HEADER }
    }

    #[test]
    fn a_message_is_read() {
        for key in FAMILIES.map(key) {
            let packet = packet(&key, 1000);
            for quoted in [ip_header(&key) + 8, 300, packet.len()] {
                let read = TooBig::parse(&too_big(&key, 1400, &packet[..quoted])).unwrap();
                let expected = TooBig {
                    key,
                    seq: SeqNumber(0x8182_8384),
                    quoted_length: packet.len() as u16,
                    mtu: 1400,
                };
                assert_eq!(read, expected);
            }
        }
    }

    #[test]
    fn a_router_that_tells_no_mtu_means_the_next_plateau() {
        let key = key(FAMILIES[0]);
        for (text, mtu) in [
            (8960, 8166),
            (1460, 1492),
            (1453, 1492),
            (1452, 1006),
            (300, 296),
            (0, 68),
        ] {
            let packet = packet(&key, text);
            let read = TooBig::parse(&too_big(&key, 0, &packet[..28])).unwrap();
            assert_eq!(read.mtu, mtu, "{} octets", packet.len());
        }
        assert_eq!(plateau_below(68), 68);
        assert_eq!(plateau_below(0), 68);
    }

    #[test]
    fn an_ipv6_mtu_is_taken_as_it_is() {
        let key = key(FAMILIES[1]);
        let packet = packet(&key, 1000);
        for (told, mtu) in [
            (0, 0),
            (1280, 1280),
            (65_535, 65_535),
            (65_536, 65_535),
            (u32::MAX, 65_535),
        ] {
            assert_eq!(TooBig::parse(&too_big(&key, told, &packet)).unwrap().mtu, mtu);
        }
    }

    #[test]
    fn a_quote_too_short_for_the_sequence_number_is_malformed() {
        for key in FAMILIES.map(key) {
            let packet = packet(&key, 0);
            for quoted in 0..ip_header(&key) + 8 {
                let frame = too_big(&key, 1400, &packet[..quoted]);
                assert_eq!(TooBig::parse(&frame), Err(ParseError::Malformed), "{quoted}");
            }
        }
    }

    #[test]
    fn no_prefix_of_a_frame_is_read() {
        for key in FAMILIES.map(key) {
            let frame = too_big(&key, 1400, &packet(&key, 100));
            for length in 0..frame.len() {
                assert_eq!(TooBig::parse(&frame[..length]), Err(ParseError::Malformed), "{length}");
            }
        }
    }

    #[test]
    fn padding_behind_the_packet_is_no_part_of_it() {
        for key in FAMILIES.map(key) {
            let packet = packet(&key, 0);
            let quoted = ip_header(&key) + 8;
            let mut frame = too_big(&key, 1400, &packet[..quoted]);
            frame.extend_from_slice(&[0xff; 9]);
            assert!(TooBig::parse(&frame).is_ok());
            let mut frame = too_big(&key, 1400, &packet[..quoted - 1]);
            frame.extend_from_slice(&packet[quoted - 1..]);
            assert!(TooBig::parse(&frame).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_of_the_message_is_noticed() {
        for key in FAMILIES.map(key) {
            let frame = too_big(&key, 1400, &packet(&key, 20));
            for at in 14..frame.len() {
                for bit in 0..8 {
                    // Traffic class, flow label and hop limit of IPv6 are under no checksum.
                    let unprotected = !key.is_v4() && (matches!(at, 15..=17 | 21) || (at == 14 && bit < 4));
                    let mut damaged = frame.clone();
                    damaged[at] ^= 1 << bit;
                    assert!(unprotected || TooBig::parse(&damaged).is_err(), "octet {at}, bit {bit}");
                }
            }
            let mut damaged = frame.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(TooBig::parse(&damaged), Err(ParseError::Checksum));
        }
    }

    #[test]
    fn other_messages_are_malformed() {
        let [v4, v6] = FAMILIES.map(key);
        let (quote4, quote6) = (packet(&v4, 0), packet(&v6, 0));
        for (kind, code) in [(0, 0), (3, 3), (3, 5), (4, 4), (2, 0), (8, 0)] {
            let frame = message(&v4, kind, code, 1400, &quote4);
            assert_eq!(TooBig::parse(&frame), Err(ParseError::Malformed));
        }
        for kind in [0, 1, 3, 4, 128] {
            let frame = message(&v6, kind, 0, 1400, &quote6);
            assert_eq!(TooBig::parse(&frame), Err(ParseError::Malformed));
        }
        assert!(
            TooBig::parse(&message(&v6, 2, 77, 1400, &quote6)).is_ok(),
            "the code is ignored"
        );
        // One version quoted by the other.
        assert!(TooBig::parse(&too_big(&v4, 1400, &quote6)).is_err());
        assert!(TooBig::parse(&too_big(&v6, 1400, &[quote4, vec![0; 40]].concat())).is_err());
    }

    #[test]
    fn a_message_sent_to_another_host_than_the_quoted_one_is_malformed() {
        for key in FAMILIES.map(key) {
            let mut other = key;
            other.local[15] ^= 1;
            let frame = too_big(&other, 1400, &packet(&key, 0));
            assert_eq!(TooBig::parse(&frame), Err(ParseError::Malformed));
        }
    }

    #[test]
    fn quotes_that_make_no_sense_are_malformed() {
        let [v4, v6] = FAMILIES.map(key);
        let plain = packet(&v4, 0);
        for (at, value) in [(0, 0x44), (0, 0x49), (0, 0x65), (7, 1), (6, 0x10), (9, 17)] {
            let mut quote = plain.clone();
            quote[at] = value;
            assert!(TooBig::parse(&too_big(&v4, 1400, &quote)).is_err(), "{at}: {value:#x}");
        }
        let plain = packet(&v6, 0);
        for (at, value) in [(0, 0x40), (6, 0), (6, 44), (6, 58)] {
            let mut quote = plain.clone();
            quote[at] = value;
            assert!(TooBig::parse(&too_big(&v6, 1400, &quote)).is_err(), "{at}: {value:#x}");
        }
        let mut quote = plain.clone();
        quote[24..40].copy_from_slice(&from_v4([198, 18, 0, 2]));
        assert!(TooBig::parse(&too_big(&v6, 1400, &quote)).is_err(), "a mapped address");
    }

    #[test]
    fn options_in_the_quoted_header_are_skipped() {
        let key = key(FAMILIES[0]);
        let plain = packet(&key, 0);
        let mut quote = [&plain[..20], &[1; 40], &plain[20..28]].concat();
        quote[0] = 0x4f;
        let read = TooBig::parse(&too_big(&key, 1400, &quote)).unwrap();
        assert_eq!((read.key, read.seq), (key, SeqNumber(0x8182_8384)));
    }

    proptest! {
        #[test]
        fn anything_may_be_quoted(quote in proptest::collection::vec(any::<u8>(), 0..120), mtu: u32) {
            for key in FAMILIES.map(key) {
                let _ = TooBig::parse(&too_big(&key, mtu, &quote));
            }
        }

        #[test]
        fn anything_may_be_parsed(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TooBig::parse(&frame);
        }
    }
}
