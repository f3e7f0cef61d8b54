//! Keepalive (RFC 9293, section 3.8.4).

use crate::common::*;
use tidegate_tcp::application::{CloseReason, ListenerId};
use tidegate_tcp::config::{Config, Keepalive};
use tidegate_tcp::counters::Counter;

fn quick() -> Config {
    Config {
        keepalive_idle: ms(1000),
        keepalive_interval: ms(100),
        keepalive_probes: 3,
        ..config()
    }
}

#[test]
fn the_defaults_are_two_hours_75_seconds_and_ten_probes() {
    let defaults = Config::default();
    assert_eq!(defaults.keepalive_idle, ms(7_200_000));
    assert_eq!(defaults.keepalive_interval, ms(75_000));
    assert_eq!(defaults.keepalive_probes, 10);
}

#[test]
fn a_busy_connection_is_not_probed() {
    let mut rig = Rig::new(quick(), App::default());
    rig.connect();
    for _ in 0..20 {
        rig.pass(ms(900));
        rig.peer(ACK, b"busy");
    }
    assert_eq!(rig.count(Counter::KeepaliveProbes), 0);
}

#[test]
fn one_answer_is_enough_to_begin_anew() {
    let mut rig = Rig::new(quick(), App::default());
    rig.connect();
    for _ in 0..5 {
        rig.pass(ms(1250));
        assert_eq!(rig.sent().len(), 3, "the probes of 1.0, 1.1 and 1.2 s");
        rig.peer(ACK, b"");
    }
    rig.pass(ms(1301));
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    rig.assert_empty();
}

#[test]
fn half_closed_connections_are_watched_too() {
    // In CLOSE-WAIT.
    let mut rig = Rig::new(quick(), App::default());
    rig.connect();
    rig.peer(ACK | FIN, b"");
    rig.pass(ms(2000));
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    rig.assert_empty();

    // In FIN-WAIT-2, not closed by the application, so without a time limit of its own.
    let mut rig = Rig::new(
        quick(),
        App {
            shutdown_after_greeting: true,
            ..sender(10)
        },
    );
    rig.connect();
    let fin = rig.one();
    rig.acknowledge(&fin);
    rig.pass(ms(2000));
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    rig.assert_empty();
}

#[test]
fn a_listener_may_have_settings_of_its_own() {
    let mut rig = Rig::new(config(), App::default());
    let own = Keepalive {
        idle: ms(500),
        interval: ms(100),
        probes: 1,
    };
    rig.engine.set_keepalive(ListenerId(0), own);
    rig.connect();
    assert_eq!(rig.wait(ms(10_000)), Some(ms(500)));
    rig.pass(ms(101));
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    rig.assert_empty();
}

#[test]
fn our_answer_to_the_peers_probe_says_where_we_stand() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.peer_at(rig.seq - 1, ACK, b"");
    let answer = rig.one();
    assert!(answer.is(ACK));
    assert_eq!(answer.ack, rig.seq);
    // Old implementations send one octet of garbage along (RFC 9293, section 3.8.4).
    rig.peer_at(rig.seq - 1, ACK, b"\0");
    assert_eq!(rig.one().ack, rig.seq);
    assert!(rig.app().received.is_empty());
}

#[test]
fn forged_segments_do_not_keep_a_dead_peer_alive() {
    let mut rig = Rig::new(quick(), App::default());
    rig.connect();
    let (seq, ack) = (rig.seq, rig.ack);
    for _ in 0..30 {
        rig.pass(ms(100));
        if !rig.app().closed.is_empty() {
            break;
        }
        rig.ack = ack + 0x1000_0000;
        rig.peer_at(seq, ACK, b"");
        rig.ack = ack;
        rig.peer_at(seq + 0x4000_0000, ACK, b"");
        rig.peer_at(seq + 1000, RST, b"");
        rig.peer_at(seq - 0x2000_0000, SYN, b"");
    }
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    rig.assert_empty();
}
