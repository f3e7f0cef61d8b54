//! The addresses that an engine accepts connections to.

use core::net::SocketAddr;
use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use crate::application::ListenerId;
use crate::wire::FlowKey;
use crate::wire::address::{Address, from_ip, to_ip};

/// Addresses that are compared one by one, which is faster than a table for so few.
const FEW: usize = 4;

/// Concrete addresses and ports, each with its listener. A look-up takes the same time however many there are.
///
/// The hash is the fastest and has no key: an engine draws no random numbers, and no peer chooses what is in the
/// tables.
#[derive(Default)]
pub(super) struct ServedAddresses {
    /// In the order in which they were added.
    listed: Vec<(Address, u16, ListenerId)>,
    listeners: HashMap<(Address, u16), ListenerId, FixedState>,
    ips: HashSet<Address, FixedState>,
}

impl ServedAddresses {
    /// Adds an address. Of equal ones the first counts.
    pub(super) fn add(&mut self, address: SocketAddr, listener: ListenerId) {
        let ip = from_ip(address.ip());
        self.listed.push((ip, address.port(), listener));
        self.listeners.entry((ip, address.port())).or_insert(listener);
        self.ips.insert(ip);
    }

    /// All of them, in the order in which they were added.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketAddr, ListenerId)> + '_ {
        let listed = self.listed.iter();
        listed.map(|(ip, port, listener)| (SocketAddr::new(to_ip(ip), *port), *listener))
    }

    /// All of them, if they are few.
    #[inline]
    fn few(&self) -> Option<&[(Address, u16, ListenerId)]> {
        (self.listed.len() <= FEW).then_some(&*self.listed)
    }

    /// The listener for connections to this side's address and port.
    #[inline]
    pub(super) fn listener(&self, key: &FlowKey) -> Option<ListenerId> {
        if let Some(few) = self.few() {
            let mut few = few.iter();
            let found = few.find(|(ip, port, _)| *port == key.local_port && *ip == key.local);
            return found.map(|&(.., listener)| listener);
        }
        self.listeners.get(&(key.local, key.local_port)).copied()
    }

    /// Whether the peer's address is one of these, on whatever port.
    #[inline]
    pub(super) fn has_peer(&self, key: &FlowKey) -> bool {
        if let Some(few) = self.few() {
            return few.iter().any(|(ip, ..)| *ip == key.remote);
        }
        self.ips.contains(&key.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_ups_agree_with_the_list() {
        let mut addresses = ServedAddresses::default();
        let all = ["198.18.0.1:80", "[2001:2::1]:80", "198.18.0.1:81", "198.18.0.1:80"]
            .map(|text| text.parse::<SocketAddr>().expect("an address"));
        for (address, number) in all.into_iter().zip(0..) {
            addresses.add(address, ListenerId(number));
        }
        let listed: Vec<_> = addresses.iter().map(|(address, _)| address).collect();
        assert_eq!(listed, all);
        agrees(&addresses);
        for port in 100..100 + FEW as u16 {
            addresses.add(([198, 18, 0, 9], port).into(), ListenerId(port));
            agrees(&addresses);
        }
    }

    fn agrees(addresses: &ServedAddresses) {
        for (local, peer, listener, has_peer) in [
            ("198.18.0.1:80", "198.18.0.2:9", Some(0), false),
            ("[2001:2::1]:80", "[2001:2::1]:9", Some(1), true),
            ("198.18.0.1:81", "198.18.0.1:9", Some(2), true),
            ("198.18.0.2:80", "198.18.0.1:80", None, true),
            ("[2001:2::1]:81", "[2001:2::2]:80", None, false),
        ] {
            let key = FlowKey::new(local.parse().expect("an address"), peer.parse().expect("an address"));
            assert_eq!(addresses.listener(&key), listener.map(ListenerId), "{local}");
            assert_eq!(addresses.has_peer(&key), has_peer, "{peer}");
        }
    }
}
