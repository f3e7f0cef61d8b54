//! What to serve where: `SERVICE=ADDRESS:PORT`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Visitor};

/// The applications a listener can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// HTTP/1.1: files or the built-in page.
    Http,
    /// Everything received is sent back (RFC 862).
    Echo,
    /// Everything received is thrown away (RFC 863).
    Discard,
}

impl Service {
    const ALL: [Self; 3] = [Self::Http, Self::Echo, Self::Discard];

    /// The name on the command line and in the configuration file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Echo => "echo",
            Self::Discard => "discard",
        }
    }
}

/// One listener. Its address is one that an interface can have, its port is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// What is served.
    pub(crate) service: Service,
    /// The address and port of the connections to accept.
    pub(crate) address: SocketAddr,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.service.name(), self.address)
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
        let (name, address) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not SERVICE=ADDRESS:PORT; write it like http=198.18.0.1:80"))?;
        let service = Service::ALL
            .into_iter()
            .find(|service| service.name() == name)
            .ok_or_else(|| format!("there is no service `{name}`; the services are http, echo and discard"))?;
        let address = address.parse::<SocketAddr>().map_err(|_| {
            format!(
                "`{address}` is not an IP address with a port; write it like 198.18.0.1:80, or [2001:2::1]:80 for IPv6"
            )
        })?;
        check(address)?;
        Ok(Self { service, address })
    }
}

fn check(address: SocketAddr) -> Result<(), String> {
    if address.port() == 0 {
        return Err("port 0 cannot be served; give the port the clients connect to (1 to 65535)".to_owned());
    }
    if let SocketAddr::V6(v6) = address {
        if v6.scope_id() != 0 {
            return Err(format!(
                "leave the zone out of `{address}`; the interface is the one given by --iface"
            ));
        }
        if let Some(v4) = v6.ip().to_ipv4_mapped() {
            return Err(format!("write the IPv4-mapped address as IPv4: {v4}:{}", v6.port()));
        }
    }
    let ip = address.ip();
    let kind = if ip.is_unspecified() {
        "the unspecified address"
    } else if ip.is_multicast() {
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
         find them with `ip addr show dev IFACE`"
    ))
}

/// Checks listeners as a set: at least one, no more than the XDP program has room for, no address and port twice.
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
    for (index, listener) in listeners.iter().enumerate() {
        let earlier = listeners[..index]
            .iter()
            .find(|earlier| earlier.address == listener.address);
        if let Some(earlier) = earlier {
            return Err(format!(
                "{listener} and {earlier} have the same address and port; a port can have one service only"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_listeners() {
        for (text, service) in [
            ("http=198.18.0.1:80", Service::Http),
            ("echo=198.18.0.1:65535", Service::Echo),
            ("discard=198.18.0.1:9", Service::Discard),
            ("http=[2001:2::1]:8080", Service::Http),
            ("echo=[fe80::1]:7", Service::Echo),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.service, service);
            assert_eq!(listen.to_string(), text);
        }
    }

    #[test]
    fn wrong_listeners_say_what_is_wrong() {
        for (text, phrase) in [
            ("198.18.0.1:80", "is not SERVICE=ADDRESS:PORT"),
            ("https=198.18.0.1:80", "no service `https`"),
            ("HTTP=198.18.0.1:80", "no service `HTTP`"),
            ("http=198.18.0.1", "is not an IP address with a port"),
            ("http=2001:2::1:80", "is not an IP address with a port"),
            ("http=example.com:80", "is not an IP address with a port"),
            ("http=198.18.0.1:65536", "is not an IP address with a port"),
            ("http=", "is not an IP address with a port"),
            ("http=198.18.0.1:0", "port 0"),
            ("http=0.0.0.0:80", "unspecified"),
            ("http=[::]:80", "unspecified"),
            ("http=127.0.0.1:80", "loopback"),
            ("http=[::1]:80", "loopback"),
            ("http=224.0.0.1:80", "multicast"),
            ("http=[ff02::1]:80", "multicast"),
            ("http=255.255.255.255:80", "broadcast"),
            ("http=[::ffff:198.18.0.1]:80", "198.18.0.1:80"),
            ("http=[fe80::1%3]:80", "zone"),
        ] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn unusable_addresses_come_with_the_way_to_find_others() {
        for text in ["http=0.0.0.0:80", "http=127.0.0.1:80", "http=[ff02::1]:80"] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.contains("ip addr show dev IFACE"), "{error}");
        }
    }

    #[test]
    fn a_port_has_one_service_only() {
        let parse = |texts: &[&str]| -> Vec<Listen> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        assert_eq!(check_all(&parse(&["http=198.18.0.1:80", "http=198.18.0.1:81"])), Ok(()));
        assert_eq!(
            check_all(&parse(&["http=198.18.0.1:80", "http=[2001:2::1]:80"])),
            Ok(())
        );
        let error = check_all(&parse(&["http=198.18.0.1:80", "echo=198.18.0.1:80"])).unwrap_err();
        assert!(error.contains("echo=198.18.0.1:80 and http=198.18.0.1:80"), "{error}");
    }
}
