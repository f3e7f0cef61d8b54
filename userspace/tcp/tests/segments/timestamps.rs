//! Timestamps: TS.Recent, PAWS, round-trip times (RFC 7323, sections 3 to 5).

use std::time::Duration;

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;

const DAY: u64 = 24 * 3600;

fn echo(sent: &Sent) -> u32 {
    sent.options.timestamps.expect("no timestamps").echo
}

fn value(sent: &Sent) -> u32 {
    sent.options.timestamps.expect("no timestamps").value
}

fn stamped(config: Config, app: App, start: u32) -> Rig {
    let mut rig = Rig::new(config, app);
    rig.connect_with(with_timestamps(start));
    rig
}

#[test]
fn the_echo_is_of_the_segment_that_began_what_is_acknowledged() {
    // RFC 7323, section 4.3: (A) delayed acknowledgments, (B) a hole, (C) a filled hole.
    let mut rig = stamped(config(), App::default(), 1000);
    rig.timestamp = Some(1010);
    rig.peer(ACK, &[1; 1448]);
    rig.timestamp = Some(1020);
    rig.peer(ACK, &[2; 1448]);
    assert_eq!(echo(&rig.one()), 1010);
    rig.timestamp = Some(1030);
    rig.peer_at(rig.seq + 1000, ACK, b"later");
    assert_eq!(echo(&rig.one()), 1010);
    rig.timestamp = Some(1040);
    rig.peer_at(rig.seq, ACK, &[3; 1000]);
    let filled = rig.one();
    assert_eq!((filled.ack, echo(&filled)), (rig.seq + 1005, 1040));
}

#[test]
fn every_segment_but_a_reset_carries_timestamps_that_never_go_back() {
    let mut rig = stamped(config(), sender(100), 1);
    let first = rig.one();
    let mut last = value(&first);
    for _ in 0..3 {
        assert!(rig.wait(ms(10_000)).is_some());
        let again = rig.one();
        assert!(
            SeqNumber(value(&again)).after(SeqNumber(last)),
            "the clock stands still"
        );
        last = value(&again);
    }
    rig.timestamp = Some(2);
    rig.acknowledge(&first);
    rig.pass(ms(7_200_001));
    let probe = rig.one();
    assert_eq!(value(&probe).wrapping_sub(last) / 1000, 7200);
    rig.engine.abort_all(rig.now, &mut rig.wire);
    assert!(rig.one().is(RST | ACK));
}

#[test]
fn the_clocks_of_two_connections_cannot_be_compared() {
    let mut rig = Rig::new(config(), App::default());
    let mut values = Vec::new();
    for port in 0..10 {
        rig.key.local_port = 1000 + port;
        values.push(value(&rig.connect_with(with_timestamps(1))));
    }
    values.sort_unstable();
    let near = values.windows(2).filter(|pair| pair[1] - pair[0] < 1000).count();
    assert_eq!(near, 0, "{values:?}");
}

#[test]
fn the_peers_clock_may_wrap() {
    let mut rig = stamped(config(), App::default(), u32::MAX - 5);
    rig.timestamp = Some(3);
    rig.peer(ACK, b"new");
    rig.pass(ms(50));
    assert_eq!(echo(&rig.one()), 3);
    rig.timestamp = Some(u32::MAX - 5);
    rig.peer_at(rig.seq, ACK, b"old");
    assert_eq!(rig.count(Counter::DropPaws), 1);
    assert_eq!(rig.app().received, b"new");
}

#[test]
fn an_equal_timestamp_is_not_old() {
    let mut rig = stamped(config(), App::default(), 1000);
    rig.peer(ACK, b"one ");
    rig.peer(ACK, b"two");
    assert_eq!(rig.app().received, b"one two");
    assert_eq!(rig.count(Counter::DropPaws), 0);
}

#[test]
fn after_24_days_of_silence_an_older_timestamp_is_accepted() {
    let limits = Config {
        keepalive_idle: ms(0),
        ..config()
    };
    for (days, accepted) in [(23, false), (25, true)] {
        let mut rig = stamped(limits.clone(), App::default(), 1000);
        rig.pass(Duration::from_secs(days * DAY));
        rig.timestamp = Some(500);
        rig.peer(ACK, b"back again");
        assert_eq!(!rig.app().received.is_empty(), accepted, "after {days} days");
    }
}

#[test]
fn a_reset_needs_no_timestamp_and_no_new_one() {
    for timestamp in [None, Some(1), Some(1000)] {
        let mut rig = stamped(config(), App::default(), 1000);
        rig.timestamp = timestamp;
        rig.peer(RST, b"");
        assert_eq!(rig.state(), None, "{timestamp:?}");
    }
}

#[test]
fn a_third_segment_with_an_old_timestamp_does_not_open() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(with_timestamps(1000));
    rig.ack = rig.one().seq + 1;
    rig.timestamp = Some(999);
    rig.peer_at(rig.seq, ACK, b"old");
    assert_eq!(rig.app().opened, 0);
    assert_eq!(rig.state(), Some(State::SynReceived));
    rig.timestamp = Some(1001);
    rig.peer(ACK, b"new");
    assert_eq!(rig.state(), Some(State::Established));
    assert_eq!(rig.app().received, b"new");
}

#[test]
fn the_round_trip_time_is_measured_in_the_handshake_and_from_echoes() {
    let mut rig = Rig::new(config(), sender(100));
    rig.timestamp = Some(1000);
    rig.syn(with_timestamps(1000));
    let syn_ack = rig.one();
    rig.pass(ms(100));
    rig.ack = syn_ack.seq + 1;
    rig.echo = value(&syn_ack);
    rig.peer(ACK, b"");
    let srtt = rig.info().srtt.expect("not measured");
    assert!((ms(99)..=ms(101)).contains(&srtt), "{srtt:?}");
    // Sent twice, so only the echo can tell the round trip of the second.
    let text = rig.one();
    let waited = rig.wait(ms(3000)).expect("not sent again");
    let again = rig.one();
    assert!(waited > ms(200));
    rig.pass(ms(100));
    rig.timestamp = Some(2000);
    rig.echo = value(&again);
    rig.acknowledge(&text);
    let srtt = rig.info().srtt.expect("not measured");
    assert!((ms(95)..=ms(105)).contains(&srtt), "{srtt:?}");
}

#[test]
fn a_nonsense_echo_does_not_spoil_the_round_trip_time() {
    for nonsense in [0, 1, u32::MAX, 0x8000_0000] {
        let mut rig = stamped(config(), sender(100), 1000);
        let text = rig.one();
        assert!(rig.wait(ms(3000)).is_some());
        rig.timestamp = Some(1200);
        rig.echo = value(&text).wrapping_add(nonsense);
        rig.acknowledge(&text);
        let srtt = rig.info().srtt.expect("not measured");
        assert!(srtt < Duration::from_secs(61), "{srtt:?}");
        assert_eq!(rig.state(), Some(State::Established));
    }
}

#[test]
fn a_timestamp_from_outside_the_window_is_not_taken() {
    let mut rig = stamped(config(), App::default(), 1000);
    rig.timestamp = Some(1000 + 0x3fff_ffff);
    rig.peer_at(rig.seq + 0x4000_0000, ACK, b"forged");
    rig.timestamp = Some(1001);
    rig.peer(ACK, b"real");
    assert_eq!(rig.app().received, b"real");
}

#[test]
fn a_timestamp_beside_a_wrong_acknowledgment_is_not_taken() {
    let mut rig = stamped(config(), App::default(), 1000);
    let ack = rig.ack;
    rig.timestamp = Some(1000 + 0x3fff_ffff);
    rig.ack = ack + 0x2000_0000;
    rig.peer_at(rig.seq, ACK, b"forged");
    rig.ack = ack;
    rig.timestamp = Some(1001);
    rig.peer(ACK, b"real");
    assert_eq!(rig.app().received, b"real");
}

#[test]
fn timestamps_that_were_not_agreed_on_are_ignored() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    for (value, text) in [(5000, &b"one "[..]), (1, &b"two"[..])] {
        let options = Options {
            timestamps: Some(Timestamps { value, echo: 77 }),
            ..Options::default()
        };
        let frame = rig.frame(rig.seq, rig.ack, ACK, options, text);
        rig.seq += text.len() as u32;
        rig.inject(&frame);
    }
    assert_eq!(rig.app().received, b"one two");
    rig.pass(ms(50));
    assert_eq!(rig.one().options.timestamps, None);
}

#[test]
fn segments_without_timestamps_are_served_on_a_connection_with_them() {
    // As Linux does: RFC 7323, section 3.2, only says SHOULD of dropping them.
    let app = App::echo();
    let mut rig = stamped(config(), app, 1000);
    let measured_before = rig.info().srtt;
    rig.timestamp = None;
    for text in [&b"one "[..], b"two ", b"three"] {
        rig.peer(ACK, text);
        let answer = rig.one();
        assert_eq!((&answer.payload[..], echo(&answer)), (text, 1000));
        rig.pass(ms(50));
        rig.acknowledge(&answer);
    }
    rig.nothing();
    assert!(
        rig.info().srtt > measured_before,
        "round trips are timed without an echo"
    );
    // A timestamp is checked again as soon as there is one.
    rig.timestamp = Some(999);
    rig.peer_at(rig.seq, ACK, b"old");
    assert_eq!(rig.count(Counter::DropPaws), 1);
    rig.timestamp = None;
    rig.peer(ACK | FIN, b"");
    assert_eq!(rig.app().received, b"one two three");
    assert_eq!(rig.app().ends, 1);
    assert_eq!(rig.count(Counter::DropNoTimestamp), 0);
}

#[test]
fn text_without_timestamps_is_taken_out_of_order_and_its_window_and_acknowledgment_count() {
    let mut rig = stamped(config(), sender(20_000), 1000);
    let sent = rig.sent();
    rig.timestamp = None;
    rig.peer_at(rig.seq + 3, ACK, b"lo");
    rig.sent();
    rig.peer(ACK, b"hel");
    rig.seq += 2;
    rig.sent();
    assert_eq!(rig.app().received, b"hello");
    rig.acknowledge(&sent[0]);
    assert!(!rig.sent().is_empty(), "the window has moved on");
    assert_eq!(rig.read_in_time(20_000 - 1448), pattern(20_000)[1448..]);
}

#[test]
fn a_third_segment_without_a_timestamp_opens_the_connection() {
    for text in [&b""[..], b"request"] {
        let mut rig = Rig::new(config(), App::default());
        rig.syn(with_timestamps(1000));
        rig.ack = rig.one().seq + 1;
        rig.timestamp = None;
        rig.peer(ACK, text);
        assert_eq!(rig.state(), Some(State::Established));
        assert_eq!(rig.app().received, text);
        // Its own segments carry them still.
        rig.peer(ACK | FIN, b"");
        assert_eq!(echo(&rig.one()), 1000);
    }
}

#[test]
fn probes_without_timestamps_are_answered() {
    let mut rig = stamped(config(), App::default(), 1000);
    rig.timestamp = None;
    for (text, kind) in [(&b""[..], "Linux's"), (b"x", "with an octet of garbage")] {
        rig.peer_at(rig.seq - 1, ACK, text);
        let answer = rig.one();
        assert!(answer.is(ACK) && answer.ack == rig.seq, "{kind}: {answer:?}");
    }
    // A window probe: the window is closed.
    let reader = App {
        appetite: Some(0),
        ..App::default()
    };
    let limits = Config {
        receive_buffer: 4096,
        receive_buffer_initial: 4096,
        ..config()
    };
    let mut rig = stamped(limits, reader, 1000);
    for _ in 0..4 {
        rig.peer(ACK, &[1; 1024]);
    }
    rig.pass(ms(100));
    rig.sent();
    rig.timestamp = None;
    rig.peer_at(rig.seq, ACK, b"x");
    let answer = rig.one();
    assert_eq!((answer.ack, answer.window), (rig.seq, 0));
}

#[test]
fn a_timeout_is_not_taken_back_by_an_acknowledgment_without_a_timestamp() {
    // Eifel has nothing to go by: the original may have arrived or not.
    let mut rig = stamped(config(), sender(100), 1000);
    let text = rig.one();
    assert!(rig.wait(ms(3000)).is_some());
    rig.sent();
    rig.timestamp = None;
    rig.acknowledge(&text);
    assert_eq!(rig.count(Counter::SpuriousRetransmits), 0);
    assert_eq!(rig.info().unacknowledged, 0);
}

#[test]
fn blind_text_without_a_timestamp_still_has_to_hit_the_window_and_the_acknowledgment() {
    let mut rig = stamped(config(), App::default(), 1000);
    let (seq, ack) = (rig.seq, rig.ack);
    rig.timestamp = None;
    for (distance, wrong) in [(0, 1), (0, 0x4000_0000), (0x4000_0000, 0), (0x8000_0000, 0)] {
        rig.ack = ack + wrong;
        rig.peer_at(seq + distance, ACK, b"forged");
        rig.peer_at(seq + distance, ACK | FIN, b"");
    }
    assert!(rig.app().received.is_empty());
    assert_eq!(rig.app().ends, 0);
    assert_eq!(rig.engine.reassembly_bytes(), 0);
}
