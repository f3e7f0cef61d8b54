//! Data both ways: segmentation, windows, acknowledgments (RFC 9293, section 3.8; RFC 5681).

use crate::common::*;
use bytes::Bytes;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;

fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 % 251) as u8).collect::<Vec<u8>>().into()
}

fn sender(length: usize) -> App {
    App {
        greeting: pattern(length),
        ..App::default()
    }
}

#[test]
fn a_write_is_cut_into_full_segments_and_the_last_carries_psh() {
    let mut rig = Rig::new(config(), sender(4000));
    rig.connect();
    let sent = rig.sent();
    let lengths: Vec<_> = sent.iter().map(|segment| segment.payload.len()).collect();
    assert_eq!(lengths, [1460, 1460, 1080]);
    assert!(sent[0].is(ACK) && sent[1].is(ACK) && sent[2].is(ACK | PSH));
    let data: Vec<u8> = sent.iter().flat_map(|segment| segment.payload.clone()).collect();
    assert_eq!(data, pattern(4000));
}

#[test]
fn the_initial_window_is_ten_segments_and_grows_with_acknowledgments() {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.connect();
    let sent = rig.sent();
    assert_eq!(sent.len(), 10);
    rig.acknowledge(&sent[9]);
    assert_eq!(
        rig.sent().len(),
        18,
        "HyStart++ adds at most eight segments for one acknowledgment"
    );
}

#[test]
fn the_peers_window_is_never_exceeded() {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.window = 3000;
    rig.connect();
    let sent = rig.sent();
    let total: usize = sent.iter().map(|segment| segment.payload.len()).sum();
    assert_eq!(total, 2920, "no silly third segment of 80 bytes");
    rig.acknowledge(&sent[1]);
    assert_eq!(rig.sent().len(), 2);
}

#[test]
fn the_peers_segment_size_is_honoured_and_defaults_to_536_and_1220() {
    for (server, client, mss, expected) in [
        (SERVER, CLIENT, Some(700), 700),
        (SERVER, CLIENT, None, 536),
        ("[2001:2::1]:80", "[2001:2::2]:40000", None, 1220),
    ] {
        let mut rig = Rig::between(config(), sender(2000), server, client);
        rig.connect_with(Options {
            mss,
            ..Options::default()
        });
        assert_eq!(rig.sent()[0].payload.len(), expected);
    }
}

#[test]
fn every_second_full_segment_is_acknowledged_at_once_and_one_within_the_delay() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.peer(ACK, &[1; 1460]);
    rig.nothing();
    rig.peer(ACK, &[2; 1460]);
    assert_eq!(rig.one().ack, rig.seq);
    rig.peer(ACK, &[3; 10]);
    rig.pass(ms(39));
    rig.nothing();
    rig.pass(ms(2));
    assert_eq!(rig.one().ack, rig.seq);
    rig.pass(ms(1000));
    rig.nothing();
    assert_eq!(rig.app().received.len(), 2930);
}

#[test]
fn a_response_carries_the_acknowledgment() {
    let mut rig = Rig::new(config(), App::echo());
    rig.connect();
    rig.peer(ACK, b"ping");
    let pong = rig.one();
    assert_eq!((pong.payload.as_slice(), pong.ack), (&b"ping"[..], rig.seq));
    rig.pass(ms(100));
    rig.nothing();
}

#[test]
fn data_out_of_order_is_acknowledged_at_once_held_and_delivered_once() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect_with(Options {
        mss: Some(1460),
        sack_permitted: true,
        ..Options::default()
    });
    let start = rig.seq;
    rig.peer_at(start + 5, ACK, b"world");
    let duplicate = rig.one();
    assert_eq!(duplicate.ack, start);
    assert_eq!(duplicate.options.sack.as_slice(), [(start + 5, start + 10)]);
    rig.peer_at(start + 12, ACK, b"again");
    assert_eq!(
        rig.one().options.sack.as_slice(),
        [(start + 12, start + 17), (start + 5, start + 10)],
        "the latest first"
    );
    rig.peer_at(start, ACK, b"hello");
    let closed = rig.one();
    assert_eq!(closed.ack, start + 10);
    assert_eq!(rig.app().received, b"helloworld");
    rig.peer_at(start + 3, ACK, b"loworld, ");
    assert_eq!(rig.one().ack, start + 17);
    assert_eq!(rig.app().received, b"helloworld, again");
    assert_eq!(rig.engine.reassembly_bytes(), 0);
}

#[test]
fn a_fin_out_of_order_waits_for_the_data_before_it() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let start = rig.seq;
    rig.peer_at(start + 5, ACK | FIN, b"world");
    assert_eq!(rig.app().ends, 0);
    rig.peer_at(start, ACK, b"hello");
    assert_eq!(rig.app().received, b"helloworld");
    assert_eq!(rig.app().ends, 1);
    assert_eq!(rig.sent().last().unwrap().ack, start + 11);
}

#[test]
fn out_of_order_memory_is_bounded_per_connection_and_in_total() {
    let limits = Config {
        reassembly_bytes: 10_000,
        reassembly_bytes_total: 15_000,
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    let mut ends = Vec::new();
    for port in 0..3 {
        rig.key.local_port = 1000 + port;
        rig.connect();
        for index in 0..20 {
            rig.peer_at(rig.seq + 2000 * (index + 1), ACK, &[0; 1000]);
        }
        rig.sent();
        assert!(rig.engine.reassembly_bytes() <= 15_000);
        ends.push((rig.key, rig.seq));
    }
    assert!(rig.engine.reassembly_bytes() > 10_000);
    assert!(rig.count(Counter::DropReassemblyFull) > 30);
    for (key, seq) in ends {
        (rig.key, rig.seq) = (key, seq);
        rig.peer(RST, b"");
    }
    rig.assert_empty();
}

#[test]
fn a_reader_that_stops_closes_the_window_and_reopens_it() {
    let mut rig = Rig::new(
        Config {
            receive_buffer: 8192,
            ..config()
        },
        App {
            appetite: Some(1000),
            timer: Some(ms(10_000)),
            ..App::default()
        },
    );
    rig.connect();
    let mut window = 8192;
    while window >= 1000 {
        rig.peer(ACK, &[7; 1000]);
        rig.pass(ms(50));
        window = u32::from(rig.sent().last().unwrap().window);
    }
    assert_eq!(rig.app().received.len(), 1000);
    // What does not fit is not taken, and what it acknowledges still counts.
    let edge = rig.seq + window;
    rig.peer_at(rig.seq, ACK, &[7; 1000]);
    assert_eq!(rig.one().ack, edge);
    rig.seq = edge;
    rig.peer_at(edge, ACK, b"x");
    let closed = rig.one();
    assert_eq!((closed.ack, closed.window), (edge, 0));
    rig.app().appetite = None;
    rig.pass(ms(10_000));
    assert_eq!(rig.app().timeouts, 1);
    let update = rig.one();
    assert_eq!(update.window, 8192);
    assert_eq!(rig.app().received.len(), 9192);
}

#[test]
fn the_application_hears_when_there_is_room_to_send_again() {
    let mut rig = Rig::new(
        Config {
            send_buffer: 4096,
            ..config()
        },
        sender(10_000),
    );
    rig.connect();
    let mut data = Vec::new();
    for _ in 0..20 {
        for segment in rig.sent() {
            data.extend_from_slice(&segment.payload);
            rig.acknowledge(&segment);
        }
    }
    assert_eq!(data, pattern(10_000));
    assert!(rig.app().writable >= 2);
}

#[test]
fn an_echo_whose_peer_does_not_read_stops_reading_itself() {
    let limits = Config {
        send_buffer: 4096,
        receive_buffer: 8192,
        ..config()
    };
    let mut rig = Rig::new(limits, App::echo());
    rig.window = 0;
    rig.connect();
    for _ in 0..14 {
        rig.peer(ACK, &[9; 1000]);
    }
    rig.pass(ms(50));
    let last = rig.sent().pop().unwrap();
    assert_eq!(last.window, 0);
    assert_eq!(rig.app().received.len(), 1460, "a segment waits for the window");
    rig.seq = last.ack;
    rig.window = 65_535;
    rig.peer(ACK, b"");
    let mut echoed = 0;
    for _ in 0..20 {
        for segment in rig.sent() {
            echoed += segment.payload.len();
            rig.acknowledge(&segment);
        }
    }
    assert_eq!(echoed, rig.app().received.len());
    assert!(echoed > 1460 + 8000, "what had waited unread was read: {echoed}");
}

#[test]
fn nagle_holds_small_segments_back_while_data_is_unacknowledged() {
    for (nagle, expected) in [(true, 1), (false, 2)] {
        let mut rig = Rig::new(Config { nagle, ..config() }, App::echo());
        rig.connect();
        rig.peer(ACK, b"a");
        rig.peer(ACK, b"b");
        let with_data = rig.sent().iter().filter(|segment| !segment.payload.is_empty()).count();
        assert_eq!(with_data, expected);
    }
}

#[test]
fn old_timestamps_are_dropped_and_answered() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect_with(Options {
        mss: Some(1460),
        timestamps: Some(Timestamps { value: 1000, echo: 0 }),
        ..Options::default()
    });
    rig.timestamp = Some(999);
    rig.peer_at(rig.seq, ACK, b"old");
    let answer = rig.one();
    assert!(answer.is(ACK));
    assert_eq!(answer.ack, rig.seq);
    assert_eq!(rig.count(Counter::DropPaws), 1);
    assert!(rig.app().received.is_empty());
    rig.timestamp = Some(1005);
    rig.peer(ACK, b"new");
    rig.pass(ms(50));
    assert_eq!(
        rig.one().options.timestamps.map(|timestamps| timestamps.echo),
        Some(1005)
    );
}

#[test]
fn output_waits_for_frames_and_goes_on_when_there_are_some() {
    let mut rig = Rig::new(config(), sender(4000));
    rig.syn(Options {
        mss: Some(1460),
        ..Options::default()
    });
    rig.ack = rig.one().seq + 1;
    rig.wire.exhausted = true;
    rig.peer(ACK, b"");
    rig.nothing();
    assert!(rig.engine.wants_frames());
    assert!(rig.count(Counter::NoFrame) > 0);
    rig.wire.exhausted = false;
    rig.engine.poll(rig.now, &mut rig.wire);
    assert_eq!(rig.sent().len(), 3);
    assert!(!rig.engine.wants_frames());
}

#[test]
fn urgent_data_is_delivered_in_line() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.peer(ACK | tidegate_tcp::wire::Flags::URG, b"urgent!");
    assert_eq!(rig.app().received, b"urgent!");
}

#[test]
fn damaged_frames_are_dropped_and_counted() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let mut frame = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"damaged");
    let last = frame.len() - 1;
    frame[last] ^= 0x10;
    rig.inject(&frame);
    rig.inject(&frame[..30]);
    assert_eq!(rig.count(Counter::DropChecksum), 1);
    assert_eq!(rig.count(Counter::DropMalformed), 1);
    assert!(rig.app().received.is_empty());

    let mut rig = Rig::new(
        Config {
            verify_checksums: false,
            ..config()
        },
        App::default(),
    );
    rig.connect();
    let mut frame = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"trusted");
    let last = frame.len() - 1;
    frame[last] ^= 0x10;
    rig.inject(&frame);
    assert_eq!(rig.app().received.len(), 7);
}

#[test]
fn answers_follow_the_peer_to_another_router() {
    let mut rig = Rig::new(config(), App::echo());
    rig.connect();
    let mut frame = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"moved");
    frame[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    rig.inject(&frame);
    rig.wire.frames.clear();
    rig.seq += 5;
    rig.ack += 5;
    let mut forged = rig.frame(rig.seq + 1_000_000, SeqNumber(0), ACK, Options::default(), b"forged");
    forged[6..12].copy_from_slice(&[2, 6, 6, 6, 6, 6]);
    rig.inject(&forged);
    for frame in &rig.wire.frames {
        assert_eq!(
            frame[..6],
            [2, 9, 9, 9, 9, 9],
            "only an accepted segment moves the peer"
        );
    }
}

#[test]
fn what_was_left_unread_is_offered_again_when_the_peer_finishes() {
    let mut rig = Rig::new(
        config(),
        App {
            appetite: Some(0),
            ..App::default()
        },
    );
    rig.connect();
    rig.peer(ACK, b"incomplete");
    assert!(rig.app().received.is_empty());
    rig.app().appetite = None;
    rig.peer(ACK | FIN, b"");
    assert_eq!(rig.app().received, b"incomplete");
    assert_eq!(rig.app().ends, 1);
}
