//! Frames around segments: 802.1Q, both IP versions, checksums (RFC 791, RFC 8200, RFC 9293, section 3.1).
#![allow(missing_docs)]

mod common;

use common::*;
use tidegate_tcp::State;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::wire::Options;

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
            let app = App {
                echo: true,
                ..App::default()
            };
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

#[test]
fn padding_and_ipv4_options_are_not_text() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let mut padded = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"one");
    padded.extend_from_slice(&[0xee; 20]);
    rig.inject(&padded);
    rig.seq += 3;
    // Four octets of IP options (no operation) between header and segment.
    let plain = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b" two");
    let mut longer = [&plain[..34], &[1, 1, 1, 0][..], &plain[34..]].concat();
    longer[14] = 0x46;
    let total = (longer.len() - 14) as u16;
    longer[16..18].copy_from_slice(&total.to_be_bytes());
    longer[24..26].fill(0);
    let sum = tidegate_tcp::wire::checksum::ipv4_header(&longer[14..38]);
    longer[24..26].copy_from_slice(&sum);
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
