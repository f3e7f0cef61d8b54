//! Urgent data is delivered in line (RFC 6093).

use crate::common::*;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;

/// The peer sends a segment with URG and this urgent pointer.
fn urgent(rig: &mut Rig, seq: SeqNumber, pointer: u16, text: &[u8]) {
    let mut frame = rig.frame(seq, rig.ack, ACK | URG, Options::default(), text);
    frame[14 + 20 + 18..14 + 20 + 20].copy_from_slice(&pointer.to_be_bytes());
    seal(&mut frame, &rig.key);
    rig.inject(&frame);
}

#[test]
fn no_urgent_pointer_takes_an_octet_out_of_the_stream() {
    for pointer in [0, 1, 4, 7, 8, 1000, u16::MAX] {
        let mut rig = Rig::new(config(), App::default());
        rig.connect();
        let seq = rig.seq;
        urgent(&mut rig, seq, pointer, b"urgent!");
        rig.seq += 7;
        rig.peer(ACK, b" and more");
        assert_eq!(rig.app().received, b"urgent! and more", "{pointer}");
    }
}

#[test]
fn urg_without_text_changes_nothing() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let seq = rig.seq;
    for pointer in [0, 1, u16::MAX] {
        urgent(&mut rig, seq, pointer, b"");
    }
    rig.pass(ms(100));
    rig.nothing();
    assert!(rig.app().received.is_empty());
    rig.peer(ACK, b"text");
    assert_eq!(rig.app().received, b"text");
}

#[test]
fn an_urgent_pointer_without_urg_is_not_looked_at() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let mut frame = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"text");
    frame[14 + 20 + 18..14 + 20 + 20].copy_from_slice(&[0, 2]);
    seal(&mut frame, &rig.key);
    rig.inject(&frame);
    assert_eq!(rig.app().received, b"text");
}

#[test]
fn urgent_segments_out_of_order_and_overlapping_arrive_in_order_once() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let text = pattern(300);
    let start = rig.seq;
    // From the end to the beginning, each overlapping the next, every pointer somewhere else.
    for at in (0..30).rev() {
        let from = at * 10;
        let to = (from + 25).min(text.len());
        let pointer = (at as u16).wrapping_mul(9973);
        urgent(&mut rig, start + from as u32, pointer, &text[from..to]);
    }
    assert_eq!(rig.app().received, text);
    assert_eq!(rig.engine.reassembly_bytes(), 0);
}
