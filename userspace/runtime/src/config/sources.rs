//! Which sources are served, and how many SYNs and connections of one: the `[sources]` table of the configuration file.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Deserialize;
use tidegate_abi::syn_ack::{SynRate, feature, source_rule};
use tidegate_abi::{MAX_SOURCE_RULES, SYN_SOURCES};
use tidegate_tcp::config::InvalidSetting;
use tidegate_tcp::sources::SourceLimits;

use super::Prefix;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The XDP program's treatment of TCP to a served address and port, by its source.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sources {
    /// Prefixes to serve. The longest prefix that matches decides; a source in no prefix is served.
    pub allow: Vec<Prefix>,
    /// Prefixes whose segments are dropped. `0.0.0.0/0` and `::/0` deny all that is not allowed by a longer prefix.
    pub deny: Vec<Prefix>,
    /// SYNs per second of one source (at most 1,000,000); 0: no limit.
    pub syn_rate: u32,
    /// SYNs a source may send at once after a pause (1 to 1,000,000).
    pub syn_burst: u32,
    /// Bits of an IPv4 address that make a source (0 to 32).
    pub prefix_v4: u32,
    /// Bits of an IPv6 address that make a source (0 to 64).
    pub prefix_v6: u32,
    /// Sources remembered by each limit (1,024 to 16,777,216): by that of SYNs the most recently seen, by those of
    /// connections the ones that have any, and others while there is room for them.
    pub remembered: u32,
    /// Connections a source may have open on each shard (at most 2^28); 0: no limit.
    pub max_connections: u32,
    /// Handshakes a source may complete in a second on each shard (at most 1,000,000); 0: no limit.
    pub connection_rate: u32,
    /// Handshakes a source may complete at once after a pause (1 to 1,000,000).
    pub connection_burst: u32,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            syn_rate: 0,
            syn_burst: 32,
            prefix_v4: 32,
            prefix_v6: 64,
            remembered: SYN_SOURCES,
            max_connections: 0,
            connection_rate: 0,
            connection_burst: 256,
        }
    }
}

impl Sources {
    /// Checks the ranges the fields' documentation states, and that no prefix is both allowed and denied.
    ///
    /// # Errors
    ///
    /// The first key whose value is wrong.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        let mut rules: HashMap<Prefix, u32> = HashMap::new();
        for (prefix, rule) in self.rules() {
            if *rules.entry(prefix).or_insert(rule) != rule {
                return Err(InvalidSetting::new(
                    ["deny", "allow"],
                    format!("deny has {prefix}, and so has allow; keep one of them"),
                ));
            }
        }
        for (family, count) in [
            ("IPv4", rules.keys().filter(|prefix| prefix.address().is_ipv4()).count()),
            ("IPv6", rules.keys().filter(|prefix| prefix.address().is_ipv6()).count()),
        ] {
            if count > MAX_SOURCE_RULES as usize {
                return Err(InvalidSetting::new(
                    ["allow", "deny"],
                    format!("allow and deny have {count} {family} prefixes; at most {MAX_SOURCE_RULES} are possible"),
                ));
            }
        }
        for (key, value, most) in [
            ("syn_rate", self.syn_rate, 1_000_000),
            ("max_connections", self.max_connections, 1 << 28),
            ("connection_rate", self.connection_rate, 1_000_000),
        ] {
            if value > most {
                let message = format!("{key} is {value}; it must be at most {most}, or 0 for no limit");
                return Err(InvalidSetting::new([key], message));
            }
        }
        InvalidSetting::check_range("connection_burst", self.connection_burst, 1..=1_000_000)?;
        InvalidSetting::check_range("syn_burst", self.syn_burst, 1..=1_000_000)?;
        InvalidSetting::check_range("prefix_v4", self.prefix_v4, 0..=32)?;
        InvalidSetting::check_range("prefix_v6", self.prefix_v6, 0..=64)?;
        InvalidSetting::check_range("remembered", self.remembered, 1024..=1 << 24)
    }

    /// Every prefix with its [`source_rule`].
    pub(crate) fn rules(&self) -> impl Iterator<Item = (Prefix, u32)> + '_ {
        let allow = self.allow.iter().map(|&prefix| (prefix, source_rule::ALLOW));
        let deny = self.deny.iter().map(|&prefix| (prefix, source_rule::DENY));
        allow.chain(deny)
    }

    /// The bits of [`feature`] that are needed.
    pub(crate) fn features(&self) -> u32 {
        let mut features = 0;
        // To allow without denying anything changes nothing.
        if !self.deny.is_empty() {
            features |= feature::SOURCE_RULES;
        }
        if self.syn_rate != 0 {
            features |= feature::SYN_RATE;
        }
        features
    }

    /// The limit as the XDP program takes it.
    pub(crate) fn limit(&self) -> SynRate {
        let cost_ns = NANOS_PER_SECOND.checked_div(u64::from(self.syn_rate)).unwrap_or(0);
        SynRate {
            cost_ns,
            burst_ns: u64::from(self.syn_burst) * cost_ns,
            prefix_v4: self.prefix_v4,
            prefix_v6: self.prefix_v6,
        }
    }

    /// The limits that engines keep.
    pub(crate) fn connection_limits(&self) -> SourceLimits {
        SourceLimits {
            max_connections: self.max_connections,
            connection_rate: self.connection_rate,
            connection_burst: self.connection_burst,
            prefix_v4: self.prefix_v4,
            prefix_v6: self.prefix_v6,
            remembered: self.remembered,
        }
    }

    /// Entries of the map of limited sources. It takes its memory at once, so next to none where nothing is limited.
    pub(crate) fn map_entries(&self) -> u32 {
        if self.syn_rate == 0 { 1 } else { self.remembered }
    }
}

/// Address and length of a prefix in the form of the tries: octets in network byte order.
pub(crate) enum TriePrefix {
    V4(u32, [u8; 4]),
    V6(u32, [u8; 16]),
}

impl From<TriePrefix> for Prefix {
    fn from(prefix: TriePrefix) -> Self {
        match prefix {
            TriePrefix::V4(length, octets) => Self::new(octets.into(), length as u8),
            TriePrefix::V6(length, octets) => Self::new(octets.into(), length as u8),
        }
    }
}

impl From<Prefix> for TriePrefix {
    fn from(prefix: Prefix) -> Self {
        let length = u32::from(prefix.length());
        match prefix.address() {
            IpAddr::V4(v4) => Self::V4(length, v4.octets()),
            IpAddr::V6(v6) => Self::V6(length, v6.octets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Sources {
        toml::from_str(text).expect("a good table")
    }

    fn complaint(text: &str) -> String {
        let error = read(text).validate().expect_err(text);
        error.to_string()
    }

    #[test]
    fn nothing_is_looked_at_by_default() {
        let sources = read("");
        assert_eq!(sources, Sources::default());
        sources.validate().expect("a valid default");
        assert_eq!((sources.features(), sources.map_entries()), (0, 1));
        assert_eq!(sources.limit().cost_ns, 0);
    }

    #[test]
    fn rules_and_limit_switch_their_features_on() {
        let sources = read("allow = [\"192.0.2.0/24\"]\ndeny = [\"0.0.0.0/0\", \"::/0\"]");
        sources.validate().expect("good rules");
        assert_eq!(sources.features(), feature::SOURCE_RULES);
        let rules: Vec<_> = sources
            .rules()
            .map(|(prefix, rule)| (prefix.to_string(), rule))
            .collect();
        assert_eq!(
            rules,
            [
                ("192.0.2.0/24".to_owned(), source_rule::ALLOW),
                ("0.0.0.0/0".to_owned(), source_rule::DENY),
                ("::/0".to_owned(), source_rule::DENY),
            ]
        );
        let sources = read("syn_rate = 100\nsyn_burst = 5");
        assert_eq!(sources.features(), feature::SYN_RATE);
        assert_eq!(sources.map_entries(), SYN_SOURCES);
        let limit = sources.limit();
        assert_eq!((limit.cost_ns, limit.burst_ns), (10_000_000, 50_000_000));
        assert_eq!((limit.prefix_v4, limit.prefix_v6), (32, 64));
    }

    #[test]
    fn engines_are_given_what_the_file_says() {
        let sources = read("max_connections = 7\nconnection_rate = 8\nconnection_burst = 9\nprefix_v4 = 24");
        let limits = sources.connection_limits();
        assert_eq!(
            (limits.max_connections, limits.connection_rate, limits.connection_burst),
            (7, 8, 9)
        );
        assert_eq!(
            (limits.prefix_v4, limits.prefix_v6, limits.remembered),
            (24, 64, SYN_SOURCES)
        );
        assert_eq!(read("").connection_limits(), SourceLimits::default());
    }

    #[test]
    fn every_limit_is_named_when_it_is_broken() {
        assert!(complaint("syn_rate = 1000001").starts_with("syn_rate is 1000001"));
        assert!(complaint("syn_burst = 0").starts_with("syn_burst is 0"));
        assert!(complaint("prefix_v4 = 33").starts_with("prefix_v4 is 33"));
        assert!(complaint("prefix_v6 = 65").starts_with("prefix_v6 is 65"));
        assert!(complaint("remembered = 10").starts_with("remembered is 10"));
        assert!(complaint("max_connections = 268435457").starts_with("max_connections is 268435457"));
        assert!(complaint("connection_rate = 1000001").starts_with("connection_rate is 1000001"));
        assert!(complaint("connection_burst = 0").starts_with("connection_burst is 0"));
        let both = "allow = [\"192.0.2.0/24\"]\ndeny = [\"192.0.2.0/24\"]";
        assert!(complaint(both).starts_with("deny has 192.0.2.0/24"));
    }

    #[test]
    fn tries_take_lengths_and_octets() {
        let v4 = TriePrefix::from("198.18.0.0/15".parse::<Prefix>().expect("a prefix"));
        assert!(matches!(v4, TriePrefix::V4(15, [198, 18, 0, 0])));
        let v6 = TriePrefix::from("2001:2::/48".parse::<Prefix>().expect("a prefix"));
        assert!(matches!(v6, TriePrefix::V6(48, [0x20, 0x01, 0, 2, ..])));
    }
}
