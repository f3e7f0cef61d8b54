//! A router's answer to a packet that does not fit the next link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::segment::{self, ETHERNET_HEADER, Endpoint, View};

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;

/// Length of the ICMP header both messages have.
const HEADER: usize = 8;

const ROUTER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 254));
const ROUTER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0xfe));

/// The frame that tells the sender of `frame` that only packets of `mtu` bytes pass: destination unreachable,
/// fragmentation needed (RFC 1191, section 4) or packet too big (RFC 4443, section 3.2). It quotes as much as such a
/// message may (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4, rule c). `None` when `frame` carries no segment.
pub fn too_big(frame: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let view = View::read(frame)?;
    let mac = |at: usize| frame.get(at..)?.first_chunk::<6>().copied();
    let ipv4 = view.source.is_ipv4();
    let from = Endpoint {
        mac: mac(0)?,
        address: SocketAddr::new(if ipv4 { ROUTER_V4 } else { ROUTER_V6 }, 0),
    };
    let to = Endpoint {
        mac: mac(6)?,
        address: SocketAddr::new(view.source.ip(), 0),
    };
    let packet = frame.get(ETHERNET_HEADER..view.layout.end)?;
    let longest = if ipv4 { 576 - 20 - HEADER } else { 1280 - 40 - HEADER };
    let quote = &packet[..packet.len().min(longest)];
    let protocol = if ipv4 { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
    let mut answer = Vec::new();
    segment::start_frame(&mut answer, from, to, protocol, HEADER + quote.len());
    let message = answer.len();
    answer.extend_from_slice(if ipv4 { &[3, 4] } else { &[2, 0] });
    answer.extend_from_slice(&[0; 4]);
    answer.extend_from_slice(&mtu.to_be_bytes());
    answer.extend_from_slice(quote);
    let sum = if ipv4 {
        segment::checksum(&answer[message..])
    } else {
        segment::checksum_over_pseudo_header(ROUTER_V6, view.source.ip(), protocol, &answer[message..])
    };
    answer[message + 2..message + 4].copy_from_slice(&sum.to_be_bytes());
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{ACK, Draft};

    fn answer(from: &str, to: &str) -> (Vec<u8>, Vec<u8>) {
        let end = |number, address: &str| Endpoint {
            mac: [2, 0, 0, 0, 0, number],
            address: address.parse().unwrap(),
        };
        let frame = Draft {
            from: end(1, from),
            to: end(2, to),
            seq: 5,
            ack: 6,
            flags: ACK,
            window: 7,
            options: &[],
            text: &[9; 1400],
        }
        .frame();
        let answer = too_big(&frame, 1280).unwrap();
        (frame, answer)
    }

    #[test]
    fn an_ipv4_message_quotes_up_to_576_bytes() {
        let (frame, answer) = answer("198.18.0.1:7", "198.18.0.2:40000");
        assert_eq!(answer.len(), 14 + 576);
        assert_eq!(answer[..6], frame[6..12]);
        assert_eq!(answer[30..34], [198, 18, 0, 1]);
        assert_eq!(answer[34..36], [3, 4]);
        assert_eq!(answer[40..42], 1280_u16.to_be_bytes());
        assert_eq!(answer[42..], frame[14..14 + 576 - 28]);
        assert_eq!(segment::checksum(&answer[34..]), 0);
        assert_eq!(segment::checksum(&answer[14..34]), 0);
    }

    #[test]
    fn an_ipv6_message_fits_the_smallest_mtu() {
        let (frame, answer) = answer("[2001:2::1]:7", "[2001:2::2]:40000");
        assert_eq!(answer.len(), 14 + 1280);
        assert_eq!(answer[20], PROTOCOL_ICMPV6);
        assert_eq!(answer[54..56], [2, 0]);
        assert_eq!(answer[58..62], 1280_u32.to_be_bytes());
        assert_eq!(answer[62..], frame[14..14 + 1280 - 48]);
        let to: IpAddr = "2001:2::1".parse().unwrap();
        let sum = segment::checksum_over_pseudo_header(ROUTER_V6, to, PROTOCOL_ICMPV6, &answer[54..]);
        assert_eq!(sum, 0);
    }

    #[test]
    fn nothing_else_is_answered() {
        assert!(too_big(&[0; 100], 1280).is_none());
    }
}
