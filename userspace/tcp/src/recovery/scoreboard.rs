//! What is outstanding, segment by segment, and what the peer has said about it (RFC 6675, section 3; RFC 8985, section 5).

use core::time::Duration;
use std::collections::VecDeque;

use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::options::{MAX_SACK_BLOCKS, SackBlock};

/// Segments that must have arrived above one that has not, before it counts as lost (RFC 6675, section 2).
pub(crate) const DUP_THRESH: u32 = 3;

/// One segment, as it was sent last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) seq: SeqNumber,
    pub(crate) end: SeqNumber,
    pub(crate) sent_at: Instant,
    /// Selectively acknowledged.
    pub(crate) sacked: bool,
    /// Known to be lost and not sent again since.
    pub(crate) lost: bool,
    /// Sent more than once.
    pub(crate) retransmitted: bool,
}

impl Sent {
    fn length(&self) -> u32 {
        self.end - self.seq
    }
}

/// What an acknowledgment delivered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    /// Bytes acknowledged for the first time, cumulatively or selectively.
    pub(crate) bytes: u32,
    /// Segments selectively acknowledged for the first time.
    pub(crate) newly_sacked: u32,
    /// The segment among them that was sent last: when, its end, and whether it was a retransmission.
    pub(crate) newest: Option<(Instant, SeqNumber, bool)>,
    /// When the last one that was sent only once was sent: what may be timed (Karn's algorithm).
    pub(crate) timed: Option<Instant>,
    /// When the first of those was sent that were sent once and arrived after one sent later: the path reorders.
    pub(crate) reordered: Option<Instant>,
    /// A retransmission was among them.
    pub(crate) retransmitted: bool,
}

/// The outstanding segments, in the order of their sequence numbers.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    segments: VecDeque<Sent>,
    sacked: u32,
    lost: u32,
    /// Something was sent again since nothing was outstanding.
    sent_again: bool,
    /// The furthest end that was acknowledged in any way (RACK.fack).
    fack: SeqNumber,
    /// Blocks of the last acknowledgment, whose segments need no second look.
    seen: [SackBlock; MAX_SACK_BLOCKS],
    seen_count: u8,
}

/// A queue this small is kept for the next segments; a larger one is given back when nothing is outstanding.
const KEPT_CAPACITY: usize = 4;

impl Scoreboard {
    /// Nothing is outstanding.
    pub(crate) const fn new() -> Self {
        Self {
            segments: VecDeque::new(),
            sacked: 0,
            lost: 0,
            sent_again: false,
            fack: SeqNumber(0),
            seen: [(SeqNumber(0), SeqNumber(0)); MAX_SACK_BLOCKS],
            seen_count: 0,
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        self.sacked = 0;
        self.lost = 0;
        self.empty();
    }

    /// Nothing is outstanding any more.
    #[inline]
    fn empty(&mut self) {
        self.seen_count = 0;
        self.sent_again = false;
        if self.segments.capacity() > KEPT_CAPACITY {
            self.segments = VecDeque::new();
        }
    }

    /// Whether nothing outstanding was selectively acknowledged, lost or sent again: then acknowledgments come in the order
    /// in which the segments were sent.
    #[inline]
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.sacked == 0 && self.lost == 0 && !self.sent_again
    }

    /// A segment was sent for the first time.
    #[inline]
    pub(crate) fn push(&mut self, seq: SeqNumber, end: SeqNumber, now: Instant) {
        if self.segments.is_empty() {
            // Everything before it is acknowledged.
            self.fack = seq;
        }
        self.segments.push_back(Sent {
            seq,
            end,
            sent_at: now,
            sacked: false,
            lost: false,
            retransmitted: false,
        });
    }

    /// Bytes selectively acknowledged.
    pub(crate) fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Bytes known to be lost and not sent again.
    pub(crate) fn lost(&self) -> u32 {
        self.lost
    }

    /// Outstanding segments.
    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    /// The segment at `index`, in the order of sequence numbers.
    pub(crate) fn get(&self, index: usize) -> Option<&Sent> {
        self.segments.get(index)
    }

    fn note(&mut self, segment: &Sent, delivered: &mut Delivered) {
        let newer = delivered.newest.is_none_or(|(sent_at, end, _)| {
            segment.sent_at > sent_at || (segment.sent_at == sent_at && segment.end.after(end))
        });
        if newer {
            delivered.newest = Some((segment.sent_at, segment.end, segment.retransmitted));
        }
        if segment.retransmitted {
            delivered.retransmitted = true;
        } else {
            delivered.timed = delivered.timed.max(Some(segment.sent_at));
            if segment.end.before(self.fack) {
                let first = delivered.reordered.unwrap_or(segment.sent_at);
                delivered.reordered = Some(first.min(segment.sent_at));
            }
        }
    }

    /// SND.UNA moved to `una`.
    pub(crate) fn acknowledge(&mut self, una: SeqNumber, delivered: &mut Delivered) {
        if self.is_undisturbed() {
            self.acknowledge_in_order(una, delivered);
        }
        while let Some(front) = self.segments.front().copied() {
            if front.end.after(una) {
                if front.seq.before(una) {
                    // The middle of a segment: the peer was sent other boundaries once.
                    let part = una - front.seq;
                    self.uncount(&front, part);
                    if !front.sacked {
                        delivered.bytes += part;
                    }
                    self.segments[0].seq = una;
                }
                break;
            }
            self.segments.pop_front();
            self.uncount(&front, front.length());
            if !front.sacked {
                delivered.bytes += front.length();
                self.note(&front, delivered);
            }
        }
        if delivered.retransmitted {
            // The others may have waited at the peer for what was sent again: their time says nothing.
            delivered.timed = None;
        }
        self.fack = self.fack.max(una);
        if self.segments.is_empty() {
            self.empty();
        }
    }

    /// [`Scoreboard::acknowledge`] for everything on an undisturbed scoreboard, up to `nxt`. Returns when the last of it was
    /// sent.
    #[inline]
    pub(crate) fn acknowledge_all(&mut self, nxt: SeqNumber) -> Option<Instant> {
        let sent_at = self.segments.back().map(|last| last.sent_at);
        self.segments.clear();
        self.fack = nxt;
        self.empty();
        sent_at
    }

    /// [`Scoreboard::acknowledge`] for whole segments of an undisturbed scoreboard: the last of them says everything.
    fn acknowledge_in_order(&mut self, una: SeqNumber, delivered: &mut Delivered) {
        let mut last = None;
        while let Some(front) = self.segments.front()
            && front.end.at_or_before(una)
            && front.end.at_or_after(self.fack)
        {
            delivered.bytes += front.length();
            last = self.segments.pop_front();
        }
        if let Some(last) = last {
            self.note(&last, delivered);
        }
    }

    fn uncount(&mut self, segment: &Sent, bytes: u32) {
        if segment.sacked {
            self.sacked -= bytes;
        }
        if segment.lost {
            self.lost -= bytes;
        }
    }

    /// The peer reported these blocks. Those outside of `una`..`nxt` are ignored (RFC 2018, section 8, and against attacks).
    pub(crate) fn sack(&mut self, blocks: &[SackBlock], una: SeqNumber, nxt: SeqNumber, delivered: &mut Delivered) {
        if blocks.is_empty() {
            self.seen_count = 0;
            return;
        }
        let seen = self.seen;
        let seen = &seen[..usize::from(self.seen_count)];
        let mut valid = 0;
        // In which order the blocks of one acknowledgment arrived, it does not tell: they are compared with what was
        // acknowledged before.
        let mut fack = self.fack;
        for &(left, right) in blocks {
            if !left.before(right) || left.before(una) || right.after(nxt) {
                continue;
            }
            // What the last acknowledgment said already is marked.
            let known = seen.iter().find(|known| known.0 == left && known.1.at_or_before(right));
            self.mark_sacked(left, known.map_or(left, |known| known.1), right, delivered);
            self.seen[valid] = (left, right);
            valid += 1;
            fack = fack.max(right);
        }
        self.fack = fack;
        self.seen_count = valid as u8;
    }

    /// Marks the segments from `left` to `right`; those that end at or before `from` are marked.
    fn mark_sacked(&mut self, left: SeqNumber, from: SeqNumber, right: SeqNumber, delivered: &mut Delivered) {
        let mut index = self
            .segments
            .partition_point(|segment| segment.seq.before(left) || segment.end.at_or_before(from));
        while let Some(segment) = self.segments.get_mut(index) {
            if segment.end.after(right) {
                break;
            }
            index += 1;
            if segment.sacked {
                continue;
            }
            segment.sacked = true;
            let length = segment.end - segment.seq;
            if segment.lost {
                segment.lost = false;
                self.lost -= length;
            }
            self.sacked += length;
            delivered.bytes += length;
            delivered.newly_sacked += 1;
            let segment = self.segments[index - 1];
            self.note(&segment, delivered);
        }
    }

    fn mark_lost(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        if !segment.lost && !segment.sacked {
            segment.lost = true;
            self.lost += segment.end - segment.seq;
        }
    }

    /// Marks what counts as lost by the rules of RFC 6675 (`IsLost`): three segments' worth, or three separate blocks,
    /// were selectively acknowledged above it. Segments sent again are left to the timer.
    pub(crate) fn mark_lost_by_sack(&mut self, mss: u32) {
        if self.sacked == 0 {
            return;
        }
        let (mut bytes, mut blocks, mut within) = (0, 0, false);
        for index in (0..self.segments.len()).rev() {
            let segment = self.segments[index];
            if segment.sacked {
                bytes += segment.length();
                blocks += u32::from(!within);
                within = true;
                continue;
            }
            within = false;
            if !segment.retransmitted && (blocks >= DUP_THRESH || bytes > (DUP_THRESH - 1) * mss) {
                self.mark_lost(index);
            }
        }
    }

    /// Marks what was sent long enough before the newest delivered segment (RFC 8985, section 6.2, step 5): what was sent
    /// before `(xmit, end)` and, at `now`, longer than `allowance` ago. Returns how long to wait for the next one.
    pub(crate) fn mark_lost_by_time(
        &mut self,
        xmit: Instant,
        end: SeqNumber,
        allowance: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let mut wait: Option<Duration> = None;
        for index in 0..self.segments.len() {
            let segment = self.segments[index];
            let earlier = segment.sent_at < xmit || (segment.sent_at == xmit && segment.end.before(end));
            if !earlier {
                if segment.retransmitted {
                    continue;
                }
                // What was sent once was sent in the order of sequence numbers.
                break;
            }
            if segment.sacked || segment.lost {
                continue;
            }
            let due = segment.sent_at + allowance;
            if due <= now {
                self.mark_lost(index);
            } else {
                wait = wait.max(Some(due.since(now)));
            }
        }
        wait
    }

    /// The retransmission timer ran out: everything not selectively acknowledged counts as lost. A first segment that is
    /// selectively acknowledged but not acknowledged shows a peer that threw data away (RFC 2018, section 8): then nothing
    /// it reported counts.
    pub(crate) fn mark_all_lost(&mut self) {
        let reneged = self.segments.front().is_some_and(|front| front.sacked);
        self.seen_count = 0;
        for index in 0..self.segments.len() {
            if reneged && self.segments[index].sacked {
                self.segments[index].sacked = false;
                self.sacked -= self.segments[index].length();
            }
            self.mark_lost(index);
        }
    }

    /// Segments longer than `length` are lost: the path does not carry them.
    pub(crate) fn mark_longer_lost(&mut self, length: u32) {
        for index in 0..self.segments.len() {
            if self.segments[index].length() > length {
                self.mark_lost(index);
            }
        }
    }

    /// The first segment that is not selectively acknowledged is lost.
    pub(crate) fn mark_head_lost(&mut self) {
        if let Some(index) = self.segments.iter().position(|segment| !segment.sacked) {
            self.mark_lost(index);
        }
    }

    /// What was marked lost was not lost after all (spurious retransmission).
    pub(crate) fn unmark_lost(&mut self) {
        for segment in &mut self.segments {
            segment.lost = false;
        }
        self.lost = 0;
    }

    /// The first segment that is lost and not sent again.
    pub(crate) fn next_lost(&self) -> Option<usize> {
        if self.lost == 0 {
            return None;
        }
        self.segments.iter().position(|segment| segment.lost)
    }

    /// Cuts the segment at `index` after `length` bytes, for a peer that now takes only smaller ones.
    pub(crate) fn split(&mut self, index: usize, length: u32) {
        let Some(&first) = self.segments.get(index) else {
            return;
        };
        if length == 0 || length >= first.length() {
            return;
        }
        let middle = first.seq + length;
        self.segments[index].end = middle;
        self.segments.insert(index + 1, Sent { seq: middle, ..first });
    }

    /// The segment at `index` was sent again.
    pub(crate) fn retransmitted(&mut self, index: usize, now: Instant) {
        let segment = &mut self.segments[index];
        if segment.lost {
            segment.lost = false;
            self.lost -= segment.end - segment.seq;
        }
        segment.retransmitted = true;
        segment.sent_at = now;
        self.sent_again = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        (0..board.len())
            .filter(|&index| board.get(index).unwrap().lost)
            .collect()
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
        let wait = board.mark_lost_by_time(xmit, end, Duration::from_millis(20), at(21));
        assert_eq!(lost(&board), [0, 1]);
        assert_eq!(wait, Some(Duration::from_millis(2)));
        assert_eq!(
            board.mark_lost_by_time(xmit, end, Duration::from_millis(20), at(23)),
            None
        );
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
        assert_eq!((board.len(), board.lost()), (11, 100));
        board.retransmitted(0, at(70));
        assert_eq!(board.lost(), 60);
        board.acknowledge(start + 70, &mut Delivered::default());
        assert_eq!(board.lost(), 30);
    }

    proptest! {
        /// Whatever a peer reports, the sums stay those of the segments.
        #[test]
        fn the_sums_agree_with_the_segments(
            steps in proptest::collection::vec((0..6_u8, 0..1200_u32, 0..1200_u32), 1..80),
        ) {
            let start = SeqNumber(u32::MAX - 600);
            let mut board = board(start);
            let mut una = start;
            let nxt = start + 1000;
            for (step, a, b) in steps {
                let mut delivered = Delivered::default();
                match step {
                    0 => board.sack(&[(start + a, start + b)], una, nxt, &mut delivered),
                    1 => {
                        una = una.max((start + a).min(nxt));
                        board.acknowledge(una, &mut delivered);
                    }
                    2 => board.mark_lost_by_sack(MSS),
                    3 => {
                        board.mark_lost_by_time(at(9), nxt, Duration::from_millis(u64::from(a % 20)), at(15));
                    }
                    4 => board.mark_all_lost(),
                    _ => if let Some(index) = board.next_lost() {
                        board.split(index, a % 100);
                        board.retransmitted(index, at(100));
                    }
                }
                let sum = |wanted: fn(&Sent) -> bool| board.segments.iter().filter(|s| wanted(s)).map(Sent::length).sum::<u32>();
                prop_assert_eq!(sum(|segment| segment.sacked), board.sacked());
                prop_assert_eq!(sum(|segment| segment.lost), board.lost());
                prop_assert_eq!(sum(|_| true), nxt - una);
                prop_assert!(board.segments.iter().all(|segment| !(segment.sacked && segment.lost)));
            }
        }
    }
}
