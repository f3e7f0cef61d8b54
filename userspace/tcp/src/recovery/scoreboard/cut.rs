//! Cutting what is outstanding, where the path turns out to take only smaller segments.

use super::marks::Flags;
use super::{Scoreboard, Sent};

impl Scoreboard {
    /// Cuts the segment at `index` after `length` bytes, for a path that now takes only smaller ones; returns where it
    /// is then. Others that are as long would have to be cut one after the other, each in the middle of the queue: all
    /// that may have to be sent again are cut with it.
    pub(crate) fn split(&mut self, index: usize, length: u32) -> usize {
        let Some(&whole) = self.segments.get(index) else {
            return index;
        };
        if length == 0 || length >= whole.length() {
            return index;
        }
        if index + 1 < self.len() {
            return self.split_all(index, length);
        }
        let id = self.end();
        let flags = self.flags(id - 1);
        let middle = whole.seq + length;
        self.segments[index].end = middle;
        self.segments.push_back(Sent { seq: middle, ..whole });
        if let Some(rate) = &mut self.rate {
            rate.split_last();
        }
        self.place_piece(id, &whole, flags);
        self.move_newest(|at| at + u64::from(at == id), |at| at + u64::from(at + 1 == id));
        index
    }

    /// The newest delivered segment was cut, or others before it were: what ends where it did is its last piece now.
    /// `first_piece` and `last_piece` tell the new numbers of a segment.
    fn move_newest(&mut self, first_piece: impl Fn(u64) -> u64, last_piece: impl Fn(u64) -> u64) {
        if let Some((.., place)) = &mut self.newest {
            let sent_once = place.before == place.id;
            place.id = last_piece(place.id);
            place.before = if sent_once { place.id } else { first_piece(place.before) };
        }
    }

    /// Marks a new segment like the one it was cut from.
    fn place_piece(&mut self, id: u64, whole: &Sent, flags: Flags) {
        if flags == Flags::default() {
            return;
        }
        self.lost_segments += u32::from(flags.lost);
        let disturbed = self.disturb();
        disturbed.marks.set(id, flags);
        if flags.waits() {
            disturbed.again.insert((whole.sent_at, id));
        }
    }

    /// [`Scoreboard::split`] for every segment that is not selectively acknowledged. Segments longer than what may be
    /// sent only come with a new path MTU, so their number bounds how often.
    fn split_all(&mut self, index: usize, length: u32) -> usize {
        let first = self.first;
        let flags: Vec<Flags> = (first..self.end()).map(|id| self.flags(id)).collect();
        let whole = core::mem::take(&mut self.segments);
        // For each segment, its first piece; and the number after the last.
        let mut moved = Vec::with_capacity(whole.len() + 1);
        let mut pieces = Vec::with_capacity(whole.len());
        for (at, (segment, &flags)) in whole.iter().zip(&flags).enumerate() {
            moved.push(self.end());
            let mut piece = *segment;
            while (!flags.sacked || at == index) && segment.end - piece.seq > length {
                piece.end = piece.seq + length;
                self.segments.push_back(piece);
                pieces.push(flags);
                piece.seq = piece.end;
            }
            piece.end = segment.end;
            self.segments.push_back(piece);
            pieces.push(flags);
        }
        moved.push(self.end());
        if let Some(rate) = &mut self.rate {
            rate.split_all(moved.windows(2).map(|at| (at[1] - at[0]) as usize));
        }
        self.work.visited += pieces.len() as u32;
        let renumber = |id: u64| match id.checked_sub(first) {
            Some(at) => moved[(at as usize).min(moved.len() - 1)],
            None => id,
        };
        for segment in &mut self.segments {
            let ahead = segment.before.wrapping_sub(first as u32) as i32;
            segment.before = renumber(first + u64::from(ahead.max(0).unsigned_abs())) as u32;
        }
        self.move_newest(renumber, |id| if id < first { id } else { renumber(id + 1) - 1 });
        self.pardoned += (pieces.len() - whole.len()) as u64;
        self.lost_segments = 0;
        if let Some(before) = self.disturbed.take() {
            self.disturb().sent_again = before.sent_again;
        }
        for (id, flags) in (first..).zip(pieces) {
            let segment = self.segments[(id - first) as usize];
            self.place_piece(id, &segment, flags);
        }
        (moved[index] - first) as usize
    }
}
