//! The frames of a flood made in userspace, as the XDP program makes them: the packets are the same code's.

use tidegate_traffic_abi::packet::{
    self, ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, MAX_FRAME_V6, Packet, TRANSPORT_WORDS,
};
use tidegate_traffic_abi::{Flood, Random};

/// Makes one frame after the other.
pub(crate) struct Template {
    flood: Flood,
    random: Random,
    /// The latest frame, and what is left of the ones before it behind its end.
    frame: [u8; MAX_FRAME_V6],
}

impl Template {
    pub(crate) fn new(flood: Flood, seed: u64) -> Self {
        let mut frame = [0; MAX_FRAME_V6];
        frame[..6].copy_from_slice(&flood.target_mac);
        frame[6..12].copy_from_slice(&flood.source_mac);
        Self {
            flood,
            random: Random(seed),
            frame,
        }
    }

    /// The next frame; `None` if the flood's settings are not allowed.
    pub(crate) fn next_frame(&mut self) -> Option<&[u8]> {
        let length = if self.flood.version == 4 {
            let packet = packet::ipv4(&self.flood, &mut self.random)?;
            self.write(ETHERTYPE_IPV4, &packet)
        } else {
            let packet = packet::ipv6(&self.flood, &mut self.random)?;
            self.write(ETHERTYPE_IPV6, &packet)
        };
        self.frame.get(..length)
    }

    fn write<const IP: usize>(&mut self, ethertype: u16, packet: &Packet<IP>) -> usize {
        self.frame[ETHERNET_HEADER - 2..ETHERNET_HEADER].copy_from_slice(&ethertype.to_be_bytes());
        let words = packet.ip.iter().chain(&packet.transport);
        debug_assert!(ETHERNET_HEADER + 4 * (IP + TRANSPORT_WORDS) <= self.frame.len());
        for (octets, word) in self.frame[ETHERNET_HEADER..].chunks_exact_mut(4).zip(words) {
            octets.copy_from_slice(&word.to_be_bytes());
        }
        packet.frame_length
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
    use tidegate_traffic_abi::kind;

    use super::*;
    use crate::ranges::{Prefix, words};

    fn flood(target: &str, kind: u32) -> Flood {
        let target: std::net::IpAddr = target.parse().unwrap();
        let (source, source_mask) = Prefix::sources_for(target).words();
        Flood {
            source,
            source_mask,
            target: words(target),
            target_mask: [u32::MAX; 4],
            interface: 1,
            version: if target.is_ipv4() { 4 } else { 6 },
            kind,
            target_port: 443,
            target_mac: [2, 0, 0, 0, 0, 1],
            source_mac: [2, 0, 0, 0, 0, 2],
            reserved: 0,
        }
    }

    /// Parses a frame and checks both checksums; what follows the IP header is handed to `look`.
    fn check(frame: &[u8], look: impl FnOnce(&TransportSlice<'_>)) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let transport = packet.transport.as_ref().unwrap();
        match packet.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                match transport {
                    TransportSlice::Tcp(tcp) => {
                        assert_eq!(
                            tcp.checksum(),
                            tcp.calc_checksum_ipv4(header.source, header.destination).unwrap()
                        );
                    }
                    TransportSlice::Udp(udp) => {
                        let computed = udp
                            .to_header()
                            .calc_checksum_ipv4_raw(header.source, header.destination, udp.payload())
                            .unwrap();
                        assert_eq!(udp.checksum(), computed);
                    }
                    other => panic!("{other:?}"),
                }
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header().to_header();
                match transport {
                    TransportSlice::Tcp(tcp) => {
                        assert_eq!(
                            tcp.checksum(),
                            tcp.calc_checksum_ipv6(header.source, header.destination).unwrap()
                        );
                    }
                    TransportSlice::Udp(udp) => {
                        let computed = udp
                            .to_header()
                            .calc_checksum_ipv6_raw(header.source, header.destination, udp.payload())
                            .unwrap();
                        assert_eq!(udp.checksum(), computed);
                    }
                    other => panic!("{other:?}"),
                }
            }
            NetSlice::Arp(_) => panic!("ARP"),
        }
        look(transport);
    }

    #[test]
    fn frames_of_every_kind_are_well_formed() {
        for target in ["198.18.0.1", "2001:2::1"] {
            for kind in [
                kind::SYN,
                kind::ACK,
                kind::RST,
                kind::FIN,
                kind::SYN_ACK,
                kind::SYN_DATA,
                kind::UDP,
            ] {
                let mut template = Template::new(flood(target, kind), 7);
                for _ in 0..1000 {
                    check(template.next_frame().unwrap(), |transport| match transport {
                        TransportSlice::Tcp(tcp) => {
                            assert_eq!(tcp.destination_port(), 443);
                            assert!(tcp.options_iterator().all(|option| option.is_ok()));
                        }
                        TransportSlice::Udp(udp) => assert_eq!(udp.destination_port(), 443),
                        other => panic!("{other:?}"),
                    });
                }
            }
        }
    }

    #[test]
    fn fragments_are_well_formed() {
        for target in ["198.18.0.1", "2001:2::1"] {
            let mut template = Template::new(flood(target, kind::FRAGMENT), 7);
            for _ in 0..1000 {
                let packet = SlicedPacket::from_ethernet(template.next_frame().unwrap()).unwrap();
                let ip = packet.net.as_ref().unwrap();
                if let NetSlice::Ipv4(ip) = ip {
                    let header = ip.header().to_header();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                }
                let payload = ip.ip_payload_ref().unwrap();
                assert!(payload.fragmented, "{payload:?}");
                assert_eq!((payload.ip_number, payload.payload.len()), (IpNumber::TCP, 32));
            }
        }
    }

    #[test]
    fn frames_are_addressed_and_padded_as_ethernet_wants_it() {
        let mut template = Template::new(flood("198.18.0.1", kind::RST), 1);
        let frame = template.next_frame().unwrap();
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        assert_eq!(frame[54..], [0; 6]);
    }

    #[test]
    fn a_seed_gives_the_same_frames_again_and_another_one_others() {
        let frames = |seed| -> Vec<Vec<u8>> {
            let mut template = Template::new(flood("2001:2::1", kind::MIX), seed);
            (0..10).map(|_| template.next_frame().unwrap().to_vec()).collect()
        };
        assert_eq!(frames(1), frames(1));
        assert_ne!(frames(1), frames(2));
    }

    #[test]
    fn a_target_outside_of_the_ranges_makes_no_frame() {
        let mut outside = flood("198.18.0.1", kind::SYN);
        outside.target[0] = 0x0a00_0001;
        assert_eq!(Template::new(outside, 1).next_frame(), None);
    }
}
