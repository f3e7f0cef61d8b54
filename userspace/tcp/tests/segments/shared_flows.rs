//! Flows that engines of one server know of each other, and a SYN of a flow that another engine has: its old connection
//! is challenged (RFC 5961, section 4.2), its TIME-WAIT decides where the new one begins (RFC 9293, section 3.6.1; RFC
//! 6191).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::cookie::{EPOCH, V6, answered, cookies};
use crate::common::*;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{Cookies, Engine, OnNoFlow, Received};
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::shared_flows::SharedFlows;
use tidegate_tcp::wire::options::Timestamps;
use tidegate_tcp::wire::{FlowKey, Options};
use tidegate_tcp::{Config, State};

/// Flows, each with the shard whose engine has it.
type Owners = Arc<Mutex<Vec<(FlowKey, u16)>>>;

/// One engine's view of them. It takes every flow for one of these others as well.
struct View {
    owners: Owners,
    gone: Arc<AtomicUsize>,
    shard: u16,
    suspected: u64,
    chosen: Option<u16>,
}

impl SharedFlows for View {
    fn begin(&self, key: &FlowKey) {
        self.owners.lock().unwrap().push((*key, self.shard));
    }

    fn end(&self, key: &FlowKey) {
        let mut owners = self.owners.lock().unwrap();
        let place = owners.iter().position(|flow| *flow == (*key, self.shard));
        owners.remove(place.expect("it began here"));
        let is_left = owners.iter().any(|(flow, _)| flow == key);
        self.gone.fetch_add(usize::from(!is_left), Ordering::Relaxed);
    }

    fn others(&self, key: &FlowKey) -> u64 {
        let owners = self.owners.lock().unwrap();
        let others = owners
            .iter()
            .filter(|(flow, shard)| flow == key && *shard != self.shard);
        others.fold(self.suspected, |all, (_, shard)| all | 1 << shard)
    }

    fn handshake_owner(&self, _: &FlowKey) -> Option<u16> {
        self.chosen
    }
}

/// The flows that all engines share.
#[derive(Default)]
struct Shared {
    owners: Owners,
    /// Times that no engine had a flow any more.
    gone: Arc<AtomicUsize>,
    suspected: u64,
    /// The shard that is to have the connections of handshakes with cookies.
    chosen: Option<u16>,
}

impl Shared {
    fn new() -> Self {
        Self::default()
    }

    /// An engine of its own, with its own keys.
    fn rig(&self, number: u64, limits: Config, app: App, (server, client): (&str, &str)) -> Rig {
        let mut rig = Rig::between(limits.clone(), App::default(), server, client);
        rig.engine = Engine::new(limits, secrets(number), app);
        rig.engine.listen(server.parse().unwrap());
        rig.engine.share_flows(Box::new(View {
            owners: Arc::clone(&self.owners),
            gone: Arc::clone(&self.gone),
            shard: number as u16,
            suspected: self.suspected,
            chosen: self.chosen,
        }));
        rig
    }

    /// The flows that all engines have together.
    fn total(&self) -> usize {
        self.owners.lock().unwrap().len()
    }
}

/// A frame arrives on `first`, which hands it over to `second` if it does not know the flow, as shards do. It comes
/// home if that does not know it either. Whether it was `second` that took it in.
fn arrives(first: &mut Rig, second: &mut Rig, frame: &[u8]) -> bool {
    let received = first.engine.receive(first.now, frame, OnNoFlow::Ask, &mut first.wire);
    if received == Received::Done {
        return false;
    }
    second.now = first.now;
    if second
        .engine
        .receive(second.now, frame, OnNoFlow::Report, &mut second.wire)
        == Received::Done
    {
        return true;
    }
    let received = first
        .engine
        .receive(first.now, frame, OnNoFlow::Reject, &mut first.wire);
    assert_eq!(received, Received::Done);
    false
}

const FAMILIES: [(&str, &str); 2] = [(SERVER, CLIENT), V6];

#[test]
fn the_syn_of_a_client_that_lost_its_state_meets_its_old_connection_on_another_engine() {
    for family in FAMILIES {
        for (old, new) in [
            (with_timestamps(1000), with_timestamps(5000)),
            (with_timestamps(1000), with_sack()),
            (with_sack(), with_timestamps(5000)),
            // Of a clock that went back.
            (with_timestamps(1000), with_timestamps(900)),
        ] {
            let shared = Shared::new();
            let mut owner = shared.rig(1, config(), App::default(), family);
            let mut other = shared.rig(2, config(), App::default(), family);
            owner.connect_with(old);
            owner.peer(ACK, b"GET");
            assert_eq!(shared.total(), 1);
            let next = owner.seq;

            other.seq = SeqNumber(77);
            let syn = other.frame(other.seq, SeqNumber(0), SYN, new, b"");
            assert!(arrives(&mut other, &mut owner, &syn), "the owner has it");
            other.nothing();
            let challenge = owner.sent().pop().expect("no challenge ACK");
            assert!(challenge.is(ACK));
            assert_eq!(challenge.ack, next);

            // What the client has no connection for, it resets.
            let reset = other.frame(challenge.ack, SeqNumber(0), RST, Options::default(), b"");
            assert!(arrives(&mut other, &mut owner, &reset));
            assert_eq!(owner.app().closed, [CloseReason::ResetByPeer]);
            assert_eq!(shared.total(), 0);
            owner.assert_empty();

            // And its next SYN is that of a new connection, where it arrives.
            other.connect_with(new);
            other.peer(ACK, b"again");
            assert_eq!(other.app().received, b"again");
            assert_eq!((other.state(), owner.state()), (Some(State::Established), None));
            assert_eq!(shared.total(), 1);
        }
    }
}

#[test]
fn a_syn_of_a_flow_in_time_wait_on_another_engine_begins_above_the_old_sequence_numbers() {
    for family in FAMILIES {
        for timestamps in [false, true] {
            let shared = Shared::new();
            let app = App {
                close_after_greeting: true,
                ..sender(300_000)
            };
            let mut owner = shared.rig(1, config(), app, family);
            let mut other = shared.rig(2, config(), App::default(), family);
            let options = |value| {
                if timestamps {
                    with_timestamps(value)
                } else {
                    with_sack()
                }
            };
            owner.connect_with(options(1000));
            owner.read_all();
            owner.peer(ACK | FIN, b"");
            owner.sent();
            assert_eq!((owner.state(), shared.total()), (Some(State::TimeWait), 1));
            let old = owner.ack;

            other.seq = owner.seq + 1;
            let syn = other.frame(other.seq, SeqNumber(0), SYN, options(2000), b"");
            assert!(arrives(&mut other, &mut owner, &syn));
            let syn_ack = owner.one();
            assert!(syn_ack.is(SYN | ACK));
            assert!(syn_ack.seq.after(old), "{:?} after {old:?}", syn_ack.seq);
            // Still known: the SYN that comes again is for the same engine, which knows the old numbers.
            assert_eq!((owner.count(Counter::TimeWaitReused), shared.total()), (1, 1));
            assert!(arrives(&mut other, &mut owner, &syn));
            assert_eq!(owner.one().seq, syn_ack.seq);

            let ack = Options {
                timestamps: syn_ack.options.timestamps.map(|stamp| Timestamps {
                    value: 2001,
                    echo: stamp.value,
                }),
                ..Options::default()
            };
            let ack = other.frame(other.seq + 1, syn_ack.seq + 1, ACK, ack, b"");
            assert!(arrives(&mut other, &mut owner, &ack));
            assert_eq!((owner.app().opened, shared.total()), (2, 1));
        }
    }
}

#[test]
fn a_half_open_connection_in_the_place_of_time_wait_is_forgotten_with_its_record() {
    let shared = Shared::new();
    let app = App {
        close_after_greeting: true,
        ..sender(1000)
    };
    let mut rig = shared.rig(1, config(), app, FAMILIES[0]);
    rig.connect_with(with_sack());
    rig.read_all();
    rig.peer(ACK | FIN, b"");
    rig.sent();
    assert_eq!((rig.state(), shared.total()), (Some(State::TimeWait), 1));
    rig.seq += 1;
    rig.syn(with_sack());
    assert_eq!((rig.engine.half_open(), shared.total()), (1, 1));
    rig.pass(ms(300_000));
    assert_eq!((rig.engine.half_open(), shared.total()), (0, 0));
}

#[test]
fn a_segment_that_is_taken_for_another_engines_is_dealt_with_where_it_arrives() {
    let shared = Shared {
        suspected: 1 << 1,
        ..Shared::new()
    };
    let mut owner = shared.rig(1, config(), App::default(), FAMILIES[0]);
    let mut other = shared.rig(2, config(), App::default(), FAMILIES[0]);
    let syn = other.frame(other.seq, SeqNumber(0), SYN, with_sack(), b"");
    let received = other.engine.receive(other.now, &syn, OnNoFlow::Ask, &mut other.wire);
    assert_eq!(
        received,
        Received::NoFlow {
            others: 1 << 1,
            then: 0
        }
    );
    assert!(!arrives(&mut other, &mut owner, &syn));
    assert!(other.one().is(SYN | ACK));
    let stray = other.frame(other.seq + 7, SeqNumber(7), ACK, Options::default(), b"x");
    assert!(!arrives(&mut other, &mut owner, &stray));
    assert!(other.one().is(RST));
    owner.nothing();
}

#[test]
fn a_segment_of_a_flow_that_no_engine_has_visits_nobody() {
    let shared = Shared::new();
    let mut rig = shared.rig(1, config(), App::default(), FAMILIES[0]);
    let stray = rig.frame(rig.seq, SeqNumber(7), ACK, Options::default(), b"x");
    let received = rig.engine.receive(rig.now, &stray, OnNoFlow::Ask, &mut rig.wire);
    assert_eq!(received, Received::Done);
    assert!(rig.one().is(RST));
    let syn = rig.frame(rig.seq, SeqNumber(0), SYN, with_sack(), b"");
    for _ in 0..2 {
        let received = rig.engine.receive(rig.now, &syn, OnNoFlow::Ask, &mut rig.wire);
        assert_eq!(received, Received::Done);
        assert!(rig.one().is(SYN | ACK));
        assert_eq!(shared.total(), 1, "half-open");
    }
}

#[test]
fn a_syn_that_comes_again_elsewhere_is_for_the_engine_that_answered_it() {
    let shared = Shared::new();
    let mut owner = shared.rig(1, config(), App::default(), FAMILIES[0]);
    let mut other = shared.rig(2, config(), App::default(), FAMILIES[0]);
    owner.syn(with_sack());
    let answer = owner.one();
    let syn = other.frame(owner.seq - 1, SeqNumber(0), SYN, with_sack(), b"");
    assert!(arrives(&mut other, &mut owner, &syn));
    assert_eq!(owner.one().seq, answer.seq);
    assert_eq!((owner.engine.half_open(), other.engine.half_open()), (1, 0));
}

/// However a connection begins and ends, it is counted once and no longer than there is a record of it.
#[test]
fn every_way_of_a_connection_leaves_the_counts_as_they_were() {
    type Step = (&'static str, fn(&mut Rig));
    let ends: [Step; 5] = [
        ("reset by the peer", |rig| rig.peer(RST, b"")),
        ("aborted", |rig| {
            rig.engine.abort_all(rig.now, &mut rig.wire);
        }),
        ("closed by the peer", |rig| {
            rig.peer(ACK | FIN, b"");
            let fin = rig.sent().pop().expect("no FIN");
            rig.acknowledge(&fin);
        }),
        ("closed here first", |rig| {
            rig.engine.drain(rig.now, &mut rig.wire);
            let fin = rig.sent().pop().expect("no FIN");
            rig.ack = fin.end();
            rig.peer(ACK | FIN, b"");
            assert_eq!(rig.state(), Some(State::TimeWait));
            rig.pass(ms(200_000));
        }),
        ("timed out", |rig| {
            rig.peer(ACK, b"x");
            rig.sent();
            rig.pass(ms(3_000_000));
        }),
    ];
    let begins: [Step; 3] = [
        ("by a SYN", |rig| {
            rig.connect();
        }),
        ("by a cookie", |rig| {
            rig.engine.set_cookies(Some(cookies(EPOCH)));
            answered(rig, Options::default());
            rig.peer(ACK, b"");
        }),
        ("from this side", |rig| rig.connect_actively(Options::default())),
    ];
    for (how, begin) in begins {
        for (why, end) in ends {
            let shared = Shared::new();
            let app = App {
                echo: true,
                close_at_end: true,
                ..App::default()
            };
            let mut rig = shared.rig(1, config(), app, FAMILIES[0]);
            begin(&mut rig);
            assert_eq!(
                (rig.state(), shared.total()),
                (Some(State::Established), 1),
                "begun {how}"
            );
            rig.sent();
            end(&mut rig);
            rig.sent();
            assert_eq!((rig.state(), shared.total()), (None, 0), "begun {how}, {why}");
        }
    }
}

#[test]
fn records_of_time_wait_that_give_way_are_forgotten() {
    let shared = Shared::new();
    let limits = Config {
        max_time_wait: 4,
        ..config()
    };
    let app = App {
        close_after_greeting: true,
        ..sender(3)
    };
    let mut rig = shared.rig(1, limits, app, FAMILIES[0]);
    for port in 0..20 {
        rig.key.local_port = 2000 + port;
        rig.connect();
        let fin = rig.one();
        rig.ack = fin.end();
        rig.peer(ACK | FIN, b"");
        rig.sent();
    }
    assert_eq!(rig.engine.population().time_wait, 4);
    assert_eq!(shared.total(), 4);
}

/// The shard that has the flow is asked before the one that would begin a connection of it.
#[test]
fn the_acknowledgment_of_a_cookie_goes_to_who_has_the_flow_and_then_to_who_was_chosen() {
    for chosen in [Some(2), None] {
        let shared = Shared {
            suspected: 1 << 3,
            chosen,
            ..Shared::new()
        };
        let mut rig = shared.rig(1, config(), App::default(), FAMILIES[0]);
        let cookies = Cookies {
            shard: 1,
            shards: 4,
            ..cookies(EPOCH)
        };
        rig.engine.set_cookies(Some(cookies));
        answered(&mut rig, with_sack());
        let ack = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"");
        let received = rig.engine.receive(rig.now, &ack, OnNoFlow::Ask, &mut rig.wire);
        let Received::NoFlow { others, then } = received else {
            panic!("it was dealt with here")
        };
        assert_eq!(others & 1 << 3, 1 << 3);
        match chosen {
            Some(shard) => assert_eq!((others, then), (1 << 3, 1 << shard)),
            // By the hash, which may name this shard: then it comes home.
            None => assert!(then.count_ones() <= 1 && then != 1 << 1),
        }
        rig.nothing();
    }
}

/// The program found its cookie genuine, and its acknowledgment was lost since.
#[test]
fn text_of_a_handshake_that_was_seen_on_the_way_is_never_reset() {
    let shared = Shared {
        chosen: Some(1),
        ..Shared::new()
    };
    let mut rig = shared.rig(1, config(), App::default(), FAMILIES[0]);
    rig.engine.set_cookies(Some(Cookies {
        shard: 1,
        shards: 4,
        ..cookies(EPOCH)
    }));
    let text = rig.frame(rig.seq + 700, rig.ack, ACK, Options::default(), b"later");
    for _ in 0..100 {
        let received = rig.engine.receive(rig.now, &text, OnNoFlow::Ask, &mut rig.wire);
        assert_eq!(received, Received::Done);
    }
    rig.pass(ms(25));
    rig.nothing();
    assert_eq!(
        (rig.count(Counter::DropEarly), rig.count(Counter::DropBadCookie)),
        (100, 0)
    );
}

/// Segments that follow the acknowledgment of a cookie are of a known flow all the time.
#[test]
fn a_half_open_connection_that_gives_way_to_a_cookie_leaves_no_gap() {
    let shared = Shared::new();
    let mut rig = shared.rig(0, config(), App::default(), FAMILIES[0]);
    rig.engine.set_cookies(Some(cookies(EPOCH)));
    rig.syn(with_sack());
    rig.sent();
    assert_eq!((rig.engine.half_open(), shared.total()), (1, 1));
    answered(&mut rig, with_sack());
    rig.peer(ACK, b"");
    assert_eq!((rig.engine.half_open(), rig.state()), (0, Some(State::Established)));
    assert_eq!((shared.total(), shared.gone.load(Ordering::Relaxed)), (1, 0));
}

#[test]
fn a_flow_whose_listener_is_gone_is_found_on_another_engine() {
    for family in FAMILIES {
        let shared = Shared::new();
        let mut owner = shared.rig(1, config(), App::default(), family);
        let mut other = shared.rig(2, config(), App::default(), family);
        owner.connect_with(with_sack());
        owner.engine.set_addresses(&[]);
        other.engine.set_addresses(&[]);
        let text = owner.frame(owner.seq, owner.ack, ACK, Options::default(), b"GET");
        assert!(arrives(&mut other, &mut owner, &text), "the owner has it");
        assert_eq!(owner.count(Counter::BytesIn), 3);
        // Of a connection that nobody has nobody is told.
        owner.key.remote_port += 1;
        let stray = owner.frame(owner.seq, owner.ack, ACK, Options::default(), b"GET");
        assert!(!arrives(&mut other, &mut owner, &stray));
        other.nothing();
        let dropped = [&owner, &other].map(|rig| rig.count(Counter::DropNotListening));
        assert_eq!(dropped, [0, 1]);
    }
}
