//! Windows of both sides (RFC 9293, section 3.8.6; RFC 7323, section 2) and the silly window syndrome.

use crate::common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;

fn small_buffer() -> Config {
    Config {
        receive_buffer: 8192,
        ..config()
    }
}

fn reader(appetite: usize) -> App {
    App {
        appetite: Some(appetite),
        ..App::default()
    }
}

#[test]
fn the_peers_window_is_scaled_by_what_its_syn_offered() {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.window = 100;
    rig.connect_with(Options {
        mss: Some(1460),
        window_scale: Some(7),
        ..Options::default()
    });
    assert_eq!(rig.sent().len(), 12_800 / 1460);
}

#[test]
fn a_window_without_scaling_is_taken_as_it_stands() {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.window = 3000;
    let syn_ack = rig.connect();
    assert_eq!(syn_ack.options.window_scale, None);
    assert_eq!(rig.sent().len(), 2);
}

#[test]
fn the_window_offered_is_scaled_after_the_handshake_and_never_exceeds_the_buffer() {
    let mut rig = Rig::new(config(), App::default());
    let syn_ack = rig.connect_with(Options {
        mss: Some(1460),
        window_scale: Some(0),
        ..Options::default()
    });
    let shift = syn_ack.options.window_scale.unwrap();
    let buffer = config().receive_buffer;
    assert!(u64::from(u16::MAX) << shift >= u64::from(buffer) - (1 << shift));
    rig.peer(ACK, &[1; 1460]);
    rig.peer(ACK, &[2; 1460]);
    let window = u32::from(rig.one().window) << shift;
    assert!((32_768..=buffer).contains(&window), "{window}");
}

#[test]
fn the_right_edge_never_moves_back() {
    let mut rig = Rig::new(small_buffer(), reader(3000));
    let syn_ack = rig.connect();
    let mut edge = syn_ack.ack + u32::from(syn_ack.window);
    for _ in 0..11 {
        rig.peer(ACK, &[7; 700]);
        rig.pass(ms(50));
        for segment in rig.sent() {
            let offered = segment.ack + u32::from(segment.window);
            assert!(offered.at_or_after(edge), "{segment:?}");
            edge = offered;
        }
    }
    assert_eq!(rig.app().received.len(), 3000);
}

#[test]
fn text_beyond_the_window_is_not_taken() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.peer_at(rig.seq + 200_000, ACK, b"beyond");
    let answer = rig.one();
    assert!(answer.is(ACK));
    assert_eq!(answer.ack, rig.seq);
    assert_eq!(rig.count(Counter::DropOutOfWindow), 1);
    assert_eq!(rig.engine.reassembly_bytes(), 0);
    rig.peer(ACK, b"within");
    assert_eq!(rig.app().received, b"within");
}

#[test]
fn a_segment_that_reaches_past_the_window_is_taken_up_to_its_edge() {
    let mut rig = Rig::new(
        Config {
            receive_buffer: 4096,
            ..config()
        },
        reader(0),
    );
    rig.connect();
    rig.peer_at(rig.seq, ACK, &[1; 5000]);
    let answer = rig.one();
    assert_eq!((answer.ack, answer.window), (rig.seq + 4096, 0));
    assert_eq!(rig.count(Counter::DropReceiveBufferFull), 1);
    assert_eq!(rig.info().unread, 4096);
}

#[test]
fn a_closed_window_reopens_in_one_worthwhile_step() {
    // RFC 9293, section 3.8.6.2.2: the lesser of half of the buffer and a full segment.
    let mut rig = Rig::new(small_buffer(), reader(0));
    rig.connect_actively(Options {
        mss: Some(1460),
        ..Options::default()
    });
    for length in [1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 192] {
        rig.peer(ACK, &vec![7; length]);
    }
    rig.pass(ms(50));
    assert_eq!(rig.sent().last().map(|segment| segment.window), Some(0));
    for consumed in (100..=8100).step_by(100) {
        rig.app().appetite = Some(100);
        rig.on_stream(|_| {});
        if let Some(update) = rig.sent().last() {
            assert!(update.window >= 1000, "a window of {} octets", update.window);
            assert!(usize::from(update.window) <= consumed);
            return;
        }
    }
    panic!("the window was never reopened");
}

#[test]
fn a_window_that_opens_octet_by_octet_causes_no_tiny_segments() {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.window = 10_000;
    rig.connect();
    let sent = rig.sent();
    assert_eq!(sent.len(), 6);
    rig.window = 0;
    rig.acknowledge(&sent[5]);
    for window in [1, 10, 100, 500, 1000, 1459] {
        rig.window = window;
        rig.peer(ACK, b"");
        rig.nothing();
    }
    rig.window = 1460;
    rig.peer(ACK, b"");
    assert_eq!(rig.one().payload.len(), 1460);
}

/// A peer that has taken ten thousand octets and then room for 500 more.
fn with_a_small_window() -> Rig {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.window = 10_000;
    rig.connect();
    let sent = rig.sent();
    rig.window = 500;
    rig.acknowledge(&sent[5]);
    rig.nothing();
    rig
}

#[test]
fn a_window_that_stays_small_is_used_after_a_while() {
    // RFC 9293, section 3.8.6.2.1: silly window avoidance must not become a deadlock.
    let mut rig = with_a_small_window();
    let start = rig.ack;
    for _ in 0..20 {
        assert!(rig.wait(ms(10_000)).is_some());
        let sent = rig.sent();
        if let Some(text) = sent.iter().find(|segment| !segment.payload.is_empty()) {
            assert_eq!(text.seq, start);
            assert!(text.payload.len() <= 500);
            return;
        }
        // A probe: the window is as small as before.
        rig.peer(ACK, b"");
    }
    panic!("a window of 500 octets was never used");
}

#[test]
fn text_from_the_peer_does_not_put_off_the_use_of_a_small_window() {
    let mut rig = with_a_small_window();
    for _ in 0..20 {
        rig.pass(ms(50));
        rig.peer(ACK, b"more");
        let sent = rig.sent();
        if let Some(text) = sent.iter().find(|segment| !segment.payload.is_empty()) {
            assert_eq!((text.seq, text.payload.len()), (rig.ack, 500));
            return;
        }
    }
    panic!("a window of 500 octets was never used");
}

#[test]
fn a_window_taken_back_stops_new_text_and_breaks_nothing() {
    let mut rig = Rig::new(config(), sender(50_000));
    rig.connect();
    let first = rig.sent();
    assert_eq!(first.len(), 10);
    // Eight segments are outstanding and the window now ends within the first of them.
    rig.window = 1000;
    rig.acknowledge(&first[1]);
    rig.nothing();
    assert!(rig.wait(ms(3000)).is_some());
    let again = rig.sent();
    assert_eq!(again[0].seq, first[2].seq);
    assert!(again.iter().all(|segment| segment.end().at_or_before(first[9].end())));
    rig.window = 65_535;
    assert_eq!(rig.read_in_time(50_000 - 2920), pattern(50_000)[2920..]);
}

#[test]
fn an_old_segment_does_not_bring_an_old_window_back() {
    // SND.WL1 and SND.WL2 (RFC 9293, section 3.10.7.4, fifth check).
    let mut rig = Rig::new(config(), sender(100_000));
    rig.window = 2920;
    rig.connect();
    let sent = rig.sent();
    assert_eq!(sent.len(), 2);
    let old = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"request");
    rig.inject(&old);
    rig.seq += 7;
    rig.window = 0;
    rig.acknowledge(&sent[1]);
    rig.inject(&old);
    rig.inject(&old);
    // Old segments are answered, but let nothing out.
    assert!(rig.sent().iter().all(|segment| segment.payload.is_empty()));
    assert_eq!(rig.app().received, b"request");
}

#[test]
fn text_that_is_sent_again_brings_the_window_of_what_it_acknowledges() {
    // The window is full of text the peer has taken and not read, so its edge has not moved.
    let mut rig = Rig::new(config(), sender(100_000));
    rig.window = 4096;
    rig.connect();
    let first = rig.sent();
    let edge = rig.ack + 4096;
    assert_eq!(first.len(), 2);
    // The first of two requests is lost, so it comes behind the second.
    let (lost, other) = (rig.seq, rig.seq + 7);
    rig.window = 4096 - 1460;
    let second = rig.frame(other, first[0].end(), ACK, Options::default(), b"another");
    rig.inject(&second);
    rig.window = 4096 - 2 * 1460;
    let again = rig.frame(lost, first[1].end(), ACK, Options::default(), b"request");
    rig.inject(&again);
    rig.seq += 14;
    assert_eq!(rig.app().received, b"requestanother");
    rig.pass(ms(3000));
    let sent = rig.sent();
    assert!(!sent.is_empty());
    assert!(sent.iter().all(|segment| segment.end().at_or_before(edge)), "{sent:?}");
    // What is left of the window is used, and a later window of the same kind opens it.
    rig.window = 65_535;
    let again = rig.frame(lost, edge, ACK, Options::default(), b"request");
    rig.inject(&again);
    rig.ack = edge;
    assert!(!rig.read_in_time(10_000).is_empty());
}

#[test]
fn the_receive_window_grows_for_a_fast_sender_up_to_the_buffer() {
    let limits = Config {
        receive_buffer: 1 << 20,
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    rig.timestamp = Some(1000);
    rig.syn(Options {
        window_scale: Some(7),
        ..with_timestamps(1000)
    });
    let syn_ack = rig.one();
    let shift = syn_ack.options.window_scale.unwrap();
    rig.ack = syn_ack.seq + 1;
    let mut edge = rig.seq + u32::from(syn_ack.window);
    let mut largest = 0_u32;
    let mut round_trip = |rig: &mut Rig| {
        rig.pass(ms(10));
        rig.timestamp = rig.timestamp.map(|value| value + 10);
        for segment in rig.sent() {
            let window = u32::from(segment.window) << shift;
            largest = largest.max(window);
            edge = edge.max(segment.ack + window);
            if let Some(Timestamps { value, .. }) = segment.options.timestamps {
                rig.echo = value;
            }
        }
        (edge, largest)
    };
    rig.echo = syn_ack.options.timestamps.map_or(0, |timestamps| timestamps.value);
    round_trip(&mut rig);
    rig.peer(ACK, b"");
    for _ in 0..20 {
        let (edge, _) = round_trip(&mut rig);
        while edge - rig.seq >= 1448 {
            rig.peer(ACK, &[9; 1448]);
        }
    }
    let (_, largest) = round_trip(&mut rig);
    assert!((200_000..=1 << 20).contains(&largest), "{largest}");
}
