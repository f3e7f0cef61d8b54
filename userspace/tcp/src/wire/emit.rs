//! Writing a frame.

use super::address::{FlowKey, Tuple, v4_octets};
use super::checksum::{self, TextSum};
use super::ethernet::LinkHeader;
use super::ip::{self, IPV4_HEADER, IPV6_HEADER};
use super::options::Options;
use super::plain;
use super::tcp::{Flags, TCP_HEADER};
use crate::seq::SeqNumber;

/// The header of a segment to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// SEG.SEQ.
    pub seq: SeqNumber,
    /// SEG.ACK.
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as it goes into the header.
    pub window: u16,
    /// Options.
    pub options: Options,
    /// Sent with ECT(0), so that routers may mark it instead of dropping it (RFC 3168, section 5).
    pub ecn_capable: bool,
}

/// Writes a whole frame from this side to the peer of `key` and returns its length.
/// `payload` fills exactly the `payload_length` bytes it is given, and is not called when there are none.
///
/// # Panics
///
/// If `buffer` is shorter than the frame.
#[inline]
pub fn frame(
    buffer: &mut [u8],
    link: &LinkHeader,
    key: &FlowKey,
    header: &Header,
    payload_length: usize,
    payload: impl FnOnce(&mut [u8]),
) -> usize {
    frame_summed(buffer, link, key, header, payload_length, |text| {
        payload(text);
        TextSum::of(text)
    })
}

/// [`frame`], with a `payload` that also says the sum of what it has written.
#[inline(always)]
pub(crate) fn frame_summed(
    buffer: &mut [u8],
    link: &LinkHeader,
    tuple: &impl Tuple,
    header: &Header,
    payload_length: usize,
    payload: impl FnOnce(&mut [u8]) -> TextSum,
) -> usize {
    let options_length = header.options.length();
    let segment_length = TCP_HEADER + options_length + payload_length;
    if let Some(link) = link.untagged()
        && let Some(addresses) = tuple.addresses_v4()
        && let Some((headers, rest)) = buffer.split_first_chunk_mut()
    {
        let sum = options_and_text(rest, header, options_length, payload_length, payload);
        plain::write(
            headers,
            link,
            (addresses, tuple.ports()),
            header,
            options_length,
            segment_length,
            sum,
        );
        return plain::HEADERS - TCP_HEADER + segment_length;
    }
    let key = &tuple.key();
    let packet = link.write(buffer);
    let (ip_length, pseudo) = if key.is_v4() {
        ip::write_v4(packet, &key.local, &key.remote, header.ecn_capable, segment_length);
        let (source, destination) = (v4_octets(&key.local), v4_octets(&key.remote));
        (IPV4_HEADER, checksum::pseudo_v4(source, destination, segment_length))
    } else {
        ip::write_v6(packet, &key.local, &key.remote, header.ecn_capable, segment_length);
        (IPV6_HEADER, checksum::pseudo(&key.local, &key.remote, segment_length))
    };
    let (fixed, rest) = packet[ip_length..].split_at_mut(TCP_HEADER);
    let sum = pseudo + options_and_text(rest, header, options_length, payload_length, payload);
    // The sum is taken of the words before they are stored: to read them back in other sizes would wait for the stores.
    let mut words = header.words(tuple.ports(), options_length);
    let [first, second] = checksum::of_sum(sum + checksum::sum_words(words));
    words[4] = [first, second, 0, 0];
    for (place, word) in fixed.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word;
    }
    link.as_bytes().len() + ip_length + segment_length
}

/// Writes what comes after the fixed header to the front of `rest`, and returns its sum.
#[inline(always)]
fn options_and_text(
    rest: &mut [u8],
    header: &Header,
    options_length: usize,
    payload_length: usize,
    payload: impl FnOnce(&mut [u8]) -> TextSum,
) -> u64 {
    let (options, rest) = rest.split_at_mut(options_length);
    let mut sum = header.options.fill(options);
    if payload_length > 0 {
        sum += payload(&mut rest[..payload_length]).0;
    }
    sum
}

impl Header {
    /// The fixed part of the TCP header, its checksum zero.
    #[inline]
    pub(super) fn words(&self, (local, remote): (u16, u16), options_length: usize) -> [[u8; 4]; TCP_HEADER / 4] {
        let [high, low] = self.window.to_be_bytes();
        let data_offset = (((TCP_HEADER + options_length) / 4) as u8) << 4;
        [
            (u32::from(local) << 16 | u32::from(remote)).to_be_bytes(),
            self.seq.0.to_be_bytes(),
            self.ack.0.to_be_bytes(),
            [data_offset, self.flags.0, high, low],
            [0; 4],
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Segment, options::Timestamps};
    use proptest::prelude::*;

    #[test]
    fn a_written_frame_is_read_back_by_the_peer() {
        for (local, remote) in [
            ("198.18.0.1:80", "198.18.0.2:1000"),
            ("[2001:2::1]:80", "[2001:2::2]:1000"),
        ] {
            let key = FlowKey::new(local.parse().unwrap(), remote.parse().unwrap());
            let link = LinkHeader::new([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], key.is_v4());
            let header = Header {
                seq: SeqNumber(1),
                ack: SeqNumber(2),
                flags: Flags::ACK | Flags::PSH,
                window: 1000,
                options: Options {
                    timestamps: Some(Timestamps { value: 3, echo: 4 }),
                    ..Options::default()
                },
                ecn_capable: true,
            };
            let mut buffer = [0xee; 200];
            let length = frame(&mut buffer, &link, &key, &header, 5, |payload| {
                payload.copy_from_slice(b"hello")
            });
            let segment = Segment::parse(&buffer[..length], true).unwrap();
            assert_eq!(segment.key.peer(), key.local());
            assert_eq!(segment.key.local(), key.peer());
            assert_eq!((segment.seq, segment.ack), (header.seq, header.ack));
            assert_eq!(segment.flags, header.flags);
            assert_eq!(segment.window, 1000);
            assert_eq!(segment.options, header.options);
            assert_eq!(segment.payload, b"hello");
            assert_eq!(segment.link.reply().as_bytes()[..6], link.as_bytes()[6..12]);
            for bit in 0..8 {
                let mut damaged = buffer;
                damaged[length - 1] ^= 1 << bit;
                assert!(Segment::parse(&damaged[..length], true).is_err());
            }
        }
    }
    proptest! {
        /// Every length is summed up in other steps.
        #[test]
        fn whatever_is_written_is_read_back(
            ipv4: bool,
            tags in 0..3_usize,
            numbers: (u32, u32, u16),
            flags: u8,
            timestamps: Option<(u32, u32)>,
            text in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let (local, remote) = if ipv4 {
                ("198.18.0.1:80", "198.18.0.2:1000")
            } else {
                ("[2001:2::1]:80", "[2001:2::2]:1000")
            };
            let key = FlowKey::new(local.parse().unwrap(), remote.parse().unwrap());
            let untagged = LinkHeader::new([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], ipv4);
            let (addresses, rest) = untagged.as_bytes().split_at(12);
            let tagged = [addresses, &[0x81, 0, 0, 7].repeat(tags)[..], rest].concat();
            // What answers the peer's frame.
            let (received, ..) = crate::wire::ethernet::parse(&tagged).unwrap();
            let link = received.reply();
            let header = Header {
                seq: SeqNumber(numbers.0),
                ack: SeqNumber(numbers.1),
                flags: Flags(flags),
                window: numbers.2,
                options: Options {
                    timestamps: timestamps.map(|(value, echo)| Timestamps { value, echo }),
                    ..Options::default()
                },
                ecn_capable: false,
            };
            let mut buffer = [0xee; 400];
            let length = frame(&mut buffer, &link, &key, &header, text.len(), |payload| payload.copy_from_slice(&text));
            prop_assert!(buffer[length..].iter().all(|&octet| octet == 0xee));
            let segment = Segment::parse(&buffer[..length], true);
            prop_assert!(segment.is_ok(), "{:?}", segment);
            let segment = segment.unwrap();
            prop_assert_eq!((segment.seq, segment.ack), (header.seq, header.ack));
            prop_assert_eq!((segment.flags, segment.window), (header.flags, header.window));
            prop_assert_eq!((segment.options, segment.payload), (header.options, &text[..]));
            prop_assert_eq!((segment.key.local(), segment.key.peer()), (key.peer(), key.local()));
        }
    }
}
