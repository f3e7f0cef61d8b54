//! The user timeout (RFC 9293, sections 3.8.3 and 3.9.1.1): how slowly a peer may acknowledge.

use std::time::Duration;

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;

const TIMEOUT: Duration = Duration::from_secs(120);

/// Runs `step` until the connection is gone, at most for `limit`; returns how long that took. `step` lets time pass.
#[track_caller]
fn time_until_gone(rig: &mut Rig, limit: Duration, mut step: impl FnMut(&mut Rig)) -> Duration {
    let start = rig.now;
    while rig.now.since(start) < limit {
        step(rig);
        if rig.state().is_none() {
            assert_eq!(rig.app().closed, [CloseReason::TimedOut]);
            return rig.now.since(start);
        }
    }
    panic!("still there after {limit:?}");
}

/// The peer takes note of everything that comes in order.
fn read(rig: &mut Rig) {
    for segment in rig.sent() {
        if segment.seq == rig.ack {
            rig.ack = segment.end();
        }
    }
}

#[test]
fn a_window_that_opens_and_closes_does_not_keep_a_connection() {
    for small in [1, 3] {
        let mut rig = Rig::new(config(), sender(100_000));
        rig.window = 0;
        rig.connect();
        let mut open = false;
        let taken = time_until_gone(&mut rig, 4 * TIMEOUT, |rig| {
            read(rig);
            open = !open;
            rig.window = if open { small } else { 0 };
            rig.peer(ACK, b"");
            rig.pass(ms(90));
        });
        assert!(taken >= TIMEOUT, "{taken:?}");
        assert_eq!(rig.count(Counter::TimedOutSlow), 1);
        rig.assert_empty();
    }
}

#[test]
fn a_small_window_is_used_after_a_while_however_often_it_closes_meanwhile() {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.window = 0;
    rig.connect();
    let first = rig.ack;
    for _ in 0..20 {
        for window in [1, 0] {
            read(&mut rig);
            rig.window = window;
            rig.peer(ACK, b"");
            rig.pass(ms(90));
        }
    }
    assert!(rig.ack.after(first), "no octet was sent in 3.6 s");
}

#[test]
fn acknowledging_octet_by_octet_does_not_keep_a_connection() {
    // It restarts the retransmission timer with every octet.
    let mut rig = Rig::new(config(), sender(100_000));
    rig.connect();
    let taken = time_until_gone(&mut rig, 4 * TIMEOUT, |rig| {
        rig.sent();
        rig.ack += 1;
        rig.peer(ACK, b"");
        rig.pass(ms(100));
    });
    assert!(taken >= TIMEOUT, "{taken:?}");
    rig.assert_empty();
}

#[test]
fn a_long_queue_is_given_up_by_the_time_that_is_documented() {
    // Just enough for the first time, then just too little.
    let limits = Config {
        min_send_progress: 1000,
        ..config()
    };
    let mut rig = Rig::new(limits, sender(10_000));
    rig.connect();
    rig.sent();
    for _ in 0..4 {
        rig.pass(TIMEOUT - ms(1000));
        rig.ack += 1000;
        rig.peer(ACK, b"");
        assert_eq!(rig.state(), Some(State::Established));
    }
    let taken = time_until_gone(&mut rig, 2 * TIMEOUT, |rig| {
        rig.pass(ms(30_000));
        rig.ack += 200;
        rig.peer(ACK, b"");
    });
    assert!(taken <= TIMEOUT + ms(30_000), "{taken:?}");
}

#[test]
fn a_slow_reader_gets_everything() {
    // A kilobyte a second out of a receive buffer of 4 KiB: a hundred times the user timeout would pass without it.
    let limits = Config {
        user_timeout: ms(20_000),
        min_send_progress: 4096,
        ..config()
    };
    let mut rig = Rig::new(limits, sender(300_000));
    rig.window = 4096;
    rig.connect();
    let mut buffered = 0;
    let mut text = 0;
    for _ in 0..400 {
        for segment in rig.sent() {
            if segment.seq == rig.ack {
                rig.ack = segment.end();
                buffered += segment.payload.len();
                text += segment.payload.len();
            }
        }
        buffered = buffered.saturating_sub(1024);
        // Silly window avoidance of the peer: half of its buffer.
        if 4096 - buffered >= 2048 {
            rig.window = (4096 - buffered) as u16;
        } else {
            rig.window = 0;
        }
        rig.peer(ACK, b"");
        rig.pass(ms(1000));
    }
    assert_eq!(text, 300_000);
    assert_eq!(rig.state(), Some(State::Established));
}

#[test]
fn little_that_is_always_outstanding_is_progress_enough() {
    // An echo over a long path: something is unacknowledged at every moment, and much less than `min_send_progress`
    // comes to be acknowledged in the time.
    let app = App::echo();
    let mut rig = Rig::new(
        Config {
            nagle: false,
            ..config()
        },
        app,
    );
    rig.connect();
    let mut last = rig.ack;
    for _ in 0..600 {
        // What is acknowledged is what was sent a second ago.
        let end = rig.sent().last().map_or(last, Sent::end);
        rig.ack = last;
        last = end;
        rig.peer(ACK, b"tick");
        assert!(rig.info().unacknowledged > 0);
        rig.pass(ms(190));
        rig.pass(ms(810));
    }
    assert_eq!(rig.state(), Some(State::Established));
}

#[test]
fn any_progress_counts_when_so_configured() {
    let limits = Config {
        min_send_progress: 1,
        ..config()
    };
    let mut rig = Rig::new(limits, sender(100_000));
    rig.connect();
    for _ in 0..100 {
        rig.sent();
        rig.ack += 1;
        rig.peer(ACK, b"");
        rig.pass(TIMEOUT - ms(1000));
    }
    assert_eq!(rig.state(), Some(State::Established));
    let taken = time_until_gone(&mut rig, 2 * TIMEOUT, |rig| rig.pass(ms(1000)));
    assert!(taken <= ms(3000), "{taken:?}");
}

#[test]
fn an_idle_connection_has_no_user_timeout() {
    let mut rig = Rig::new(config(), sender(3000));
    rig.connect();
    let sent = rig.sent();
    rig.acknowledge(sent.last().unwrap());
    rig.pass(Duration::from_secs(3600));
    assert_eq!(rig.state(), Some(State::Established));
    // It begins with what is queued next, and ends with FIN.
    rig.engine.drain(rig.now, &mut rig.wire);
    assert!(rig.one().is(ACK | FIN));
    let taken = time_until_gone(&mut rig, 2 * TIMEOUT, |rig| rig.pass(ms(100)));
    assert!((TIMEOUT..=TIMEOUT + ms(200)).contains(&taken), "{taken:?}");
    assert_eq!(rig.count(Counter::TimedOutSlow), 0, "the peer was not there");
}

#[test]
fn a_fin_that_a_closed_window_holds_back_is_not_waited_for_for_ever() {
    // The peer answers every probe.
    let app = App {
        close_after_greeting: true,
        ..sender(1460)
    };
    let mut rig = Rig::new(config(), app);
    rig.window = 1460;
    rig.connect();
    read(&mut rig);
    rig.window = 0;
    rig.peer(ACK, b"");
    let taken = time_until_gone(&mut rig, 4 * TIMEOUT, |rig| {
        rig.pass(ms(1000));
        rig.sent();
        rig.peer(ACK, b"");
    });
    assert!(taken >= TIMEOUT - ms(1000), "{taken:?}");
    rig.assert_empty();
}

#[test]
fn a_fin_queued_when_all_was_acknowledged_is_given_up_in_time() {
    // The application closes when it is told of room, having nothing more to send.
    let app = App {
        close_when_writable: true,
        ..App::default()
    };
    let mut rig = Rig::new(config(), app);
    rig.connect_actively(with_sack());
    rig.sent();
    rig.on_stream(|stream| {
        let mut text = pattern(stream.send_space());
        stream.send(&mut text);
    });
    while rig.state() == Some(State::Established) {
        read(&mut rig);
        rig.peer(ACK, b"");
    }
    assert_eq!(rig.app().writable, 1);
    assert_eq!(rig.state(), Some(State::FinWait1));
    // Nothing comes from the peer any more.
    let taken = time_until_gone(&mut rig, 4 * TIMEOUT, |rig| {
        rig.pass(ms(1000));
        rig.sent();
    });
    assert!(taken >= TIMEOUT - ms(1000), "{taken:?}");
}

#[test]
fn nothing_is_waited_for_once_a_fin_is_acknowledged() {
    let app = App {
        close_after_greeting: true,
        ..sender(1000)
    };
    let limits = Config {
        fin_wait_2: 5 * TIMEOUT,
        ..config()
    };
    let mut rig = Rig::new(limits, app);
    rig.connect();
    read(&mut rig);
    rig.peer(ACK, b"");
    let acknowledged = rig.now;
    assert_eq!(rig.state(), Some(State::FinWait2));
    rig.pass(ms(3000));
    let next = rig.engine.next_deadline().expect("a timer");
    assert!(next.since(acknowledged) > 4 * TIMEOUT, "only FIN-WAIT-2 has one");
}
