//! RST for what belongs to no connection (RFC 9293, sections 3.5.2 and 3.10.7.1).

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::OnNoFlow;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::{Flags, Options};

#[test]
fn a_segment_for_a_closed_connection_is_reset() {
    for (server, client) in [(SERVER, CLIENT), ("[2001:2::1]:80", "[2001:2::2]:40000")] {
        let mut rig = Rig::between(
            config(),
            App {
                abort_on: Some(b'!'),
                ..App::default()
            },
            server,
            client,
        );
        rig.connect();
        rig.peer(ACK, b"stop!");
        assert!(rig.one().is(RST | ACK));
        rig.peer(ACK, b"still here");
        let reset = rig.one();
        assert!(reset.is(RST));
        assert_eq!(reset.seq, rig.ack);
        assert!(reset.payload.is_empty());
    }
}

#[test]
fn a_stray_syn_ack_is_reset_with_its_own_acknowledgment() {
    let mut rig = Rig::new(config(), App::default());
    rig.ack = SeqNumber(0xdead_beef);
    rig.peer_at(rig.seq, SYN | ACK, b"");
    let reset = rig.one();
    assert!(reset.is(RST));
    assert_eq!(reset.seq, SeqNumber(0xdead_beef));
    rig.assert_empty();
}

#[test]
fn a_listener_drops_what_has_neither_ack_nor_syn() {
    // RFC 9293, section 3.10.7.2, fourth: null, FIN and Christmas tree scans find nothing out, also where cookies are
    // on.
    for cookies in [false, true] {
        let mut rig = Rig::new(config(), App::default());
        if cookies {
            rig.engine.set_cookies(Some(cookie::cookies(cookie::EPOCH)));
        }
        for (flags, text) in [
            (Flags(0), &b""[..]),
            (FIN, b""),
            (URG | PSH | FIN, b""),
            (PSH, b"text"),
            (FIN | PSH | URG | ECE | CWR, b"text"),
        ] {
            rig.peer_at(rig.seq, flags, text);
            rig.nothing();
        }
        assert_eq!(rig.count(Counter::DropNoAck), 5);
        assert_eq!(rig.count(Counter::RstsOut), 0);
        rig.assert_empty();
        rig.connect();
        assert_eq!(rig.state(), Some(State::Established));
    }
}

#[test]
fn what_has_neither_ack_nor_syn_may_be_another_shards() {
    let mut rig = Rig::new(config(), App::default());
    let frame = rig.frame(rig.seq, rig.ack, FIN, Options::default(), b"");
    let received = rig.engine.receive(rig.now, &frame, OnNoFlow::Report, &mut rig.wire);
    assert_eq!(received, NO_FLOW);
    assert_eq!(rig.count(Counter::DropNoAck), 0);
}

#[test]
fn a_reset_is_never_answered_with_a_reset() {
    let mut rig = Rig::new(config(), App::default());
    for flags in [RST, RST | ACK, RST | FIN, RST | PSH | URG, RST | SYN, Flags(0xff)] {
        rig.peer_at(rig.seq, flags, b"text");
    }
    rig.nothing();
    assert_eq!(rig.count(Counter::RstsOut), 0);
    rig.assert_empty();
}

#[test]
fn resets_go_on_at_their_rate_after_a_flood() {
    let limits = tidegate_tcp::Config {
        rst_rate: 10,
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    for _ in 0..2 {
        for port in 0..1000 {
            rig.key.local_port = 1000 + port;
            rig.peer_at(rig.seq, ACK, b"");
        }
        let sent = rig.sent().len();
        assert!((5..15).contains(&sent), "{sent}");
        rig.pass(ms(1000));
    }
}

#[test]
fn counting_resets_tells_nothing_of_those_that_others_got() {
    // CVE-2016-5696: somebody who has all of the limit to himself, but for what he makes a forged segment use up.
    let counts = |secret: u64, forged: usize| -> Vec<usize> {
        let mut rig = Rig::with_secrets(config(), App::default(), secrets(secret));
        (0..100)
            .map(|_| {
                for _ in 0..forged {
                    rig.key.local_port = 999;
                    rig.peer_at(rig.seq, ACK, b"");
                }
                rig.sent();
                for _ in 0..3000 {
                    rig.key.local_port = 1000;
                    rig.peer_at(rig.seq, ACK, b"");
                }
                rig.pass(ms(1000));
                rig.sent().len()
            })
            .collect()
    };
    let alone = counts(1, 0);
    let rate = config().rst_rate as usize;
    assert!(alone.iter().all(|&count| count < rate + rate / 2), "{alone:?}");
    let mean = alone.iter().sum::<usize>() / alone.len();
    assert!((rate * 9 / 10..rate * 11 / 10).contains(&mean), "{mean}");
    // The numbers of a second with a forged segment are numbers of one without.
    let together = counts(2, 1);
    let range = |counts: &[usize]| {
        counts
            .iter()
            .copied()
            .fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)))
    };
    for counts in [&alone, &together] {
        let (least, most) = range(counts);
        assert!(most - least > rate / 2, "{least} to {most}");
        let changes = counts.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes > 90, "{counts:?}");
    }
}
