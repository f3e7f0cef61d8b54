//! Half-close: one side has finished, the other has not (RFC 9293, section 3.6).

use crate::common::*;
use tidegate_tcp::State;

#[test]
fn a_long_answer_arrives_whole_after_the_peers_fin() {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.connect();
    rig.peer(ACK | FIN, b"");
    assert_eq!(rig.state(), Some(State::CloseWait));
    assert_eq!(rig.read_all(), pattern(100_000));
    assert_eq!(rig.state(), Some(State::CloseWait));
}

#[test]
fn a_long_answer_with_losses_arrives_whole_and_then_comes_fin() {
    let mut rig = Rig::new(
        config(),
        App {
            close_after_greeting: true,
            ..sender(50_000)
        },
    );
    rig.connect();
    rig.peer(ACK | FIN, b"");
    // Nothing of the first flight arrives.
    rig.sent();
    assert_eq!(rig.read_in_time(50_000), pattern(50_000));
    rig.pass(ms(5000));
    rig.read_all();
    assert_eq!(rig.state(), None);
    rig.assert_empty();
}

#[test]
fn text_after_the_peers_fin_reaches_nobody() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.peer(ACK | FIN, b"the end");
    rig.sent();
    rig.peer_at(rig.seq, ACK, b"more");
    rig.peer_at(rig.seq - 1, ACK, b"more");
    rig.peer_at(rig.seq - 4, ACK | FIN, b"endmore");
    assert_eq!(rig.app().received, b"the end");
    assert_eq!(rig.app().ends, 1);
    assert_eq!(rig.engine.reassembly_bytes(), 0);
    assert_eq!(rig.state(), Some(State::CloseWait));
    let seq = rig.seq;
    assert!(rig.sent().iter().all(|segment| segment.ack == seq));
}

#[test]
fn the_server_may_finish_first_and_still_read_a_long_request() {
    let mut rig = Rig::new(
        config(),
        App {
            shutdown_after_greeting: true,
            ..sender(10)
        },
    );
    rig.connect();
    let fin = rig.one();
    assert!(fin.is(ACK | FIN | PSH));
    rig.acknowledge(&fin);
    let request = pattern(40_000);
    for part in request.chunks(1000) {
        rig.peer(ACK, part);
    }
    assert_eq!(rig.state(), Some(State::FinWait2));
    assert_eq!(rig.app().received, request);
    rig.peer(ACK | FIN, b"");
    assert_eq!(rig.state(), Some(State::TimeWait));
    assert_eq!(rig.app().ends, 1);
}
