//! The headers of a frame, as far as a filter and a trace want to know them. Lenient: what a capture cut off, and what
//! an engine would refuse, is to be seen as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TPID_8021Q: u16 = 0x8100;
const TPID_8021AD: u16 = 0x88a8;
const MAX_TAGS: usize = 2;
/// Six extension headers, as the engine and the XDP program follow.
const MAX_EXTENSION_HEADERS: usize = 6;

/// The protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// The protocol number of UDP.
pub(crate) const UDP: u8 = 17;

/// The IP packet in a frame. Its headers are read as they are asked for: most of those that a filter sees it does not
/// want, and knows by their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    header: IpHeader<'a>,
    /// The octets behind [`Packet::header`].
    rest: &'a [u8],
}

/// The fixed part of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IpHeader<'a> {
    V4(&'a [u8; 20]),
    V6(&'a [u8; 40]),
}

/// An IP packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The protocol number: the last next header of IPv6.
    pub protocol: u8,
    /// Its octets, as the IP header says: more than [`Payload::octets`] has in a frame that was cut off.
    pub length: usize,
    /// Those that are there. None in a fragment that is not the first.
    pub octets: &'a [u8],
}

/// A prefix of addresses in the form in which a packet's are compared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    V4 { address: u32, mask: u32 },
    V6 { address: u128, mask: u128 },
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self::V4 {
                address: net.network().to_bits(),
                mask: net.netmask().to_bits(),
            },
            IpNet::V6(net) => Self::V6 {
                address: net.network().to_bits(),
                mask: net.netmask().to_bits(),
            },
        }
    }
}

/// The fixed part of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// Control bits.
    pub flags: u8,
    /// SEG.WND, not scaled.
    pub window: u16,
    /// Octets of text.
    pub text: usize,
}

impl<'a> Packet<'a> {
    /// The packet in a frame that begins with its Ethernet header; `None` if it is neither IPv4 nor IPv6.
    #[inline]
    pub fn of(frame: &'a [u8]) -> Option<Self> {
        let mut at = 12;
        let mut ethertype = word(frame, at)?;
        for _ in 0..MAX_TAGS {
            if !matches!(ethertype, TPID_8021Q | TPID_8021AD) {
                break;
            }
            at += 4;
            ethertype = word(frame, at)?;
        }
        let packet = &frame[at + 2..];
        match ethertype {
            ETHERTYPE_IPV4 => {
                let (fixed, rest) = packet.split_first_chunk()?;
                (fixed[0] >> 4 == 4 && header_length(fixed) >= fixed.len()).then_some(Self {
                    header: IpHeader::V4(fixed),
                    rest,
                })
            }
            ETHERTYPE_IPV6 => {
                let (fixed, rest) = packet.split_first_chunk()?;
                (fixed[0] >> 4 == 6).then_some(Self {
                    header: IpHeader::V6(fixed),
                    rest,
                })
            }
            _ => None,
        }
    }

    /// Source address.
    pub fn source(&self) -> IpAddr {
        match self.header {
            IpHeader::V4(fixed) => Ipv4Addr::from_bits(v4_address(fixed, 12)).into(),
            IpHeader::V6(fixed) => Ipv6Addr::from_bits(v6_address(fixed, 8)).into(),
        }
    }

    /// Destination address.
    pub fn destination(&self) -> IpAddr {
        match self.header {
            IpHeader::V4(fixed) => Ipv4Addr::from_bits(v4_address(fixed, 16)).into(),
            IpHeader::V6(fixed) => Ipv6Addr::from_bits(v6_address(fixed, 24)).into(),
        }
    }

    /// Whether it is IPv4; it is IPv6 otherwise.
    pub fn is_ipv4(&self) -> bool {
        matches!(self.header, IpHeader::V4(_))
    }

    /// Whether the source and the destination are in a prefix.
    #[inline]
    pub(crate) fn ends_in(&self, prefix: &Prefix) -> (bool, bool) {
        match (self.header, *prefix) {
            (IpHeader::V4(fixed), Prefix::V4 { address, mask }) => {
                let is_in = |at| v4_address(fixed, at) & mask == address;
                (is_in(12), is_in(16))
            }
            (IpHeader::V6(fixed), Prefix::V6 { address, mask }) => {
                let is_in = |at| v6_address(fixed, at) & mask == address;
                (is_in(8), is_in(24))
            }
            _ => (false, false),
        }
    }

    /// Its payload, behind all extension headers.
    pub fn payload(&self) -> Payload<'a> {
        match self.header {
            IpHeader::V4(fixed) => self.payload_of_v4(fixed),
            IpHeader::V6(fixed) => self.payload_of_v6(fixed),
        }
    }

    fn payload_of_v4(&self, fixed: &[u8; 20]) -> Payload<'a> {
        let header_length = header_length(fixed);
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]])).saturating_sub(header_length);
        let is_first = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff == 0;
        let octets = self.rest.get(header_length - fixed.len()..).filter(|_| is_first);
        Payload {
            protocol: fixed[9],
            length,
            octets: at_most(octets, length),
        }
    }

    fn payload_of_v6(&self, fixed: &[u8; 40]) -> Payload<'a> {
        let mut rest = self.rest;
        let mut length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let mut protocol = fixed[6];
        for _ in 0..MAX_EXTENSION_HEADERS {
            // Hop-by-hop options, routing and destination options; a fragment header has no length.
            let skipped = match (protocol, rest) {
                (0 | 43 | 60, [_, length, ..]) => (usize::from(*length) + 1) * 8,
                (44, [_, _, high, low, ..]) if u16::from_be_bytes([*high, *low]) & 0xfff8 == 0 => 8,
                _ => break,
            };
            protocol = rest[0];
            rest = rest.get(skipped..).unwrap_or_default();
            length = length.saturating_sub(skipped);
        }
        Payload {
            protocol,
            length,
            octets: at_most(Some(rest), length),
        }
    }

    /// The TCP header, if it is TCP and the fixed part is there.
    pub fn tcp(&self) -> Option<TcpHeader> {
        self.payload().tcp()
    }

    /// Both ends, if it is TCP or UDP: source, then destination.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let (source, destination) = self.payload().ports()?;
        Some((
            SocketAddr::new(self.source(), source),
            SocketAddr::new(self.destination(), destination),
        ))
    }
}

impl Payload<'_> {
    /// The ports, if it is TCP or UDP and they are there: source, then destination.
    pub fn ports(&self) -> Option<(u16, u16)> {
        if !matches!(self.protocol, TCP | UDP) {
            return None;
        }
        Some((word(self.octets, 0)?, word(self.octets, 2)?))
    }

    /// The TCP header, if it is TCP and the fixed part is there.
    pub fn tcp(&self) -> Option<TcpHeader> {
        let fixed: &[u8; 20] = self.octets.first_chunk().filter(|_| self.protocol == TCP)?;
        let long = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        Some(TcpHeader {
            source_port: word(fixed, 0)?,
            destination_port: word(fixed, 2)?,
            seq: long(4),
            ack: long(8),
            flags: fixed[13],
            window: word(fixed, 14)?,
            text: self.length.saturating_sub(usize::from(fixed[12] >> 4) * 4),
        })
    }
}

/// Octets of an IPv4 header.
fn header_length(fixed: &[u8; 20]) -> usize {
    usize::from(fixed[0] & 0x0f) * 4
}

fn v4_address(fixed: &[u8; 20], at: usize) -> u32 {
    u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
}

fn v6_address(fixed: &[u8; 40], at: usize) -> u128 {
    let mut octets = [0; 16];
    octets.copy_from_slice(&fixed[at..at + 16]);
    u128::from_be_bytes(octets)
}

fn word(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]))
}

/// The first `length` octets, or what there is of them.
fn at_most(octets: Option<&[u8]>, length: usize) -> &[u8] {
    let octets = octets.unwrap_or_default();
    &octets[..octets.len().min(length)]
}

#[cfg(test)]
pub(crate) mod tests {
    use etherparse::{PacketBuilder, VlanId};

    use super::*;

    /// A TCP segment of 198.18.0.1:40000 to 198.18.0.2:80 with this text, as `change` has it.
    pub(crate) fn frame(text: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([198, 18, 0, 1], [198, 18, 0, 2], 64)
            .tcp(40_000, 80, 1000, 2000)
            .ack(7);
        let mut frame = Vec::new();
        builder.write(&mut frame, text).expect("a frame");
        frame
    }

    #[test]
    fn headers_are_found_behind_tags_and_in_what_was_cut_off() {
        let whole = frame(b"text");
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .double_vlan(VlanId::try_new(1).expect("an id"), VlanId::try_new(2).expect("an id"))
            .ipv6([0x20; 16], [0x21; 16], 64)
            .tcp(1, 2, 3, 4)
            .syn();
        let mut tagged = Vec::new();
        builder.write(&mut tagged, b"").expect("a frame");

        let packet = Packet::of(&whole).expect("IPv4");
        let tcp = packet.tcp().expect("TCP");
        assert_eq!(
            (tcp.seq, tcp.ack, tcp.flags, tcp.window, tcp.text),
            (1000, 7, 0x10, 2000, 4)
        );
        let ends = packet.ends().expect("ports");
        assert_eq!(
            ends,
            ("198.18.0.1:40000".parse().unwrap(), "198.18.0.2:80".parse().unwrap())
        );
        // The same without its text, which is known of all the same.
        let cut = Packet::of(&whole[..whole.len() - 4]).expect("IPv4");
        assert_eq!(cut.tcp(), Some(tcp));
        assert_eq!(
            Packet::of(&tagged).and_then(|packet| packet.payload().ports()),
            Some((1, 2))
        );
    }

    #[test]
    fn no_frame_is_too_short_to_be_looked_at() {
        let whole = frame(b"text");
        for length in 0..whole.len() {
            let packet = Packet::of(&whole[..length]);
            assert_eq!(packet.is_some(), length >= 34, "{length}");
            let tcp = packet.and_then(|packet| packet.tcp());
            assert_eq!(tcp.is_some(), length >= 54, "{length}");
        }
    }
}
