//! Data that arrived out of order, until what is missing before it comes.
//!
//! Data is copied out of its frame and kept in pieces by position; contiguous pieces are one range. Both are sorted
//! trees, so the cost of a segment grows with the logarithm of what is held, however an attacker chooses the order
//! (CVE-2018-5390). Bytes, pieces and ranges are bounded.

use std::collections::BTreeMap;

use crate::seq::SeqNumber;
use crate::wire::options::{MAX_SACK_BLOCKS, SackBlock};

/// The maximum cost of a piece beside its bytes: its entries in two trees whose nodes are nearly half empty, and what
/// the allocator adds. `bench/engine/tests/receive_memory.rs` measures it.
const PIECE_OVERHEAD: usize = 160;

/// The cost beside the pieces as soon as there is one: the roots of the trees, and what the connection makes to hold
/// this.
const BASE_OVERHEAD: usize = 768;

/// The limits of one connection.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes, overhead of the pieces included.
    pub(crate) bytes: usize,
    /// Ranges.
    pub(crate) ranges: usize,
}

/// The fate of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// At least one byte of it is new and held.
    Stored,
    /// All of it was held already.
    Known,
    /// A limit was reached; nothing of it is held.
    Refused,
}

/// Positions within the ranges that data came for last, the latest first: no two within the same range, and as many as
/// an acknowledgment has room for. The first is that of the data which came last; the others repeat what the
/// acknowledgments before it reported first, so that each range is reported by several of them, of which some may be
/// lost (RFC 2018, section 4). After a D-SACK they follow it (RFC 2883, section 4).
#[derive(Clone, Copy, Default)]
struct Recent {
    positions: [u64; MAX_SACK_BLOCKS],
    count: usize,
}

impl Recent {
    fn as_slice(&self) -> &[u64] {
        &self.positions[..self.count]
    }

    /// Forgets the positions for which `keep` says so.
    fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        let mut kept = 0;
        for index in 0..self.count {
            let position = self.positions[index];
            if keep(position) {
                self.positions[kept] = position;
                kept += 1;
            }
        }
        self.count = kept;
    }

    /// Data came for the range from `from` to `to`, which all ranges it has joined are part of.
    fn came(&mut self, from: u64, to: u64) {
        self.retain(|position| position < from || position >= to);
        self.count = (self.count + 1).min(MAX_SACK_BLOCKS);
        self.positions[..self.count].rotate_right(1);
        self.positions[0] = from;
    }
}

/// Out-of-order data of one connection. Positions are octets after RCV.NXT at the time of the first segment held, in 64
/// bits, so they do not wrap.
#[derive(Default)]
pub(crate) struct Reassembly {
    /// Position of RCV.NXT.
    next: u64,
    pieces: BTreeMap<u64, Box<[u8]>>,
    /// Start to end of each contiguous range.
    ranges: BTreeMap<u64, u64>,
    /// The ranges to be reported first.
    recent: Recent,
    /// Position of a FIN that came out of order.
    fin: Option<u64>,
    bytes: usize,
}

impl Reassembly {
    /// Memory held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        if self.pieces.is_empty() {
            0
        } else {
            self.bytes + BASE_OVERHEAD
        }
    }

    /// Whether nothing is held, no FIN either.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.fin.is_none()
    }

    /// Holds `data` that starts `offset` octets after RCV.NXT. `more` bytes may be used beyond what is held now, by the
    /// account of all connections together.
    pub(crate) fn insert(&mut self, offset: u32, data: &[u8], limits: Limits, more: usize) -> Held {
        let start = self.next + u64::from(offset);
        let end = start + data.len() as u64;
        // The range that begins at or before the data and every one that begins within it or right behind it.
        let mut merged = (start, end);
        let mut absorbed = 0;
        let mut gaps = 0;
        let mut covered_to = start;
        let before = self.ranges.range(..start).next_back().map(|(&from, &to)| (from, to));
        if let Some((from, to)) = before.filter(|&(_, to)| to >= start) {
            if to >= end {
                self.recent.came(from, to);
                return Held::Known;
            }
            merged.0 = from;
            absorbed += 1;
            covered_to = to;
        }
        let mut last = merged.1;
        for (&from, &to) in self.ranges.range(start..=end) {
            gaps += usize::from(from > covered_to);
            covered_to = covered_to.max(to);
            absorbed += 1;
            last = last.max(to);
        }
        gaps += usize::from(covered_to < end);
        if gaps == 0 {
            // Ranges do not touch, so one that begins with the data holds all of it.
            self.recent.came(start, last);
            return Held::Known;
        }
        merged.1 = last;
        let total = self.bytes + BASE_OVERHEAD + data.len() + gaps * PIECE_OVERHEAD;
        if total > limits.bytes
            || total - self.bytes() > more
            || self.ranges.len() + 1 - absorbed.min(1) > limits.ranges
        {
            return Held::Refused;
        }
        self.store_gaps(start, end, data);
        let inner: Vec<u64> = self.ranges.range(merged.0..=end).map(|(&from, _)| from).collect();
        for from in inner {
            self.ranges.remove(&from);
        }
        self.ranges.insert(merged.0, merged.1);
        self.recent.came(merged.0, merged.1);
        Held::Stored
    }

    /// Stores the parts of `data` that no range covers.
    fn store_gaps(&mut self, start: u64, end: u64, data: &[u8]) {
        let mut at = start;
        if let Some((_, &to)) = self.ranges.range(..=start).next_back() {
            at = at.max(to);
        }
        while at < end {
            let next = self.ranges.range(at..end).next().map(|(&from, &to)| (from, to));
            let (stop, resume) = next.unwrap_or((end, end));
            if stop > at {
                let piece = &data[(at - start) as usize..(stop - start) as usize];
                self.bytes += piece.len() + PIECE_OVERHEAD;
                self.pieces.insert(at, piece.into());
            }
            at = resume;
        }
    }

    /// Notes a FIN that stands `offset` octets after RCV.NXT.
    pub(crate) fn insert_fin(&mut self, offset: u32) {
        self.fin = Some(self.next + u64::from(offset));
    }

    /// RCV.NXT moved on by `octets` because of data that came in order.
    pub(crate) fn advance(&mut self, octets: u32) {
        self.next += u64::from(octets);
    }

    /// Takes the piece that is now in order, without what was received of it already; RCV.NXT moves on by its length.
    /// `None`: nothing is in order.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        while let Some(entry) = self.pieces.first_entry() {
            let start = *entry.key();
            if start > self.next {
                return None;
            }
            let mut piece = entry.remove().into_vec();
            self.bytes -= piece.len() + PIECE_OVERHEAD;
            let end = start + piece.len() as u64;
            self.trim_ranges(end);
            if end > self.next {
                piece.drain(..(self.next - start) as usize);
                self.next = end;
                return Some(piece);
            }
        }
        None
    }

    /// Gives up data from the far end until `wanted` bytes of memory or more are free again, or nothing is held.
    /// Returns how many are. The peer has to send it again, whatever was reported of it (RFC 2018, section 8).
    pub(crate) fn give_up(&mut self, wanted: usize) -> usize {
        let before = self.bytes();
        while before - self.bytes() < wanted
            && let Some((start, piece)) = self.pieces.pop_last()
        {
            self.bytes -= piece.len() + PIECE_OVERHEAD;
            // The last range ends where the last piece does.
            if let Some(mut range) = self.ranges.last_entry() {
                if *range.key() < start {
                    range.insert(start);
                } else {
                    range.remove();
                }
            }
        }
        let end = self.ranges.last_key_value().map_or(self.next, |(_, &to)| to);
        self.recent.retain(|position| position < end);
        before - self.bytes()
    }

    /// Forgets ranges up to `end`, which was taken.
    fn trim_ranges(&mut self, end: u64) {
        self.recent.retain(|position| position >= end);
        while let Some(entry) = self.ranges.first_entry() {
            let (from, to) = (*entry.key(), *entry.get());
            if from >= end {
                return;
            }
            entry.remove();
            if to > end {
                self.ranges.insert(end, to);
            }
        }
    }

    /// Whether the FIN is next.
    pub(crate) fn fin_is_next(&self) -> bool {
        self.fin == Some(self.next)
    }

    /// The blocks to report, given RCV.NXT: those that data came for last, then the others from the left.
    pub(crate) fn sack_blocks(&self, rcv_nxt: SeqNumber) -> impl Iterator<Item = SackBlock> + '_ {
        let recent = self.recent.as_slice();
        let reported = move |from: u64, to: u64| recent.iter().any(|&position| position >= from && position < to);
        let first = recent
            .iter()
            .filter_map(|&position| self.ranges.range(..=position).next_back());
        let others = self.ranges.iter().filter(move |&(&from, &to)| !reported(from, to));
        first
            .chain(others)
            .map(move |(&from, &to)| (rcv_nxt + (from - self.next) as u32, rcv_nxt + (to - self.next) as u32))
    }

    /// Separate ranges held.
    #[cfg(test)]
    pub(crate) fn ranges(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        bytes: 1 << 20,
        ranges: 256,
    };

    #[test]
    fn adjacent_ranges_become_one_and_are_reported_latest_first() {
        let mut held = Reassembly::default();
        let nxt = SeqNumber(u32::MAX - 5);
        assert_eq!(held.insert(10, b"0123456789", LIMITS, 1 << 20), Held::Stored);
        assert_eq!(held.insert(30, b"0123456789", LIMITS, 1 << 20), Held::Stored);
        let blocks: Vec<_> = held.sack_blocks(nxt).collect();
        assert_eq!(blocks, [(nxt + 30, nxt + 40), (nxt + 10, nxt + 20)]);
        assert_eq!(held.insert(20, b"0123456789", LIMITS, 1 << 20), Held::Stored);
        assert_eq!(held.sack_blocks(nxt).collect::<Vec<_>>(), [(nxt + 10, nxt + 40)]);
        assert_eq!(held.insert(12, b"234", LIMITS, 1 << 20), Held::Known);
        assert_eq!(held.pop(), None);
        held.advance(10);
        assert_eq!(held.sack_blocks(nxt + 10).collect::<Vec<_>>(), [(nxt + 10, nxt + 40)]);
        let mut out = Vec::new();
        while let Some(piece) = held.pop() {
            out.extend(piece);
        }
        assert_eq!(out, b"0123456789".repeat(3));
        assert!(held.is_empty() && held.bytes() == 0 && held.ranges() == 0);
    }

    #[test]
    fn limits_hold() {
        let mut held = Reassembly::default();
        let limits = Limits { bytes: 2400, ranges: 3 };
        for offset in [10, 20, 30] {
            assert_eq!(held.insert(offset, b"x", limits, 1 << 20), Held::Stored);
        }
        assert_eq!(held.insert(40, b"x", limits, 1 << 20), Held::Refused);
        assert_eq!(held.insert(11, b"x", limits, 1 << 20), Held::Stored, "grows a range");
        assert_eq!(held.insert(12, &[0; 900], limits, 1 << 20), Held::Refused);
        assert_eq!(held.insert(12, b"x", limits, 10), Held::Refused);
        assert!(held.bytes() <= 2400);
    }

    #[test]
    fn a_fin_waits_for_its_turn() {
        let mut held = Reassembly::default();
        held.insert(5, b"world", LIMITS, 1 << 20);
        held.insert_fin(10);
        assert!(!held.fin_is_next());
        held.advance(5);
        assert_eq!(held.pop().as_deref(), Some(&b"world"[..]));
        assert!(held.fin_is_next());
    }

    proptest! {
        /// Any order, overlap and duplication of segments gives the stream once and in order.
        #[test]
        fn the_stream_comes_out_once(
            cuts in proptest::collection::vec((0..300_usize, 1..40_usize), 1..120),
            wanted in 0..4000_usize,
            limit in prop_oneof![Just(usize::MAX), 1000..6000_usize],
        ) {
            let stream: Vec<u8> = (0..340_u32).map(|byte| (byte * 7 % 251) as u8).collect();
            let mut held = Reassembly::default();
            let mut out: Vec<u8> = Vec::new();
            let limits = Limits { bytes: limit, ranges: 64 };
            for (start, length) in cuts {
                let segment = &stream[start..start + length];
                let received = out.len();
                if start + length <= received {
                    continue;
                }
                if start <= received {
                    let fresh = &segment[received - start..];
                    out.extend_from_slice(fresh);
                    held.advance(fresh.len() as u32);
                    while let Some(piece) = held.pop() {
                        out.extend(piece);
                    }
                } else {
                    held.insert((start - received) as u32, segment, limits, usize::MAX);
                }
                prop_assert_eq!(&out[..], &stream[..out.len()]);
                prop_assert!(held.bytes() <= limit);
                let mut ranges: Vec<_> = held.sack_blocks(SeqNumber(0)).map(|(l, r)| (l.0, r.0)).collect();
                ranges.sort_unstable();
                for pair in ranges.windows(2) {
                    prop_assert!(pair[0].1 < pair[1].0, "ranges touch: {:?}", ranges);
                }
            }
            let memory = |held: &Reassembly| {
                let pieces = held.pieces.values().map(|piece| piece.len() + PIECE_OVERHEAD);
                pieces.reduce(|sum, piece| sum + piece).map_or(0, |sum| sum + BASE_OVERHEAD)
            };
            prop_assert_eq!(memory(&held), held.bytes());
            // What is given up is no longer reported, and the rest still is.
            let before = held.bytes();
            let given_up = held.give_up(wanted);
            let mut blocks: Vec<_> = held.sack_blocks(SeqNumber(0)).map(|(l, r)| (l.0, r.0)).collect();
            blocks.sort_unstable();
            for pair in blocks.windows(2) {
                prop_assert!(pair[0].1 < pair[1].0, "blocks touch, or are one twice: {:?}", blocks);
            }
            prop_assert_eq!((memory(&held), before - held.bytes()), (held.bytes(), given_up));
            prop_assert!(given_up >= wanted.min(before));
            let next = held.next;
            let pieces = held.pieces.iter().flat_map(|(&start, piece)| start..start + piece.len() as u64);
            let reported = held.ranges.iter().flat_map(|(&from, &to)| from..to);
            prop_assert!(pieces.filter(|&at| at >= next).eq(reported));
        }
    }
}
