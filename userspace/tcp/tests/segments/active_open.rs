//! The active open and the simultaneous open (RFC 9293, sections 3.5 and 3.10.7.3).

use std::net::SocketAddr;

use crate::common::*;
use bytes::Bytes;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::OnNoFlow;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::{LinkHeader, Options};
use tidegate_tcp::{Engine, State};

#[test]
fn an_active_open_is_completed_by_the_third_segment_over_ipv4_and_ipv6() {
    for (server, client) in [(SERVER, CLIENT), ("[2001:2::1]:80", "[2001:2::2]:40000")] {
        let mut rig = Rig::between(config(), App::default(), server, client);
        let syn = rig.active_open();
        assert!(syn.flags.contains(SYN) && !syn.flags.contains(ACK));
        assert!(syn.payload.is_empty());
        assert!(syn.options.mss.is_some() && syn.options.sack_permitted);
        assert!(syn.options.window_scale.is_some() && syn.options.timestamps.is_some());
        assert_eq!(rig.state(), Some(State::SynSent));
        assert_eq!(rig.app().opened, 0);
        rig.peer(SYN | ACK, b"");
        let third = rig.one();
        assert!(third.is(ACK));
        assert_eq!((third.seq, third.ack), (syn.seq + 1, rig.seq), "SYN takes one number");
        assert_eq!(rig.state(), Some(State::Established));
        assert_eq!(rig.app().opened, 1);
        assert_eq!(rig.count(Counter::ActiveOpens), 1);
        rig.peer(ACK, b"hello");
        assert_eq!(rig.app().received, b"hello");
    }
}

#[test]
fn the_syn_is_sent_again_with_back_off_and_then_given_up() {
    let mut rig = Rig::new(config(), App::default());
    let start = rig.now;
    let syn = rig.active_open();
    let mut gaps = Vec::new();
    while let Some(gap) = rig.wait(ms(300_000)) {
        let again = rig.one();
        assert!(again.flags.contains(SYN) && !again.flags.contains(ACK));
        assert_eq!(again.seq, syn.seq);
        gaps.push(gap);
        assert!(rig.now.since(start) < ms(300_000));
    }
    assert_eq!(gaps[..4], [ms(1000), ms(2000), ms(4000), ms(8000)]);
    assert_eq!(rig.count(Counter::TimedOut), 1);
    assert_eq!(rig.app().opened, 0);
    rig.assert_empty();
}

#[test]
fn text_on_the_syn_ack_is_delivered_once() {
    let mut rig = Rig::new(config(), App::default());
    rig.active_open();
    rig.peer_at(rig.seq, SYN | ACK, b"hello");
    rig.seq += 1;
    rig.sent();
    rig.peer_at(rig.seq, ACK, b"hello, world");
    assert_eq!(rig.app().received, b"hello, world");
}

#[test]
fn a_simultaneous_open_goes_through_syn_received() {
    // RFC 9293, section 3.5, figure 7.
    let mut rig = Rig::new(config(), App::default());
    let syn = rig.active_open();
    rig.peer(SYN, b"");
    let answer = rig.one();
    assert!(answer.flags.contains(SYN | ACK));
    assert_eq!((answer.seq, answer.ack), (syn.seq, rig.seq));
    assert_eq!(rig.state(), Some(State::SynReceived));
    assert_eq!(rig.app().opened, 0);
    rig.peer_at(rig.seq - 1, SYN | ACK, b"");
    assert_eq!(rig.state(), Some(State::Established));
    assert_eq!(rig.app().opened, 1);
    rig.sent();
    rig.peer(ACK, b"hello");
    assert_eq!(rig.app().received, b"hello");
}

#[test]
fn a_simultaneous_open_may_also_end_with_a_bare_acknowledgment() {
    let mut rig = Rig::new(config(), App::default());
    rig.active_open();
    rig.peer(SYN, b"");
    rig.sent();
    rig.peer(ACK, b"");
    assert_eq!(rig.state(), Some(State::Established));
}

#[test]
fn text_on_a_crossing_syn_ack_is_delivered_once_and_not_shifted() {
    let mut rig = Rig::new(config(), App::default());
    rig.active_open();
    rig.peer(SYN, b"");
    rig.sent();
    // SYN stands at seq - 1, so the text begins at seq.
    rig.peer_at(rig.seq - 1, SYN | ACK, b"hello");
    rig.peer_at(rig.seq, ACK, b"hello, world");
    assert_eq!(rig.state(), Some(State::Established));
    assert_eq!(rig.app().received, b"hello, world");
}

#[test]
fn two_engines_that_open_to_each_other_share_one_connection() {
    let a: SocketAddr = "198.18.0.1:4000".parse().unwrap();
    let b: SocketAddr = "198.18.0.2:5000".parse().unwrap();
    let app = |text: &'static [u8]| App {
        greeting: Bytes::from_static(text),
        ..App::default()
    };
    let mut left = Engine::new(config(), secrets(1), app(b"from the left"));
    let mut right = Engine::new(config(), secrets(2), app(b"from the right"));
    let (mut from_left, mut from_right) = (Wire::default(), Wire::default());
    let now = Instant::from_millis(1_000_000);
    let to_right = LinkHeader::new(CLIENT_MAC, SERVER_MAC, true);
    let to_left = LinkHeader::new(SERVER_MAC, CLIENT_MAC, true);
    left.connect(now, a, b, &to_right, &mut from_left).unwrap();
    right.connect(now, b, a, &to_left, &mut from_right).unwrap();
    for _ in 0..20 {
        let crossing = (
            std::mem::take(&mut from_left.frames),
            std::mem::take(&mut from_right.frames),
        );
        for frame in crossing.0 {
            right.receive(now, &frame, OnNoFlow::Reject, &mut from_right);
        }
        for frame in crossing.1 {
            left.receive(now, &frame, OnNoFlow::Reject, &mut from_left);
        }
    }
    assert_eq!(right.application().received, b"from the left");
    assert_eq!(left.application().received, b"from the right");
    for engine in [&left, &right] {
        assert_eq!(engine.population().connections, 1);
        assert_eq!(engine.application().opened, 1);
        assert_eq!(engine.counters().get(Counter::ActiveOpens), 1);
    }
    assert!(from_left.frames.is_empty() && from_right.frames.is_empty());
}

#[test]
fn a_wrong_acknowledgment_of_the_syn_is_reset_and_changes_nothing() {
    let mut rig = Rig::new(config(), App::default());
    let syn = rig.active_open();
    for wrong in [syn.seq, syn.seq + 2, syn.seq + 0x4000_0000] {
        rig.ack = wrong;
        rig.peer_at(rig.seq, SYN | ACK, b"");
        let reset = rig.one();
        assert!(reset.is(RST));
        assert_eq!(reset.seq, wrong);
        rig.peer_at(rig.seq, ACK, b"text");
        assert!(rig.one().is(RST));
    }
    assert_eq!(rig.state(), Some(State::SynSent));
    rig.ack = syn.seq + 1;
    rig.peer(SYN | ACK, b"");
    assert_eq!(rig.state(), Some(State::Established));
    assert!(rig.app().received.is_empty());
}

#[test]
fn only_a_reset_that_acknowledges_the_syn_refuses_it() {
    let mut rig = Rig::new(config(), App::default());
    let syn = rig.active_open();
    rig.peer_at(rig.seq, RST, b"");
    rig.ack = syn.seq + 77;
    rig.peer_at(rig.seq, RST | ACK, b"");
    rig.nothing();
    assert_eq!(rig.state(), Some(State::SynSent));
    rig.ack = syn.seq + 1;
    rig.peer_at(SeqNumber(0), RST | ACK, b"");
    rig.nothing();
    assert_eq!(rig.state(), None);
    assert_eq!(rig.app().opened, 0);
    rig.assert_empty();
}

#[test]
fn the_window_of_a_syn_ack_is_not_scaled() {
    // RFC 7323, section 2.2; crossing another one and not.
    let options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        ..Options::default()
    };
    for crossing in [false, true] {
        let mut rig = Rig::new(config(), sender(100_000));
        rig.active_open();
        rig.window = 4000;
        if crossing {
            rig.syn(options);
            rig.sent();
            rig.seq = rig.seq - 1;
        }
        let syn_ack = rig.frame(rig.seq, rig.ack, SYN | ACK, options, b"");
        rig.seq += 1;
        rig.inject(&syn_ack);
        assert_eq!(rig.state(), Some(State::Established));
        let sent: usize = rig.sent().iter().map(|segment| segment.payload.len()).sum();
        assert!((2920..=4000).contains(&sent), "{sent} octets, crossing: {crossing}");
        // That of the next segment is.
        rig.ack += sent as u32;
        rig.peer(ACK, b"");
        let sent: usize = rig.sent().iter().map(|segment| segment.payload.len()).sum();
        assert!(sent > 4000, "{sent} octets, crossing: {crossing}");
    }
}

#[test]
fn a_syn_ack_that_does_not_cross_is_challenged() {
    // Only the SYN-ACK that repeats the peer's SYN and acknowledges this side's completes a simultaneous open, as in
    // Linux.
    for (offset, wrong) in [(0, 1), (0, 0x4000_0000), (5, 0), (0x4000_0000, 0)] {
        let mut rig = Rig::new(config(), App::default());
        let syn = rig.active_open();
        rig.peer(SYN, b"");
        rig.sent();
        rig.ack += wrong;
        rig.peer_at(rig.seq - 1 + offset, SYN | ACK, b"");
        let answer = rig.one();
        assert!(answer.is(SYN | ACK), "{answer:?}");
        assert_eq!((answer.seq, answer.ack), (syn.seq, rig.seq));
        assert_eq!(rig.state(), Some(State::SynReceived));
        rig.ack = syn.seq + 1;
        rig.peer_at(rig.seq - 1, SYN | ACK, b"");
        assert_eq!(rig.state(), Some(State::Established));
    }
}
