//! Selective acknowledgment: generated (RFC 2018, RFC 2883) and used (RFC 6675, RFC 8985).

use std::collections::BTreeSet;

use crate::common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::recovery::LossDetection;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::transmit::Purpose;
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
fn the_blocks_reported_first_before_are_repeated() {
    // RFC 2018, section 4: acknowledgments get lost, and each block is to be in at least three of them.
    for (timestamps, count) in [(false, 4), (true, 3)] {
        let mut rig = Rig::new(config(), App::default());
        rig.connect_with(Options {
            timestamps: timestamps.then_some(Timestamps { value: 1, echo: 0 }),
            ..with_sack()
        });
        let start = rig.seq;
        // From the left, from the right, and back and forth.
        let order = [1, 2, 3, 4, 20, 19, 18, 17, 16, 8, 12, 7, 13, 6];
        let block = |index: u32| (start + 100 * index, start + 100 * index + 50);
        for (at, &index) in order.iter().enumerate() {
            rig.peer_at(start + 100 * index, ACK, &[0; 50]);
            let latest_first: Vec<Block> = order[..=at]
                .iter()
                .rev()
                .take(count)
                .map(|&index| block(index))
                .collect();
            assert_eq!(blocks(&rig.one()), latest_first);
        }
        // Text for a block reported long ago brings it back to the front; what it joins is reported once.
        rig.peer_at(start + 150, ACK, &[0; 50]);
        let joined = (start + 100, start + 250);
        let expected = [joined, block(6), block(13), block(7)];
        assert_eq!(blocks(&rig.one()), expected[..count]);
        rig.peer_at(start + 650, ACK, &[0; 50]);
        let expected = [(start + 600, start + 750), joined, block(13), block(12)];
        let reported = blocks(&rig.one());
        assert_eq!(reported[..3], expected[..3]);
        assert_eq!(reported.len(), count);
    }
}

#[test]
fn what_has_come_in_order_since_is_not_repeated() {
    let mut rig = connected(App::default());
    let start = rig.seq;
    let block = |index: u32| (start + 100 * index, start + 100 * index + 50);
    for index in [2, 6, 4, 8, 1] {
        rig.peer_at(start + 100 * index, ACK, &[0; 50]);
    }
    rig.sent();
    rig.peer_at(start, ACK, &[0; 200]);
    let answer = rig.one();
    assert_eq!(answer.ack, start + 250);
    assert_eq!(blocks(&answer), [block(8), block(4), block(6)]);
}

#[test]
fn out_of_order_text_is_reported_while_this_side_sends() {
    for sack_permitted in [true, false] {
        let mut rig = Rig::new(config(), sender(1 << 20));
        rig.connect_with(Options {
            sack_permitted,
            ..with_sack()
        });
        let start = rig.seq;
        let mut text = 0;
        let mut reports = 0;
        for index in 1..=50 {
            // Everything sent is acknowledged, so that more is sent with every segment that comes.
            for segment in rig.sent() {
                text += segment.payload.len();
                rig.ack = rig.ack.max(segment.end());
            }
            let from = start + 100 * index;
            rig.peer_at(from, ACK, &[0; 50]);
            let bare: Vec<_> = rig.wire.frames.iter().map(|frame| parse(frame)).collect();
            let bare: Vec<_> = bare.iter().filter(|segment| segment.payload.is_empty()).collect();
            assert_eq!(bare.len(), 1, "one acknowledgment without text for each segment");
            assert_eq!(bare[0].ack, start, "a duplicate acknowledgment");
            if sack_permitted {
                assert_eq!(blocks(bare[0])[0], (from, from + 50));
            }
            reports += 1;
        }
        assert_eq!(reports, 50);
        assert!(text > 500_000, "only {text} octets were sent meanwhile");
        // A part of the gap is filled: what is still missing is reported.
        rig.sent();
        rig.peer_at(start, ACK, &[0; 150]);
        let answer = rig.sent();
        let bare = answer
            .iter()
            .find(|segment| segment.payload.is_empty())
            .expect("no report");
        assert_eq!(bare.ack, start + 150);
        assert_eq!(blocks(bare).is_empty(), !sack_permitted);
    }
}

#[test]
fn text_received_twice_is_reported_while_this_side_sends() {
    for (duplicate, fresh) in [(5, 0), (5, 7)] {
        let mut rig = connected(sender(1 << 20));
        let start = rig.seq;
        rig.peer(ACK, b"hello");
        let last = rig.sent().last().map(Sent::end).unwrap();
        // A duplicate, alone or with new text behind it, that acknowledges what was sent.
        rig.ack = last;
        rig.peer_at(start, ACK, &vec![b'x'; duplicate + fresh]);
        let answers = rig.sent();
        assert!(
            answers.iter().any(|segment| !segment.payload.is_empty()),
            "text is sent"
        );
        let reports: Vec<_> = answers.iter().flat_map(blocks).collect();
        assert_eq!(reports, [(start, start + 5)], "{duplicate} + {fresh}");
    }
}

#[test]
fn a_report_that_finds_no_frame_is_sent_later() {
    let mut rig = connected(sender(1 << 20));
    let start = rig.seq;
    rig.ack = rig.sent().last().map(Sent::end).unwrap();
    rig.wire.refused = Some(Purpose::Control);
    rig.peer_at(start + 100, ACK, &[0; 50]);
    assert!(rig.sent().iter().all(|segment| !segment.payload.is_empty()));
    assert!(rig.engine.wants_frames());
    rig.wire.refused = None;
    rig.engine.poll(rig.now, &mut rig.wire);
    let reports: Vec<_> = rig.sent().iter().flat_map(blocks).collect();
    assert_eq!(reports, [(start + 100, start + 150)]);
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

#[test]
fn the_block_that_text_received_twice_is_part_of_is_reported_next() {
    // RFC 2883, section 4, rule 3.
    let mut rig = connected(App::default());
    let start = rig.seq;
    let (low, high) = ((start + 100, start + 200), (start + 300, start + 400));
    rig.peer_at(low.0, ACK, &[0; 100]);
    rig.peer_at(high.0, ACK, &[0; 100]);
    rig.sent();
    for (from, length, around, other) in [(120, 30, low, high), (310, 10, high, low), (100, 50, low, high)] {
        rig.peer_at(start + from, ACK, &vec![0; length as usize]);
        let twice = (start + from, start + from + length);
        assert_eq!(blocks(&rig.one()), [twice, around, other]);
    }
}

/// A connection with a round trip of 20 ms and ten segments outstanding.
fn ten_outstanding(limits: Config) -> (Rig, Vec<Sent>) {
    let mut rig = Rig::new(limits, sender(14_600));
    rig.syn(with_sack());
    rig.ack = rig.one().seq + 1;
    rig.pass(ms(20));
    rig.peer(ACK, b"");
    let first = rig.sent();
    assert_eq!(first.len(), 10);
    (rig, first)
}

/// The peer receives the segment numbered `index` and says what it has.
fn receive(rig: &mut Rig, first: &[Sent], received: &mut BTreeSet<usize>, index: usize) {
    received.insert(index);
    let next = (0..first.len()).find(|index| !received.contains(index));
    let ack = next.map_or(first[first.len() - 1].end(), |next| first[next].seq);
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &index in received.range(next.unwrap_or(first.len())..) {
        match ranges.last_mut() {
            Some(range) if range.1 + 1 == index => range.1 = index,
            _ => ranges.push((index, index)),
        }
    }
    // The range that grew last comes first.
    ranges.sort_by_key(|&(from, to)| !(from..=to).contains(&index));
    let blocks: Vec<Block> = ranges
        .iter()
        .map(|&(from, to)| (first[from].seq, first[to].end()))
        .collect();
    rig.selective(ack, &blocks);
}

/// The segments numbered `lost` are lost once; returns the numbers of those that were sent again, sorted.
fn lose(rig: &mut Rig, first: &[Sent], lost: &[usize]) -> Vec<usize> {
    let mut received = BTreeSet::new();
    rig.pass(ms(20));
    rig.nothing();
    for index in (0..10).filter(|index| !lost.contains(index)) {
        receive(rig, first, &mut received, index);
    }
    let mut again = Vec::new();
    for _ in 0..9 {
        let sent = rig.sent();
        rig.pass(ms(20));
        for segment in &sent {
            let number = first.iter().position(|one| one.seq == segment.seq);
            let number = number.expect("something else was sent");
            again.push(number);
            receive(rig, first, &mut received, number);
        }
    }
    assert_eq!(received.len(), 10, "{lost:?}: not everything was sent again");
    again.sort_unstable();
    again
}

#[test]
fn exactly_what_is_missing_is_sent_again() {
    for loss_detection in [LossDetection::Rack, LossDetection::Sack] {
        for lost in [&[0][..], &[1, 4], &[2, 3, 4, 5], &[0, 2, 4, 6]] {
            let (mut rig, first) = ten_outstanding(Config {
                loss_detection,
                ..config()
            });
            assert_eq!(lose(&mut rig, &first, lost), lost, "by {loss_detection}");
            assert_eq!(rig.count(Counter::Timeouts), 0);
            assert_eq!(rig.count(Counter::Recoveries), 1);
        }
    }
}

#[test]
fn a_lost_tail_is_probed_for_before_the_timeout() {
    // RFC 8985, section 7.
    let (mut rig, first) = ten_outstanding(Config {
        loss_detection: LossDetection::Rack,
        ..config()
    });
    assert_eq!(lose(&mut rig, &first, &[8, 9]), [8, 9]);
    assert_eq!(rig.count(Counter::TailProbes), 1);
    assert_eq!(rig.count(Counter::Timeouts), 0);
}

/// A connection this side opened, with a round trip of 20 ms.
fn opened() -> Rig {
    let mut rig = Rig::new(config(), App::default());
    rig.active_open();
    rig.pass(ms(20));
    let syn_ack = rig.frame(rig.seq, rig.ack, SYN | ACK, with_sack(), b"");
    rig.seq += 1;
    rig.inject(&syn_ack);
    rig.sent();
    rig
}

/// Writes `length` bytes; returns what is sent of them at once.
#[track_caller]
fn write(rig: &mut Rig, length: usize) -> Vec<Sent> {
    rig.write(pattern(length));
    rig.sent()
}

#[test]
fn a_tail_probe_makes_the_window_smaller_only_if_it_repaired_a_loss() {
    // RFC 8985, section 7.4.2.
    type Answer = fn(&mut Rig, &Sent);
    let answers: [(&str, Answer, bool); 3] = [
        (
            "the copy is reported as a duplicate",
            |rig, last| rig.selective(last.end(), &[(last.seq, last.end())]),
            false,
        ),
        (
            "both are acknowledged",
            |rig, last| {
                rig.acknowledge(last);
                rig.peer(ACK, b"");
            },
            false,
        ),
        ("one is acknowledged", |rig, last| rig.acknowledge(last), true),
    ];
    for (name, answer, repaired) in answers {
        let mut rig = opened();
        let first = write(&mut rig, 14_600);
        assert_eq!(first.len(), 10, "{name}");
        assert!(rig.wait(ms(100)).is_some(), "{name}");
        assert_eq!(rig.one().seq, first[9].seq, "{name}");
        assert_eq!(rig.count(Counter::TailProbes), 1, "{name}");
        answer(&mut rig, &first[9]);
        // Only when more is acknowledged is it clear that no second acknowledgment is on its way.
        let more = write(&mut rig, 14_600);
        assert_eq!(more.len(), 10, "{name}");
        rig.pass(ms(20));
        rig.acknowledge(&more[9]);
        rig.write(pattern(60_000));
        // Slow start is paced: a window leaves in half a round trip.
        rig.pass(ms(15));
        let window = rig.sent().len();
        assert_eq!(window < 10, repaired, "{name}: {window} segments");
    }
}

#[test]
fn text_from_the_peer_does_not_end_the_wait_for_a_reordered_segment() {
    // RFC 8985, section 6.2, step 5: the timer of the reordering window.
    let mut rig = opened();
    let first = write(&mut rig, 4 * 1460);
    rig.pass(ms(20));
    // The second segment overtakes the first: the path reorders. The third is lost.
    rig.selective(first[0].seq, &[(first[1].seq, first[1].end())]);
    rig.selective(first[2].seq, &[]);
    rig.selective(first[2].seq, &[(first[3].seq, first[3].end())]);
    rig.pass(ms(4));
    let late = write(&mut rig, 1460).remove(0);
    assert!(rig.wait(ms(10)).is_some(), "the third segment was not sent again");
    assert_eq!(rig.one().seq, first[2].seq);
    rig.pass(ms(20));
    rig.nothing();
    // It arrives, but not what was sent a millisecond before it was sent again: that may have been overtaken.
    rig.selective(late.seq, &[]);
    rig.nothing();
    rig.pass(ms(1));
    rig.peer(ACK, b"text");
    rig.sent();
    assert!(rig.wait(ms(30)).is_some(), "it is waited for until the timeout");
    assert_eq!(rig.one().seq, late.seq);
    assert_eq!(rig.count(Counter::Timeouts), 0);
}

#[test]
fn reordering_within_a_quarter_of_the_round_trip_is_not_taken_for_loss() {
    // RFC 8985, section 6.2: the reordering window.
    let (mut rig, first) = ten_outstanding(Config {
        loss_detection: LossDetection::Rack,
        ..config()
    });
    let mut received = BTreeSet::new();
    rig.pass(ms(20));
    for index in [1, 2] {
        receive(&mut rig, &first, &mut received, index);
    }
    rig.pass(ms(3));
    receive(&mut rig, &first, &mut received, 0);
    for index in 3..10 {
        receive(&mut rig, &first, &mut received, index);
    }
    rig.pass(ms(1000));
    rig.nothing();
    assert_eq!(rig.count(Counter::FastRetransmits), 0);
}

#[test]
fn a_needless_retransmission_reported_by_the_peer_is_taken_back() {
    // RFC 3708: the D-SACK shows that the original arrived after all.
    let (mut rig, first) = ten_outstanding(config());
    let mut received = BTreeSet::new();
    rig.pass(ms(20));
    for index in 1..10 {
        receive(&mut rig, &first, &mut received, index);
    }
    assert_eq!(rig.one().seq, first[0].seq);
    // The original, late; then the copy.
    receive(&mut rig, &first, &mut received, 0);
    rig.selective(first[9].end(), &[(first[0].seq, first[0].end())]);
    assert_eq!(rig.count(Counter::DsacksIn), 1);
    assert_eq!(rig.count(Counter::SpuriousRetransmits), 1);
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
    for last in &first[2..] {
        rig.selective(first[0].seq, &[(first[1].seq, last.end())]);
    }
    rig.sent();
    assert_eq!(rig.read_in_time(14_600), pattern(14_600));
}

#[test]
fn blocks_from_a_peer_that_did_not_permit_sack_are_ignored() {
    let mut rig = Rig::new(config(), sender(14_600));
    rig.connect();
    let first = rig.sent();
    for last in &first[1..] {
        rig.window -= 1;
        rig.selective(first[0].seq, &[(first[1].seq, last.end())]);
    }
    rig.sent();
    assert_eq!(rig.read_in_time(14_600), pattern(14_600));
}
