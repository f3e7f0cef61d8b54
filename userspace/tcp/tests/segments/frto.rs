//! F-RTO: spurious retransmission timeouts without timestamps (RFC 5682).

use crate::common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::wire::Options;
use tidegate_tcp::wire::options::Timestamps;

const MSS: u32 = 1460;

/// The first flight: a window of ten segments.
const FLIGHT: usize = 10;

/// What a connection with or without SACK sent before its retransmission timer ran out; `length` bytes are to be sent.
/// The first segment has been sent again since.
fn timed_out(sack: bool, length: usize) -> (Rig, Vec<Sent>) {
    timed_out_with(options(sack), length)
}

fn options(sack: bool) -> Options {
    Options {
        sack_permitted: sack,
        ..with_sack()
    }
}

fn timed_out_with(options: Options, length: usize) -> (Rig, Vec<Sent>) {
    let mut rig = Rig::new(config(), sender(length));
    rig.connect_with(options);
    let mut sent = rig.sent();
    while rig.count(Counter::Timeouts) == 0 {
        rig.wait(ms(3000)).expect("nothing was sent again");
        sent.append(&mut rig.sent());
    }
    let again = sent.pop().unwrap();
    assert_eq!(again.seq, sent[0].seq);
    // A tail loss probe sends something new.
    assert_eq!(sent.len(), FLIGHT + usize::from(rig.count(Counter::TailProbes) > 0));
    (rig, sent)
}

fn end(sent: &[Sent]) -> SeqNumber {
    sent[sent.len() - 1].end()
}

/// The first acknowledgment after the timeout arrives, of what was sent again, and new segments are sent.
fn probed(sack: bool) -> (Rig, Vec<Sent>, Vec<Sent>) {
    let (mut rig, first) = timed_out(sack, 100 * MSS as usize);
    rig.acknowledge(&first[0]);
    let new = rig.sent();
    assert!((1..=2).contains(&new.len()), "{new:?}");
    assert_eq!(new[0].seq, end(&first), "something was sent again");
    (rig, first, new)
}

#[test]
fn the_second_acknowledgment_of_originals_takes_the_timeout_back() {
    for sack in [false, true] {
        let (mut rig, first, new) = probed(sack);
        rig.acknowledge(&first[1]);
        assert_eq!(rig.count(Counter::FrtoSpurious), 1);
        assert_eq!(rig.count(Counter::SpuriousRetransmits), 1);
        let window = rig.info().transfer.unwrap().cwnd;
        assert!(window >= FLIGHT as u32 * MSS, "{window}: the window is not back");
        let more = rig.sent();
        assert_eq!(more[0].seq, end(&new));
        rig.acknowledge(&more[more.len() - 1]);
        assert_eq!(rig.count(Counter::RtoRetransmits), 1, "more was sent again");
    }
}

#[test]
fn a_timeout_that_lost_everything_is_not_taken_back() {
    for sack in [false, true] {
        let (mut rig, first, new) = probed(sack);
        if sack {
            rig.selective(rig.ack, &[(new[0].seq, new[0].end())]);
        } else {
            rig.peer(ACK, b"");
        }
        let again = rig.sent();
        assert_eq!(again[0].seq, first[1].seq, "what is lost is sent again");
        // Three segments are in the network at most (step 3a).
        assert!(again.len() <= 3, "{again:?}");
        assert_eq!(rig.count(Counter::FrtoSpurious), 0);
        let text = rig.read_in_time(99 * MSS as usize);
        assert_eq!(text, pattern(100 * MSS as usize)[MSS as usize..]);
        assert_eq!(rig.count(Counter::SpuriousRetransmits), 0);
    }
}

#[test]
fn selective_acknowledgments_of_originals_take_the_timeout_back() {
    let (mut rig, first, _) = probed(true);
    rig.selective(rig.ack, &[(first[2].seq, first[3].end())]);
    assert_eq!(rig.count(Counter::FrtoSpurious), 1);
}

#[test]
fn with_nothing_new_to_send_what_is_lost_is_sent_again() {
    let (mut rig, first) = timed_out(false, FLIGHT * MSS as usize);
    rig.acknowledge(&first[0]);
    assert_eq!(rig.sent()[0].seq, first[1].seq);
    rig.acknowledge(&first[1]);
    assert_eq!(rig.count(Counter::FrtoSpurious), 0);
}

#[test]
fn without_a_window_for_new_segments_what_is_lost_is_sent_again() {
    let (mut rig, first) = timed_out(false, 100 * MSS as usize);
    rig.window = (FLIGHT as u32 - 1) as u16 * MSS as u16;
    rig.acknowledge(&first[0]);
    assert_eq!(rig.sent()[0].seq, first[1].seq);
    rig.acknowledge(&first[1]);
    assert_eq!(rig.count(Counter::FrtoSpurious), 0);
}

#[test]
fn an_acknowledgment_of_everything_may_be_of_the_second_copy() {
    for sack in [false, true] {
        let (mut rig, first) = timed_out(sack, 100 * MSS as usize);
        rig.ack = end(&first);
        rig.peer(ACK, b"");
        rig.sent();
        assert_eq!(rig.count(Counter::SpuriousRetransmits), 0);
    }
}

#[test]
fn an_advance_beyond_what_was_outstanding_counts_without_sack() {
    for (sack, spurious) in [(false, 1), (true, 0)] {
        let (mut rig, _, new) = probed(sack);
        rig.ack = end(&new);
        rig.peer(ACK, b"");
        assert_eq!(rig.count(Counter::FrtoSpurious), spurious, "SACK: {sack}");
    }
}

#[test]
fn a_timeout_that_is_repeated_is_not_judged() {
    for sack in [false, true] {
        let (mut rig, first) = timed_out(sack, 100 * MSS as usize);
        rig.wait(ms(3000)).expect("nothing was sent again");
        assert_eq!(rig.one().seq, first[0].seq);
        assert_eq!(rig.count(Counter::Timeouts), 2);
        rig.acknowledge(&first[0]);
        assert_eq!(rig.sent()[0].seq, first[1].seq);
        rig.acknowledge(&first[1]);
        assert_eq!(rig.count(Counter::FrtoSpurious), 0);
    }
}

#[test]
fn a_timeout_while_the_first_one_is_judged_ends_that() {
    for sack in [false, true] {
        let (mut rig, first, _) = probed(sack);
        rig.wait(ms(5000)).expect("nothing was sent again");
        assert_eq!(rig.one().seq, first[1].seq);
        rig.acknowledge(&first[1]);
        rig.acknowledge(&first[2]);
        assert_eq!(rig.count(Counter::FrtoSpurious), 0);
    }
}

#[test]
fn text_from_the_peer_that_acknowledges_nothing_new_decides_nothing() {
    for sack in [false, true] {
        let (mut rig, first, _) = probed(sack);
        for _ in 0..3 {
            rig.peer(ACK, b"text");
        }
        let sent = rig.sent();
        assert!(sent.iter().all(|segment| segment.payload.is_empty()), "{sent:?}");
        rig.acknowledge(&first[1]);
        assert_eq!(rig.count(Counter::FrtoSpurious), 1);
    }
}

#[test]
fn duplicates_of_the_copy_that_was_needless_begin_no_recovery() {
    // The second copy arrives behind the originals, and what was lost later is still found by duplicates.
    let (mut rig, first, _) = probed(false);
    rig.acknowledge(&first[1]);
    rig.sent();
    rig.peer(ACK, b"");
    assert_eq!(rig.count(Counter::Recoveries), 0);
    rig.peer(ACK, b"");
    rig.peer(ACK, b"");
    assert_eq!(rig.count(Counter::Recoveries), 1, "three duplicates are a loss");
    assert!(rig.sent().iter().any(|segment| segment.seq == first[2].seq));
}

#[test]
fn a_report_that_the_second_copy_was_needless_takes_the_timeout_back_as_ever() {
    let (mut rig, first, _) = probed(true);
    rig.selective(rig.ack, &[(first[0].seq, first[0].end())]);
    assert_eq!(rig.count(Counter::SpuriousRetransmits), 1);
    assert_eq!(rig.count(Counter::FrtoSpurious), 0);
    rig.acknowledge(&first[1]);
    assert_eq!(rig.count(Counter::SpuriousRetransmits), 1);
}

#[test]
fn timestamps_tell_by_themselves() {
    let (mut rig, first) = timed_out_with(
        Options {
            timestamps: Some(Timestamps { value: 1, echo: 0 }),
            ..options(false)
        },
        100 * MSS as usize,
    );
    rig.timestamp = Some(500);
    // An echo of the second copy.
    rig.echo = first[0].options.timestamps.unwrap().value + 1000;
    rig.acknowledge(&first[0]);
    assert_eq!(rig.sent()[0].seq, first[1].seq, "something new was sent instead");
    rig.acknowledge(&first[1]);
    assert_eq!(rig.count(Counter::SpuriousRetransmits), 0);
}

#[test]
fn acknowledging_a_part_of_what_was_sent_again_proves_nothing() {
    for sack in [false, true] {
        let (mut rig, first) = timed_out(sack, 100 * MSS as usize);
        for part in [1, 700] {
            rig.ack = first[0].seq + part;
            rig.peer(ACK, b"");
        }
        rig.acknowledge(&first[0]);
        rig.acknowledge(&first[1]);
        assert_eq!(rig.count(Counter::FrtoSpurious), 0);
    }
}

#[test]
fn reports_of_what_was_never_sent_or_is_acknowledged_prove_nothing() {
    for offset in [-(MSS as i32), 40 * MSS as i32, 1 << 30] {
        let (mut rig, first, _) = probed(true);
        let left = first[0].seq + offset as u32;
        // Of another connection, say: a block before what was sent.
        rig.selective(rig.ack, &[(left, left + MSS)]);
        assert_eq!(rig.count(Counter::FrtoSpurious), 0, "{offset}");
        assert_eq!(rig.count(Counter::SpuriousRetransmits), 0, "{offset}");
    }
}

#[test]
fn timeouts_that_a_peer_brings_about_and_has_taken_back_win_it_no_window() {
    // The peer is silent until the timer runs out, and then acknowledges one segment after the other.
    for sack in [false, true] {
        let limits = Config {
            rto_max: ms(1000),
            user_timeout: ms(1_000_000),
            ..config()
        };
        let mut rig = Rig::new(limits, sender(4000 * MSS as usize));
        rig.connect_with(options(sack));
        let mut acked = 0;
        for _ in 0..30 {
            let mut sent = rig.sent();
            let timeouts = rig.count(Counter::Timeouts);
            while rig.count(Counter::Timeouts) == timeouts {
                rig.wait(ms(3000)).expect("nothing was sent again");
                sent.append(&mut rig.sent());
            }
            for _ in 0..2 {
                rig.ack += MSS;
                acked += MSS;
                rig.peer(ACK, b"");
            }
            let window = rig.info().transfer.unwrap().cwnd;
            // Each octet is worth one in slow start, whoever takes what back.
            assert!(window <= FLIGHT as u32 * MSS + acked, "{window} after {acked} octets");
        }
        assert!(rig.count(Counter::FrtoSpurious) > 0);
    }
}
