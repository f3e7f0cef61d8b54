//! The outstanding segments, one by one, and what the peer has said about them (RFC 6675, section 3; RFC 8985, section
//! 5).
//!
//! A peer decides how many segments are outstanding and what it says of them, so nothing here walks them. What was sent
//! once is in the order of sequence numbers and of sending alike; only what was sent again has an order of its own.
//! [`Marks`] keeps the state of single segments, where the next of a kind is found without looking at those
//! between, and only from the first loss or selective acknowledgment on. An acknowledgment looks at no more than 8 + 4
//! log2(n) of n segments, besides those it newly acknowledges, reports or shows to be lost.

mod cut;
mod loss;
mod marks;
#[cfg(test)]
mod model;
mod rate;
#[cfg(test)]
mod tests;

pub(crate) use self::loss::Overdue;

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use self::marks::{Flags, Kind, Marks};
use super::delivery_rate::DeliveryRate;
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
    /// The time from its first sending to that, in microseconds.
    waited: u32,
    /// Of what was sent again, the number of the first segment that had not been sent before that; the low half.
    before: u32,
}

impl Sent {
    fn length(&self) -> u32 {
        self.end - self.seq
    }

    fn first_sent_at(&self) -> Instant {
        self.sent_at - Duration::from_micros(u64::from(self.waited))
    }
}

/// The segments that an acknowledgment delivered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    /// Bytes acknowledged for the first time, cumulatively or selectively.
    pub(crate) bytes: u32,
    /// Segments selectively acknowledged for the first time.
    pub(crate) newly_sacked: u32,
    /// The segment among them that was sent last: when, its end, and whether it was a retransmission.
    pub(crate) newest: Option<(Instant, SeqNumber, bool)>,
    /// The time that one was sent first.
    pub(crate) first_sent_at: Instant,
    /// It was acknowledged cumulatively.
    pub(crate) cumulative: bool,
    /// The position of that one.
    place: Place,
    /// The time the last one that was sent only once was sent: only those may be timed (Karn's algorithm).
    pub(crate) timed: Option<Instant>,
    /// The time the first of those was sent that were sent once and arrived after one sent later: the path reorders.
    pub(crate) reordered: Option<Instant>,
    /// A retransmission was among them.
    pub(crate) retransmitted: bool,
}

/// The position of a segment among those outstanding.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Its number.
    id: u64,
    /// The number of the first segment sent once that was not sent before it.
    before: u64,
}

/// A block the last acknowledgment reported.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    left: SeqNumber,
    right: SeqNumber,
    /// The first segment that ends behind it.
    next: u64,
}

/// The state that only exists while something is selectively acknowledged, lost or sent again.
#[derive(Debug)]
struct Disturbed {
    marks: Marks,
    /// Segments sent again that are neither selectively acknowledged nor lost, in the order of sending.
    again: BTreeSet<(Instant, u64)>,
    /// Something was sent again since nothing was outstanding.
    sent_again: bool,
    /// Blocks of the last acknowledgment, whose segments need no second look.
    seen: [Seen; MAX_SACK_BLOCKS],
    seen_count: u8,
}

/// The work of finding out what is lost, in outstanding segments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// Segments looked at.
    pub(crate) visited: u32,
    /// Segments newly acknowledged, selectively acknowledged or lost, and those no longer taken for lost.
    pub(crate) changed: u32,
}

impl Work {
    /// Whether an acknowledgment took no more than it may while `segments` were outstanding.
    pub(crate) fn is_bounded(self, segments: usize) -> bool {
        let logarithm = (segments.max(1) as f64).log2();
        f64::from(self.visited) <= 8.0 + 4.0 * logarithm + f64::from(self.changed)
    }
}

/// The outstanding segments, in the order of their sequence numbers.
///
/// Each has a number: `first` is that of the first one, and every further one has the next.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    segments: VecDeque<Sent>,
    first: u64,
    sacked: u32,
    lost: u32,
    /// The number of segments that `lost` bytes are.
    lost_segments: u32,
    /// The furthest end that was acknowledged in any way (RACK.fack).
    fack: SeqNumber,
    disturbed: Option<Box<Disturbed>>,
    /// The delivered segment that RACK knows as the newest: the time it was sent, its end, and its position.
    newest: Option<(Instant, SeqNumber, Place)>,
    /// Segments that may still be found not to be lost after all, and up to which number they have been granted.
    pardons: u32,
    pardoned: u64,
    work: Work,
    /// Only if congestion control wants samples of it.
    rate: Option<Box<DeliveryRate>>,
}

/// A queue this small is kept for the next segments; a larger one is given back when nothing is outstanding.
pub(super) const KEPT_CAPACITY: usize = 4;

impl Scoreboard {
    /// Nothing is outstanding.
    pub(crate) const fn new() -> Self {
        Self {
            segments: VecDeque::new(),
            first: 0,
            sacked: 0,
            lost: 0,
            lost_segments: 0,
            fack: SeqNumber(0),
            disturbed: None,
            newest: None,
            pardons: 0,
            pardoned: 0,
            work: Work { visited: 0, changed: 0 },
            rate: None,
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        let mut segments = core::mem::take(&mut self.segments);
        segments.clear();
        *self = Self {
            segments,
            ..Self::new()
        };
        self.empty();
    }

    /// Nothing is outstanding any more.
    #[inline]
    fn empty(&mut self) {
        self.disturbed = None;
        if self.segments.capacity() > KEPT_CAPACITY {
            self.segments = VecDeque::new();
        }
    }

    /// Whether nothing outstanding was selectively acknowledged, lost or sent again: then acknowledgments come in the
    /// order in which the segments were sent.
    #[inline]
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.disturbed.is_none()
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
            waited: 0,
            before: 0,
        });
        if self.rate.is_some() {
            let in_flight = self.in_flight();
            if let Some(rate) = &mut self.rate {
                rate.sent(in_flight, end - seq, now);
            }
        }
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

    /// Whether something was sent again that is neither acknowledged in any way nor lost.
    pub(crate) fn awaits_retransmissions(&self) -> bool {
        self.disturbed
            .as_ref()
            .is_some_and(|disturbed| !disturbed.again.is_empty())
    }

    /// The work since this was last asked.
    pub(crate) fn take_work(&mut self) -> Work {
        core::mem::take(&mut self.work)
    }

    /// The number after that of the last segment.
    fn end(&self) -> u64 {
        self.first + self.segments.len() as u64
    }

    /// Looks at segment `id`.
    fn visit(&mut self, id: u64) -> Sent {
        self.work.visited += 1;
        self.segments[(id - self.first) as usize]
    }

    /// The marks, with room for all that is outstanding.
    fn disturb(&mut self) -> &mut Disturbed {
        let (first, end) = (self.first, self.end());
        let disturbed = self.disturbed.get_or_insert_with(|| {
            Box::new(Disturbed {
                marks: Marks::new(first, end),
                again: BTreeSet::new(),
                sent_again: false,
                seen: [Seen::default(); MAX_SACK_BLOCKS],
                seen_count: 0,
            })
        });
        disturbed.marks.cover(first, end);
        disturbed
    }

    /// Lets go of the marks if there are none left.
    fn settle(&mut self) {
        if self.sacked == 0 && self.lost == 0 && self.disturbed.as_ref().is_some_and(|disturbed| !disturbed.sent_again)
        {
            self.disturbed = None;
        }
    }

    fn flags(&mut self, id: u64) -> Flags {
        if self.is_undisturbed() {
            return Flags::default();
        }
        self.disturb().marks.get(id)
    }

    /// The first segment of a kind from `from` on.
    fn next(&mut self, kind: Kind, from: u64) -> Option<u64> {
        let end = self.end();
        if self.is_undisturbed() {
            return (matches!(kind, Kind::Unsacked | Kind::Plain) && from < end).then_some(from);
        }
        self.disturb().marks.next(kind, from, end)
    }

    /// The last segment of a kind from `from` on and before `to`.
    fn previous(&mut self, kind: Kind, from: u64, to: u64) -> Option<u64> {
        if self.is_undisturbed() {
            return (matches!(kind, Kind::Unsacked | Kind::Plain) && from < to).then(|| to - 1);
        }
        self.disturb().marks.previous(kind, from, to)
    }

    /// Segment `id` has new marks; keeps the sums and the order of sending.
    fn mark(&mut self, id: u64, segment: &Sent, old: Flags, new: Flags) {
        let length = segment.length();
        self.sacked = self.sacked - if old.sacked { length } else { 0 } + if new.sacked { length } else { 0 };
        self.lost = self.lost - if old.lost { length } else { 0 } + if new.lost { length } else { 0 };
        self.lost_segments = self.lost_segments - u32::from(old.lost) + u32::from(new.lost);
        let disturbed = self.disturb();
        disturbed.marks.set(id, new);
        match (old.waits(), new.waits()) {
            (true, false) => {
                disturbed.again.remove(&(segment.sent_at, id));
            }
            (false, true) => {
                disturbed.again.insert((segment.sent_at, id));
            }
            _ => {}
        }
    }

    fn note(&mut self, id: u64, segment: &Sent, again: bool, delivered: &mut Delivered) {
        let newer = delivered.newest.is_none_or(|(sent_at, end, _)| {
            segment.sent_at > sent_at || (segment.sent_at == sent_at && segment.end.after(end))
        });
        if newer {
            delivered.newest = Some((segment.sent_at, segment.end, again));
            delivered.first_sent_at = segment.first_sent_at();
            delivered.cumulative = id < self.first;
            if let Some(rate) = &mut self.rate {
                rate.note_newest(id, segment.sent_at);
            }
            let mut before = id;
            if again {
                // What was sent again cannot come before what was sent first at that time.
                let ahead = segment.before.wrapping_sub(id as u32);
                before += u64::from(if ahead as i32 > 0 { ahead } else { 0 });
            }
            delivered.place = Place { id, before };
        }
        if again {
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
        while !self.segments.is_empty() {
            let id = self.first;
            let front = self.visit(id);
            let flags = self.flags(id);
            if front.end.after(una) {
                if front.seq.before(una) {
                    // The middle of a segment: the peer was sent other boundaries once.
                    let part = una - front.seq;
                    if flags.sacked {
                        self.sacked -= part;
                    } else {
                        delivered.bytes += part;
                    }
                    if flags.lost {
                        self.lost -= part;
                    }
                    self.segments[0].seq = una;
                }
                break;
            }
            self.work.changed += 1;
            if flags != Flags::default() {
                self.mark(id, &front, flags, Flags::default());
            }
            self.segments.pop_front();
            self.first += 1;
            if !flags.sacked {
                delivered.bytes += front.length();
                self.note(id, &front, flags.again, delivered);
            }
        }
        if delivered.retransmitted {
            // The others may have waited at the peer for what was sent again: their time says nothing.
            delivered.timed = None;
        }
        self.fack = self.fack.max(una);
        self.release_rate();
        if self.segments.is_empty() {
            self.empty();
        } else {
            self.settle();
        }
    }

    /// [`Scoreboard::acknowledge`] for everything on an undisturbed scoreboard, up to `nxt`. Returns when the last of
    /// it was sent.
    #[inline]
    pub(crate) fn acknowledge_all(&mut self, nxt: SeqNumber) -> Option<Instant> {
        let sent_at = self.segments.back().map(|last| last.sent_at);
        self.first += self.segments.len() as u64;
        self.segments.clear();
        self.fack = nxt;
        if let Some(rate) = &mut self.rate {
            if let Some(sent_at) = sent_at {
                rate.note_newest(self.first - 1, sent_at);
            }
            rate.release(self.first);
        }
        if self.segments.capacity() > KEPT_CAPACITY {
            self.segments = VecDeque::new();
        }
        sent_at
    }

    /// [`Scoreboard::acknowledge`] for whole segments of an undisturbed scoreboard: the last of them says everything.
    fn acknowledge_in_order(&mut self, una: SeqNumber, delivered: &mut Delivered) {
        let (mut last, before) = (None, self.first);
        while let Some(front) = self.segments.front()
            && front.end.at_or_before(una)
            && front.end.at_or_after(self.fack)
        {
            delivered.bytes += front.length();
            last = self.segments.pop_front();
            self.first += 1;
        }
        if let Some(last) = last {
            let count = (self.first - before) as u32;
            self.work.visited += count;
            self.work.changed += count;
            self.note(self.first - 1, &last, false, delivered);
        }
    }

    /// The peer reported these blocks. Those outside of `una`..`nxt` are ignored (RFC 2018, section 8, and against
    /// attacks).
    pub(crate) fn sack(&mut self, blocks: &[SackBlock], una: SeqNumber, nxt: SeqNumber, delivered: &mut Delivered) {
        let mut known = [Seen::default(); MAX_SACK_BLOCKS];
        let mut known_count = 0;
        if let Some(disturbed) = &mut self.disturbed {
            known = disturbed.seen;
            known_count = usize::from(core::mem::take(&mut disturbed.seen_count));
        }
        if blocks.is_empty() {
            return;
        }
        // In which order the blocks of one acknowledgment arrived, it does not tell: they are compared with what was
        // acknowledged before.
        let mut fack = self.fack;
        let mut seen = [Seen::default(); MAX_SACK_BLOCKS];
        let (mut settled, mut count) = (0, 0);
        for &(left, right) in blocks {
            if !left.before(right) || left.before(una) || right.after(nxt) || count == seen.len() {
                continue;
            }
            fack = fack.max(right);
            // What the last acknowledgment said already is marked.
            let same = |known: &&Seen| known.left == left && known.right.at_or_before(right);
            seen[count] = Seen { left, right, next: 0 };
            if let Some(known) = known[..known_count].iter().find(same) {
                seen[count].next = known.next;
                if known.right != right {
                    seen[count].next = self.mark_sacked(known.next, None, right, delivered);
                }
                seen.swap(settled, count);
                settled += 1;
            }
            count += 1;
        }
        let fresh = &mut seen[settled..count];
        fresh.sort_unstable_by_key(|block| block.left - una);
        self.locate(self.first, self.end(), fresh);
        for block in fresh {
            block.next = self.mark_sacked(block.next, Some(block.next), block.right, delivered);
        }
        self.fack = fack;
        if let Some(disturbed) = &mut self.disturbed {
            disturbed.seen = seen;
            disturbed.seen_count = count as u8;
        }
    }

    /// Finds the first segments from `from` on and before `to` that do not begin before the `left` of each block, which
    /// are in order. What is looked at for several of them is looked at once.
    fn locate(&mut self, from: u64, to: u64, blocks: &mut [Seen]) {
        if blocks.is_empty() {
            return;
        }
        if from == to {
            for block in blocks {
                block.next = from;
            }
            return;
        }
        let middle = from + (to - from) / 2;
        let seq = self.visit(middle).seq;
        let (low, high) = blocks.split_at_mut(blocks.partition_point(|block| block.left.at_or_before(seq)));
        self.locate(from, middle, low);
        self.locate(middle + 1, to, high);
    }

    /// Marks the segments from `from` on that end at `right` or before; returns the next one. `looked_at` was looked at
    /// just now.
    fn mark_sacked(
        &mut self,
        mut from: u64,
        looked_at: Option<u64>,
        right: SeqNumber,
        delivered: &mut Delivered,
    ) -> u64 {
        while let Some(id) = self.next(Kind::Unsacked, from) {
            let segment = self.visit(id);
            self.work.visited -= u32::from(looked_at == Some(id));
            if segment.end.after(right) {
                return id;
            }
            self.disturb();
            let old = self.flags(id);
            let new = Flags {
                sacked: true,
                lost: false,
                ..old
            };
            self.mark(id, &segment, old, new);
            self.work.changed += 1;
            delivered.bytes += segment.length();
            delivered.newly_sacked += 1;
            self.note(id, &segment, old.again, delivered);
            from = id + 1;
            if segment.end == right {
                return from;
            }
        }
        self.end()
    }

    /// The first segment that is lost and not sent again.
    pub(crate) fn next_lost(&mut self) -> Option<usize> {
        if self.lost == 0 {
            return None;
        }
        let id = self.next(Kind::Lost, self.first)?;
        Some((id - self.first) as usize)
    }

    /// The segment at `index` was sent again.
    pub(crate) fn retransmitted(&mut self, index: usize, now: Instant) {
        let (id, end) = (self.first + index as u64, self.end());
        let last = self.visit(end - 1);
        let before = if last.first_sent_at() < now {
            end
        } else {
            self.partition_point(|segment| segment.first_sent_at() < now)
        };
        let segment = self.visit(id);
        let old = self.flags(id);
        // Out of its place in the order of sending, and into the new one.
        self.mark(
            id,
            &segment,
            old,
            Flags {
                again: false,
                lost: false,
                ..old
            },
        );
        let waited = now.micros_since(segment.first_sent_at()).min(u64::from(u32::MAX)) as u32;
        let segment = Sent {
            sent_at: now,
            waited,
            before: before as u32,
            ..segment
        };
        self.segments[index] = segment;
        let old = Flags {
            lost: false,
            again: false,
            ..old
        };
        self.mark(id, &segment, old, Flags { again: true, ..old });
        self.disturb().sent_again = true;
        if self.rate.is_some() {
            let in_flight = self.in_flight();
            if let Some(rate) = &mut self.rate {
                rate.sent_again(id, in_flight, segment.length(), now);
            }
        }
    }

    /// Whether the segment at `index` is lost.
    #[cfg(test)]
    pub(crate) fn is_lost(&self, index: usize) -> bool {
        let id = self.first + index as u64;
        self.disturbed
            .as_ref()
            .is_some_and(|disturbed| disturbed.marks.get(id).lost)
    }
}
