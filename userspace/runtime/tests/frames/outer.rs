//! Frames as balancers send them: with outer headers between the Ethernet header and the packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ip_offset, set_u16};

/// The address of the host that balancers send to, IPv4 and IPv6 (2001:2:0:1::2).
pub(crate) const OWN_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 2));
pub(crate) const OWN_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 2));
/// The balancer's, IPv4 and IPv6 (2001:2:0:1::1).
pub(crate) const BALANCER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 1));
pub(crate) const BALANCER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 1));

/// The port of GUE.
pub(crate) const GUE_PORT: u16 = 6080;

/// The headers between the outer IP header and the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    /// Nothing.
    Ipip,
    /// A destination options header with a tunnel encapsulation limit; IPv6 only.
    Limit,
    /// UDP.
    Gue1,
    /// UDP and a header of 4 octets.
    Gue0,
}

/// Outer headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) between: Between,
}

impl Outer {
    /// All that balancers send to this host.
    pub(crate) fn all() -> Vec<Self> {
        let v4 = [Between::Ipip, Between::Gue1, Between::Gue0].map(|between| Self {
            source: BALANCER_V4,
            destination: OWN_V4,
            between,
        });
        let v6 = [Between::Ipip, Between::Limit, Between::Gue1, Between::Gue0].map(|between| Self {
            source: BALANCER_V6,
            destination: OWN_V6,
            between,
        });
        [&v4[..], &v6].concat()
    }

    /// Octets of the outer headers.
    pub(crate) fn length(&self) -> usize {
        let between = match self.between {
            Between::Ipip => 0,
            Between::Limit | Between::Gue1 => 8,
            Between::Gue0 => 12,
        };
        between + if self.source.is_ipv4() { 20 } else { 40 }
    }

    /// `frame`, which may be tagged, behind these headers.
    pub(crate) fn around(&self, frame: &[u8]) -> Vec<u8> {
        let ip = ip_offset(frame);
        let packet = &frame[ip..];
        let inner = if packet[0] >> 4 == 4 { 4 } else { 41 };
        let mut between = Vec::new();
        let mut protocol = inner;
        match self.between {
            Between::Ipip => {}
            Between::Limit => {
                protocol = 60;
                between.extend_from_slice(&[inner, 0, 4, 1, 4, 1, 0, 0]);
            }
            Between::Gue1 | Between::Gue0 => {
                protocol = 17;
                between.extend_from_slice(&[0xc0, 0, 0, 0, 0, 0, 0, 0]);
                set_u16(&mut between, 2, GUE_PORT);
                if self.between == Between::Gue0 {
                    between.extend_from_slice(&[0, inner, 0, 0]);
                }
                let length = between.len() + packet.len();
                set_u16(&mut between, 4, length as u16);
            }
        }
        let mut whole = frame[..ip].to_vec();
        let length = between.len() + packet.len();
        let ethertype = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                set_u16(&mut header, 2, (20 + length) as u16);
                header[12..16].copy_from_slice(&source.octets());
                header[16..].copy_from_slice(&destination.octets());
                whole.extend_from_slice(&header);
                0x0800
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                whole.extend_from_slice(&[0x60, 0, 0, 0, 0, 0, protocol, 64]);
                set_u16(&mut whole, ip + 4, length as u16);
                whole.extend_from_slice(&source.octets());
                whole.extend_from_slice(&destination.octets());
                0x86dd
            }
            _ => panic!("addresses of two families"),
        };
        set_u16(&mut whole, ip - 2, ethertype);
        whole.extend_from_slice(&between);
        whole.extend_from_slice(packet);
        whole
    }
}
