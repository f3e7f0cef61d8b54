//! Probing a closed window (RFC 9293, section 3.8.6.1).

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;

#[test]
fn a_window_that_closes_behind_the_text_is_probed_and_a_lost_update_is_found() {
    let mut rig = Rig::new(config(), sender(100_000));
    rig.connect();
    let sent = rig.sent();
    let last = sent.last().unwrap();
    rig.window = 0;
    rig.acknowledge(last);
    rig.nothing();
    let gap = rig.wait(ms(5000)).expect("the window is not probed");
    assert!(gap >= ms(200));
    assert!(rig.one().payload.len() <= 1);
    rig.peer(ACK, b"");
    rig.nothing();
    // The update that reopens the window is lost; the answer to the next probe says so again.
    rig.window = 65_535;
    assert!(rig.wait(ms(5000)).is_some());
    rig.sent();
    rig.peer(ACK, b"");
    assert_eq!(rig.sent()[0].seq, last.end());
    assert_eq!(rig.count(Counter::RtoRetransmits), 0);
}

#[test]
fn probes_back_off_up_to_the_largest_timeout() {
    let limits = Config {
        rto_max: ms(2000),
        ..config()
    };
    let mut rig = Rig::new(limits, sender(3000));
    rig.window = 0;
    rig.connect();
    let mut gaps = Vec::new();
    for _ in 0..10 {
        gaps.push(rig.wait(ms(60_000)).expect("the window is not probed"));
        rig.sent();
        rig.peer(ACK, b"");
    }
    assert!(gaps.is_sorted(), "{gaps:?}");
    assert!(gaps[0] < ms(2000));
    assert!((ms(2000)..=ms(2001)).contains(&gaps[9]), "{gaps:?}");
}

#[test]
fn a_closed_window_does_not_hold_fin_back_for_ever() {
    let mut rig = Rig::new(
        config(),
        App {
            close_after_greeting: true,
            ..sender(1460)
        },
    );
    rig.window = 1460;
    rig.connect();
    let text = rig.one();
    assert_eq!(text.payload.len(), 1460);
    rig.window = 0;
    rig.acknowledge(&text);
    for _ in 0..3 {
        assert!(rig.wait(ms(10_000)).is_some(), "the window is not probed");
        rig.sent();
        rig.peer(ACK, b"");
    }
    rig.window = 1000;
    rig.peer(ACK, b"");
    let fin = rig.sent().pop().expect("FIN was not sent");
    assert!(fin.flags.contains(FIN));
    rig.acknowledge(&fin);
    assert_eq!(rig.state(), Some(State::FinWait2));
}

#[test]
fn a_probe_of_our_closed_window_is_answered_with_where_it_stands() {
    let mut rig = Rig::new(
        Config {
            receive_buffer: 4096,
            ..config()
        },
        App {
            appetite: Some(0),
            ..App::default()
        },
    );
    rig.connect();
    rig.peer(ACK, &[1; 4096]);
    rig.pass(ms(50));
    rig.sent();
    // The old octet Linux sends, and the new one RFC 9293 describes.
    for (seq, text) in [(rig.seq - 1, &b""[..]), (rig.seq, &b"x"[..])] {
        rig.peer_at(seq, ACK, text);
        let answer = rig.one();
        assert_eq!((answer.ack, answer.window), (rig.seq, 0));
    }
    assert_eq!(rig.info().unread, 4096);
}
