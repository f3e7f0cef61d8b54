//! The scoreboard in small examples; at random beside a naive one in `model`.

use super::*;

const MSS: u32 = 100;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// Ten segments of a hundred bytes, sent a millisecond apart.
fn board(start: SeqNumber) -> Scoreboard {
    let mut board = Scoreboard::new();
    for index in 0..10 {
        let seq = start + index * MSS;
        board.push(seq, seq + MSS, at(u64::from(index)));
    }
    board
}

fn lost(board: &Scoreboard) -> Vec<usize> {
    (0..board.len()).filter(|&index| board.is_lost(index)).collect()
}

#[test]
fn a_segment_with_three_above_it_is_lost_and_others_are_not() {
    let start = SeqNumber(u32::MAX - 250);
    let mut board = board(start);
    let mut delivered = Delivered::default();
    board.sack(&[(start + 200, start + 400)], start, start + 1000, &mut delivered);
    board.mark_lost_by_sack(MSS);
    assert_eq!(lost(&board), [] as [usize; 0]);
    board.sack(&[(start + 200, start + 500)], start, start + 1000, &mut delivered);
    board.mark_lost_by_sack(MSS);
    assert_eq!(lost(&board), [0, 1]);
    assert_eq!((board.sacked(), board.lost()), (300, 200));
    assert_eq!(delivered.bytes, 300);
    board.retransmitted(0, at(50));
    board.mark_lost_by_sack(MSS);
    assert_eq!(lost(&board), [1]);
    let mut delivered = Delivered::default();
    board.acknowledge(start + 500, &mut delivered);
    assert_eq!(delivered.bytes, 200);
    assert!(delivered.retransmitted);
    assert_eq!((board.sacked(), board.lost(), board.len()), (0, 0, 5));
}

#[test]
fn three_separate_blocks_are_enough() {
    let start = SeqNumber(0);
    let mut board = board(start);
    let blocks = [(300, 400), (500, 600), (700, 800)].map(|(left, right)| (SeqNumber(left), SeqNumber(right)));
    board.sack(&blocks, start, start + 1000, &mut Delivered::default());
    board.mark_lost_by_sack(1000);
    assert_eq!(lost(&board), [0, 1, 2]);
}

#[test]
fn blocks_outside_of_what_is_outstanding_are_ignored() {
    let start = SeqNumber(1000);
    let mut board = board(start);
    let mut delivered = Delivered::default();
    let blocks = [(0, 500), (900, 1100), (1900, 2100), (1500, 1500), (1600, 1500)];
    let blocks = blocks.map(|(left, right)| (SeqNumber(left), SeqNumber(right)));
    for block in blocks {
        board.sack(&[block], start, start + 1000, &mut delivered);
    }
    assert_eq!(board.sacked(), 0);
}

#[test]
fn what_was_sent_before_the_newest_delivery_is_lost_in_time() {
    let start = SeqNumber(0);
    let mut board = board(start);
    let mut delivered = Delivered::default();
    board.sack(&[(start + 400, start + 500)], start, start + 1000, &mut delivered);
    let (xmit, end, again) = delivered.newest.unwrap();
    assert_eq!((xmit, end, again), (at(4), start + 500, false));
    let overdue = board.mark_lost_by_time(xmit, end, Duration::from_millis(20), at(21));
    assert_eq!(lost(&board), [0, 1]);
    assert_eq!(overdue.wait, Some(Duration::from_millis(2)));
    let overdue = board.mark_lost_by_time(xmit, end, Duration::from_millis(20), at(23));
    assert_eq!((overdue.wait, overdue.lost_again), (None, false));
    assert_eq!(lost(&board), [0, 1, 2, 3]);
}

#[test]
fn late_arrivals_are_seen_as_reordering_and_retransmissions_are_not_timed() {
    let start = SeqNumber(0);
    let mut board = board(start);
    let mut delivered = Delivered::default();
    board.sack(&[(start + 400, start + 500)], start, start + 1000, &mut delivered);
    assert_eq!(delivered.reordered, None);
    board.retransmitted(1, at(60));
    let mut delivered = Delivered::default();
    board.acknowledge(start + 200, &mut delivered);
    assert!(
        delivered.reordered.is_some(),
        "the first segment was sent once and came late"
    );
    assert_eq!(delivered.timed, None, "it may have waited for the second");
    assert_eq!(delivered.newest.map(|(at, ..)| at), Some(at(60)));
}

#[test]
fn blocks_of_one_acknowledgment_say_nothing_of_their_order() {
    let start = SeqNumber(0);
    let mut board = board(start);
    let mut delivered = Delivered::default();
    let blocks = [(700, 800), (300, 400)].map(|(left, right)| (SeqNumber(left), SeqNumber(right)));
    board.sack(&blocks, start, start + 1000, &mut delivered);
    assert_eq!((delivered.newly_sacked, delivered.reordered), (2, None));
    board.sack(&[(start + 500, start + 600)], start, start + 1000, &mut delivered);
    assert_eq!(delivered.reordered, Some(at(5)), "it came after the one from 700 on");
}

#[test]
fn a_segment_reported_in_two_parts_is_marked_with_the_second() {
    let start = SeqNumber(0);
    let mut board = board(start);
    let mut delivered = Delivered::default();
    board.sack(&[(start + 200, start + 350)], start, start + 1000, &mut delivered);
    assert_eq!(board.sacked(), 100);
    board.sack(&[(start + 200, start + 500)], start, start + 1000, &mut delivered);
    assert_eq!((board.sacked(), delivered.bytes), (300, 300));
}

#[test]
fn a_peer_that_reneges_is_not_believed_after_a_timeout() {
    let start = SeqNumber(0);
    let mut board = board(start);
    board.sack(&[(start, start + 300)], start, start + 1000, &mut Delivered::default());
    board.mark_all_lost();
    assert_eq!((board.sacked(), board.lost()), (0, 1000));
}

#[test]
fn segments_can_be_cut() {
    let start = SeqNumber(0);
    let mut board = board(start);
    board.mark_head_lost();
    board.split(0, 40);
    assert_eq!((board.len(), board.lost()), (30, 100));
    board.retransmitted(0, at(70));
    assert_eq!(board.lost(), 60);
    board.acknowledge(start + 70, &mut Delivered::default());
    assert_eq!(board.lost(), 30);
}
