//! Congestion control as the peer sees it (RFC 5681, RFC 6928, RFC 9438).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::*;
use tidegate_tcp::application::ListenerId;
use tidegate_tcp::config::Config;
use tidegate_tcp::congestion::Algorithm;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::Timer;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::{FlowKey, Options};

/// Those that grow their window by what is acknowledged.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::RENO, Algorithm::CUBIC];

fn with(congestion: Algorithm) -> Config {
    Config { congestion, ..config() }
}

fn text_segments(rig: &mut Rig) -> Vec<Sent> {
    let mut sent = rig.sent();
    sent.retain(|segment| !segment.payload.is_empty());
    sent
}

#[test]
fn the_initial_window_of_large_segments_is_two_of_them() {
    // RFC 6928, section 2: min(10 MSS, max(2 MSS, 14,600)).
    for &congestion in Algorithm::ALL {
        let limits = Config {
            mtu: 9000,
            ..with(congestion)
        };
        let mut rig = Rig::new(limits, sender(100_000));
        rig.connect_with(Options {
            mss: Some(8960),
            ..Options::default()
        });
        let lengths: Vec<_> = rig.sent().iter().map(|segment| segment.payload.len()).collect();
        assert_eq!(lengths, [8960, 8960], "{congestion}");
    }
}

#[test]
fn slow_start_doubles_the_window_every_round_trip() {
    for congestion in ALGORITHMS {
        let mut rig = Rig::new(with(congestion), sender(200_000));
        rig.connect();
        let mut flights = Vec::new();
        for _ in 0..3 {
            let sent = rig.sent();
            flights.push(sent.len());
            for segment in &sent {
                rig.acknowledge(segment);
            }
        }
        assert_eq!(flights, [10, 20, 40], "{congestion}");
    }
}

/// A connection with this round-trip time that has `length` bytes to send, and of whose first two flights each segment
/// was acknowledged.
fn after_two_flights(congestion: Algorithm, round_trip: Duration, length: usize) -> Rig {
    let mut rig = Rig::new(with(congestion), sender(length));
    rig.syn(with_sack());
    rig.ack = rig.one().seq + 1;
    rig.pass(round_trip);
    rig.peer(ACK, b"");
    for segments in [10, 20] {
        let flight = rig.sent();
        assert_eq!(flight.len(), segments, "{congestion}: not paced yet");
        rig.pass(round_trip);
        for segment in &flight {
            rig.acknowledge(segment);
        }
    }
    rig
}

/// Whether text is held back until a timer fires.
fn is_held_back(rig: &Rig) -> bool {
    rig.info().timer.is_some_and(|(timer, _)| timer == Timer::Pace)
}

#[test]
fn slow_start_leaves_within_half_a_round_trip_but_not_at_once() {
    for congestion in ALGORITHMS {
        let mut rig = after_two_flights(congestion, ms(50), 300_000);
        // 1.6 segments in a millisecond.
        let mut left = rig.sent().len();
        assert!((1..=5).contains(&left), "{left} segments at once by {congestion}");
        for millis in 1..=25 {
            assert!(is_held_back(&rig) || left == 40, "{congestion} after {millis} ms");
            rig.pass(ms(1));
            let sent = rig.sent().len();
            assert!(sent <= 3, "{sent} segments in a millisecond by {congestion}");
            left += sent;
        }
        // All acknowledgments came at once: the window has doubled although the rate let little follow.
        assert_eq!(left, 40, "{congestion}");
        assert!(!is_held_back(&rig), "{congestion}: the window is the limit");
        rig.pass(ms(20));
        rig.nothing();
    }
}

#[test]
fn text_that_is_held_back_but_would_not_fill_the_window_does_not_enlarge_it() {
    for congestion in ALGORITHMS {
        // Ten segments are left.
        let rig = after_two_flights(congestion, ms(50), 40 * 1460);
        assert!(is_held_back(&rig), "{congestion}");
        let window = rig.info().transfer.map(|transfer| transfer.cwnd);
        assert!(window < Some(35 * 1460), "{window:?} by {congestion}");
    }
}

#[test]
fn slow_start_of_a_path_shorter_than_two_ticks_of_the_timer_leaves_at_once() {
    for congestion in ALGORITHMS {
        let mut rig = after_two_flights(congestion, Duration::from_micros(1_900), 300_000);
        assert_eq!(rig.sent().len(), 40, "{congestion}");
        assert!(!is_held_back(&rig), "{congestion}");
    }
}

#[test]
fn what_is_lost_again_after_a_timeout_is_a_second_sign_of_congestion() {
    // RFC 5681, section 4.3: the loss of a retransmission lowers the window once more.
    for congestion in ALGORITHMS {
        let mut rig = after_two_flights(congestion, ms(1), 70 * 1460);
        let lost = rig.sent();
        assert_eq!(lost.len(), 40, "{congestion}");
        rig.pass(ms(300));
        assert_eq!(rig.count(Counter::Timeouts), 1, "{congestion}");
        // Without the tail loss probe before it.
        let mut again = rig.sent().split_off(1);
        assert_eq!((again.len(), again[0].seq), (1, lost[0].seq), "{congestion}");
        for _ in 0..3 {
            rig.pass(ms(1));
            rig.acknowledge(&again[again.len() - 1]);
            again = rig.sent();
        }
        assert_eq!((again.len(), rig.count(Counter::Recoveries)), (8, 0), "{congestion}");
        let window = |rig: &Rig| rig.info().transfer.map(|transfer| (transfer.cwnd, transfer.ssthresh));
        let (cwnd, ssthresh) = window(&rig).unwrap();
        // Of the eight only the last one arrives: the others were lost twice.
        rig.pass(ms(1));
        rig.selective(rig.ack, &[(again[7].seq, again[7].end())]);
        let sent = rig.sent();
        assert_eq!(sent.len(), 1, "{congestion}: as much as has arrived");
        assert_eq!(sent[0].seq, again[0].seq);
        assert_eq!(rig.count(Counter::Recoveries), 1, "{congestion}");
        let (_, lower) = window(&rig).unwrap();
        assert!(
            lower < ssthresh && lower < Some(cwnd),
            "{congestion}: {lower:?} after {ssthresh:?}, {cwnd}"
        );
        // All of it arrives in the end, without another timeout.
        let mut held = BTreeSet::from([again[7].seq.0]);
        let mut sent = sent;
        for _ in 0..100 {
            held.extend(sent.iter().map(|segment| segment.seq.0));
            while held.remove(&rig.ack.0) {
                rig.ack += 1460;
            }
            let report = held.first().map(|&seq| (SeqNumber(seq), SeqNumber(seq) + 1460));
            rig.pass(ms(1));
            rig.selective(rig.ack, report.as_slice());
            sent = rig.sent();
        }
        assert_eq!(rig.ack, lost[0].seq + 40 * 1460, "{congestion}");
        assert_eq!(rig.count(Counter::Timeouts), 1, "{congestion}");
    }
}

#[test]
fn after_an_idle_time_sending_begins_with_the_initial_window() {
    // RFC 5681, section 4.1.
    for congestion in ALGORITHMS {
        let mut rig = Rig::new(with(congestion), App::default());
        rig.connect_actively(Options {
            mss: Some(1460),
            ..Options::default()
        });
        rig.sent();
        let mut largest = 0;
        rig.write(pattern(200_000));
        loop {
            let sent = text_segments(&mut rig);
            let Some(last) = sent.last() else { break };
            largest = sent.len().max(largest);
            rig.acknowledge(last);
        }
        assert!(largest > 20, "the window did not grow: {largest}");
        rig.pass(ms(10_000));
        rig.nothing();
        rig.write(pattern(60_000));
        let burst = text_segments(&mut rig).len();
        assert!((1..=10).contains(&burst), "{burst} segments after an idle time");
    }
}

#[test]
fn a_loss_makes_the_window_smaller() {
    // RFC 5681: by half; RFC 9438: by three tenths.
    for (congestion, most) in [(Algorithm::RENO, 13), (Algorithm::CUBIC, 17)] {
        let mut rig = Rig::new(with(congestion), sender(300_000));
        rig.connect();
        let first = rig.sent();
        rig.acknowledge(&first[9]);
        let flight = rig.sent();
        assert!(
            (18..=20).contains(&flight.len()),
            "HyStart++ adds at most eight for one acknowledgment"
        );
        // The first of them is lost.
        for _ in 1..flight.len() {
            rig.peer(ACK, b"");
        }
        let more = rig.sent();
        assert!(more.iter().any(|segment| segment.seq == flight[0].seq));
        rig.ack = more
            .iter()
            .chain(&flight)
            .map(Sent::end)
            .fold(rig.ack, |end, next| end.max(next));
        rig.peer(ACK, b"");
        let after = text_segments(&mut rig).len();
        assert!((1..=most).contains(&after), "{after} segments by {congestion}");
    }
}

#[test]
fn a_timeout_leaves_one_segment() {
    for &congestion in Algorithm::ALL {
        let mut rig = Rig::new(with(congestion), sender(100_000));
        rig.connect();
        let first = rig.sent();
        assert!(rig.wait(ms(3000)).is_some());
        let again = rig.one();
        assert_eq!(again.seq, first[0].seq);
    }
}

#[test]
fn acknowledging_every_octet_by_itself_wins_nothing() {
    // Appropriate byte counting (RFC 3465) against divided acknowledgments.
    for &congestion in Algorithm::ALL {
        let mut rig = Rig::new(with(congestion), sender(100_000));
        rig.connect();
        let first = rig.sent();
        for octets in 1..=1460 {
            rig.ack = first[0].seq + octets;
            rig.peer(ACK, b"");
        }
        let new = text_segments(&mut rig).len();
        assert!((1..=3).contains(&new), "{new} new segments by {congestion}");
    }
}

#[test]
fn the_window_does_not_grow_while_the_application_has_little_to_send() {
    for congestion in ALGORITHMS {
        let mut rig = Rig::new(with(congestion), App::default());
        rig.connect_actively(Options {
            mss: Some(1460),
            ..Options::default()
        });
        rig.sent();
        for _ in 0..200 {
            rig.write(pattern(1460));
            let sent = text_segments(&mut rig);
            rig.acknowledge(&sent[0]);
        }
        rig.write(pattern(100_000));
        let burst = text_segments(&mut rig).len();
        assert!(burst <= 12, "{burst} segments by {congestion}");
    }
}

/// The slow start threshold that a timeout of the first window leaves a connection to this port with.
fn threshold_after_timeout(rig: &mut Rig, port: u16) -> u32 {
    let (client, server) = (rig.key.local().ip(), rig.key.peer().ip());
    rig.key = FlowKey::new((client, rig.key.local().port() + 1).into(), (server, port).into());
    rig.connect();
    assert_eq!(rig.sent().len(), 10);
    let timeouts = rig.count(Counter::Timeouts);
    while rig.count(Counter::Timeouts) == timeouts {
        rig.wait(ms(3000)).expect("nothing was sent again");
    }
    let threshold = rig.info().transfer.and_then(|transfer| transfer.ssthresh);
    rig.peer(RST, b"");
    rig.sent();
    threshold.expect("there is a threshold")
}

/// The thresholds of Reno and CUBIC.
fn thresholds() -> [u32; 2] {
    let thresholds =
        ALGORITHMS.map(|congestion| threshold_after_timeout(&mut Rig::new(with(congestion), sender(50_000)), 80));
    assert_eq!(thresholds[0], 5 * 1460);
    assert!(thresholds[1] > 6 * 1460);
    thresholds
}

#[test]
fn a_listener_may_have_congestion_control_of_its_own() {
    let [reno, cubic] = thresholds();
    let mut rig = Rig::new(config(), sender(50_000));
    let own = rig.engine.listen("198.18.0.1:81".parse().unwrap());
    rig.engine.set_congestion(own, Some(Algorithm::RENO));
    for (port, threshold) in [(80, cubic), (81, reno), (80, cubic), (81, reno)] {
        assert_eq!(threshold_after_timeout(&mut rig, port), threshold, "port {port}");
    }
}

#[test]
fn another_congestion_control_of_a_listener_counts_for_connections_that_come() {
    let [reno, cubic] = thresholds();
    let mut rig = Rig::new(config(), sender(50_000));
    let own = rig.engine.listen("198.18.0.1:81".parse().unwrap());
    rig.engine.set_congestion(own, Some(Algorithm::RENO));
    assert_eq!(threshold_after_timeout(&mut rig, 81), reno);
    // That of the configuration changes, and those without one of their own with it.
    rig.engine.set_congestion(own, Some(Algorithm::CUBIC));
    rig.engine.set_config(with(Algorithm::RENO));
    assert_eq!(threshold_after_timeout(&mut rig, 81), cubic);
    assert_eq!(threshold_after_timeout(&mut rig, 80), reno);
    rig.engine.set_congestion(own, None);
    assert_eq!(threshold_after_timeout(&mut rig, 81), reno);
}

#[test]
fn a_listener_that_there_is_not_has_no_congestion_control() {
    let [_, cubic] = thresholds();
    let mut rig = Rig::new(config(), sender(50_000));
    rig.engine.set_congestion(ListenerId(1), Some(Algorithm::RENO));
    rig.engine.listen("198.18.0.1:81".parse().unwrap());
    assert_eq!(threshold_after_timeout(&mut rig, 81), cubic);
}
