//! The addresses that listeners serve: those of the interfaces, as they come and go.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::net::if_::{if_indextoname, if_nametoindex};
use tidegate_abi::MAX_LISTENERS;
use tidegate_tcp::application::ListenerId;

use crate::error::Error;
use crate::interface::{self, Interface};
use crate::netlink::Socket;

/// The interval at which the addresses are looked at without notice of a change: one may have come before the kernel
/// was asked to tell, and a look may fail.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Addresses of both families.
const GROUPS: u32 = (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;

/// In the place of a listener that is not served any more, so that the others keep their numbers.
pub(crate) const REMOVED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Addresses with the listeners that accept their connections.
type Served = Arc<[(SocketAddr, ListenerId)]>;

/// The addresses that are served.
pub(crate) struct ServedAddresses {
    /// `None` if the kernel refused it; then there are only the looks in between.
    messages: Option<Socket>,
    /// The indices of the interfaces.
    indices: Vec<u32>,
    listeners: Vec<SocketAddr>,
    /// Whether concrete ones are served that no interface has.
    anywhere: bool,
    served: Served,
    looked_at: Instant,
}

/// A change of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AddressChange {
    /// All that are to be served.
    pub(crate) served: Served,
    pub(crate) added: Vec<SocketAddr>,
    pub(crate) removed: Vec<SocketAddr>,
}

impl ServedAddresses {
    /// The addresses that `listeners`, by number, have on `interfaces`; concrete ones are served `anywhere`, if so.
    ///
    /// # Errors
    ///
    /// [`Error::LinkGone`].
    pub(crate) fn new(interfaces: &[Interface], listeners: Vec<SocketAddr>, anywhere: bool) -> Result<Self, Error> {
        let messages = Socket::open(GROUPS)
            .inspect_err(|error| {
                tracing::warn!("the kernel does not tell of addresses ({error}); they are looked at every second")
            })
            .ok();
        let indices = interfaces.iter().map(|Interface { name, .. }| {
            if_nametoindex(name.as_str()).map_err(|_| Error::LinkGone { name: name.clone() })
        });
        let indices = indices.collect::<Result<Vec<_>, _>>()?;
        let own = interfaces.iter().flat_map(|interface| &interface.addresses);
        let own: Vec<IpAddr> = own.copied().collect();
        let (served, beyond) = expand(&listeners, &own, anywhere);
        warn_beyond(beyond);
        for listener in listeners.iter().filter(|listener| listener.ip().is_unspecified()) {
            if !own.iter().any(|address| covers(listener, *address)) {
                tracing::warn!("there is no address for {listener} yet; it is served as soon as there is one");
            }
        }
        Ok(Self {
            messages,
            indices,
            listeners,
            anywhere,
            served: served.into(),
            looked_at: Instant::now(),
        })
    }

    /// All of them, with their listeners.
    pub(crate) fn served(&self) -> Served {
        Arc::clone(&self.served)
    }

    /// All of them.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.served.iter().map(|&(address, _)| address).collect()
    }

    /// Looks at the interfaces, if something was told or it is time. `None` if the same are to be served as before.
    pub(crate) fn look(&mut self) -> Option<AddressChange> {
        let told = self.messages.as_mut().is_some_and(has_messages);
        if !told && self.looked_at.elapsed() < POLL_INTERVAL {
            return None;
        }
        self.looked_at = Instant::now();
        let mut all = Vec::new();
        // nix takes the null pointer of a failure for a name, which is empty then.
        let names = self.indices.iter().filter_map(|&index| if_indextoname(index).ok());
        let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
        // Without any interface nothing is served, which others tell.
        names.first()?;
        for name in names {
            let addresses = interface::addresses(&name.to_string_lossy());
            all.extend(addresses.inspect_err(|error| tracing::warn!("{error}")).ok()?);
        }
        self.take(&all)
    }

    /// All listeners by number, the [`REMOVED`] ones among them.
    pub(crate) fn listeners(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// Takes other listeners, by number, on interfaces that have these `addresses`. `None` if the same are to be served
    /// as before.
    pub(crate) fn replace(&mut self, listeners: Vec<SocketAddr>, addresses: &[IpAddr]) -> Option<AddressChange> {
        self.listeners = listeners;
        self.take(addresses)
    }

    /// Takes these for the addresses of the interfaces.
    fn take(&mut self, addresses: &[IpAddr]) -> Option<AddressChange> {
        let (served, beyond) = expand(&self.listeners, addresses, self.anywhere);
        let before: HashSet<_> = self.served.iter().copied().collect();
        let now: HashSet<_> = served.iter().copied().collect();
        let of = |difference: &mut dyn Iterator<Item = &(SocketAddr, ListenerId)>| {
            difference.map(|&(address, _)| address).collect::<Vec<_>>()
        };
        let mut added = of(&mut now.difference(&before));
        let mut removed = of(&mut before.difference(&now));
        if added.is_empty() && removed.is_empty() {
            return None;
        }
        warn_beyond(beyond);
        added.sort_unstable();
        removed.sort_unstable();
        self.served = served.into();
        Some(AddressChange {
            served: self.served(),
            added,
            removed,
        })
    }

    /// Says that `address`, which has gone, is left to the kernel.
    pub(crate) fn removed_sentence(&self, address: &SocketAddr) -> String {
        let remedy = if self.listeners.contains(address) {
            "; it is served again when the address is back"
        } else {
            ""
        };
        format!("{address} is not served any more, since the interface has lost the address{remedy}")
    }
}

/// Takes what the kernel has told, and says whether that was anything.
fn has_messages(socket: &mut Socket) -> bool {
    let mut told = false;
    loop {
        match socket.receive(|_| told = true) {
            Ok(true) => {}
            Ok(false) => return told,
            // Messages were lost, among others.
            Err(_) => return true,
        }
    }
}

/// Whether `listener` is for all addresses of this one's family.
fn covers(listener: &SocketAddr, address: IpAddr) -> bool {
    listener.ip().is_unspecified() && listener.is_ipv4() == address.is_ipv4()
}

/// The addresses that `listeners` have on an interface with `addresses`, concrete ones first, and all of these if they
/// may be `anywhere`; and how many there are beyond what can be served.
fn expand(listeners: &[SocketAddr], addresses: &[IpAddr], anywhere: bool) -> (Vec<(SocketAddr, ListenerId)>, usize) {
    let numbered = || {
        let numbered = (0..).map(ListenerId).zip(listeners);
        numbered.filter(|(_, listener)| **listener != REMOVED)
    };
    let concrete = numbered()
        .filter(|(_, listener)| addresses.contains(&listener.ip()) || anywhere && !listener.ip().is_unspecified())
        // Without scope and flow label, which no segment carries.
        .map(|(id, listener)| (SocketAddr::new(listener.ip(), listener.port()), id));
    let all = numbered().flat_map(|(id, listener)| {
        let own = addresses.iter().filter(|address| covers(listener, **address));
        own.map(move |&address| (SocketAddr::new(address, listener.port()), id))
    });
    let mut known = HashSet::new();
    let mut served: Vec<_> = concrete
        .chain(all)
        .filter(|&(address, _)| known.insert(address))
        .collect();
    let beyond = served.len().saturating_sub(MAX_LISTENERS as usize);
    served.truncate(MAX_LISTENERS as usize);
    (served, beyond)
}

fn warn_beyond(beyond: usize) {
    if beyond > 0 {
        tracing::warn!(
            "{beyond} addresses and ports of the interface are left to the kernel: {MAX_LISTENERS} can be served"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn expanded(all: &[&str], own: &[&str]) -> Vec<(String, u16)> {
        let (served, beyond) = expand(&listeners(all), &addresses(own), false);
        assert_eq!(beyond, 0);
        served
            .into_iter()
            .map(|(address, id)| (address.to_string(), id.0))
            .collect()
    }

    fn of(expected: &[(&str, u16)]) -> Vec<(String, u16)> {
        expected.iter().map(|&(text, id)| (text.to_owned(), id)).collect()
    }

    #[test]
    fn the_unspecified_address_is_all_of_its_family() {
        let own = ["198.18.0.1", "198.18.0.2", "2001:2::1", "fe80::1"];
        assert_eq!(
            expanded(&["0.0.0.0:80", "[::]:81"], &own),
            of(&[
                ("198.18.0.1:80", 0),
                ("198.18.0.2:80", 0),
                ("[2001:2::1]:81", 1),
                ("[fe80::1]:81", 1)
            ])
        );
        assert_eq!(expanded(&["0.0.0.0:80"], &["2001:2::1"]), of(&[]));
    }

    #[test]
    fn a_concrete_address_has_its_own_listener() {
        assert_eq!(
            expanded(
                &["0.0.0.0:80", "198.18.0.2:80", "198.18.0.3:80"],
                &["198.18.0.1", "198.18.0.2"]
            ),
            of(&[("198.18.0.2:80", 1), ("198.18.0.1:80", 0)])
        );
    }

    #[test]
    fn behind_balancers_a_concrete_address_is_served_that_no_interface_has() {
        let (served, _) = expand(
            &listeners(&["198.18.7.7:80", "0.0.0.0:81"]),
            &addresses(&["198.18.0.1"]),
            true,
        );
        let served: Vec<_> = served.iter().map(|(address, _)| address.to_string()).collect();
        assert_eq!(served, ["198.18.7.7:80", "198.18.0.1:81"]);
    }

    #[test]
    fn no_more_are_served_than_there_is_room_for_and_concrete_ones_first() {
        let own: Vec<IpAddr> = (0..MAX_LISTENERS + 5)
            .map(|number| IpAddr::from((0xc612_0000 + number).to_be_bytes()))
            .collect();
        let last = SocketAddr::new(own[own.len() - 1], 80);
        let (served, beyond) = expand(&[listeners(&["0.0.0.0:80"])[0], last], &own, false);
        assert_eq!((served.len(), beyond), (MAX_LISTENERS as usize, 5));
        assert_eq!(served[0], (last, ListenerId(1)));
    }

    fn served(texts: &[&str], own: &[&str]) -> ServedAddresses {
        let listeners = listeners(texts);
        ServedAddresses {
            messages: None,
            indices: vec![1],
            served: expand(&listeners, &addresses(own), false).0.into(),
            anywhere: false,
            listeners,
            looked_at: Instant::now(),
        }
    }

    #[test]
    fn other_listeners_are_served_from_then_on_and_those_that_stay_keep_their_numbers() {
        let own = addresses(&["198.18.0.1"]);
        let mut served = served(&["198.18.0.1:80", "0.0.0.0:81"], &["198.18.0.1"]);
        let mut others = listeners(&["198.18.0.1:80", "0.0.0.0:81", "198.18.0.1:82"]);
        others[0] = REMOVED;
        let change = served.replace(others.clone(), &own).expect("a change");
        assert_eq!(change.removed, listeners(&["198.18.0.1:80"]));
        assert_eq!(change.added, listeners(&["198.18.0.1:82"]));
        let numbers: Vec<_> = change
            .served
            .iter()
            .map(|(address, id)| (address.port(), id.0))
            .collect();
        assert_eq!(numbers, [(82, 2), (81, 1)]);
        assert_eq!(served.replace(others, &own), None);
    }

    #[test]
    fn what_the_kernel_did_not_tell_of_is_seen_by_the_next_look() {
        let mut served = served(&["0.0.0.0:80"], &["192.0.2.1"]);
        served.messages = Some(Socket::open(0).expect("a netlink socket"));
        served.indices = vec![if_nametoindex("lo").expect("a loopback interface")];
        served.looked_at = Instant::now() + 60 * POLL_INTERVAL;
        assert_eq!(served.look(), None, "nothing was told, and it is not time");
        served.looked_at = Instant::now() - POLL_INTERVAL;
        let change = served.look().expect("a change");
        assert_eq!(change.removed, listeners(&["192.0.2.1:80"]));
    }

    #[test]
    fn what_comes_and_goes_is_told_once() {
        let mut served = served(&["0.0.0.0:80", "198.18.0.9:80"], &["198.18.0.1", "198.18.0.9"]);
        assert_eq!(
            served.take(&addresses(&["198.18.0.9", "198.18.0.1", "2001:2::1"])),
            None
        );
        let change = served.take(&addresses(&["198.18.0.2"])).expect("a change");
        assert_eq!(change.added, listeners(&["198.18.0.2:80"]));
        assert_eq!(change.removed, listeners(&["198.18.0.1:80", "198.18.0.9:80"]));
        assert_eq!(change.served[..], [(listeners(&["198.18.0.2:80"])[0], ListenerId(0))]);
        let comes_back = |index: usize| served.removed_sentence(&change.removed[index]).contains("is back");
        assert!(!comes_back(0) && comes_back(1));
        assert_eq!(served.take(&addresses(&["198.18.0.2"])), None);
        let change = served
            .take(&addresses(&["198.18.0.2", "198.18.0.9"]))
            .expect("a change");
        assert_eq!(
            (change.added, change.removed),
            (listeners(&["198.18.0.9:80"]), Vec::new())
        );
    }
}
