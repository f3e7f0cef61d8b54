//! Acknowledgments that are taken for those of SYN cookies, and others that are not (RFC 4987, section 3.6).

use crate::common::cookie::*;
use crate::common::*;
use tidegate_abi::syn_cookie::{Accepted, Keys};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{Cookies, OnNoFlow, Received};
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;
use tidegate_tcp::{Config, State};

/// A connection in TIME-WAIT whose SYN was answered with a cookie.
#[track_caller]
fn in_time_wait(options: Options) -> Rig {
    let app = App {
        close_after_greeting: true,
        ..sender(3)
    };
    let mut rig = rig(config(), app);
    connect(&mut rig, options);
    let fin = rig.one();
    rig.ack = fin.end();
    rig.peer(ACK | FIN, b"");
    rig.sent();
    assert_eq!(rig.state(), Some(State::TimeWait));
    rig
}

/// Whether a cookie of the epoch `made` is accepted in the epoch `now`.
fn accepted(made: u64, now: u64, next_too: bool, options: Options) -> bool {
    let mut rig = rig(config(), App::default());
    rig.engine.set_cookies(Some(Cookies {
        keys: Keys::new(SECRET, now, next_too),
        ..cookies(now)
    }));
    answered_at(&mut rig, made, CLOCK, options, false);
    rig.peer(ACK, b"");
    let accepted = rig.state() == Some(State::Established);
    assert_eq!(rig.count(Counter::CookieConnections), u64::from(accepted));
    assert_eq!(rig.count(Counter::DropBadCookie), u64::from(!accepted));
    assert_eq!(rig.sent().len(), usize::from(!accepted), "no RST");
    accepted
}

#[test]
fn cookies_are_accepted_in_their_epoch_and_the_next_one() {
    for options in [with_sack(), with_timestamps(1000)] {
        for epoch in [EPOCH, EPOCH + 1] {
            assert!(accepted(epoch, epoch, false, options));
            assert!(accepted(epoch, epoch + 1, false, options));
            for later in 2..6 {
                assert!(!accepted(epoch, epoch + later, false, options));
                assert!(!accepted(epoch, epoch + later, true, options));
            }
            assert!(!accepted(epoch + 1, epoch, false, options), "of the future");
            assert!(accepted(epoch + 1, epoch, true, options), "of a clock that is ahead");
            assert!(!accepted(epoch + 2, epoch, true, options));
        }
    }
}

#[test]
fn a_cookie_replayed_after_two_epochs_is_refused() {
    for options in [with_sack(), with_timestamps(1000)] {
        let mut rig = rig(config(), App::default());
        connect(&mut rig, options);
        rig.peer(RST, b"");
        assert_eq!(rig.state(), None);
        rig.engine.set_cookies(Some(cookies(EPOCH + 2)));
        rig.peer(ACK, b"again");
        rig.pass(ms(25));
        assert!(rig.one().is(RST));
        assert_eq!((rig.app().opened, rig.app().received.len()), (1, 0));
        assert_eq!(rig.count(Counter::DropBadCookie), 1);
    }
}

#[test]
fn without_cookies_an_acknowledgment_is_reset_and_not_counted_as_one() {
    for off in [false, true] {
        let mut rig = Rig::new(config(), App::default());
        if off {
            rig.engine.set_cookies(Some(cookies(EPOCH)));
            rig.engine.set_cookies(None);
        }
        answered(&mut rig, with_timestamps(1000));
        rig.peer(ACK, b"hello");
        assert!(rig.one().is(RST));
        assert_eq!(rig.count(Counter::DropBadCookie), 0);
        rig.assert_empty();
    }
}

#[test]
fn a_cookie_of_another_handshake_is_refused() {
    type Change = fn(&mut Rig);
    let changes: [Change; 9] = [
        |rig| rig.key.local_port += 1,
        |rig| rig.key.local[15] ^= 1,
        |rig| rig.key.local[12] ^= 1,
        |rig| rig.key.remote_port = 81,
        |rig| rig.seq += 1,
        |rig| rig.seq = rig.seq - 1,
        |rig| rig.ack += 1,
        |rig| rig.ack += 1 << 31,
        |rig| rig.ack += 1 << 22,
    ];
    for options in [with_sack(), with_timestamps(1000)] {
        for (number, change) in changes.into_iter().enumerate() {
            for v6 in [false, true] {
                let mut rig = if v6 {
                    rig_v6(App::default())
                } else {
                    rig(config(), App::default())
                };
                let mut other = rig.key.peer();
                other.set_port(81);
                rig.engine.listen(other);
                answered(&mut rig, options);
                change(&mut rig);
                rig.peer(ACK, b"hello");
                rig.pass(ms(25));
                assert!(rig.one().is(RST), "change {number}");
                assert_eq!(rig.count(Counter::DropBadCookie), 1);
                rig.assert_empty();
            }
        }
    }
}

#[test]
fn timestamps_can_neither_be_changed_nor_left_out_nor_added() {
    type Change = fn(&mut Rig);
    let changes: [(Options, Change); 4] = [
        (with_timestamps(1000), |rig| rig.echo ^= 1),
        (with_timestamps(1000), |rig| rig.echo ^= 512),
        (with_timestamps(1000), |rig| rig.timestamp = None),
        (with_sack(), |rig| rig.timestamp = Some(1000)),
    ];
    for (number, (options, change)) in changes.into_iter().enumerate() {
        let mut rig = rig(config(), App::default());
        answered(&mut rig, options);
        change(&mut rig);
        rig.peer(ACK, b"");
        assert!(rig.one().is(RST), "change {number}");
        assert_eq!(rig.count(Counter::DropBadCookie), 1);
        rig.assert_empty();
    }
}

#[test]
fn a_flood_of_forged_acknowledgments_opens_nothing_and_is_reset_within_the_rate() {
    let limits = Config {
        rst_rate: 100,
        ..config()
    };
    let mut rig = rig(limits, App::default());
    rig.timestamp = Some(1000);
    for number in 0..20_000_u32 {
        rig.key.local_port = 1024 + (number % 50_000) as u16;
        rig.seq = SeqNumber(number.wrapping_mul(0x9e37_79b9));
        rig.ack = SeqNumber(number.wrapping_mul(0x85eb_ca6b) ^ 0x5bd1_e995);
        rig.echo = number.wrapping_mul(0xc2b2_ae35);
        let seq = rig.seq;
        rig.peer_at(seq, ACK, b"");
    }
    assert_eq!(rig.count(Counter::DropBadCookie), 20_000);
    let resets = rig.count(Counter::RstsOut);
    assert!((50..150).contains(&resets), "{resets}");
    assert!(rig.sent().iter().all(|sent| sent.is(RST)));
    rig.assert_empty();
}

#[test]
fn what_cannot_follow_a_syn_ack_is_not_taken_for_a_cookie() {
    for flags in [SYN | ACK, RST | ACK, RST, FIN, PSH] {
        let mut rig = rig(config(), App::default());
        answered(&mut rig, with_sack());
        rig.peer(flags, b"");
        assert_eq!(rig.app().opened, 0, "{flags:?}");
        assert_eq!(rig.count(Counter::DropBadCookie), 0, "{flags:?}");
        rig.assert_empty();
    }
}

#[test]
fn a_cookie_does_not_touch_a_connection_that_is_open() {
    let mut rig = rig(config(), App::default());
    rig.connect();
    let (seq, ack) = (rig.seq, rig.ack);
    rig.seq += 5_000_000;
    answered(&mut rig, Options::default());
    rig.peer(ACK, b"");
    let challenge = rig.one();
    assert_eq!((challenge.seq, challenge.ack), (ack, seq));
    (rig.seq, rig.ack) = (seq, ack);
    rig.peer(ACK, b"still here");
    assert_eq!(rig.app().received, b"still here");
    assert_eq!((rig.app().opened, rig.count(Counter::CookieConnections)), (1, 0));
}

#[test]
fn a_half_open_connection_gives_way_when_the_client_acknowledges_a_cookie() {
    for options in [with_sack(), with_timestamps(1000)] {
        let mut rig = rig(config(), App::default());
        rig.syn(options);
        let lost = rig.one();
        assert_eq!(rig.engine.half_open(), 1);
        // The SYN comes again while cookies are on.
        rig.seq = rig.seq - 1;
        let iss = connect(&mut rig, options);
        assert_ne!(lost.seq, iss);
        assert_eq!(rig.state(), Some(State::Established));
        assert_eq!(rig.engine.half_open(), 0);
        rig.pass(ms(100_000));
        rig.nothing();
        rig.peer(RST, b"");
        rig.assert_empty();
    }
}

#[test]
fn a_forged_acknowledgment_leaves_a_half_open_connection_alone() {
    let mut rig = rig(config(), App::default());
    rig.syn(with_sack());
    let syn_ack = rig.one();
    for guess in [syn_ack.seq, syn_ack.seq + 2, syn_ack.seq + 0x8000_0001] {
        rig.ack = guess;
        rig.peer_at(rig.seq, ACK, b"");
        assert!(rig.one().is(RST));
    }
    assert_eq!(rig.count(Counter::DropBadCookie), 3);
    assert_eq!(rig.engine.half_open(), 1);
    rig.ack = syn_ack.seq + 1;
    rig.peer(ACK, b"");
    assert_eq!(rig.state(), Some(State::Established));
    assert_eq!(rig.count(Counter::CookieConnections), 0);
}

/// Cookies begin anywhere, half of them above what the old connection sent. Returns also where that ended.
fn in_time_wait_and_answered(above: bool, options: Options) -> (Rig, SeqNumber) {
    for step in 1..200 {
        let mut rig = in_time_wait(options);
        let old = rig.ack;
        rig.seq += 10_000 * step;
        let later = Options {
            timestamps: options.timestamps.map(|_| Timestamps { value: 2000, echo: 0 }),
            ..options
        };
        if answered(&mut rig, later).after(old) == above {
            return (rig, old);
        }
    }
    panic!("no cookie of 200 is as wanted");
}

#[test]
fn time_wait_gives_way_to_the_cookie_of_a_new_connection() {
    for options in [with_sack(), with_timestamps(1000)] {
        let (mut rig, _) = in_time_wait_and_answered(true, options);
        rig.peer(ACK, b"");
        assert_eq!((rig.app().opened, rig.state()), (2, Some(State::FinWait1)));
        assert_eq!(rig.count(Counter::TimeWaitReused), 1);
        assert_eq!(rig.engine.population().time_wait, 0);
    }
}

#[test]
fn a_cookie_below_what_time_wait_sent_is_reset_and_the_next_syn_begins_above() {
    for options in [with_sack(), with_timestamps(1000)] {
        for text in [&b""[..], b"GET"] {
            let (mut rig, old) = in_time_wait_and_answered(false, options);
            let cookie = rig.ack;
            rig.peer(ACK, text);
            let reset = rig.one();
            assert!(reset.is(RST));
            assert_eq!(reset.seq, cookie);
            assert_eq!((rig.app().opened, rig.state()), (1, Some(State::TimeWait)));
            assert_eq!(rig.count(Counter::DropCookieTimeWait), 1);
            rig.seq += 10_000;
            let later = Options {
                timestamps: options.timestamps.map(|_| Timestamps { value: 3000, echo: 0 }),
                ..options
            };
            let syn_ack = rig.connect_with(later);
            assert!(syn_ack.seq.after(old), "{:?} is not above {old:?}", syn_ack.seq);
            assert_eq!((rig.app().opened, rig.count(Counter::TimeWaitReused)), (2, 1));
        }
    }
}

#[test]
fn an_old_duplicate_of_a_cookies_acknowledgment_does_not_end_time_wait() {
    for options in [with_sack(), with_timestamps(1000)] {
        let mut rig = in_time_wait(options);
        let end = rig.seq;
        // Once more from the beginning, with the same sequence number.
        rig.seq = end - 2;
        answered(&mut rig, options);
        rig.peer(ACK, b"");
        rig.peer_at(end - 1, ACK, b"text");
        assert!(rig.sent().iter().all(|sent| sent.is(ACK)));
        assert_eq!((rig.app().opened, rig.state()), (1, Some(State::TimeWait)));
        assert_eq!(rig.count(Counter::TimeWaitReused), 0);
    }
}

#[test]
fn forged_acknowledgments_do_not_end_time_wait() {
    for options in [with_sack(), with_timestamps(1000)] {
        let mut rig = in_time_wait(options);
        rig.timestamp = options.timestamps.map(|_| 2000);
        for number in 1..1000_u32 {
            rig.ack = SeqNumber(number.wrapping_mul(0x9e37_79b9));
            rig.peer_at(rig.seq + number, ACK, b"");
        }
        rig.nothing();
        assert_eq!((rig.app().opened, rig.state()), (1, Some(State::TimeWait)));
        // They are of the old connection, for all that is known.
        assert_eq!(rig.count(Counter::DropBadCookie), 0);
    }
}

#[test]
fn a_cookie_is_of_one_shard_whichever_it_reaches_first() {
    let mut taken = [0; 4];
    for port in 0..64 {
        let mut takers = 0;
        for shard in 0..4 {
            let mut rig = Rig::new(config(), App::default());
            rig.engine.set_cookies(Some(Cookies {
                shard,
                shards: 4,
                ..cookies(EPOCH)
            }));
            rig.key.local_port = 1024 + port;
            answered(&mut rig, Options::default());
            let frame = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"");
            let received = rig.engine.receive(rig.now, &frame, OnNoFlow::Report, &mut rig.wire);
            rig.nothing();
            if received == Received::Done {
                assert_eq!(rig.state(), Some(State::Established));
                taken[usize::from(shard)] += 1;
                takers += 1;
                continue;
            }
            assert_eq!(rig.count(Counter::DropCookieShard), 0, "another may take it");
            rig.inject(&frame);
            rig.nothing();
            assert_eq!(rig.count(Counter::DropCookieShard), 1);
            assert_eq!(rig.count(Counter::DropBadCookie), 0);
            rig.assert_empty();
        }
        assert_eq!(takers, 1, "port {port}");
    }
    assert!(taken.iter().all(|&count| count > 0), "{taken:?}");
}

#[test]
fn another_shards_cookie_ends_what_would_answer_in_its_place() {
    // The shard whose cookie this is not: all but one.
    let mut others = 0;
    for shard in 0..2 {
        let mut rig = Rig::new(config(), App::default());
        rig.engine.set_cookies(Some(Cookies {
            shard,
            shards: 2,
            ..cookies(EPOCH)
        }));
        rig.syn(Options::default());
        rig.one();
        rig.seq = rig.seq - 1;
        answered(&mut rig, Options::default());
        let frame = rig.frame(rig.seq, rig.ack, ACK, Options::default(), b"");
        let received = rig.engine.receive(rig.now, &frame, OnNoFlow::Report, &mut rig.wire);
        assert_eq!(rig.engine.half_open(), 0);
        if received != Received::Done {
            others += 1;
            rig.pass(ms(100_000));
            rig.nothing();
            rig.assert_empty();
        }
    }
    assert_eq!(others, 1);
}

#[test]
fn a_forged_acknowledgment_is_counted_once_however_many_shards_see_it() {
    let mut rig = rig(config(), App::default());
    let frame = rig.frame(rig.seq, SeqNumber(4711), ACK, Options::default(), b"");
    for _ in 0..3 {
        let received = rig.engine.receive(rig.now, &frame, OnNoFlow::Report, &mut rig.wire);
        assert_eq!(received, NO_FLOW);
        rig.nothing();
    }
    assert_eq!(rig.count(Counter::DropBadCookie), 0);
    rig.inject(&frame);
    assert!(rig.one().is(RST));
    assert_eq!(rig.count(Counter::DropBadCookie), 1);
}

#[test]
fn cookies_do_not_get_around_the_limit_of_connections() {
    let limits = Config {
        max_connections: 1,
        ..config()
    };
    let mut rig = rig(limits, App::default());
    connect(&mut rig, with_sack());
    let first = (rig.key, rig.seq, rig.ack);
    rig.key.local_port += 1;
    answered(&mut rig, with_sack());
    rig.peer(ACK, b"");
    rig.nothing();
    assert_eq!(rig.count(Counter::DropConnectionsFull), 1);
    assert_eq!(rig.engine.population().connections, 1);
    let second = (rig.key, rig.seq, rig.ack);
    (rig.key, rig.seq, rig.ack) = first;
    rig.peer(RST, b"");
    (rig.key, rig.seq, rig.ack) = second;
    rig.peer(ACK, b"late");
    assert_eq!(rig.app().received, b"late");
    assert_eq!(rig.count(Counter::CookieConnections), 2);
}

#[test]
fn a_draining_engine_takes_no_cookies() {
    let mut rig = rig(config(), App::default());
    rig.engine.drain(rig.now, &mut rig.wire);
    answered(&mut rig, with_timestamps(1000));
    rig.peer(ACK, b"hello");
    rig.nothing();
    assert_eq!(rig.count(Counter::DropDraining), 1);
    rig.assert_empty();
}

/// An engine that accepts no cookies without timestamps but strong ones.
fn strict(v6: bool, app: App) -> Rig {
    let mut rig = if v6 { rig_v6(app) } else { rig(config(), app) };
    rig.engine.set_cookies(Some(Cookies {
        accepted: Accepted::Strong,
        ..cookies(EPOCH)
    }));
    rig
}

#[test]
fn a_connection_of_a_strong_cookie_has_nothing_but_an_mss() {
    let offer = Options {
        window_scale: Some(7),
        ..with_sack()
    };
    for (v6, mss) in [(false, 1440), (true, 1420)] {
        for is_strict in [false, true] {
            let mut rig = if is_strict {
                strict(v6, sender(30_000))
            } else if v6 {
                rig_v6(sender(30_000))
            } else {
                rig(config(), sender(30_000))
            };
            let iss = strongly_answered(&mut rig, offer);
            rig.peer(ACK, b"");
            assert_eq!(rig.count(Counter::CookieConnections), 1);
            let agreed = rig.info().options.expect("not open");
            assert_eq!(agreed.mss, mss);
            assert!(!agreed.sack && !agreed.timestamps && !agreed.ecn, "{agreed:?}");
            assert_eq!((agreed.send_window_shift, agreed.receive_window_shift), (0, 0));
            let sent = rig.sent();
            assert_eq!(sent[0].seq, iss + 1);
            assert!(sent.iter().all(|sent| sent.payload.len() <= usize::from(mss)));
            // What lies behind a gap is acknowledged without SACK.
            rig.peer_at(rig.seq + 100, ACK, b"behind a gap");
            let duplicate = rig.sent().pop().expect("no duplicate ACK");
            assert_eq!((duplicate.ack, duplicate.options), (rig.seq, Options::default()));
        }
    }
}

#[test]
fn while_strong_cookies_are_asked_for_no_others_are_accepted_without_timestamps() {
    for v6 in [false, true] {
        let mut refused = strict(v6, App::default());
        answered(&mut refused, with_sack());
        refused.peer(ACK, b"");
        assert!(refused.one().is(RST));
        assert_eq!(refused.count(Counter::DropBadCookie), 1);
        refused.assert_empty();

        let mut stamped = strict(v6, App::default());
        connect(&mut stamped, with_timestamps(1000));
        assert_eq!(stamped.state(), Some(State::Established));

        // Nor are timestamps added to a strong one.
        let mut changed = strict(v6, App::default());
        strongly_answered(&mut changed, with_sack());
        changed.timestamp = Some(1000);
        changed.peer(ACK, b"");
        assert!(changed.one().is(RST));
        assert_eq!(changed.count(Counter::DropBadCookie), 1);
    }
}

#[test]
fn strong_cookies_are_accepted_in_their_epoch_and_the_next_one() {
    for (later, is_accepted) in [(0, true), (1, true), (2, false)] {
        let mut rig = strict(false, App::default());
        rig.engine.set_cookies(Some(Cookies {
            accepted: Accepted::Strong,
            ..cookies(EPOCH + later)
        }));
        strongly_answered(&mut rig, with_sack());
        rig.peer(ACK, b"");
        assert_eq!(
            rig.count(Counter::CookieConnections),
            u64::from(is_accepted),
            "epoch + {later}"
        );
    }
}
