//! The push function (RFC 9293, section 3.9.1.2).

use crate::common::*;
use tidegate_tcp::wire::Options;

#[test]
fn a_write_that_ends_with_a_full_segment_ends_with_psh() {
    let mut rig = Rig::new(config(), sender(2 * 1460));
    rig.connect();
    let sent = rig.sent();
    assert_eq!(sent.len(), 2);
    assert!(sent[0].is(ACK) && sent[1].is(ACK | PSH));
}

#[test]
fn the_end_of_a_write_that_waits_for_the_window_carries_psh_when_it_is_sent() {
    let mut rig = Rig::new(config(), sender(30 * 1460));
    rig.connect();
    let mut flags = Vec::new();
    loop {
        let sent = rig.sent();
        let Some(last) = sent.last() else { break };
        flags.extend(sent.iter().map(|segment| segment.flags));
        rig.acknowledge(last);
    }
    assert_eq!(flags.len(), 30);
    assert!(flags[..29].iter().all(|&flags| flags == ACK));
    assert_eq!(flags[29], ACK | PSH);
}

#[test]
fn psh_is_there_again_when_the_end_of_a_write_is_sent_again() {
    let mut rig = Rig::new(config(), sender(100));
    rig.connect();
    let first = rig.one();
    assert!(first.is(ACK | PSH));
    assert!(rig.wait(ms(3000)).is_some());
    assert!(rig.one().is(ACK | PSH));
}

#[test]
fn text_without_psh_is_delivered_at_once_and_psh_without_text_means_nothing() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.peer(ACK, b"no push");
    assert_eq!(rig.app().received, b"no push");
    rig.pass(ms(100));
    rig.sent();
    for _ in 0..100 {
        let frame = rig.frame(rig.seq, rig.ack, ACK | PSH, Options::default(), b"");
        rig.inject(&frame);
    }
    rig.pass(ms(100));
    rig.nothing();
    assert_eq!(rig.app().received, b"no push");
}
