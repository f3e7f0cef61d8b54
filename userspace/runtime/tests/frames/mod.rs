//! Frames for the XDP program: whole ones from etherparse, and the edits that make them special.
//!
//! Edits keep the length fields true, but not the checksums: the XDP program leaves those to the engine.

pub(crate) mod icmp;
pub(crate) mod outer;
pub(crate) mod segment;

use etherparse::PacketBuilder;
use tidegate_abi::ListenerKey;

use crate::{SERVICE_VLAN, VLAN};

/// Length of an Ethernet header, and so the offset of the IP header of an untagged frame.
pub(crate) const IP: usize = 14;
/// Offset of the TCP header of a frame by [`tcp_v4`].
pub(crate) const V4_TCP: usize = IP + 20;
/// Offset of the TCP header of a frame by [`tcp_v6`].
pub(crate) const V6_TCP: usize = IP + 40;

/// Port of the served destinations.
pub(crate) const PORT: u16 = 8080;
/// Address of the served IPv4 destination.
pub(crate) const SERVER_V4: [u8; 4] = [198, 18, 0, 1];
/// Address of the served IPv6 destination, 2001:2::1.
pub(crate) const SERVER_V6: [u8; 16] = [0x20, 0x01, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Address of the IPv4 client.
pub(crate) const CLIENT_V4: [u8; 4] = [198, 18, 0, 2];
/// Address of the IPv6 client, 2001:2::2.
pub(crate) const CLIENT_V6: [u8; 16] = [0x20, 0x01, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const CLIENT_PORT: u16 = 40_000;
const SERVER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
const HOP_LIMIT: u8 = 64;

/// The key that [`tcp_v4`] frames are looked up by.
pub(crate) fn served_v4() -> ListenerKey {
    ListenerKey::v4(SERVER_V4, PORT)
}

/// The key that [`tcp_v6`] frames are looked up by.
pub(crate) fn served_v6() -> ListenerKey {
    ListenerKey::v6(SERVER_V6, PORT)
}

/// An ACK without options or text to the served IPv4 destination.
pub(crate) fn tcp_v4() -> Vec<u8> {
    tcp_v4_to(SERVER_V4, PORT)
}

/// An ACK without options or text to `address` and `port`.
pub(crate) fn tcp_v4_to(address: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, SERVER_MAC)
        .ipv4(CLIENT_V4, address, HOP_LIMIT)
        .tcp(CLIENT_PORT, port, 1, u16::MAX)
        .ack(1)
        .write(&mut frame, &[])
        .expect("a vector takes every frame");
    frame
}

/// An ACK without options or text to the served IPv6 destination.
pub(crate) fn tcp_v6() -> Vec<u8> {
    tcp_v6_to(SERVER_V6, PORT)
}

/// An ACK without options or text to `address` and `port`.
pub(crate) fn tcp_v6_to(address: [u8; 16], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, SERVER_MAC)
        .ipv6(CLIENT_V6, address, HOP_LIMIT)
        .tcp(CLIENT_PORT, port, 1, u16::MAX)
        .ack(1)
        .write(&mut frame, &[])
        .expect("a vector takes every frame");
    frame
}

/// Offset of the IP header of `frame`, which may be tagged.
pub(crate) fn ip_offset(frame: &[u8]) -> usize {
    const TAG: usize = 4;
    let mut offset = IP;
    while matches!(
        u16::from_be_bytes([frame[offset - 2], frame[offset - 1]]),
        VLAN | SERVICE_VLAN
    ) {
        offset += TAG;
    }
    offset
}

/// Writes `value` in network byte order at `offset`.
pub(crate) fn set_u16(frame: &mut [u8], offset: usize, value: u16) {
    frame[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

fn add_u16(frame: &mut [u8], offset: usize, value: usize) {
    let sum = usize::from(u16::from_be_bytes([frame[offset], frame[offset + 1]])) + value;
    set_u16(
        frame,
        offset,
        u16::try_from(sum).expect("a length field holds the length"),
    );
}

/// `frame` with an 802.1Q or 802.1ad tag for each of `tag_protocols`, the outermost first.
pub(crate) fn with_vlan_tags(frame: &[u8], tag_protocols: &[u16]) -> Vec<u8> {
    const ADDRESSES: usize = 12;
    let mut tagged = frame[..ADDRESSES].to_vec();
    for (vlan, tag_protocol) in (1_u16..).zip(tag_protocols) {
        tagged.extend_from_slice(&tag_protocol.to_be_bytes());
        tagged.extend_from_slice(&vlan.to_be_bytes());
    }
    tagged.extend_from_slice(&frame[ADDRESSES..]);
    tagged
}

/// An IPv4 `frame` with `words` times 4 octets of no-operation options in its IP header.
pub(crate) fn with_ipv4_options(frame: &[u8], words: u8) -> Vec<u8> {
    const NO_OPERATION: u8 = 1;
    let length = usize::from(words) * 4;
    let mut longer = frame[..V4_TCP].to_vec();
    longer.resize(V4_TCP + length, NO_OPERATION);
    longer.extend_from_slice(&frame[V4_TCP..]);
    longer[IP] += words;
    add_u16(&mut longer, IP + 2, length);
    longer
}

/// An IPv6 `frame` with extension headers, each given as its kind and its octets; the first octet is filled in.
pub(crate) fn with_extension_headers(frame: &[u8], headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut longer = frame[..V6_TCP].to_vec();
    let mut next_header = IP + 6;
    let last = longer[next_header];
    for (kind, octets) in headers {
        longer[next_header] = *kind;
        next_header = longer.len();
        longer.extend_from_slice(octets);
    }
    longer[next_header] = last;
    let added = longer.len() - V6_TCP;
    longer.extend_from_slice(&frame[V6_TCP..]);
    add_u16(&mut longer, IP + 4, added);
    longer
}

/// An extension header of `8 * (units + 1)` octets, empty but for its length.
pub(crate) fn extension_header(units: u8) -> Vec<u8> {
    let mut octets = vec![0; 8 * (usize::from(units) + 1)];
    octets[1] = units;
    octets
}

/// `frame`, whose TCP header is at `tcp` and nothing follows it, with `words` times 4 octets of no-operation options.
pub(crate) fn with_tcp_options(frame: &[u8], tcp: usize, words: u8) -> Vec<u8> {
    const NO_OPERATION: u8 = 1;
    let length = usize::from(words) * 4;
    let mut longer = frame.to_vec();
    longer.resize(frame.len() + length, NO_OPERATION);
    longer[tcp + 12] += words << 4;
    let length_field = if tcp == V4_TCP { IP + 2 } else { IP + 4 };
    add_u16(&mut longer, length_field, length);
    longer
}
