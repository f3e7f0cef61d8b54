//! The listeners that the server accepts.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Visitor};

/// One listener. Its address is one that an interface can have, or the unspecified one for all those of its family; its
/// port is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen(tidegate_apps::Listen);

impl Deref for Listen {
    type Target = tidegate_apps::Listen;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ListenVisitor)
    }
}

/// Parses within the visit, so that the error carries the place of this string and not of the list it is in.
struct ListenVisitor;

impl Visitor<'_> for ListenVisitor {
    type Value = Listen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string SERVICE=ADDRESS:PORT")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Listen, E> {
        text.parse().map_err(E::custom)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let listen = text
            .parse::<tidegate_apps::Listen>()
            .map_err(|error| error.to_string())?;
        check(listen.address)?;
        Ok(Self(listen))
    }
}

fn check(address: SocketAddr) -> Result<(), String> {
    if let SocketAddr::V6(v6) = address
        && v6.scope_id() != 0
    {
        return Err(format!(
            "leave the zone out of `{address}`; the interface is the one given by --iface"
        ));
    }
    let ip = address.ip();
    let kind = if ip.is_multicast() {
        "a multicast address"
    } else if ip.is_loopback() {
        "a loopback address"
    } else if matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()) {
        "a broadcast address"
    } else {
        return Ok(());
    };
    Err(format!(
        "{ip} is {kind}; tidegate takes frames off one interface and needs an address of it; \
         find them with `ip addr show dev IFACE`, or take 0.0.0.0 or [::] for all of them"
    ))
}

/// Checks listeners as a set: no more than the XDP program has room for, no address and port twice.
///
/// # Errors
///
/// A sentence that says which listener cannot stay.
pub(crate) fn check_all(listeners: &[Listen]) -> Result<(), String> {
    let limit = tidegate_abi::MAX_LISTENERS as usize;
    if listeners.len() > limit {
        return Err(format!(
            "{} listeners are given; at most {limit} can be served",
            listeners.len()
        ));
    }
    tidegate_apps::Listen::check_distinct(listeners.iter().map(|listen| listen.0)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_an_interface_can_be_served() {
        for text in [
            "http=198.18.0.1:80",
            "http=[2001:2::1]:8080",
            "echo=[fe80::1]:7",
            "http=0.0.0.0:80",
            "http=[::]:80",
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_listeners_say_what_is_wrong() {
        for (text, phrase) in [
            ("198.18.0.1:80", "is not SERVICE=ADDRESS:PORT"),
            ("http=198.18.0.1:0", "port 0"),
            ("http=127.0.0.1:80", "loopback"),
            ("http=[::1]:80", "loopback"),
            ("http=224.0.0.1:80", "multicast"),
            ("http=[ff02::1]:80", "multicast"),
            ("http=255.255.255.255:80", "broadcast"),
            ("http=[fe80::1%3]:80", "zone"),
        ] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn unusable_addresses_come_with_the_way_to_find_others() {
        for text in ["http=224.0.0.1:80", "http=127.0.0.1:80", "http=[ff02::1]:80"] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.contains("ip addr show dev IFACE"), "{error}");
        }
    }

    #[test]
    fn the_xdp_program_has_room_for_so_many() {
        let mut listeners: Vec<Listen> = (1..=tidegate_abi::MAX_LISTENERS)
            .map(|port| format!("http=198.18.0.1:{port}").parse().unwrap())
            .collect();
        assert_eq!(check_all(&listeners), Ok(()));
        listeners.push("http=198.18.0.2:80".parse().unwrap());
        let error = check_all(&listeners).unwrap_err();
        assert!(error.contains("1025 listeners are given; at most 1024"), "{error}");
    }

    #[test]
    fn a_port_has_one_service_only() {
        let listeners = ["http=198.18.0.1:80", "echo=198.18.0.1:80"].map(|text| text.parse::<Listen>().unwrap());
        let error = check_all(&listeners).unwrap_err();
        assert!(error.contains("same address and port"), "{error}");
    }
}
