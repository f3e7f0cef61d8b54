//! Fast recovery without SACK (RFC 5681, section 3.2; RFC 6582; RFC 3042).

use std::collections::BTreeMap;

use crate::common::*;
use tidegate_tcp::counters::Counter;

#[test]
fn a_storm_of_duplicate_acknowledgments_sends_nothing_twice() {
    let mut rig = Rig::new(config(), sender(14_600));
    rig.connect();
    let first = rig.sent();
    for _ in 0..1000 {
        rig.peer(ACK, b"");
    }
    let mut copies: BTreeMap<u32, usize> = BTreeMap::new();
    for segment in rig.sent() {
        *copies.entry(segment.seq - first[0].seq).or_default() += 1;
    }
    assert!(copies.values().all(|&count| count == 1), "{copies:?}");
    assert_eq!(rig.read_in_time(14_600), pattern(14_600));
}

#[test]
fn duplicate_acknowledgments_of_nothing_outstanding_do_nothing() {
    let mut rig = Rig::new(config(), sender(1000));
    rig.connect();
    let sent = rig.one();
    rig.acknowledge(&sent);
    for _ in 0..100 {
        rig.peer(ACK, b"");
    }
    rig.pass(ms(5000));
    rig.nothing();
    assert_eq!(rig.count(Counter::FastRetransmits), 0);
}

#[test]
fn the_first_two_duplicates_let_new_segments_out() {
    // Limited transmit (RFC 3042).
    let mut rig = Rig::new(config(), sender(100_000));
    rig.connect();
    let first = rig.sent();
    for _ in 0..2 {
        rig.peer(ACK, b"");
    }
    let new = rig.sent();
    assert!((1..=2).contains(&new.len()));
    assert!(new.iter().all(|segment| segment.seq.at_or_after(first[9].end())));
}

#[test]
fn every_loss_of_a_window_is_repaired_in_turn() {
    let mut rig = Rig::new(config(), sender(14_600));
    rig.connect();
    let first = rig.sent();
    // Segments 0, 3 and 6 are lost: seven duplicates, then one partial acknowledgment after the other.
    for _ in 0..7 {
        rig.peer(ACK, b"");
    }
    for (lost, next) in [(0, 3), (3, 6)] {
        let sent = rig.sent();
        assert!(
            sent.iter().any(|segment| segment.seq == first[lost].seq),
            "segment {lost} was not sent again"
        );
        rig.ack = first[next].seq;
        rig.peer(ACK, b"");
    }
    assert!(rig.sent().iter().any(|segment| segment.seq == first[6].seq));
    rig.acknowledge(&first[9]);
    assert_eq!(rig.count(Counter::RtoRetransmits), 0);
    rig.pass(ms(5000));
    rig.nothing();
}
