//! The order of the checks and the acceptability test (RFC 9293, section 3.10.7.4, table 6).

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;

const WINDOW: u32 = 4096;

fn limits() -> Config {
    Config {
        receive_buffer: WINDOW,
        ..config()
    }
}

/// A connection whose receive window is `WINDOW` octets, or closed.
fn connected(closed: bool) -> Rig {
    let mut rig = Rig::new(
        limits(),
        App {
            appetite: closed.then_some(0),
            ..App::default()
        },
    );
    rig.connect();
    if closed {
        rig.peer(ACK, &[0; WINDOW as usize]);
        rig.pass(ms(50));
        rig.sent();
    }
    rig
}

#[test]
fn an_empty_segment_at_the_expected_number_is_acceptable_even_to_a_closed_window() {
    for closed in [false, true] {
        let mut rig = connected(closed);
        rig.peer(ACK, b"");
        rig.nothing();
        assert_eq!(rig.count(Counter::DropOutOfWindow), 0);
    }
}

#[test]
fn an_empty_segment_within_the_window_is_acceptable_and_outside_it_is_not() {
    let mut rig = connected(false);
    for inside in [1, WINDOW / 2, WINDOW - 1] {
        rig.peer_at(rig.seq + inside, ACK, b"");
        rig.nothing();
    }
    for outside in [WINDOW + 1, WINDOW + 1000, 0x7fff_0000] {
        rig.peer_at(rig.seq + outside, ACK, b"");
        assert_eq!(rig.one().ack, rig.seq);
    }
    rig.peer_at(rig.seq - 1, ACK, b"");
    assert_eq!(rig.one().ack, rig.seq);
}

#[test]
fn text_for_a_closed_window_is_not_taken_but_its_acknowledgment_counts() {
    let mut rig = Rig::new(
        limits(),
        App {
            appetite: Some(0),
            ..sender(100)
        },
    );
    rig.connect();
    let text = rig.one();
    rig.peer(ACK, &[0; WINDOW as usize]);
    rig.pass(ms(50));
    rig.sent();
    rig.ack = text.end();
    rig.peer_at(rig.seq, ACK, b"too much");
    let answer = rig.one();
    assert_eq!((answer.ack, answer.window), (rig.seq, 0));
    assert_eq!(rig.info().unread, WINDOW as usize);
    assert_eq!(rig.info().unacknowledged, 0);
    rig.pass(ms(5000));
    rig.nothing();
}

#[test]
fn text_is_taken_as_far_as_it_overlaps_the_window() {
    let text = pattern(WINDOW as usize + 200);
    // From before the window into it, and from within it beyond.
    let mut rig = connected(false);
    rig.peer(ACK, &text[..100]);
    rig.peer_at(rig.seq - 50, ACK, &text[50..200]);
    assert_eq!(rig.app().received, text[..200]);
    rig.pass(ms(50));
    let last = rig.sent().pop().unwrap();
    let edge = last.ack + u32::from(last.window);
    rig.peer_at(last.ack, ACK, &text[200..]);
    let received = rig.app().received.len();
    assert_eq!(received as u32, 200 + (edge - last.ack).min(WINDOW));
    assert_eq!(rig.app().received, text[..received]);
}

#[test]
fn text_wholly_before_the_window_is_answered_and_delivered_once() {
    let mut rig = connected(false);
    let start = rig.seq;
    rig.peer(ACK, b"once");
    rig.pass(ms(50));
    rig.sent();
    rig.peer_at(start, ACK, b"once");
    assert_eq!(rig.one().ack, rig.seq);
    assert_eq!(rig.app().received, b"once");
    assert_eq!(rig.count(Counter::Duplicates), 1);
}

#[test]
fn the_reset_bit_is_looked_at_before_syn_ack_text_and_fin() {
    let mut rig = connected(false);
    rig.ack += 0x1000_0000;
    rig.peer_at(rig.seq, RST | ACK | FIN | PSH | URG, b"text");
    rig.nothing();
    assert_eq!(rig.app().closed, [CloseReason::ResetByPeer]);
    assert!(rig.app().received.is_empty());
    assert_eq!(rig.app().ends, 0);
}

#[test]
fn the_syn_bit_is_looked_at_before_the_acknowledgment_and_the_text() {
    let mut rig = connected(false);
    rig.ack += 0x1000_0000;
    rig.peer_at(rig.seq, SYN | ACK | PSH, b"text");
    let challenge = rig.one();
    assert!(challenge.is(ACK));
    assert_eq!(challenge.ack, rig.seq);
    assert_eq!(rig.count(Counter::DropBadAck), 0);
    assert!(rig.app().received.is_empty());
    assert_eq!(rig.state(), Some(State::Established));
}

#[test]
fn a_segment_without_ack_is_dropped() {
    let mut rig = connected(false);
    for flags in [PSH, FIN, URG, FIN | PSH | URG] {
        rig.peer_at(rig.seq, flags, b"text");
    }
    rig.nothing();
    assert_eq!(rig.count(Counter::DropNoAck), 4);
    assert!(rig.app().received.is_empty());
    assert_eq!(rig.app().ends, 0);
}

#[test]
fn a_flood_of_unacceptable_segments_is_answered_within_limits_and_changes_nothing() {
    let mut rig = connected(false);
    for index in 0..1000 {
        let seq = rig.seq + 2 * WINDOW + index * 1000;
        rig.peer_at(seq, ACK, b"text");
        rig.peer_at(seq, ACK | FIN, b"");
        rig.peer_at(seq, ACK, b"");
    }
    let answers = rig.sent();
    assert!(!answers.is_empty() && answers.len() <= 10, "{}", answers.len());
    assert_eq!(rig.count(Counter::DropOutOfWindow), 3000);
    assert!(rig.count(Counter::ChallengeAcksLimited) >= 2990);
    assert_eq!(rig.engine.reassembly_bytes(), 0);
    rig.peer(ACK, b"real");
    assert_eq!(rig.app().received, b"real");
}
