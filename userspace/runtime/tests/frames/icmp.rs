//! ICMP messages and the packets they quote.

use etherparse::PacketBuilder;

use super::{CLIENT_MAC, CLIENT_PORT, CLIENT_V4, CLIENT_V6, HOP_LIMIT, PORT, SERVER_MAC, SERVER_V4, SERVER_V6};

/// Octets of an ICMP header of either version.
pub(crate) const ICMP_HEADER: usize = 8;

/// A router between the two.
const ROUTER_V4: [u8; 4] = [198, 18, 0, 254];
const ROUTER_V6: [u8; 16] = [0x20, 0x01, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];

/// The four octets after the checksum, with an MTU of 1400.
const MTU: [u8; 4] = [0, 0, 0x05, 0x78];

/// Sequence number of the quoted segments.
const SEQUENCE_NUMBER: u32 = 0x0102_0304;

/// An IPv4 packet of the served flow, from the server on: 20 octets of IP, 20 of TCP, then `text`.
pub(crate) fn packet_v4(text: &[u8]) -> Vec<u8> {
    packet_v4_from(SERVER_V4, PORT, text)
}

/// The same from `address` and `port`.
pub(crate) fn packet_v4_from(address: [u8; 4], port: u16, text: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(address, CLIENT_V4, HOP_LIMIT)
        .tcp(port, CLIENT_PORT, SEQUENCE_NUMBER, u16::MAX)
        .ack(1)
        .write(&mut packet, text)
        .expect("a vector takes every packet");
    packet
}

/// An IPv6 packet of the served flow, from the server on: 40 octets of IP, 20 of TCP, then `text`.
pub(crate) fn packet_v6(text: &[u8]) -> Vec<u8> {
    packet_v6_from(SERVER_V6, PORT, text)
}

/// The same from `address` and `port`.
pub(crate) fn packet_v6_from(address: [u8; 16], port: u16, text: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(address, CLIENT_V6, HOP_LIMIT)
        .tcp(port, CLIENT_PORT, SEQUENCE_NUMBER, u16::MAX)
        .ack(1)
        .write(&mut packet, text)
        .expect("a vector takes every packet");
    packet
}

/// "Fragmentation needed and DF set", quoting `quote`, from a router to the server.
pub(crate) fn too_big_v4(quote: &[u8]) -> Vec<u8> {
    icmp_v4(3, 4, quote)
}

/// "Packet too big", quoting `quote`, from a router to the server.
pub(crate) fn too_big_v6(quote: &[u8]) -> Vec<u8> {
    icmp_v6(2, 0, quote)
}

/// An ICMPv4 message of any kind, with `body` after its header.
pub(crate) fn icmp_v4(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, SERVER_MAC)
        .ipv4(ROUTER_V4, SERVER_V4, HOP_LIMIT)
        .icmpv4_raw(kind, code, MTU)
        .write(&mut frame, body)
        .expect("a vector takes every frame");
    frame
}

/// An ICMPv6 message of any kind, with `body` after its header.
pub(crate) fn icmp_v6(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, SERVER_MAC)
        .ipv6(ROUTER_V6, SERVER_V6, HOP_LIMIT)
        .icmpv6_raw(kind, code, MTU)
        .write(&mut frame, body)
        .expect("a vector takes every frame");
    frame
}
