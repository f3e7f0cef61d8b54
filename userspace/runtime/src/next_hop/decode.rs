//! Routing messages of the kernel (rtnetlink(7)), as changes of the tables.

use core::sync::atomic::AtomicBool;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netlink_bindings::traits::NetlinkRequest;
use netlink_bindings::utils::find_attr;
use netlink_bindings::{rt_neigh, rt_route};

use super::tables::{Change, Hop, Hops, Neighbour, Object, Order, Route};
use crate::netlink::Message;

pub(super) const RTM_GETNEXTHOP: u16 = 106;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

/// Attributes of routes, and a flag of theirs (include/uapi/linux/rtnetlink.h).
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTNH_F_DEAD: u32 = 1;

/// Attributes of a nexthop object (include/uapi/linux/nexthop.h).
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_FDB: u16 = 11;

/// Sizes of the headers before attributes.
const NHMSG: usize = 8;
const IFINFOMSG: usize = 16;
const RTNEXTHOP: usize = 8;
const RTMSG: usize = 12;
const NDMSG: usize = 12;

/// The states of a neighbour whose Ethernet address the kernel sends to.
const USABLE: u16 =
    libc::NUD_REACHABLE | libc::NUD_STALE | libc::NUD_DELAY | libc::NUD_PROBE | libc::NUD_PERMANENT | libc::NUD_NOARP;

/// The interface of a way that cannot be followed, such as a tunnel: none has this number.
const NO_INTERFACE: u32 = 0;

/// The meaning of a message.
#[derive(Debug)]
pub(super) enum Event {
    Change(Change),
    /// The state of an interface: its number, and its flags.
    Link(u32, u32),
    /// Routes may have gone that the kernel does not tell of.
    Unknown,
}

/// Reads a message, of which `out` is told what it means for `interfaces`.
pub(super) fn decode(message: &Message<'_>, interfaces: &[u32], out: &mut impl FnMut(Event)) {
    let payload = message.payload;
    match message.kind {
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            if let Some(change) = route(message) {
                out(Event::Change(change));
            }
        }
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
            if let Some(change) = object(message.kind, payload) {
                out(Event::Change(change));
            }
        }
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            if let Some(change) = neighbour(message, interfaces) {
                out(Event::Change(change));
            }
        }
        libc::RTM_NEWLINK if payload.len() >= IFINFOMSG => {
            let index = word(payload, 4).unwrap_or(NO_INTERFACE);
            if interfaces.contains(&index)
                && let Some(mac) = find_attr(&payload[IFINFOMSG..], libc::IFLA_ADDRESS)
                && let Ok(mac) = mac.try_into()
            {
                out(Event::Change(Change::Mac(index, mac)));
            }
            let flags = word(payload, 8).unwrap_or(0);
            out(Event::Link(index, flags & (libc::IFF_UP | libc::IFF_RUNNING) as u32));
        }
        libc::RTM_DELLINK | libc::RTM_DELADDR => out(Event::Unknown),
        _ => {}
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// A route of table main, if it is one by the destination alone.
fn route(message: &Message<'_>) -> Option<Change> {
    if message.payload.len() < RTMSG {
        return None;
    }
    let (header, attributes) = rt_route::OpGetrouteDump::decode_reply(message.payload);
    let is_v4 = i32::from(header.rtm_family) == libc::AF_INET;
    let is_v6 = i32::from(header.rtm_family) == libc::AF_INET6;
    let table = attributes.get_table().unwrap_or(u32::from(header.rtm_table));
    if !(is_v4 || is_v6)
        || table != u32::from(libc::RT_TABLE_MAIN)
        || header.rtm_src_len != 0
        || header.rtm_tos != 0
        || header.rtm_flags & libc::RTM_F_CLONED != 0
    {
        return None;
    }
    let destination = attributes.get_dst().unwrap_or(if is_v4 {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    });
    let prefix = IpNet::new(destination, header.rtm_dst_len).ok()?.trunc();
    let hops = if header.rtm_type != libc::RTN_UNICAST {
        Hops::Listed(Vec::new())
    } else if let Ok(number) = attributes.get_nh_id() {
        Hops::Object(number)
    } else if let Ok(several) = attributes.get_multipath() {
        Hops::Listed(multipath(several))
    } else {
        let interface = attributes.get_oif().unwrap_or(NO_INTERFACE);
        Hops::Listed(vec![hop(attributes.get_buf(), interface, header.rtm_flags, 1)])
    };
    let metric = attributes.get_priority().unwrap_or(0);
    let route = Route { metric, hops };
    if message.kind == libc::RTM_DELROUTE {
        return Some(Change::RemoveRoute { prefix, route });
    }
    let flags = i32::from(message.flags);
    let order = if flags & libc::NLM_F_MULTI != 0 {
        // Part of a listing, where flags of requests have no meaning.
        Order::Last
    } else if flags & libc::NLM_F_REPLACE != 0 {
        Order::Replace
    } else if is_v6 || flags & libc::NLM_F_APPEND != 0 {
        // The kernel puts a new one behind its equals for IPv6, and before them for IPv4.
        Order::Last
    } else {
        Order::First
    };
    Some(Change::AddRoute { prefix, route, order })
}

/// The ways in an attribute RTA_MULTIPATH.
fn multipath(mut bytes: &[u8]) -> Vec<Hop> {
    let mut hops = Vec::new();
    while bytes.len() >= RTNEXTHOP {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let (flags, more) = (u32::from(bytes[2]), u32::from(bytes[3]));
        if length < RTNEXTHOP || length > bytes.len() {
            break;
        }
        let interface = word(bytes, 4).unwrap_or(NO_INTERFACE);
        hops.push(hop(&bytes[RTNEXTHOP..length], interface, flags, more + 1));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    hops
}

/// A way with these attributes of a route.
fn hop(attributes: &[u8], interface: u32, flags: u32, weight: u32) -> Hop {
    let via = find_attr(attributes, RTA_VIA).and_then(|via| address(via.get(2..)?));
    let gateway = find_attr(attributes, libc::RTA_GATEWAY).and_then(address);
    let is_encapsulated = find_attr(attributes, RTA_ENCAP_TYPE).is_some_and(|kind| kind.iter().any(|&b| b != 0));
    Hop {
        interface: if is_encapsulated { NO_INTERFACE } else { interface },
        gateway: via.or(gateway),
        weight,
        is_dead: flags & RTNH_F_DEAD != 0,
    }
}

/// An IP address, unless it is the unspecified one.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.ok().filter(|address| !address.is_unspecified())
}

fn object(kind: u16, payload: &[u8]) -> Option<Change> {
    let attributes = payload.get(NHMSG..)?;
    let flags = word(payload, 4)?;
    let attribute = |kind| find_attr(attributes, kind);
    if attribute(NHA_FDB).is_some() {
        return None;
    }
    let number = word(attribute(NHA_ID)?, 0)?;
    if kind == RTM_DELNEXTHOP {
        return Some(Change::RemoveObject(number));
    }
    let object = if let Some(members) = attribute(NHA_GROUP) {
        let members = members.as_chunks::<8>().0.iter();
        Object::Group(
            members
                .map(|member| {
                    let number = u32::from_ne_bytes([member[0], member[1], member[2], member[3]]);
                    (number, 1 + (u32::from(member[4]) | u32::from(member[5]) << 8))
                })
                .collect(),
        )
    } else if attribute(NHA_BLACKHOLE).is_some() {
        Object::Group(Vec::new())
    } else {
        let interface = attribute(NHA_OIF).and_then(|index| word(index, 0));
        let interface = interface.filter(|_| attribute(NHA_ENCAP_TYPE).is_none());
        Object::Hop(Hop {
            interface: interface.unwrap_or(NO_INTERFACE),
            gateway: attribute(NHA_GATEWAY).and_then(address),
            weight: 1,
            is_dead: flags & RTNH_F_DEAD != 0,
        })
    };
    Some(Change::AddObject { number, object })
}

fn neighbour(message: &Message<'_>, interfaces: &[u32]) -> Option<Change> {
    if message.payload.len() < NDMSG {
        return None;
    }
    let (header, attributes) = rt_neigh::OpGetneighDump::decode_reply(message.payload);
    let is_ip = matches!(i32::from(header.ndm_family), libc::AF_INET | libc::AF_INET6);
    let interface = header.ndm_ifindex as u32;
    if !is_ip || !interfaces.contains(&interface) || header.ndm_flags & libc::NTF_PROXY != 0 {
        return None;
    }
    let address = attributes.get_dst().ok()?;
    let mac = attributes.get_lladdr().ok().and_then(|mac| mac.try_into().ok());
    let is_usable = message.kind == libc::RTM_NEWNEIGH && header.ndm_state & USABLE != 0;
    Some(match mac.filter(|_| is_usable) {
        Some(mac) => Change::AddNeighbour(Arc::new(Neighbour {
            interface,
            address,
            mac,
            in_use: AtomicBool::new(false),
        })),
        None => Change::RemoveNeighbour(interface, address),
    })
}
