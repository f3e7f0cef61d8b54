//! TCP segments to the served destinations: from anyone, with any control bits, options and text.

use std::net::IpAddr;

use etherparse::{PacketBuilder, TcpHeader};

use super::{CLIENT_MAC, CLIENT_PORT, CLIENT_V4, CLIENT_V6, PORT, SERVER_MAC, SERVER_V4, SERVER_V6, V4_TCP, V6_TCP};

/// Control bits (RFC 9293, section 3.1; RFC 3168, section 6.1).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// Octets of a TCP header without options.
const TCP_HEADER: usize = 20;

/// Not the hop limit of any system, so that one that was copied is seen.
const HOP_LIMIT: u8 = 51;

const WINDOW: u16 = 0x1234;

/// The clients of both families.
pub(crate) fn clients() -> [IpAddr; 2] {
    [IpAddr::from(CLIENT_V4), IpAddr::from(CLIENT_V6)]
}

/// A segment to the served destination of its source's family.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) source: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence_number: u32,
    /// The control bits, CWR to FIN.
    pub(crate) flags: u8,
    /// Up to 40 octets. The frame has zeros behind them, up to the next multiple of 4.
    pub(crate) options: Vec<u8>,
    pub(crate) text: Vec<u8>,
}

impl Segment {
    /// A SYN without options or text.
    pub(crate) fn syn(source: IpAddr) -> Self {
        Self {
            source,
            source_port: CLIENT_PORT,
            destination_port: PORT,
            sequence_number: 0x89ab_cdef,
            flags: SYN,
            options: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Octets of the TCP header.
    pub(crate) fn header_length(&self) -> usize {
        TCP_HEADER + self.options.len().next_multiple_of(4)
    }

    /// Offset of the TCP header in an untagged frame.
    pub(crate) fn offset(&self) -> usize {
        match self.source {
            IpAddr::V4(_) => V4_TCP,
            IpAddr::V6(_) => V6_TCP,
        }
    }

    /// The segment in an untagged frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut header = TcpHeader::new(self.source_port, self.destination_port, self.sequence_number, WINDOW);
        header
            .set_options_raw(&self.options)
            .expect("there are at most 40 octets of options");
        let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, SERVER_MAC);
        let ip = match self.source {
            IpAddr::V4(source) => ethernet.ipv4(source.octets(), SERVER_V4, HOP_LIMIT),
            IpAddr::V6(source) => ethernet.ipv6(source.octets(), SERVER_V6, HOP_LIMIT),
        };
        let mut frame = Vec::new();
        ip.tcp_header(header)
            .write(&mut frame, &self.text)
            .expect("a vector takes every frame");
        frame[self.offset() + 13] = self.flags;
        frame
    }
}
