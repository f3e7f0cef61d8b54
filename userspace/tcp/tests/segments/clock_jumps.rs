//! Clocks and sequence numbers that wrap, and long silence: nothing is early, late or lost.

use std::time::Duration;

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::Options;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Shortly before 32 bits of every unit in use wrap: microseconds, four of them (the ISN's clock), milliseconds (the
/// timestamps' and the wheel's), seconds (the limits').
fn before_the_wraps() -> [Instant; 5] {
    let wrap = 1_u64 << 32;
    let shortly = Duration::from_millis(300);
    [
        Instant::from_micros(wrap) - shortly,
        Instant::from_micros(4 * wrap) - shortly,
        Instant::from_millis(wrap) - shortly,
        Instant::from_millis(1000 * wrap) - shortly,
        Instant::from_millis(3 * wrap) - shortly,
    ]
}

/// The engine sends one segment after `expected` ms, at most a tick of the wheel later.
#[track_caller]
fn one_after(rig: &mut Rig, expected: u64) -> Sent {
    let start = rig.now;
    let gap = rig.wait(ms(expected + 1000)).expect("nothing was sent");
    assert!(
        (ms(expected)..ms(expected + 1)).contains(&gap),
        "{gap:?} after {start:?}"
    );
    rig.one()
}

#[test]
fn timers_fire_on_time_across_every_wrap() {
    for start in before_the_wraps() {
        let mut rig = Rig::new(config(), sender(100));
        rig.now = start;
        rig.connect_with(with_timestamps(u32::MAX - 100));
        let text = rig.one();
        // Retransmission, twice: before and after the wrap.
        assert_eq!(one_after(&mut rig, 200).seq, text.seq);
        assert_eq!(one_after(&mut rig, 400).seq, text.seq);
        rig.timestamp = Some(500);
        rig.acknowledge(&text);
        // Delayed acknowledgment.
        rig.peer(ACK, b"request");
        assert_eq!(one_after(&mut rig, 40).ack, rig.seq);
        // Keepalive.
        one_after(&mut rig, 7_199_960);
        rig.timestamp = Some(7_200_500);
        rig.peer(ACK, b"");
        // TIME-WAIT.
        rig.engine.drain(rig.now, &mut rig.wire);
        let fin = rig.one();
        rig.acknowledge(&fin);
        rig.peer(ACK | FIN, b"");
        rig.sent();
        rig.pass(ms(59_999));
        assert_eq!(rig.state(), Some(State::TimeWait), "{start:?}");
        rig.pass(ms(1));
        rig.assert_empty();
    }
}

#[test]
fn what_was_waited_for_is_over_after_a_pause_of_any_length() {
    // A machine may be suspended for weeks: 25 days and 50 are beyond what 31 and 32 bits of milliseconds hold.
    for pause in [DAY / 24, DAY, 25 * DAY, 40 * DAY, 50 * DAY, 182 * DAY] {
        let mut rig = Rig::new(config(), App::default());
        rig.connect_with(Options::default());
        rig.engine.drain(rig.now, &mut rig.wire);
        let fin = rig.one();
        rig.acknowledge(&fin);
        rig.peer(ACK | FIN, b"");
        rig.sent();
        assert_eq!(rig.state(), Some(State::TimeWait));
        rig.now = rig.now + pause;
        rig.engine.poll(rig.now, &mut rig.wire);
        rig.assert_empty();

        let mut rig = Rig::new(config(), App::default());
        rig.syn(Options::default());
        rig.one();
        rig.now = rig.now + pause;
        rig.engine.poll(rig.now, &mut rig.wire);
        rig.pass(ms(64_000));
        rig.sent();
        rig.assert_empty();
    }
}

#[test]
fn half_open_connections_and_limits_survive_every_wrap() {
    for start in before_the_wraps() {
        let limits = Config {
            rst_rate: 5,
            ..config()
        };
        let mut rig = Rig::new(limits, App::default());
        rig.now = start;
        rig.syn(Options::default());
        rig.one();
        assert!(one_after(&mut rig, 1000).is(SYN | ACK));
        rig.pass(ms(62_000));
        rig.sent();
        rig.assert_empty();
        rig.now = start + Duration::from_secs(100);
        for _ in 0..10 {
            rig.peer_at(rig.seq, ACK, b"");
        }
        // Five on average, from half of that to one and a half.
        let sent = rig.sent().len();
        assert!((3..8).contains(&sent), "{sent}, {start:?}");
    }
}

#[test]
fn the_senders_sequence_numbers_may_wrap() {
    let mut rig = Rig::new(config(), sender(200_000));
    // The ISN's clock ticks every four microseconds: the time at which it is 5,000 below the wrap can be chosen.
    rig.syn(Options::default());
    let iss = rig.one().seq;
    rig.peer(RST, b"");
    let ticks = SeqNumber(u32::MAX - 5000) - iss;
    rig.now = rig.now + Duration::from_micros(4 * u64::from(ticks));
    rig.syn(with_sack());
    let syn_ack = rig.one();
    assert_eq!(syn_ack.seq, SeqNumber(u32::MAX - 5000));
    rig.ack = syn_ack.seq + 1;
    rig.pass(ms(20));
    rig.peer(ACK, b"");
    // The first flight crosses the wrap, and its third segment is lost.
    let first = rig.sent();
    assert_eq!(first.len(), 10);
    rig.pass(ms(20));
    let mut text = Vec::new();
    rig.take(&first[..2], &mut text);
    for last in &first[3..] {
        rig.selective(first[2].seq, &[(first[3].seq, last.end())]);
    }
    let more = rig.sent();
    let again = more.iter().filter(|segment| segment.seq == first[2].seq).count();
    assert_eq!(again, 1);
    rig.take(&first[2..], &mut text);
    rig.take(&more, &mut text);
    rig.peer(ACK, b"");
    text.append(&mut rig.read_all());
    assert_eq!(text, pattern(200_000));
    assert_eq!(rig.count(Counter::Timeouts), 0);
}

#[test]
fn the_peers_sequence_numbers_may_wrap_within_a_gap() {
    let mut rig = Rig::new(config(), App::default());
    rig.seq = SeqNumber(u32::MAX - 150);
    rig.connect_with(with_sack());
    let start = rig.seq;
    let text = pattern(1000);
    for at in (100..1000).step_by(100).rev() {
        rig.peer_at(start + at as u32, ACK, &text[at..at + 100]);
    }
    let last = rig.sent().pop().unwrap();
    assert_eq!(last.options.sack.as_slice(), [(start + 100, start + 1000)]);
    rig.peer_at(start, ACK, &text[..100]);
    assert_eq!(rig.app().received, text);
}

#[test]
fn a_hundred_days_of_silence_change_nothing() {
    let limits = Config {
        keepalive_idle: ms(0),
        ..config()
    };
    for timestamps in [false, true] {
        let mut rig = Rig::new(limits.clone(), App::echo());
        rig.connect_with(if timestamps {
            with_timestamps(1000)
        } else {
            Options::default()
        });
        rig.pass(100 * DAY);
        rig.nothing();
        let days = (100 * DAY).as_millis() as u32;
        rig.timestamp = rig.timestamp.map(|value| value.wrapping_add(days));
        rig.peer(ACK, b"still here?");
        let echo = rig.one();
        assert_eq!(echo.payload, b"still here?");
        assert_eq!(rig.wait(ms(3000)), Some(ms(200)), "the timeout is what it was");
        rig.sent();
        rig.acknowledge(&echo);
        rig.pass(100 * DAY);
        rig.nothing();
        assert_eq!(rig.state(), Some(State::Established));
    }
}

#[test]
fn keepalive_does_not_drift_in_a_hundred_days() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let start = rig.now;
    for _ in 0..1200 {
        assert_eq!(rig.wait(3 * DAY), Some(ms(7_200_000)));
        rig.one();
        rig.peer(ACK, b"");
    }
    assert_eq!(rig.now.since(start), 100 * DAY);
    assert_eq!(rig.state(), Some(State::Established));
}

#[test]
fn a_clock_that_jumps_over_every_deadline_fires_each_once() {
    // The process was stopped for a month.
    let mut rig = Rig::new(config(), sender(100));
    rig.connect();
    rig.sent();
    rig.peer(ACK, b"request");
    rig.key.local_port += 1;
    rig.syn(Options::default());
    rig.sent();
    rig.now = rig.now + 30 * DAY;
    for _ in 0..10 {
        rig.engine.poll(rig.now, &mut rig.wire);
    }
    assert!(rig.sent().len() <= 3);
    rig.pass(ms(600_000));
    rig.assert_empty();
}
