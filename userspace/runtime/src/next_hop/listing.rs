//! Everything the kernel knows of routes, nexthop objects and neighbours, listed at once.

use std::collections::HashMap;
use std::io;

use netlink_bindings::{rt_neigh, rt_route};

use super::decode::{self, Event, RTM_GETNEXTHOP};
use super::tables::{Change, Tables};
use crate::netlink::{Message, Socket};

/// The times a listing is begun anew because it was interrupted, before it is given up for a while.
const LOAD_TRIES: u32 = 5;

pub(super) fn indices(interfaces: &[(u32, u8)]) -> Vec<u32> {
    interfaces.iter().map(|&(index, _)| index).collect()
}

/// Reads everything anew. The tables come with whether they may be outdated: what was told meanwhile may have removed
/// routes that were listed before.
pub(super) fn load(
    socket: &mut Socket,
    interfaces: &[(u32, u8)],
    links: &mut HashMap<u32, u32>,
) -> io::Result<(Tables, bool)> {
    let mut tries = 0;
    loop {
        match try_load(socket, interfaces, links) {
            Err(error) if tries < LOAD_TRIES && matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOBUFS)) => {
                tries += 1;
            }
            other => return other,
        }
    }
}

fn try_load(
    socket: &mut Socket,
    interfaces: &[(u32, u8)],
    links: &mut HashMap<u32, u32>,
) -> io::Result<(Tables, bool)> {
    let mut tables = Tables::new(interfaces);
    let mut is_outdated = false;
    let indices = indices(interfaces);
    links.clear();
    let mut take = |message: &Message<'_>| {
        decode::decode(message, &indices, &mut |event| {
            is_outdated |= take_listed(event, &mut tables, links);
        });
    };
    let dump = libc::NLM_F_DUMP as u16;
    let links = socket.send(libc::RTM_GETLINK, dump, &[0; 16])?;
    socket.receive_listing(links, &mut take)?;
    let objects = socket.send(RTM_GETNEXTHOP, dump, &[0; 8])?;
    match socket.receive_listing(objects, &mut take) {
        // Linux before 5.3 has none.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        other => other?,
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        let header = rt_route::Rtmsg {
            rtm_family: family as u8,
            ..Default::default()
        };
        let routes = socket.request(&rt_route::Request::new().op_getroute_dump(&header))?;
        match socket.receive_listing(routes, &mut take) {
            // Without IPv6.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            other => other?,
        }
    }
    let neighbours = socket.request(&rt_neigh::Request::new().op_getneigh_dump(&rt_neigh::Ndmsg::default()))?;
    socket.receive_listing(neighbours, &mut take)?;
    Ok((tables, is_outdated))
}

/// Takes what is told during a listing, as part of it or besides. Returns whether it may have removed routes, those
/// listed already among them.
pub(super) fn take_listed(event: Event, tables: &mut Tables, links: &mut HashMap<u32, u32>) -> bool {
    match event {
        Event::Change(change) => {
            tables.apply(&change);
            matches!(change, Change::RemoveObject(_))
        }
        Event::Link(index, flags) => links.insert(index, flags).is_some_and(|before| before != flags),
        Event::Unknown => true,
    }
}
