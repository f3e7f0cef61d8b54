//! Address prefixes, as they are written in settings.

use core::fmt;
use core::str::FromStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::de::{Deserialize, Deserializer, Visitor};

use crate::error::Error;

/// Bits of an IPv6 address before the IPv4 address it maps (RFC 4291, section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// An address prefix such as `192.0.2.0/24` or `2001:db8::/32`; an address alone is the prefix of its full length. No
/// bit below the prefix is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of the first `length` bits of `address`; bits it does not have do not count.
    pub(crate) fn new(address: IpAddr, length: u8) -> Self {
        let length = length.min(if address.is_ipv4() { 32 } else { 128 });
        Self {
            address: masked(address, length),
            length,
        }
    }

    /// The first address of the prefix.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The number of bits of the address that count: 0 to 32 for IPv4, 0 to 128 for IPv6.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether `address` has this prefix.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(Error::Config)
    }
}

fn parse(text: &str) -> Result<Prefix, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("`{text}` is not an address prefix; write it like 192.0.2.0/24 or 2001:db8::/32"))?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => full,
        Some(length) => length
            .parse::<u8>()
            .ok()
            .filter(|&length| length <= full)
            .ok_or_else(|| format!("`{text}` has a wrong length; the bits of the prefix are 0 to {full}"))?,
    };
    let prefix = Prefix::new(address, length);
    if prefix.address != address {
        return Err(format!("`{text}` has bits set below its prefix; write {prefix}"));
    }
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
        && length >= MAPPED_BITS
    {
        return Err(format!(
            "`{text}` is an IPv4-mapped prefix; write {v4}/{}",
            length - MAPPED_BITS
        ));
    }
    Ok(prefix)
}

/// `address` with all but its first `length` bits zero.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(PrefixVisitor)
    }
}

/// Parses within the visit, so that the error carries the place of this string and not of the list it is in.
struct PrefixVisitor;

impl Visitor<'_> for PrefixVisitor {
    type Value = Prefix;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address prefix as a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Prefix, E> {
        parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_back_as_they_are_written() {
        for text in ["192.0.2.0/24", "0.0.0.0/0", "198.18.0.0/15", "2001:db8::/32", "::/0"] {
            assert_eq!(parse(text).expect("a good prefix").to_string(), text);
        }
        assert_eq!(parse("192.0.2.7").expect("an address").to_string(), "192.0.2.7/32");
        assert_eq!(parse("2001:db8::1").expect("an address").to_string(), "2001:db8::1/128");
    }

    #[test]
    fn what_is_wrong_comes_with_what_is_right() {
        for (text, phrase) in [
            ("192.0.2.1/24", "write 192.0.2.0/24"),
            ("1.0.0.0/0", "write 0.0.0.0/0"),
            ("2001:db8::1/64", "write 2001:db8::/64"),
            ("192.0.2.0/33", "0 to 32"),
            ("2001:db8::/129", "0 to 128"),
            ("192.0.2.0/", "0 to 32"),
            ("192.0.2.0/-1", "0 to 32"),
            ("192.0.2/24", "write it like"),
            ("example.org/24", "write it like"),
            ("", "write it like"),
            ("::ffff:192.0.2.0/120", "write 192.0.2.0/24"),
        ] {
            let error = text.parse::<Prefix>().expect_err(text);
            assert!(error.is_usage());
            assert!(error.to_string().contains(phrase), "{text}: {error}");
        }
    }
}
