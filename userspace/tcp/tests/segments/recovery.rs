//! Loss and silence: retransmission, probes, keepalive, time-outs.

use crate::common::*;
use bytes::Bytes;
use tidegate_tcp::State;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;

fn sender(length: usize) -> App {
    App {
        greeting: Bytes::from(vec![5; length]),
        ..App::default()
    }
}

#[test]
fn a_segment_is_sent_again_after_the_timeout_with_back_off() {
    let mut rig = Rig::new(config(), sender(100));
    rig.connect();
    let first = rig.one();
    for wait in [200, 400, 800, 1600] {
        rig.pass(ms(wait - 2));
        rig.nothing();
        rig.pass(ms(2));
        let again = rig.one();
        assert_eq!((again.seq, &again.payload), (first.seq, &first.payload));
    }
    rig.acknowledge(&first);
    rig.pass(ms(10_000));
    rig.nothing();
    assert_eq!(rig.count(Counter::RtoRetransmits), 4);
}

#[test]
fn after_a_timeout_everything_outstanding_is_sent_again_in_slow_start() {
    let mut rig = Rig::new(config(), sender(10 * 1460));
    rig.connect();
    let first = rig.sent();
    assert_eq!(first.len(), 10);
    rig.pass(ms(201));
    let again = rig.one();
    assert_eq!(again.seq, first[0].seq);
    rig.acknowledge(&again);
    let two = rig.sent();
    assert_eq!(two.len(), 2);
    assert_eq!(two[0].seq, first[1].seq);
    rig.acknowledge(&two[1]);
    assert_eq!(rig.sent().len(), 4);
    // An acknowledgment of all that arrived the first time ends it.
    rig.acknowledge(&first[9]);
    rig.nothing();
    rig.pass(ms(5000));
    rig.nothing();
}

#[test]
fn three_duplicate_acknowledgments_bring_the_missing_segment_at_once() {
    let mut rig = Rig::new(config(), sender(10 * 1460));
    rig.connect();
    let first = rig.sent();
    rig.acknowledge(&first[0]);
    rig.sent();
    for _ in 0..2 {
        rig.peer(ACK, b"");
        assert!(rig.sent().iter().all(|segment| segment.seq.after(first[9].seq)));
    }
    rig.peer(ACK, b"");
    assert_eq!(rig.sent()[0].seq, first[1].seq);
    assert_eq!(rig.count(Counter::FastRetransmits), 1);
    // A partial acknowledgment shows the next loss (RFC 6582).
    rig.acknowledge(&first[4]);
    assert_eq!(rig.sent()[0].seq, first[5].seq);
    rig.acknowledge(&first[9]);
    rig.nothing();
    assert_eq!(rig.count(Counter::RtoRetransmits), 0);
}

#[test]
fn a_window_update_is_no_duplicate_acknowledgment() {
    let mut rig = Rig::new(config(), sender(10 * 1460));
    rig.connect();
    rig.sent();
    for window in [60_000, 50_000, 40_000, 30_000] {
        rig.window = window;
        rig.peer(ACK, b"");
    }
    rig.nothing();
}

#[test]
fn a_closed_window_is_probed_until_it_opens() {
    let mut rig = Rig::new(config(), sender(3000));
    rig.window = 0;
    rig.connect();
    rig.nothing();
    for wait in [200, 400, 800] {
        rig.pass(ms(wait - 2));
        rig.nothing();
        rig.pass(ms(2));
        let probe = rig.one();
        assert!(probe.payload.is_empty());
        assert_eq!(probe.seq + 1, rig.ack, "an old octet, which has to be answered");
        rig.peer(ACK, b"");
    }
    assert_eq!(rig.count(Counter::WindowProbes), 3);
    rig.window = 65_535;
    rig.peer(ACK, b"");
    assert_eq!(rig.sent().len(), 3);
}

#[test]
fn a_peer_that_never_opens_its_window_is_given_up() {
    let mut rig = Rig::new(
        Config {
            user_timeout: ms(30_000),
            ..config()
        },
        sender(3000),
    );
    rig.window = 0;
    rig.connect();
    for _ in 0..60 {
        rig.pass(ms(1000));
        for _ in rig.sent() {
            rig.peer(ACK, b"");
        }
    }
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    rig.assert_empty();
}

#[test]
fn a_dead_peer_is_given_up_after_the_user_timeout() {
    let mut rig = Rig::new(config(), sender(100));
    rig.connect();
    rig.pass(ms(119_000));
    assert_eq!(rig.state(), Some(State::Established));
    rig.pass(ms(120_000));
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    assert!(rig.sent().last().unwrap().is(RST | ACK));
    rig.assert_empty();
}

#[test]
fn keepalive_probes_a_silent_peer_and_gives_a_dead_one_up() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.pass(ms(7_199_000));
    rig.nothing();
    rig.pass(ms(1001));
    let probe = rig.one();
    assert_eq!(probe.seq + 1, rig.ack);
    rig.peer(ACK, b"");
    rig.nothing();
    // It lives: two more hours.
    rig.pass(ms(7_199_000));
    rig.nothing();
    rig.pass(ms(1001));
    assert_eq!(rig.sent().len(), 1);
    for _ in 0..9 {
        rig.pass(ms(75_000));
        assert!(rig.one().is(ACK));
    }
    rig.pass(ms(75_000));
    assert!(rig.one().is(RST | ACK));
    assert_eq!(rig.count(Counter::KeepaliveProbes), 11);
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    rig.assert_empty();
}

#[test]
fn keepalive_can_be_configured_and_turned_off() {
    let limits = Config {
        keepalive_idle: ms(1000),
        keepalive_interval: ms(100),
        keepalive_probes: 2,
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    rig.connect();
    rig.pass(ms(1301));
    assert_eq!(rig.sent().len(), 3, "two probes and a reset");
    rig.assert_empty();

    let mut rig = Rig::new(
        Config {
            keepalive_idle: ms(0),
            ..config()
        },
        App::default(),
    );
    rig.connect();
    rig.pass(ms(100_000_000));
    rig.nothing();
    assert_eq!(rig.engine.next_deadline(), None);
}

#[test]
fn the_application_timer_fires_once() {
    let mut rig = Rig::new(
        config(),
        App {
            timer: Some(ms(500)),
            ..App::default()
        },
    );
    rig.connect();
    rig.pass(ms(499));
    assert_eq!(rig.app().timeouts, 0);
    rig.pass(ms(5000));
    assert_eq!(rig.app().timeouts, 1);
}

#[test]
fn blind_resets_and_syns_are_challenged_within_limits() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    for offset in 1..100 {
        rig.peer_at(rig.seq + offset, RST, b"");
    }
    let challenges = rig.sent();
    assert_eq!(challenges.len(), 10);
    assert!(
        challenges
            .iter()
            .all(|segment| segment.is(ACK) && segment.ack == rig.seq)
    );
    rig.peer_at(rig.seq, SYN, b"");
    rig.nothing();
    assert_eq!(rig.state(), Some(State::Established));
    rig.pass(ms(1000));
    rig.peer_at(rig.seq, SYN, b"");
    assert!(rig.one().is(ACK));
    rig.peer(RST, b"");
    assert_eq!(rig.app().closed, [CloseReason::ResetByPeer]);
    rig.assert_empty();
}

#[test]
fn acknowledgments_of_data_never_sent_are_challenged_and_change_nothing() {
    let mut rig = Rig::new(config(), sender(100));
    rig.connect();
    let sent = rig.one();
    rig.ack = sent.seq + 5000;
    rig.peer_at(rig.seq, ACK, b"inserted");
    let challenge = rig.one();
    assert_eq!(challenge.ack, rig.seq);
    assert!(rig.app().received.is_empty());
    assert_eq!(rig.count(Counter::DropBadAck), 1);
    rig.ack = sent.seq;
    rig.acknowledge(&sent);
    rig.pass(ms(5000));
    rig.nothing();
}
