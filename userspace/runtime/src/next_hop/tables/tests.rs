use super::*;

/// The interfaces of the tables, and another one.
const OWN: u32 = 7;
const SECOND: u32 = 9;
const OTHER: u32 = 8;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn hop(interface: u32, gateway: &str) -> Hop {
    Hop {
        interface,
        gateway: (!gateway.is_empty()).then(|| ip(gateway)),
        weight: 1,
        is_dead: false,
    }
}

fn by(metric: u32, hops: &[Hop]) -> Route {
    Route {
        metric,
        hops: Hops::Listed(hops.to_vec()),
    }
}

fn add(prefix: &str, route: Route) -> Change {
    Change::AddRoute {
        prefix: net(prefix),
        route,
        order: Order::First,
    }
}

fn remove(prefix: &str, route: Route) -> Change {
    Change::RemoveRoute {
        prefix: net(prefix),
        route,
    }
}

fn neighbour(address: &str, number: u8) -> Change {
    Change::AddNeighbour(Arc::new(Neighbour {
        interface: OWN,
        address: ip(address),
        mac: [2, 0, 0, 0, 0, number],
        in_use: AtomicBool::new(false),
    }))
}

fn tables(changes: impl IntoIterator<Item = Change>) -> Tables {
    let mut tables = Tables::new(&[(OWN, 0), (SECOND, 3)]);
    for change in changes {
        assert!(tables.apply(&change), "{change:?} changes nothing");
    }
    tables
}

impl Tables {
    fn via(&self, remote: &str) -> Result<IpAddr, NoNextHop> {
        self.gateway(ip(remote), 0).map(|(_, gateway)| gateway)
    }
}

#[test]
fn the_longest_prefix_decides_on_link_or_by_its_gateway() {
    let tables = tables([
        add("0.0.0.0/0", by(0, &[hop(OWN, "198.18.0.254")])),
        add("198.18.0.0/24", by(0, &[hop(OWN, "")])),
        add("198.19.0.0/16", by(0, &[hop(OWN, "198.18.0.253")])),
        // An IPv6 gateway for IPv4.
        add("198.19.7.0/24", by(0, &[hop(OWN, "fe80::7")])),
        add("2001:2::/48", by(1024, &[hop(OWN, "")])),
        add("::/0", by(1024, &[hop(OWN, "fe80::1")])),
    ]);
    for (remote, gateway) in [
        ("198.18.0.9", "198.18.0.9"),
        ("198.19.8.9", "198.18.0.253"),
        ("198.19.7.9", "fe80::7"),
        ("192.0.2.1", "198.18.0.254"),
        ("2001:2::9", "2001:2::9"),
        ("2001:db8::1", "fe80::1"),
    ] {
        assert_eq!(tables.via(remote), Ok(ip(gateway)), "{remote}");
    }
}

#[test]
fn of_the_routes_to_a_prefix_the_one_with_the_lowest_metric_is_used() {
    let mut tables = tables([
        add("0.0.0.0/0", by(200, &[hop(OWN, "198.18.0.2")])),
        add("0.0.0.0/0", by(100, &[hop(OWN, "198.18.0.1")])),
        add("0.0.0.0/0", by(300, &[hop(OWN, "198.18.0.3")])),
    ]);
    for gateway in ["198.18.0.1", "198.18.0.2", "198.18.0.3"] {
        assert_eq!(tables.via("192.0.2.1"), Ok(ip(gateway)));
        let metric = 100 * u32::from(gateway.as_bytes()[9] - b'0');
        assert!(tables.apply(&remove("0.0.0.0/0", by(metric, &[hop(OWN, gateway)]))));
    }
    assert_eq!(tables.via("192.0.2.1"), Err(NoNextHop::NoRoute));
    assert!(!tables.apply(&remove("0.0.0.0/0", by(100, &[hop(OWN, "198.18.0.1")]))));
}

#[test]
fn of_one_metric_the_order_is_the_kernels() {
    let mut tables = tables([add("0.0.0.0/0", by(0, &[hop(OWN, "198.18.0.1")]))]);
    for (order, gateway, used) in [
        (Order::Last, "198.18.0.2", "198.18.0.1"),
        (Order::First, "198.18.0.3", "198.18.0.3"),
        (Order::Replace, "198.18.0.4", "198.18.0.4"),
    ] {
        let change = Change::AddRoute {
            prefix: net("0.0.0.0/0"),
            route: by(0, &[hop(OWN, gateway)]),
            order,
        };
        assert!(tables.apply(&change));
        assert!(!tables.apply(&change), "told twice");
        assert_eq!(tables.via("192.0.2.1"), Ok(ip(used)));
    }
    // 4 has taken the place of 3.
    assert!(tables.apply(&remove("0.0.0.0/0", by(0, &[hop(OWN, "198.18.0.4")]))));
    assert_eq!(tables.via("192.0.2.1"), Ok(ip("198.18.0.1")));
}

#[test]
fn what_cannot_be_used_is_passed_over_and_what_refuses_is_not() {
    let dead = Hop {
        is_dead: true,
        ..hop(OWN, "198.18.0.1")
    };
    let tables = tables([
        add("0.0.0.0/0", by(0, &[hop(OWN, "198.18.0.9")])),
        add("192.0.2.0/24", by(0, &[dead])),
        add(
            "192.0.3.0/24",
            Route {
                metric: 0,
                hops: Hops::Object(1),
            },
        ),
        add("192.0.4.0/24", by(0, &[])),
        add("192.0.5.0/24", by(0, &[hop(OTHER, "203.0.113.1")])),
    ]);
    for (remote, expected) in [
        ("192.0.2.1", Ok(ip("198.18.0.9"))),
        ("192.0.3.1", Ok(ip("198.18.0.9"))),
        ("192.0.4.1", Err(NoNextHop::NoRoute)),
        ("192.0.5.1", Err(NoNextHop::OtherInterface)),
        ("2001:2::1", Err(NoNextHop::NoRoute)),
    ] {
        assert_eq!(tables.via(remote), expected, "{remote}");
    }
}

/// The number of 1,000 hashes that choose each of these gateways.
fn shares(tables: &Tables, remote: &str, gateways: &[&str]) -> Vec<usize> {
    let chosen: Vec<IpAddr> = (0..1000_u32)
        .map(|part| tables.gateway(ip(remote), part * (u32::MAX / 999)).expect("a way").1)
        .collect();
    gateways
        .iter()
        .map(|gateway| chosen.iter().filter(|chosen| **chosen == ip(gateway)).count())
        .collect()
}

#[test]
fn flows_are_spread_by_weight_over_the_ways_of_this_interface() {
    let weighted = |gateway, weight| Hop {
        weight,
        ..hop(OWN, gateway)
    };
    let dead = Hop {
        is_dead: true,
        ..weighted("198.18.0.3", 5)
    };
    let ways = [
        weighted("198.18.0.1", 1),
        weighted("198.18.0.2", 3),
        dead,
        hop(OTHER, "203.0.113.1"),
    ];
    let tables = tables([add("0.0.0.0/0", by(0, &ways))]);
    assert_eq!(
        shares(&tables, "192.0.2.1", &["198.18.0.1", "198.18.0.2", "198.18.0.3"]),
        [250, 750, 0]
    );
}

#[test]
fn nexthop_objects_are_followed_and_so_are_their_groups() {
    let object = |number, object| Change::AddObject { number, object };
    let mut tables = tables([
        object(1, Object::Hop(hop(OWN, "198.18.0.1"))),
        object(2, Object::Hop(hop(OWN, "198.18.0.2"))),
        object(10, Object::Group(vec![(1, 1), (2, 3)])),
        add(
            "192.0.2.0/24",
            Route {
                metric: 0,
                hops: Hops::Object(10),
            },
        ),
        add(
            "192.0.3.0/24",
            Route {
                metric: 0,
                hops: Hops::Object(2),
            },
        ),
    ]);
    assert_eq!(shares(&tables, "192.0.2.1", &["198.18.0.1", "198.18.0.2"]), [250, 750]);
    assert_eq!(tables.via("192.0.3.1"), Ok(ip("198.18.0.2")));
    // Every route by it follows.
    assert!(tables.apply(&object(2, Object::Hop(hop(OWN, "198.18.0.9")))));
    assert!(!tables.apply(&object(2, Object::Hop(hop(OWN, "198.18.0.9")))));
    assert_eq!(tables.via("192.0.3.1"), Ok(ip("198.18.0.9")));
    assert_eq!(shares(&tables, "192.0.2.1", &["198.18.0.9"]), [750]);
    assert!(tables.apply(&object(10, Object::Group(Vec::new()))));
    assert_eq!(tables.via("192.0.2.1"), Err(NoNextHop::NoRoute), "a black hole");
    // Its routes go with it.
    assert!(tables.apply(&add("0.0.0.0/0", by(0, &[hop(OWN, "198.18.0.7")]))));
    assert!(tables.apply(&Change::RemoveObject(2)) && !tables.apply(&Change::RemoveObject(2)));
    assert_eq!(tables.via("192.0.3.1"), Ok(ip("198.18.0.7")));
}

#[test]
fn the_ways_of_an_ipv6_route_come_together_and_go_one_by_one() {
    let (first, second) = (hop(OWN, "fe80::1"), hop(OWN, "fe80::2"));
    let mut tables = tables([
        add("::/0", by(1024, std::slice::from_ref(&first))),
        // The second one was added, and both are told of.
        add("::/0", by(1024, &[first.clone(), second.clone()])),
    ]);
    assert_eq!(shares(&tables, "2001:db8::1", &["fe80::1", "fe80::2"]), [500, 500]);
    assert!(tables.apply(&remove("::/0", by(1024, &[first]))));
    assert_eq!(shares(&tables, "2001:db8::1", &["fe80::2"]), [1000]);
    assert!(tables.apply(&remove("::/0", by(1024, &[second]))));
    assert_eq!(tables.via("2001:db8::1"), Err(NoNextHop::NoRoute));
}

#[test]
fn a_neighbour_is_used_as_long_as_its_address_is_known() {
    let mut tables = tables([
        Change::Mac(OWN, [2, 0, 0, 0, 0, 9]),
        add("0.0.0.0/0", by(0, &[hop(OWN, "198.18.0.254")])),
    ]);
    let remote = ip("192.0.2.1");
    let mac = |tables: &Tables| tables.lookup(remote, 0).map(|(neighbour, _)| neighbour.mac);
    let unresolved = Err((NoNextHop::Unresolved, (OWN, ip("198.18.0.254"))));
    assert_eq!(mac(&tables), unresolved);
    assert!(tables.apply(&neighbour("198.18.0.254", 1)));
    assert_eq!(mac(&tables), Ok([2, 0, 0, 0, 0, 1]));
    assert!(!tables.apply(&neighbour("198.18.0.254", 1)), "no other address");
    assert!(tables.apply(&neighbour("198.18.0.254", 2)));
    assert_eq!(mac(&tables), Ok([2, 0, 0, 0, 0, 2]));
    assert!(tables.apply(&Change::RemoveNeighbour(OWN, ip("198.18.0.254"))));
    assert_eq!(mac(&tables), unresolved);
}

#[test]
fn each_of_several_interfaces_has_its_own_address_device_and_neighbours() {
    let mut tables = tables([
        Change::Mac(SECOND, [2, 0, 0, 0, 0, 9]),
        add("198.18.0.0/24", by(0, &[hop(OWN, "")])),
        add("198.18.2.0/24", by(0, &[hop(SECOND, "")])),
        neighbour("198.18.2.2", 1),
    ]);
    // Beside the other interface.
    assert_eq!(
        tables.lookup(ip("198.18.2.2"), 0).map(drop),
        Err((NoNextHop::Unresolved, (SECOND, ip("198.18.2.2"))))
    );
    assert!(tables.apply(&Change::AddNeighbour(Arc::new(Neighbour {
        interface: SECOND,
        address: ip("198.18.2.2"),
        mac: [2, 0, 0, 0, 0, 2],
        in_use: AtomicBool::new(false),
    }))));
    let (neighbour, served) = tables.lookup(ip("198.18.2.2"), 0).expect("a next hop");
    assert_eq!(neighbour.mac, [2, 0, 0, 0, 0, 2]);
    assert_eq!((served.device, served.mac), (3, [2, 0, 0, 0, 0, 9]));
    assert!(!tables.apply(&Change::Mac(OTHER, [2; 6])), "not served");
}
