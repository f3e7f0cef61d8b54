//! From 4-tuple to record: an open-addressing hash table, keyed at random.
//!
//! The table holds 8 bytes per flow (a tag of the hash and where the record is); the records hold the tuples. Its
//! capacity is fixed from the limits of the engine, at most half of it is ever used, and deletion shifts entries back, so
//! neither growth nor tombstones make a look-up slow.

use tidegate_abi::siphash::Key;

use crate::wire::{FlowKey, Segment};

/// Where the record of a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
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

impl Place {
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

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// [`FlowHash`] of the flow; its low bits are also where the search for it starts.
    tag: u32,
    /// Zero: empty.
    place: u32,
}

/// The table.
pub(crate) struct FlowTable {
    buckets: Vec<Bucket>,
    mask: usize,
    key: Key,
    used: usize,
}

impl FlowTable {
    /// A table for at most `flows` flows.
    pub(crate) fn new(flows: usize, key: Key) -> Self {
        let capacity = (flows.max(8) * 2).next_power_of_two();
        Self {
            buckets: vec![Bucket::default(); capacity],
            mask: capacity - 1,
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

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & self.mask
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & self.mask
    }

    /// Reads the bucket where the search for `hash` starts, so that it is in the cache when the search does start. The
    /// result means nothing and is to be given to [`core::hint::black_box`].
    #[inline]
    pub(crate) fn touch(&self, hash: FlowHash) -> u32 {
        self.buckets[self.home(hash.0)].tag
    }

    /// The record of a flow with this hash, which is most likely the one that is looked for. Its tuple is not looked at.
    #[inline]
    pub(crate) fn candidate(&self, hash: FlowHash) -> Option<Place> {
        self.find_hashed(hash, |_| true)
    }

    /// The record of `key`; `matches` compares a candidate's tuple with it.
    #[inline]
    pub(crate) fn find(&self, key: &FlowKey, matches: impl Fn(Place) -> bool) -> Option<Place> {
        self.find_hashed(self.hash(key), matches)
    }

    /// [`FlowTable::find`] for a flow whose hash is known.
    #[inline]
    pub(crate) fn find_hashed(&self, hash: FlowHash, matches: impl Fn(Place) -> bool) -> Option<Place> {
        let mut at = self.home(hash.0);
        loop {
            let bucket = self.buckets[at];
            if bucket.place == 0 {
                return None;
            }
            if bucket.tag == hash.0 {
                let place = Place::unpack(bucket.place);
                if matches(place) {
                    return Some(place);
                }
            }
            at = self.next(at);
        }
    }

    /// Adds a flow that is not in the table.
    pub(crate) fn insert(&mut self, key: &FlowKey, place: Place) {
        let hash = self.hash(key);
        debug_assert!(
            self.used * 2 < self.buckets.len(),
            "the limits of the engine bound the table"
        );
        let mut at = self.home(hash.0);
        while self.buckets[at].place != 0 {
            at = self.next(at);
        }
        self.buckets[at] = Bucket {
            tag: hash.0,
            place: place.pack(),
        };
        self.used += 1;
    }

    /// Points the flow `key`, now at `from`, to `to`.
    pub(crate) fn replace(&mut self, key: &FlowKey, from: Place, to: Place) {
        let hash = self.hash(key);
        if let Some(at) = self.position(hash, from) {
            self.buckets[at].place = to.pack();
        }
    }

    /// Removes the flow `key` that is at `place`.
    pub(crate) fn remove(&mut self, key: &FlowKey, place: Place) {
        let hash = self.hash(key);
        let Some(mut hole) = self.position(hash, place) else {
            return;
        };
        self.used -= 1;
        let mut at = self.next(hole);
        while self.buckets[at].place != 0 {
            // A bucket may move to the hole unless that would put it before its home.
            let home = self.home(self.buckets[at].tag);
            if (at.wrapping_sub(home) & self.mask) >= (at.wrapping_sub(hole) & self.mask) {
                self.buckets[hole] = self.buckets[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.buckets[hole] = Bucket::default();
    }

    /// Flows in the table.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    fn position(&self, hash: FlowHash, place: Place) -> Option<usize> {
        let mut at = self.home(hash.0);
        let packed = place.pack();
        loop {
            match self.buckets[at].place {
                0 => return None,
                found if found == packed => return Some(at),
                _ => at = self.next(at),
            }
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

    #[test]
    fn places_survive_packing() {
        for place in [
            Place::Connection(0),
            Place::HalfOpen(MAX_SLOTS - 1),
            Place::TimeWait(77),
        ] {
            assert_eq!(Place::unpack(place.pack()), place);
            assert_ne!(place.pack(), 0);
        }
    }

    #[test]
    fn flows_are_found_by_their_hashes() {
        let mut table = FlowTable::new(8, Key(1, 2));
        let hash = table.hash(&key(7));
        assert_eq!(table.candidate(hash), None);
        table.insert(&key(7), Place::HalfOpen(3));
        table.insert(&key(8), Place::HalfOpen(5));
        assert_eq!(table.candidate(table.hash(&key(8))), Some(Place::HalfOpen(5)));
        assert_eq!(table.find(&key(7), |_| true), Some(Place::HalfOpen(3)));
        assert_eq!(table.touch(hash), hash.0);
        table.replace(&key(7), Place::HalfOpen(3), Place::Connection(4));
        assert_eq!(table.candidate(hash), Some(Place::Connection(4)));
        assert_eq!(table.find_hashed(hash, |place| place == Place::HalfOpen(3)), None);
        table.remove(&key(7), Place::Connection(4));
        assert_eq!((table.candidate(hash), table.len()), (None, 1));
    }

    proptest! {
        /// Against a hash map, in a table small enough for every kind of collision.
        #[test]
        fn agrees_with_a_map(
            secret: (u64, u64),
            steps in proptest::collection::vec((any::<bool>(), 0..40_u16), 1..400),
        ) {
            let mut table = FlowTable::new(31, Key(secret.0, secret.1));
            let mut model = HashMap::new();
            for (add, port) in steps {
                let place = Place::Connection(u32::from(port));
                if add && model.len() < 31 && !model.contains_key(&port) {
                    table.insert(&key(port), place);
                    model.insert(port, place);
                } else if !add && let Some(place) = model.remove(&port) {
                    table.remove(&key(port), place);
                }
                prop_assert_eq!(table.len(), model.len());
                for port in 0..40 {
                    let found = table.find(&key(port), |place| place == Place::Connection(u32::from(port)));
                    prop_assert_eq!(found, model.get(&port).copied());
                }
            }
        }
    }
}
