//! Attacks by someone who knows the 4-tuple but not the sequence numbers (RFC 5961).

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::wire::Options;

fn connected() -> Rig {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig
}

#[test]
fn a_reset_in_the_window_is_challenged_and_the_real_one_then_closes() {
    let mut rig = connected();
    rig.peer_at(rig.seq + 100, RST, b"");
    let challenge = rig.one();
    assert!(challenge.is(ACK));
    assert_eq!((challenge.seq, challenge.ack), (rig.ack, rig.seq));
    assert_eq!(rig.state(), Some(State::Established));
    // A peer that really is gone answers the challenge with the exact number.
    rig.peer_at(challenge.ack, RST, b"");
    assert_eq!(rig.app().closed, [CloseReason::ResetByPeer]);
    rig.assert_empty();
}

#[test]
fn a_reset_outside_of_the_window_is_dropped_without_an_answer() {
    let mut rig = connected();
    for distance in [70_000, 0x1000_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        rig.peer_at(rig.seq + distance, RST, b"");
        rig.peer_at(rig.seq + distance, RST | ACK, b"");
    }
    rig.nothing();
    assert_eq!(rig.count(Counter::DropOutOfWindow), 10);
    assert_eq!(rig.state(), Some(State::Established));
}

#[test]
fn a_reset_with_text_counts_by_its_sequence_number_alone() {
    let mut rig = connected();
    rig.peer_at(rig.seq - 3, RST, b"overlapping");
    rig.sent();
    assert_eq!(rig.state(), Some(State::Established));
    rig.ack += 0x1000_0000;
    rig.peer_at(rig.seq, RST | ACK, b"why not");
    assert_eq!(rig.state(), None);
    assert!(rig.app().received.is_empty());
}

#[test]
fn a_syn_is_challenged_wherever_it_stands_and_a_restarted_peer_can_connect_again() {
    let mut rig = connected();
    for distance in [0, 1, 1000, 70_000, 0x4000_0000, 0x8000_0000, 0xffff_ffff] {
        rig.pass(ms(1000));
        rig.peer_at(rig.seq + distance, SYN, b"");
        let challenge = rig.one();
        assert!(challenge.is(ACK));
        assert_eq!((challenge.seq, challenge.ack), (rig.ack, rig.seq));
    }
    assert_eq!(rig.state(), Some(State::Established));
    // RFC 9293, section 3.5.1, figure 9: the peer has restarted, and resets what it does not know.
    rig.peer(RST, b"");
    assert_eq!(rig.app().closed, [CloseReason::ResetByPeer]);
    rig.seq += 4711;
    rig.connect();
    assert_eq!(rig.state(), Some(State::Established));
}

#[test]
fn text_is_taken_only_with_an_acknowledgment_in_range() {
    // RFC 5961, section 5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT.
    let mut rig = connected();
    let ack = rig.ack;
    for wrong in [ack + 1, ack + 1000, ack + 0x7fff_ffff, ack - 65_536, ack - 0x4000_0000] {
        rig.ack = wrong;
        rig.peer_at(rig.seq, ACK, b"injected");
        rig.peer_at(rig.seq, ACK | FIN, b"");
    }
    assert_eq!(rig.count(Counter::DropBadAck), 10);
    assert!(rig.app().received.is_empty());
    assert_eq!(rig.app().ends, 0);
    assert_eq!(rig.engine.reassembly_bytes(), 0);
    for old in [ack - 65_535, ack - 1] {
        rig.ack = old;
        rig.peer(ACK, b"old");
    }
    rig.ack = ack;
    rig.peer(ACK, b" new");
    assert_eq!(rig.app().received, b"oldold new");
}

#[test]
fn an_old_acknowledgment_changes_nothing_that_is_outstanding() {
    let mut rig = Rig::new(config(), sender(20_000));
    rig.connect();
    let sent = rig.sent();
    let old = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"");
    rig.acknowledge(&sent[4]);
    rig.sent();
    for _ in 0..100 {
        rig.inject(&old);
    }
    rig.nothing();
    assert_eq!(rig.read_in_time(20_000 - 5 * 1460), pattern(20_000)[5 * 1460..]);
}

#[test]
fn one_connections_challenges_do_not_use_up_anothers() {
    // CVE-2016-5696: a limit that an attacker can observe through his own connection tells him about others.
    let limits = Config {
        challenge_ack_rate: 5,
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    rig.connect();
    let first = (rig.key, rig.seq, rig.ack);
    rig.key.local_port += 1;
    rig.connect();
    for _ in 0..50 {
        rig.peer_at(rig.seq + 10, RST, b"");
    }
    assert_eq!(rig.sent().len(), 5);
    assert!(rig.count(Counter::ChallengeAcksLimited) >= 45);
    (rig.key, rig.seq, rig.ack) = first;
    for _ in 0..5 {
        rig.peer_at(rig.seq + 10, RST, b"");
        assert!(rig.one().is(ACK));
    }
}

#[test]
fn guesses_spread_over_the_sequence_space_close_and_insert_nothing() {
    // Every guess lies outside of the window; inside of it only the exact number would do for a reset.
    let mut rig = connected();
    let (seq, ack) = (rig.seq, rig.ack);
    let mut guess = 70_000_u32;
    while guess < u32::MAX - 600_000 {
        rig.ack = ack + guess;
        rig.peer_at(seq + guess, RST, b"");
        rig.peer_at(seq + guess, SYN, b"");
        rig.peer_at(seq + guess, ACK, b"injected");
        rig.peer_at(seq + guess, ACK | FIN, b"");
        guess += 500_009;
    }
    rig.ack = ack;
    assert_eq!(rig.state(), Some(State::Established));
    assert!(rig.app().received.is_empty());
    assert_eq!(rig.engine.reassembly_bytes(), 0);
    rig.sent();
    rig.peer(ACK, b"real");
    assert_eq!(rig.app().received, b"real");
}
