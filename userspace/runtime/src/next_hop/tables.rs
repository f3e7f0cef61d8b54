//! The kernel's routes and neighbours, as far as they say how an address is reached by the served interfaces.

use core::sync::atomic::AtomicBool;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use prefix_trie::joint::map::JointPrefixMap;
use tidegate_tcp::next_hops::NoNextHop;

/// An interface that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// The kernel's number.
    pub(super) index: u32,
    /// The number of the device that what leaves by it is given to.
    pub(super) device: u8,
    /// Its own Ethernet address.
    pub(super) mac: [u8; 6],
}

/// A host whose Ethernet address is known.
#[derive(Debug)]
pub(super) struct Neighbour {
    /// The index of the interface it is beside.
    pub(super) interface: u32,
    pub(super) address: IpAddr,
    pub(super) mac: [u8; 6],
    /// It was the next hop of a flow since the kernel was last told so.
    pub(super) in_use: AtomicBool,
}

/// One way of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// The index of the interface.
    pub(super) interface: u32,
    /// `None`: the destination itself is a neighbour.
    pub(super) gateway: Option<IpAddr>,
    /// Its part of the flows, among those of its route.
    pub(super) weight: u32,
    /// The kernel does not use it.
    pub(super) is_dead: bool,
}

impl Hop {
    fn is_same_way(&self, other: &Self) -> bool {
        self.interface == other.interface && self.gateway == other.gateway
    }
}

/// The ways of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hops {
    /// These; without any it refuses its destinations.
    Listed(Vec<Hop>),
    /// Those of a nexthop object.
    Object(u32),
}

impl Hops {
    fn listed(&self) -> &[Hop] {
        match self {
            Self::Listed(hops) => hops,
            Self::Object(_) => &[],
        }
    }

    /// Whether they are the same ways, of whatever weight and state.
    fn are_same_ways(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(one), Self::Object(other)) => one == other,
            (Self::Listed(one), Self::Listed(other)) => {
                one.len() == other.len() && one.iter().all(|hop| other.iter().any(|other| hop.is_same_way(other)))
            }
            _ => false,
        }
    }

    fn share_a_way(&self, other: &Self) -> bool {
        let others = other.listed();
        self.listed()
            .iter()
            .any(|hop| others.iter().any(|other| hop.is_same_way(other)))
    }
}

/// A route to a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The lowest of those to a prefix is used.
    pub(super) metric: u32,
    pub(super) hops: Hops,
}

/// The place of a new route among those to the same prefix with the same metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    First,
    Last,
    /// The place of the first there is.
    Replace,
}

/// A nexthop object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Hop(Hop),
    /// Numbers and weights of others; without any it refuses its destinations.
    Group(Vec<(u32, u32)>),
}

/// The reason there is no next hop; and an interface and an address, which are to be resolved if it is that.
pub(super) type Unreachable = (NoNextHop, (u32, IpAddr));

/// A change of the tables.
#[derive(Clone, Debug)]
pub(super) enum Change {
    AddRoute {
        prefix: IpNet,
        route: Route,
        order: Order,
    },
    RemoveRoute {
        prefix: IpNet,
        route: Route,
    },
    AddObject {
        number: u32,
        object: Object,
    },
    RemoveObject(u32),
    AddNeighbour(Arc<Neighbour>),
    /// Of the interface with this index.
    RemoveNeighbour(u32, IpAddr),
    /// An interface's own Ethernet address.
    Mac(u32, [u8; 6]),
}

/// The tables. A look-up takes as long as the prefixes are long that contain the address, not as many as there are.
#[derive(Clone)]
pub(super) struct Tables {
    served: Vec<Served>,
    /// The routes to a prefix in the order in which they are preferred.
    routes: JointPrefixMap<IpNet, Vec<Route>>,
    objects: HashMap<u32, Object>,
    /// By interface and address.
    neighbours: HashMap<(u32, IpAddr), Arc<Neighbour>>,
}

impl Tables {
    /// Empty tables for these interfaces, of each its index and device.
    pub(super) fn new(interfaces: &[(u32, u8)]) -> Self {
        let served = interfaces.iter().map(|&(index, device)| Served {
            index,
            device,
            mac: [0; 6],
        });
        Self {
            served: served.collect(),
            routes: JointPrefixMap::new(),
            objects: HashMap::new(),
            neighbours: HashMap::new(),
        }
    }

    /// The served interface with this index.
    fn interface(&self, index: u32) -> Option<&Served> {
        self.served.iter().find(|served| served.index == index)
    }

    /// The neighbour that what is for `remote` goes to, and the interface. `hash`, the flow's, chooses among several.
    ///
    /// # Errors
    ///
    /// There is none; with the interface and the address that would have to be resolved.
    pub(super) fn lookup(&self, remote: IpAddr, hash: u32) -> Result<(&Arc<Neighbour>, &Served), Unreachable> {
        let (index, address) = self.gateway(remote, hash).map_err(|reason| (reason, (0, remote)))?;
        let neighbour = self.neighbours.get(&(index, address));
        neighbour
            .zip(self.interface(index))
            .ok_or((NoNextHop::Unresolved, (index, address)))
    }

    /// The interface and address of the next hop to `remote`, from the longest prefix that has a usable route.
    fn gateway(&self, remote: IpAddr, hash: u32) -> Result<(u32, IpAddr), NoNextHop> {
        let mut within = IpNet::from(remote);
        loop {
            let (prefix, routes) = self.routes.get_lpm(&within).ok_or(NoNextHop::NoRoute)?;
            if let Some(found) = routes.iter().find_map(|route| self.choose(route, remote, hash)) {
                return found;
            }
            within = prefix.supernet().ok_or(NoNextHop::NoRoute)?;
        }
    }

    /// The next hop by `route`; `None` if it cannot be used. Of several ways only those by served interfaces count,
    /// unless there are none.
    fn choose(&self, route: &Route, remote: IpAddr, hash: u32) -> Option<Result<(u32, IpAddr), NoNextHop>> {
        let (mut total, mut others) = (0, false);
        let hops = self.visit(&route.hops, &mut |hop, weight| {
            if self.interface(hop.interface).is_some() {
                total += u64::from(weight);
            } else {
                others = true;
            }
        })?;
        if hops == 0 {
            return Some(Err(NoNextHop::NoRoute));
        }
        if total == 0 {
            return others.then_some(Err(NoNextHop::OtherInterface));
        }
        let mut left = (total * u64::from(hash)) >> 32;
        let mut chosen = None;
        self.visit(&route.hops, &mut |hop, weight| {
            if self.interface(hop.interface).is_some() && chosen.is_none() {
                match left.checked_sub(u64::from(weight)) {
                    Some(rest) => left = rest,
                    None => chosen = Some((hop.interface, hop.gateway.unwrap_or(remote))),
                }
            }
        });
        chosen.map(Ok)
    }

    /// Shows `visitor` the ways that are not dead, with their weights. Returns how many there are with the dead ones;
    /// `None` if they are of an object that does not exist.
    fn visit(&self, hops: &Hops, visitor: &mut dyn FnMut(&Hop, u32)) -> Option<usize> {
        let mut show = |hop: &Hop, weight: u32| {
            if !hop.is_dead {
                visitor(hop, weight);
            }
        };
        match hops {
            Hops::Listed(hops) => {
                hops.iter().for_each(|hop| show(hop, hop.weight));
                Some(hops.len())
            }
            Hops::Object(number) => match self.objects.get(number)? {
                Object::Hop(hop) => {
                    show(hop, hop.weight);
                    Some(1)
                }
                Object::Group(members) => {
                    for (number, weight) in members {
                        if let Some(Object::Hop(hop)) = self.objects.get(number) {
                            show(hop, *weight);
                        }
                    }
                    Some(members.len())
                }
            },
        }
    }

    /// Makes a change. Returns whether it was one.
    pub(super) fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::AddRoute { prefix, route, order } => self.add_route(*prefix, route, *order),
            Change::RemoveRoute { prefix, route } => self.remove_route(*prefix, route),
            Change::AddObject { number, object } => {
                self.objects.insert(*number, object.clone()).as_ref() != Some(object)
            }
            Change::RemoveObject(number) => self.objects.remove(number).is_some(),
            Change::AddNeighbour(neighbour) => {
                let key = (neighbour.interface, neighbour.address);
                let known = self.neighbours.get(&key);
                if known.is_some_and(|known| known.mac == neighbour.mac) {
                    return false;
                }
                self.neighbours.insert(key, Arc::clone(neighbour));
                true
            }
            Change::RemoveNeighbour(interface, address) => self.neighbours.remove(&(*interface, *address)).is_some(),
            Change::Mac(interface, mac) => {
                let served = self.served.iter_mut().find(|served| served.index == *interface);
                served.is_some_and(|served| core::mem::replace(&mut served.mac, *mac) != *mac)
            }
        }
    }

    fn add_route(&mut self, prefix: IpNet, route: &Route, order: Order) -> bool {
        let routes = self.routes.entry(prefix).or_default();
        if routes.contains(route) {
            return false;
        }
        let replaced = routes.iter_mut().find(|other| {
            // The kernel tells of IPv6's several ways together, whichever of them is new.
            let is_sibling = prefix.addr().is_ipv6() && other.hops.share_a_way(&route.hops);
            other.metric == route.metric && (order == Order::Replace || is_sibling)
        });
        if let Some(replaced) = replaced {
            *replaced = route.clone();
            return true;
        }
        let next = routes.iter().position(|other| match order {
            Order::First => other.metric >= route.metric,
            Order::Last | Order::Replace => other.metric > route.metric,
        });
        routes.insert(next.unwrap_or(routes.len()), route.clone());
        true
    }

    fn remove_route(&mut self, prefix: IpNet, route: &Route) -> bool {
        let Some(routes) = self.routes.get_mut(&prefix) else {
            return false;
        };
        let of_metric = |other: &&mut Route| other.metric == route.metric;
        let same = |other: &Route| other.metric == route.metric && other.hops.are_same_ways(&route.hops);
        if let Some(index) = routes.iter().position(same) {
            routes.remove(index);
        } else if let Some(Route {
            hops: Hops::Listed(hops),
            ..
        }) = routes
            .iter_mut()
            .filter(of_metric)
            .find(|other| other.hops.share_a_way(&route.hops))
        {
            // One of IPv6's several ways.
            let gone = route.hops.listed();
            hops.retain(|hop| !gone.iter().any(|other| hop.is_same_way(other)));
        } else {
            return false;
        }
        if routes.is_empty() {
            self.routes.remove(&prefix);
        }
        true
    }
}

#[cfg(test)]
mod tests;
