//! Connections that begin with the acknowledgment of a SYN cookie (RFC 4987, section 3.6).

use std::time::Duration;

use crate::common::cookie::*;
use crate::common::*;
use tidegate_abi::syn_cookie::{MSS_V4, MSS_V6};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{ConnectionInfo, OnNoFlow, Population, syn_ack_of};
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;
use tidegate_tcp::{Config, Engine, State};

fn value(sent: &Sent) -> u32 {
    sent.options.timestamps.expect("no timestamps").value
}

#[test]
fn a_bare_acknowledgment_of_a_cookie_becomes_a_connection() {
    for v6 in [false, true] {
        for options in [Options::default(), with_sack(), with_timestamps(1000)] {
            let mut rig = if v6 {
                rig_v6(App::default())
            } else {
                rig(config(), App::default())
            };
            assert_eq!(rig.engine.population(), Population::default());
            connect(&mut rig, options);
            rig.nothing();
            assert_eq!(rig.state(), Some(State::Established));
            assert_eq!(rig.app().opened, 1);
            assert_eq!(rig.count(Counter::PassiveOpens), 1);
            assert_eq!(rig.count(Counter::SynsIn), 0);
            rig.peer(ACK | PSH, b"hello");
            assert_eq!(rig.app().received, b"hello");
            rig.peer(RST, b"");
            rig.assert_empty();
        }
    }
}

#[test]
fn text_and_fin_in_the_acknowledgment_are_delivered() {
    for options in [Options::default(), with_timestamps(1000)] {
        for fin in [false, true] {
            let mut rig = rig(config(), App::echo());
            let iss = answered(&mut rig, options);
            rig.peer(if fin { ACK | PSH | FIN } else { ACK | PSH }, b"short");
            assert_eq!(rig.app().received, b"short");
            assert_eq!(rig.app().ends, usize::from(fin));
            let expected = if fin { State::CloseWait } else { State::Established };
            assert_eq!(rig.state(), Some(expected));
            let echo = rig.one();
            assert_eq!((echo.seq, echo.ack), (iss + 1, rig.seq));
            assert_eq!(echo.payload, b"short");
        }
    }
}

/// A connection as it is seen from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    info: ConnectionInfo,
    /// Sequence numbers are counted from the SYN-ACK's, and what the timestamps are is left out.
    segments: Vec<Sent>,
}

/// Opens a connection with a cookie or without, and looks at it and at what it sends.
#[track_caller]
fn look(mut rig: Rig, cookie: bool, options: Options, ecn: bool) -> Seen {
    let iss = if cookie {
        answered_at(&mut rig, EPOCH, CLOCK, options, ecn)
    } else {
        rig.timestamp = options.timestamps.map(|timestamps| timestamps.value);
        let flags = if ecn { SYN | ECE | CWR } else { SYN };
        let syn = rig.frame(rig.seq, SeqNumber(0), flags, options, b"");
        rig.inject(&syn);
        let syn_ack = rig.one();
        rig.seq += 1;
        rig.ack = syn_ack.seq + 1;
        rig.echo = syn_ack.options.timestamps.map_or(0, |timestamps| timestamps.value);
        syn_ack.seq
    };
    rig.peer(ACK, b"");
    let mut info = rig.info();
    // The round trip of a cookie is not known, nor what follows from it.
    (info.srtt, info.timer) = (None, None);
    let transfer = info.transfer.as_mut().expect("it is open");
    (transfer.rttvar, transfer.rto) = (None, Duration::ZERO);
    let mut sent = rig.sent();
    let mut text = Vec::new();
    rig.take(&sent, &mut text);
    rig.peer(ACK, b"");
    text.append(&mut rig.read_all());
    assert_eq!(text, pattern(30_000));
    // The second of two is acknowledged at once, with the window.
    rig.peer(ACK, &[1; 1220]);
    rig.peer(ACK, &[2; 1220]);
    sent.append(&mut rig.sent());
    for segment in &mut sent {
        segment.seq = SeqNumber(segment.seq - iss);
        segment.options.timestamps = segment.options.timestamps.map(|_| Timestamps { value: 0, echo: 0 });
    }
    Seen { info, segments: sent }
}

#[test]
fn a_cookie_connection_is_as_any_other() {
    for v6 in [false, true] {
        let sizes: &[u16] = if v6 { &MSS_V6 } else { &MSS_V4 };
        let sizes = sizes.iter().copied().map(Some).chain([None, Some(9000)]);
        for mss in sizes {
            for window_scale in [None, Some(0), Some(7), Some(14)] {
                for bits in 0..8 {
                    let (stamped, sack, ecn) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
                    let options = Options {
                        mss,
                        window_scale,
                        sack_permitted: sack,
                        timestamps: stamped.then_some(Timestamps { value: 1000, echo: 0 }),
                        ..Options::default()
                    };
                    let rig = || {
                        if v6 {
                            rig_v6(sender(30_000))
                        } else {
                            rig(config(), sender(30_000))
                        }
                    };
                    let (with, without) = (look(rig(), true, options, ecn), look(rig(), false, options, ecn));
                    assert_eq!(with, without, "{options:?}, ECN {ecn}");
                    let agreed = with.info.options.expect("not open");
                    assert_eq!((agreed.timestamps, agreed.sack, agreed.ecn), (stamped, sack, ecn));
                    assert_eq!(agreed.send_window_shift, window_scale.unwrap_or(0));
                    assert_eq!(agreed.receive_window_shift, if window_scale.is_some() { 7 } else { 0 });
                }
            }
        }
    }
}

#[test]
fn an_mss_between_those_a_cookie_can_hold_becomes_the_next_smaller_one() {
    for (offered, held) in [(1399, 1380), (1459, 1440), (535, 512), (255, 48), (0, 48)] {
        let mut rig = rig(config(), App::default());
        connect(
            &mut rig,
            Options {
                mss: Some(offered),
                ..Options::default()
            },
        );
        assert_eq!(rig.info().options.map(|options| options.mss), Some(held));
    }
}

#[test]
fn ecn_that_was_switched_off_is_not_used() {
    let limits = Config { ecn: false, ..config() };
    assert_eq!(syn_ack_of(&limits).ecn, 0);
    let mut rig = rig(limits, App::default());
    answered_at(&mut rig, EPOCH, CLOCK, with_sack(), true);
    rig.peer(ACK, b"");
    assert_eq!(rig.info().options.map(|options| options.ecn), Some(false));
}

#[test]
fn the_xdp_program_is_told_what_syn_acks_of_the_engine_say() {
    for (mtu, outer_headers, receive_buffer, initial) in [
        (1500, 0, 4 << 20, 64 << 10),
        (9000, 0, 1 << 30, 1 << 20),
        (576, 52, 4096, 4096),
        (1500, 32, 64 << 10, 4 << 20),
    ] {
        for (server, client) in [(SERVER, CLIENT), V6] {
            let limits = Config {
                mtu,
                outer_headers,
                receive_buffer,
                receive_buffer_initial: initial,
                ..config()
            };
            let told = syn_ack_of(&limits);
            let mut rig = Rig::between(limits, App::default(), server, client);
            let said = rig.connect_with(Options {
                window_scale: Some(1),
                ..with_timestamps(1)
            });
            let mss = if rig.key.is_v4() { told.mss_v4 } else { told.mss_v6 };
            assert_eq!(said.options.mss, Some(mss));
            assert_eq!(said.options.window_scale, Some(told.window_shift));
            assert_eq!((said.window, told.ecn), (told.window, 1));
            assert!(told.window > 0);
        }
    }
}

#[test]
fn timestamps_go_on_from_the_cookies_whatever_clock_made_it() {
    // Of the same host, of one that started earlier or later, and around the wrap.
    for clock in [CLOCK, 0, 1_000_000, u32::MAX - 500, 500, 0x8000_0000] {
        for secret in [1, 2] {
            let mut rig = rig(config(), sender(100));
            rig.engine = Engine::new(config(), secrets(secret), sender(100));
            rig.engine.listen(SERVER.parse().unwrap());
            rig.engine.set_cookies(Some(cookies(EPOCH)));
            rig.pass(ms(70_000 * secret));
            answered_at(&mut rig, EPOCH, clock, with_timestamps(1000), false);
            let cookie = rig.echo;
            rig.peer(ACK, b"");
            let text = rig.one();
            let ahead = value(&text).wrapping_sub(cookie);
            assert!(ahead <= 2048, "{ahead} ms after the cookie's at {clock}");
            let waited = rig.wait(ms(3000)).expect("not sent again");
            let passed = value(&rig.one()).wrapping_sub(value(&text));
            assert_eq!(u128::from(passed), waited.as_millis());
        }
    }
}

#[test]
fn the_echo_of_a_cookie_is_no_round_trip() {
    let mut rig = rig(config(), sender(100));
    answered(&mut rig, with_timestamps(1000));
    rig.pass(ms(300));
    rig.peer(ACK, b"");
    assert_eq!(rig.info().srtt, None);
    let text = rig.one();
    // The client has not seen it yet, so what it sends still echoes the cookie.
    rig.peer(ACK, b"more");
    assert_eq!(rig.info().srtt, None);
    rig.pass(ms(80));
    rig.sent();
    rig.echo = value(&text);
    rig.acknowledge(&text);
    let srtt = rig.info().srtt.expect("not measured");
    assert!((ms(79)..=ms(81)).contains(&srtt), "{srtt:?}");
}

#[test]
fn what_is_lost_before_the_first_measurement_is_sent_again_after_a_second() {
    for options in [with_sack(), with_timestamps(1000)] {
        let mut rig = rig(config(), sender(100));
        connect(&mut rig, options);
        rig.one();
        let waited = rig.wait(ms(5000)).expect("not sent again");
        assert!((ms(1000)..=ms(1002)).contains(&waited), "{waited:?}");
    }
}

#[test]
fn the_window_opens_for_a_client_that_only_sends() {
    let mut rig = rig(config(), App::default());
    connect(
        &mut rig,
        Options {
            window_scale: Some(7),
            ..with_sack()
        },
    );
    let mut window = 0;
    for _ in 0..20 {
        for _ in 0..22 {
            rig.peer(ACK, &[0; 1460]);
        }
        rig.pass(ms(10));
        window = rig.sent().last().map_or(window, |sent| u32::from(sent.window) << 7);
    }
    assert_eq!(rig.info().srtt, None, "nothing was sent that could be measured");
    assert!(window > 200_000, "{window}");
}

#[test]
fn the_same_acknowledgment_again_finds_the_connection() {
    for options in [Options::default(), with_timestamps(1000)] {
        let mut rig = rig(config(), App::default());
        connect(&mut rig, options);
        for _ in 0..3 {
            rig.peer(ACK, b"");
            rig.nothing();
        }
        let (seq, text) = (rig.seq, b"hello");
        rig.peer_at(seq, ACK, text);
        rig.peer_at(seq, ACK, text);
        assert_eq!(rig.app().received, text);
        assert_eq!((rig.app().opened, rig.count(Counter::CookieConnections)), (1, 1));
        assert_eq!(rig.count(Counter::DropBadCookie), 0);
    }
}

#[test]
fn a_lost_acknowledgment_is_replaced_by_the_first_text() {
    let mut rig = rig(config(), App::default());
    answered(&mut rig, with_timestamps(1000));
    rig.timestamp = Some(1300);
    rig.peer(ACK, b"hello ");
    rig.timestamp = Some(1301);
    rig.peer(ACK, b"world");
    assert_eq!(rig.app().received, b"hello world");
}

/// Ten segments right behind the acknowledgment, in any order and the acknowledgment among them, lose none.
#[test]
fn text_that_overtakes_the_acknowledgment_waits_for_it() {
    for place in 0..=10 {
        for reversed in [false, true] {
            let mut rig = rig(config(), App::default());
            answered(&mut rig, with_sack());
            let text: Vec<u8> = (0..10 * 700).map(|at| (at / 3) as u8).collect();
            let (seq, ack) = (rig.seq, rig.ack);
            let mut frames: Vec<Vec<u8>> = text
                .chunks(700)
                .enumerate()
                .map(|(index, text)| rig.frame(seq + index as u32 * 700, ack, ACK, Options::default(), text))
                .collect();
            if reversed {
                frames.reverse();
            }
            frames.insert(place, rig.frame(seq, ack, ACK, Options::default(), b""));
            for frame in &frames {
                rig.engine.receive(rig.now, frame, OnNoFlow::Reject, &mut rig.wire);
            }
            rig.pass(ms(100));
            assert_eq!(rig.app().received, text, "{place}, reversed: {reversed}");
            assert_eq!((rig.count(Counter::RstsOut), rig.count(Counter::DropBadCookie)), (0, 0));
            assert_eq!(rig.count(Counter::CookieConnections), 1);
        }
    }
}

#[test]
fn the_acknowledgment_of_one_handshake_takes_up_no_text_of_another() {
    let mut rig = rig(config(), App::default());
    let mut handshakes = Vec::new();
    for port in 0..3 {
        rig.key.local_port += port;
        answered(&mut rig, with_sack());
        handshakes.push((rig.key, rig.seq, rig.ack));
        rig.peer_at(rig.seq + 4, ACK, b"more");
    }
    assert_eq!(rig.count(Counter::EarlySegments), 3);
    let mut received = Vec::new();
    for number in [1, 0, 2] {
        (rig.key, rig.seq, rig.ack) = handshakes[number];
        rig.peer(ACK, b"some");
        received.extend_from_slice(b"somemore");
        assert_eq!(rig.app().received, received, "handshake {number}");
    }
    rig.pass(ms(100));
    assert_eq!((rig.count(Counter::RstsOut), rig.count(Counter::DropBadCookie)), (0, 0));
}

#[test]
fn text_whose_acknowledgment_does_not_come_is_reset_after_a_moment() {
    let mut rig = rig(config(), App::default());
    let (seq, ack) = (rig.seq, rig.ack);
    let stray = rig.frame(seq, ack, ACK, Options::default(), b"text");
    for waiting in 1..=100 {
        rig.engine.receive(rig.now, &stray, OnNoFlow::Reject, &mut rig.wire);
        // One too many does not wait.
        let refused = u64::from(waiting > 64) * (waiting - 64_u64.min(waiting));
        assert_eq!(rig.count(Counter::DropBadCookie), refused);
    }
    assert_eq!(rig.count(Counter::EarlySegments), 64);
    rig.pass(ms(19));
    assert_eq!(rig.sent().len(), 36);
    rig.pass(ms(3));
    assert!(rig.sent().iter().all(|reset| reset.is(RST) && reset.seq == ack));
    assert_eq!(rig.count(Counter::DropBadCookie), 100);
    // A bare acknowledgment brings nothing that could be lost.
    let bare = rig.frame(seq, ack, ACK, Options::default(), b"");
    rig.engine.receive(rig.now, &bare, OnNoFlow::Reject, &mut rig.wire);
    assert!(rig.one().is(RST));
    rig.assert_empty();
}
