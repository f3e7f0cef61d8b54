//! TIME-WAIT (RFC 9293, sections 3.4.2 and 3.6.1; RFC 1337; RFC 6191).

use crate::common::*;
use bytes::Bytes;
use tidegate_tcp::State;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::Population;
use tidegate_tcp::wire::Options;

fn closing_server() -> App {
    App {
        greeting: Bytes::from_static(b"bye"),
        close_after_greeting: true,
        ..App::default()
    }
}

/// A connection in TIME-WAIT, its peer's timestamp being 1000 if it has any.
#[track_caller]
fn in_time_wait(limits: Config, timestamps: bool) -> Rig {
    let mut rig = Rig::new(limits, closing_server());
    if timestamps {
        rig.connect_with(with_timestamps(1000));
    } else {
        rig.connect();
    }
    let fin = rig.one();
    rig.ack = fin.end();
    rig.peer(ACK | FIN, b"");
    rig.sent();
    assert_eq!(rig.state(), Some(State::TimeWait));
    rig
}

#[test]
fn it_is_a_record_of_its_own_that_holds_no_connection_and_no_application() {
    let mut rig = in_time_wait(config(), true);
    let expected = Population {
        time_wait: 1,
        ..Population::default()
    };
    assert_eq!(rig.engine.population(), expected);
    assert_eq!(rig.app().closed.len(), 1);
    assert_eq!(rig.app().opened, 1);
}

#[test]
fn it_lasts_twice_the_configured_lifetime() {
    let limits = Config {
        msl: ms(1000),
        ..config()
    };
    let mut rig = in_time_wait(limits, false);
    rig.pass(ms(1999));
    assert_eq!(rig.state(), Some(State::TimeWait));
    rig.pass(ms(1));
    assert_eq!(rig.state(), None);
    rig.assert_empty();
}

#[test]
fn old_text_is_acknowledged_and_reaches_nobody() {
    let mut rig = in_time_wait(config(), false);
    rig.peer_at(rig.seq, ACK, b"late");
    let answer = rig.one();
    assert!(answer.is(ACK));
    assert_eq!((answer.seq, answer.ack), (rig.ack, rig.seq));
    assert!(rig.app().received.is_empty());
    rig.peer_at(rig.seq, ACK, b"");
    rig.nothing();
}

#[test]
fn an_old_syn_with_an_older_timestamp_opens_nothing() {
    // RFC 6191, section 2: the timestamp decides, even if the sequence number is higher.
    let mut rig = in_time_wait(config(), true);
    rig.seq += 10_000;
    rig.syn(with_timestamps(999));
    assert_eq!(rig.state(), Some(State::TimeWait));
    assert_eq!(rig.count(Counter::TimeWaitReused), 0);
    rig.syn(with_timestamps(1001));
    assert_eq!(rig.state(), Some(State::SynReceived));
    assert_eq!(rig.count(Counter::TimeWaitReused), 1);
}

#[test]
fn an_equal_timestamp_leaves_the_decision_to_the_sequence_number() {
    let mut rig = in_time_wait(config(), true);
    let end = rig.seq;
    rig.seq = end - 10;
    rig.syn(with_timestamps(1000));
    assert_eq!(rig.state(), Some(State::TimeWait));
    rig.seq = end + 10;
    rig.syn(with_timestamps(1000));
    assert_eq!(rig.state(), Some(State::SynReceived));
}

#[test]
fn the_new_connection_starts_above_everything_the_old_one_sent() {
    // RFC 9293, section 3.6.1: the condition for reuse.
    for timestamps in [false, true] {
        let mut rig = in_time_wait(config(), timestamps);
        let old = rig.ack;
        rig.pass(ms(100));
        rig.seq += 1;
        rig.syn(if timestamps {
            with_timestamps(2000)
        } else {
            Options::default()
        });
        let syn_ack = rig.one();
        assert!(syn_ack.is(SYN | ACK));
        assert!(syn_ack.seq.after(old));
    }
}

#[test]
fn the_new_connection_starts_above_what_was_sent_faster_than_the_clock_ticks() {
    // RFC 9293, section 3.6.1. Nothing of this takes any time, and so initial sequence numbers do not grow.
    let mut rig = Rig::new(
        config(),
        App {
            close_after_greeting: true,
            ..sender(300_000)
        },
    );
    rig.connect();
    assert_eq!(rig.read_all().len(), 300_000);
    rig.peer(ACK | FIN, b"");
    rig.sent();
    assert_eq!(rig.state(), Some(State::TimeWait));
    let old = rig.ack;
    rig.seq += 1;
    rig.syn(Options::default());
    let syn_ack = rig.one();
    assert!(syn_ack.is(SYN | ACK));
    assert!(syn_ack.seq.after(old), "{:?} after {old:?}", syn_ack.seq);
}

#[test]
fn a_storm_of_old_segments_is_answered_within_limits_and_does_not_prolong_it() {
    let limits = Config {
        rst_rate: 10,
        ..config()
    };
    let mut rig = in_time_wait(limits, false);
    for _ in 0..500 {
        rig.peer_at(rig.seq - 0x1000_0000, ACK | FIN, b"old");
        rig.peer_at(rig.seq, ACK, b"new");
        rig.peer_at(rig.seq, RST, b"");
    }
    assert!(rig.sent().len() < 15);
    assert_eq!(rig.count(Counter::DropTimeWaitRst), 500);
    rig.pass(ms(30_000));
    rig.peer_at(rig.seq, ACK, b"new");
    rig.pass(ms(30_000));
    assert_eq!(rig.state(), None);
}

#[test]
fn time_wait_does_not_count_as_a_connection_against_the_limit() {
    let limits = Config {
        max_connections: 1,
        ..config()
    };
    let mut rig = in_time_wait(limits, false);
    for port in 0..5 {
        rig.key.local_port = 1000 + port;
        rig.connect();
        let fin = rig.one();
        rig.ack = fin.end();
        rig.peer(ACK | FIN, b"");
        rig.sent();
    }
    assert_eq!(rig.engine.population().time_wait, 6);
    assert_eq!(rig.count(Counter::DropConnectionsFull), 0);
}

#[test]
fn a_draining_engine_keeps_its_time_wait_records() {
    let mut rig = in_time_wait(config(), false);
    rig.engine.drain(rig.now, &mut rig.wire);
    assert_eq!(rig.engine.population().time_wait, 1);
    rig.peer_at(rig.seq - 1, ACK | FIN, b"");
    assert!(rig.one().is(ACK));
}

/// SYNs that are taken for old, by the sequence number or by the timestamp (RFC 6191): of a host that was started anew,
/// they are not.
fn syns_taken_for_old() -> [(bool, u32, Options); 3] {
    [
        (false, 0x1000_0000, with_sack()),
        (true, 0x1000_0000, with_sack()),
        (true, 0x1000_0000, with_timestamps(999)),
    ]
}

#[test]
fn a_client_that_lost_its_state_ends_it_by_the_rst_that_answers_the_answer() {
    for (timestamps, back, options) in syns_taken_for_old() {
        let mut rig = in_time_wait(config(), timestamps);
        let next = rig.seq;
        rig.seq = next - back;
        rig.syn(options);
        let answer = rig.one();
        assert!(answer.is(ACK), "{answer:?}");
        assert_eq!(answer.ack, next);
        rig.timestamp = None;
        rig.peer_at(answer.ack, RST, b"");
        assert_eq!((rig.state(), rig.count(Counter::TimeWaitReset)), (None, 1));
        rig.seq = next - back;
        rig.connect_with(options);
        assert_eq!((rig.state(), rig.app().opened), (Some(State::FinWait1), 2));
    }
}

#[test]
fn a_rst_that_answers_no_syn_or_another_number_does_not_end_it() {
    for (timestamps, back, options) in syns_taken_for_old() {
        let mut rig = in_time_wait(config(), timestamps);
        let next = rig.seq;
        rig.peer_at(next, RST, b"");
        rig.peer_at(next - 1, ACK | FIN, b"");
        rig.peer_at(next, ACK, b"text");
        rig.sent();
        rig.peer_at(next, RST, b"");
        rig.seq = next - back;
        rig.syn(options);
        rig.one();
        for wrong in [next - 1, next + 1, next - back, next + 1000] {
            rig.peer_at(wrong, RST, b"");
        }
        assert_eq!(rig.state(), Some(State::TimeWait));
        assert_eq!(
            (rig.count(Counter::TimeWaitReset), rig.count(Counter::DropTimeWaitRst)),
            (0, 6)
        );
    }
}

/// Both sides have closed, and the application has not read everything: the connection is kept for it.
#[test]
fn what_the_application_has_not_read_keeps_no_client_away() {
    let app = App {
        appetite: Some(0),
        shutdown_after_greeting: true,
        ..App::default()
    };
    let mut rig = Rig::new(config(), app);
    rig.connect();
    rig.ack = rig.one().end();
    rig.peer(ACK | FIN, b"unread");
    rig.sent();
    assert_eq!(rig.state(), Some(State::TimeWait));
    let next = rig.seq;
    rig.pass(ms(5000));
    rig.peer_at(next, RST, b"");
    assert_eq!(rig.state(), Some(State::TimeWait), "it answers nothing");
    // Old text is answered, too, and an old SYN-ACK, and what the peer has forgotten since, it resets.
    rig.peer_at(next - 7, ACK, b"unread");
    assert!(rig.one().is(ACK));
    rig.peer_at(next - 8, SYN | ACK, b"");
    assert!(rig.one().is(ACK));
    rig.peer_at(next, RST, b"");
    assert_eq!(rig.state(), Some(State::TimeWait), "no SYN was answered");
    rig.seq = next - 5000;
    rig.syn(with_sack());
    let answer = rig.one();
    assert!(answer.is(ACK));
    assert_eq!(answer.ack, next);
    rig.peer_at(answer.ack + 1, RST, b"");
    assert_eq!(rig.state(), Some(State::TimeWait), "not the number of the answer");
    rig.peer_at(answer.ack, RST, b"");
    assert_eq!(rig.state(), None);
    rig.seq = next - 5000;
    rig.connect();
    assert_eq!(rig.app().opened, 2);
}
