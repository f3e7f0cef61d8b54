//! A recovery that is over is over: what it left behind to be undone, and what it had learned of the path.

use std::time::Duration;

use crate::common::*;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;

/// The way a loss is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    BySack,
    ByTimeout,
}

/// A connection that has recovered from the loss of its first segment, or taken it for lost; and that segment.
fn recovered(found: Found, timestamps: bool) -> (Rig, Sent) {
    let mut rig = Rig::new(config(), App::default());
    rig.connect_actively(Options {
        timestamps: timestamps.then_some(Timestamps { value: 1, echo: 0 }),
        ..with_sack()
    });
    rig.sent();
    // Something that arrived before.
    rig.on_stream(|stream| assert_eq!(stream.send(&mut pattern(1000)), 1000));
    let before = rig.one();
    rig.acknowledge(&before);
    rig.on_stream(|stream| assert_eq!(stream.send(&mut pattern(10_000)), 10_000));
    let sent = rig.sent();
    rig.now = rig.now + ms(20);
    match found {
        Found::BySack => rig.selective(rig.ack, &[(sent[1].seq, sent[sent.len() - 1].end())]),
        Found::ByTimeout => rig.pass(ms(400)),
    }
    let again = rig.sent();
    let again = again.iter().find(|segment| segment.seq == sent[0].seq);
    rig.echo = again
        .expect("nothing was sent again")
        .options
        .timestamps
        .map_or(0, |stamps| stamps.value);
    rig.now = rig.now + ms(20);
    rig.acknowledge(&sent[sent.len() - 1]);
    rig.sent();
    assert_eq!(rig.count(Counter::SpuriousRetransmits), 0);
    (rig, sent[0].clone())
}

const FOUND: [(Found, bool); 4] = [
    (Found::BySack, false),
    (Found::BySack, true),
    (Found::ByTimeout, false),
    (Found::ByTimeout, true),
];

#[test]
fn the_short_way_is_taken_again_after_a_recovery() {
    for (found, timestamps) in FOUND {
        let (mut rig, _) = recovered(found, timestamps);
        let predicted = rig.count(Counter::PredictedIn);
        for _ in 0..1000 {
            rig.on_stream(|stream| assert_eq!(stream.send(&mut pattern(100)), 100));
            let response = rig.sent().pop().expect("nothing was sent");
            rig.ack = response.end();
            rig.peer(ACK, b"request");
        }
        let predicted = rig.count(Counter::PredictedIn) - predicted;
        assert!(
            predicted >= 998,
            "{found:?}, {timestamps}: {predicted} of 1000 segments"
        );
    }
}

#[test]
fn a_recovery_is_undone_while_what_it_sent_again_may_be_reported_and_not_later() {
    for (found, timestamps) in FOUND {
        for (after, undone) in [(50, 1), (1000, 0)] {
            let (mut rig, first) = recovered(found, timestamps);
            rig.now = rig.now + ms(after);
            rig.selective(rig.ack, &[(first.seq, first.end())]);
            let count = rig.count(Counter::SpuriousRetransmits);
            assert_eq!(count, undone, "{found:?}, {timestamps}: {after} ms after it was over");
            assert_eq!(rig.count(Counter::DsacksIn), 1);
        }
    }
}

#[test]
fn what_arrived_twice_before_a_recovery_does_not_undo_it() {
    let (mut rig, first) = recovered(Found::BySack, false);
    rig.selective(rig.ack, &[(first.seq - 500, first.seq)]);
    assert_eq!(rig.count(Counter::SpuriousRetransmits), 0);
    rig.selective(rig.ack, &[(first.seq, first.end())]);
    assert_eq!(rig.count(Counter::SpuriousRetransmits), 1);
}

#[test]
fn a_late_report_leaves_the_window_as_the_recovery_has_left_it() {
    let burst = |late: bool| {
        let (mut rig, first) = recovered(Found::BySack, false);
        rig.pass(ms(1000));
        if late {
            rig.selective(rig.ack, &[(first.seq, first.end())]);
        }
        // The queue takes what the window lets go.
        rig.on_stream(|stream| _ = stream.send(&mut pattern(30_000)));
        rig.sent().len()
    };
    assert_eq!(burst(true), burst(false));
}

#[test]
fn what_a_silent_connection_had_learned_is_forgotten_after_five_minutes() {
    let burst = |silence: u64| {
        let (mut rig, _) = recovered(Found::ByTimeout, false);
        rig.pass(Duration::from_secs(silence));
        rig.on_stream(|stream| _ = stream.send(&mut pattern(30_000)));
        let mut first = rig.sent();
        // How the window grows tells whether it is in slow start.
        rig.acknowledge(&first.remove(first.len() - 1));
        rig.on_stream(|stream| _ = stream.send(&mut pattern(30_000)));
        rig.sent().len()
    };
    assert!(burst(301) > burst(290), "{} and {} segments", burst(301), burst(290));
}
