//! From 4-tuple to record: an open-addressing hash table, keyed at random.
//!
//! The table holds 8 bytes per flow (a tag of the hash and where the record is); the records hold the tuples. At most
//! half of it is ever used, and deletion shifts entries back, so there are no tombstones. It begins small and doubles
//! up to what the limits of the engine ask for: the fewer caches and page tables have to hold of it, the sooner a flow
//! is found. What was in it moves over a few buckets at a time, and the memory of those goes back as they are emptied,
//! so no insertion takes long.

use core::mem::take;

use tidegate_abi::siphash::Key;

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

/// The keyed hash of a flow's tuple, as far as the table uses it: good for all that is done with the flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowHash(u32);

impl FlowHash {
    #[inline]
    fn of(hash: u64) -> Self {
        Self((hash >> 32) as u32)
    }
}

/// The [`FlowHash`] of the flow, whose low bits are also where the search for it starts, and its place packed: zero
/// where there is none. An array, since a vector of zeros is then memory that nobody has to write first.
type Bucket = [u32; 2];

/// Buckets of a new table.
const MIN_BUCKETS: usize = 4096;

/// Buckets that every insertion moves over while the table grows. Two would do: the larger one has room for as many
/// flows as a quarter of its buckets before it has to grow itself.
const MOVED_PER_INSERTION: usize = 4;

/// Buckets whose memory goes back at a time: 64 KiB. In tests few, so that small tables have that behind them, too.
const GIVEN_BACK: usize = if cfg!(test) { 8 } else { 8192 };

/// Buckets, a power of two of them. Those that are no longer there, at the end, are empty.
#[derive(Default)]
struct Buckets {
    all: Vec<Bucket>,
    mask: usize,
}

impl Buckets {
    fn new(count: usize) -> Self {
        Self {
            all: vec![[0; 2]; count],
            mask: count - 1,
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.all.len()
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & self.mask
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & self.mask
    }

    #[inline]
    fn find(&self, hash: FlowHash, matches: impl Fn(FlowSlot) -> bool) -> Option<FlowSlot> {
        let mut at = self.home(hash.0);
        loop {
            let &[tag, packed] = self.all.get(at)?;
            if packed == 0 {
                return None;
            }
            if tag == hash.0 {
                let place = FlowSlot::unpack(packed);
                if matches(place) {
                    return Some(place);
                }
            }
            at = self.next(at);
        }
    }

    #[inline]
    fn insert(&mut self, bucket: Bucket) {
        let mut at = self.home(bucket[0]);
        while self.all[at][1] != 0 {
            at = self.next(at);
        }
        self.all[at] = bucket;
    }

    /// The bucket of the flow at `place`.
    #[inline]
    fn position(&self, hash: FlowHash, place: FlowSlot) -> Option<usize> {
        let mut at = self.home(hash.0);
        let wanted = place.pack();
        loop {
            match self.all.get(at)? {
                [_, 0] => return None,
                [_, found] if *found == wanted => return Some(at),
                _ => at = self.next(at),
            }
        }
    }

    /// Empties the bucket at `hole`, where others may move to.
    #[inline]
    fn remove(&mut self, mut hole: usize) {
        let mut at = self.next(hole);
        while self.all.get(at).is_some_and(|bucket| bucket[1] != 0) {
            // A bucket may move to the hole unless that would put it before its home.
            let home = self.home(self.all[at][0]);
            if (at.wrapping_sub(home) & self.mask) >= (at.wrapping_sub(hole) & self.mask) {
                self.all[hole] = self.all[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.all[hole] = [0; 2];
    }
}

/// The table.
pub(crate) struct FlowTable {
    buckets: Buckets,
    /// Those the table had before it grew, while some are not moved yet: all from `unmoved` on are empty. Otherwise
    /// none.
    old: Buckets,
    unmoved: usize,
    /// Buckets at most.
    most: usize,
    key: Key,
    used: usize,
}

impl FlowTable {
    /// A table for at most `flows` flows.
    pub(crate) fn new(flows: usize, key: Key) -> Self {
        let most = (flows.max(8) * 2).next_power_of_two();
        Self {
            buckets: Buckets::new(most.min(MIN_BUCKETS)),
            old: Buckets::default(),
            unmoved: 0,
            most,
            key,
            used: 0,
        }
    }

    /// The hash of a flow, for the methods that want one.
    #[inline]
    pub(crate) fn hash(&self, key: &FlowKey) -> FlowHash {
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
        self.buckets.all[self.buckets.home(hash.0)][0]
    }

    /// The record of a flow with this hash, which is most likely the one that is looked for. Its tuple is not looked
    /// at.
    #[inline]
    pub(crate) fn candidate(&self, hash: FlowHash) -> Option<FlowSlot> {
        self.find_hashed(hash, |_| true)
    }

    /// The record of `key`; `matches` compares a candidate's tuple with it.
    #[inline]
    pub(crate) fn find(&self, key: &FlowKey, matches: impl Fn(FlowSlot) -> bool) -> Option<FlowSlot> {
        self.find_hashed(self.hash(key), matches)
    }

    /// [`FlowTable::find`] for a flow whose hash is known.
    #[inline]
    pub(crate) fn find_hashed(&self, hash: FlowHash, matches: impl Fn(FlowSlot) -> bool) -> Option<FlowSlot> {
        let found = self.buckets.find(hash, &matches);
        if found.is_none() && self.is_growing() {
            return self.old.find(hash, matches);
        }
        found
    }

    /// Adds a flow that is not in the table.
    pub(crate) fn insert(&mut self, key: &FlowKey, place: FlowSlot) {
        let hash = self.hash(key);
        if self.is_growing() {
            self.move_some();
        } else if (self.used + 1) * 2 > self.buckets.len() && self.buckets.len() < self.most {
            self.grow();
        }
        debug_assert!(
            self.used * 2 < self.buckets.len(),
            "the limits of the engine bound the table"
        );
        self.buckets.insert([hash.0, place.pack()]);
        self.used += 1;
    }

    /// Points the flow `key`, now at `from`, to `to`.
    pub(crate) fn replace(&mut self, key: &FlowKey, from: FlowSlot, to: FlowSlot) {
        let hash = self.hash(key);
        if let Some((buckets, at)) = self.position(hash, from) {
            buckets.all[at][1] = to.pack();
        }
    }

    /// Removes the flow `key` that is at `place`.
    pub(crate) fn remove(&mut self, key: &FlowKey, place: FlowSlot) {
        let hash = self.hash(key);
        if let Some((buckets, at)) = self.position(hash, place) {
            buckets.remove(at);
            self.used -= 1;
            if self.used == 0 && self.buckets.len() > MIN_BUCKETS {
                self.give_back();
            }
        }
    }

    /// Begins again as small as a new table: nothing is in it.
    #[cold]
    fn give_back(&mut self) {
        self.buckets = Buckets::new(MIN_BUCKETS);
        self.old = Buckets::default();
    }

    /// Bytes of memory that the buckets take.
    pub(crate) fn memory(&self) -> usize {
        (self.buckets.all.capacity() + self.old.all.capacity()) * size_of::<Bucket>()
    }

    /// Flows in the table.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// The flow at `place`, and which buckets have it.
    #[inline]
    fn position(&mut self, hash: FlowHash, place: FlowSlot) -> Option<(&mut Buckets, usize)> {
        if let Some(at) = self.buckets.position(hash, place) {
            return Some((&mut self.buckets, at));
        }
        if !self.is_growing() {
            return None;
        }
        let at = self.old.position(hash, place)?;
        Some((&mut self.old, at))
    }

    #[inline]
    fn is_growing(&self) -> bool {
        !self.old.all.is_empty()
    }

    /// Goes on with twice as many buckets.
    #[cold]
    fn grow(&mut self) {
        let larger = Buckets::new(self.buckets.len() * 2);
        self.old = core::mem::replace(&mut self.buckets, larger);
        self.unmoved = self.old.len();
        self.move_some();
    }

    /// Moves what is in the next few of the old buckets.
    #[cold]
    fn move_some(&mut self) {
        for _ in 0..MOVED_PER_INSERTION {
            self.unmoved -= 1;
            // Its removal may move another one here.
            while self.old.all[self.unmoved][1] != 0 {
                self.buckets.insert(self.old.all[self.unmoved]);
                self.old.remove(self.unmoved);
            }
        }
        if self.unmoved == 0 {
            drop(take(&mut self.old));
        } else if self.unmoved.is_multiple_of(GIVEN_BACK) {
            self.old.all.truncate(self.unmoved);
            self.old.all.shrink_to_fit();
        }
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
        assert_eq!(table.candidate(hash), None);
        table.insert(&key(7), FlowSlot::HalfOpen(3));
        table.insert(&key(8), FlowSlot::HalfOpen(5));
        assert_eq!(table.candidate(table.hash(&key(8))), Some(FlowSlot::HalfOpen(5)));
        assert_eq!(table.find(&key(7), |_| true), Some(FlowSlot::HalfOpen(3)));
        assert_eq!(table.prefetch(hash), hash.0);
        table.replace(&key(7), FlowSlot::HalfOpen(3), FlowSlot::Connection(4));
        assert_eq!(table.candidate(hash), Some(FlowSlot::Connection(4)));
        assert_eq!(table.find_hashed(hash, |place| place == FlowSlot::HalfOpen(3)), None);
        table.remove(&key(7), FlowSlot::Connection(4));
        assert_eq!((table.candidate(hash), table.len()), (None, 1));
    }

    #[test]
    fn a_table_begins_small_and_grows_as_far_as_it_must() {
        let mut table = FlowTable::new(50_000, Key(1, 2));
        let most = table.most;
        assert_eq!(most, 131_072);
        assert_eq!(table.buckets.len(), MIN_BUCKETS);
        let keys = || (0..50_000_u16).map(|port| (key(port), FlowSlot::TimeWait(u32::from(port))));
        for (count, (key, place)) in keys().enumerate() {
            table.insert(&key, place);
            assert!((count + 1) * 2 <= table.buckets.len());
            // No call gives back more than a little of what there was before.
            assert!(table.old.all.capacity() <= table.unmoved + GIVEN_BACK);
        }
        assert_eq!(table.buckets.len(), most);
        for (key, place) in keys() {
            assert_eq!(table.find(&key, |found| found == place), Some(place));
            table.remove(&key, place);
            assert_eq!(table.find(&key, |found| found == place), None);
        }
        // With the last flow the memory goes back.
        assert_eq!(table.buckets.len(), MIN_BUCKETS);
        assert!(!table.is_growing());
        assert!(table.buckets.all.iter().all(|&[_, place]| place == 0));
    }

    proptest! {
        /// Against a hash map, in a table small enough for every kind of collision, and while it grows.
        #[test]
        fn agrees_with_a_map(
            secret: (u64, u64),
            flows in 31..300_usize,
            steps in proptest::collection::vec((0..4_u8, 0..400_u16), 1..1000),
        ) {
            let mut table = FlowTable::new(flows, Key(secret.0, secret.1));
            table.buckets = Buckets::new(4);
            let mut model = HashMap::new();
            for (action, port) in steps {
                // Hardly more ports than flows, so that the table gets full.
                let port = port % (flows as u16 + 9);
                let place = FlowSlot::Connection(u32::from(port));
                if action > 0 && model.len() < flows && !model.contains_key(&port) {
                    table.insert(&key(port), place);
                    model.insert(port, place);
                } else if action == 0 && let Some(place) = model.remove(&port) {
                    table.remove(&key(port), place);
                } else if let Some(place) = model.get_mut(&port) {
                    let moved = FlowSlot::TimeWait(u32::from(port));
                    table.replace(&key(port), *place, moved);
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
