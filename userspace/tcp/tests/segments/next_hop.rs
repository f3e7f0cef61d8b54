//! Answers to where tables of next hops say ([`NextHops`]), instead of back to where segments come from.

use std::sync::{Arc, Mutex};

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::next_hops::{NextHops, NoNextHop};
use tidegate_tcp::wire::{FlowKey, LinkHeader, Options};

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const OTHER_ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 0xe];

/// Tables with one next hop for everybody, which the test changes.
#[derive(Clone)]
struct Tables(Arc<Mutex<Inner>>);

struct Inner {
    generation: u32,
    next_hop: Result<[u8; 6], NoNextHop>,
    lookups: u32,
}

impl NextHops for Tables {
    fn generation(&self) -> u32 {
        self.0.lock().unwrap().generation
    }

    fn lookup(&self, key: &FlowKey) -> Result<LinkHeader, NoNextHop> {
        let mut state = self.0.lock().unwrap();
        state.lookups += 1;
        let mac = state.next_hop?;
        Ok(LinkHeader::new(mac, SERVER_MAC, key.is_v4()))
    }
}

impl Tables {
    fn new(next_hop: Result<[u8; 6], NoNextHop>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            generation: 1,
            next_hop,
            lookups: 0,
        })))
    }

    fn set(&self, next_hop: Result<[u8; 6], NoNextHop>) {
        let mut state = self.0.lock().unwrap();
        state.generation += 1;
        state.next_hop = next_hop;
    }

    fn lookups(&self) -> u32 {
        self.0.lock().unwrap().lookups
    }
}

fn rig_with(app: App, next_hop: Result<[u8; 6], NoNextHop>) -> (Rig, Tables) {
    let mut rig = Rig::new(config(), app);
    let tables = Tables::new(next_hop);
    rig.engine.set_next_hops(Box::new(tables.clone()));
    (rig, tables)
}

/// Whom the frames that were sent since the last call went to; they are all from the server.
#[track_caller]
fn went_to(rig: &mut Rig) -> Vec<[u8; 6]> {
    let frames = rig.wire.frames.drain(..);
    let to = frames.map(|frame| {
        assert_eq!(frame[6..12], SERVER_MAC);
        frame[..6].try_into().unwrap()
    });
    to.collect()
}

/// The peer's next text, from `mac`.
fn text_from(rig: &mut Rig, mac: [u8; 6], text: &[u8]) {
    let mut frame = rig.frame(rig.seq, rig.ack, ACK, Options::default(), text);
    frame[6..12].copy_from_slice(&mac);
    rig.seq += text.len() as u32;
    rig.inject(&frame);
}

#[test]
fn everything_goes_to_the_next_hop_wherever_it_comes_from() {
    let (mut rig, _) = rig_with(App::echo(), Ok(ROUTER));
    rig.syn(Options::default());
    // The SYN-ACK, and again by its timer.
    rig.ack = parse(&rig.wire.frames[0]).seq + 1;
    assert_eq!(went_to(&mut rig), [ROUTER]);
    rig.pass(ms(1100));
    assert_eq!(went_to(&mut rig), [ROUTER]);
    rig.peer(ACK, b"");
    assert_eq!(rig.state(), Some(State::Established));
    for from in [CLIENT_MAC, STRANGER, OTHER_ROUTER] {
        text_from(&mut rig, from, b"hello");
        assert_eq!(went_to(&mut rig), [ROUTER]);
        rig.ack += 5;
    }
    // What the engine sends by itself: the last echo again.
    rig.pass(ms(3000));
    assert!(went_to(&mut rig).iter().all(|mac| *mac == ROUTER));
    assert_eq!(rig.count(Counter::NextHopChanged), 0);
    // The RST of what belongs to no flow.
    rig.key.local_port += 1;
    text_from(&mut rig, STRANGER, b"stray");
    assert_eq!(went_to(&mut rig), [ROUTER]);
}

#[test]
fn a_connection_follows_the_tables_before_it_sends_again() {
    let (mut rig, tables) = rig_with(App::echo(), Ok(ROUTER));
    rig.connect();
    rig.wire.frames.clear();
    let before = tables.lookups();
    text_from(&mut rig, CLIENT_MAC, b"one");
    rig.ack += 3;
    assert_eq!(went_to(&mut rig), [ROUTER]);
    assert_eq!(tables.lookups(), before, "nothing has changed");
    // Seen by what arrives.
    tables.set(Ok(OTHER_ROUTER));
    text_from(&mut rig, CLIENT_MAC, b"two");
    assert_eq!(went_to(&mut rig), [OTHER_ROUTER]);
    assert_eq!(rig.count(Counter::NextHopChanged), 1);
    // And by a timer: nobody has acknowledged it.
    tables.set(Ok(ROUTER));
    assert!(rig.wait(ms(3000)).is_some());
    assert_eq!(went_to(&mut rig)[..1], [ROUTER]);
    assert_eq!(rig.count(Counter::NextHopChanged), 2);
    // A change that is none to this connection.
    let before = tables.lookups();
    tables.set(Ok(ROUTER));
    rig.ack += 3;
    text_from(&mut rig, CLIENT_MAC, b"three");
    assert_eq!(went_to(&mut rig)[..1], [ROUTER]);
    assert_eq!(tables.lookups(), before + 1);
    assert_eq!(rig.count(Counter::NextHopChanged), 2);
}

#[test]
fn without_a_next_hop_answers_go_back_and_are_counted_by_reason() {
    for (reason, counter) in [
        (NoNextHop::NoRoute, Counter::NextHopNoRoute),
        (NoNextHop::OtherInterface, Counter::NextHopOtherInterface),
        (NoNextHop::Unresolved, Counter::NextHopUnresolved),
    ] {
        let (mut rig, tables) = rig_with(App::echo(), Err(reason));
        rig.connect();
        assert!(rig.count(counter) > 0, "{reason}");
        text_from(&mut rig, CLIENT_MAC, b"one");
        rig.ack += 3;
        assert_eq!(went_to(&mut rig), [CLIENT_MAC]);
        // As without tables, the peer's router may change.
        let counted = rig.count(counter);
        text_from(&mut rig, STRANGER, b"two");
        rig.ack += 3;
        assert_eq!(went_to(&mut rig), [STRANGER]);
        assert_eq!(rig.count(counter), counted, "not looked up for each segment");
        // As soon as there is one, it alone decides.
        tables.set(Ok(ROUTER));
        for from in [CLIENT_MAC, STRANGER] {
            text_from(&mut rig, from, b"three");
            rig.ack += 5;
            assert_eq!(went_to(&mut rig), [ROUTER]);
        }
        // Without one again, what is heard decides at once.
        tables.set(Err(reason));
        text_from(&mut rig, STRANGER, b"four");
        assert_eq!(went_to(&mut rig), [STRANGER]);
    }
}

#[test]
fn time_wait_answers_by_the_tables_as_they_are() {
    let app = App {
        close_after_greeting: true,
        ..App::default()
    };
    let (mut rig, tables) = rig_with(app, Ok(ROUTER));
    rig.connect();
    rig.ack += 1;
    rig.peer(FIN | ACK, b"");
    assert_eq!(rig.engine.population().time_wait, 1);
    assert!(went_to(&mut rig).iter().all(|mac| *mac == ROUTER));
    tables.set(Ok(OTHER_ROUTER));
    rig.peer_at(rig.seq - 1, FIN | ACK, b"");
    assert_eq!(went_to(&mut rig), [OTHER_ROUTER]);
}

#[test]
fn an_active_open_goes_by_the_tables() {
    let (mut rig, tables) = rig_with(App::default(), Ok(ROUTER));
    let (local, remote) = (rig.key.peer(), rig.key.local());
    let heard = LinkHeader::new(CLIENT_MAC, SERVER_MAC, true);
    let opened = rig.engine.connect(rig.now, local, remote, &heard, &mut rig.wire);
    opened.expect("the connection can be opened");
    assert_eq!(went_to(&mut rig), [ROUTER]);
    tables.set(Ok(OTHER_ROUTER));
    assert!(rig.wait(ms(2000)).is_some());
    assert_eq!(went_to(&mut rig), [OTHER_ROUTER], "the SYN again");
    assert_eq!(rig.count(Counter::NextHopChanged), 1, "the first one was no change");
}

#[test]
fn a_connection_in_the_place_of_another_is_looked_up_for_itself() {
    let (mut rig, tables) = rig_with(App::echo(), Err(NoNextHop::Unresolved));
    rig.connect();
    rig.peer(RST, b"");
    assert_eq!(rig.engine.population().connections, 0);
    // The same generation, so that nothing but the new connection is a reason to look.
    tables.0.lock().unwrap().next_hop = Ok(ROUTER);
    rig.key.local_port += 1;
    rig.connect();
    text_from(&mut rig, CLIENT_MAC, b"hello");
    assert_eq!(went_to(&mut rig), [ROUTER]);
    text_from(&mut rig, STRANGER, b"");
    rig.ack += 5;
    text_from(&mut rig, STRANGER, b"again");
    assert_eq!(went_to(&mut rig), [ROUTER]);
}

#[test]
fn link_headers_are_given_back() {
    let (mut rig, tables) = rig_with(App::echo(), Ok(ROUTER));
    rig.connect();
    // More changes than there can be link headers.
    for number in 0..70_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        tables.set(Ok([2, 0, 1, a, b, c]));
        text_from(&mut rig, CLIENT_MAC, b"");
        rig.engine.poll(rig.now, &mut rig.wire);
        rig.wire.frames.clear();
        rig.peer_at(rig.seq - 1, ACK, b"");
        rig.wire.frames.clear();
    }
    assert_eq!(rig.count(Counter::NextHopChanged), 70_000);
    assert_eq!(rig.count(Counter::NextHopTableFull), 0);
}
