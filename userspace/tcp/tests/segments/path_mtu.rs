//! Path MTU discovery: ICMP "too big" (RFC 1191, RFC 8201), what is believed of it (RFC 5927), black holes (RFC 2923).

use std::time::Duration;

use crate::common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{OnNoFlow, Received};
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::{FlowKey, checksum};
use tidegate_tcp::{Engine, State};

const FAMILIES: [(&str, &str); 2] = [(SERVER, CLIENT), ("[2001:2::1]:80", "[2001:2::2]:40000")];
const ETHERNET: usize = 14;

/// Types and codes of ICMPv4 "fragmentation needed and DF set" and ICMPv6 "packet too big".
const TOO_BIG: [(u8, u8); 2] = [(3, 4), (2, 0)];

fn ip_header(key: &FlowKey) -> usize {
    if key.is_v4() { 20 } else { 40 }
}

/// The frames the engine sent since the last time.
fn frames(rig: &mut Rig) -> Vec<Vec<u8>> {
    std::mem::take(&mut rig.wire.frames)
}

/// As much of a frame's packet as every router quotes: the IP header and eight octets.
fn quote(key: &FlowKey, frame: &[u8]) -> Vec<u8> {
    frame[ETHERNET..ETHERNET + ip_header(key) + 8].to_vec()
}

/// `quote` with another sequence number.
fn with_seq(key: &FlowKey, mut quote: Vec<u8>, seq: SeqNumber) -> Vec<u8> {
    let at = ip_header(key) + 4;
    quote[at..at + 4].copy_from_slice(&seq.0.to_be_bytes());
    quote
}

/// ICMP of any kind from a router to the server of `key`, which is the peer's, with the right checksums.
fn icmp(key: &FlowKey, (kind, code): (u8, u8), mtu: u32, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &mtu.to_be_bytes(), body].concat();
    let mut frame = [&SERVER_MAC[..], &CLIENT_MAC].concat();
    if key.is_v4() {
        let sum = checksum::icmp_v4(&message);
        message[2..4].copy_from_slice(&sum.to_ne_bytes());
        let mut ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 198, 18, 0, 254, 0, 0, 0, 0];
        let total_length = (ip.len() + message.len()) as u16;
        ip[2..4].copy_from_slice(&total_length.to_be_bytes());
        ip[16..20].copy_from_slice(&key.remote[12..]);
        let sum = checksum::ipv4_header(&ip);
        ip[10..12].copy_from_slice(&sum);
        frame.extend_from_slice(&[0x08, 0x00]);
        frame.extend_from_slice(&ip);
    } else {
        let mut router = key.remote;
        router[15] = 0xfe;
        let sum = checksum::icmp_v6(&router, &key.remote, &message);
        message[2..4].copy_from_slice(&sum.to_ne_bytes());
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend_from_slice(&(message.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[58, 64]);
        frame.extend_from_slice(&router);
        frame.extend_from_slice(&key.remote);
    }
    frame.extend_from_slice(&message);
    frame
}

/// A router cannot forward the packet of `quote`: only `mtu` bytes pass.
fn too_big(key: &FlowKey, mtu: u32, quote: &[u8]) -> Vec<u8> {
    icmp(key, TOO_BIG[usize::from(!key.is_v4())], mtu, quote)
}

/// A connection with SACK and without timestamps that has just sent its initial window of full segments, and these.
fn sending(config: Config, (server, client): (&str, &str)) -> (Rig, Vec<Vec<u8>>) {
    let mut rig = Rig::between(config, sender(100_000), server, client);
    rig.connect_with(with_sack());
    let frames = frames(&mut rig);
    assert!(frames.len() >= 4, "{} frames", frames.len());
    (rig, frames)
}

/// The largest text among `frames`.
fn largest(frames: &[Vec<u8>]) -> usize {
    frames.iter().map(|frame| parse(frame).payload.len()).max().unwrap_or(0)
}

/// Carries what the engine sends over a path that lets packets of `mtu` bytes through, until the peer has `length`
/// bytes of text, which are returned. Of larger packets the router tells if `tells`.
#[track_caller]
fn carry(rig: &mut Rig, mtu: usize, tells: bool, length: usize) -> Vec<u8> {
    let key = rig.key;
    let mut text = Vec::new();
    let limit = rig.now + Duration::from_secs(100);
    while text.len() < length {
        assert!(rig.now < limit, "only {} of {length} bytes came", text.len());
        if rig.wire.frames.is_empty() {
            rig.wait(ms(1000));
        }
        let (fitting, large): (Vec<_>, Vec<_>) =
            frames(rig).into_iter().partition(|frame| frame.len() - ETHERNET <= mtu);
        let sent: Vec<_> = fitting.iter().map(|frame| parse(frame)).collect();
        for segment in &sent {
            if let Some(timestamps) = segment.options.timestamps.filter(|_| segment.seq == rig.ack) {
                rig.echo = timestamps.value;
            }
            rig.take(std::slice::from_ref(segment), &mut text);
        }
        if sent.iter().any(|segment| !segment.payload.is_empty()) {
            rig.peer(ACK, b"");
        }
        for frame in large.iter().filter(|_| tells) {
            let message = too_big(&key, mtu as u32, &quote(&key, frame));
            rig.inject(&message);
        }
        rig.engine.poll(rig.now, &mut rig.wire);
    }
    text
}

#[test]
fn segments_are_made_to_fit_and_what_did_not_is_sent_again() {
    for (server, client) in FAMILIES {
        for stamps in [0, 12] {
            let mut rig = Rig::between(config(), sender(100_000), server, client);
            rig.connect_with(if stamps > 0 { with_timestamps(1) } else { with_sack() });
            let first = frames(&mut rig);
            let key = rig.key;
            let headers = ip_header(&key) + 20 + stamps;
            assert_eq!(largest(&first), 1500 - headers);

            let message = too_big(&key, 1400, &quote(&key, &first[0]));
            assert_eq!(rig.inject(&message), Received::Done);
            let again = frames(&mut rig);
            assert!(!again.is_empty());
            let head = parse(&again[0]);
            assert_eq!(head.seq, parse(&first[0]).seq);
            assert_eq!(head.payload.len(), 1400 - headers);
            assert_eq!(largest(&again), 1400 - headers);
            assert_eq!(rig.count(Counter::TooBigIn), 1);
            assert_eq!(rig.count(Counter::PathMtuReduced), 1);
            assert_eq!(rig.count(Counter::DropMalformed), 0);

            rig.wire.frames = again;
            assert!(carry(&mut rig, 1400, true, 100_000) == pattern(100_000));
            assert_eq!(rig.count(Counter::TooBigIn), 1, "nothing larger was sent since");
        }
    }
}

#[test]
fn a_path_that_narrows_twice_is_followed() {
    for family in FAMILIES {
        let (mut rig, first) = sending(config(), family);
        rig.wire.frames = first;
        let mut text = carry(&mut rig, 1400, true, 30_000);
        let rest = 100_000 - text.len();
        text.append(&mut carry(&mut rig, 1300, true, rest));
        assert!(text == pattern(100_000));
        assert_eq!(rig.count(Counter::PathMtuReduced), 2);
    }
}

#[test]
fn a_message_about_each_packet_of_a_burst_has_one_effect() {
    for family in FAMILIES {
        let (mut rig, first) = sending(config(), family);
        let key = rig.key;
        for frame in &first {
            rig.inject(&too_big(&key, 1400, &quote(&key, frame)));
        }
        assert_eq!(rig.count(Counter::TooBigIn), first.len() as u64);
        assert_eq!(rig.count(Counter::PathMtuReduced), 1);
        let head = parse(&first[0]).seq;
        let again = rig.sent().iter().filter(|segment| segment.seq == head).count();
        assert_eq!(again, 1, "times the first segment was sent again");
    }
}

#[test]
fn what_waits_for_a_frame_until_all_is_acknowledged_is_not_sent_again() {
    for family in FAMILIES {
        let (mut rig, first) = sending(config(), family);
        let key = rig.key;
        rig.wire.exhausted = true;
        rig.inject(&too_big(&key, 1400, &quote(&key, &first[0])));
        assert_eq!(rig.count(Counter::PathMtuReduced), 1);
        rig.wire.exhausted = false;
        // The packets had come through after all.
        let (start, last) = (parse(&first[0]).seq, parse(&first[first.len() - 1]));
        rig.acknowledge(&last);
        let new = &rig.wire.frames;
        assert!(!new.is_empty() && new.iter().all(|frame| parse(frame).seq.at_or_after(last.end())));
        let arrived = (last.end() - start) as usize;
        assert!(rig.read_in_time(100_000 - arrived) == pattern(100_000)[arrived..]);
    }
}

#[test]
fn only_a_sequence_number_that_is_outstanding_is_believed() {
    for family in FAMILIES {
        let (_, first) = sending(config(), family);
        let (una, nxt) = (parse(&first[0]).seq, parse(&first[first.len() - 1]).end());
        for (seq, believed) in [
            (una, true),
            (una + 1, true),
            (nxt - 1, true),
            (nxt, false),
            (nxt + 1, false),
            (una - 1, false),
            (una + (1 << 31), false),
        ] {
            let (mut rig, first) = sending(config(), family);
            let key = rig.key;
            let quote = with_seq(&key, quote(&key, &first[0]), seq);
            rig.inject(&too_big(&key, 1400, &quote));
            assert_eq!(rig.count(Counter::PathMtuReduced), u64::from(believed), "{seq:?}");
            assert_eq!(rig.count(Counter::DropIcmpBadQuote), u64::from(!believed), "{seq:?}");
            assert_eq!(rig.sent().is_empty(), !believed, "{seq:?}");
        }
    }
}

#[test]
fn a_quote_of_what_has_been_acknowledged_is_not_believed() {
    for family in FAMILIES {
        let (mut rig, first) = sending(config(), family);
        let key = rig.key;
        rig.acknowledge(&parse(&first[1]));
        frames(&mut rig);
        for old in &first[..2] {
            rig.inject(&too_big(&key, 1400, &quote(&key, old)));
        }
        rig.nothing();
        assert_eq!(rig.count(Counter::DropIcmpBadQuote), 2);
        rig.acknowledge(&parse(&first[3]));
        assert_eq!(
            largest(&rig.wire.frames),
            largest(&first),
            "segments are as large as before"
        );
    }
}

#[test]
fn ten_thousand_guesses_of_the_sequence_number_change_nothing() {
    for family in FAMILIES {
        let (mut rig, first) = sending(config(), family);
        let key = rig.key;
        let (una, nxt) = (parse(&first[0]).seq, parse(&first[first.len() - 1]).end());
        let plain = quote(&key, &first[0]);
        let mut guesses = 0;
        for number in 0..10_000_u32 {
            let seq = nxt + number * 429_496;
            if seq.at_or_after(una) && seq.before(nxt) {
                continue;
            }
            guesses += 1;
            rig.inject(&too_big(&key, 1400, &with_seq(&key, plain.clone(), seq)));
        }
        rig.nothing();
        assert_eq!(rig.count(Counter::DropIcmpBadQuote), guesses);
        assert_eq!(rig.count(Counter::PathMtuReduced), 0);
    }
}

#[test]
fn a_router_that_tells_no_mtu_means_the_next_plateau() {
    let (mut rig, first) = sending(config(), FAMILIES[0]);
    let key = rig.key;
    rig.inject(&too_big(&key, 0, &quote(&key, &first[0])));
    let second = frames(&mut rig);
    assert_eq!(largest(&second), 1492 - 40);
    rig.inject(&too_big(&key, 0, &quote(&key, &second[0])));
    assert_eq!(largest(&frames(&mut rig)), 1006 - 40);

    // In IPv6 every router tells.
    let (mut rig, first) = sending(config(), FAMILIES[1]);
    let key = rig.key;
    rig.inject(&too_big(&key, 0, &quote(&key, &first[0])));
    rig.nothing();
    assert_eq!(rig.count(Counter::DropIcmpTooSmall), 1);
}

#[test]
fn an_mtu_below_the_minimum_is_not_believed() {
    for (family, mtu, text) in [
        (FAMILIES[0], 68, None),
        (FAMILIES[0], 551, None),
        (FAMILIES[0], 552, Some(512)),
        (FAMILIES[1], 68, None),
        (FAMILIES[1], 552, None),
        (FAMILIES[1], 1279, None),
        (FAMILIES[1], 1280, Some(1220)),
    ] {
        let (mut rig, first) = sending(config(), family);
        let key = rig.key;
        rig.inject(&too_big(&key, mtu, &quote(&key, &first[0])));
        assert_eq!(rig.count(Counter::DropIcmpTooSmall), u64::from(text.is_none()), "{mtu}");
        assert_eq!(largest(&frames(&mut rig)), text.unwrap_or(0), "{mtu}");
    }
}

#[test]
fn the_ipv4_minimum_is_a_setting_and_segments_keep_some_text() {
    let config = Config {
        min_path_mtu: 68,
        ..config()
    };
    let (mut rig, first) = sending(config, FAMILIES[0]);
    let key = rig.key;
    rig.inject(&too_big(&key, 68, &quote(&key, &first[0])));
    assert_eq!(largest(&frames(&mut rig)), 48);
}

#[test]
fn an_mtu_the_packet_would_have_fitted_is_not_believed() {
    for family in FAMILIES {
        for mtu in [1500, 1501, 9000, 65_535] {
            let (mut rig, first) = sending(config(), family);
            let key = rig.key;
            rig.inject(&too_big(&key, mtu, &quote(&key, &first[0])));
            rig.nothing();
            assert_eq!(rig.count(Counter::DropIcmpBadQuote), 1, "{mtu}");
        }
    }
    let (mut rig, first) = sending(config(), FAMILIES[1]);
    let key = rig.key;
    rig.inject(&too_big(&key, u32::MAX, &quote(&key, &first[0])));
    assert_eq!(rig.count(Counter::DropIcmpBadQuote), 1);
}

#[test]
fn an_increase_is_ignored() {
    for family in FAMILIES {
        let (mut rig, first) = sending(config(), family);
        let key = rig.key;
        rig.inject(&too_big(&key, 1400, &quote(&key, &first[0])));
        let reduced = largest(&frames(&mut rig));
        for mtu in [1400, 1401, 1450, 1499] {
            rig.inject(&too_big(&key, mtu, &quote(&key, &first[1])));
            rig.nothing();
        }
        assert_eq!(rig.count(Counter::TooBigIn), 5);
        assert_eq!(rig.count(Counter::PathMtuReduced), 1);
        rig.acknowledge(&parse(&first[first.len() - 1]));
        assert_eq!(largest(&rig.wire.frames), reduced);
    }
}

#[test]
fn a_damaged_message_is_dropped() {
    let (mut rig, first) = sending(config(), FAMILIES[0]);
    let key = rig.key;
    let message = too_big(&key, 1400, &quote(&key, &first[0]));
    let mut dropped = 0;
    for at in ETHERNET..message.len() {
        for bit in 0..8 {
            let mut damaged = message.clone();
            damaged[at] ^= 1 << bit;
            rig.inject(&damaged);
            dropped += 1;
        }
    }
    rig.nothing();
    assert_eq!(rig.count(Counter::TooBigIn), 0);
    assert_eq!(
        rig.count(Counter::DropChecksum) + rig.count(Counter::DropMalformed),
        dropped
    );
    assert!(rig.count(Counter::DropChecksum) > dropped / 2);

    let (mut rig, first) = sending(config(), FAMILIES[1]);
    let key = rig.key;
    let message = too_big(&key, 1400, &quote(&key, &first[0]));
    let text = ETHERNET + 40 + 2;
    for at in text..message.len() {
        let mut damaged = message.clone();
        damaged[at] ^= 0x10;
        rig.inject(&damaged);
    }
    rig.nothing();
    assert_eq!(rig.count(Counter::TooBigIn), 0);
    assert_eq!(rig.count(Counter::DropChecksum), (message.len() - text) as u64);
}

#[test]
fn a_message_cut_short_anywhere_is_dropped() {
    for family in FAMILIES {
        let (mut rig, first) = sending(config(), family);
        let key = rig.key;
        let plain = quote(&key, &first[0]);
        let message = too_big(&key, 1400, &plain);
        for length in 0..message.len() {
            rig.inject(&message[..length]);
        }
        for length in 0..plain.len() {
            rig.inject(&too_big(&key, 1400, &plain[..length]));
        }
        rig.nothing();
        assert_eq!(rig.count(Counter::TooBigIn), 0);
        assert_eq!(rig.count(Counter::DropMalformed), (message.len() + plain.len()) as u64);
    }
}

#[test]
fn other_icmp_is_dropped() {
    for family in FAMILIES {
        let (mut rig, first) = sending(config(), family);
        let key = rig.key;
        let plain = quote(&key, &first[0]);
        let kinds = [
            (0, 0),
            (1, 0),
            (3, 0),
            (3, 1),
            (3, 3),
            (4, 0),
            (5, 0),
            (8, 0),
            (11, 0),
            (128, 0),
        ];
        for kind in kinds {
            rig.inject(&icmp(&key, kind, 1400, &plain));
        }
        rig.nothing();
        assert_eq!(rig.count(Counter::TooBigIn), 0);
        assert_eq!(rig.count(Counter::DropMalformed), kinds.len() as u64);
        assert_eq!(rig.state(), Some(State::Established));
    }
}

#[test]
fn an_unknown_flow_is_another_shards_or_nobodys() {
    for family in FAMILIES {
        let (mut rig, first) = sending(config(), family);
        let key = rig.key;
        let mut other = quote(&key, &first[0]);
        other[ip_header(&key) + 3] ^= 1;
        let message = too_big(&key, 1400, &other);
        let counters = |engine: &Engine<App>| {
            [Counter::TooBigIn, Counter::DropIcmpNoFlow, Counter::PathMtuReduced]
                .map(|name| engine.counters().get(name))
        };
        let mut receive = |message: &[u8], on_no_flow| {
            let received = rig.engine.receive(rig.now, message, on_no_flow, &mut rig.wire);
            (received, counters(&rig.engine))
        };
        assert_eq!(receive(&message, OnNoFlow::Report), (NO_FLOW, [0, 0, 0]));
        assert_eq!(receive(&message, OnNoFlow::Reject), (Received::Done, [1, 1, 0]));
        // A flow that is known is not handed over.
        let message = too_big(&key, 1400, &quote(&key, &first[0]));
        assert_eq!(receive(&message, OnNoFlow::Report), (Received::Done, [2, 1, 1]));
    }
}

#[test]
fn a_handshake_is_not_affected() {
    for (server, client) in FAMILIES {
        let mut rig = Rig::between(config(), sender(100_000), server, client);
        rig.syn(with_sack());
        let syn_ack = frames(&mut rig);
        let key = rig.key;
        let mut plain = quote(&key, &syn_ack[0]);
        // As if the SYN-ACK had been a large packet.
        let length = if key.is_v4() { 2 } else { 4 };
        plain[length..length + 2].copy_from_slice(&1500_u16.to_be_bytes());
        let message = too_big(&key, 1400, &plain);
        // Another shard may have the connection.
        let report = rig.engine.receive(rig.now, &message, OnNoFlow::Report, &mut rig.wire);
        assert_eq!(report, NO_FLOW);
        assert_eq!(rig.inject(&message), Received::Done);
        rig.nothing();
        assert_eq!(rig.count(Counter::DropIcmpNoFlow), 1);
        rig.ack = parse(&syn_ack[0]).seq + 1;
        rig.peer(ACK, b"");
        assert_eq!(largest(&rig.wire.frames), 1500 - ip_header(&key) - 20);
    }
}

#[test]
fn time_wait_is_not_affected() {
    for (server, client) in FAMILIES {
        let app = App {
            close_after_greeting: true,
            ..sender(1000)
        };
        let mut rig = Rig::between(config(), app, server, client);
        rig.connect_with(with_sack());
        let sent = frames(&mut rig);
        rig.acknowledge(&parse(&sent[sent.len() - 1]));
        rig.peer(FIN | ACK, b"");
        assert_eq!(rig.state(), Some(State::TimeWait));
        frames(&mut rig);
        let key = rig.key;
        let message = too_big(&key, 600, &quote(&key, &sent[0]));
        let report = rig.engine.receive(rig.now, &message, OnNoFlow::Report, &mut rig.wire);
        assert_eq!(report, Received::Done);
        rig.nothing();
        assert_eq!(rig.count(Counter::DropIcmpNoFlow), 1);
        assert_eq!(rig.state(), Some(State::TimeWait));
    }
}

#[test]
fn path_mtu_discovery_can_be_switched_off() {
    let config = Config {
        path_mtu_discovery: false,
        ..config()
    };
    for family in FAMILIES {
        let (mut rig, first) = sending(config.clone(), family);
        let key = rig.key;
        rig.inject(&too_big(&key, 1400, &quote(&key, &first[0])));
        rig.nothing();
        assert_eq!(rig.count(Counter::TooBigIn), 1);
        assert_eq!(rig.count(Counter::PathMtuReduced), 0);
    }
}

/// The peer sends a full segment, has it echoed, and acknowledges that; returns the largest text of the echo.
fn largest_echo(rig: &mut Rig) -> usize {
    rig.peer(ACK | PSH, &[7; 1460]);
    let echoed = frames(rig);
    let length: usize = echoed.iter().map(|frame| parse(frame).payload.len()).sum();
    assert_eq!(length, 1460);
    rig.ack += 1460;
    rig.peer(ACK, b"");
    largest(&echoed)
}

#[test]
fn the_full_size_is_tried_again_after_ten_minutes() {
    let app = App::echo();
    let mut rig = Rig::new(config(), app);
    rig.connect_with(with_sack());
    let key = rig.key;
    assert_eq!(largest_echo(&mut rig), 1460);

    rig.peer(ACK | PSH, &[7; 1460]);
    let echoed = frames(&mut rig);
    rig.inject(&too_big(&key, 1400, &quote(&key, &echoed[0])));
    assert_eq!(largest(&frames(&mut rig)), 1360);
    rig.ack += 1460;
    rig.peer(ACK, b"");
    frames(&mut rig);

    rig.pass(Duration::from_secs(599));
    frames(&mut rig);
    assert_eq!(largest_echo(&mut rig), 1360);
    rig.pass(Duration::from_secs(2));
    assert_eq!(largest_echo(&mut rig), 1460);

    // The path is as narrow as it was.
    rig.peer(ACK | PSH, &[7; 1460]);
    let echoed = frames(&mut rig);
    rig.inject(&too_big(&key, 1400, &quote(&key, &echoed[0])));
    assert_eq!(largest(&frames(&mut rig)), 1360);
}

#[test]
fn a_path_that_drops_large_packets_in_silence_is_found_out() {
    for (family, mtu, steps) in [(FAMILIES[0], 1100, 1), (FAMILIES[0], 600, 2), (FAMILIES[1], 1280, 1)] {
        let (mut rig, first) = sending(config(), family);
        rig.wire.frames = first;
        assert!(carry(&mut rig, mtu, false, 100_000) == pattern(100_000));
        assert_eq!(rig.count(Counter::PathMtuBlackHoles), steps, "{mtu}");
        assert_eq!(rig.count(Counter::TooBigIn), 0);
    }
}

#[test]
fn a_wide_path_is_not_taken_for_a_black_hole() {
    let (mut rig, first) = sending(config(), FAMILIES[0]);
    // One timeout, and an answer.
    rig.pass(ms(450));
    rig.wire.frames = first;
    assert!(carry(&mut rig, 1500, false, 100_000) == pattern(100_000));
    assert_eq!(rig.count(Counter::PathMtuBlackHoles), 0);
}

#[test]
fn looking_for_black_holes_can_be_switched_off() {
    let config = Config {
        black_hole_timeouts: 0,
        ..config()
    };
    let (mut rig, first) = sending(config, FAMILIES[0]);
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.count(Counter::PathMtuBlackHoles), 0);
    let again = frames(&mut rig);
    assert!(!again.is_empty());
    assert_eq!(largest(&again), largest(&first));
}
