//! Explicit congestion notification (RFC 3168).

use crate::common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::{Flags, Options};

const NOT_ECT: u8 = 0b00;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// A handshake whose SYN has these flags; returns the SYN-ACK.
#[track_caller]
fn open(rig: &mut Rig, flags: Flags) -> Sent {
    let options = Options {
        mss: Some(1460),
        ..Options::default()
    };
    let syn = rig.frame(rig.seq, SeqNumber(0), flags, options, b"");
    rig.seq += 1;
    rig.inject(&syn);
    let syn_ack = rig.one();
    rig.ack = syn_ack.seq + 1;
    rig.peer(ACK, b"");
    syn_ack
}

/// The ECN field of an untagged frame.
fn ecn(frame: &[u8]) -> u8 {
    match frame[12..14] {
        [0x08, 0x00] => frame[15] & 0b11,
        _ => (frame[15] >> 4) & 0b11,
    }
}

/// The peer's text arrives with a CE mark.
fn marked(rig: &mut Rig, text: &[u8]) {
    let mut frame = rig.frame(rig.seq, rig.ack, ACK, Options::default(), text);
    frame[15] |= if rig.key.is_v4() { CE } else { CE << 4 };
    seal(&mut frame, &rig.key);
    rig.seq += text.len() as u32;
    rig.inject(&frame);
}

#[test]
fn it_is_negotiated_and_text_is_sent_ect() {
    for (server, client) in [(SERVER, CLIENT), ("[2001:2::1]:80", "[2001:2::2]:40000")] {
        let mut rig = Rig::between(config(), sender(100), server, client);
        let syn_ack = open(&mut rig, SYN | ECE | CWR);
        assert!(syn_ack.is(SYN | ACK | ECE), "{syn_ack:?}");
        assert_eq!(ecn(&rig.wire.frames[0]), ECT_0);
        let text = rig.one();
        assert!(text.is(ACK | PSH));
        rig.acknowledge(&text);
        rig.peer(ACK | FIN, b"bare acknowledgments are not marked");
        assert_eq!(ecn(&rig.wire.frames[0]), NOT_ECT);
    }
}

#[test]
fn it_is_not_used_with_a_peer_that_does_not_ask_or_when_turned_off() {
    let off = Config { ecn: false, ..config() };
    for (limits, flags) in [
        (config(), SYN),
        (config(), SYN | ECE),
        (config(), SYN | CWR),
        (off, SYN | ECE | CWR),
    ] {
        let mut rig = Rig::new(limits, sender(100_000));
        let syn_ack = open(&mut rig, flags);
        assert!(syn_ack.is(SYN | ACK));
        assert!(rig.wire.frames.iter().all(|frame| ecn(frame) == NOT_ECT));
        let first = rig.sent();
        // Marks and echoes mean nothing then.
        marked(&mut rig, b"marked");
        rig.ack = first[9].end();
        rig.peer(ACK | ECE, b"");
        let more = rig.sent();
        assert!(more.len() > 10);
        assert!(more.iter().all(|segment| !segment.flags.intersects(ECE | CWR)));
    }
}

#[test]
fn a_mark_is_echoed_until_the_peer_says_that_it_has_slowed_down() {
    let mut rig = Rig::new(config(), App::default());
    open(&mut rig, SYN | ECE | CWR);
    marked(&mut rig, b"marked");
    assert!(rig.one().is(ACK | ECE), "at once");
    for _ in 0..3 {
        rig.peer(ACK, b"more");
        rig.pass(ms(50));
        assert!(rig.one().is(ACK | ECE));
    }
    rig.peer(ACK | CWR, b"slower");
    rig.pass(ms(50));
    assert!(rig.one().is(ACK));
}

#[test]
fn an_echo_makes_the_window_smaller_once_per_round_trip_and_is_answered() {
    let mut rig = Rig::new(config(), sender(300_000));
    open(&mut rig, SYN | ECE | CWR);
    let first = rig.sent();
    rig.acknowledge(&first[9]);
    let flight = rig.sent();
    assert_eq!(flight.len(), 18);
    // Every acknowledgment of this flight but the last carries the echo.
    let mut new = Vec::new();
    for (index, segment) in flight.iter().enumerate() {
        rig.ack = segment.end();
        rig.peer(if index < 17 { ACK | ECE } else { ACK }, b"");
        new.append(&mut rig.sent());
    }
    assert!(new[0].flags.contains(CWR));
    assert!(new[1..].iter().all(|segment| !segment.flags.contains(CWR)));
    assert!((7..=17).contains(&new.len()), "{} segments in flight", new.len());
    assert!(new.iter().all(|segment| segment.seq.at_or_after(flight[17].end())));
}

#[test]
fn an_echo_counts_again_only_when_the_answer_has_arrived() {
    let mut rig = Rig::new(config(), sender(300_000));
    open(&mut rig, SYN | ECE | CWR);
    let first = rig.sent();
    rig.acknowledge(&first[9]);
    let flight = rig.sent();
    // The peer goes on echoing until CWR arrives, which goes with what is sent after this flight.
    for segment in &flight {
        rig.ack = segment.end();
        rig.peer(ACK | ECE, b"");
    }
    assert_eq!(rig.count(Counter::CongestionEchoes), 1);
    let new = rig.sent();
    assert_eq!(new[0].seq, flight[flight.len() - 1].end());
    assert!(new[0].flags.contains(CWR));
    rig.ack = new[0].end();
    rig.peer(ACK | ECE, b"");
    assert_eq!(rig.count(Counter::CongestionEchoes), 2);
}

#[test]
fn what_is_sent_again_is_not_ect() {
    // RFC 3168, section 6.1.5.
    let mut rig = Rig::new(config(), sender(100));
    open(&mut rig, SYN | ECE | CWR);
    rig.sent();
    assert!(rig.wait(ms(3000)).is_some());
    assert_eq!(ecn(&rig.wire.frames[0]), NOT_ECT);
}

#[test]
fn a_forged_echo_from_outside_the_window_changes_nothing() {
    let mut rig = Rig::new(config(), sender(100_000));
    open(&mut rig, SYN | ECE | CWR);
    let first = rig.sent();
    let (seq, ack) = (rig.seq, rig.ack);
    rig.peer_at(seq + 0x1000_0000, ACK | ECE, b"");
    rig.ack = ack + 0x1000_0000;
    rig.peer_at(seq, ACK | ECE, b"");
    rig.sent();
    rig.ack = ack;
    rig.acknowledge(&first[9]);
    assert_eq!(rig.sent().len(), 18);
}
