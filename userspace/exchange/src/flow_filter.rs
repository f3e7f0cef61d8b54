//! The flow filter: which shard has which flow, in a table that all shards and the XDP program see
//! ([`tidegate_abi::flow_filter`]).
//!
//! A flow costs its engine four atomic instructions in two lines of the table, where an entry in a map of flows would
//! cost two system calls.

use core::fmt;
use std::sync::Arc;

use tidegate_abi::flow_filter::{BUCKET_WORDS, Fingerprint, FlowHash, FlowHasher, handshake, owner_of};
use tidegate_tcp::shared_flows::SharedFlows;
use tidegate_tcp::wire::FlowKey;

use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Memory that may be a map's.
pub type SharedWords<T> = Arc<dyn AsRef<[T]> + Send + Sync>;

/// One shard's hold on the table of all.
#[derive(Clone)]
pub struct FlowFilter {
    hasher: FlowHasher,
    /// Buckets, one after the other.
    flows: SharedWords<AtomicU32>,
    /// By bucket.
    counts: SharedWords<AtomicU8>,
    /// By slot.
    handshakes: SharedWords<AtomicU64>,
    shard: u16,
    shards: u16,
    /// The number of shard 0 in the table: other processes that have flows in it have other numbers.
    first: u16,
    /// The numbers of the first shards of such processes, each with as many as this one.
    others: Arc<[u16]>,
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
    pub fn new(
        hasher: FlowHasher,
        flows: SharedWords<AtomicU32>,
        counts: SharedWords<AtomicU8>,
        handshakes: SharedWords<AtomicU64>,
    ) -> Self {
        let words = (*flows).as_ref().len();
        assert!(
            words >= hasher.buckets() as usize * BUCKET_WORDS,
            "{words} words of {} buckets",
            hasher.buckets()
        );
        assert!((*counts).as_ref().len() >= hasher.buckets() as usize);
        assert!((*handshakes).as_ref().len() >= handshake::SLOTS as usize);
        Self {
            hasher,
            flows,
            counts,
            handshakes,
            shard: 0,
            shards: 1,
            first: 0,
            others: Arc::new([]),
        }
    }

    /// The same of a process whose shard 0 has number `first` in the table, which other processes have flows in, too:
    /// with as many shards each, from the numbers in `others` on. Shard 0 of the first of them is called by the number
    /// of shards of this process, and so on.
    pub fn of_process(&self, first: u16, others: Arc<[u16]>) -> Self {
        Self {
            first,
            others,
            ..self.clone()
        }
    }

    /// The hold of shard `shard` of `shards`, at most 64 with those of other processes.
    pub fn of_shard(&self, shard: u16, shards: u16) -> Self {
        Self {
            shard,
            shards: shards.clamp(1, 64),
            ..self.clone()
        }
    }

    /// Ends all flows of the `shards` shards that have the numbers from `first` on in the table: their process has
    /// ended without doing so. Returns their number. Flows that had no room in their buckets go on being suspected
    /// there, and are not counted.
    pub fn end_all(&self, first: u16, shards: u16) -> u64 {
        let mut ended = 0;
        for number in 0..self.hasher.buckets() {
            let bucket = self.bucket(number);
            for entry in bucket.entries {
                let entry = entry.load(Ordering::Relaxed);
                if entry != 0 && (first..first + shards).contains(&owner_of(entry)) {
                    bucket.remove(entry);
                    ended += 1;
                }
            }
        }
        ended
    }

    /// Forgets which shards are to have the connections of handshakes. To be called when another process has had the
    /// program steer to its shards, whose numbers there are those of this one's: their connections are in the table by
    /// now, and an acknowledgment that is still under way is given a shard again.
    pub fn forget_handshakes(&self) {
        for slot in (*self.handshakes).as_ref() {
            slot.store(0, Ordering::Release);
        }
    }

    fn bucket_of(&self, hash: FlowHash) -> Bucket<'_> {
        self.bucket(self.hasher.bucket(hash))
    }

    fn bucket(&self, number: u32) -> Bucket<'_> {
        let number = number as usize;
        let words = &(*self.flows).as_ref()[number * BUCKET_WORDS..(number + 1) * BUCKET_WORDS];
        Bucket::new(words, &(*self.counts).as_ref()[number])
    }

    fn entry(&self, hash: FlowHash) -> u32 {
        self.hasher.fingerprint(hash).entry(self.first + self.shard)
    }

    fn handshake(&self, hash: FlowHash) -> Handshake<'_> {
        Handshake {
            slot: &(*self.handshakes).as_ref()[handshake::slot(hash) as usize],
            hash,
        }
    }
}

/// The words of a bucket.
pub(crate) struct Bucket<'a> {
    /// Flows without room.
    pub(crate) without_room: &'a AtomicU32,
    entries: &'a [AtomicU32],
    /// Entries, those that are just being made, at most one by each shard, and one for all flows without room: nothing
    /// is there that is not counted.
    pub(crate) count: &'a AtomicU8,
}

impl<'a> Bucket<'a> {
    /// The bucket in `words`, the first of which counts flows without room, and `count`.
    pub(crate) fn new(words: &'a [AtomicU32], count: &'a AtomicU8) -> Self {
        Self {
            without_room: &words[0],
            entries: &words[1..],
            count,
        }
    }

    /// A flow begins.
    pub(crate) fn insert(&self, entry: u32) {
        self.count.fetch_add(1, Ordering::AcqRel);
        if !replace(self.entries, 0, entry) && self.without_room.fetch_add(1, Ordering::AcqRel) > 0 {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// A flow that began here ends.
    pub(crate) fn remove(&self, entry: u32) {
        // Where a flow of the same fingerprint had no room, it is counted for this one from now on. What began ends
        // once, so that neither count is zero before.
        if replace(self.entries, entry, 0) || self.without_room.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The shards that may have a flow of `fingerprint`, a bit each.
    pub(crate) fn owners(&self, fingerprint: Fingerprint) -> u64 {
        if self.count.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let owners = self
            .entries
            .iter()
            .filter_map(|entry| fingerprint.owner_in(entry.load(Ordering::Acquire)))
            .fold(0, |owners, owner| owners | 1 << owner);
        // After the entries: one that has just gone may have been that of a flow that is counted here now.
        if self.without_room.load(Ordering::Acquire) > 0 {
            u64::MAX
        } else {
            owners
        }
    }
}

/// The slot of a handshake.
pub(crate) struct Handshake<'a> {
    pub(crate) slot: &'a AtomicU64,
    pub(crate) hash: FlowHash,
}

impl Handshake<'_> {
    /// The shard that is to have its connection.
    pub(crate) fn owner(&self) -> Option<u16> {
        let entry = self.slot.load(Ordering::Acquire);
        // Whether it still holds is not asked: while the flow lasts it names its owner, and then it goes.
        (entry != 0 && handshake::is_of(entry, self.hash)).then(|| handshake::owner(entry))
    }

    /// The connection that `shard` made of it has ended.
    pub(crate) fn end(&self, shard: u16) {
        let entry = self.slot.load(Ordering::Acquire);
        if handshake::is_of(entry, self.hash) && handshake::owner(entry) == shard {
            // Where it fails, another handshake has taken the slot.
            let _ = self
                .slot
                .compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
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
        self.bucket_of(hash).insert(self.entry(hash));
    }

    fn end(&self, key: &FlowKey) {
        let hash = key.filter_hash(&self.hasher);
        self.bucket_of(hash).remove(self.entry(hash));
        // The next connection of these addresses and ports may be another shard's, with or without a cookie.
        self.handshake(hash).end(self.shard);
    }

    fn others(&self, key: &FlowKey) -> u64 {
        let hash = key.filter_hash(&self.hasher);
        let owners = self.bucket_of(hash).owners(self.hasher.fingerprint(hash));
        let chosen = self.handshake(hash).owner().map_or(0, |owner| 1 << owner);
        let mask = u64::MAX >> (64 - self.shards);
        let own = (owners >> self.first | chosen) & mask & !(1 << self.shard);
        (1..).zip(self.others.iter()).fold(own, |all, (process, &first)| {
            all | (owners >> first & mask) << (process * self.shards)
        })
    }

    fn handshake_owner(&self, key: &FlowKey) -> Option<u16> {
        self.handshake(key.filter_hash(&self.hasher))
            .owner()
            .filter(|&owner| owner < self.shards)
    }
}

#[cfg(all(test, not(loom)))]
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
        let counts = zeroed(hasher.buckets(), || AtomicU8::new(0));
        let filter = FlowFilter::new(hasher, words, counts, Arc::clone(&handshakes) as _);
        ([0, 1, 2, 3].map(|shard| filter.of_shard(shard, 4)), handshakes)
    }

    fn key(number: u32) -> FlowKey {
        let [_, _, high, low] = number.to_be_bytes();
        let client = ([198, 18, high, low], 1024 + (number >> 16) as u16);
        FlowKey::new("198.18.0.1:80".parse().expect("an address"), client.into())
    }

    fn is_empty(filter: &FlowFilter) -> bool {
        let mut words = (*filter.flows).as_ref().iter();
        let mut counts = (*filter.counts).as_ref().iter();
        words.all(|word| word.load(Ordering::Relaxed) == 0) && counts.all(|count| count.load(Ordering::Relaxed) == 0)
    }

    #[test]
    fn a_flow_is_with_its_shard_from_begin_to_end() {
        let (shards, _) = four_shards(1000);
        let flows = if cfg!(miri) { 40 } else { 500 };
        for number in 0..flows {
            assert_eq!(shards[0].others(&key(number)), 0);
            shards[number as usize % 4].begin(&key(number));
        }
        for number in 0..flows {
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

    #[test]
    fn flows_of_another_process_are_told_behind_those_of_this_one_and_end_with_it() {
        let ([before, ..], _) = four_shards(1000);
        let old = [0, 1].map(|shard| before.of_shard(shard, 2));
        let new = before.of_process(4, Arc::new([0, 2]));
        let new = [0, 1].map(|shard| new.of_shard(shard, 2));
        old[1].begin(&key(1));
        new[0].begin(&key(2));
        new[0].begin(&key(1));
        assert_eq!(new[0].others(&key(1)), 0b1000);
        assert_eq!(new[1].others(&key(1)), 0b1001);
        assert_eq!(new[1].others(&key(2)), 0b1);
        assert_eq!(old[0].others(&key(1)), 0b10, "it knows nothing of the other process");
        assert_eq!(new[0].end_all(0, 2), 1);
        assert_eq!(new[0].others(&key(1)), 0);
        assert_eq!(new[1].others(&key(1)), 0b1);
        assert_eq!(new[0].end_all(4, 2), 2);
        assert!(is_empty(&before));
    }

    #[test]
    fn handshakes_of_another_process_name_no_shard_of_this_one_when_they_are_forgotten() {
        let ([before, ..], handshakes) = four_shards(1000);
        let old = before.of_shard(1, 2);
        let new = before.of_process(2, Arc::new([0]));
        let new = [0, 1].map(|shard| new.of_shard(shard, 2));
        let hash = key(1).filter_hash(&before.hasher);
        handshakes[handshake::slot(hash) as usize].store(handshake::entry(hash, 1, 77), Ordering::Relaxed);
        old.begin(&key(1));
        new[0].forget_handshakes();
        for filter in &new {
            assert_eq!(filter.handshake_owner(&key(1)), None);
            assert_eq!(filter.others(&key(1)), 0b1000, "the other process's alone");
        }
    }

    /// Two buckets for 10,000 flows: no flow is lost, whatever the order in which they end.
    #[test]
    fn flows_without_room_are_suspected_everywhere_until_the_last_has_ended() {
        for step in [1, 7919] {
            let (shards, _) = four_shards(0);
            let flows = if cfg!(miri) { 100 } else { 10_000 };
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
                    for round in 0..if cfg!(miri) { 2 } else { 200 } {
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
