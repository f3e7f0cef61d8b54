//! The frames that nearly all segments come and go in: untagged, IPv4 without options. Every field stands where it
//! always stands, so one look at the length is enough.

use super::address::from_v4;
use super::emit;
use super::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, UNTAGGED};
use super::ip::{self, ECN_CE, ECN_FIELD, IPV4_HEADER, IPV6_HEADER, PROTOCOL_TCP};
use super::tcp::TCP_HEADER;
use super::{Flags, FlowKey, ParseError, ReceivedLink, Segment, checksum};
use crate::seq::SeqNumber;

/// The offset of the TCP header.
const TCP: usize = UNTAGGED + IPV4_HEADER;
/// All three headers, without options.
pub(super) const HEADERS: usize = TCP + TCP_HEADER;
/// The same with IPv6.
const HEADERS_V6: usize = UNTAGGED + IPV6_HEADER + TCP_HEADER;

/// Data offset of a header without options, in words.
const BARE: u8 = (TCP_HEADER / 4) as u8;

/// Addresses and ports of a frame, if it is TCP right behind an IPv4 header without options, as [`FlowKey::words_v4`]
/// has them. `None` where it is not; but whether there is a segment in it, and an undamaged one, was not looked at.
#[inline]
pub(super) fn flow_words(frame: &[u8]) -> Option<[u64; 2]> {
    let headers: &[u8; HEADERS] = frame.first_chunk()?;
    let word = |at: usize| u32::from_le_bytes([headers[at], headers[at + 1], headers[at + 2], headers[at + 3]]);
    let [high, low] = ETHERTYPE_IPV4.to_be_bytes();
    let is_plain = headers[12] == high && headers[13] == low && headers[14] == 0x45;
    let addresses = u64::from(word(30)) << 32 | u64::from(word(26));
    is_plain.then_some([addresses, u64::from(word(TCP).swap_bytes())])
}

/// The flow of a frame, if it is TCP right behind an IPv6 header; of which as little was looked at.
#[inline]
pub(super) fn flow_v6(frame: &[u8]) -> Option<FlowKey> {
    let headers: &[u8; HEADERS_V6] = frame.first_chunk()?;
    let short = |at: usize| u16::from_be_bytes([headers[at], headers[at + 1]]);
    let (remote, rest) = headers[UNTAGGED + 8..].split_first_chunk()?;
    (short(12) == ETHERTYPE_IPV6 && headers[UNTAGGED + 6] == PROTOCOL_TCP).then_some(FlowKey {
        remote: *remote,
        local: *rest.first_chunk()?,
        remote_port: short(UNTAGGED + IPV6_HEADER),
        local_port: short(UNTAGGED + IPV6_HEADER + 2),
    })
}

/// Reads such a frame into a segment, as [`Segment::parse`] does. `None`: it is another frame, or one that does
/// not fit its lengths.
#[inline(always)]
pub(super) fn parse<'a>(
    frame: &'a [u8],
    verify_checksums: bool,
    segment: &mut Segment<'a>,
) -> Option<Result<(), ParseError>> {
    let headers: &[u8; HEADERS] = frame.first_chunk()?;
    let short = |at: usize| u16::from_be_bytes([headers[at], headers[at + 1]]);
    let word = |at: usize| [headers[at], headers[at + 1], headers[at + 2], headers[at + 3]];
    // Version 4, five words of header.
    let is_ipv4 = short(12) == ETHERTYPE_IPV4 && headers[14] == 0x45;
    let link = headers.first_chunk()?;
    let is_group = (headers[0] | headers[6]) & 1 != 0;
    let is_fragment = short(20) & 0x3fff != 0;
    if !is_ipv4 || is_group || is_fragment || headers[23] != PROTOCOL_TCP {
        return None;
    }
    let end = UNTAGGED + usize::from(short(16));
    let after_headers = frame.get(HEADERS..end)?;
    let options_length = usize::from((headers[TCP + 12] >> 4).checked_sub(BARE)?) * 4;
    let (options, payload) = after_headers.split_at_checked(options_length)?;
    let (source, destination) = (word(26), word(30));
    if verify_checksums {
        let addresses = checksum::sum_words([source, destination]);
        let ip = addresses + checksum::sum_words([word(14), word(18), word(22)]);
        let pseudo = addresses + checksum::sum_words([[0, 0, 0, PROTOCOL_TCP], ((end - TCP) as u32).to_be_bytes()]);
        let segment = checksum::sum(&frame[TCP..end]);
        if checksum::of_sum(ip) != [0, 0] || checksum::of_sum(pseudo + segment) != [0, 0] {
            return Some(Err(ParseError::Checksum));
        }
    }
    segment.options.read(options);
    segment.link = ReceivedLink::untagged(link);
    segment.key.remote = from_v4(source);
    segment.key.local = from_v4(destination);
    segment.key.remote_port = short(TCP);
    segment.key.local_port = short(TCP + 2);
    segment.seq = SeqNumber(u32::from_be_bytes(word(TCP + 4)));
    segment.ack = SeqNumber(u32::from_be_bytes(word(TCP + 8)));
    segment.flags = Flags(headers[TCP + 13]);
    segment.window = short(TCP + 14);
    segment.congestion_experienced = headers[15] & ECN_FIELD == ECN_CE;
    segment.payload = payload;
    Some(Ok(()))
}

/// Writes the headers of such a frame, whatever its options. `segment_length` is that of the TCP segment, `sum` that of
/// its options and text.
#[inline(always)]
pub(super) fn write(
    headers: &mut [u8; HEADERS],
    link: &[u8; UNTAGGED],
    ((source, destination), ports): (([u8; 4], [u8; 4]), (u16, u16)),
    header: &emit::Header,
    options_length: usize,
    segment_length: usize,
    sum: u64,
) {
    let addresses = checksum::sum_words([source, destination]);
    let mut ip = ip::words_v4(source, destination, header.ecn_capable, segment_length);
    let [first, second] = checksum::of_sum(addresses + checksum::sum_words([ip[0], ip[1], ip[2]]));
    [ip[2][2], ip[2][3]] = [first, second];
    // The sums are taken of the words before they are stored: to read them back in other sizes would wait for the
    // stores.
    let mut tcp = header.words(ports, options_length);
    let pseudo = addresses + checksum::sum_words([[0, 0, 0, PROTOCOL_TCP], (segment_length as u32).to_be_bytes()]);
    let [first, second] = checksum::of_sum(sum + pseudo + checksum::sum_words(tcp));
    tcp[4] = [first, second, 0, 0];
    headers[..UNTAGGED].copy_from_slice(link);
    let places = headers[UNTAGGED..].as_chunks_mut::<4>().0;
    for (place, word) in places.iter_mut().zip(ip.into_iter().chain(tcp)) {
        *place = word;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(frame: &[u8], verify_checksums: bool) -> Option<Result<Segment<'_>, ParseError>> {
        let mut segment = Segment::blank();
        super::parse(frame, verify_checksums, &mut segment).map(|result| result.map(|()| segment))
    }

    use crate::wire::emit::Header;
    use crate::wire::options::Timestamps;
    use crate::wire::{LinkHeader, Options};
    use proptest::prelude::*;

    fn frame(timestamps: Option<(u32, u32)>, ecn_capable: bool, text: &[u8]) -> Vec<u8> {
        let key = FlowKey::new("198.18.0.1:80".parse().unwrap(), "198.18.0.2:1000".parse().unwrap());
        let link = LinkHeader::new([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], true);
        let header = Header {
            seq: SeqNumber(0x0102_0304),
            ack: SeqNumber(0x8182_8384),
            flags: Flags::ACK | Flags::PSH,
            window: 0xfedc,
            options: Options {
                timestamps: timestamps.map(|(value, echo)| Timestamps { value, echo }),
                ..Options::default()
            },
            ecn_capable,
        };
        let mut frame = vec![0; 100 + text.len()];
        let length = emit::frame(&mut frame, &link, &key, &header, text.len(), |octets| {
            octets.copy_from_slice(text);
        });
        frame.truncate(length);
        frame
    }

    #[test]
    fn what_the_engine_sends_is_plain() {
        for timestamps in [None, Some((1, 2))] {
            for text in [&b""[..], b"text"] {
                let frame = frame(timestamps, true, text);
                let segment = parse(&frame, true);
                assert!(segment.is_some());
                assert_eq!(segment, Some(Segment::parse_any(&frame, true)));
                let padded = [&frame[..], &[0xee; 9]].concat();
                assert_eq!(segment, parse(&padded, true), "padding");
            }
        }
    }

    #[test]
    fn other_frames_are_left_to_others() {
        let good = frame(None, false, b"text");
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length], true), None);
        }
        // Ethertype, IP version, header length, fragment, protocol, data offset, group address.
        let changes = [
            (12, 0x86),
            (14, 0x65),
            (14, 0x46),
            (20, 0x20),
            (23, 17),
            (46, 0x40),
            (0, 3),
        ];
        for (at, value) in changes {
            let mut other = good.clone();
            other[at] = value;
            assert_eq!(parse(&other, true), None, "{at}");
        }
    }

    #[test]
    fn the_flow_of_a_frame_is_found_without_reading_it() {
        let secret = tidegate_abi::siphash::Key(3, 4);
        for (local, remote) in [
            ("198.18.0.1:80", "198.18.0.2:1000"),
            ("[2001:2::1]:80", "[2001:2::2]:1000"),
        ] {
            let key = FlowKey::new(local.parse().unwrap(), remote.parse().unwrap());
            let header = Header {
                seq: SeqNumber(1),
                ack: SeqNumber(2),
                flags: Flags::ACK,
                window: 3,
                options: Options::default(),
                ecn_capable: false,
            };
            let untagged = LinkHeader::new([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], key.is_v4());
            let tagged = [&untagged.as_bytes()[..12], &[0x81, 0, 0, 7], &untagged.as_bytes()[12..]].concat();
            let (tagged, ..) = crate::wire::ethernet::parse(&tagged).unwrap();
            for link in [untagged, tagged.reply()] {
                let mut frame = [0; 100];
                let length = emit::frame(&mut frame, &link, &key, &header, 0, |_| {});
                let segment = Segment::parse(&frame[..length], true).unwrap();
                assert_eq!(
                    Segment::flow_hash(&frame[..length], secret),
                    Some(segment.key.table_hash(secret))
                );
                let plain = flow_words(&frame).is_some() || flow_v6(&frame).is_some();
                assert_eq!(plain, link == untagged);
                assert_eq!(Segment::flow_hash(&frame[..40], secret), None);
            }
        }
    }

    proptest! {
        /// However frames are changed, those that are read are read as they are layer by layer.
        #[test]
        fn agrees_with_the_layers(
            timestamps: Option<(u32, u32)>,
            ecn_capable: bool,
            text in proptest::collection::vec(any::<u8>(), 0..80),
            changes in proptest::collection::vec((0..80_usize, any::<u8>()), 0..3),
            length in proptest::option::of(0..160_usize),
            verify: bool,
        ) {
            let mut frame = frame(timestamps, ecn_capable, &text);
            for (at, value) in changes {
                if let Some(octet) = frame.get_mut(at) {
                    *octet = value;
                }
            }
            if let Some(length) = length {
                frame.resize(length, 0);
            }
            if let Some(result) = parse(&frame, verify) {
                prop_assert_eq!(result, Segment::parse_any(&frame, verify));
            }
        }
    }
}
