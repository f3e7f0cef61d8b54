//! Frames around segments: 802.1Q, both IP versions, checksums (RFC 791, RFC 8200, RFC 9293, section 3.1).

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::OnNoFlow;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::{Frame, Options, checksum};

const FAMILIES: [(&str, &str); 2] = [(SERVER, CLIENT), ("[2001:2::1]:80", "[2001:2::2]:40000")];

fn tagged(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    [&frame[..12], tags, &frame[12..]].concat()
}

#[test]
fn answers_carry_the_tags_of_what_they_answer() {
    for (server, client) in FAMILIES {
        for tags in [
            &[0x81, 0x00, 0x00, 0x07][..],
            &[0x88, 0xa8, 0x00, 0x05, 0x81, 0x00, 0x20, 0x07],
        ] {
            let app = App::echo();
            let mut rig = Rig::between(config(), app, server, client);
            let syn = rig.frame(rig.seq, rig.ack, SYN, Options::default(), b"");
            rig.seq += 1;
            rig.inject(&tagged(&syn, tags));
            let answer = rig.wire.frames.remove(0);
            assert_eq!(answer[..6], CLIENT_MAC);
            assert_eq!(answer[6..12], SERVER_MAC);
            assert_eq!(answer[12..12 + tags.len()], *tags);
            rig.ack = parse(&answer).seq + 1;
            let text = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"hello");
            rig.inject(&tagged(&text, tags));
            assert_eq!(rig.state(), Some(State::Established));
            let echo = rig.wire.frames.remove(0);
            assert_eq!(echo[12..12 + tags.len()], *tags);
            assert_eq!(parse(&echo).payload, b"hello");
            // What the engine sends by itself goes the same way.
            assert!(rig.wait(ms(3000)).is_some());
            assert_eq!(rig.wire.frames[0][12..12 + tags.len()], *tags);
        }
    }
}

#[test]
fn answers_leave_by_the_device_that_the_connection_was_last_heard_from() {
    let mut rig = Rig::new(config(), App::echo());
    let syn = rig.frame(rig.seq, rig.ack, SYN, Options::default(), b"");
    rig.seq += 1;
    rig.inject_from(2, &syn);
    assert_eq!(rig.wire.device, 2);
    rig.ack = rig.one().seq + 1;
    // What the engine sends by itself goes the same way.
    rig.wire.device = 0;
    assert!(rig.wait(ms(3000)).is_some());
    assert!(rig.one().is(SYN | ACK) && rig.wire.device == 2);
    let text = rig.frame(rig.seq, rig.ack, ACK | PSH, Options::default(), b"hello");
    rig.seq += 5;
    rig.inject_from(3, &text);
    assert_eq!((rig.one().payload, rig.wire.device), (b"hello".to_vec(), 3), "at once");
    rig.wire.device = 0;
    assert!(rig.wait(ms(3000)).is_some());
    assert_eq!(
        (rig.one().payload, rig.wire.device),
        (b"hello".to_vec(), 3),
        "sent again"
    );

    // Only what is accepted says so.
    let stray = rig.frame(rig.seq - 100_000, rig.ack, ACK | PSH, Options::default(), b"stray");
    rig.inject_from(4, &stray);
    assert_eq!(rig.wire.device, 3, "a challenge");
    rig.one();
    let text = rig.frame(rig.seq, rig.ack + 5, ACK | PSH, Options::default(), b"again");
    rig.seq += 5;
    rig.inject(&text);
    assert_eq!((rig.one().payload, rig.wire.device), (b"again".to_vec(), 0));
    // A burst of several devices; and what belongs to no connection is answered where it came from.
    let [first, second] = [50_001, 50_002].map(|port| {
        rig.key.local_port = port;
        rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"")
    });
    let frame = |device, bytes| Frame { bytes, device };
    let mut devices = Vec::new();
    for burst in [
        [frame(5, &first), frame(6, &second)],
        [frame(6, &first), frame(5, &second)],
    ] {
        rig.engine
            .receive_burst(rig.now, burst, OnNoFlow::Reject, &mut rig.wire, |_, _| {});
        let answers = rig.sent();
        assert!(
            answers.len() == 2 && answers.iter().all(|answer| answer.is(RST)),
            "{answers:?}"
        );
        devices.push(rig.wire.device);
    }
    assert_eq!(devices, [6, 5]);
}

#[test]
fn a_device_without_frames_is_waited_for_once_when_all_is_reset() {
    let mut rig = Rig::new(config(), App::default());
    let seq = rig.seq;
    for number in 0..20 {
        rig.key.local_port = 41_000 + number;
        let device = (number % 2) as u8;
        let syn = rig.frame(seq, rig.ack, SYN, Options::default(), b"");
        rig.inject_from(device, &syn);
        let ack = rig.one().seq + 1;
        let third = rig.frame(seq + 1, ack, ACK, Options::default(), b"");
        rig.inject_from(device, &third);
    }
    rig.wire.down = Some(1);
    rig.engine.abort_all(rig.now, &mut rig.wire);
    assert!(rig.engine.is_sweeping(), "it waits for frames");
    rig.pass(ms(150));
    assert!(!rig.engine.is_sweeping(), "it waits for each connection");
    let resets = rig.sent();
    assert!(
        resets.len() == 10 && resets.iter().all(|reset| reset.is(RST | ACK)),
        "{resets:?}"
    );
}

#[test]
fn every_damaged_octet_of_a_segment_is_noticed() {
    for (server, client) in FAMILIES {
        let mut rig = Rig::between(config(), App::default(), server, client);
        rig.connect();
        let good = rig.frame(rig.seq, rig.ack, ACK | PSH, Options::default(), b"damaged");
        let ip = if server == SERVER { 20 } else { 40 };
        for at in 14 + ip..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                rig.inject(&bad);
            }
        }
        rig.nothing();
        assert!(rig.app().received.is_empty());
        let damaged = ((good.len() - 14 - ip) * 8) as u64;
        let noticed = rig.count(Counter::DropChecksum) + rig.count(Counter::DropMalformed);
        assert_eq!(noticed, damaged);
        rig.inject(&good);
        assert_eq!(rig.app().received, b"damaged");
    }
}

#[test]
fn a_damaged_ipv4_header_is_noticed() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let good = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"damaged");
    for at in 14..34 {
        let mut bad = good.clone();
        bad[at] ^= 0x04;
        rig.inject(&bad);
    }
    rig.nothing();
    assert!(rig.app().received.is_empty());
    rig.inject(&good);
    assert_eq!(rig.app().received, b"damaged");
}

/// The untagged IPv4 frame with these options, whole words of them, behind its IP header.
fn with_ipv4_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut longer = [&frame[..34], options, &frame[34..]].concat();
    longer[14] += (options.len() / 4) as u8;
    let total = (longer.len() - 14) as u16;
    longer[16..18].copy_from_slice(&total.to_be_bytes());
    longer[24..26].fill(0);
    let sum = checksum::ipv4_header(&longer[14..34 + options.len()]);
    longer[24..26].copy_from_slice(&sum);
    longer
}

/// The untagged IPv6 frame with this extension header, whose kind is `kind`, behind its IP header.
fn with_ipv6_header(frame: &[u8], kind: u8, header: &[u8]) -> Vec<u8> {
    let mut longer = [&frame[..54], header, &frame[54..]].concat();
    longer[20] = kind;
    let length = (longer.len() - 54) as u16;
    longer[18..20].copy_from_slice(&length.to_be_bytes());
    longer
}

#[test]
fn ipv4_options_are_harmless_but_for_source_routes() {
    // Record route, timestamp, router alert.
    for options in [
        &[7, 7, 4, 0, 0, 0, 0, 0][..],
        &[68, 8, 5, 0, 0, 0, 0, 0],
        &[148, 4, 0, 0],
    ] {
        let mut rig = Rig::new(config(), App::default());
        let syn = rig.frame(rig.seq, SeqNumber(0), SYN, Options::default(), b"");
        rig.inject(&with_ipv4_options(&syn, options));
        assert!(rig.one().is(SYN | ACK), "{options:?}");
    }
    // Loose and strict, finished (the pointer is behind the last address) and not, on a SYN and on a connection.
    for options in [
        [131, 7, 4, 198, 18, 0, 9, 0],
        [131, 7, 8, 198, 18, 0, 9, 0],
        [137, 7, 4, 198, 18, 0, 9, 0],
        [137, 7, 8, 198, 18, 0, 9, 0],
    ] {
        let mut rig = Rig::new(config(), App::default());
        let syn = rig.frame(rig.seq, SeqNumber(0), SYN, Options::default(), b"");
        rig.inject(&with_ipv4_options(&syn, &options));
        rig.nothing();
        rig.connect();
        let text = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"text");
        rig.inject(&with_ipv4_options(&text, &options));
        assert!(rig.app().received.is_empty());
        assert_eq!(rig.count(Counter::DropSourceRoute), 2, "{options:?}");
    }
}

#[test]
fn an_atomic_fragment_is_served_and_a_real_one_is_not() {
    // RFC 6946: a fragment header with offset 0 and nothing more to come.
    let mut rig = Rig::between(config(), App::default(), FAMILIES[1].0, FAMILIES[1].1);
    let syn = rig.frame(rig.seq, SeqNumber(0), SYN, Options::default(), b"");
    rig.inject(&with_ipv6_header(&syn, 44, &[6, 0, 0, 0, 1, 2, 3, 4]));
    rig.seq += 1;
    rig.ack = rig.one().seq + 1;
    let text = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"text");
    for real in [[6, 0, 0, 1, 1, 2, 3, 4], [6, 0, 0, 8, 1, 2, 3, 4]] {
        rig.inject(&with_ipv6_header(&text, 44, &real));
    }
    assert_eq!(rig.count(Counter::DropMalformed), 2);
    assert_eq!(rig.state(), Some(State::SynReceived));
    rig.inject(&with_ipv6_header(&text, 44, &[6, 0, 0, 0, 1, 2, 3, 4]));
    assert_eq!(rig.app().received, b"text");
}

#[test]
fn ipv6_headers_that_a_host_may_not_skip_are_not_skipped() {
    let mut rig = Rig::between(config(), App::default(), FAMILIES[1].0, FAMILIES[1].1);
    rig.connect();
    let text = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"text");
    for (kind, header) in [
        // A jumbo payload, an unknown option that says discard, a routing header with an address left.
        (0, [6, 0, 0xc2, 4, 0, 1, 0, 0]),
        (60, [6, 0, 0x80, 4, 0, 0, 0, 0]),
        (43, [6, 0, 0, 1, 0, 0, 0, 0]),
    ] {
        rig.inject(&with_ipv6_header(&text, kind, &header));
    }
    // Hop-by-hop options behind others.
    let inner = with_ipv6_header(&text, 0, &[6, 0, 1, 4, 0, 0, 0, 0]);
    rig.inject(&with_ipv6_header(&inner, 60, &[0, 0, 1, 4, 0, 0, 0, 0]));
    assert_eq!(rig.count(Counter::DropMalformed), 4);
    assert!(rig.app().received.is_empty());
    // A router alert, and a routing header with none left.
    rig.inject(&with_ipv6_header(&text, 0, &[6, 0, 5, 2, 0, 0, 1, 0]));
    assert_eq!(rig.app().received, b"text");
    let more = rig.frame(rig.seq + 4, rig.ack, ACK, Options::default(), b" more");
    rig.inject(&with_ipv6_header(&more, 43, &[6, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(rig.app().received, b"text more");
}

#[test]
fn reserved_bits_and_equal_ports_are_not_looked_at() {
    for reserved in 1..16 {
        let mut rig = Rig::new(config(), App::default());
        // The peer's own port may be that of the listener.
        rig.key.local_port = rig.key.remote_port;
        let mut syn = rig.frame(rig.seq, SeqNumber(0), SYN, Options::default(), b"");
        // The lowest of them was the nonce of ECN (RFC 3540).
        syn[14 + 20 + 12] |= reserved;
        seal(&mut syn, &rig.key);
        rig.inject(&syn);
        assert!(rig.one().is(SYN | ACK), "{reserved:#x}");
    }
}

#[test]
fn padding_and_ipv4_options_are_not_text() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let mut padded = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"one");
    padded.extend_from_slice(&[0xee; 20]);
    rig.inject(&padded);
    rig.seq += 3;
    // Four octets of IP options (no operation) between header and segment.
    let longer = with_ipv4_options(
        &rig.frame(rig.seq, rig.ack, ACK, Options::default(), b" two"),
        &[1, 1, 1, 0],
    );
    rig.inject(&longer);
    assert_eq!(rig.app().received, b"one two");
}

#[test]
fn no_prefix_of_a_frame_and_no_noise_is_a_segment() {
    for (server, client) in FAMILIES {
        let mut rig = Rig::between(config(), App::default(), server, client);
        rig.connect();
        let good = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"text");
        for length in 0..good.len() {
            rig.inject(&good[..length]);
        }
        for fill in [0x00, 0x45, 0x60, 0xff] {
            for length in 0..200 {
                rig.inject(&vec![fill; length]);
            }
        }
        rig.nothing();
        assert!(rig.app().received.is_empty());
        assert_eq!(rig.state(), Some(State::Established));
    }
}
