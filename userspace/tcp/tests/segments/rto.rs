//! The retransmission timeout on the wire (RFC 6298; Eifel: RFC 3522, RFC 4015).

use crate::common::*;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;

#[test]
fn the_timeout_doubles_up_to_its_bound() {
    let limits = Config {
        rto_max: ms(1000),
        user_timeout: ms(20_000),
        ..config()
    };
    let mut rig = Rig::new(limits, sender(100));
    rig.connect();
    rig.one();
    let mut gaps = Vec::new();
    while let Some(gap) = rig.wait(ms(30_000)) {
        if rig.sent().iter().any(|segment| segment.flags.contains(RST)) {
            break;
        }
        gaps.push(gap);
    }
    assert_eq!(gaps[..3], [ms(200), ms(400), ms(800)]);
    assert!(
        gaps.len() > 10 && gaps[3..].iter().all(|&gap| gap == ms(1000)),
        "{gaps:?}"
    );
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    rig.assert_empty();
}

#[test]
fn the_timeout_follows_the_measured_round_trip() {
    let mut rig = Rig::new(config(), sender(100));
    rig.syn(with_sack());
    rig.ack = rig.one().seq + 1;
    rig.pass(ms(900));
    rig.peer(ACK, b"");
    rig.one();
    // RTO = SRTT + 4 RTTVAR = 900 ms + 4 * 450 ms; a tail loss probe may come after two round trips.
    let gap = rig.wait(ms(10_000)).expect("nothing was sent again");
    assert!((ms(1800)..=ms(2701)).contains(&gap), "{gap:?}");
}

#[test]
fn the_first_timeout_sends_the_earliest_segment_whatever_was_sent_since() {
    // RFC 6298, rule 5.4, with what RACK does not take for lost filling the window of one segment.
    let mut rig = Rig::new(config(), App::echo());
    rig.syn(with_sack());
    rig.ack = rig.one().seq + 1;
    rig.pass(ms(100));
    rig.peer(ACK, b"");
    // RTO = 100 ms + 4 * 50 ms.
    rig.peer(ACK, &[1; 1460]);
    let first = rig.one();
    rig.pass(ms(250));
    rig.peer(ACK, &[2; 1460]);
    rig.peer(ACK, &[3; 1460]);
    assert_eq!(rig.sent().len(), 2);
    rig.pass(ms(51));
    assert_eq!(rig.one().seq, first.seq);
    assert_eq!(rig.count(Counter::Timeouts), 1);
}

#[test]
fn what_is_sent_twice_is_not_timed() {
    // Karn's algorithm.
    let mut rig = Rig::new(config(), sender(100));
    rig.connect();
    let first = rig.one();
    rig.pass(ms(1000));
    assert!(!rig.sent().is_empty());
    rig.acknowledge(&first);
    let srtt = rig.info().srtt.expect("the handshake was not measured");
    assert!(srtt < ms(10), "{srtt:?}");
}

#[test]
fn what_is_acknowledged_stops_the_timer_and_new_text_starts_it() {
    let mut rig = Rig::new(config(), App::echo());
    rig.connect();
    for _ in 0..5 {
        rig.peer(ACK, b"ping");
        let pong = rig.one();
        rig.acknowledge(&pong);
        rig.pass(ms(5000));
        rig.nothing();
    }
    rig.peer(ACK, b"ping");
    rig.sent();
    assert_eq!(rig.wait(ms(5000)), Some(ms(200)));
}

#[test]
fn a_late_acknowledgment_of_the_original_takes_the_timeout_back() {
    // Eifel detection by timestamps: what was sent again had only been delayed.
    let mut rig = Rig::new(config(), sender(40 * 1448));
    rig.connect_with(with_timestamps(1000));
    let first = rig.sent();
    assert_eq!(first.len(), 10);
    rig.wait(ms(3000)).expect("nothing was sent again");
    assert_eq!(rig.one().seq, first[0].seq);
    rig.timestamp = Some(1300);
    rig.echo = first[0].options.timestamps.unwrap().value;
    rig.acknowledge(&first[0]);
    let next = rig.sent();
    assert!(!next.is_empty());
    assert!(
        next.iter().all(|segment| segment.seq.at_or_after(first[9].end())),
        "more was sent again although nothing was lost"
    );
    rig.acknowledge(&first[9]);
    assert_eq!(rig.count(Counter::RtoRetransmits), 1);
}

#[test]
fn a_timeout_that_lost_something_is_not_taken_back_by_the_answer_to_the_second_copy() {
    let mut rig = Rig::new(config(), sender(40 * 1448));
    rig.connect_with(with_timestamps(1000));
    let first = rig.sent();
    rig.wait(ms(3000)).expect("nothing was sent again");
    let again = rig.one();
    rig.timestamp = Some(1300);
    rig.echo = again.options.timestamps.unwrap().value;
    rig.acknowledge(&again);
    assert_eq!(rig.sent()[0].seq, first[1].seq);
}

#[test]
fn answers_without_progress_do_not_keep_a_connection_alive() {
    let limits = Config {
        user_timeout: ms(10_000),
        ..config()
    };
    let mut rig = Rig::new(limits, sender(3000));
    rig.connect();
    for _ in 0..40 {
        rig.pass(ms(1000));
        rig.sent();
        rig.peer(ACK, b"");
    }
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    rig.assert_empty();
}

#[test]
fn a_single_delayed_answer_does_not_start_a_spiral_of_timeouts() {
    // 300 ms of delay once, after a steady round trip of 20 ms.
    let mut rig = Rig::new(config(), App::echo());
    rig.connect();
    for _ in 0..50 {
        rig.peer(ACK, b"ping");
        let pong = rig.one();
        rig.pass(ms(20));
        rig.acknowledge(&pong);
    }
    rig.peer(ACK, b"ping");
    let pong = rig.one();
    rig.pass(ms(300));
    assert_eq!(rig.sent().len(), 1);
    rig.acknowledge(&pong);
    for _ in 0..50 {
        rig.peer(ACK, b"ping");
        let pong = rig.one();
        rig.pass(ms(20));
        rig.acknowledge(&pong);
    }
    assert_eq!(rig.count(Counter::Timeouts), 1);
}
