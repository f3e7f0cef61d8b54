//! A full table gives way in a defined order.

use std::time::Duration;

use crate::common::cookie::{EPOCH, answered, cookies};
use crate::common::*;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::FlowKey;
use tidegate_tcp::{Config, State};

const GRACE: Duration = Duration::from_secs(3);

/// A client's side of its connection.
#[derive(Clone, Copy)]
struct Client {
    key: FlowKey,
    seq: SeqNumber,
    ack: SeqNumber,
}

/// An engine with places for `places` connections, which takes whatever it reads for a request.
fn rig(places: u32) -> Rig {
    let limits = Config {
        max_connections: places,
        keepalive_idle: Duration::ZERO,
        ..config()
    };
    let app = App {
        serves: true,
        ..App::default()
    };
    Rig::new(limits, app)
}

fn connect(rig: &mut Rig, client: &str) -> Client {
    rig.key = FlowKey::new(client.parse().unwrap(), rig.key.peer());
    rig.syn(with_sack());
    rig.ack = rig.sent().last().expect("no SYN-ACK").seq + 1;
    rig.peer(ACK, b"");
    Client {
        key: rig.key,
        seq: rig.seq,
        ack: rig.ack,
    }
}

/// The client sends a request; whether it has a connection then.
fn request(rig: &mut Rig, client: &mut Client) -> bool {
    (rig.key, rig.seq, rig.ack) = (client.key, client.seq, client.ack);
    rig.peer(ACK | PSH, b"x");
    client.seq = rig.seq;
    is_open(rig, client)
}

fn is_open(rig: &mut Rig, client: &Client) -> bool {
    rig.key = client.key;
    rig.state() == Some(State::Established)
}

/// A client that connects and sends a request at once; whether both were taken.
fn is_served(rig: &mut Rig, client: &str) -> bool {
    let mut client = connect(rig, client);
    let served = request(rig, &mut client);
    rig.sent();
    served
}

/// Takes all places, from `hosts` addresses by turns, each with a request if it is `served`.
fn fill(rig: &mut Rig, places: u32, hosts: u32, served: bool) -> Vec<Client> {
    (0..places)
        .map(|number| {
            let mut client = connect(
                rig,
                &format!("198.18.66.{}:{}", 1 + number % hosts, 1024 + number / hosts),
            );
            if served {
                assert!(request(rig, &mut client));
            }
            rig.sent();
            client
        })
        .collect()
}

#[test]
fn the_oldest_without_a_request_is_the_first_to_go_and_is_told() {
    let mut rig = rig(4);
    let mut served = connect(&mut rig, "198.18.0.2:1");
    assert!(request(&mut rig, &mut served));
    let old = connect(&mut rig, "198.18.0.3:1");
    rig.pass(ms(10));
    let newer = [connect(&mut rig, "198.18.0.3:2"), connect(&mut rig, "198.18.0.3:3")];
    rig.pass(GRACE);
    rig.sent();
    rig.key = FlowKey::new("198.18.0.4:1".parse().unwrap(), rig.key.peer());
    rig.syn(with_sack());
    rig.ack = rig.one().seq + 1;
    rig.peer(ACK, b"");
    // It went to the old one.
    assert_eq!(rig.one(), reset_of(&old));
    assert_eq!(rig.state(), Some(State::Established));
    assert!(!is_open(&mut rig, &old));
    assert!(newer.iter().all(|client| is_open(&mut rig, client)));
    assert!(is_open(&mut rig, &served));
    assert_eq!(rig.app().closed, [CloseReason::Evicted]);
    assert_eq!((rig.count(Counter::Evicted), rig.count(Counter::EvictedIdle)), (1, 0));
    assert_eq!(rig.count(Counter::DropConnectionsFull), 0);
}

fn reset_of(client: &Client) -> Sent {
    Sent {
        seq: client.ack,
        ack: client.seq,
        flags: RST | ACK,
        window: 0,
        options: Default::default(),
        payload: Vec::new(),
    }
}

#[test]
fn dripping_does_not_make_a_connection_without_a_request_younger() {
    let mut rig = rig(2);
    rig.app().serves = false;
    let mut dripping = connect(&mut rig, "198.18.0.3:1");
    rig.pass(ms(1000));
    let silent = connect(&mut rig, "198.18.0.3:2");
    for _ in 0..4 {
        rig.pass(ms(600));
        assert!(request(&mut rig, &mut dripping));
    }
    connect(&mut rig, "198.18.0.4:1");
    assert!(!is_open(&mut rig, &dripping));
    assert!(is_open(&mut rig, &silent));
}

#[test]
fn then_goes_the_longest_idle_of_the_source_that_holds_most() {
    let mut rig = rig(7);
    let mut few: Vec<Client> = (1..=2)
        .map(|port| connect(&mut rig, &format!("198.18.0.2:{port}")))
        .collect();
    for client in &mut few {
        assert!(request(&mut rig, client));
    }
    rig.pass(ms(100));
    let mut many: Vec<Client> = (1..=5)
        .map(|port| connect(&mut rig, &format!("198.18.0.3:{port}")))
        .collect();
    for client in &mut many {
        assert!(request(&mut rig, client));
        rig.pass(ms(10));
    }
    // The order in which they came is not that in which they were last heard.
    for place in [0, 3, 1, 4, 2] {
        rig.pass(ms(1000));
        assert!(request(&mut rig, &mut many[place]));
    }
    for (number, gone) in [0, 3, 1].into_iter().enumerate() {
        assert!(is_served(&mut rig, &format!("198.18.1.{number}:1")));
        assert!(!is_open(&mut rig, &many[gone]), "{gone}");
    }
    assert!(few.iter().all(|client| is_open(&mut rig, client)));
    assert!([2, 4].iter().all(|&place| is_open(&mut rig, &many[place])));
    assert_eq!((rig.count(Counter::Evicted), rig.count(Counter::EvictedIdle)), (3, 3));
}

#[test]
fn a_source_that_holds_few_loses_nothing_to_one_that_holds_many() {
    let mut rig = rig(64);
    let mut honest: Vec<Client> = (2..=5)
        .map(|host| connect(&mut rig, &format!("198.18.0.{host}:1")))
        .collect();
    for client in &mut honest {
        assert!(request(&mut rig, client));
    }
    fill(&mut rig, 60, 4, true);
    for round in 0..200 {
        rig.pass(ms(20));
        is_served(&mut rig, &format!("198.18.66.{}:{}", 1 + round % 4, 30_000 + round));
    }
    // Idle for longer than any other, but of sources that hold one each.
    assert!(honest.iter().all(|client| is_open(&mut rig, client)));
    assert!(honest.iter_mut().all(|client| request(&mut rig, client)));
}

#[test]
fn what_is_in_use_is_left_alone_where_all_sources_hold_as_many() {
    let mut rig = rig(4);
    let mut clients: Vec<Client> = (2..=5)
        .map(|host| connect(&mut rig, &format!("198.18.0.{host}:1")))
        .collect();
    for client in &mut clients {
        assert!(request(&mut rig, client));
    }
    connect(&mut rig, "198.18.1.1:1");
    assert_eq!(rig.count(Counter::DropConnectionsFull), 1);
    assert!(clients.iter().all(|client| is_open(&mut rig, client)));
    // Nor is what might still send its request.
    rig.pass(GRACE);
    assert!(is_served(&mut rig, "198.18.1.2:1"));
    assert_eq!(rig.count(Counter::Evicted), 1);
}

#[test]
fn what_is_in_use_gives_way_only_to_a_source_that_holds_less_even_then() {
    let mut rig = rig(4);
    let mut many: Vec<Client> = (1..=3)
        .map(|port| connect(&mut rig, &format!("198.18.0.2:{port}")))
        .collect();
    let mut few = connect(&mut rig, "198.18.0.3:1");
    assert!(many.iter_mut().all(|client| request(&mut rig, client)) && request(&mut rig, &mut few));
    // Three to none, then two to one, which would only change places.
    assert!(is_served(&mut rig, "198.18.1.1:1"));
    assert!(!is_served(&mut rig, "198.18.1.1:2"));
    assert!(!is_open(&mut rig, &many[0]));
    assert!(many[1..].iter().all(|client| is_open(&mut rig, client)) && is_open(&mut rig, &few));
}

/// An attack in small: a few sources hold all places, silent or with a request each, and go on coming.
fn holds(served: bool) {
    let mut rig = rig(256);
    fill(&mut rig, 256, 4, served);
    rig.pass(GRACE * 2);
    let visited = rig.count(Counter::EvictionVisited);
    for number in 0..1000 {
        for attempt in 0..3 {
            let port = 20_000 + 3 * number + attempt;
            if served {
                is_served(&mut rig, &format!("198.18.66.{}:{port}", 1 + port % 4));
            } else {
                connect(&mut rig, &format!("198.18.66.{}:{port}", 1 + port % 4));
            }
        }
        rig.pass(ms(1));
        let client = format!("198.19.{}.{}:5000", number / 200, 1 + number % 200);
        assert!(is_served(&mut rig, &client), "client {number}");
        // They close what they have done with.
        rig.peer(RST, b"");
    }
    // Nothing is looked for by a walk: at most eight connections for each segment that finishes a handshake, which a
    // request does again that comes after one that was not admitted.
    let visited = rig.count(Counter::EvictionVisited) - visited;
    assert!((1..=7000 * 8).contains(&visited), "{visited}");
}

#[test]
fn clients_are_served_while_few_sources_hold_the_table_in_silence() {
    holds(false);
}

#[test]
fn clients_are_served_while_few_sources_hold_the_table_with_requests() {
    holds(true);
}

#[test]
fn the_acknowledgment_of_a_cookie_finds_a_place_too() {
    let mut rig = rig(8);
    rig.engine.set_cookies(Some(cookies(EPOCH)));
    fill(&mut rig, 8, 1, false);
    rig.pass(GRACE);
    rig.key = FlowKey::new("198.18.0.9:1".parse().unwrap(), rig.key.peer());
    answered(&mut rig, with_sack());
    rig.peer(ACK | PSH, b"x");
    assert_eq!(rig.state(), Some(State::Established));
    assert_eq!(
        (rig.count(Counter::Evicted), rig.count(Counter::CookieConnections)),
        (1, 1)
    );
}

#[test]
fn nothing_is_left_of_lists_whose_connections_ended_in_any_order() {
    let mut rig = rig(32);
    for round in 0..3_u64 {
        let mut clients = fill(&mut rig, 32, 3, false);
        for client in clients.iter_mut().filter(|client| client.key.local_port % 3 != 0) {
            assert!(request(&mut rig, client));
        }
        for place in 0..clients.len() {
            let client = clients[place * (7 + 2 * round as usize) % clients.len()];
            (rig.key, rig.seq, rig.ack) = (client.key, client.seq, client.ack);
            rig.peer(RST, b"");
        }
        rig.sent();
        rig.assert_empty();
    }
    assert_eq!(rig.count(Counter::Evicted), 0);
}

/// A first request that is on its way hides none of the silent connections behind it.
#[test]
fn an_upload_that_is_the_oldest_without_a_request_is_left_alone() {
    let mut rig = rig(6);
    rig.app().serves = false;
    let mut upload = connect(&mut rig, "198.18.0.3:1");
    let silent: Vec<Client> = (1..6)
        .map(|port| connect(&mut rig, &format!("198.18.66.1:{port}")))
        .collect();
    rig.pass(GRACE);
    rig.sent();
    (rig.key, rig.seq, rig.ack) = (upload.key, upload.seq, upload.ack);
    for _ in 0..40 {
        rig.peer(ACK | PSH, &[0; 1000]);
    }
    upload.seq = rig.seq;
    rig.sent();
    for (number, gone) in silent.iter().enumerate() {
        assert!(is_served(&mut rig, &format!("198.18.0.4:{}", 1 + number)));
        assert!(!is_open(&mut rig, gone), "the oldest of the silent ones");
        assert!(is_open(&mut rig, &upload));
    }
    assert_eq!(rig.count(Counter::Evicted), 5);
}

/// However fast one source opens connections, another keeps the one it has just opened.
#[test]
fn a_source_with_one_young_connection_loses_it_to_nobody() {
    let mut rig = rig(6);
    let honest = connect(&mut rig, "198.18.0.3:1");
    for port in 1..6 {
        connect(&mut rig, &format!("198.18.66.1:{port}"));
    }
    for port in 1..20 {
        connect(&mut rig, &format!("198.18.66.{}:{port}", 2 + port % 2));
        rig.sent();
        assert!(is_open(&mut rig, &honest), "after {port}");
    }
    assert!(rig.count(Counter::Evicted) > 0);
}
