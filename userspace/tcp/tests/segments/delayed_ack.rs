//! The time at which acknowledgments are sent (RFC 9293, section 3.8.6.3; RFC 5681, section 4.2).

use crate::common::*;
use tidegate_tcp::config::Config;

#[test]
fn small_segments_do_not_put_the_acknowledgment_off() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let mut unanswered = 0;
    for _ in 0..100 {
        rig.peer(ACK, b".");
        rig.pass(ms(10));
        unanswered = if rig.sent().is_empty() { unanswered + 10 } else { 0 };
        assert!(unanswered <= 50);
    }
}

#[test]
fn a_filled_gap_is_acknowledged_at_once() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.peer_at(rig.seq + 10, ACK, b"later");
    assert_eq!(rig.one().ack, rig.seq);
    rig.peer_at(rig.seq + 5, ACK, b"still");
    assert_eq!(rig.one().ack, rig.seq);
    rig.peer_at(rig.seq, ACK, b"first");
    assert_eq!(rig.one().ack, rig.seq + 15);
}

#[test]
fn a_segment_received_again_is_acknowledged_at_once() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let start = rig.seq;
    rig.peer(ACK, b"text");
    rig.pass(ms(50));
    rig.sent();
    for _ in 0..50 {
        rig.peer_at(start, ACK, b"text");
        assert_eq!(rig.one().ack, rig.seq);
    }
}

#[test]
fn a_fin_is_acknowledged_at_once() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.peer(ACK | FIN, b"");
    assert_eq!(rig.one().ack, rig.seq);
}

#[test]
fn bare_acknowledgments_are_not_acknowledged() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    for _ in 0..100 {
        rig.peer(ACK, b"");
    }
    rig.pass(ms(1000));
    rig.nothing();
}

#[test]
fn the_delay_is_configurable_and_bounded() {
    let limits = Config {
        delayed_ack: ms(200),
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    rig.connect();
    rig.peer(ACK, b"text");
    assert_eq!(rig.wait(ms(1000)), Some(ms(200)));
    for (delay, valid) in [(499, true), (500, false)] {
        let limits = Config {
            delayed_ack: ms(delay),
            ..config()
        };
        assert_eq!(limits.validate().is_ok(), valid);
    }
}
