//! ICMP "too big": a router could not forward a segment that left a served address and port.
//!
//! Only what has to be known for a look-up is read here: which flow is meant, and not whether the message is to be
//! believed. The engine judges that, and verifies the checksum.

use tidegate_abi::ListenerKey;

use crate::frame::Frame;
use crate::headers::{IPV4_HEADER, IPV6_HEADER, IPV6_SOURCE, protocol};
use crate::parse::{Destination, Segment};

/// "Destination unreachable" (RFC 792).
const V4_DESTINATION_UNREACHABLE: u8 = 3;
/// Its code "fragmentation needed and DF set" (RFC 792; RFC 1191, section 4).
const V4_FRAGMENTATION_NEEDED: u8 = 4;
/// "Packet too big" (RFC 4443, section 3.2). Its code is to be ignored.
const V6_PACKET_TOO_BIG: u8 = 2;

/// Type, code, checksum, and four octets in which the MTU is.
const ICMP_HEADER: usize = 8;

/// The fragment offset of an IPv4 header (RFC 791, section 3.1).
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;

/// As much of the quoted segment as every message has (RFC 792): both ports and the sequence number.
const QUOTED_SEGMENT: usize = 8;

/// The destination of an ICMPv4 message of `length` octets at `offset` about a segment that was too big: the listener
/// whose it was. `None` if it says something else.
#[inline(always)]
pub fn too_big_v4(frame: Frame<'_>, offset: usize, length: usize) -> Option<Destination> {
    let icmp: &[u8; ICMP_HEADER] = frame.header(offset)?;
    if icmp[0] != V4_DESTINATION_UNREACHABLE || icmp[1] != V4_FRAGMENTATION_NEEDED {
        return None;
    }
    let quote = offset + ICMP_HEADER;
    let ip: &[u8; IPV4_HEADER] = frame.header(quote)?;
    let header_length = usize::from(ip[0] & 0x0f) * 4;
    if ip[0] >> 4 != 4
        || header_length < IPV4_HEADER
        || length < ICMP_HEADER + header_length + QUOTED_SEGMENT
        || u16::from_be_bytes([ip[6], ip[7]]) & IPV4_FRAGMENT_OFFSET != 0
        || ip[9] != protocol::TCP
    {
        return None;
    }
    let segment: &[u8; QUOTED_SEGMENT] = frame.header(quote + header_length)?;
    let port = u16::from_be_bytes([segment[0], segment[1]]);
    Some(Destination {
        listener: ListenerKey::v4([ip[12], ip[13], ip[14], ip[15]], port),
        segment: Segment::quoted(quote, header_length - IPV4_HEADER),
    })
}

/// [`too_big_v4`] of an ICMPv6 message. The engine sends no extension headers, so none are expected in the quote.
#[inline(always)]
pub fn too_big_v6(frame: Frame<'_>, offset: usize, length: usize) -> Option<Destination> {
    let icmp: &[u8; ICMP_HEADER] = frame.header(offset)?;
    if icmp[0] != V6_PACKET_TOO_BIG || length < ICMP_HEADER + IPV6_HEADER + QUOTED_SEGMENT {
        return None;
    }
    let quote = offset + ICMP_HEADER;
    let ip: &[u8; IPV6_HEADER] = frame.header(quote)?;
    if ip[0] >> 4 != 6 || ip[6] != protocol::TCP {
        return None;
    }
    let segment: &[u8; QUOTED_SEGMENT] = frame.header(quote + IPV6_HEADER)?;
    let port = u16::from_be_bytes([segment[0], segment[1]]);
    let source: &[u8; 16] = frame.header(quote + IPV6_SOURCE)?;
    Some(Destination {
        listener: ListenerKey::v6(*source, port),
        segment: Segment::quoted(quote, 0),
    })
}
