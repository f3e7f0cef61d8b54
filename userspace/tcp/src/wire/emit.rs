//! Writing a frame.

use super::address::FlowKey;
use super::checksum;
use super::ethernet::LinkHeader;
use super::ip::{self, IPV4_HEADER, IPV6_HEADER};
use super::options::Options;
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
/// `payload` fills exactly the `payload_length` bytes it is given.
///
/// # Panics
///
/// When `buffer` is shorter than the frame.
#[inline]
pub fn frame(
    buffer: &mut [u8],
    link: &LinkHeader,
    key: &FlowKey,
    header: &Header,
    payload_length: usize,
    payload: impl FnOnce(&mut [u8]),
) -> usize {
    let link_bytes = link.as_bytes();
    buffer[..link_bytes.len()].copy_from_slice(link_bytes);
    let packet = &mut buffer[link_bytes.len()..];
    let options_length = header.options.length();
    let segment_length = TCP_HEADER + options_length + payload_length;
    let ip_length = if key.is_v4() {
        ip::write_v4(packet, &key.local, &key.remote, header.ecn_capable, segment_length);
        IPV4_HEADER
    } else {
        ip::write_v6(packet, &key.local, &key.remote, header.ecn_capable, segment_length);
        IPV6_HEADER
    };
    let segment = &mut packet[ip_length..ip_length + segment_length];
    segment[0..2].copy_from_slice(&key.local_port.to_be_bytes());
    segment[2..4].copy_from_slice(&key.remote_port.to_be_bytes());
    segment[4..8].copy_from_slice(&header.seq.0.to_be_bytes());
    segment[8..12].copy_from_slice(&header.ack.0.to_be_bytes());
    segment[12] = (((TCP_HEADER + options_length) / 4) as u8) << 4;
    segment[13] = header.flags.0;
    segment[14..16].copy_from_slice(&header.window.to_be_bytes());
    segment[16..20].fill(0);
    header.options.write(&mut segment[TCP_HEADER..]);
    payload(&mut segment[TCP_HEADER + options_length..]);
    let sum = checksum::tcp(&key.local, &key.remote, segment);
    segment[16..18].copy_from_slice(&sum.to_ne_bytes());
    link_bytes.len() + ip_length + segment_length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Segment, options::Timestamps};

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
            assert_eq!(segment.reply_link.as_bytes()[..6], link.as_bytes()[6..12]);
            for bit in 0..8 {
                let mut damaged = buffer;
                damaged[length - 1] ^= 1 << bit;
                assert!(Segment::parse(&damaged[..length], true).is_err());
            }
        }
    }
}
