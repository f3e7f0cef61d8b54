//! The work a peer can make by what it acknowledges, and by what it leaves unacknowledged.

use crate::common::hostile::{Hostile, Script, hostile_config};
use crate::common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::recovery::LossDetection;
use tidegate_tcp::wire::Options;

const SEGMENTS: u32 = 2048;

/// Runs every script; the engine itself asserts for each acknowledgment that it looks at no more than 8 + 4 log2(n) of
/// n outstanding segments and those of which it learns something.
fn every_script(loss_detection: LossDetection, mss: u16, piece: usize) {
    let most = 8.0 + 4.0 * f64::from(SEGMENTS).log2();
    for &script in Script::ALL {
        let mut peer = Hostile::new(hostile_config(SEGMENTS, loss_detection), mss, piece);
        assert!(
            peer.outstanding() >= 1000,
            "{script:?}: {} segments",
            peer.outstanding()
        );
        let again = |peer: &Hostile| peer.rig.count(Counter::FastRetransmits) + peer.rig.count(Counter::RtoRetransmits);
        let (visited, sent_again) = (peer.rig.count(Counter::OutstandingVisited), again(&peer));
        let segments = peer.outstanding() as u64;
        for _ in 0..600 {
            peer.send(script);
            peer.take();
        }
        assert_eq!(peer.rig.state(), Some(tidegate_tcp::State::Established), "{script:?}");
        let visited = peer.rig.count(Counter::OutstandingVisited) - visited;
        // What is sent again is looked at a few times. Every segment may be reported, acknowledged and lost, and be
        // found not to be lost four times for each that is sent.
        let fixed = 4 * (again(&peer) - sent_again) + 11 * (segments + 1200);
        let average = visited.saturating_sub(fixed) as f64 / peer.acks as f64;
        assert!(average <= most, "{script:?}: {average} segments an acknowledgment");
    }
}

#[test]
fn an_acknowledgment_costs_no_walk_with_rack() {
    every_script(LossDetection::Rack, 48, 0);
}

#[test]
fn an_acknowledgment_costs_no_walk_with_sack() {
    every_script(LossDetection::Sack, 48, 0);
}

#[test]
fn an_acknowledgment_costs_no_walk_where_segments_are_small() {
    every_script(LossDetection::Rack, 1460, 100);
}

#[test]
fn bare_duplicates_look_at_a_handful_of_segments() {
    let mut peer = Hostile::new(hostile_config(SEGMENTS, LossDetection::Rack), 48, 0);
    let last = peer.outstanding() - 1;
    // One in the middle is reported, so that all before it are waited for.
    let (una, at) = (peer.rig.ack, peer.rig.ack + 48 * (last as u32 / 2));
    peer.rig.selective(una, &[(at, at + 48)]);
    let visited = peer.rig.count(Counter::OutstandingVisited);
    for _ in 0..100 {
        peer.rig.selective(una, &[(at, at + 48)]);
    }
    let each = (peer.rig.count(Counter::OutstandingVisited) - visited) / 100;
    assert!(each <= 8, "{each} segments an acknowledgment");
}

#[test]
fn no_more_segments_are_outstanding_than_allowed_and_honest_windows_are_filled() {
    for (mss, limit, outstanding) in [(48, 512, 512), (536, 4096, 4096 * 536), (1460, 16_384, 2 << 20)] {
        let peer = Hostile::new(hostile_config(limit, LossDetection::Rack), mss, 0);
        let segments = peer.outstanding();
        let full = segments * usize::from(mss) >= outstanding.min(2 << 20) - usize::from(mss);
        assert!(
            segments <= limit as usize && (full || segments == limit as usize),
            "{mss}: {segments} segments"
        );
        let limited = peer.rig.count(Counter::OutstandingLimited) > 0;
        assert_eq!(limited, segments == limit as usize, "{mss}");
    }
}

#[test]
fn what_waited_for_room_among_the_segments_goes_out_with_the_next_acknowledgment() {
    let config = Config {
        max_outstanding_segments: 64,
        nagle: false,
        ..config()
    };
    let mut rig = Rig::new(config, sender(64 * 48 * 20));
    rig.connect_with(Options {
        mss: Some(48),
        sack_permitted: true,
        ..Options::default()
    });
    assert_eq!(rig.read_all(), pattern(64 * 48 * 20));
    assert!(rig.count(Counter::OutstandingLimited) > 0);
    assert_eq!(rig.count(Counter::Timeouts), 0);
}

#[test]
fn everything_is_taken_for_lost_and_not_lost_only_so_often() {
    let mut peer = Hostile::new(hostile_config(SEGMENTS, LossDetection::Rack), 48, 0);
    let segments = peer.outstanding() as u64;
    let visited = peer.rig.count(Counter::OutstandingVisited);
    for _ in 0..600 {
        peer.send(Script::UndoAndRedo);
        peer.take();
    }
    let undone = peer.rig.count(Counter::SpuriousRetransmits);
    assert!(undone >= 1, "undone {undone} times");
    let visited = peer.rig.count(Counter::OutstandingVisited) - visited;
    // Everything is found lost, not lost, and lost again, and twice as many as were sent meanwhile.
    assert!(
        visited <= 4 * segments + 6 * 700 + 600 * 52,
        "{visited} for {segments} segments, undone {undone} times"
    );
}
