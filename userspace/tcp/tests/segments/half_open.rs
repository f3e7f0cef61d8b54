//! Between SYN and the third segment (RFC 9293, sections 3.5 and 3.10.7; RFC 4987).

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;

#[test]
fn an_answer_to_the_last_syn_ack_still_opens_the_connection() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    rig.ack = rig.one().seq + 1;
    rig.pass(ms(62_000));
    assert_eq!(rig.sent().len(), 5);
    rig.peer(ACK, b"");
    assert_eq!(rig.state(), Some(State::Established));
    assert_eq!(rig.app().opened, 1);
}

#[test]
fn repeated_syns_do_not_prolong_a_half_open_connection() {
    let mut rig = Rig::new(config(), App::default());
    let syn = rig.frame(rig.seq, SeqNumber(0), SYN, Options::default(), b"");
    for _ in 0..12 {
        rig.inject(&syn);
        rig.pass(ms(5000));
    }
    assert_eq!(rig.engine.population().half_open, 1);
    rig.pass(ms(5000));
    assert_eq!(rig.count(Counter::HalfOpenTimedOut), 1);
    rig.assert_empty();
}

#[test]
fn a_syn_ack_that_was_sent_twice_is_not_timed() {
    // Karn's algorithm: which of the two the third segment acknowledges cannot be told.
    let mut rig = Rig::new(config(), App::default());
    let syn = rig.frame(rig.seq, SeqNumber(0), SYN, Options::default(), b"");
    rig.inject(&syn);
    rig.pass(ms(500));
    rig.inject(&syn);
    rig.seq += 1;
    let answers = rig.sent();
    assert_eq!(answers.len(), 2);
    rig.ack = answers[0].seq + 1;
    rig.pass(ms(20));
    rig.peer(ACK, b"");
    assert_eq!(rig.state(), Some(State::Established));
    assert_eq!(rig.info().srtt, None);
}

#[test]
fn the_window_of_a_challenge_is_scaled() {
    // RFC 7323, section 2.2: only those of SYN and SYN-ACK are not.
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options {
        window_scale: Some(7),
        ..Options::default()
    });
    let syn_ack = rig.one();
    rig.ack = syn_ack.seq + 1;
    rig.peer_at(rig.seq + 0x1000_0000, ACK, b"");
    let challenge = rig.one();
    assert!(challenge.is(ACK));
    let shift = syn_ack.options.window_scale.expect("windows are not scaled");
    let offered = u32::from(challenge.window) << shift;
    assert!((1..=u32::from(syn_ack.window)).contains(&offered), "{offered}");
}

#[test]
fn text_on_the_syn_is_not_kept() {
    let mut rig = Rig::new(config(), App::default());
    let syn = rig.frame(rig.seq, SeqNumber(0), SYN, Options::default(), b"hello");
    rig.inject(&syn);
    rig.seq += 1;
    let syn_ack = rig.one();
    assert_eq!(syn_ack.ack, rig.seq, "SYN alone is acknowledged");
    rig.ack = syn_ack.seq + 1;
    rig.peer(ACK, b"hello");
    assert_eq!(rig.app().received, b"hello");
}

#[test]
fn the_third_segment_may_carry_text_and_fin() {
    let mut rig = Rig::new(config(), App::echo());
    rig.syn(Options::default());
    rig.ack = rig.one().seq + 1;
    rig.peer(ACK | FIN | PSH, b"short");
    assert_eq!(rig.app().received, b"short");
    assert_eq!(rig.app().ends, 1);
    assert_eq!(rig.state(), Some(State::CloseWait));
    let echo = rig.one();
    assert_eq!((echo.payload.as_slice(), echo.ack), (&b"short"[..], rig.seq));
}

#[test]
fn a_lost_third_segment_is_replaced_by_the_first_text() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    rig.ack = rig.one().seq + 1;
    // The second segment of the request comes first; it cannot be delivered yet, but completes the handshake.
    rig.peer_at(rig.seq + 5, ACK, b"world");
    assert_eq!(rig.state(), Some(State::Established));
    rig.peer_at(rig.seq, ACK, b"hello");
    assert_eq!(rig.app().received, b"helloworld");
}

#[test]
fn text_that_does_not_acknowledge_the_syn_ack_reaches_nobody() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    let syn_ack = rig.one();
    for guess in [syn_ack.seq, syn_ack.seq + 2, SeqNumber(0), syn_ack.seq + 0x8000_0001] {
        rig.ack = guess;
        rig.peer_at(rig.seq, ACK | PSH, b"guess");
        assert!(rig.one().is(RST));
    }
    assert_eq!(rig.app().opened, 0);
    assert_eq!(rig.engine.reassembly_bytes(), 0);
    assert_eq!(rig.engine.population().half_open, 1);
    assert_eq!(rig.count(Counter::BytesIn), 0);
}

#[test]
fn a_half_open_connection_costs_no_application_and_no_place_among_the_connections() {
    let mut rig = Rig::new(config(), App::default());
    for port in 0..8 {
        rig.key.local_port = 1000 + port;
        rig.syn(Options::default());
    }
    let population = rig.engine.population();
    assert_eq!((population.connections, population.half_open), (0, 8));
    assert_eq!(rig.app().opened, 0);
}
