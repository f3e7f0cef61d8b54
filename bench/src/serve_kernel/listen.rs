//! What to serve where: `SERVICE=ADDRESS:PORT`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use tidegate_apps::ServiceKind;

/// One listener, written as the server writes it. Unlike there, the address may be a loopback or the unspecified one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listen {
    /// What is served.
    pub(super) service: ServiceKind,
    /// The address and port of the connections to accept.
    pub(super) address: SocketAddr,
}

const fn name(service: ServiceKind) -> &'static str {
    match service {
        ServiceKind::Http => "http",
        ServiceKind::Echo => "echo",
        ServiceKind::Discard => "discard",
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", name(self.service), self.address)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, address) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not SERVICE=ADDRESS:PORT; write it like http=198.18.0.1:80"))?;
        let service = [ServiceKind::Http, ServiceKind::Echo, ServiceKind::Discard]
            .into_iter()
            .find(|&kind| name(kind) == service)
            .ok_or_else(|| format!("there is no service `{service}`; the services are http, echo and discard"))?;
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
    let ip = address.ip();
    if ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()) {
        return Err(format!("{ip} is not the address of one machine, which TCP needs"));
    }
    if let IpAddr::V6(v6) = ip
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(format!(
            "write the IPv4-mapped address as IPv4: {v4}:{}",
            address.port()
        ));
    }
    Ok(())
}

/// Checks that no two listeners have the same address and port.
///
/// # Errors
///
/// A sentence that names both.
pub(super) fn check_all(listeners: &[Listen]) -> Result<(), String> {
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
            ("http=198.18.0.1:80", ServiceKind::Http),
            ("echo=127.0.0.1:65535", ServiceKind::Echo),
            ("discard=0.0.0.0:9", ServiceKind::Discard),
            ("http=[2001:2::1]:8080", ServiceKind::Http),
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
            ("http=198.18.0.1:0", "port 0"),
            ("http=224.0.0.1:80", "one machine"),
            ("http=255.255.255.255:80", "one machine"),
            ("http=[::ffff:198.18.0.1]:80", "198.18.0.1:80"),
        ] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn a_port_has_one_service_only() {
        let parse = |texts: &[&str]| -> Vec<Listen> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        assert_eq!(check_all(&parse(&["http=198.18.0.1:80", "http=198.18.0.1:81"])), Ok(()));
        let error = check_all(&parse(&["http=198.18.0.1:80", "echo=198.18.0.1:80"])).unwrap_err();
        assert!(error.contains("echo=198.18.0.1:80 and http=198.18.0.1:80"), "{error}");
    }
}
