//! Addresses and the 4-tuple of a flow.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tidegate_abi::flow_filter::{FlowHash, FlowHasher};
use tidegate_abi::siphash::{Key, siphash24};

/// An IPv6 address in network byte order, or an IPv4 one as `::ffff:a.b.c.d`. A packet that carries such a mapped
/// address on the wire is refused, so the two cannot be confused.
pub type Address = [u8; 16];

/// `::ffff:0:0/96`, where IPv4 addresses are kept.
pub(crate) const V4_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// The kept form of an IPv4 address.
#[inline]
pub(crate) fn from_v4(octets: [u8; 4]) -> Address {
    // Two words, so that what is written can be read back as words at once.
    let prefix = u64::from_le_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    let second = prefix | u64::from(u32::from_le_bytes(octets)) << 32;
    let mut address = [0; 16];
    address[8..].copy_from_slice(&second.to_le_bytes());
    address
}

/// The IPv4 address in its kept form.
#[inline]
pub(crate) fn v4_octets(address: &Address) -> [u8; 4] {
    let [.., a, b, c, d] = *address;
    [a, b, c, d]
}

/// Whether the address is an IPv4 one.
#[inline]
pub(crate) fn is_v4(address: &Address) -> bool {
    address[..12] == V4_PREFIX
}

/// The kept form of any address.
pub(crate) fn from_ip(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => from_v4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address in the standard library's form.
pub(crate) fn to_ip(address: &Address) -> IpAddr {
    if is_v4(address) {
        IpAddr::V4(Ipv4Addr::from(v4_octets(address)))
    } else {
        IpAddr::V6(Ipv6Addr::from(*address))
    }
}

/// Whether a segment from this address may be answered (RFC 9293, section 3.9.2.3; RFC 1122, section 3.2.1.3).
#[inline]
pub(crate) fn is_answerable(address: &Address) -> bool {
    if is_v4(address) {
        let [first, ..] = v4_octets(address);
        first != 0 && first != 127 && first < 224
    } else {
        // `::` and `::1` are the two lowest numbers; ff00::/8 is multicast.
        u128::from_be_bytes(*address) > 1 && address[0] != 0xff
    }
}

/// 2^64 divided by the golden ratio, an odd number.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The halves of the product: each bit of both factors has a part in most bits of it.
#[inline]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn folded_twice(a: u64, b: u64, key: Key) -> u64 {
    folded(folded(a ^ key.0, b ^ key.1) ^ key.1, MULTIPLIER)
}

/// [`FlowKey::table_hash`] of an IPv4 flow with these [`FlowKey::words_v4`].
#[inline]
pub(crate) fn table_hash_v4([addresses, ports]: [u64; 2], key: Key) -> u64 {
    folded_twice(addresses, ports, key)
}

#[inline]
fn ports_word(remote: u16, local: u16) -> u64 {
    u64::from(remote) << 16 | u64::from(local)
}

/// Two words of an IPv4 flow, for hashes. The ports are the peer's and this side's.
#[inline]
fn words_v4(remote: [u8; 4], local: [u8; 4], (remote_port, local_port): (u16, u16)) -> [u64; 2] {
    let addresses = u64::from(u32::from_le_bytes(local)) << 32 | u64::from(u32::from_le_bytes(remote));
    [addresses, ports_word(remote_port, local_port)]
}

/// The hash of one address, for tables.
#[inline]
pub(crate) fn address_hash(address: &Address, key: Key) -> u64 {
    let halves = u128::from_le_bytes(*address);
    folded_twice(halves as u64, (halves >> 64) as u64, key)
}

/// Both ends of a flow, seen from this side. Ports are in host byte order.
#[derive(Clone, Copy, Debug, Eq)]
pub struct FlowKey {
    /// The peer's address.
    pub remote: Address,
    /// This side's address.
    pub local: Address,
    /// The peer's port.
    pub remote_port: u16,
    /// This side's port.
    pub local_port: u16,
}

impl PartialEq for FlowKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        // What differs most often comes first. One comparison of everything would read, in other sizes, what has just
        // been written, and wait for it.
        self.ports() == other.ports() && same(&self.remote, &other.remote) && same(&self.local, &other.local)
    }
}

#[inline]
fn same(a: &Address, b: &Address) -> bool {
    let ([a, a_host], [b, b_host]) = (halves(a), halves(b));
    (a ^ b) | (a_host ^ b_host) == 0
}

/// The words in which [`from_v4`] writes an address.
#[inline]
fn halves(address: &Address) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *address;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest)]
}

/// A 4-tuple in any form, as frames need it.
pub(crate) trait Tuple {
    /// This side's address and the peer's, if they are IPv4.
    fn addresses_v4(&self) -> Option<([u8; 4], [u8; 4])>;

    /// This side's port and the peer's.
    fn ports(&self) -> (u16, u16);

    /// The usual form.
    fn key(&self) -> FlowKey;
}

impl Tuple for FlowKey {
    #[inline]
    fn addresses_v4(&self) -> Option<([u8; 4], [u8; 4])> {
        self.is_v4().then(|| (v4_octets(&self.local), v4_octets(&self.remote)))
    }

    #[inline]
    fn ports(&self) -> (u16, u16) {
        (self.local_port, self.remote_port)
    }

    #[inline]
    fn key(&self) -> FlowKey {
        *self
    }
}

impl Tuple for CompactKey {
    #[inline]
    fn addresses_v4(&self) -> Option<([u8; 4], [u8; 4])> {
        match *self {
            Self::V4 { local, remote, .. } => Some((local, remote)),
            Self::V6 { .. } => None,
        }
    }

    #[inline]
    fn ports(&self) -> (u16, u16) {
        match *self {
            Self::V4 {
                local_port,
                remote_port,
                ..
            }
            | Self::V6 {
                local_port,
                remote_port,
                ..
            } => (local_port, remote_port),
        }
    }

    #[inline]
    fn key(&self) -> FlowKey {
        self.get()
    }
}

/// A [`FlowKey`] for records that are kept in great number: 16 bytes, and 32 elsewhere for the addresses of IPv6.
pub(crate) enum CompactKey {
    V4 {
        remote_port: u16,
        local_port: u16,
        remote: [u8; 4],
        local: [u8; 4],
    },
    V6 {
        remote_port: u16,
        local_port: u16,
        /// The peer's, and this side's.
        addresses: Box<[Address; 2]>,
    },
}

impl CompactKey {
    #[inline]
    pub(crate) fn new(key: &FlowKey) -> Self {
        let &FlowKey {
            remote,
            local,
            remote_port,
            local_port,
        } = key;
        if key.is_v4() {
            Self::V4 {
                remote_port,
                local_port,
                remote: v4_octets(&remote),
                local: v4_octets(&local),
            }
        } else {
            Self::V6 {
                remote_port,
                local_port,
                addresses: Box::new([remote, local]),
            }
        }
    }

    /// The key it was made of.
    #[inline]
    pub(crate) fn get(&self) -> FlowKey {
        match *self {
            Self::V4 {
                remote_port,
                local_port,
                remote,
                local,
            } => FlowKey {
                remote: from_v4(remote),
                local: from_v4(local),
                remote_port,
                local_port,
            },
            Self::V6 {
                remote_port,
                local_port,
                ref addresses,
            } => FlowKey {
                remote: addresses[0],
                local: addresses[1],
                remote_port,
                local_port,
            },
        }
    }

    /// Takes the key out of a record that has no use for it any more.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        let nothing = Self::V4 {
            remote_port: 0,
            local_port: 0,
            remote: [0; 4],
            local: [0; 4],
        };
        core::mem::replace(self, nothing)
    }

    /// Whether it was made of `key`.
    #[inline]
    pub(crate) fn is(&self, key: &FlowKey) -> bool {
        let (local_port, remote_port) = self.ports();
        let ports = key.remote_port == remote_port && key.local_port == local_port;
        ports
            && match self {
                Self::V4 { remote, local, .. } => {
                    same(&from_v4(*remote), &key.remote) && same(&from_v4(*local), &key.local)
                }
                Self::V6 { addresses, .. } => same(&addresses[0], &key.remote) && same(&addresses[1], &key.local),
            }
    }

    /// Whether the flow is IPv4.
    #[inline]
    pub(crate) fn is_v4(&self) -> bool {
        matches!(self, Self::V4 { .. })
    }

    /// [`FlowKey::table_hash`] of the key it was made of.
    #[inline]
    pub(crate) fn table_hash(&self, key: Key) -> u64 {
        match *self {
            Self::V4 {
                remote_port,
                local_port,
                remote,
                local,
            } => table_hash_v4(words_v4(remote, local, (remote_port, local_port)), key),
            Self::V6 { .. } => self.get().table_hash(key),
        }
    }
}

impl FlowKey {
    /// The key of a flow between two socket addresses; both must be of one family.
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            remote: from_ip(remote.ip()),
            local: from_ip(local.ip()),
            remote_port: remote.port(),
            local_port: local.port(),
        }
    }

    /// The peer's socket address.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(to_ip(&self.remote), self.remote_port)
    }

    /// This side's socket address.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(to_ip(&self.local), self.local_port)
    }

    /// Whether the flow is IPv4.
    #[inline]
    pub fn is_v4(&self) -> bool {
        is_v4(&self.remote)
    }

    #[inline]
    fn words_v6(&self) -> [u64; 5] {
        let (remote, local) = (u128::from_le_bytes(self.remote), u128::from_le_bytes(self.local));
        [
            remote as u64,
            (remote >> 64) as u64,
            local as u64,
            (local >> 64) as u64,
            self.ports(),
        ]
    }

    #[inline]
    pub(super) fn words_v4(&self) -> [u64; 2] {
        words_v4(
            v4_octets(&self.remote),
            v4_octets(&self.local),
            (self.remote_port, self.local_port),
        )
    }

    #[inline]
    fn ports(&self) -> u64 {
        ports_word(self.remote_port, self.local_port)
    }

    /// Hash for tables; never shown to anyone, so one who does not know the key cannot aim at its collisions: for a
    /// random key, any two tuples collide as rarely as by chance. SipHash, whose values may be shown, costs five times
    /// as much.
    #[inline]
    pub(crate) fn table_hash(&self, key: Key) -> u64 {
        if self.is_v4() {
            return table_hash_v4(self.words_v4(), key);
        }
        let [remote, remote_host, local, local_host, ports] = self.words_v6();
        let remote = folded(remote ^ key.0, remote_host ^ key.1);
        let local = folded(local ^ key.1, local_host ^ key.0);
        folded_twice(remote ^ local.rotate_left(32), ports, key)
    }

    /// Hash for the flow filter, of words as they lie in the headers of the peer's segments.
    pub fn filter_hash(&self, hasher: &FlowHasher) -> FlowHash {
        let ports = (u32::from(self.remote_port) << 16 | u32::from(self.local_port)).to_be();
        if self.is_v4() {
            let [remote, local] = [&self.remote, &self.local].map(|address| u32::from_ne_bytes(v4_octets(address)));
            hasher.v4(remote, local, ports)
        } else {
            hasher.v6(header_words(&self.remote), header_words(&self.local), ports)
        }
    }

    /// Hash for sequence numbers, which the peer sees (RFC 6528).
    pub(crate) fn secret_hash(&self, key: Key) -> u64 {
        // The two families cannot be confused: their messages have different lengths.
        if self.is_v4() {
            siphash24(key, &self.words_v4())
        } else {
            siphash24(key, &self.words_v6())
        }
    }
}

fn header_words(address: &Address) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_hashes_the_words_of_the_header() {
        let hasher = FlowHasher::new(1 << 20, [3, 5, 7, 11, 13, 17, 19, 23, 29, 31]);
        let key = FlowKey::new("198.18.0.1:80".parse().unwrap(), "198.18.0.2:4660".parse().unwrap());
        let [client, server, ports] = [0xc612_0002_u32, 0xc612_0001, 0x1234_0050].map(u32::to_be);
        assert!(key.filter_hash(&hasher) == hasher.v4(client, server, ports));
        let key = FlowKey::new("[2001:2::1]:80".parse().unwrap(), "[2001:2::3:2]:4660".parse().unwrap());
        let (client, server) = ([0x2001_0002, 0, 0, 0x0003_0002_u32], [0x2001_0002, 0, 0, 1_u32]);
        let [client, server] = [client, server].map(|address| address.map(u32::to_be));
        assert!(key.filter_hash(&hasher) == hasher.v6(client, server, ports));
    }

    #[test]
    fn a_compact_key_has_the_hash_of_its_key_until_it_is_taken() {
        for (local, remote) in [
            ("198.18.0.1:80", "198.18.0.2:4660"),
            ("[2001:2::1]:80", "[2001:2::3:2]:4660"),
        ] {
            let key = FlowKey::new(local.parse().unwrap(), remote.parse().unwrap());
            let mut compact = CompactKey::new(&key);
            assert_eq!(compact.table_hash(Key(5, 6)), key.table_hash(Key(5, 6)));
            assert!(compact.take().is(&key));
            assert!(!compact.is(&key));
        }
    }

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["198.18.0.1:80", "[2001:2::1]:443"] {
            let local: SocketAddr = text.parse().unwrap();
            let key = FlowKey::new(local, local);
            assert_eq!(key.local(), local);
            assert_eq!(key.is_v4(), local.is_ipv4());
        }
    }

    #[test]
    fn unanswerable_sources_are_known() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "ff00::",
        ] {
            assert!(!is_answerable(&from_ip(text.parse().unwrap())), "{text}");
        }
        for text in [
            "1.0.0.0",
            "128.0.0.1",
            "198.18.0.2",
            "223.255.255.255",
            "2001:2::2",
            "fe80::1",
            "::2",
        ] {
            assert!(is_answerable(&from_ip(text.parse().unwrap())), "{text}");
        }
    }

    /// Scans over ports and over addresses leave no more buckets of a table empty than random numbers do.
    #[test]
    fn tables_fill_evenly() {
        let tuple = |remote: u32, port: u16, ipv4: bool| {
            let [a, b, c, d] = remote.to_be_bytes();
            let mut key = FlowKey::new("198.18.0.1:80".parse().unwrap(), SocketAddr::from(([a, b, c, d], port)));
            if !ipv4 {
                (key.remote, key.local) = ([0x20; 16], [0x21; 16]);
                key.remote[4..8].copy_from_slice(&remote.to_be_bytes());
            }
            key
        };
        let buckets = 1 << 12;
        let secrets = [
            Key(0x6b17_d1f2_e12c_4247, 0xf8bc_e6e5_63a4_40f2),
            Key(0x4fe3_42e2_fe1a_7f9b, 0x8ee7_eb4a_7c0f_9e16),
            Key(0x2bce_3357_6b31_5ece, 0xcbb6_4068_37bf_51f5),
        ];
        for secret in secrets {
            for ipv4 in [true, false] {
                for stride in [0_u32, 1, 256, 1 << 16] {
                    let mut filled = vec![0_u32; buckets];
                    for number in 0..buckets as u32 {
                        let key = tuple(
                            number.wrapping_mul(stride),
                            if stride == 0 { number as u16 } else { 7 },
                            ipv4,
                        );
                        filled[(key.table_hash(secret) >> 32) as usize % buckets] += 1;
                    }
                    // As many as there are buckets, thrown at random, leave 1/e of them empty; 5 standard deviations.
                    let empty = filled.iter().filter(|&&count| count == 0).count() as f64;
                    let most = buckets as f64 / core::f64::consts::E + 5.0 * 0.31 * (buckets as f64).sqrt();
                    assert!(empty < most, "{empty} of {buckets}: steps of {stride}, IPv4: {ipv4}");
                }
            }
        }
    }

    #[test]
    fn every_field_of_the_tuple_changes_both_hashes() {
        let secret = Key(1, 2);
        for (local, remote) in [
            ("198.18.0.1:80", "198.18.0.2:1000"),
            ("[2001:2::1]:80", "[2001:2::2]:1000"),
        ] {
            let key = FlowKey::new(local.parse().unwrap(), remote.parse().unwrap());
            let mut others = [key; 4];
            others[0].remote[15] ^= 1;
            others[1].local[15] ^= 1;
            others[2].remote_port ^= 1;
            others[3].local_port ^= 1;
            for other in others {
                assert_ne!(key.table_hash(secret), other.table_hash(secret));
                assert_ne!(key.secret_hash(secret), other.secret_hash(secret));
            }
        }
    }

    #[test]
    fn a_compact_key_is_the_one_it_was_made_of() {
        assert_eq!(size_of::<CompactKey>(), 16);
        let keys = [
            ("198.18.0.1:80", "198.18.0.2:40000"),
            ("198.18.0.1:81", "198.18.0.2:40000"),
            ("198.18.0.3:80", "198.18.0.2:40000"),
            ("198.18.0.1:80", "198.18.0.2:40001"),
            ("198.18.0.1:80", "198.18.0.4:40000"),
            ("[2001:2::1]:80", "[2001:2::2]:40000"),
            ("[2001:2::1]:80", "[2001:2:1::2]:40000"),
        ]
        .map(|(local, remote)| FlowKey::new(local.parse().unwrap(), remote.parse().unwrap()));
        for (index, key) in keys.iter().enumerate() {
            let compact = CompactKey::new(key);
            assert_eq!(compact.get(), *key);
            assert_eq!(
                (compact.is_v4(), compact.ports()),
                (key.is_v4(), (key.local_port, key.remote_port))
            );
            for (other, other_key) in keys.iter().enumerate() {
                assert_eq!(compact.is(other_key), index == other);
            }
        }
    }
}
