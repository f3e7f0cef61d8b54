//! A frame that is made once and then only changed where clients differ.

use core::net::SocketAddr;

use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::emit::{self, Header};
use tidegate_tcp::wire::{Flags, FlowKey, LinkHeader, Options};

use crate::addresses::{CLIENT_MAC, Endpoint, SERVER, SERVER_MAC};

// Offsets in an untagged frame with an IPv4 header without options.
pub(crate) const IP: usize = 14;
pub(crate) const IP_TOTAL_LENGTH: usize = IP + 2;
const IP_CHECKSUM: usize = IP + 10;
const IP_SOURCE: usize = IP + 12;
pub(crate) const IP_DESTINATION: usize = IP + 16;
pub(crate) const TCP: usize = IP + 20;
const SOURCE_PORT: usize = TCP;
pub(crate) const DESTINATION_PORT: usize = TCP + 2;
pub(crate) const SEQ: usize = TCP + 4;
pub(crate) const ACK: usize = TCP + 8;
pub(crate) const DATA_OFFSET: usize = TCP + 12;
pub(crate) const FLAGS: usize = TCP + 13;
const TCP_CHECKSUM: usize = TCP + 16;

/// Room for a full Ethernet frame.
const MAX_FRAME: usize = 1514;

/// The 16 bits at `at`, host byte order.
#[inline]
pub(crate) fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// The 32 bits at `at`, host byte order.
#[inline]
pub(crate) fn long(frame: &[u8], at: usize) -> u32 {
    u32::from(word(frame, at)) << 16 | u32::from(word(frame, at + 2))
}

/// A client's frame with address, port, sequence number and acknowledgment zero.
pub(crate) struct Template {
    frame: Vec<u8>,
    /// One's complement sum of the IPv4 header, without what is zero here (RFC 1071).
    ip_sum: u32,
    /// The same of pseudo-header and segment.
    tcp_sum: u32,
    /// Sequence space the segment takes.
    pub(crate) length: u32,
}

impl Template {
    pub(crate) fn new(flags: Flags, options: Options, payload: &[u8]) -> Self {
        let nobody = SocketAddr::from(([0; 4], 0));
        let key = FlowKey::new(nobody, SERVER);
        let link = LinkHeader::new(SERVER_MAC, CLIENT_MAC, true);
        let header = Header {
            seq: SeqNumber(0),
            ack: SeqNumber(0),
            flags,
            window: u16::MAX,
            options,
            ecn_capable: false,
        };
        let mut frame = vec![0; MAX_FRAME];
        let length = emit::frame(&mut frame, &link, &key, &header, payload.len(), |text| {
            text.copy_from_slice(payload);
        });
        frame.truncate(length);
        let takes_number = flags.intersects(Flags::SYN | Flags::FIN);
        Self {
            ip_sum: u32::from(!word(&frame, IP_CHECKSUM)),
            tcp_sum: u32::from(!word(&frame, TCP_CHECKSUM)),
            length: payload.len() as u32 + u32::from(takes_number),
            frame,
        }
    }

    /// Writes the frame of the client at `from` and returns its length.
    #[inline]
    pub(crate) fn write(&self, from: Endpoint, seq: u32, ack: u32, buffer: &mut [u8]) -> usize {
        let frame = &mut buffer[..self.frame.len()];
        frame.copy_from_slice(&self.frame);
        frame[IP_SOURCE..IP_SOURCE + 4].copy_from_slice(&from.address.to_be_bytes());
        frame[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&from.port.to_be_bytes());
        frame[SEQ..SEQ + 4].copy_from_slice(&seq.to_be_bytes());
        frame[ACK..ACK + 4].copy_from_slice(&ack.to_be_bytes());
        let address = halves(from.address);
        let ip = self.ip_sum + address;
        let tcp = self.tcp_sum + address + u32::from(from.port) + halves(seq) + halves(ack);
        frame[IP_CHECKSUM..IP_CHECKSUM + 2].copy_from_slice(&checksum(ip).to_be_bytes());
        frame[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&checksum(tcp).to_be_bytes());
        frame.len()
    }
}

#[inline]
fn halves(long: u32) -> u32 {
    (long >> 16) + (long & 0xffff)
}

#[inline]
fn checksum(sum: u32) -> u16 {
    !(halves(halves(sum)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::CLIENTS;
    use tidegate_tcp::wire::Segment;

    #[test]
    fn a_changed_frame_has_the_right_checksums() {
        let mut random = fastrand::Rng::with_seed(1);
        let syn_options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            ..Options::default()
        };
        let templates = [
            Template::new(Flags::SYN, syn_options, b""),
            Template::new(Flags::ACK, Options::default(), b""),
            Template::new(Flags::ACK | Flags::PSH, Options::default(), b"an odd length"),
        ];
        for turn in 0..10_000_usize {
            let from = Endpoint::of_client(random.u64(..CLIENTS));
            let (seq, ack) = (random.u32(..), random.u32(..));
            let mut buffer = [0xee; 2048];
            let length = templates[turn % 3].write(from, seq, ack, &mut buffer);
            let segment = Segment::parse(&buffer[..length], true).expect("the frame is damaged");
            assert_eq!(segment.key, FlowKey::new(SERVER, from.socket_address()));
            assert_eq!((segment.seq, segment.ack), (SeqNumber(seq), SeqNumber(ack)));
            assert_eq!(segment.length(), templates[turn % 3].length);
        }
    }
}
