//! Selective acknowledgment: generated (RFC 2018, RFC 2883) and used (RFC 6675, RFC 8985).
#![allow(missing_docs)]

mod common;

use std::collections::BTreeSet;

use common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::recovery::LossDetection;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;

type Block = (SeqNumber, SeqNumber);

fn blocks(sent: &Sent) -> Vec<Block> {
    sent.options.sack.as_slice().to_vec()
}

fn connected(app: App) -> Rig {
    let mut rig = Rig::new(config(), app);
    rig.connect_with(with_sack());
    rig
}

#[test]
fn four_blocks_are_reported_the_latest_first_and_three_beside_timestamps() {
    for (timestamps, count) in [(false, 4), (true, 3)] {
        let mut rig = Rig::new(config(), App::default());
        rig.connect_with(Options {
            timestamps: timestamps.then_some(Timestamps { value: 1, echo: 0 }),
            ..with_sack()
        });
        let start = rig.seq;
        for index in 1..=6 {
            rig.peer_at(start + 100 * index, ACK, &[0; 50]);
            let reported = blocks(&rig.one());
            assert_eq!(reported.len(), (index as usize).min(count));
            assert_eq!(reported[0], (start + 100 * index, start + 100 * index + 50));
            let different: BTreeSet<u32> = reported.iter().map(|&(left, _)| left - start).collect();
            assert_eq!(different.len(), reported.len(), "{reported:?}");
        }
    }
}

#[test]
fn a_block_grows_and_joins_its_neighbours() {
    let mut rig = connected(App::default());
    let start = rig.seq;
    rig.peer_at(start + 100, ACK, &[0; 50]);
    rig.peer_at(start + 200, ACK, &[0; 50]);
    rig.sent();
    rig.peer_at(start + 150, ACK, &[0; 50]);
    assert_eq!(blocks(&rig.one()), [(start + 100, start + 250)]);
    rig.peer_at(start, ACK, &[0; 100]);
    let whole = rig.one();
    assert_eq!(whole.ack, start + 250);
    assert!(blocks(&whole).is_empty());
}

#[test]
fn no_block_is_sent_to_a_peer_that_did_not_permit_it() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    for _ in 0..3 {
        rig.peer_at(rig.seq + 100, ACK, &[0; 50]);
        assert!(blocks(&rig.one()).is_empty());
    }
}

#[test]
fn text_received_twice_is_reported_first() {
    // RFC 2883, section 4.1.
    let mut rig = connected(App::default());
    let start = rig.seq;
    rig.peer(ACK, b"hello");
    rig.pass(ms(50));
    rig.sent();
    rig.peer_at(start, ACK, b"hello");
    let answer = rig.one();
    assert_eq!(answer.ack, start + 5);
    assert_eq!(blocks(&answer), [(start, start + 5)]);
    // It is reported once.
    rig.peer(ACK, b"more");
    rig.pass(ms(50));
    assert!(blocks(&rig.one()).is_empty());
    assert_eq!(rig.app().received, b"hellomore");
}

#[test]
fn text_received_twice_out_of_order_is_reported_before_the_block_it_is_part_of() {
    let mut rig = connected(App::default());
    let start = rig.seq;
    rig.peer_at(start + 100, ACK, &[0; 100]);
    rig.sent();
    rig.peer_at(start + 120, ACK, &[0; 30]);
    assert_eq!(
        blocks(&rig.one()),
        [(start + 120, start + 150), (start + 100, start + 200)]
    );
}

/// Ten segments outstanding, of which the peer misses those numbered `lost`; it says so as each of the others arrives.
fn lose(rig: &mut Rig, lost: &[usize]) -> (Vec<Sent>, Vec<SeqNumber>) {
    let first = rig.sent();
    assert_eq!(first.len(), 10);
    let ack = first[lost[0]].seq;
    let mut received: Vec<usize> = Vec::new();
    for index in 0..10 {
        if index < lost[0] || lost.contains(&index) {
            continue;
        }
        received.push(index);
        // The range that grew last comes first.
        let mut ranges: Vec<Block> = Vec::new();
        for &index in &received {
            match ranges.first_mut() {
                Some(range) if range.1 == first[index].seq => range.1 = first[index].end(),
                _ => ranges.insert(0, (first[index].seq, first[index].end())),
            }
        }
        rig.selective(ack, &ranges);
    }
    let mut again: Vec<SeqNumber> = rig.sent().iter().map(|segment| segment.seq).collect();
    // Time for a reordering window, none for a retransmission timeout.
    rig.pass(ms(50));
    again.extend(rig.sent().iter().map(|segment| segment.seq));
    (first, again)
}

#[test]
fn exactly_what_is_missing_is_sent_again() {
    for loss_detection in [LossDetection::Rack, LossDetection::Sack] {
        for lost in [&[0][..], &[1, 4], &[2, 3, 4, 5], &[0, 2, 4, 6]] {
            let limits = Config {
                loss_detection,
                ..config()
            };
            let mut rig = Rig::new(limits, sender(14_600));
            rig.connect_with(with_sack());
            let (first, again) = lose(&mut rig, lost);
            let mut expected: Vec<u32> = lost.iter().map(|&index| first[index].seq - first[0].seq).collect();
            let mut sent: Vec<u32> = again.iter().map(|&seq| seq - first[0].seq).collect();
            expected.sort_unstable();
            sent.sort_unstable();
            assert_eq!(sent, expected, "{lost:?} by {loss_detection}");
            assert_eq!(rig.count(Counter::RtoRetransmits), 0);
        }
    }
}

#[test]
fn one_or_two_segments_above_a_hole_are_reordering_and_not_loss() {
    let limits = Config {
        loss_detection: LossDetection::Sack,
        ..config()
    };
    let mut rig = Rig::new(limits, sender(14_600));
    rig.connect_with(with_sack());
    let first = rig.sent();
    rig.selective(first[0].seq, &[(first[1].seq, first[1].end())]);
    rig.selective(first[0].seq, &[(first[1].seq, first[2].end())]);
    let end = first[9].end();
    assert!(rig.sent().iter().all(|segment| segment.seq.at_or_after(end)));
    rig.acknowledge(&first[9]);
    assert_eq!(rig.count(Counter::FastRetransmits), 0);
}

#[test]
fn blocks_of_what_was_never_sent_are_ignored() {
    let mut rig = connected(sender(14_600));
    let first = rig.sent();
    let (start, end) = (first[0].seq, first[9].end());
    for forged in [
        [(end + 1000, end + 2000), (end, end + 1)],
        [(start - 500, start - 100), (start - 0x4000_0000, end + 0x4000_0000)],
        [(start + 3000, start + 2000), (start + 10, start + 10)],
        [(start - 1, end + 1), (end - 1, end + 1)],
    ] {
        rig.selective(start, &forged);
    }
    rig.sent();
    assert_eq!(rig.read_in_time(14_600), pattern(14_600));
}

#[test]
fn a_peer_that_drops_what_it_had_reported_still_gets_everything() {
    // RFC 2018, section 8: until it is acknowledged, what was reported may be dropped.
    let mut rig = connected(sender(14_600));
    let first = rig.sent();
    for last in 2..10 {
        rig.selective(first[0].seq, &[(first[1].seq, first[last].end())]);
    }
    rig.sent();
    assert_eq!(rig.read_in_time(14_600), pattern(14_600));
}

#[test]
fn blocks_from_a_peer_that_did_not_permit_sack_are_ignored() {
    let mut rig = Rig::new(config(), sender(14_600));
    rig.connect();
    let first = rig.sent();
    for last in 1..10 {
        rig.window -= 1;
        rig.selective(first[0].seq, &[(first[1].seq, first[last].end())]);
    }
    rig.sent();
    assert_eq!(rig.read_in_time(14_600), pattern(14_600));
}
