//! From a frame's bytes to the destination it is looked up by.
//!
//! Every header is read through [`Frame::header`].

use tidegate_abi::{ListenerKey, XdpCounter};

use crate::frame::Frame;
use crate::headers::{IPV4_HEADER, IPV6_HEADER, TCP_HEADER, protocol};
use crate::icmp;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q customer tag.
const ETHERTYPE_VLAN: u16 = 0x8100;
/// IEEE 802.1ad service tag, the outer one of two.
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// The group bit of an Ethernet address: multicast, or broadcast.
const GROUP_BIT: u8 = 0x01;

/// Octets of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;
pub const VLAN_TAG: usize = 4;
/// Tags that are skipped: a service tag and a customer tag.
const MAX_VLAN_TAGS: usize = 2;

/// "More fragments" and the fragment offset (RFC 791, section 3.1). "Don't fragment" is not among them.
pub const IPV4_FRAGMENT: u16 = 0x3fff;

/// The fragment offset and "more fragments" of a fragment header (RFC 8200, section 4.5). Two reserved bits are not
/// among them.
const IPV6_FRAGMENT: u16 = 0xfff9;
/// Extension headers are a multiple of 8 octets long, and never shorter (RFC 8200, section 4).
const EXTENSION_UNIT: usize = 8;
/// Extension headers that are walked before the rest is left to the kernel. The verifier wants a bound; clients send
/// one or none.
const MAX_EXTENSION_HEADERS: usize = 6;

/// Where the headers of a TCP segment are. Whole words, since LLVM copies what is between smaller fields as well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset of the IP header, and with it how many VLAN tags there are.
    pub ip: usize,
    /// The segment's control bits, CWR to FIN, in the lowest octet.
    pub flags: usize,
    /// Octets of the TCP header, 20 to 60.
    pub header_length: usize,
    /// Octets of the segment, from the TCP header to the end of the text.
    pub length: usize,
    /// Octets of IPv4 options or IPv6 extension headers between the IP header and the TCP header.
    pub between: usize,
}

impl Segment {
    /// One that ICMP quotes, whose IP header is at `ip`. Its length, which is not known, is 0.
    #[inline(always)]
    pub fn quoted(ip: usize, between: usize) -> Self {
        Self {
            ip,
            flags: 0,
            header_length: 0,
            length: 0,
            between,
        }
    }

    /// All of it and the IP version in one word, since functions take few.
    #[inline(always)]
    pub fn packed(&self, version: u8) -> u64 {
        self.ip as u64
            | (self.between as u64) << 8
            | (self.header_length as u64) << 24
            | (self.flags as u64) << 32
            | u64::from(version) << 40
            | (self.length as u64) << 48
    }

    /// The segment and the IP version of [`Segment::packed`].
    #[inline(always)]
    pub fn unpacked(word: u64) -> (Self, u8) {
        let segment = Self {
            ip: (word & 0xff) as usize,
            flags: (word >> 32 & 0xff) as usize,
            header_length: (word >> 24 & 0x3c) as usize,
            length: (word >> 48) as usize,
            between: (word >> 8 & 0xffff) as usize,
        };
        (segment, (word >> 40) as u8)
    }

    /// Whether the TCP header follows the fixed part of the IP header.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.between == 0
    }
}

/// The destination of a frame.
pub struct Destination {
    /// The address and port it is looked up by: a segment's destination, or the source of the one that was too big.
    pub listener: ListenerKey,
    /// The segment that it brings, or that ICMP "too big" in it quotes.
    pub segment: Segment,
}

impl Destination {
    /// Whether the frame brings ICMP "too big" about a segment, and not one.
    #[inline(always)]
    pub fn is_too_big(&self) -> bool {
        self.segment.length == 0
    }
}

/// Returns the destination of a frame that holds a whole TCP header, or ICMP "too big" that quotes one; else why it is
/// not looked up. `length`: that of a frame that may lie in several buffers, of which the first has all headers.
#[inline(always)]
pub fn destination(frame: Frame<'_>, length: Option<u64>) -> Result<Destination, XdpCounter> {
    let (ethertype, offset) = network(frame)?;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset, length),
        ETHERTYPE_IPV6 => ipv6(frame, offset, length),
        _ if is_vlan(ethertype) => Err(XdpCounter::PassVlanDepth),
        _ => Err(XdpCounter::PassNotIp),
    }
}

/// The type and the offset of what is behind the Ethernet header and its tags.
#[inline(always)]
pub fn network(frame: Frame<'_>) -> Result<(u16, usize), XdpCounter> {
    let ethernet: &[u8; ETHERNET_HEADER] = frame.first().ok_or(XdpCounter::PassMalformed)?;
    if ethernet[0] & GROUP_BIT != 0 {
        return Err(XdpCounter::PassNotUnicast);
    }

    let mut ethertype = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    let mut offset = ETHERNET_HEADER;
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(ethertype) {
            break;
        }
        let tag: &[u8; VLAN_TAG] = frame.header(offset).ok_or(XdpCounter::PassMalformed)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        offset += VLAN_TAG;
    }
    Ok((ethertype, offset))
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN
}

/// The destination of the IPv4 packet at `offset` (RFC 791, section 3.1).
#[inline(always)]
pub fn ipv4(frame: Frame<'_>, offset: usize, frame_length: Option<u64>) -> Result<Destination, XdpCounter> {
    let ip: &[u8; IPV4_HEADER] = frame.header(offset).ok_or(XdpCounter::PassMalformed)?;
    let header_length = usize::from(ip[0] & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if ip[0] >> 4 != 4
        || header_length < IPV4_HEADER
        || total_length < header_length
        || !frame.reaches(offset, total_length, frame_length)
    {
        return Err(XdpCounter::PassMalformed);
    }
    // The first fragment as well: the kernel can put a packet together only if it sees all of it.
    if u16::from_be_bytes([ip[6], ip[7]]) & IPV4_FRAGMENT != 0 {
        return Err(XdpCounter::PassFragment);
    }
    let (payload, length) = (offset + header_length, total_length - header_length);
    match ip[9] {
        protocol::TCP => {
            let (port, flags, header_length) = tcp(frame, payload, length)?;
            Ok(Destination {
                listener: ListenerKey::v4([ip[16], ip[17], ip[18], ip[19]], port),
                segment: Segment {
                    ip: offset,
                    flags,
                    header_length,
                    length,
                    between: payload - (offset + IPV4_HEADER),
                },
            })
        }
        protocol::ICMPV4 => icmp::too_big_v4(frame, payload, length).ok_or(XdpCounter::PassNotTcp),
        _ => Err(XdpCounter::PassNotTcp),
    }
}

/// The destination of the IPv6 packet at `offset`, past its extension headers (RFC 8200, sections 3 and 4).
#[inline(always)]
pub fn ipv6(frame: Frame<'_>, offset: usize, frame_length: Option<u64>) -> Result<Destination, XdpCounter> {
    let ip: &[u8; IPV6_HEADER] = frame.header(offset).ok_or(XdpCounter::PassMalformed)?;
    let payload_length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    if ip[0] >> 4 != 6 || !frame.reaches(offset, IPV6_HEADER + payload_length, frame_length) {
        return Err(XdpCounter::PassMalformed);
    }

    let mut next = ip[6];
    let ip_offset = offset;
    let plain = next == protocol::TCP;
    let mut offset = offset + IPV6_HEADER;
    // Routers put no extension header before it; behind one it is left to the kernel.
    if next == protocol::ICMPV6 {
        return icmp::too_big_v6(frame, offset, payload_length).ok_or(XdpCounter::PassNotTcp);
    }

    // Octets of the packet from `offset` to its end.
    let mut left = payload_length;
    // Most have none, and are told by one comparison.
    let headers = if plain { 0 } else { MAX_EXTENSION_HEADERS };
    for _ in 0..headers {
        if !is_walked(next) {
            break;
        }
        let extension: &[u8; EXTENSION_UNIT] = frame.header(offset).ok_or(XdpCounter::PassMalformed)?;
        let length = if next == protocol::FRAGMENT {
            if u16::from_be_bytes([extension[2], extension[3]]) & IPV6_FRAGMENT != 0 {
                return Err(XdpCounter::PassFragment);
            }
            // An atomic fragment: a whole packet (RFC 6946). This header has a fixed length, and a reserved octet in
            // the place of its length.
            EXTENSION_UNIT
        } else {
            (usize::from(extension[1]) + 1) * EXTENSION_UNIT
        };
        if length > left {
            return Err(XdpCounter::PassMalformed);
        }
        // With segments left, the destination in the IPv6 header is not the final one (RFC 8200, section 4.4).
        if next == protocol::ROUTING && extension[3] != 0 {
            return Err(XdpCounter::PassExtensionHeader);
        }
        next = extension[0];
        offset += length;
        left -= length;
    }

    match next {
        protocol::TCP => {
            let (port, flags, header_length) = tcp(frame, offset, left)?;
            let &[.., a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = ip;
            Ok(Destination {
                listener: ListenerKey::v6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], port),
                segment: Segment {
                    ip: ip_offset,
                    flags,
                    header_length,
                    length: left,
                    between: payload_length - left,
                },
            })
        }
        _ => Err(not_tcp(next)),
    }
}

/// Why the kernel gets an IPv6 packet whose chain of headers ends with `next` where a TCP header should be.
#[inline(always)]
fn not_tcp(next: u8) -> XdpCounter {
    match next {
        protocol::FRAGMENT => XdpCounter::PassFragment,
        protocol::ENCAPSULATING_SECURITY_PAYLOAD
        | protocol::AUTHENTICATION
        | protocol::MOBILITY
        | protocol::HOST_IDENTITY
        | protocol::SHIM6
        | protocol::EXPERIMENT_1
        | protocol::EXPERIMENT_2 => XdpCounter::PassExtensionHeader,
        _ if is_walked(next) => XdpCounter::PassExtensionHeader,
        _ => XdpCounter::PassNotTcp,
    }
}

/// Whether an extension header of this kind is walked past; a fragment header only in an atomic fragment.
#[inline(always)]
fn is_walked(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS | protocol::FRAGMENT
    )
}

/// The destination port, in host byte order, the control bits and the octets of the header of the TCP segment of
/// `length` octets at `offset` (RFC 9293, section 3.1).
#[inline(always)]
fn tcp(frame: Frame<'_>, offset: usize, length: usize) -> Result<(u16, usize, usize), XdpCounter> {
    let tcp: &[u8; TCP_HEADER] = frame.header(offset).ok_or(XdpCounter::PassMalformed)?;
    let data_offset = usize::from(tcp[12] >> 4) * 4;
    if data_offset < TCP_HEADER || data_offset > length {
        return Err(XdpCounter::PassMalformed);
    }
    Ok((u16::from_be_bytes([tcp[2], tcp[3]]), tcp[13].into(), data_offset))
}
