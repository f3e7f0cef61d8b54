//! TCP segments in Ethernet frames, read and written without help from the engine: what checks it must not share its
//! mistakes.

use std::net::{IpAddr, SocketAddr};

/// Length of an Ethernet header without VLAN tags.
pub const ETHERNET_HEADER: usize = 14;

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;

/// Control bit FIN.
pub const FIN: u8 = 0x01;
/// Control bit SYN.
pub const SYN: u8 = 0x02;
/// Control bit RST.
pub const RST: u8 = 0x04;
/// Control bit PSH.
pub const PSH: u8 = 0x08;
/// Control bit ACK.
pub const ACK: u8 = 0x10;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Ethernet address.
    pub mac: [u8; 6],
    /// IP address and port.
    pub address: SocketAddr,
}

/// The beginnings of the parts of a frame, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The TCP header.
    pub tcp: usize,
    /// The TCP options; they end where the text begins.
    pub options: usize,
    /// The text.
    pub text: usize,
    /// The end of the text, link padding excluded.
    pub end: usize,
}

/// A segment as it stands in its frame. Checksums are not verified.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// Control bits.
    pub flags: u8,
    /// SEG.WND, not scaled.
    pub window: u16,
    /// The option field.
    pub options: &'a [u8],
    /// The text.
    pub text: &'a [u8],
    /// The offsets of all parts.
    pub layout: Layout,
}

impl<'a> View<'a> {
    /// Reads a frame without VLAN tags; `None` for anything but TCP directly over IPv4 or IPv6.
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        let ethertype = u16_at(frame, 12)?;
        let packet = frame.get(ETHERNET_HEADER..)?;
        let (source, destination, header, end) = match ethertype {
            ETHERTYPE_IPV4 => {
                if *packet.get(9)? != PROTOCOL_TCP {
                    return None;
                }
                let header = usize::from(packet[0] & 0x0f) * 4;
                let address = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
                (address(12)?, address(16)?, header, usize::from(u16_at(packet, 2)?))
            }
            ETHERTYPE_IPV6 => {
                if *packet.get(6)? != PROTOCOL_TCP {
                    return None;
                }
                let address = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?));
                (address(8)?, address(24)?, 40, 40 + usize::from(u16_at(packet, 4)?))
            }
            _ => return None,
        };
        let segment = packet.get(header..end)?;
        let fixed: &[u8; 20] = segment.first_chunk()?;
        let text = usize::from(fixed[12] >> 4) * 4;
        let options = segment.get(20..text)?;
        let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let tcp = ETHERNET_HEADER + header;
        Some(Self {
            source: SocketAddr::new(source, u16::from_be_bytes([fixed[0], fixed[1]])),
            destination: SocketAddr::new(destination, u16::from_be_bytes([fixed[2], fixed[3]])),
            seq: word(4),
            ack: word(8),
            flags: fixed[13],
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            options,
            text: &segment[text..],
            layout: Layout {
                tcp,
                options: tcp + 20,
                text: tcp + text,
                end: ETHERNET_HEADER + end,
            },
        })
    }

    /// Whether all bits of `flags` are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// SEG.LEN: octets of sequence space, SYN and FIN counting one each.
    pub fn length(&self) -> u32 {
        self.text.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

/// A segment to be written.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The sender.
    pub from: Endpoint,
    /// The receiver.
    pub to: Endpoint,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// Control bits.
    pub flags: u8,
    /// SEG.WND as it goes into the header.
    pub window: u16,
    /// The option field: a multiple of four bytes, 40 at most.
    pub options: &'a [u8],
    /// The text.
    pub text: &'a [u8],
}

impl Draft<'_> {
    /// Replaces the content of `frame` with this segment, checksums included.
    pub fn write(&self, frame: &mut Vec<u8>) {
        let header = 20 + self.options.len();
        start_frame(frame, self.from, self.to, PROTOCOL_TCP, header + self.text.len());
        let tcp = frame.len();
        frame.extend_from_slice(&self.from.address.port().to_be_bytes());
        frame.extend_from_slice(&self.to.address.port().to_be_bytes());
        frame.extend_from_slice(&self.seq.to_be_bytes());
        frame.extend_from_slice(&self.ack.to_be_bytes());
        frame.extend_from_slice(&[(header as u8 / 4) << 4, self.flags]);
        frame.extend_from_slice(&self.window.to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(self.options);
        frame.extend_from_slice(self.text);
        let (source, destination) = (self.from.address.ip(), self.to.address.ip());
        let sum = checksum_over_pseudo_header(source, destination, PROTOCOL_TCP, &frame[tcp..]);
        frame[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
    }

    /// The frame of this segment.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        self.write(&mut frame);
        frame
    }
}

/// Replaces the content of `frame` with the Ethernet and IP headers for `length` bytes of `protocol`; DF is set.
pub fn start_frame(frame: &mut Vec<u8>, from: Endpoint, to: Endpoint, protocol: u8, length: usize) {
    frame.clear();
    frame.extend_from_slice(&to.mac);
    frame.extend_from_slice(&from.mac);
    match (from.address.ip(), to.address.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
            frame.extend_from_slice(&[0x45, 0]);
            frame.extend_from_slice(&(20 + length as u16).to_be_bytes());
            frame.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend_from_slice(&source.octets());
            frame.extend_from_slice(&destination.octets());
            repair_ipv4_checksum(frame);
        }
        (source, destination) => {
            frame.extend_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
            frame.extend_from_slice(&[0x60, 0, 0, 0]);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
            frame.extend_from_slice(&[protocol, 64]);
            for address in [source, destination] {
                frame.extend_from_slice(&octets(address));
            }
        }
    }
}

/// Writes the header checksum of an IPv4 frame anew.
pub fn repair_ipv4_checksum(frame: &mut [u8]) {
    let end = ETHERNET_HEADER + usize::from(frame[ETHERNET_HEADER] & 0x0f) * 4;
    let field = ETHERNET_HEADER + 10;
    frame[field..field + 2].fill(0);
    let sum = checksum(&frame[ETHERNET_HEADER..end]);
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Writes the TCP checksum of a frame anew, if it carries a segment.
pub fn repair_tcp_checksum(frame: &mut [u8]) {
    let Some((source, destination, layout)) =
        View::read(frame).map(|view| (view.source.ip(), view.destination.ip(), view.layout))
    else {
        return;
    };
    let field = layout.tcp + 16;
    frame[field..field + 2].fill(0);
    let segment = &frame[layout.tcp..layout.end];
    let sum = checksum_over_pseudo_header(source, destination, PROTOCOL_TCP, segment);
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071); zero over data that holds the right one.
pub fn checksum(data: &[u8]) -> u16 {
    !fold(sum(data))
}

/// The checksum over pseudo-header and data (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub fn checksum_over_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, data: &[u8]) -> u16 {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => sum(&source.octets()) + sum(&destination.octets()),
        (source, destination) => sum(&octets(source)) + sum(&octets(destination)),
    };
    !fold(addresses + u32::from(protocol) + data.len() as u32 + sum(data))
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn sum(data: &[u8]) -> u32 {
    let mut pairs = data.chunks_exact(2);
    let mut total = 0_u32;
    for pair in pairs.by_ref() {
        total += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    total + pairs.remainder().first().map_or(0, |&last| u32::from(last) << 8)
}

fn fold(mut total: u32) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk::<2>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_tcp::wire::Segment;

    fn ends(ipv6: bool) -> (Endpoint, Endpoint) {
        let (a, b) = if ipv6 {
            ("[2001:2::2]:40000", "[2001:2::1]:7")
        } else {
            ("198.18.0.2:40000", "198.18.0.1:7")
        };
        let end = |mac, address: &str| Endpoint {
            mac,
            address: address.parse().unwrap(),
        };
        (end([2, 0, 0, 0, 0, 2], a), end([2, 0, 0, 0, 0, 1], b))
    }

    #[test]
    fn the_engine_and_this_reader_agree_on_what_is_written() {
        for ipv6 in [false, true] {
            let (from, to) = ends(ipv6);
            let draft = Draft {
                from,
                to,
                seq: 0xffff_fff0,
                ack: 7,
                flags: ACK | PSH | FIN,
                window: 1000,
                options: &[1, 1, 1, 0],
                text: b"hello",
            };
            let frame = draft.frame();
            let view = View::read(&frame).unwrap();
            assert_eq!((view.source, view.destination), (from.address, to.address));
            assert_eq!((view.seq, view.ack, view.window), (0xffff_fff0, 7, 1000));
            assert_eq!(
                (view.flags, view.options, view.text),
                (draft.flags, draft.options, draft.text)
            );
            assert_eq!(view.length(), 6);
            assert_eq!(&frame[view.layout.text..view.layout.end], b"hello");

            let segment = Segment::parse(&frame, true).unwrap();
            assert_eq!((segment.key.peer(), segment.key.local()), (from.address, to.address));
            assert_eq!(
                (segment.seq.0, segment.ack.0, segment.flags.0),
                (view.seq, view.ack, view.flags)
            );
            assert_eq!(segment.payload, b"hello");
        }
    }

    #[test]
    fn a_changed_text_is_noticed_until_the_checksum_is_repaired() {
        for ipv6 in [false, true] {
            let (from, to) = ends(ipv6);
            let mut frame = Draft {
                from,
                to,
                seq: 1,
                ack: 2,
                flags: ACK,
                window: 3,
                options: &[],
                text: b"text of an odd length",
            }
            .frame();
            let last = frame.len() - 1;
            frame[last] ^= 1;
            assert!(Segment::parse(&frame, true).is_err());
            repair_tcp_checksum(&mut frame);
            assert!(Segment::parse(&frame, true).is_ok());
        }
    }

    #[test]
    fn no_prefix_of_a_frame_is_read_past_its_end() {
        for ipv6 in [false, true] {
            let (from, to) = ends(ipv6);
            let frame = Draft {
                from,
                to,
                seq: 1,
                ack: 2,
                flags: SYN,
                window: 3,
                options: &[2, 4, 5, 0xb4],
                text: b"x",
            }
            .frame();
            for length in 0..frame.len() {
                assert!(View::read(&frame[..length]).is_none());
            }
        }
    }
}
