//! Opening a connection (RFC 9293, sections 3.5 and 3.10.7).

use crate::common::*;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::OnNoFlow;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;
use tidegate_tcp::{Config, State};

#[test]
fn three_segments_open_a_connection_over_ipv4_and_ipv6() {
    for (server, client) in [(SERVER, CLIENT), ("[2001:2::1]:80", "[2001:2::2]:40000")] {
        let mut rig = Rig::between(config(), App::default(), server, client);
        let syn_ack = rig.connect();
        let mss = if server.starts_with('[') { 1440 } else { 1460 };
        assert_eq!(syn_ack.options.mss, Some(mss));
        assert_eq!(rig.state(), Some(State::Established));
        assert_eq!(rig.app().opened, 1);
        rig.nothing();
    }
}

#[test]
fn a_new_mtu_of_the_link_counts_for_new_connections_only() {
    let mut rig = Rig::new(config(), sender(10_000));
    rig.connect();
    let longest = |sent: &[Sent]| sent.iter().map(|sent| sent.payload.len()).max();
    assert_eq!(longest(&rig.sent()), Some(1460));
    rig.engine.set_mtu(1300);
    rig.pass(ms(3000));
    assert_eq!(longest(&rig.sent()), Some(1460), "retransmitted as it was");
    for (mtu, mss) in [(1300, 1260), (1500, 1460), (100, 536)] {
        let mut rig = Rig::new(config(), sender(10_000));
        rig.engine.set_mtu(mtu);
        let syn_ack = rig.connect();
        assert_eq!(syn_ack.options.mss, Some(mss), "MTU {mtu}");
        // The peer says nothing of its own, so 536 (RFC 9293, section 3.7.1).
        let mut rig = Rig::new(config(), sender(10_000));
        rig.engine.set_mtu(mtu);
        rig.connect_with(Options {
            mss: Some(1460),
            ..Options::default()
        });
        assert_eq!(longest(&rig.sent()), Some(usize::from(mss)), "MTU {mtu}");
    }
}

#[test]
fn the_peers_segments_leave_room_for_a_balancers_headers_and_own_ones_need_none() {
    for (server, client, mss) in [(SERVER, CLIENT, 1460), ("[2001:2::1]:80", "[2001:2::2]:40000", 1440)] {
        let limits = Config {
            outer_headers: 52,
            ..config()
        };
        let mut rig = Rig::between(limits, sender(10_000), server, client);
        let syn_ack = rig.connect_with(Options {
            mss: Some(mss),
            ..Options::default()
        });
        assert_eq!(syn_ack.options.mss, Some(mss - 52));
        let longest = rig.sent().iter().map(|sent| sent.payload.len()).max();
        assert_eq!(longest, Some(usize::from(mss)));
    }
}

#[test]
fn options_are_offered_only_when_the_peer_offers_them() {
    let mut rig = Rig::new(config(), App::default());
    let syn_ack = rig.connect();
    assert_eq!(syn_ack.options.window_scale, None);
    assert!(!syn_ack.options.sack_permitted);
    assert_eq!(syn_ack.options.timestamps, None);

    let mut rig = Rig::new(config(), App::default());
    let syn_ack = rig.connect_with(Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 77, echo: 0 }),
        ..Options::default()
    });
    assert_eq!(syn_ack.options.window_scale, Some(7), "4 MiB need a shift of 7");
    assert!(syn_ack.options.sack_permitted);
    assert_eq!(syn_ack.options.timestamps.map(|timestamps| timestamps.echo), Some(77));
}

#[test]
fn data_on_the_third_segment_reaches_the_application() {
    let mut rig = Rig::new(config(), App::echo());
    rig.syn(Options::default());
    let syn_ack = rig.one();
    rig.ack = syn_ack.seq + 1;
    rig.peer(ACK | PSH, b"early");
    assert_eq!(rig.app().received, b"early");
    let answer = rig.one();
    assert_eq!(answer.payload, b"early");
    assert_eq!(answer.ack, rig.seq);
    assert!(answer.is(ACK | PSH));
}

#[test]
fn the_syn_ack_is_sent_again_with_back_off_and_then_given_up() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    let first = rig.one();
    for wait in [1, 2, 4, 8, 16] {
        rig.pass(ms(wait * 1000 - 1));
        rig.nothing();
        rig.pass(ms(1));
        let again = rig.one();
        assert!(again.is(SYN | ACK));
        assert_eq!(again.seq, first.seq);
    }
    rig.pass(ms(32_000));
    rig.nothing();
    assert_eq!(rig.count(Counter::HalfOpenTimedOut), 1);
    rig.assert_empty();
}

#[test]
fn a_syn_that_comes_again_is_answered_with_the_same_syn_ack() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    let first = rig.one();
    rig.seq = rig.seq - 1;
    rig.syn(Options::default());
    let again = rig.one();
    assert_eq!((first.seq, first.ack), (again.seq, again.ack));
    assert_eq!(rig.engine.population().half_open, 1);
}

#[test]
fn a_stale_duplicate_syn_leaves_nothing_behind() {
    // RFC 9293, section 3.5, figure 8: the peer resets what the old SYN began, and its real SYN then succeeds.
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    let answer = rig.one();
    let reset = rig.frame(rig.seq, SeqNumber(0), RST, Options::default(), b"");
    assert_eq!(answer.ack, rig.seq);
    rig.inject(&reset);
    rig.assert_empty();
    assert_eq!(rig.count(Counter::HalfOpenReset), 1);
    rig.seq = SeqNumber(5000);
    rig.connect();
    assert_eq!(rig.state(), Some(State::Established));
}

#[test]
fn half_open_connections_are_bounded_and_the_oldest_gives_way() {
    let mut rig = Rig::new(config(), App::default());
    for port in 0..100_u16 {
        rig.key.local_port = 1000 + port;
        rig.syn(Options::default());
        assert!(rig.one().is(SYN | ACK));
        assert!(rig.engine.population().half_open <= 8);
    }
    assert_eq!(rig.count(Counter::HalfOpenEvicted), 92);
    rig.pass(ms(120_000));
    rig.assert_empty();
}

#[test]
fn an_acknowledgment_of_something_else_is_reset_and_the_half_open_connection_stays() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    let syn_ack = rig.one();
    rig.ack = syn_ack.seq + 5;
    rig.peer(ACK, b"");
    let reset = rig.one();
    assert!(reset.is(RST));
    assert_eq!(reset.seq, syn_ack.seq + 5);
    rig.ack = syn_ack.seq + 1;
    rig.peer(ACK, b"");
    assert_eq!(rig.state(), Some(State::Established));
}

#[test]
fn a_reset_outside_the_window_does_not_end_a_half_open_connection() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    rig.one();
    rig.peer_at(rig.seq + 100_000, RST, b"");
    rig.nothing();
    rig.peer_at(rig.seq + 10, RST, b"");
    assert!(rig.one().is(ACK), "a challenge");
    assert_eq!(rig.engine.population().half_open, 1);
}

#[test]
fn syn_with_fin_or_rst_is_dropped() {
    let mut rig = Rig::new(config(), App::default());
    rig.peer_at(rig.seq, SYN | FIN, b"");
    rig.peer_at(rig.seq, SYN | RST, b"");
    rig.nothing();
    assert_eq!(rig.count(Counter::DropBadFlags), 2);
    rig.assert_empty();
}

#[test]
fn segments_for_no_connection_are_reset_within_the_rate() {
    let mut rig = Rig::new(
        Config {
            rst_rate: 10,
            ..config()
        },
        App::default(),
    );
    rig.ack = SeqNumber(4711);
    rig.peer_at(rig.seq, ACK, b"data");
    let reset = rig.one();
    assert!(reset.is(RST));
    assert_eq!(reset.seq, SeqNumber(4711));
    rig.peer_at(rig.seq, ACK | FIN, b"data");
    let reset = rig.one();
    assert!(reset.is(RST));
    assert_eq!(reset.seq, SeqNumber(4711));
    rig.peer_at(rig.seq, RST, b"");
    rig.nothing();
    for _ in 0..20 {
        rig.peer_at(rig.seq, ACK, b"");
    }
    // From half of the rate to one and a half, the two before included.
    let resets = rig.count(Counter::RstsOut);
    assert!((5..15).contains(&resets), "{resets}");
    assert_eq!(rig.sent().len() as u64, resets - 2);
    assert_eq!(rig.count(Counter::DropNoConnection), 1 + 22 - resets);
}

#[test]
fn a_segment_of_an_unknown_flow_is_reported_when_asked() {
    let mut rig = Rig::new(config(), App::default());
    let stray = rig.frame(rig.seq, SeqNumber(1), ACK, Options::default(), b"");
    let received = rig.engine.receive(rig.now, &stray, OnNoFlow::Report, &mut rig.wire);
    assert_eq!(received, NO_FLOW);
    rig.nothing();

    rig.syn(Options::default());
    let other_shard = rig.one().seq + 77;
    let stray = rig.frame(rig.seq, other_shard, ACK, Options::default(), b"");
    let received = rig.engine.receive(rig.now, &stray, OnNoFlow::Report, &mut rig.wire);
    assert_eq!(received, NO_FLOW, "another shard answered the same SYN");
    assert_eq!(rig.engine.population().half_open, 1);
}

#[test]
fn other_ports_and_unanswerable_sources_are_dropped() {
    let mut rig = Rig::new(config(), App::default());
    rig.key.remote_port = 81;
    rig.syn(Options::default());
    rig.nothing();
    assert_eq!(rig.count(Counter::DropNotListening), 1);
    let mut rig = Rig::between(config(), App::default(), SERVER, "127.0.0.1:1000");
    rig.syn(Options::default());
    rig.nothing();
    assert_eq!(rig.count(Counter::DropBadSource), 1);
}

#[test]
fn nothing_from_a_listeners_own_address_is_answered() {
    // A "land" attack: the SYN would be answered to the listener itself. From the own port, another one, and the
    // address of another listener.
    for (server, client) in [
        (SERVER, SERVER),
        (SERVER, "198.18.0.1:4000"),
        (SERVER, "198.18.0.77:80"),
        ("[2001:2::1]:80", "[2001:2::1]:80"),
    ] {
        let mut rig = Rig::between(config(), App::default(), server, client);
        rig.engine.listen("198.18.0.77:8080".parse().unwrap());
        rig.syn(Options::default());
        rig.peer_at(rig.seq, SYN | ACK, b"");
        rig.peer_at(rig.seq, ACK, b"text");
        rig.peer_at(rig.seq, RST, b"");
        rig.nothing();
        assert_eq!(rig.count(Counter::DropBadSource), 4, "{server} {client}");
        rig.assert_empty();
    }
}

#[test]
fn connections_are_bounded_and_the_handshake_can_be_finished_later() {
    let mut rig = Rig::new(
        Config {
            max_connections: 1,
            ..config()
        },
        App::default(),
    );
    rig.connect();
    let first = (rig.key, rig.seq, rig.ack);
    rig.key.local_port += 1;
    rig.connect();
    rig.nothing();
    assert_eq!(rig.count(Counter::DropConnectionsFull), 1);
    let second = (rig.key, rig.seq, rig.ack);
    (rig.key, rig.seq, rig.ack) = first;
    rig.peer(RST, b"");
    assert_eq!(rig.state(), None);
    (rig.key, rig.seq, rig.ack) = second;
    rig.peer(ACK, b"late");
    assert_eq!(rig.state(), Some(State::Established));
    assert_eq!(rig.app().received, b"late");
}

#[test]
fn an_engine_that_refuses_syns_completes_handshakes() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    rig.ack = rig.one().seq + 1;
    rig.engine.refuse_syns();
    rig.peer(ACK, b"");
    assert_eq!(rig.state(), Some(State::Established));
    let mut other = Rig::new(config(), App::default());
    other.engine.refuse_syns();
    other.syn(Options::default());
    other.nothing();
    assert_eq!(other.count(Counter::DropDraining), 1);
    other.assert_empty();
}

#[test]
fn a_draining_engine_accepts_nothing_and_resets_what_is_half_open() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    rig.one();
    rig.engine.drain(rig.now, &mut rig.wire);
    assert!(rig.one().is(RST | ACK));
    rig.syn(Options::default());
    rig.nothing();
    assert_eq!(rig.count(Counter::DropDraining), 1);
    rig.assert_empty();
}
