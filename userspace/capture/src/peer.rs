//! The peers that are meant: an address, those of a prefix, or one port of them.

use core::fmt;
use core::str::FromStr;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::filter::Filter;

/// Peers of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    net: IpNet,
    port: Option<u16>,
}

/// Text that names no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPeer;

impl fmt::Display for NoPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a peer is an address, a prefix such as 198.18.0.0/24, or ADDRESS:PORT")
    }
}

impl core::error::Error for NoPeer {}

impl FromStr for Peer {
    type Err = NoPeer;

    fn from_str(text: &str) -> Result<Self, NoPeer> {
        if let Ok(end) = text.parse::<SocketAddr>() {
            return Ok(Self {
                net: end.ip().into(),
                port: Some(end.port()),
            });
        }
        let net = match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => text.parse::<IpNet>().map_err(|_| NoPeer)?.trunc(),
        };
        Ok(Self { net, port: None })
    }
}

impl Peer {
    /// The frames from and to these peers.
    pub fn filter(&self) -> Filter {
        Filter::of_peer(self.net, self.port)
    }

    /// Whether it is one of them.
    pub fn contains(&self, end: SocketAddr) -> bool {
        self.net.contains(&end.ip()) && self.port.is_none_or(|port| port == end.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_addresses_prefixes_and_ports() {
        let end: SocketAddr = "198.18.0.7:40000".parse().unwrap();
        for (text, contains) in [
            ("198.18.0.7", true),
            ("198.18.0.8", false),
            ("198.18.0.1/24", true),
            ("198.18.0.7:40000", true),
            ("198.18.0.7:40001", false),
            ("2001:2::1", false),
            ("[2001:2::1]:40000", false),
        ] {
            let peer: Peer = text.parse().unwrap();
            assert_eq!(peer.contains(end), contains, "{text}");
        }
        for text in ["", "everybody", "198.18.0.7:", "198.18.0.7/33", ":80"] {
            assert_eq!(text.parse::<Peer>(), Err(NoPeer), "{text}");
        }
    }
}
