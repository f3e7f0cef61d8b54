//! Options on the wire: MSS, unknown ones, malformed ones (RFC 9293, sections 3.1 and 3.7.1; RFC 6691).

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::config::Config;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;

/// The peer's segment with these twelve octets of options.
fn with_raw_options(rig: &Rig, seq: SeqNumber, flags: tidegate_tcp::wire::Flags, raw: [u8; 12]) -> Vec<u8> {
    let options = Options {
        timestamps: Some(Timestamps { value: 0, echo: 0 }),
        ..Options::default()
    };
    let mut frame = rig.frame(seq, rig.ack, flags, options, b"");
    frame[14 + 20 + 20..14 + 20 + 32].copy_from_slice(&raw);
    seal(&mut frame, &rig.key);
    frame
}

/// The first full segment sent after a handshake whose SYN had these options.
#[track_caller]
fn first_segment(raw: [u8; 12]) -> Sent {
    let mut rig = Rig::new(config(), sender(5000));
    let syn = with_raw_options(&rig, rig.seq, SYN, raw);
    rig.seq += 1;
    rig.inject(&syn);
    let syn_ack = rig.one();
    assert!(syn_ack.is(SYN | ACK), "{raw:?}");
    rig.ack = syn_ack.seq + 1;
    rig.peer(ACK, b"");
    assert_eq!(rig.state(), Some(State::Established));
    rig.sent().remove(0)
}

#[test]
fn the_segment_size_offered_follows_the_link() {
    for (mtu, v4, v6) in [(1500, 1460, 1440), (9000, 8960, 8940), (576, 536, 516)] {
        for (server, client, mss) in [(SERVER, CLIENT, v4), ("[2001:2::1]:80", "[2001:2::2]:40000", v6)] {
            let mut rig = Rig::between(Config { mtu, ..config() }, App::default(), server, client);
            assert_eq!(rig.connect().options.mss, Some(mss));
        }
    }
}

#[test]
fn a_segment_never_exceeds_the_link_whatever_the_peer_offers() {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.connect_with(Options {
        mss: Some(u16::MAX),
        timestamps: Some(Timestamps { value: 1, echo: 0 }),
        ..Options::default()
    });
    for frame in &rig.wire.frames {
        assert!(frame.len() <= 14 + 1500);
    }
    assert_eq!(rig.sent()[0].payload.len(), 1448);
}

#[test]
fn unknown_options_are_skipped_and_those_behind_them_read() {
    // Two unknown ones, then MSS 700, then padding.
    let sent = first_segment([254, 4, 1, 2, 30, 2, 2, 4, 2, 188, 1, 0]);
    assert_eq!(sent.payload.len(), 700);
}

#[test]
fn options_may_be_unaligned_and_end_early() {
    let sent = first_segment([1, 2, 4, 2, 188, 0, 2, 4, 0, 48, 2, 4]);
    assert_eq!(sent.payload.len(), 700, "what follows the end of the list is not read");
}

#[test]
fn malformed_options_do_no_harm() {
    for raw in [
        // Lengths of zero and one.
        [2, 0, 2, 4, 1, 0, 0, 0, 0, 0, 0, 0],
        [2, 1, 2, 4, 1, 0, 0, 0, 0, 0, 0, 0],
        // Past the end of the header.
        [8, 200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2],
        // Known kinds with wrong lengths.
        [2, 3, 7, 3, 4, 1, 1, 4, 3, 0, 8, 2],
        [5, 3, 0, 5, 2, 5, 7, 0, 0, 0, 0, 0],
        [255; 12],
    ] {
        assert_eq!(first_segment(raw).payload.len(), 536, "{raw:?}");
    }
}

#[test]
fn a_tiny_segment_size_is_raised_to_a_floor() {
    // CVE-2019-11479: a peer that asks for one octet a segment.
    for mss in [0_u16, 1, 12, 47] {
        let [high, low] = mss.to_be_bytes();
        let sent = first_segment([2, 4, high, low, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(sent.payload.len(), 48, "MSS {mss}");
    }
}

#[test]
fn options_of_a_syn_mean_nothing_later() {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.window = 2920;
    rig.connect();
    let sent = rig.sent();
    rig.ack = sent[1].end();
    // MSS 100, window scale 7, SACK permitted.
    let late = with_raw_options(&rig, rig.seq, ACK, [2, 4, 0, 100, 3, 3, 7, 4, 2, 0, 0, 0]);
    rig.inject(&late);
    let more = rig.sent();
    let lengths: Vec<_> = more.iter().map(|segment| segment.payload.len()).collect();
    assert_eq!(lengths, [1460, 1460]);
}
