//! What finished connections leave to the next ones to the same peer (RFC 9040).

use std::time::Duration;

use crate::common::*;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::wire::{FlowKey, Options};

const MSS: usize = 1460;

/// More than has to be acknowledged before a connection is remembered, and two flights of CUBIC's slow start, which are
/// not paced.
const ENOUGH: usize = 28 * MSS;

/// A server whose application sends `length` bytes and closes.
fn server(config: Config, length: usize) -> Rig {
    let app = App {
        close_after_greeting: true,
        ..sender(length)
    };
    Rig::new(config, app)
}

/// A handshake from another port of the client, measured or not: the SYN-ACK is sent twice then.
fn handshake(rig: &mut Rig, options: Options, round_trip: Option<Duration>) {
    let client = rig.key.local();
    rig.key = FlowKey::new((client.ip(), client.port() + 1).into(), rig.key.peer());
    rig.syn(options);
    if round_trip.is_none() {
        rig.seq = rig.seq - 1;
        rig.syn(options);
    }
    let syn_ack = rig.sent().pop().expect("the SYN is answered");
    assert!(syn_ack.is(SYN | ACK));
    rig.ack = syn_ack.seq + 1;
    rig.pass(round_trip.unwrap_or_default());
    rig.peer(ACK, b"");
}

fn plain() -> Options {
    Options {
        mss: Some(MSS as u16),
        ..Options::default()
    }
}

/// A connection from its handshake to TIME-WAIT, with this round-trip time.
fn finish(rig: &mut Rig, options: Options, round_trip: Duration) {
    handshake(rig, options, Some(round_trip));
    finish_rest(rig, round_trip);
}

fn finish_rest(rig: &mut Rig, round_trip: Duration) {
    loop {
        let sent = rig.sent();
        let last = sent.last().expect("more is sent");
        assert!(!last.flags.contains(RST), "{last:?}");
        rig.pass(round_trip);
        rig.acknowledge(last);
        if last.flags.contains(FIN) {
            break;
        }
    }
    rig.peer(FIN | ACK, b"");
    rig.sent();
    let closed = rig.app().closed.last().copied();
    assert_eq!(closed, Some(CloseReason::Finished));
}

/// The first retransmission timeout of a connection whose handshake was not measured.
fn first_timeout(rig: &mut Rig) -> Duration {
    handshake(rig, plain(), None);
    rig.sent();
    let timeout = rig.wait(Duration::from_secs(100)).expect("nothing was sent again");
    rig.peer(RST, b"");
    rig.sent();
    timeout
}

#[test]
fn the_first_timeout_follows_what_an_earlier_connection_measured() {
    for (server, client) in [(SERVER, CLIENT), ("[2001:2::1]:80", "[2001:2::2]:40000")] {
        let app = App {
            close_after_greeting: true,
            ..sender(ENOUGH)
        };
        let mut rig = Rig::between(config(), app, server, client);
        assert_eq!(first_timeout(&mut rig), ms(1000));
        assert_eq!(rig.count(Counter::PathMemoryHits), 0);
        finish(&mut rig, plain(), ms(100));
        // Three round trips, as after a first measurement.
        let timeout = first_timeout(&mut rig);
        assert!((ms(300)..=ms(310)).contains(&timeout), "{timeout:?}");
        assert_eq!(rig.count(Counter::PathMemoryHits), 1);
    }
}

#[test]
fn a_connection_by_a_cookie_probes_for_a_lost_tail_at_once() {
    let app = App {
        close_after_greeting: true,
        ..sender(ENOUGH)
    };
    let mut rig = cookie::rig(config(), app);
    finish(&mut rig, plain(), ms(100));
    rig.key = FlowKey::new((rig.key.local().ip(), 50_000).into(), rig.key.peer());
    cookie::answered(&mut rig, with_sack());
    rig.peer(ACK, b"");
    assert_eq!(rig.count(Counter::CookieConnections), 1);
    rig.sent();
    // After two round trips (RFC 8985, section 7.2).
    let probe = rig.wait(ms(1000)).expect("nothing was sent again");
    assert!((ms(200)..=ms(210)).contains(&probe), "{probe:?}");
    assert_eq!(rig.count(Counter::TailProbes), 1);
}

#[test]
fn a_measurement_counts_more_than_what_is_remembered() {
    let mut rig = server(config(), ENOUGH);
    finish(&mut rig, plain(), ms(100));
    // Of the handshake.
    handshake(&mut rig, plain(), Some(ms(20)));
    assert_eq!(rig.info().srtt, Some(ms(20)));
    // Of the first text.
    handshake(&mut rig, plain(), None);
    assert!(rig.info().srtt.is_some_and(|srtt| srtt >= ms(90)));
    let sent = rig.sent();
    rig.pass(ms(10));
    rig.acknowledge(&sent[sent.len() - 1]);
    assert_eq!(rig.info().srtt, Some(ms(10)));
}

#[test]
fn nothing_is_known_of_other_addresses_or_after_its_age_or_if_it_is_switched_off() {
    let mut rig = server(config(), ENOUGH);
    finish(&mut rig, plain(), ms(100));
    rig.key = FlowKey::new("198.18.0.3:40000".parse().unwrap(), rig.key.peer());
    assert_eq!(first_timeout(&mut rig), ms(1000));

    let short = Config {
        path_memory_age: Duration::from_secs(600),
        ..config()
    };
    let mut rig = server(short, ENOUGH);
    finish(&mut rig, plain(), ms(100));
    rig.pass(Duration::from_secs(590));
    assert!(first_timeout(&mut rig) < ms(400));
    rig.pass(Duration::from_secs(20));
    assert_eq!(first_timeout(&mut rig), ms(1000));

    let off = Config {
        path_memory: 0,
        ..config()
    };
    let mut rig = server(off, ENOUGH);
    finish(&mut rig, plain(), ms(100));
    assert_eq!(first_timeout(&mut rig), ms(1000));
    assert_eq!(rig.count(Counter::PathMemoryHits), 0);
}

#[test]
fn a_connection_that_sent_little_is_not_remembered() {
    for (length, remembered) in [(16_383, false), (16_384, true)] {
        let mut rig = server(config(), length);
        finish(&mut rig, plain(), ms(100));
        assert_eq!(first_timeout(&mut rig) < ms(1000), remembered, "{length} bytes");
    }
}

/// The threshold of a second connection, after a first one that lost a segment of its third flight; and the bytes of
/// that flight.
fn threshold_after_loss(config: Config) -> (Option<u32>, u32) {
    let mut rig = server(config, 200 * MSS);
    handshake(&mut rig, plain(), Some(ms(50)));
    for _ in 0..2 {
        let sent = rig.sent();
        rig.pass(ms(50));
        rig.acknowledge(&sent[sent.len() - 1]);
    }
    // Slow start is paced by now.
    rig.pass(ms(25));
    let lost = rig.sent();
    let flight = (lost.len() * MSS) as u32;
    assert!(lost.len() > 20);
    for _ in 0..4 {
        rig.peer(ACK, b"");
    }
    assert_eq!(rig.count(Counter::Recoveries), 1);
    rig.sent();
    rig.acknowledge(&lost[lost.len() - 1]);
    finish_rest(&mut rig, ms(50));
    handshake(&mut rig, plain(), Some(ms(50)));
    let first = rig.sent();
    // The initial window is what it always is.
    assert_eq!(first.len(), 10);
    rig.acknowledge(&first[9]);
    (rig.info().transfer.unwrap().ssthresh, flight)
}

#[test]
fn the_threshold_is_remembered_if_that_is_wanted() {
    assert_eq!(threshold_after_loss(config()).0, None);
    let wanted = Config {
        path_memory_ssthresh: true,
        ..config()
    };
    let (threshold, flight) = threshold_after_loss(wanted);
    let threshold = threshold.expect("it is remembered");
    assert!((flight / 2..flight).contains(&threshold), "{threshold}");
}

#[test]
fn reordering_is_remembered() {
    let mut rig = server(config(), ENOUGH);
    for connection in [1, 2] {
        handshake(&mut rig, with_sack(), Some(ms(50)));
        let sent = rig.sent();
        rig.pass(ms(50));
        if connection == 1 {
            // One segment is overtaken by two.
            rig.selective(sent[0].seq, &[(sent[1].seq, sent[2].end())]);
            rig.pass(ms(5));
        } else {
            // By more than the duplicates that mean a loss where no reordering was seen.
            rig.selective(sent[0].seq, &[(sent[1].seq, sent[8].end())]);
        }
        assert_eq!(rig.count(Counter::Recoveries), 0, "connection {connection}");
        rig.acknowledge(&sent[9]);
        finish_rest(&mut rig, ms(50));
    }
    // Of another peer nothing is known.
    rig.key = FlowKey::new("198.18.0.3:40000".parse().unwrap(), rig.key.peer());
    handshake(&mut rig, with_sack(), Some(ms(50)));
    let sent = rig.sent();
    rig.pass(ms(50));
    rig.selective(sent[0].seq, &[(sent[1].seq, sent[8].end())]);
    assert_eq!(rig.count(Counter::Recoveries), 1);
}

#[test]
fn handshakes_and_connections_without_acknowledged_text_leave_nothing() {
    let mut rig = server(config(), ENOUGH);
    for _ in 0..50 {
        // A SYN that nobody completes; a handshake that is reset; one whose text is not acknowledged.
        rig.key = FlowKey::new(
            (rig.key.local().ip(), rig.key.local().port() + 1).into(),
            rig.key.peer(),
        );
        rig.syn(plain());
        rig.sent();
        handshake(&mut rig, plain(), Some(ms(5)));
        rig.peer(RST, b"");
        handshake(&mut rig, plain(), Some(ms(5)));
        rig.pass(ms(300));
        rig.peer(RST, b"");
        rig.sent();
    }
    // SYN-ACKs are no longer sent again.
    rig.pass(Duration::from_secs(200));
    rig.sent();
    assert_eq!(first_timeout(&mut rig), ms(1000));
    assert_eq!(rig.count(Counter::PathMemoryHits), 0);
}

#[test]
fn a_peer_that_vanished_is_not_remembered() {
    let mut rig = server(config(), 1000 * MSS);
    handshake(&mut rig, plain(), Some(ms(100)));
    for _ in 0..4 {
        let sent = rig.sent();
        rig.pass(ms(100));
        rig.acknowledge(&sent[sent.len() - 1]);
    }
    rig.pass(Duration::from_secs(300));
    rig.sent();
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    assert_eq!(first_timeout(&mut rig), ms(1000));
}

#[test]
fn a_peer_that_answers_slowly_makes_the_next_timeout_three_seconds_at_most() {
    // It may be another one behind the same address.
    let mut rig = server(config(), ENOUGH);
    handshake(&mut rig, plain(), Some(ms(900)));
    finish_rest(&mut rig, ms(1800));
    assert_eq!(first_timeout(&mut rig), ms(3000));
    // And one that answers at once, no shorter than any other.
    let mut rig = server(config(), ENOUGH);
    finish(&mut rig, plain(), Duration::ZERO);
    assert_eq!(first_timeout(&mut rig), ms(200));
}
