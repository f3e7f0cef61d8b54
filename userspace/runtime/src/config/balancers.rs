//! The load balancers before this host: the `[balancers]` table of the configuration file.

use serde::Deserialize;
use tidegate_abi::MAX_BALANCERS;
use tidegate_tcp::config::InvalidSetting;

use super::{MAX_MTU, Prefix};
use crate::error::Error;

/// Octets of an outer IP header without options.
const IPV4_HEADER: u16 = 20;
const IPV6_HEADER: u16 = 40;
/// Octets of UDP and of GUE's header, version 0.
const GUE_HEADERS: u16 = 8 + 4;

/// The balancers that may send segments to this host's listeners in IPIP or GUE. What they send is answered directly.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Balancers {
    /// Prefixes of the source addresses of their outer headers, at most [`MAX_BALANCERS`] of each family. Without any,
    /// nothing is decapsulated.
    pub from: Vec<Prefix>,
    /// The UDP port of GUE; 0: IPIP only.
    pub gue_port: u16,
}

impl Default for Balancers {
    fn default() -> Self {
        Self {
            from: Vec::new(),
            gue_port: 6080,
        }
    }
}

impl Balancers {
    /// Checks that the XDP program has room for them.
    ///
    /// # Errors
    ///
    /// `from` has too many prefixes.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
            let prefixes = self.from.iter().filter(|prefix| prefix.address().is_ipv4() == is_v4);
            let count = prefixes.count();
            if count > MAX_BALANCERS as usize {
                return Err(InvalidSetting::new(
                    ["from"],
                    format!("from has {count} {family} prefixes; at most {MAX_BALANCERS} are possible"),
                ));
            }
        }
        Ok(())
    }

    /// Checks that packets of an interface, whose MTU is in bytes, lie in one buffer each: others are not decapsulated.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with what to change.
    pub(crate) fn check_mtu(&self, interface: &str, mtu: u32) -> Result<(), Error> {
        if self.is_any() && mtu > MAX_MTU {
            return Err(Error::Config(format!(
                "interface {interface} has an MTU of {mtu}; behind balancers it can be {MAX_MTU} at most: \
                 `ip link set dev {interface} mtu {MAX_MTU}`"
            )));
        }
        Ok(())
    }

    /// Whether there is any.
    pub(crate) fn is_any(&self) -> bool {
        !self.from.is_empty()
    }

    /// Octets that the longest outer headers of theirs have, by which segments to this host have to be shorter.
    pub(crate) fn outer_headers(&self) -> u16 {
        if !self.is_any() {
            return 0;
        }
        let ip = if self.from.iter().any(|prefix| prefix.address().is_ipv6()) {
            IPV6_HEADER
        } else {
            IPV4_HEADER
        };
        ip + if self.gue_port == 0 { 0 } else { GUE_HEADERS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Balancers {
        toml::from_str(text).expect("a good table")
    }

    #[test]
    fn the_longest_outer_headers_count() {
        for (text, octets) in [
            ("", 0),
            ("gue_port = 6081", 0),
            ("from = [\"192.0.2.1\"]\ngue_port = 0", 20),
            ("from = [\"192.0.2.1\"]", 32),
            ("from = [\"192.0.2.1\", \"2001:db8::/64\"]\ngue_port = 0", 40),
            ("from = [\"2001:db8::/64\"]", 52),
        ] {
            assert_eq!(read(text).outer_headers(), octets, "{text}");
        }
    }

    #[test]
    fn packets_in_several_buffers_are_refused_behind_balancers_only() {
        let balancers = read("from = [\"192.0.2.1\"]");
        balancers.check_mtu("eth1", 3498).expect("packets in one buffer");
        let error = balancers.check_mtu("eth1", 3499).expect_err("packets in two");
        assert!(error.is_usage() && error.to_string().contains("mtu 3498"), "{error}");
        Balancers::default().check_mtu("eth1", 9000).expect("no balancers");
    }

    #[test]
    fn there_is_room_for_so_many_of_each_family() {
        let prefix = |number: u32| format!("10.{}.{}.0/24", number >> 8, number & 255).parse();
        let mut balancers = Balancers {
            from: (0..MAX_BALANCERS)
                .map(|number| prefix(number).expect("a prefix"))
                .collect(),
            ..Balancers::default()
        };
        balancers.from.push("2001:db8::/64".parse().expect("a prefix"));
        balancers.validate().expect("as many as there is room for");
        balancers.from.push("192.0.2.1".parse().expect("a prefix"));
        let error = balancers.validate().expect_err("one more").to_string();
        assert!(error.contains("from has 1025 IPv4 prefixes"), "{error}");
    }
}
