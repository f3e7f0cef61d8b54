use std::collections::HashSet;
use std::sync::Barrier;

use netlink_bindings::traits::NetlinkRequest;
use netlink_bindings::{rt_neigh, rt_route};

use super::listing::take_listed;
use super::tables::{Change, Hop, Hops, Object, Order, Route};
use super::watcher::USE_INTERVAL;
use super::*;
use crate::netlink::Message;

/// The interface of the tables.
const OWN: u32 = 7;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The one meaning of a message.
fn meaning(kind: u16, flags: i32, payload: &[u8]) -> Option<Event> {
    let mut events = Vec::new();
    decode::decode(&Message::told(kind, flags, payload), &[OWN], &mut |event| {
        events.push(event)
    });
    assert!(events.len() <= 1, "{events:?}");
    events.pop()
}

fn change(kind: u16, flags: i32, payload: &[u8]) -> Option<Change> {
    match meaning(kind, flags, payload)? {
        Event::Change(change) => Some(change),
        other => panic!("{other:?}"),
    }
}

/// A header of a route to a prefix of this length.
fn header(length: u8) -> rt_route::Rtmsg {
    rt_route::Rtmsg {
        rtm_family: libc::AF_INET as u8,
        rtm_dst_len: length,
        rtm_table: libc::RT_TABLE_MAIN,
        rtm_type: libc::RTN_UNICAST,
        ..Default::default()
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len() as u16;
    let mut bytes = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn hop(gateway: &str) -> Hop {
    Hop {
        interface: OWN,
        gateway: (!gateway.is_empty()).then(|| ip(gateway)),
        weight: 1,
        is_dead: false,
    }
}

/// The ways of the route in the message.
fn hops(payload: &[u8]) -> Hops {
    match change(libc::RTM_NEWROUTE, 0, payload) {
        Some(Change::AddRoute { route, .. }) => route.hops,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_route_is_read_with_its_place_among_others() {
    let mut request = rt_route::Request::new().op_newroute_do(&header(24));
    request
        .encode()
        .push_dst(ip("192.0.2.0"))
        .push_gateway(ip("198.18.0.1"))
        .push_oif(OWN)
        .push_priority(100);
    let payload = request.payload();
    let expected = Route {
        metric: 100,
        hops: Hops::Listed(vec![hop("198.18.0.1")]),
    };
    for (flags, place) in [
        (libc::NLM_F_CREATE | libc::NLM_F_EXCL, Order::First),
        (libc::NLM_F_CREATE | libc::NLM_F_APPEND, Order::Last),
        (libc::NLM_F_REPLACE, Order::Replace),
        (libc::NLM_F_MULTI, Order::Last),
    ] {
        match change(libc::RTM_NEWROUTE, flags, payload) {
            Some(Change::AddRoute { prefix, route, order }) => {
                assert_eq!(prefix.to_string(), "192.0.2.0/24");
                assert_eq!((&route, order), (&expected, place));
            }
            other => panic!("{other:?}"),
        }
    }
    match change(libc::RTM_DELROUTE, 0, payload) {
        Some(Change::RemoveRoute { route, .. }) => assert_eq!(route, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_ipv6_route_is_behind_its_equals() {
    let header = rt_route::Rtmsg {
        rtm_family: libc::AF_INET6 as u8,
        ..header(64)
    };
    let mut request = rt_route::Request::new().op_newroute_do(&header);
    request
        .encode()
        .push_dst(ip("2001:2:0:1::"))
        .push_gateway(ip("fe80::1"))
        .push_oif(OWN)
        .push_priority(1024);
    let expected = Route {
        metric: 1024,
        hops: Hops::Listed(vec![hop("fe80::1")]),
    };
    for (flags, place) in [
        (libc::NLM_F_CREATE | libc::NLM_F_EXCL, Order::Last),
        (libc::NLM_F_CREATE | libc::NLM_F_APPEND, Order::Last),
        (libc::NLM_F_REPLACE, Order::Replace),
    ] {
        match change(libc::RTM_NEWROUTE, flags, request.payload()) {
            Some(Change::AddRoute { prefix, route, order }) => {
                assert_eq!(prefix.to_string(), "2001:2:0:1::/64");
                assert_eq!((&route, order), (&expected, place));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn all_kinds_of_ways_are_read() {
    let with = |header: rt_route::Rtmsg, attributes: &[Vec<u8>]| [header.as_slice(), &attributes.concat()].concat();
    let oif = attribute(4, &OWN.to_ne_bytes());
    assert_eq!(
        hops(&with(header(0), std::slice::from_ref(&oif))),
        Hops::Listed(vec![hop("")])
    );
    // RTA_VIA: a gateway of the other family.
    let IpAddr::V6(gateway) = ip("fe80::1") else { panic!() };
    let via = [&(libc::AF_INET6 as u16).to_ne_bytes(), &gateway.octets()[..]].concat();
    let by_v6 = with(header(0), &[oif.clone(), attribute(18, &via)]);
    assert_eq!(hops(&by_v6), Hops::Listed(vec![hop("fe80::1")]));
    // RTA_NH_ID: what else is told is what the object says at the moment.
    let by_object = with(header(0), &[oif.clone(), attribute(30, &9_u32.to_ne_bytes())]);
    assert_eq!(hops(&by_object), Hops::Object(9));
    // RTA_MULTIPATH: length, flags (the second is dead), weight less one, interface, attributes.
    let way = |flags: u8, weight: u8, gateway: [u8; 4]| {
        let attributes = attribute(5, &gateway);
        let length = 8 + attributes.len() as u16;
        let head = [&length.to_ne_bytes(), &[flags, weight - 1][..], &OWN.to_ne_bytes()].concat();
        [head, attributes].concat()
    };
    let several = [way(0, 3, [198, 18, 0, 1]), way(1, 1, [198, 18, 0, 2])].concat();
    let first = Hop {
        weight: 3,
        ..hop("198.18.0.1")
    };
    let second = Hop {
        is_dead: true,
        ..hop("198.18.0.2")
    };
    let by_several = with(header(0), &[attribute(9, &several)]);
    assert_eq!(hops(&by_several), Hops::Listed(vec![first, second]));
    // A tunnel (RTA_ENCAP_TYPE) is none of this interface.
    let encapsulated = with(header(0), &[oif.clone(), attribute(21, &1_u16.to_ne_bytes())]);
    assert_eq!(
        hops(&encapsulated),
        Hops::Listed(vec![Hop {
            interface: 0,
            ..hop("")
        }])
    );
    let mut refusing = header(0);
    refusing.rtm_type = libc::RTN_UNREACHABLE;
    assert_eq!(hops(&with(refusing, &[])), Hops::Listed(Vec::new()));
}

#[test]
fn what_does_not_go_by_the_destination_alone_in_table_main_is_left_out() {
    let others: [fn(&mut rt_route::Rtmsg); 5] = [
        |header| header.rtm_table = libc::RT_TABLE_LOCAL,
        |header| header.rtm_tos = 4,
        |header| header.rtm_src_len = 8,
        |header| header.rtm_flags = libc::RTM_F_CLONED,
        |header| header.rtm_family = libc::AF_MPLS as u8,
    ];
    for other in others {
        let mut changed = header(0);
        assert!(change(libc::RTM_NEWROUTE, 0, changed.as_slice()).is_some());
        other(&mut changed);
        assert!(
            change(libc::RTM_NEWROUTE, 0, changed.as_slice()).is_none(),
            "{changed:?}"
        );
    }
    for kind in [libc::RTM_NEWROUTE, libc::RTM_NEWNEIGH, libc::RTM_NEWLINK, 104] {
        assert!(meaning(kind, 0, &[0; 7]).is_none(), "cut off");
    }
}

#[test]
fn nexthop_objects_are_read() {
    let read = |flags: u32, attributes: &[Vec<u8>]| {
        let header = [&[libc::AF_INET as u8, 0, 0, 0], &flags.to_ne_bytes()[..]].concat();
        let payload = [header, attribute(1, &9_u32.to_ne_bytes()), attributes.concat()].concat();
        match change(104, 0, &payload)? {
            Change::AddObject { number: 9, object } => Some(object),
            other => panic!("{other:?}"),
        }
    };
    let (oif, gateway) = (attribute(5, &OWN.to_ne_bytes()), attribute(6, &[198, 18, 0, 1]));
    assert_eq!(
        read(0, &[oif.clone(), gateway.clone()]),
        Some(Object::Hop(hop("198.18.0.1")))
    );
    assert!(matches!(read(1, &[oif.clone(), gateway]), Some(Object::Hop(hop)) if hop.is_dead));
    // Two members: number, weight less one.
    let members = [[1, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 2, 1, 0, 0]].concat();
    assert_eq!(
        read(0, &[attribute(2, &members)]),
        Some(Object::Group(vec![(1, 1), (2, 259)]))
    );
    assert_eq!(read(0, &[attribute(4, &[])]), Some(Object::Group(Vec::new())));
    assert_eq!(read(0, &[attribute(11, &[]), oif]), None, "of a bridge");
    let gone = [&[0; 8][..], &attribute(1, &9_u32.to_ne_bytes())].concat();
    assert!(matches!(change(105, 0, &gone), Some(Change::RemoveObject(9))));
    assert!(matches!(meaning(libc::RTM_DELADDR, 0, &[0; 8]), Some(Event::Unknown)));
}

#[test]
fn neighbours_of_the_interface_are_read_with_their_state() {
    let read = |kind: u16, index: u32, state: u16, flags: u8| {
        let header = rt_neigh::Ndmsg {
            ndm_family: libc::AF_INET as u8,
            ndm_ifindex: index as i32,
            ndm_state: state,
            ndm_flags: flags,
            ..Default::default()
        };
        let mut request = rt_neigh::Request::new().op_newneigh_do(&header);
        request
            .encode()
            .push_dst(ip("198.18.0.1"))
            .push_lladdr(&[2, 0, 0, 0, 0, 1]);
        change(kind, 0, request.payload())
    };
    let new = libc::RTM_NEWNEIGH;
    for usable in [
        libc::NUD_REACHABLE,
        libc::NUD_STALE,
        libc::NUD_PROBE,
        libc::NUD_PERMANENT,
    ] {
        let added = read(new, OWN, usable, 0);
        let Some(Change::AddNeighbour(neighbour)) = added else {
            panic!("{added:?}")
        };
        assert_eq!(
            (neighbour.address, neighbour.mac),
            (ip("198.18.0.1"), [2, 0, 0, 0, 0, 1])
        );
    }
    for (kind, state) in [
        (new, libc::NUD_FAILED),
        (new, libc::NUD_INCOMPLETE),
        (libc::RTM_DELNEIGH, libc::NUD_STALE),
    ] {
        let removed = read(kind, OWN, state, 0);
        assert!(matches!(removed, Some(Change::RemoveNeighbour(OWN, _))), "{removed:?}");
    }
    assert!(
        read(new, OWN + 1, libc::NUD_REACHABLE, 0).is_none(),
        "another interface's"
    );
    assert!(read(new, OWN, libc::NUD_REACHABLE, libc::NTF_PROXY).is_none());
}

#[test]
fn an_interface_tells_its_address_and_its_state() {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&OWN.to_ne_bytes());
    header[8..12].copy_from_slice(&0x1043_u32.to_ne_bytes());
    let payload = [&header[..], &attribute(1, &[2, 0, 0, 0, 0, 9])].concat();
    let mut events = Vec::new();
    let message = Message::told(libc::RTM_NEWLINK, 0, &payload);
    decode::decode(&message, &[OWN], &mut |event| events.push(event));
    assert!(
        matches!(
            events[..],
            [
                Event::Change(Change::Mac(OWN, [2, 0, 0, 0, 0, 9])),
                Event::Link(OWN, 0x41)
            ]
        ),
        "{events:?}"
    );
    events.clear();
    decode::decode(&message, &[OWN + 1], &mut |event| events.push(event));
    assert!(matches!(events[..], [Event::Link(OWN, 0x41)]), "{events:?}");
}

#[test]
fn so_many_neighbours_are_asked_for_in_a_second_and_no_more() {
    let mut budget = Budget::new(2);
    let address = |number: u8| (OWN, IpAddr::from([198, 18, 0, number]));
    let asked = [1, 1, 2, 3, 2].map(|number| budget.allow_unresolved(address(number)));
    assert_eq!(asked, [Some(true), None, Some(true), Some(false), None]);
    assert_eq!([(); 3].map(|()| budget.take_in_use()), [true, true, false]);
    budget.renew(budget.since + Duration::from_millis(999));
    assert_eq!(budget.allow_unresolved(address(4)), Some(false));
    budget.renew(budget.since + Duration::from_secs(1));
    assert_eq!(budget.allow_unresolved(address(1)), Some(true));
    assert!(budget.take_in_use());
}

#[test]
fn a_flow_keeps_its_number_and_flows_have_different_ones() {
    let key = |port| FlowKey::new(([198, 18, 0, 1], 80).into(), ([198, 18, 0, 2], port).into());
    assert_eq!(hash(&key(1)), hash(&key(1)));
    let upper = (0..1000).filter(|&port| hash(&key(port)) > u32::MAX / 2).count();
    assert!((400..600).contains(&upper), "{upper} of 1,000");
}

/// A watcher of the loopback interface that no thread runs, and what it shares.
fn watcher() -> (Watcher, Arc<Shared>) {
    let poll = Poll::new().expect("an epoll");
    let waker = Waker::new(poll.registry(), BELL).expect("an eventfd");
    let shared = Arc::new(Shared {
        tables: ArcSwap::from_pointee(Tables::new(&[(OWN, 0)])),
        generation: AtomicU32::new(u32::MAX),
        unresolved: ArrayQueue::new(2),
        in_use: ArrayQueue::new(2),
        waker,
        is_woken: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        requests: AtomicU64::new(0),
        requests_limited: AtomicU64::new(0),
        loads: AtomicU64::new(0),
    });
    let watcher = Watcher {
        interfaces: vec![(OWN, 0)],
        socket: Socket::open(0).expect("a netlink socket"),
        poll,
        links: HashMap::new(),
        removed_objects: HashSet::new(),
        shared: Arc::clone(&shared),
        spare: Arc::new(Tables::new(&[(OWN, 0)])),
        behind: Vec::new(),
        loaded_at: Instant::now(),
        is_incomplete: false,
        budget: Budget::new(2),
        to_tell: Vec::new(),
        used_at: Instant::now(),
    };
    (watcher, shared)
}

fn neighbour(number: u8) -> Change {
    Change::AddNeighbour(Arc::new(Neighbour {
        interface: OWN,
        address: ip("198.18.0.2"),
        mac: [2, 0, 0, 0, 0, number],
        in_use: AtomicBool::new(false),
    }))
}

fn on_link() -> Change {
    Change::AddRoute {
        prefix: "198.18.0.0/15".parse().expect("a prefix"),
        route: Route {
            metric: 0,
            hops: Hops::Listed(vec![hop("")]),
        },
        order: Order::First,
    }
}

#[test]
fn both_copies_have_every_change_and_only_changes_are_made_known() {
    let (mut watcher, shared) = watcher();
    let view = View(Arc::clone(&shared));
    let key = FlowKey::new(([198, 18, 0, 1], 80).into(), ([198, 18, 0, 2], 9).into());
    let mac = |view: &View| view.lookup(&key).map(|link| link.as_bytes()[5]);
    assert_eq!(mac(&view), Err(NoNextHop::NoRoute));
    watcher.publish(vec![on_link()]);
    assert_eq!(view.generation(), 1, "never 0");
    assert_eq!(mac(&view), Err(NoNextHop::Unresolved));
    assert_eq!(shared.unresolved.pop(), Some((OWN, ip("198.18.0.2"))));
    for number in 1..6 {
        watcher.publish(vec![neighbour(number)]);
        assert_eq!(view.generation(), 1 + u32::from(number));
        assert_eq!(mac(&view), Ok(number));
        watcher.publish(vec![neighbour(number), on_link()]);
        assert_eq!(view.generation(), 1 + u32::from(number), "nothing new");
    }
    assert!(shared.in_use.len() == 2, "no more than there is room for");
}

#[test]
fn what_is_not_resolved_waits_within_bounds_and_is_counted_beyond() {
    let (mut watcher, shared) = watcher();
    watcher.publish(vec![on_link()]);
    let view = View(Arc::clone(&shared));
    for number in 2..7 {
        let key = FlowKey::new(([198, 18, 0, 1], 80).into(), ([198, 18, 0, number], 9).into());
        assert_eq!(view.lookup(&key), Err(NoNextHop::Unresolved));
    }
    assert_eq!(shared.unresolved.len(), 2);
    assert_eq!(shared.requests_limited.load(Ordering::Relaxed), 3);
    assert!(shared.is_woken.load(Ordering::Relaxed));
}

#[test]
fn neighbours_in_use_are_told_to_the_kernel_in_every_second_of_a_round() {
    let (mut watcher, shared) = watcher();
    watcher.budget = Budget::new(1);
    let generation = || shared.generation.load(Ordering::Relaxed);
    let requests = || shared.requests.load(Ordering::Relaxed);
    let before = generation();
    let neighbours = [1, 2].map(|number| {
        Arc::new(Neighbour {
            // None has this number: the kernel sends nothing.
            interface: i32::MAX as u32,
            address: ip("198.18.0.2"),
            mac: [2, 0, 0, 0, 0, number],
            in_use: AtomicBool::new(false),
        })
    });
    neighbours.iter().for_each(|neighbour| shared.note_use(neighbour));
    let (start, second) = (watcher.used_at, Duration::from_secs(1));
    watcher.tell_kernel(start + USE_INTERVAL - second);
    assert_eq!((requests(), generation()), (0, before), "it is not time");
    watcher.tell_kernel(start + USE_INTERVAL);
    watcher.tell_kernel(start + USE_INTERVAL);
    assert_eq!(requests(), 1, "one in a second");
    let during = generation();
    assert_ne!(during, before);
    // Both can say already that they are in use.
    neighbours.iter().for_each(|neighbour| shared.note_use(neighbour));
    assert_eq!(shared.in_use.len(), 2);
    watcher.tell_kernel(start + USE_INTERVAL + second);
    assert_eq!((requests(), generation()), (2, during), "the next second's");
    watcher.tell_kernel(start + USE_INTERVAL + 2 * second);
    assert_eq!(requests(), 2, "nothing before the next round");
    watcher.tell_kernel(start + 2 * USE_INTERVAL);
    assert_eq!(requests(), 3);
    let during = generation();
    watcher.tell_kernel(start + 3 * USE_INTERVAL);
    assert_eq!(requests(), 4, "what was left, before another round");
    assert_ne!(generation(), during, "look-ups are made again, whatever is left");
    assert!(watcher.to_tell.is_empty());
}

#[test]
fn an_object_whose_number_is_used_again_has_everything_listed() {
    let (mut watcher, _) = watcher();
    let object = |number| Change::AddObject {
        number,
        object: Object::Hop(hop("")),
    };
    // The kernel has removed the routes by the first one, and says nothing of it.
    for (change, is_incomplete) in [
        (object(1), false),
        (Change::RemoveObject(1), false),
        (object(2), false),
        (object(1), true),
    ] {
        watcher.note_object(&change);
        assert_eq!(watcher.is_incomplete, is_incomplete, "{change:?}");
    }
}

#[test]
fn what_removes_routes_during_a_listing_has_everything_listed_again() {
    let mut tables = Tables::new(&[(OWN, 0)]);
    let mut links = HashMap::new();
    let up = libc::IFF_UP as u32;
    let object = Object::Hop(hop(""));
    for (event, is_outdated) in [
        (Event::Link(OWN, up), false),
        (Event::Change(Change::AddObject { number: 1, object }), false),
        (Event::Change(on_link()), false),
        (Event::Link(OWN, up), false),
        (Event::Link(OWN, 0), true),
        (Event::Link(OWN, 0), false),
        (Event::Change(Change::RemoveObject(1)), true),
        (Event::Unknown, true),
    ] {
        let told = format!("{event:?}");
        assert_eq!(take_listed(event, &mut tables, &mut links), is_outdated, "{told}");
    }
    let missing = tables.lookup(ip("198.18.0.2"), 0).expect_err("no neighbour");
    assert_eq!(missing.0, NoNextHop::Unresolved, "the route was taken");

    let (mut watcher, shared) = watcher();
    for is_outdated in [true, false] {
        watcher.take_listing(tables.clone(), is_outdated);
        assert_eq!(watcher.is_incomplete, is_outdated);
    }
    assert_eq!(shared.loads.load(Ordering::Relaxed), 2);
}

#[test]
fn the_copy_that_a_shard_looks_at_is_left_alone() {
    let (mut watcher, shared) = watcher();
    watcher.publish(vec![on_link(), neighbour(1)]);
    let looking = shared.tables.load();
    watcher.publish(vec![neighbour(2)]);
    let began = Barrier::new(2);
    thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            began.wait();
            watcher.publish(vec![neighbour(3)]);
        });
        began.wait();
        thread::sleep(Duration::from_millis(20));
        assert!(!publishing.is_finished());
        assert_eq!(
            looking
                .lookup(ip("198.18.0.2"), 0)
                .map(|(neighbour, _)| neighbour.mac[5]),
            Ok(1)
        );
        drop(looking);
        publishing.join().expect("no panic");
    });
    let tables = shared.tables.load();
    assert_eq!(
        tables
            .lookup(ip("198.18.0.2"), 0)
            .map(|(neighbour, _)| neighbour.mac[5]),
        Ok(3)
    );
}

#[test]
fn the_kernels_own_tables_can_be_read() {
    let mut socket = Socket::open(GROUPS).expect("a netlink socket");
    let mut links = HashMap::new();
    let index = if_nametoindex("lo").expect("a loopback interface");
    listing::load(&mut socket, &[(index, 0)], &mut links).expect("tables");
    assert!(links.contains_key(&index));
    let missing = resolve_next_hop("no-such-link0", ip("198.18.0.1"), Duration::ZERO);
    assert!(matches!(missing, Err(Error::LinkGone { .. })));
}
