//! Nagle's algorithm (RFC 9293, section 3.7.4).

use crate::common::*;
use bytes::Bytes;
use tidegate_tcp::wire::Options;

fn open() -> Rig {
    let mut rig = Rig::new(config(), App::default());
    rig.connect_actively(Options {
        mss: Some(1460),
        ..Options::default()
    });
    rig.sent();
    rig
}

fn write(rig: &mut Rig, text: &'static [u8]) {
    rig.on_stream(|stream| assert_eq!(stream.send(&mut Bytes::from_static(text)), text.len()));
}

#[test]
fn small_writes_are_collected_while_one_is_unacknowledged() {
    let mut rig = open();
    write(&mut rig, b"a");
    let first = rig.one();
    write(&mut rig, b"b");
    write(&mut rig, b"c");
    write(&mut rig, b"d");
    rig.nothing();
    rig.acknowledge(&first);
    assert_eq!(rig.one().payload, b"bcd");
}

#[test]
fn full_segments_are_never_held_back() {
    let mut rig = open();
    write(&mut rig, b"a");
    rig.one();
    write(&mut rig, &[7; 2920]);
    let lengths: Vec<_> = rig.sent().iter().map(|segment| segment.payload.len()).collect();
    assert_eq!(lengths, [1460, 1460]);
}

#[test]
fn fin_takes_along_what_was_held_back() {
    let mut rig = open();
    write(&mut rig, b"a");
    rig.one();
    write(&mut rig, b"b");
    rig.nothing();
    rig.on_stream(|stream| stream.shutdown());
    let last = rig.one();
    assert_eq!(last.payload, b"b");
    assert!(last.is(ACK | FIN | PSH));
}

#[test]
fn what_is_held_back_is_sent_even_if_the_acknowledgment_is_lost() {
    let mut rig = open();
    write(&mut rig, b"a");
    let first = rig.one();
    write(&mut rig, b"b");
    // The acknowledgment is lost; it comes in answer to the retransmission.
    assert!(rig.wait(ms(3000)).is_some());
    rig.sent();
    rig.acknowledge(&first);
    assert_eq!(rig.one().payload, b"b");
}
