//! Closing a connection (RFC 9293, section 3.6) and TIME-WAIT (RFC 1337, RFC 6191).

use crate::common::*;
use bytes::Bytes;
use tidegate_tcp::State;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;

fn closing_server() -> App {
    App {
        greeting: Bytes::from_static(b"bye"),
        close_after_greeting: true,
        ..App::default()
    }
}

#[test]
fn after_the_peers_fin_the_server_may_still_send() {
    let mut rig = Rig::new(config(), App::echo());
    rig.connect();
    rig.peer(ACK | FIN, b"last words");
    let echo = rig.one();
    assert_eq!(echo.payload, b"last words");
    assert_eq!(echo.ack, rig.seq, "the FIN is acknowledged with it");
    assert_eq!(rig.app().ends, 1);
    assert_eq!(rig.state(), Some(State::CloseWait));
    rig.acknowledge(&echo);
    assert_eq!(rig.state(), Some(State::CloseWait));
}

#[test]
fn the_passive_close_goes_through_last_ack() {
    let mut rig = Rig::new(
        config(),
        App {
            close_at_end: true,
            ..App::default()
        },
    );
    rig.connect();
    rig.peer(ACK | FIN, b"");
    let fin = rig.one();
    assert!(fin.is(ACK | FIN));
    assert_eq!(fin.ack, rig.seq);
    assert_eq!(rig.state(), Some(State::LastAck));
    rig.acknowledge(&fin);
    assert_eq!(rig.state(), None);
    assert_eq!(rig.app().closed, [CloseReason::Finished]);
    rig.assert_empty();
}

#[test]
fn response_and_fin_share_a_segment_and_the_active_close_ends_in_time_wait() {
    let mut rig = Rig::new(config(), closing_server());
    rig.connect();
    let fin = rig.one();
    assert_eq!(fin.payload, b"bye");
    assert!(fin.is(ACK | FIN | PSH));
    assert_eq!(rig.state(), Some(State::FinWait1));
    rig.acknowledge(&fin);
    assert_eq!(rig.state(), Some(State::FinWait2));
    rig.peer(ACK | FIN, b"");
    let last = rig.one();
    assert!(last.is(ACK));
    assert_eq!(last.ack, rig.seq);
    assert_eq!(rig.state(), Some(State::TimeWait));
    assert_eq!(rig.app().closed, [CloseReason::Finished]);
    rig.pass(ms(59_999));
    assert_eq!(rig.state(), Some(State::TimeWait));
    rig.pass(ms(1));
    assert_eq!(rig.state(), None);
    rig.assert_empty();
}

#[test]
fn a_fin_that_comes_again_in_time_wait_is_acknowledged_and_restarts_2msl() {
    let mut rig = Rig::new(config(), closing_server());
    rig.connect();
    let fin = rig.one();
    rig.acknowledge(&fin);
    rig.peer(ACK | FIN, b"");
    rig.one();
    rig.pass(ms(50_000));
    rig.peer_at(rig.seq - 1, ACK | FIN, b"");
    let again = rig.one();
    assert!(again.is(ACK));
    assert_eq!(again.ack, rig.seq);
    rig.pass(ms(59_000));
    assert_eq!(rig.state(), Some(State::TimeWait));
    rig.pass(ms(1000));
    rig.assert_empty();
}

#[test]
fn simultaneous_close_goes_through_closing() {
    let mut rig = Rig::new(config(), closing_server());
    rig.connect();
    let fin = rig.one();
    // The peer's FIN was sent before ours arrived.
    rig.peer(ACK | FIN, b"");
    assert_eq!(rig.state(), Some(State::Closing));
    rig.one();
    rig.acknowledge(&fin);
    assert_eq!(rig.state(), Some(State::TimeWait));
    rig.pass(ms(60_000));
    rig.assert_empty();
}

#[test]
fn fin_and_acknowledgment_of_ours_in_one_segment_go_straight_to_time_wait() {
    let mut rig = Rig::new(config(), closing_server());
    rig.connect();
    let fin = rig.one();
    rig.ack = fin.seq + 4;
    rig.peer(ACK | FIN, b"");
    assert_eq!(rig.state(), Some(State::TimeWait));
    assert!(rig.one().is(ACK));
}

#[test]
fn after_shutdown_the_server_still_receives() {
    let mut rig = Rig::new(
        config(),
        App {
            greeting: Bytes::from_static(b"ask"),
            shutdown_after_greeting: true,
            ..App::default()
        },
    );
    rig.connect();
    let fin = rig.one();
    rig.acknowledge(&fin);
    rig.peer(ACK, b"answer");
    assert_eq!(rig.app().received, b"answer");
    rig.pass(ms(600_000));
    assert_eq!(
        rig.state(),
        Some(State::FinWait2),
        "a half-closed connection is not timed"
    );
    rig.peer(ACK | FIN, b"");
    assert_eq!(rig.state(), Some(State::TimeWait));
}

#[test]
fn after_close_what_comes_is_thrown_away_and_fin_wait_2_is_bounded() {
    let mut rig = Rig::new(config(), closing_server());
    rig.connect();
    let fin = rig.one();
    rig.acknowledge(&fin);
    rig.peer(ACK, b"too late");
    assert!(rig.app().received.is_empty());
    assert_eq!(rig.count(Counter::DropAfterClose), 1);
    rig.pass(ms(61_000));
    assert_eq!(rig.state(), None);
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut rig = Rig::new(config(), closing_server());
    rig.connect();
    let fin = rig.one();
    rig.pass(ms(201));
    let again = rig.one();
    assert_eq!(
        (again.seq, again.flags, &again.payload),
        (fin.seq, fin.flags, &fin.payload)
    );
    assert_eq!(rig.state(), Some(State::FinWait1));
}

fn in_time_wait(timestamps: bool) -> Rig {
    let mut rig = Rig::new(config(), closing_server());
    rig.connect_with(Options {
        mss: Some(1460),
        timestamps: timestamps.then_some(Timestamps { value: 1000, echo: 0 }),
        ..Options::default()
    });
    let fin = rig.one();
    rig.ack = fin.seq + 4;
    rig.peer(ACK | FIN, b"");
    rig.sent();
    assert_eq!(rig.state(), Some(State::TimeWait));
    rig
}

#[test]
fn a_reset_does_not_end_time_wait() {
    let mut rig = in_time_wait(false);
    rig.peer(RST, b"");
    rig.nothing();
    assert_eq!(rig.state(), Some(State::TimeWait));
    assert_eq!(rig.count(Counter::DropTimeWaitRst), 1);
}

#[test]
fn a_new_syn_reuses_time_wait_by_sequence_number_or_timestamp() {
    let mut rig = in_time_wait(false);
    rig.seq += 10;
    rig.connect();
    assert_eq!(rig.state(), Some(State::FinWait1));
    assert_eq!(rig.count(Counter::TimeWaitReused), 1);

    let mut rig = in_time_wait(false);
    rig.seq = rig.seq - 100;
    rig.syn(Options::default());
    assert!(rig.one().is(ACK), "an old duplicate");
    assert_eq!(rig.state(), Some(State::TimeWait));

    let mut rig = in_time_wait(true);
    rig.seq = rig.seq - 100;
    rig.connect_with(Options {
        timestamps: Some(Timestamps { value: 1001, echo: 0 }),
        ..Options::default()
    });
    assert_eq!(rig.state(), Some(State::FinWait1));
}

#[test]
fn time_wait_is_bounded_and_the_oldest_gives_way() {
    let mut rig = Rig::new(
        Config {
            max_time_wait: 2,
            ..config()
        },
        closing_server(),
    );
    for port in 0..5 {
        rig.key.local_port = 1000 + port;
        rig.connect();
        let fin = rig.one();
        rig.ack = fin.seq + 4;
        rig.peer(ACK | FIN, b"");
        rig.sent();
    }
    assert_eq!(rig.engine.population().time_wait, 2);
    assert_eq!(rig.count(Counter::TimeWaitEvicted), 3);
}

#[test]
fn abort_sends_a_reset_and_forgets() {
    let mut rig = Rig::new(
        config(),
        App {
            abort_on: Some(b'!'),
            ..App::default()
        },
    );
    rig.connect();
    rig.peer(ACK, b"stop!");
    let reset = rig.one();
    assert!(reset.is(RST | ACK));
    assert_eq!(reset.ack, rig.seq);
    assert_eq!(rig.app().closed, [CloseReason::Aborted]);
    rig.assert_empty();
}

#[test]
fn draining_closes_through_the_application_and_abort_all_resets_the_rest() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.engine.drain(rig.now, &mut rig.wire);
    assert!(rig.one().is(ACK | FIN));
    rig.engine.abort_all(rig.now, &mut rig.wire);
    assert!(rig.one().is(RST | ACK));
    rig.assert_empty();
}
