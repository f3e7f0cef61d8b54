//! Limits of what one source may have: open connections, and finished handshakes per second.

use std::time::Duration;

use crate::common::cookie::{answered, cookies};
use crate::common::*;
use tidegate_tcp::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::sources::SourceLimits;
use tidegate_tcp::wire::FlowKey;

fn rig(limits: SourceLimits) -> Rig {
    let mut rig = Rig::new(config(), App::default());
    rig.engine.set_source_limits(limits);
    rig
}

/// A handshake of `client`; whether there is a connection then, and whether the client is told if there is none.
fn connects(rig: &mut Rig, client: &str) -> bool {
    rig.key = FlowKey::new(client.parse().unwrap(), rig.key.peer());
    rig.syn(with_sack());
    finishes(rig)
}

fn finishes(rig: &mut Rig) -> bool {
    if let Some(syn_ack) = rig.sent().first() {
        rig.ack = syn_ack.seq + 1;
    }
    rig.peer(ACK, b"");
    let is_open = rig.state() == Some(tidegate_tcp::State::Established);
    if is_open {
        rig.nothing();
    } else {
        assert!(rig.one().flags.contains(RST));
        assert_eq!(rig.state(), None);
    }
    is_open
}

#[test]
fn a_source_has_no_more_connections_than_it_may_until_one_ends() {
    let mut rig = rig(SourceLimits {
        max_connections: 2,
        ..SourceLimits::default()
    });
    assert!(connects(&mut rig, "198.18.0.2:1"));
    let first = (rig.key, rig.seq, rig.ack);
    assert!(connects(&mut rig, "198.18.0.2:2"));
    assert!(!connects(&mut rig, "198.18.0.2:3"));
    assert_eq!(rig.count(Counter::DropSourceConnections), 1);
    // Another source is none the worse.
    assert!(connects(&mut rig, "198.18.0.3:1"));
    (rig.key, rig.seq, rig.ack) = first;
    rig.peer(RST, b"");
    assert!(connects(&mut rig, "198.18.0.2:4"));
    assert!(!connects(&mut rig, "198.18.0.2:5"));
    assert_eq!(rig.count(Counter::DropSourceConnections), 2);
    assert_eq!(rig.engine.population().half_open, 0);
}

#[test]
fn a_source_is_what_the_prefix_says() {
    let mut v4 = rig(SourceLimits {
        max_connections: 1,
        prefix_v4: 24,
        ..SourceLimits::default()
    });
    assert!(connects(&mut v4, "198.18.7.2:1"));
    assert!(!connects(&mut v4, "198.18.7.200:1"));
    assert!(connects(&mut v4, "198.18.8.2:1"));
    let mut v6 = Rig::between(config(), App::default(), "[2001:2::1]:80", "[2001:2::2]:40000");
    v6.engine.set_source_limits(SourceLimits {
        max_connections: 1,
        prefix_v6: 56,
        ..SourceLimits::default()
    });
    assert!(connects(&mut v6, "[2001:2:0:ff00::2]:1"));
    assert!(!connects(&mut v6, "[2001:2:0:ffff::3]:1"));
    assert!(connects(&mut v6, "[2001:2:0:fe00::2]:1"));
}

#[test]
fn handshakes_beyond_the_rate_are_refused_and_the_account_fills_again() {
    let mut rig = rig(SourceLimits {
        connection_rate: 10,
        connection_burst: 3,
        ..SourceLimits::default()
    });
    for port in 1..=3 {
        assert!(connects(&mut rig, &format!("198.18.0.2:{port}")));
    }
    assert!(!connects(&mut rig, "198.18.0.2:4"));
    assert!(connects(&mut rig, "198.18.0.3:4"));
    assert_eq!(rig.count(Counter::DropSourceRate), 1);
    rig.pass(ms(99));
    assert!(!connects(&mut rig, "198.18.0.2:5"));
    rig.pass(ms(1));
    assert!(connects(&mut rig, "198.18.0.2:6"));
    assert!(!connects(&mut rig, "198.18.0.2:7"));
    // A long pause is worth a burst and no more.
    rig.pass(Duration::from_secs(3600));
    for port in 8..=10 {
        assert!(connects(&mut rig, &format!("198.18.0.2:{port}")));
    }
    assert!(!connects(&mut rig, "198.18.0.2:11"));
}

#[test]
fn syns_alone_take_nothing_from_an_account() {
    let mut rig = rig(SourceLimits {
        max_connections: 1,
        connection_rate: 1,
        connection_burst: 1,
        ..SourceLimits::default()
    });
    for port in 1..=100 {
        rig.key.local_port = port;
        rig.syn(with_sack());
    }
    rig.sent();
    assert!(connects(&mut rig, "198.18.0.2:101"));
}

#[test]
fn cookies_are_no_way_around_the_limits() {
    let mut rig = rig(SourceLimits {
        max_connections: 1,
        ..SourceLimits::default()
    });
    rig.engine.set_cookies(Some(cookies(crate::common::cookie::EPOCH)));
    for (port, opens) in [(1, true), (2, false)] {
        rig.key.local_port = port;
        answered(&mut rig, with_sack());
        assert_eq!(finishes(&mut rig), opens);
    }
    assert_eq!(rig.count(Counter::DropSourceConnections), 1);
    assert_eq!(rig.engine.population().connections, 1);
}

/// More sources than are told apart share entries, but none is forgotten while it has connections, and the limit holds
/// for what shares.
#[test]
fn a_full_table_of_sources_goes_on_counting() {
    let mut rig = rig(SourceLimits {
        max_connections: 2,
        remembered: 8,
        ..SourceLimits::default()
    });
    let opened = (1..=40).filter(|host| connects(&mut rig, &format!("198.18.9.{host}:1")));
    assert_eq!(opened.count(), 16, "two for each entry");
    assert!(connects_again_after_a_reset(&mut rig));
}

fn connects_again_after_a_reset(rig: &mut Rig) -> bool {
    let refused = !connects(rig, "198.18.9.1:2");
    rig.engine.abort_all(rig.now, &mut rig.wire);
    rig.pass(ms(1));
    rig.sent();
    // Entries without connections are given to others.
    let opened = (1..=16)
        .filter(|host| connects(rig, &format!("198.18.10.{host}:1")))
        .count();
    refused && opened == 16
}

#[test]
fn a_handshake_that_finds_no_place_costs_its_source_nothing() {
    let limits = Config {
        max_connections: 1,
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    rig.engine.set_source_limits(SourceLimits {
        connection_rate: 1,
        connection_burst: 2,
        ..SourceLimits::default()
    });
    assert!(connects(&mut rig, "198.18.0.2:1"));
    let first = (rig.key, rig.seq, rig.ack);
    rig.key = FlowKey::new("198.18.0.3:1".parse().unwrap(), rig.key.peer());
    rig.syn(with_sack());
    rig.ack = rig.one().seq + 1;
    for _ in 0..10 {
        rig.peer(ACK, b"");
    }
    rig.nothing();
    assert_eq!(rig.count(Counter::DropConnectionsFull), 10);
    assert_eq!(rig.count(Counter::DropSourceRate), 0);
    let waiting = (rig.key, rig.seq, rig.ack);
    (rig.key, rig.seq, rig.ack) = first;
    rig.peer(RST, b"");
    (rig.key, rig.seq, rig.ack) = waiting;
    rig.peer(ACK, b"");
    assert_eq!(rig.state(), Some(tidegate_tcp::State::Established));
}
