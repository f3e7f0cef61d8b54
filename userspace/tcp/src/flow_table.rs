//! From 4-tuple to record: an open-addressing hash table, keyed at random.
//!
//! The table holds 8 bytes per flow (a tag of the hash and where the record is); the records hold the tuples. It is cut
//! into parts, by the highest bits of the hash, as many as the limits of the engine ask for and each for a few thousand
//! flows. A part begins small, and grows and shrinks by itself, by an eighth to a quarter of its size, so that no call
//! moves more than one part, and at most a fifth of the buckets is free where there are many. Small parts are half
//! free: the search is shorter, and there is little to be saved. Deletion shifts entries back, so there are no
//! tombstones.

use tidegate_abi::siphash::Key;

use crate::wire::address::CompactKey;
use crate::wire::{FlowKey, Segment};

/// The place of a flow's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowSlot {
    /// A connection, by slot.
    Connection(u32),
    /// A half-open connection, by slot.
    HalfOpen(u32),
    /// A connection in TIME-WAIT, by slot.
    TimeWait(u32),
}

const KIND_SHIFT: u32 = 28;
/// Largest slot of any kind, plus one.
pub(crate) const MAX_SLOTS: u32 = 1 << KIND_SHIFT;

impl FlowSlot {
    #[inline]
    fn pack(self) -> u32 {
        match self {
            Self::Connection(slot) => 1 << KIND_SHIFT | slot,
            Self::HalfOpen(slot) => 2 << KIND_SHIFT | slot,
            Self::TimeWait(slot) => 3 << KIND_SHIFT | slot,
        }
    }

    #[inline]
    fn unpack(packed: u32) -> Self {
        let slot = packed & (MAX_SLOTS - 1);
        match packed >> KIND_SHIFT {
            1 => Self::Connection(slot),
            2 => Self::HalfOpen(slot),
            _ => Self::TimeWait(slot),
        }
    }
}

/// The place of a record, as the bucket has it that a search ended at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Candidate(u32);

impl Candidate {
    /// The place; `None` if no bucket was of the flow.
    #[inline]
    pub(crate) fn get(self) -> Option<FlowSlot> {
        (self.0 != 0).then(|| FlowSlot::unpack(self.0))
    }
}

/// The keyed hash of a flow's tuple, as far as the table uses it: good for all that is done with the flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowHash(u32);

impl FlowHash {
    #[inline]
    fn of(hash: u64) -> Self {
        Self((hash >> 32) as u32)
    }
}

/// The [`FlowHash`] of the flow, whose highest bits say which part it is in and the next ones where the search for it
/// starts, and its place packed: zero where there is none.
type Bucket = [u32; 2];

/// Flows of a part when the table is full, at most and at least half as many. There are no more than 65,536 parts.
const FLOWS_OF_A_PART: usize = 4096;

/// Buckets of a part that has few flows, at least; it has none before it has any.
const MIN_BUCKETS: usize = 64;

/// Buckets of all parts together when each has a few flows, at least: 32 KiB, in which they are rarely in each other's
/// way.
const MIN_TOTAL: usize = 4096;

/// From this number of buckets on at most a fifth of them is free, not a half.
const DENSE_BUCKETS: usize = 512;

/// The number of buckets above `buckets` for a part, which is [`MIN_BUCKETS`] or was returned by this: there are four
/// up to the double, as size classes of allocators are.
fn next_size(buckets: usize) -> usize {
    buckets + (1 << buckets.ilog2()) / 4
}

/// Flows that a part with `buckets` buckets has room for.
fn room(buckets: usize) -> usize {
    if buckets < DENSE_BUCKETS {
        buckets / 2
    } else {
        buckets / 5 * 4
    }
}

/// The number of buckets for a part that is to have room for `flows`, at least `min` of them.
fn size_for(flows: usize, min: usize) -> usize {
    let mut buckets = min;
    while room(buckets) < flows {
        buckets = next_size(buckets);
    }
    buckets
}

#[derive(Default)]
struct Part {
    buckets: Vec<Bucket>,
    used: u32,
}

impl Part {
    /// The bucket where the search for a flow starts. `rest` is what of its tag is behind the part's number.
    #[inline]
    fn home(&self, rest: u32) -> usize {
        ((u64::from(rest) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        let next = at + 1;
        if next == self.buckets.len() { 0 } else { next }
    }

    /// The first place of a flow with this tag that `matches`.
    #[inline]
    fn find(&self, rest: u32, tag: u32, matches: impl Fn(Candidate) -> bool) -> Candidate {
        let mut at = self.home(rest);
        while let Some(&[found, packed]) = self.buckets.get(at) {
            let candidate = Candidate(packed);
            if packed == 0 || (found == tag && matches(candidate)) {
                return candidate;
            }
            at = self.next(at);
        }
        Candidate(0)
    }

    /// The bucket of the flow at `place`.
    #[inline]
    fn position(&self, rest: u32, place: FlowSlot) -> Option<usize> {
        let mut at = self.home(rest);
        let wanted = place.pack();
        loop {
            match self.buckets.get(at)? {
                [_, 0] => return None,
                [_, found] if *found == wanted => return Some(at),
                _ => at = self.next(at),
            }
        }
    }

    #[inline]
    fn insert(&mut self, rest: u32, bucket: Bucket) {
        let mut at = self.home(rest);
        while self.buckets[at][1] != 0 {
            at = self.next(at);
        }
        self.buckets[at] = bucket;
    }

    /// The number of buckets from `from` on to `to`, round the end.
    #[inline]
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from {
            to - from
        } else {
            to + self.buckets.len() - from
        }
    }

    /// Empties the bucket at `hole`, where others may move to.
    #[inline]
    fn remove(&mut self, mut hole: usize, bits: u32) {
        let mut at = self.next(hole);
        while self.buckets[at][1] != 0 {
            // A bucket may move to the hole unless that would put it before its home.
            let home = self.home(split(self.buckets[at][0], bits).1);
            if self.distance(home, at) >= self.distance(hole, at) {
                self.buckets[hole] = self.buckets[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.buckets[hole] = [0; 2];
    }

    /// Moves to as many buckets.
    #[cold]
    #[inline(never)]
    fn resize(&mut self, buckets: usize, bits: u32) {
        let old = core::mem::replace(&mut self.buckets, vec![[0; 2]; buckets]);
        for bucket in old {
            if bucket[1] != 0 {
                self.insert(split(bucket[0], bits).1, bucket);
            }
        }
    }
}

/// The number of the part that a tag belongs to, of 2^`bits` parts, and what is left of the tag.
#[inline]
fn split(tag: u32, bits: u32) -> (usize, u32) {
    let wide = u64::from(tag) << bits;
    ((wide >> 32) as usize, wide as u32)
}

/// The table.
pub(crate) struct FlowTable {
    parts: Box<[Part]>,
    /// The number of parts is 2 to the power of it.
    bits: u32,
    /// Buckets of a part at least.
    min: usize,
    key: Key,
    /// Buckets of all parts.
    buckets: usize,
}

impl FlowTable {
    /// A table for about `flows` flows.
    pub(crate) fn new(flows: usize, key: Key) -> Self {
        let parts = flows.div_ceil(FLOWS_OF_A_PART).next_power_of_two().min(1 << 16);
        Self {
            parts: (0..parts).map(|_| Part::default()).collect(),
            bits: parts.ilog2(),
            min: MIN_BUCKETS.max(MIN_TOTAL / parts),
            key,
            buckets: 0,
        }
    }

    /// The hash of a flow, for the methods that want one.
    #[inline]
    pub(crate) fn hash(&self, key: &FlowKey) -> FlowHash {
        FlowHash::of(key.table_hash(self.key))
    }

    /// [`FlowTable::hash`] of the flow whose key is kept as this.
    #[inline]
    pub(crate) fn hash_compact(&self, key: &CompactKey) -> FlowHash {
        FlowHash::of(key.table_hash(self.key))
    }

    /// [`FlowTable::hash`] of the flow of a frame; any where there is no segment in it, or a damaged one.
    #[inline]
    pub(crate) fn hash_of_frame(&self, frame: &[u8]) -> FlowHash {
        FlowHash::of(Segment::flow_hash(frame, self.key).unwrap_or(0))
    }

    /// Reads the bucket where the search for `hash` starts, so that it is in the cache when the search does start. The
    /// result means nothing and is to be given to [`core::hint::black_box`].
    #[inline]
    pub(crate) fn prefetch(&self, hash: FlowHash) -> u32 {
        let (number, rest) = split(hash.0, self.bits);
        let part = &self.parts[number];
        part.buckets.get(part.home(rest)).map_or(0, |bucket| bucket[0])
    }

    /// The record of a flow with this hash, which is most likely the one that is looked for. Its tuple is not looked
    /// at.
    #[inline]
    pub(crate) fn candidate(&self, hash: FlowHash) -> Candidate {
        let (number, rest) = split(hash.0, self.bits);
        self.parts[number].find(rest, hash.0, |_| true)
    }

    /// The record of `key`; `matches` compares a candidate's tuple with it.
    #[inline]
    pub(crate) fn find(&self, key: &FlowKey, matches: impl Fn(FlowSlot) -> bool) -> Option<FlowSlot> {
        self.find_hashed(self.hash(key), matches)
    }

    /// [`FlowTable::find`] for a flow whose hash is known.
    #[inline]
    pub(crate) fn find_hashed(&self, hash: FlowHash, matches: impl Fn(FlowSlot) -> bool) -> Option<FlowSlot> {
        let (number, rest) = split(hash.0, self.bits);
        let found = self.parts[number].find(rest, hash.0, |candidate| candidate.get().is_some_and(&matches));
        found.get()
    }

    /// Adds a flow that is not in the table.
    #[inline]
    pub(crate) fn insert(&mut self, hash: FlowHash, place: FlowSlot) {
        let (number, rest) = split(hash.0, self.bits);
        let part = &mut self.parts[number];
        part.used += 1;
        if part.used as usize > room(part.buckets.len()) {
            self.resize(number);
        }
        self.parts[number].insert(rest, [hash.0, place.pack()]);
    }

    /// Points the flow with this hash that is at `from` to `to`.
    #[inline]
    pub(crate) fn replace(&mut self, hash: FlowHash, from: FlowSlot, to: FlowSlot) {
        let (number, rest) = split(hash.0, self.bits);
        let part = &mut self.parts[number];
        if let Some(at) = part.position(rest, from) {
            part.buckets[at][1] = to.pack();
        }
    }

    /// Removes the flow with this hash that is at `place`.
    #[inline]
    pub(crate) fn remove(&mut self, hash: FlowHash, place: FlowSlot) {
        let (number, rest) = split(hash.0, self.bits);
        let part = &mut self.parts[number];
        if let Some(at) = part.position(rest, place) {
            part.remove(at, self.bits);
            part.used -= 1;
            if (part.used as usize) < room(part.buckets.len()) / 2 && part.buckets.len() > self.min {
                self.resize(number);
            }
        }
    }

    /// Gives a part, which has got too small or too large, the size for its flows and a few more.
    #[cold]
    #[inline(never)]
    fn resize(&mut self, number: usize) {
        let part = &mut self.parts[number];
        let flows = part.used as usize;
        self.buckets -= part.buckets.len();
        part.resize(size_for(flows + flows / 16, self.min), self.bits);
        self.buckets += part.buckets.len();
    }

    /// Bytes of memory that the table takes.
    pub(crate) fn memory(&self) -> usize {
        self.buckets * size_of::<Bucket>() + self.parts.len() * size_of::<Part>()
    }

    /// Flows in the table.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.used as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key(port: u16) -> FlowKey {
        FlowKey::new(
            "198.18.0.1:80".parse().unwrap(),
            std::net::SocketAddr::from(([198, 18, 0, 2], port)),
        )
    }

    /// The place of the flow of `port`, whose slot has the port's number.
    fn find(table: &FlowTable, port: u16) -> Option<FlowSlot> {
        table.find(&key(port), |place| match place {
            FlowSlot::Connection(slot) | FlowSlot::HalfOpen(slot) | FlowSlot::TimeWait(slot) => slot == u32::from(port),
        })
    }

    #[test]
    fn places_survive_packing() {
        for place in [
            FlowSlot::Connection(0),
            FlowSlot::HalfOpen(MAX_SLOTS - 1),
            FlowSlot::TimeWait(77),
        ] {
            assert_eq!(FlowSlot::unpack(place.pack()), place);
            assert_ne!(place.pack(), 0);
        }
    }

    #[test]
    fn flows_are_found_by_their_hashes() {
        let mut table = FlowTable::new(8, Key(1, 2));
        let hash = table.hash(&key(7));
        assert_eq!(table.candidate(hash).get(), None);
        table.insert(hash, FlowSlot::HalfOpen(3));
        table.insert(table.hash(&key(8)), FlowSlot::HalfOpen(5));
        assert_eq!(table.candidate(table.hash(&key(8))).get(), Some(FlowSlot::HalfOpen(5)));
        assert_eq!(table.find(&key(7), |_| true), Some(FlowSlot::HalfOpen(3)));
        assert_eq!(table.prefetch(hash), hash.0);
        table.replace(hash, FlowSlot::HalfOpen(3), FlowSlot::Connection(4));
        assert_eq!(table.candidate(hash).get(), Some(FlowSlot::Connection(4)));
        assert_eq!(table.find_hashed(hash, |place| place == FlowSlot::HalfOpen(3)), None);
        table.remove(hash, FlowSlot::Connection(4));
        assert_eq!((table.candidate(hash).get(), table.len()), (None, 1));
    }

    #[test]
    fn sizes_are_four_to_the_double_and_have_room() {
        let sizes: Vec<usize> = core::iter::successors(Some(MIN_BUCKETS), |&size| Some(next_size(size)))
            .take(9)
            .collect();
        assert_eq!(sizes, [64, 80, 96, 112, 128, 160, 192, 224, 256]);
        for flows in 0..5000 {
            let size = size_for(flows, MIN_BUCKETS);
            assert!(room(size) >= flows && room(size) < size);
            assert!(
                size == MIN_BUCKETS || sizes_below(size) < flows,
                "{flows} flows in {size} buckets"
            );
        }
    }

    /// Room in the next smaller size.
    fn sizes_below(size: usize) -> usize {
        let below = core::iter::successors(Some(MIN_BUCKETS), |&size| Some(next_size(size)));
        below.take_while(|&below| below < size).last().map_or(0, room)
    }

    #[test]
    fn a_table_grows_and_shrinks_with_its_flows_and_a_part_at_a_time() {
        const FLOWS: usize = 60_000;
        let mut table = FlowTable::new(FLOWS, Key(1, 2));
        assert_eq!((table.parts.len(), table.memory()), (16, 16 * size_of::<Part>()));
        let keys = || (0..FLOWS as u16).map(|port| (key(port), FlowSlot::TimeWait(u32::from(port))));
        let sizes = |table: &FlowTable| -> Vec<usize> { table.parts.iter().map(|part| part.buckets.len()).collect() };
        let mut before = sizes(&table);
        for (count, (key, place)) in keys().enumerate() {
            table.insert(table.hash(&key), place);
            let after = sizes(&table);
            assert!(
                before
                    .iter()
                    .zip(&after)
                    .filter(|(before, after)| before != after)
                    .count()
                    <= 1
            );
            before = after;
            let buckets: usize = before.iter().sum();
            assert_eq!(table.buckets, buckets);
            // Between a half and four fifths of the buckets are used where there are many.
            if count > FLOWS / 2 {
                assert!(buckets <= 2 * count, "{count} flows in {buckets} buckets");
            }
        }
        assert!(table.memory() <= 13 * FLOWS, "{} bytes", table.memory());
        for (count, (key, place)) in keys().enumerate() {
            assert_eq!(table.find(&key, |found| found == place), Some(place));
            table.remove(table.hash(&key), place);
            assert_eq!(table.find(&key, |found| found == place), None);
            let left = FLOWS - count - 1;
            assert!(
                table.buckets <= 4 * left + 16 * 2 * table.min,
                "{left} flows in {} buckets",
                table.buckets
            );
        }
        assert_eq!((table.len(), table.buckets), (0, MIN_TOTAL));
        assert!(
            table
                .parts
                .iter()
                .flat_map(|part| &part.buckets)
                .all(|&[_, place]| place == 0)
        );
    }

    proptest! {
        /// Against a hash map, in a table small enough for every kind of collision, and while it grows.
        #[test]
        fn agrees_with_a_map(
            secret: (u64, u64),
            flows in 31..300_usize,
            parts in 1..300_usize,
            steps in proptest::collection::vec((0..4_u8, 0..400_u16), 1..1000),
        ) {
            let mut table = FlowTable::new(flows * parts, Key(secret.0, secret.1));
            table.min = MIN_BUCKETS;
            let mut model = HashMap::new();
            for (action, port) in steps {
                // Hardly more ports than flows, so that the table gets full.
                let port = port % (flows as u16 + 9);
                let place = FlowSlot::Connection(u32::from(port));
                if action > 0 && model.len() < flows && !model.contains_key(&port) {
                    table.insert(table.hash(&key(port)), place);
                    model.insert(port, place);
                } else if action == 0 && let Some(place) = model.remove(&port) {
                    table.remove(table.hash(&key(port)), place);
                } else if let Some(place) = model.get_mut(&port) {
                    let moved = FlowSlot::TimeWait(u32::from(port));
                    table.replace(table.hash(&key(port)), *place, moved);
                    *place = moved;
                }
                prop_assert_eq!(table.len(), model.len());
                for port in [port, port / 2, port + 1] {
                    prop_assert_eq!(find(&table, port), model.get(&port).copied());
                }
            }
            for port in 0..400 {
                prop_assert_eq!(find(&table, port), model.get(&port).copied());
            }
        }
    }
}
