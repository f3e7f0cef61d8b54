//! The addresses and ports that peers connect from.
//!
//! Every pair has a number, and numbers that follow one another are spread over the whole prefix: what is limited by
//! source prefix meets all of them at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::ranges::Prefix;

/// Pairs at most; what a prefix has beyond is not used.
pub(super) const MAX_PAIRS: u32 = 1 << 28;

/// The lowest port, below which few systems choose one.
const FIRST_PORT: u16 = 1024;

/// Ports of each address.
const PORTS: u32 = 0x1_0000 - FIRST_PORT as u32;

/// All pairs of an address within a prefix and a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuples {
    ipv4: bool,
    /// The prefix, with zeros behind it.
    first: u128,
    /// Bits behind the prefix.
    free_bits: u32,
    /// The first so many of them vary.
    used_bits: u32,
}

impl Tuples {
    pub(super) fn new(prefix: &Prefix) -> Self {
        let (first, free_bits) = prefix.bits();
        Self {
            ipv4: prefix.is_ipv4(),
            first,
            free_bits,
            used_bits: free_bits.min(MAX_PAIRS.ilog2()),
        }
    }

    /// The number of pairs, and the first number that none has.
    pub(super) fn len(&self) -> u32 {
        let all = u64::from(PORTS) << self.used_bits;
        all.min(u64::from(MAX_PAIRS)) as u32
    }

    /// The pair with a number below [`Tuples::len`].
    pub(super) fn local(&self, number: u32) -> SocketAddr {
        let index = number & self.index_mask();
        // The number's lowest bit is the address's highest: that spreads.
        let spread = u64::from(index.reverse_bits()) << self.used_bits >> u32::BITS;
        let bits = self.first | u128::from(spread) << self.unused_bits() | self.filler();
        let address = if self.ipv4 {
            IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        };
        SocketAddr::new(address, FIRST_PORT + (number >> self.used_bits) as u16)
    }

    /// The number of a pair.
    pub(super) fn number(&self, local: SocketAddr) -> Option<u32> {
        let (bits, ipv4) = match local.ip() {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), true),
            IpAddr::V6(v6) => (v6.to_bits(), false),
        };
        let spread = (bits.checked_sub(self.first)? & !self.filler()) >> self.unused_bits();
        let spread = u32::try_from(spread)
            .ok()
            .filter(|spread| *spread <= self.index_mask())?;
        let index = (u64::from(spread.reverse_bits()) << self.used_bits >> u32::BITS) as u32;
        let port = u32::from(local.port().checked_sub(FIRST_PORT)?);
        let number = u64::from(port) << self.used_bits | u64::from(index);
        let number = u32::try_from(number).ok().filter(|number| *number < self.len())?;
        (ipv4 == self.ipv4 && self.local(number) == local).then_some(number)
    }

    fn index_mask(&self) -> u32 {
        (1 << self.used_bits) - 1
    }

    fn unused_bits(&self) -> u32 {
        self.free_bits - self.used_bits
    }

    /// The bits that do not vary: not zero, since the first address of an IPv6 network is its routers' (RFC 4291,
    /// section 2.6.1).
    fn filler(&self) -> u128 {
        u128::from(self.unused_bits() > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ranges::check_address;

    const PREFIXES: [&str; 7] = [
        "198.18.0.0/15",
        "198.19.0.0/22",
        "198.19.0.7/32",
        "2001:2::/48",
        "2001:2:0:8000::/49",
        "2001:2::8/125",
        "2001:2::7/128",
    ];

    fn tuples(prefix: &str) -> Tuples {
        Tuples::new(&prefix.parse().unwrap())
    }

    #[test]
    fn every_number_has_a_pair_of_its_own_within_the_ranges_of_benchmarks() {
        for prefix in PREFIXES {
            let tuples = tuples(prefix);
            let numbers = (0..20_000).chain(tuples.len() - 20_000..tuples.len());
            let mut seen = HashSet::new();
            for number in numbers {
                let local = tuples.local(number);
                check_address(local.ip()).unwrap();
                assert!(local.port() >= FIRST_PORT);
                assert_eq!(tuples.number(local), Some(number), "{prefix}: {local}");
                seen.insert(local);
            }
            assert_eq!(seen.len(), 40_000, "{prefix}");
        }
    }

    #[test]
    fn what_is_none_of_the_pairs_has_no_number() {
        for (prefix, local) in [
            ("198.19.0.0/22", "198.19.4.0:1024"),
            ("198.19.0.0/22", "198.18.255.255:1024"),
            ("198.19.0.0/22", "198.19.0.1:1023"),
            ("198.19.0.0/22", "[2001:2::1]:1024"),
            ("2001:2:0:8000::/49", "[2001:2:0:8000::2]:1024"),
            ("2001:2:0:8000::/49", "[2001:2:0:7fff::1]:1024"),
            ("2001:2::7/128", "[2001:2::8]:1024"),
        ] {
            assert_eq!(tuples(prefix).number(local.parse().unwrap()), None, "{prefix}: {local}");
        }
    }

    #[test]
    fn consecutive_numbers_are_spread_over_the_whole_prefix() {
        let addresses = |prefix| -> Vec<_> { (0..4).map(|n| tuples(prefix).local(n).ip().to_string()).collect() };
        assert_eq!(
            addresses("198.19.0.0/22"),
            ["198.19.0.0", "198.19.2.0", "198.19.1.0", "198.19.3.0"]
        );
        assert_eq!(
            addresses("2001:2:0:8000::/49"),
            [
                "2001:2:0:8000::1",
                "2001:2:0:c000::1",
                "2001:2:0:a000::1",
                "2001:2:0:e000::1"
            ]
        );
    }
}
