//! The flow filter: which shard has which flow, in a table that all shards and the XDP program see
//! ([`tidegate_abi::flow_filter`]).
//!
//! A flow costs its engine four atomic instructions in one line of the table, where an entry in a map of flows would
//! cost two system calls.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

use tidegate_abi::flow_filter::{BUCKET_COUNTS, BUCKET_WORDS, FlowHash, FlowHasher, handshake};
use tidegate_tcp::shared_flows::SharedFlows;
use tidegate_tcp::wire::FlowKey;

/// Memory that may be a map's.
pub(crate) type SharedWords<T> = Arc<dyn AsRef<[T]> + Send + Sync>;

/// One shard's hold on the table of all.
#[derive(Clone)]
pub(crate) struct FlowFilter {
    hasher: FlowHasher,
    /// Buckets, one after the other.
    flows: SharedWords<AtomicU32>,
    /// By slot.
    handshakes: SharedWords<AtomicU64>,
    shard: u16,
    /// A bit for each shard of the server.
    shards: u64,
}

impl fmt::Debug for FlowFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowFilter")
            .field("hasher", &self.hasher)
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

impl FlowFilter {
    /// The hold of shard 0 of one on memory that is all zero at first.
    ///
    /// # Panics
    ///
    /// If the memory has less than all buckets and slots.
    pub(crate) fn new(hasher: FlowHasher, flows: SharedWords<AtomicU32>, handshakes: SharedWords<AtomicU64>) -> Self {
        let words = (*flows).as_ref().len();
        assert!(
            words >= hasher.buckets() as usize * BUCKET_WORDS,
            "{words} words of {} buckets",
            hasher.buckets()
        );
        assert!((*handshakes).as_ref().len() >= handshake::SLOTS as usize);
        Self {
            hasher,
            flows,
            handshakes,
            shard: 0,
            shards: 1,
        }
    }

    /// The hold of shard `shard` of `shards`, at most 64.
    pub(crate) fn of_shard(&self, shard: u16, shards: u16) -> Self {
        Self {
            shard,
            shards: u64::MAX >> (64 - u32::from(shards.clamp(1, 64))),
            ..self.clone()
        }
    }

    fn bucket(&self, hash: FlowHash) -> Bucket<'_> {
        let first = self.hasher.bucket(hash) as usize * BUCKET_WORDS;
        let words = &(*self.flows).as_ref()[first..first + BUCKET_WORDS];
        let (counts, entries) = words.split_at(BUCKET_COUNTS);
        Bucket {
            without_room: &counts[0],
            used: &counts[1],
            entries,
        }
    }

    fn entry(&self, hash: FlowHash) -> u32 {
        self.hasher.fingerprint(hash).entry(self.shard)
    }

    fn handshake(&self, hash: FlowHash) -> Option<u16> {
        let entry = (*self.handshakes).as_ref()[handshake::slot(hash) as usize].load(Ordering::Acquire);
        // Whether it still holds is not asked: while the flow lasts it names its owner, and then it goes.
        (entry != 0 && handshake::is_of(entry, hash)).then(|| handshake::owner(entry))
    }
}

/// The words of a bucket.
struct Bucket<'a> {
    /// Flows without room.
    without_room: &'a AtomicU32,
    /// Entries, and those that are just being made: none is there that is not counted.
    used: &'a AtomicU32,
    entries: &'a [AtomicU32],
}

/// Replaces one of `entries` that is `old` by `new`. False: there is none.
fn replace(entries: &[AtomicU32], old: u32, new: u32) -> bool {
    entries.iter().any(|entry| {
        entry.load(Ordering::Relaxed) == old
            && entry
                .compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    })
}

impl SharedFlows for FlowFilter {
    fn begin(&self, key: &FlowKey) {
        let hash = key.filter_hash(&self.hasher);
        let bucket = self.bucket(hash);
        bucket.used.fetch_add(1, Ordering::AcqRel);
        if !replace(bucket.entries, 0, self.entry(hash)) {
            bucket.without_room.fetch_add(1, Ordering::AcqRel);
            bucket.used.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn end(&self, key: &FlowKey) {
        let hash = key.filter_hash(&self.hasher);
        let bucket = self.bucket(hash);
        // Where a flow of the same fingerprint had no room, it is counted for this one from now on. What began ends
        // once, so that neither count is zero before.
        let count = if replace(bucket.entries, self.entry(hash), 0) {
            bucket.used
        } else {
            bucket.without_room
        };
        count.fetch_sub(1, Ordering::AcqRel);
        // The next connection of these addresses and ports may be another shard's, with or without a cookie.
        let slot = &(*self.handshakes).as_ref()[handshake::slot(hash) as usize];
        let entry = slot.load(Ordering::Acquire);
        if handshake::is_of(entry, hash) && handshake::owner(entry) == self.shard {
            // Where it fails, another handshake has taken the slot.
            let _ = slot.compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    fn others(&self, key: &FlowKey) -> u64 {
        let hash = key.filter_hash(&self.hasher);
        let fingerprint = self.hasher.fingerprint(hash);
        let bucket = self.bucket(hash);
        let owners = bucket
            .entries
            .iter()
            .filter_map(|entry| fingerprint.owner_in(entry.load(Ordering::Acquire)))
            .chain(self.handshake(hash))
            .fold(0, |owners, owner| owners | 1 << owner);
        let suspected = if bucket.without_room.load(Ordering::Acquire) > 0 {
            u64::MAX
        } else {
            owners
        };
        suspected & self.shards & !(1 << self.shard)
    }

    fn handshake_owner(&self, key: &FlowKey) -> Option<u16> {
        self.handshake(key.filter_hash(&self.hasher))
            .filter(|&owner| self.shards >> owner & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn zeroed<T>(count: u32, zero: impl Fn() -> T) -> Arc<Vec<T>> {
        Arc::new((0..count).map(|_| zero()).collect())
    }

    /// The holds of four shards on a table for `flows` flows, and its handshakes.
    fn four_shards(flows: u64) -> ([FlowFilter; 4], Arc<Vec<AtomicU64>>) {
        let hasher = FlowHasher::new(
            flows,
            [3, 5, 7, 11, 13, 17, 19, 23, 29, 31].map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        );
        let words = zeroed(hasher.buckets() * BUCKET_WORDS as u32, || AtomicU32::new(0));
        let handshakes = zeroed(handshake::SLOTS, || AtomicU64::new(0));
        let filter = FlowFilter::new(hasher, words, Arc::clone(&handshakes) as _);
        ([0, 1, 2, 3].map(|shard| filter.of_shard(shard, 4)), handshakes)
    }

    fn key(number: u32) -> FlowKey {
        let [_, _, high, low] = number.to_be_bytes();
        let client = ([198, 18, high, low], 1024 + (number >> 16) as u16);
        FlowKey::new("198.18.0.1:80".parse().expect("an address"), client.into())
    }

    fn is_empty(filter: &FlowFilter) -> bool {
        (*filter.flows)
            .as_ref()
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == 0)
    }

    #[test]
    fn a_flow_is_with_its_shard_from_begin_to_end() {
        let (shards, _) = four_shards(1000);
        for number in 0..500 {
            assert_eq!(shards[0].others(&key(number)), 0);
            shards[number as usize % 4].begin(&key(number));
        }
        for number in 0..500 {
            let owner = number as usize % 4;
            for (shard, filter) in shards.iter().enumerate() {
                let expected = if shard == owner { 0 } else { 1 << owner };
                assert_eq!(filter.others(&key(number)), expected, "flow {number}, seen by {shard}");
            }
            shards[owner].end(&key(number));
            assert_eq!(shards[(owner + 1) % 4].others(&key(number)), 0);
        }
        assert!(is_empty(&shards[0]));
    }

    #[test]
    fn a_flow_that_two_shards_have_is_two_entries() {
        let (shards, _) = four_shards(1000);
        shards[1].begin(&key(1));
        shards[2].begin(&key(1));
        assert_eq!(shards[0].others(&key(1)), 0b110);
        shards[1].end(&key(1));
        assert_eq!(shards[0].others(&key(1)), 0b100);
        shards[2].end(&key(1));
        assert!(is_empty(&shards[0]));
    }

    /// Two buckets for 10,000 flows: no flow is lost, whatever the order in which they end.
    #[test]
    fn flows_without_room_are_suspected_everywhere_until_the_last_has_ended() {
        for step in [1, 7919] {
            let (shards, _) = four_shards(0);
            let flows = 10_000;
            for number in 0..flows {
                shards[number as usize % 4].begin(&key(number));
            }
            for position in 0..flows {
                for number in [position, flows - 1].map(|position| position * step % flows) {
                    assert_eq!(
                        shards[(number as usize + 1) % 4].others(&key(number)) >> (number % 4) & 1,
                        1
                    );
                }
                let number = position * step % flows;
                shards[number as usize % 4].end(&key(number));
            }
            assert!(is_empty(&shards[0]), "in steps of {step}");
        }
    }

    #[test]
    fn shards_do_not_lose_each_others_flows() {
        let (shards, _) = four_shards(64);
        thread::scope(|scope| {
            for (shard, filter) in shards.iter().enumerate() {
                scope.spawn(move || {
                    for round in 0..200 {
                        for number in 0..64 {
                            filter.begin(&key(number * 4 + shard as u32));
                        }
                        for number in 0..64 {
                            let number = (number * 13 + round) % 64;
                            filter.end(&key(number * 4 + shard as u32));
                        }
                    }
                });
            }
        });
        assert!(is_empty(&shards[0]));
    }

    #[test]
    fn a_handshake_is_with_the_shard_that_the_program_chose() {
        let (shards, handshakes) = four_shards(1000);
        let hash = key(1).filter_hash(&shards[0].hasher);
        for owner in [3, 0] {
            let entry = handshake::entry(hash, owner, 77);
            handshakes[handshake::slot(hash) as usize].store(entry, Ordering::Relaxed);
            assert_eq!(shards[1].handshake_owner(&key(1)), Some(owner as u16));
            assert_eq!(shards[1].others(&key(1)), 1 << owner);
            assert_eq!(shards[owner as usize].others(&key(1)), 0);
            assert_eq!(shards[1].handshake_owner(&key(2)), None);
        }
        // With its connection it goes, and not with what another shard had of the flow.
        let slot = &handshakes[handshake::slot(hash) as usize];
        slot.store(handshake::entry(hash, 3, 77), Ordering::Relaxed);
        for shard in [2, 3] {
            shards[shard].begin(&key(1));
            assert_eq!(shards[1].handshake_owner(&key(1)), Some(3));
            shards[shard].end(&key(1));
        }
        assert_eq!(
            (shards[1].handshake_owner(&key(1)), shards[1].others(&key(1))),
            (None, 0)
        );
        // A queue that is not served.
        handshakes[handshake::slot(hash) as usize].store(handshake::entry(hash, 9, 77), Ordering::Relaxed);
        assert_eq!(
            (shards[1].handshake_owner(&key(1)), shards[1].others(&key(1))),
            (None, 0)
        );
    }
}
