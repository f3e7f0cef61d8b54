//! Limits, and what happens at them: nothing grows without one, and each is counted when it is hit.

use crate::common::*;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::transmit::Purpose;
use tidegate_tcp::wire::Options;

fn echo() -> App {
    App::echo()
}

#[test]
fn limits_out_of_range_are_refused_by_their_names() {
    assert_eq!(Config::default().validate(), Ok(()));
    let good = Config::default;
    for (name, config) in [
        (
            "max_connections",
            Config {
                max_connections: 0,
                ..good()
            },
        ),
        (
            "max_half_open",
            Config {
                max_half_open: 1 << 29,
                ..good()
            },
        ),
        (
            "max_time_wait",
            Config {
                max_time_wait: 0,
                ..good()
            },
        ),
        (
            "max_outstanding_segments",
            Config {
                max_outstanding_segments: 63,
                ..good()
            },
        ),
        ("mtu", Config { mtu: 575, ..good() }),
        (
            "receive_buffer",
            Config {
                receive_buffer: 0,
                ..good()
            },
        ),
        (
            "send_buffer",
            Config {
                send_buffer: u32::MAX,
                ..good()
            },
        ),
        (
            "rto_min",
            Config {
                rto_min: ms(200_000),
                ..good()
            },
        ),
        (
            "keepalive_interval",
            Config {
                keepalive_interval: ms(0),
                ..good()
            },
        ),
        ("msl", Config { msl: ms(0), ..good() }),
    ] {
        let error = config.validate().expect_err(name);
        assert!(error.keys().contains(&name), "{error}");
    }
}

#[test]
fn every_limit_that_is_hit_is_counted() {
    let limits = Config {
        max_connections: 1,
        max_half_open: 1,
        receive_buffer: 4096,
        reassembly_bytes: 200,
        rst_rate: 1,
        challenge_ack_rate: 1,
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    rig.connect();
    rig.peer_at(rig.seq + 10, ACK, &[0; 1000]);
    assert_eq!(rig.count(Counter::DropReassemblyFull), 1);
    rig.peer_at(rig.seq + 4000, ACK, &[0; 200]);
    assert_eq!(rig.count(Counter::DropReceiveBufferFull), 1);
    for _ in 0..3 {
        rig.peer_at(rig.seq + 10, RST, b"");
    }
    assert_eq!(rig.count(Counter::ChallengeAcksLimited), 2);
    // A second connection.
    rig.key.local_port += 1;
    rig.sent();
    rig.connect();
    assert_eq!(rig.count(Counter::DropConnectionsFull), 1);
    // A second half-open one.
    rig.key.local_port += 1;
    rig.syn(Options::default());
    assert_eq!(rig.count(Counter::HalfOpenEvicted), 1);
    // Segments of nobody.
    rig.key.local_port += 1;
    for _ in 0..3 {
        rig.peer_at(rig.seq, ACK, b"");
    }
    assert_eq!(rig.count(Counter::RstsOut), 1);
    assert_eq!(rig.count(Counter::DropNoConnection), 2);
    rig.wire.exhausted = true;
    rig.syn(Options::default());
    assert!(rig.count(Counter::NoFrame) >= 1);
}

#[test]
fn every_second_octet_of_a_window_stays_within_the_bound_and_costs_no_text() {
    let limits = Config {
        reassembly_bytes: 16 << 10,
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    rig.connect();
    let text = pattern(60_000);
    let mut largest = 0;
    for at in (1..60_000).step_by(2) {
        rig.peer_at(rig.seq + at as u32, ACK, &text[at..=at]);
        rig.wire.frames.clear();
        largest = rig.engine.reassembly_bytes().max(largest);
    }
    assert!((1..=16 << 10).contains(&largest), "{largest} bytes");
    assert!(rig.count(Counter::DropReassemblyFull) > 0);
    for part in text.chunks(1000) {
        rig.peer(ACK, part);
    }
    assert_eq!(rig.app().received, text);
    assert_eq!(rig.engine.reassembly_bytes(), 0);
}

#[test]
fn ranges_are_bounded_and_adjacent_ones_become_one() {
    let limits = Config {
        reassembly_ranges: 4,
        ..config()
    };
    let mut rig = Rig::new(limits, App::default());
    rig.connect();
    let text = pattern(100);
    for at in [10, 30, 50, 70, 90] {
        rig.peer_at(rig.seq + at, ACK, &text[at as usize..at as usize + 5]);
    }
    assert_eq!(rig.count(Counter::DropReassemblyFull), 1, "the fifth range");
    // Where ranges meet there is room for another.
    rig.peer_at(rig.seq + 15, ACK, &text[15..30]);
    rig.peer_at(rig.seq + 90, ACK, &text[90..95]);
    assert_eq!(rig.count(Counter::DropReassemblyFull), 1);
    rig.peer(ACK, &text);
    assert_eq!(rig.app().received, text);
}

#[test]
fn without_frames_for_handshakes_open_connections_go_on() {
    let mut rig = Rig::new(config(), echo());
    rig.connect();
    let open = (rig.key, rig.seq, rig.ack);
    rig.wire.refused = Some(Purpose::Handshake);
    rig.key.local_port += 1;
    rig.syn(Options::default());
    rig.nothing();
    assert_eq!(rig.count(Counter::NoFrame), 1);
    (rig.key, rig.seq, rig.ack) = open;
    rig.peer(ACK, b"still here");
    let answer = rig.one();
    assert_eq!(answer.payload, b"still here");
    rig.acknowledge(&answer);
    // When there are frames again the SYN-ACK follows by its timer.
    rig.wire.refused = None;
    rig.pass(ms(1001));
    assert!(rig.one().is(SYN | ACK));
}

#[test]
fn without_frames_for_text_acknowledgments_and_retransmissions_go_on() {
    let limits = Config {
        nagle: false,
        ..config()
    };
    let mut rig = Rig::new(limits, echo());
    rig.connect();
    rig.peer(ACK, b"first");
    let first = rig.one();
    rig.wire.refused = Some(Purpose::Data);
    rig.peer(ACK, b"second");
    rig.pass(ms(100));
    let answer = rig.sent().pop().expect("nothing was acknowledged");
    assert_eq!(answer.ack, rig.seq);
    assert!(answer.payload.is_empty());
    rig.pass(ms(200));
    let seq = first.seq;
    assert!(
        rig.sent().iter().any(|segment| segment.seq == seq),
        "it was not sent again"
    );
    rig.wire.refused = None;
    rig.acknowledge(&first);
    rig.engine.poll(rig.now, &mut rig.wire);
    assert!(rig.sent().iter().any(|segment| segment.payload == b"second"));
}

#[test]
fn a_pool_that_is_empty_for_a_while_costs_no_text_either_way() {
    let mut rig = Rig::new(config(), echo());
    rig.connect();
    let text = pattern(20_000);
    let mut back = Vec::new();
    for (index, part) in text.chunks(1000).enumerate() {
        rig.wire.exhausted = index % 2 == 0;
        rig.peer(ACK, part);
        rig.pass(ms(10));
        let sent = rig.sent();
        rig.take(&sent, &mut back);
    }
    rig.wire.exhausted = false;
    rig.engine.poll(rig.now, &mut rig.wire);
    let missing = text.len() - back.len();
    back.append(&mut rig.read_in_time(missing));
    assert_eq!(rig.app().received, text);
    assert_eq!(back, text);
    assert!(rig.count(Counter::NoFrame) > 0);
    assert!(!rig.engine.wants_frames());
}

#[test]
fn memory_comes_back_however_a_connection_ends() {
    type End = fn(&mut Rig);
    let ends: [(&str, End); 4] = [
        ("the peer resets", |rig| rig.peer(RST, b"")),
        ("this side resets", |rig| rig.engine.abort_all(rig.now, &mut rig.wire)),
        ("the peer dies", |rig| rig.pass(ms(600_000))),
        ("the peer closes without reading", |rig| {
            rig.peer(ACK | FIN, b"");
            rig.pass(ms(600_000));
        }),
    ];
    for (name, end) in ends {
        let limits = Config {
            keepalive_idle: ms(60_000),
            keepalive_interval: ms(1000),
            ..config()
        };
        let mut rig = Rig::new(
            limits,
            App {
                appetite: Some(0),
                ..sender(500_000)
            },
        );
        rig.connect_with(with_sack());
        rig.peer(ACK, &[1; 1000]);
        // Something unread, something out of order, something outstanding, something not sent yet.
        rig.peer_at(rig.seq + 2000, ACK, &[2; 1000]);
        assert!(rig.engine.reassembly_bytes() > 0, "{name}");
        assert_eq!(rig.info().unread, 1000, "{name}");
        end(&mut rig);
        rig.assert_empty();
        assert_eq!(rig.app().closed.len(), 1, "{name}");
    }
}

#[test]
fn a_peer_that_acknowledges_but_never_reads_is_given_up() {
    let limits = Config {
        user_timeout: ms(30_000),
        ..config()
    };
    let mut rig = Rig::new(limits, sender(500_000));
    rig.connect();
    let first = rig.sent();
    rig.window = 0;
    rig.acknowledge(&first[9]);
    for _ in 0..90 {
        rig.pass(ms(1000));
        if rig.sent().iter().any(|segment| segment.flags.contains(RST)) {
            break;
        }
        rig.peer(ACK, b"");
    }
    assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
    rig.assert_empty();
}

#[test]
fn a_peer_that_opens_and_forgets_is_found_by_keepalive() {
    let mut rig = Rig::new(config(), App::default());
    for port in 0..64 {
        rig.key.local_port = 1000 + port;
        rig.connect();
    }
    assert_eq!(rig.engine.population().connections, 64);
    // Two hours and ten probes.
    rig.pass(ms(7_200_000 + 11 * 75_000));
    assert_eq!(rig.count(Counter::TimedOut), 64);
    rig.assert_empty();
}

/// The bytes queued beyond those outstanding.
fn unsent(rig: &Rig, acknowledged: SeqNumber, sent_to: SeqNumber) -> usize {
    rig.info().unacknowledged - (sent_to - acknowledged) as usize
}

#[test]
fn a_peer_that_reads_nothing_has_one_segment_queued_for_it() {
    for (window, mss) in [(0, 1460), (0, 536), (3000, 1460), (65_535, 1460)] {
        let mut rig = Rig::new(config(), sender(500_000));
        rig.window = window;
        rig.connect_with(Options {
            mss: Some(mss),
            ..Options::default()
        });
        let sent = rig.sent();
        let mut end = sent.last().map_or(rig.ack, Sent::end);
        // And no more while it answers probes and what is sent again.
        for _ in 0..6 {
            let unsent = unsent(&rig, rig.ack, end);
            assert!(
                unsent <= usize::from(mss),
                "{unsent} octets behind a window of {window}"
            );
            rig.pass(ms(1000));
            rig.peer(ACK, b"");
            end = rig.sent().iter().map(Sent::end).fold(end, SeqNumber::max);
        }
    }
}

#[test]
fn a_peer_that_reads_for_a_while_and_then_stops_has_one_segment_queued_for_it() {
    for rounds in 1..12 {
        for closing in [0, 100, 2000] {
            let mut rig = Rig::new(config(), sender(5_000_000));
            rig.connect();
            for round in 1..=rounds {
                let sent = rig.sent();
                let last = sent.last().expect("it has stopped").clone();
                if round == rounds {
                    rig.window = closing;
                }
                rig.acknowledge(&last);
            }
            let sent = rig.sent();
            let end = sent.last().map_or(rig.ack, Sent::end);
            let unsent = unsent(&rig, rig.ack, end);
            assert!(
                unsent <= 1460,
                "{unsent} octets after {rounds} rounds, window {closing}"
            );
        }
    }
}

#[test]
fn what_waits_for_the_window_is_asked_for_as_it_opens() {
    let mut rig = Rig::new(config(), sender(300_000));
    rig.window = 0;
    rig.connect();
    let mut text = Vec::new();
    for window in [1460, 0, 5000, 0, 14_600, 0, 3000] {
        rig.window = window;
        rig.peer(ACK, b"");
        let sent = rig.sent();
        assert_eq!(
            sent.iter().map(|segment| segment.payload.len()).sum::<usize>(),
            usize::from(window) / 1460 * 1460,
            "all that a window of {window} lets go"
        );
        rig.take(&sent, &mut text);
    }
    rig.window = 65_535;
    rig.peer(ACK, b"");
    text.append(&mut rig.read_in_time(300_000 - text.len()));
    assert_eq!(text, pattern(300_000));
}

/// Memory a connection may have queued for sending when all together hold too much.
const MIN_HELD: u64 = 3 * 1460 + 1024;

#[test]
fn what_is_queued_for_sending_is_bounded_together() {
    const TOTAL: u64 = 100_000;
    let limits = || Config {
        send_bytes_total: TOTAL,
        ..config()
    };
    let text = pattern(1460);
    // An echo whose peers do not read, fed with single octets, small and full segments.
    for size in [1, 100, 1460] {
        let mut rig = Rig::new(limits(), echo());
        let mut open = Vec::new();
        for port in 0..40 {
            rig.key.local_port = 1000 + port;
            rig.connect();
            open.push((rig.key, rig.seq, rig.ack));
        }
        for round in 0..40 {
            for connection in &mut open {
                (rig.key, rig.seq, rig.ack) = *connection;
                for _ in 0..(200 / size).max(1) {
                    rig.peer(ACK, &text[..size]);
                }
                rig.wire.frames.clear();
                connection.1 = rig.seq;
                let (held, most) = (rig.engine.send_bytes(), TOTAL + 40 * MIN_HELD);
                assert!(
                    held <= most,
                    "{held} bytes of {most}, {size} octets a segment, round {round}"
                );
            }
        }
        assert!(rig.engine.send_bytes() > TOTAL / 2, "{}", rig.engine.send_bytes());
        // All of it comes back with the connections.
        rig.engine.abort_all(rig.now, &mut rig.wire);
        assert_eq!(rig.engine.send_bytes(), 0);
    }
}

#[test]
fn beyond_the_total_every_connection_still_sends_a_segment_at_a_time() {
    let limits = Config {
        send_bytes_total: 1,
        ..config()
    };
    let mut rig = Rig::new(limits, sender(100_000));
    rig.connect();
    let mut text = Vec::new();
    while text.len() < 100_000 {
        let sent = rig.sent();
        assert!(!sent.is_empty(), "it stopped after {} octets", text.len());
        assert!(rig.info().unacknowledged <= 1460);
        assert!(rig.engine.send_bytes() <= MIN_HELD);
        rig.take(&sent, &mut text);
        rig.peer(ACK, b"");
    }
    assert_eq!(text, pattern(100_000));
}

#[test]
fn a_stream_of_single_octets_arrives_in_any_order() {
    let text = pattern(500);
    for backwards in [false, true] {
        let limits = Config {
            reassembly_bytes: 100_000,
            ..config()
        };
        let mut rig = Rig::new(limits, App::default());
        rig.connect();
        let start: SeqNumber = rig.seq;
        for index in 0..500 {
            let at = if backwards { 499 - index } else { index };
            rig.peer_at(start + at as u32, ACK, &text[at..=at]);
            rig.wire.frames.clear();
        }
        assert_eq!(rig.app().received, text);
        assert_eq!(rig.engine.reassembly_bytes(), 0);
    }
}
