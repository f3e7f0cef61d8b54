//! Where a flood may go to and seem to come from: the ranges that are for benchmarks and lead nowhere on the Internet.
//!
//! There is no way around these checks, and the XDP program that makes the frames does them again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tidegate_traffic_abi::{is_benchmark_v4, is_benchmark_v6};

/// The ranges, for messages.
const RANGES: &str = "198.18.0.0/15 (RFC 2544) or 2001:2::/48 (RFC 5180)";

/// Bits of the prefixes of the two ranges.
const RANGE_BITS_V4: u8 = 15;
const RANGE_BITS_V6: u8 = 48;

/// A prefix within one of the ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    /// Bits that are fixed.
    length: u8,
}

impl Prefix {
    /// Sources of IPv4 floods unless others are given: 198.19.0.0/16.
    pub const SOURCES_V4: Self = Self {
        address: IpAddr::V4(Ipv4Addr::new(198, 19, 0, 0)),
        length: 16,
    };

    /// Sources of IPv6 floods unless others are given: 2001:2:0:8000::/49.
    pub const SOURCES_V6: Self = Self {
        address: IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0x8000, 0, 0, 0, 0)),
        length: 49,
    };

    /// Targets of a carpet flood to the lab's IPv4 addresses, which are among them: 198.18.0.0/24.
    pub const CARPET_V4: Self = Self {
        address: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)),
        length: 24,
    };

    /// The same for its IPv6 addresses: 2001:2::/120.
    pub const CARPET_V6: Self = Self {
        address: IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0)),
        length: 120,
    };

    /// The sources of floods to `target` unless others are given.
    pub fn sources_for(target: IpAddr) -> Self {
        if target.is_ipv4() {
            Self::SOURCES_V4
        } else {
            Self::SOURCES_V6
        }
    }

    /// The first address as a number, and how many bits behind the prefix are free.
    pub(crate) fn bits(&self) -> (u128, u32) {
        match self.address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32 - u32::from(self.length)),
            IpAddr::V6(v6) => (v6.to_bits(), 128 - u32::from(self.length)),
        }
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// The address as the XDP programs take it, and the mask with ones where it is fixed.
    pub fn words(&self) -> ([u32; 4], [u32; 4]) {
        // No prefix within the ranges is shorter than 15 bits, so the shift is never one by all 128.
        let mask = words_of(u128::MAX << (128 - u32::from(self.length)));
        (words(self.address), mask)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a prefix; write it like 198.19.0.0/16 or 2001:2:0:8000::/49");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let family_bits = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => family_bits,
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => length.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
        };
        if length > family_bits {
            return Err(wrong());
        }
        let range_bits = if address.is_ipv4() {
            RANGE_BITS_V4
        } else {
            RANGE_BITS_V6
        };
        check_address(address)?;
        if length < range_bits {
            return Err(format!(
                "{text} is more than the range of benchmarks it is in; floods are only made within {RANGES}"
            ));
        }
        let prefix = Self { address, length };
        let (words, mask) = prefix.words();
        if words.iter().zip(mask).any(|(&word, mask)| word & !mask != 0) {
            return Err(format!(
                "{text} has bits set behind its first {length}; set them to zero"
            ));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Parses a target, `ADDR:PORT` or `[ADDR]:PORT`.
///
/// # Errors
///
/// A sentence when it is none, or not one of the ranges.
pub fn parse_target(text: &str) -> Result<SocketAddr, String> {
    let target = text
        .parse()
        .map_err(|_| format!("`{text}` is not an address and port; write 198.18.0.1:80 or [2001:2::1]:80"))?;
    check_target(target)?;
    Ok(target)
}

/// Checks that `target` may be flooded.
///
/// # Errors
///
/// A sentence when it is in neither of the ranges, or has no port.
pub fn check_target(target: SocketAddr) -> Result<(), String> {
    check_address(target.ip())?;
    if target.port() == 0 {
        return Err(format!("{target} has no port; give it one from 1 to 65535"));
    }
    Ok(())
}

/// An address as the XDP programs take it: four words, that of IPv4 in the first.
pub fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(v4) => [v4.to_bits(), 0, 0, 0],
        IpAddr::V6(v6) => words_of(v6.to_bits()),
    }
}

fn words_of(bits: u128) -> [u32; 4] {
    [
        (bits >> 96) as u32,
        (bits >> 64) as u32,
        (bits >> 32) as u32,
        bits as u32,
    ]
}

pub(crate) fn check_address(address: IpAddr) -> Result<(), String> {
    let allowed = match address {
        IpAddr::V4(v4) => is_benchmark_v4(v4.to_bits()),
        IpAddr::V6(v6) => is_benchmark_v6(&words_of(v6.to_bits())),
    };
    if allowed {
        return Ok(());
    }
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    Err(if mapped {
        format!("{address} is an IPv4-mapped address; write it as an IPv4 address")
    } else {
        format!("{address} is not an address for benchmarks; floods are only made within {RANGES}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_in_the_ranges_are_taken() {
        for text in [
            "198.18.0.1:80",
            "198.19.255.254:65535",
            "[2001:2::1]:443",
            "[2001:2:0:ffff::1]:1",
        ] {
            assert!(parse_target(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn all_other_targets_are_refused() {
        for (text, phrase) in [
            ("198.17.255.255:80", "not an address for benchmarks"),
            ("198.20.0.0:80", "not an address for benchmarks"),
            ("127.0.0.1:80", "not an address for benchmarks"),
            ("10.0.0.1:80", "not an address for benchmarks"),
            ("0.0.0.0:80", "not an address for benchmarks"),
            ("255.255.255.255:80", "not an address for benchmarks"),
            ("[::1]:80", "not an address for benchmarks"),
            ("[fe80::1]:80", "not an address for benchmarks"),
            ("[2001:1::1]:80", "not an address for benchmarks"),
            ("[2001:2:1::1]:80", "not an address for benchmarks"),
            ("[2001:3::1]:80", "not an address for benchmarks"),
            ("[::ffff:198.18.0.1]:80", "IPv4-mapped"),
            ("[::198.18.0.1]:80", "not an address for benchmarks"),
            ("198.18.0.1:0", "no port"),
            ("198.18.0.1", "not an address and port"),
            ("localhost:80", "not an address and port"),
            ("", "not an address and port"),
        ] {
            let error = parse_target(text).unwrap_err();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn sources_lie_within_the_ranges() {
        for text in [
            "198.18.0.0/15",
            "198.19.0.0/16",
            "198.18.7.7",
            "2001:2::/48",
            "2001:2:0:8000::/49",
        ] {
            assert!(text.parse::<Prefix>().is_ok(), "{text}");
        }
        for (text, phrase) in [
            ("198.18.0.0/14", "more than the range"),
            ("0.0.0.0/0", "not an address for benchmarks"),
            ("198.20.0.0/16", "not an address for benchmarks"),
            ("192.168.0.0/16", "not an address for benchmarks"),
            ("2001:2::/47", "more than the range"),
            ("2001::/16", "not an address for benchmarks"),
            ("2001:2:1::/64", "not an address for benchmarks"),
            ("::ffff:198.18.0.0/112", "IPv4-mapped"),
            ("198.19.0.1/16", "bits set behind its first 16"),
            ("2001:2::1/64", "bits set behind its first 64"),
            ("198.18.0.0/33", "not a prefix"),
            ("198.18.0.0/", "not a prefix"),
            ("198.18.0.0/+16", "not a prefix"),
            ("2001:2::/129", "not a prefix"),
            ("x/16", "not a prefix"),
        ] {
            let error = text.parse::<Prefix>().unwrap_err();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn defaults_are_what_they_say() {
        assert_eq!("198.19.0.0/16".parse(), Ok(Prefix::SOURCES_V4));
        assert_eq!("2001:2:0:8000::/49".parse(), Ok(Prefix::SOURCES_V6));
        for prefix in [Prefix::SOURCES_V4, Prefix::SOURCES_V6] {
            assert_eq!(Prefix::sources_for(prefix.address), prefix);
            assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }

    #[test]
    fn masks_fix_the_bits_of_the_prefix() {
        assert_eq!(
            Prefix::SOURCES_V4.words(),
            ([0xc613_0000, 0, 0, 0], [0xffff_0000, 0, 0, 0])
        );
        assert_eq!(
            Prefix::SOURCES_V6.words(),
            ([0x2001_0002, 0x0000_8000, 0, 0], [u32::MAX, 0xffff_8000, 0, 0])
        );
        let host: Prefix = "2001:2::7".parse().unwrap();
        assert_eq!(host.words(), ([0x2001_0002, 0, 0, 7], [u32::MAX; 4]));
    }
}
