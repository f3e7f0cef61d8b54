//! Receive side scaling: the receive queue that a device chooses for a TCP segment.
//!
//! Devices hash addresses and ports by Toeplitz's function under a key, and look the queue up in a table ("Verifying
//! the RSS hash calculation" in Microsoft's documentation of RSS has the function and numbers to try it with). The
//! kernel tells key, table and function (`ethtool -x`).

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Toeplitz's among the functions (`ETH_RSS_HASH_TOP`).
const TOEPLITZ: u32 = 1 << 0;

/// The fields of a flow that may be hashed (`RXH_*` of include/uapi/linux/ethtool.h).
mod field {
    pub(super) const ADDRESSES: u32 = 1 << 4 | 1 << 5;
    pub(super) const PORTS: u32 = 1 << 6 | 1 << 7;
}

/// Transformations of addresses and ports before they are hashed (`RXH_XFRM_*`).
mod transform {
    /// Source and destination are each replaced by `source ^ destination`.
    pub(super) const SYM_XOR: u32 = 1 << 0;
    /// The source is replaced by `source | destination`, and the destination by `source ^ destination`.
    pub(super) const SYM_OR_XOR: u32 = 1 << 1;
}

/// The device's hash, as the kernel tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RssHash {
    /// The function, a bit (`ETH_RSS_HASH_*`).
    pub function: u32,
    /// The key; empty where the driver does not tell.
    pub key: Vec<u8>,
    /// Transformations of addresses and ports before, a bit each (Linux 6.8).
    pub transform: u32,
    /// The fields of TCP over IPv4 and over IPv6 that are hashed, a bit each (Linux 6.17).
    pub tcp_fields: [Option<u32>; 2],
}

/// The receive queues of TCP segments from one address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerQueues {
    ipv4: bool,
    /// For every octet of the destination, the address and then the port, the part of the hash by its value. The first
    /// has that of the source as well.
    parts: Box<[[u32; 256]]>,
    /// The queue of each remainder of the hash.
    table: Box<[u32]>,
}

impl PeerQueues {
    /// The queues of segments from `source`, of a device that hashes by `hash` and has the table `table`. `None` if
    /// that cannot be computed: another function, no key or one that is too short, no table, or fields other than
    /// addresses and ports, or addresses alone.
    pub fn new(hash: &RssHash, table: &[u32], source: SocketAddr) -> Option<Self> {
        let ipv4 = source.is_ipv4();
        let fields = hash.tcp_fields[usize::from(!ipv4)].unwrap_or(field::ADDRESSES | field::PORTS);
        let ports = fields == field::ADDRESSES | field::PORTS;
        let is_known = hash.function == TOEPLITZ
            && [0, transform::SYM_XOR, transform::SYM_OR_XOR].contains(&hash.transform)
            && (ports || fields == field::ADDRESSES);
        let address = octets(source.ip());
        // Both addresses and both ports, and the 32 bits of the key that belong to the last bit.
        let hashed = 2 * (address.len() + if ports { 2 } else { 0 });
        if !is_known || table.is_empty() || hash.key.len() < hashed + 4 {
            return None;
        }
        let mut parts = Vec::new();
        let mut add = |source: &[u8], first: usize| {
            for (index, &octet) in source.iter().enumerate() {
                let places = [first + index, first + source.len() + index];
                parts.push(std::array::from_fn(|value| {
                    let octets = transformed(octet, value as u8, hash.transform);
                    part(&hash.key, places[0], octets[0]) ^ part(&hash.key, places[1], octets[1])
                }));
            }
        };
        add(&address, 0);
        if ports {
            add(&source.port().to_be_bytes(), 2 * address.len());
        }
        Some(Self {
            ipv4,
            parts: parts.into(),
            table: table.into(),
        })
    }

    /// The receive queue of segments to `destination`; the first one's if it is of another family than the source.
    #[inline]
    pub fn queue(&self, destination: SocketAddr) -> u32 {
        self.table[self.hash(destination) as usize % self.table.len()]
    }

    fn hash(&self, destination: SocketAddr) -> u32 {
        let port = destination.port().to_be_bytes();
        let sum = |address: &[u8]| {
            let octets = address.iter().chain(&port);
            let parts = self.parts.iter().zip(octets);
            parts.fold(0, |hash, (part, &octet)| hash ^ part[usize::from(octet)])
        };
        match destination.ip() {
            IpAddr::V4(address) if self.ipv4 => sum(&address.octets()),
            IpAddr::V6(address) if !self.ipv4 => sum(&address.octets()),
            _ => 0,
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// The octets of source and destination as they are hashed.
fn transformed(source: u8, destination: u8, transform: u32) -> [u8; 2] {
    match transform {
        transform::SYM_XOR => [source ^ destination; 2],
        transform::SYM_OR_XOR => [source | destination, source ^ destination],
        _ => [source, destination],
    }
}

/// The part of Toeplitz's hash that the octet at `place` has: of each of its bits that is set, the 32 bits of the key
/// that begin at the place of the bit.
fn part(key: &[u8], place: usize, octet: u8) -> u32 {
    let window = key[place..place + 5]
        .iter()
        .fold(0_u64, |window, &octet| window << 8 | u64::from(octet));
    (0..8)
        .filter(|bit| octet >> (7 - bit) & 1 != 0)
        .fold(0, |hash, bit| hash ^ (window >> (8 - bit)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Device;

    /// The key of Microsoft's documentation.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    fn toeplitz() -> RssHash {
        RssHash {
            function: TOEPLITZ,
            key: KEY.into(),
            ..RssHash::default()
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address and a port")
    }

    fn hash(hash: &RssHash, source: SocketAddr, destination: SocketAddr) -> u32 {
        PeerQueues::new(hash, &[0], source)
            .expect("it can be computed")
            .hash(destination)
    }

    /// Source, destination, the hash of the addresses, and with the ports: of Microsoft's documentation.
    const VERIFICATION: [(&str, &str, u32, u32); 8] = [
        ("66.9.149.187:2794", "161.142.100.80:1766", 0x323e_8fc2, 0x51cc_c178),
        ("199.92.111.2:14230", "65.69.140.83:4739", 0xd718_262a, 0xc626_b0ea),
        ("24.19.198.95:12898", "12.22.207.184:38024", 0xd2d0_a5de, 0x5c2b_394a),
        ("38.27.205.30:48228", "209.142.163.6:2217", 0x8298_9176, 0xafc7_327f),
        ("153.39.163.191:44251", "202.188.127.2:1303", 0x5d18_09c5, 0x10e8_28a2),
        (
            "[3ffe:2501:200:1fff::7]:2794",
            "[3ffe:2501:200:3::1]:1766",
            0x2cc1_8cd5,
            0x4020_7d3d,
        ),
        (
            "[3ffe:501:8::260:97ff:fe40:efab]:14230",
            "[ff02::1]:4739",
            0x0f0c_461c,
            0xdde5_1bbf,
        ),
        (
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            "[fe80::200:f8ff:fe21:67cf]:38024",
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    #[test]
    fn the_hash_is_that_of_the_documentation() {
        let alone = RssHash {
            tcp_fields: [Some(field::ADDRESSES); 2],
            ..toeplitz()
        };
        for (source, destination, addresses, with_ports) in VERIFICATION {
            let (source, destination) = (address(source), address(destination));
            assert_eq!(hash(&toeplitz(), source, destination), with_ports, "{source}");
            assert_eq!(hash(&alone, source, destination), addresses, "{source}");
        }
    }

    #[test]
    fn symmetric_hashes_are_those_of_what_is_put_in_their_place() {
        let (source, destination) = (address("66.9.149.187:2794"), address("161.142.100.80:1766"));
        let either = |bits: u32, port: u16| SocketAddr::from((std::net::Ipv4Addr::from(bits), port));
        let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) else {
            unreachable!("both are IPv4");
        };
        let differing = either(from.to_bits() ^ to.to_bits(), source.port() ^ destination.port());
        let joined = either(from.to_bits() | to.to_bits(), source.port() | destination.port());
        for (transform, first) in [(transform::SYM_XOR, differing), (transform::SYM_OR_XOR, joined)] {
            let symmetric = RssHash {
                transform,
                ..toeplitz()
            };
            let found = hash(&symmetric, source, destination);
            assert_eq!(found, hash(&toeplitz(), first, differing), "{transform}");
            assert_eq!(found, hash(&symmetric, destination, source), "{transform}");
        }
    }

    #[test]
    fn the_table_says_which_queue() {
        let (source, destination) = (address("66.9.149.187:2794"), address("161.142.100.80:1766"));
        let table: Vec<u32> = (0..128).map(|entry| entry % 3).collect();
        let queues = PeerQueues::new(&toeplitz(), &table, source).expect("it can be computed");
        assert_eq!(queues.queue(destination), 0x51cc_c178 % 128 % 3);
    }

    #[test]
    fn what_cannot_be_computed_is_left_to_the_device() {
        let (v4, v6) = (address("198.18.0.1:80"), address("[2001:2::1]:80"));
        let table = [0, 1];
        let of = |hash: &RssHash, source| PeerQueues::new(hash, &table, source);
        assert!(of(&toeplitz(), v4).is_some() && of(&toeplitz(), v6).is_some());
        assert_eq!(PeerQueues::new(&toeplitz(), &[], v4), None, "no table");
        let with = |change: &dyn Fn(&mut RssHash)| {
            let mut hash = toeplitz();
            change(&mut hash);
            hash
        };
        for unknown in [
            with(&|hash| hash.function = 1 << 1),
            with(&|hash| hash.transform = 1 << 7),
            with(&|hash| hash.key.clear()),
            with(&|hash| hash.tcp_fields = [Some(1 << 4); 2]),
        ] {
            assert_eq!(of(&unknown, v4), None, "{unknown:?}");
        }
        let short = with(&|hash| hash.key.truncate(39));
        assert!(of(&short, v4).is_some());
        assert_eq!(of(&short, v6), None, "36 octets are hashed");
        let v6_by_addresses = with(&|hash| hash.tcp_fields[1] = Some(field::ADDRESSES));
        assert_ne!(of(&v6_by_addresses, v6), of(&toeplitz(), v6));
        assert_eq!(of(&v6_by_addresses, v4), of(&toeplitz(), v4));
    }

    #[test]
    fn the_kernel_tells_how_the_device_hashes() {
        let told = RssHash {
            transform: transform::SYM_XOR,
            tcp_fields: [Some(field::ADDRESSES | field::PORTS), Some(field::ADDRESSES)],
            ..toeplitz()
        };
        let mut device = Device::of("ice");
        assert_eq!(device.facts().rss_hash, RssHash::default(), "it tells the table alone");
        device.rss_hash = told.clone();
        assert_eq!(device.facts().rss_hash, told);
        let source = address("198.18.0.1:80");
        assert_eq!(
            device.facts().queues_from(source),
            PeerQueues::new(&told, &device.rss_table, source)
        );
    }
}
