//! Listeners as they are written: `SERVICE=ADDRESS:PORT`.

use std::collections::HashMap;
use std::fmt;
use std::net::{SocketAddr, SocketAddrV4};
use std::str::FromStr;

use crate::ServiceKind;

/// One listener, written `SERVICE=ADDRESS:PORT`. Where it was parsed from a text, its port is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The service.
    pub service: ServiceKind,
    /// The address and port of the connections to accept.
    pub address: SocketAddr,
}

/// Listeners that cannot be served as they were written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Nothing separates the service from the address.
    #[error("`{0}` is not SERVICE=ADDRESS:PORT; write it like http=198.18.0.1:80")]
    Syntax(String),
    /// No service has this name.
    #[error("there is no service `{0}`; the services are http, echo and discard")]
    UnknownService(String),
    /// No IP address with a port follows the service.
    #[error("`{0}` is not an IP address with a port; write it like 198.18.0.1:80, or [2001:2::1]:80 for IPv6")]
    NotAnAddress(String),
    /// No client connects to port 0.
    #[error("port 0 cannot be served; give the port the clients connect to (1 to 65535)")]
    PortZero,
    /// An IPv4 address written as an IPv6 one.
    #[error("write the IPv4-mapped address as IPv4: {0}")]
    Ipv4Mapped(SocketAddrV4),
    /// Two listeners have the same address and port.
    #[error("{later} and {earlier} have the same address and port; a port can have one service only")]
    SameAddress {
        /// The one that was given first.
        earlier: Listen,
        /// The other one.
        later: Listen,
    },
}

impl Listen {
    /// Checks that no two listeners have the same address and port.
    ///
    /// # Errors
    ///
    /// [`ListenError::SameAddress`] names both.
    pub fn check_distinct(listeners: impl IntoIterator<Item = Self>) -> Result<(), ListenError> {
        let mut known = HashMap::new();
        for later in listeners {
            if let Some(earlier) = known.insert(later.address, later) {
                return Err(ListenError::SameAddress { earlier, later });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.service.name(), self.address)
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let (name, address) = text
            .split_once('=')
            .ok_or_else(|| ListenError::Syntax(text.to_owned()))?;
        let service = ServiceKind::ALL
            .into_iter()
            .find(|service| service.name() == name)
            .ok_or_else(|| ListenError::UnknownService(name.to_owned()))?;
        let address: SocketAddr = address
            .parse()
            .map_err(|_| ListenError::NotAnAddress(address.to_owned()))?;
        if address.port() == 0 {
            return Err(ListenError::PortZero);
        }
        if let SocketAddr::V6(v6) = address
            && let Some(v4) = v6.ip().to_ipv4_mapped()
        {
            return Err(ListenError::Ipv4Mapped(SocketAddrV4::new(v4, v6.port())));
        }
        Ok(Self { service, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_listeners() {
        for (text, service) in [
            ("http=198.18.0.1:80", ServiceKind::Http),
            ("echo=127.0.0.1:65535", ServiceKind::Echo),
            ("discard=0.0.0.0:9", ServiceKind::Discard),
            ("http=[2001:2::1]:8080", ServiceKind::Http),
            ("echo=[fe80::1]:7", ServiceKind::Echo),
            ("echo=[fe80::1%3]:7", ServiceKind::Echo),
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
            ("http=[::ffff:198.18.0.1]:80", "as IPv4: 198.18.0.1:80"),
        ] {
            let error = text.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn a_port_has_one_service_only() {
        let check = |texts: [&str; 2]| Listen::check_distinct(texts.map(|text| text.parse::<Listen>().unwrap()));
        assert_eq!(check(["http=198.18.0.1:80", "http=198.18.0.1:81"]), Ok(()));
        assert_eq!(check(["http=198.18.0.1:80", "http=[2001:2::1]:80"]), Ok(()));
        let error = check(["http=198.18.0.1:80", "echo=198.18.0.1:80"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("echo=198.18.0.1:80 and http=198.18.0.1:80"), "{error}");
    }
}
