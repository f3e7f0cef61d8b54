//! Loss detection among the outstanding segments.

use core::time::Duration;

use super::marks::{Flags, Kind};
use super::{DUP_THRESH, Delivered, Place, Scoreboard, Sent};
use crate::seq::SeqNumber;
use crate::time::Instant;

/// The number of times each segment may, on average, be taken back from those that are lost. Without a bound, a peer
/// could have everything outstanding found lost and not lost again and again, by an acknowledgment each.
const PARDONS_PER_SEGMENT: u32 = 2;

/// The number that may be taken back at once, besides as many as are outstanding.
const SPARE_PARDONS: u32 = 64;

/// The outcome of a look at the time for which segments have been outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// How long to wait before the next one is lost, too.
    pub(crate) wait: Option<Duration>,
    /// Something that had been sent again was lost once more.
    pub(crate) lost_again: bool,
}

impl Scoreboard {
    fn mark_lost(&mut self, id: u64, segment: &Sent) {
        let old = self.flags(id);
        if !old.lost && !old.sacked {
            self.mark(id, segment, old, Flags { lost: true, ..old });
            self.work.changed += 1;
            if let Some(rate) = &mut self.rate {
                rate.mark_lost(id, segment.seq, segment.length());
            }
        }
    }

    /// Marks what counts as lost by the rules of RFC 6675 (`IsLost`): three segments' worth, or three separate blocks,
    /// were selectively acknowledged above it. Segments sent again are left to the timer.
    pub(crate) fn mark_lost_by_sack(&mut self, mss: u32) {
        if self.sacked == 0 {
            return;
        }
        let (mut bytes, mut blocks, mut below) = (0, 0, self.end());
        while let Some(last) = self.previous(Kind::Sacked, self.first, below) {
            let before = self.previous(Kind::Unsacked, self.first, last);
            below = before.map_or(self.first, |before| before + 1);
            blocks += 1;
            if blocks >= DUP_THRESH {
                break;
            }
            bytes += self.visit(last).end - self.visit(below).seq;
            if bytes > (DUP_THRESH - 1) * mss {
                break;
            }
        }
        if blocks < DUP_THRESH && bytes <= (DUP_THRESH - 1) * mss {
            return;
        }
        let mut from = self.first;
        while let Some(id) = self.next(Kind::Plain, from).filter(|&id| id < below) {
            let segment = self.visit(id);
            self.mark_lost(id, &segment);
            from = id + 1;
        }
    }

    /// RACK takes the newest segment that was delivered for the newest it knows.
    pub(crate) fn remember_newest(&mut self, delivered: &Delivered) {
        if let Some((sent_at, end, _)) = delivered.newest {
            self.newest = Some((sent_at, end, delivered.place));
        }
    }

    /// The position of a segment that was sent at `sent_at` and ends at `end`.
    fn place_of(&mut self, sent_at: Instant, end: SeqNumber) -> Place {
        match self.newest {
            Some((at, its_end, place)) if at == sent_at && its_end == end => place,
            _ if sent_at == Instant::NEVER => Place {
                id: self.end(),
                before: self.end(),
            },
            _ => Place {
                id: self.partition_point(|segment| segment.end.before(end)),
                before: self.partition_point(|segment| {
                    let first_sent_at = segment.first_sent_at();
                    first_sent_at < sent_at || (first_sent_at == sent_at && segment.end.before(end))
                }),
            },
        }
    }

    /// The first segment for which `precedes` is false.
    pub(super) fn partition_point(&mut self, mut precedes: impl FnMut(&Sent) -> bool) -> u64 {
        let (mut from, mut to) = (self.first, self.end());
        while from < to {
            let middle = from + (to - from) / 2;
            if precedes(&self.visit(middle)) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    /// Marks what was sent long enough before the newest delivered segment (RFC 8985, section 6.2, step 5): what was
    /// sent before `(xmit, end)` and, at `now`, longer than `allowance` ago.
    pub(crate) fn mark_lost_by_time(
        &mut self,
        xmit: Instant,
        end: SeqNumber,
        allowance: Duration,
        now: Instant,
    ) -> Overdue {
        let earlier = |segment: &Sent| segment.sent_at < xmit || (segment.sent_at == xmit && segment.end.before(end));
        let (mut wait, mut lost_again): (Option<Duration>, bool) = (None, false);
        // What was sent once was sent in the order of sequence numbers.
        let mut from = self.first;
        while let Some(id) = self.next(Kind::Plain, from) {
            let segment = self.visit(id);
            if !earlier(&segment) {
                break;
            }
            if segment.sent_at + allowance > now {
                let before = self.place_of(xmit, end).before;
                let last = self.previous(Kind::Plain, id, before).unwrap_or(id);
                wait = wait.max(Some((self.visit(last).sent_at + allowance).since(now)));
                break;
            }
            self.mark_lost(id, &segment);
            from = id + 1;
        }
        while let Some(&(sent_at, id)) = self.disturbed.as_ref().and_then(|disturbed| disturbed.again.first()) {
            let segment = self.visit(id);
            if !earlier(&segment) {
                break;
            }
            if sent_at + allowance > now {
                let place = self.place_of(xmit, end);
                let mut again = self.disturb().again.range(..(xmit, place.id));
                if let Some(&(last, _)) = again.next_back() {
                    self.work.visited += 1;
                    wait = wait.max(Some((last + allowance).since(now)));
                }
                break;
            }
            self.mark_lost(id, &segment);
            lost_again = true;
        }
        Overdue { wait, lost_again }
    }

    /// The retransmission timer ran out: everything not selectively acknowledged counts as lost. A first segment that
    /// is selectively acknowledged but not acknowledged shows a peer that threw data away (RFC 2018, section 8): then
    /// nothing it reported counts.
    pub(crate) fn mark_all_lost(&mut self) {
        let (Some(first), Some(last)) = (self.segments.front(), self.segments.back()) else {
            return;
        };
        let outstanding = last.end - first.seq;
        let reneged = self.flags(self.first).sacked;
        if reneged {
            self.sacked = 0;
        }
        let (from, to) = (self.first, self.end());
        let disturbed = self.disturb();
        disturbed.seen_count = 0;
        disturbed.again.clear();
        self.lost_segments = disturbed.marks.lose_all(from, to, reneged);
        let lost = outstanding - self.sacked;
        if let Some(rate) = &mut self.rate {
            rate.mark_all_lost(lost.saturating_sub(self.lost));
        }
        self.lost = lost;
        self.work.visited += (to - from).div_ceil(64) as u32;
        self.settle();
    }

    /// Segments longer than `length` are lost: the path does not carry them, which says nothing of its rate.
    pub(crate) fn mark_longer_lost(&mut self, length: u32) {
        let rate = self.rate.take();
        for id in self.first..self.end() {
            let segment = self.visit(id);
            if segment.length() > length {
                self.mark_lost(id, &segment);
            }
        }
        self.rate = rate;
    }

    /// The first segment that is not selectively acknowledged is lost.
    pub(crate) fn mark_head_lost(&mut self) {
        if let Some(id) = self.next(Kind::Unsacked, self.first) {
            let segment = self.visit(id);
            self.mark_lost(id, &segment);
        }
    }

    /// Takes back all marks of loss: nothing was lost after all (spurious retransmission).
    ///
    /// False, and nothing is changed, if that was found of too many segments lately.
    pub(crate) fn unmark_lost(&mut self) -> bool {
        let sent = (self.end() - self.pardoned).min(u64::from(u32::MAX)) as u32;
        let most = (self.len() as u32).saturating_add(SPARE_PARDONS);
        let granted = sent.saturating_mul(PARDONS_PER_SEGMENT);
        self.pardons = self.pardons.saturating_add(granted).min(most);
        self.pardoned = self.end();
        let Some(left) = self.pardons.checked_sub(self.lost_segments) else {
            return false;
        };
        self.pardons = left;
        let mut from = self.first;
        while let Some(id) = self.next(Kind::Lost, from) {
            let segment = self.visit(id);
            let old = self.flags(id);
            self.mark(id, &segment, old, Flags { lost: false, ..old });
            self.work.changed += 1;
            from = id + 1;
        }
        self.settle();
        true
    }
}
