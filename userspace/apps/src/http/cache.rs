//! Files kept in memory, bounded in bytes.
//!
//! The clock algorithm chooses the victim: a hit sets a bit, and the hand that looks for a victim passes over
//! the entries with the bit set once, clearing it. It is close to least-recently-used without moving anything at a hit.
//!
//! A file that gives way while it is being sent stays in memory until the last peer has all of it, and it is noticed
//! that it has: when a file is to be read or a connection closes. Such files are counted, and while there are as many
//! bytes of them as the cache may have, no others are read whole: peers that do not read cannot make the server hold
//! more than twice its cache.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use tidegate_tcp::time::Instant;

use super::files::Stamp;
use super::head::HEAD_SIZE;
use super::prepared::{self, Prepared, WHOLE_LIMIT};
use super::representation::Representation;

/// Evicted files looked at in vain each time: more than give way for a file on average.
const LOOKED_AT_IN_VAIN: usize = 4;

/// Evicted files freed each time.
const MAX_FREED: usize = 64;

/// The cost of an entry besides its content and its key: about the size of its parts, so that empty files are bounded.
const ENTRY_OVERHEAD: usize = 768 + 2 * HEAD_SIZE;

/// Representations by their path, with responses made of them.
pub(super) struct Cache {
    limit: usize,
    used: usize,
    /// The time an entry is fresh.
    max_age: Duration,
    /// Keyed at random. Keys are paths of files that exist, so clients have little choice among them, and a hash that
    /// they cannot predict will do: a cryptographic one would cost more than the rest of a lookup.
    index: HashMap<Arc<[u8]>, usize, RandomState>,
    entries: Vec<Entry>,
    hand: usize,
    /// The slot of the last hit, where the next one most often is too.
    last: usize,
    /// Content that is not cached any more and was still being sent when it was last looked at, and its length.
    evicted: VecDeque<Bytes>,
    evicted_bytes: usize,
}

struct Entry {
    key: Arc<[u8]>,
    prepared: Prepared,
    /// None while it does not say whether the content is still that of the file.
    stamp: Option<Stamp>,
    /// The time at which it is to be compared with the file again.
    stale_at: Instant,
    /// The key has no percent sign, question mark or number sign, which mean something else in a target.
    is_literal: bool,
    referenced: bool,
    charge: usize,
}

impl Cache {
    /// A cache for at most `limit` bytes, whose entries are fresh for `max_age` after they were compared with their
    /// file.
    pub(super) fn new(limit: usize, max_age: Duration) -> Self {
        Self {
            limit,
            used: 0,
            max_age,
            index: HashMap::default(),
            entries: Vec::new(),
            hand: 0,
            last: 0,
            evicted: VecDeque::new(),
            evicted_bytes: 0,
        }
    }

    /// Whether a file of `length` bytes may be read whole, to be cached for `key`: not if it would not fit, and not
    /// while evicted ones that are being sent hold too much memory.
    pub(super) fn may_hold(&mut self, key: &[u8], length: u64) -> bool {
        self.forget_sent();
        let fits = usize::try_from(length).is_ok_and(|length| charge(key, length) <= self.limit);
        // Of small files, responses hold copies.
        fits && (length <= WHOLE_LIMIT as u64 || self.evicted_bytes as u64 + length <= self.limit as u64)
    }

    /// Frees evicted files that nobody is sent any more: some of them, and all if this is called often enough.
    pub(super) fn forget_sent(&mut self) {
        let mut in_vain = 0;
        for _ in 0..MAX_FREED {
            match self.evicted.pop_front() {
                Some(content) if content.is_unique() => self.evicted_bytes -= content.len(),
                Some(content) => {
                    self.evicted.push_back(content);
                    in_vain += 1;
                }
                None => {
                    self.evicted = VecDeque::new();
                    break;
                }
            }
            if in_vain == LOOKED_AT_IN_VAIN {
                break;
            }
        }
    }

    /// The cached and fresh content for `key`.
    pub(super) fn fresh(&mut self, key: &[u8], now: Instant) -> Option<&mut Prepared> {
        self.fresh_entry(key, now).map(|entry| &mut entry.prepared)
    }

    /// The cached and fresh content for the target `/path`, which is not parsed yet.
    ///
    /// Keys are normalised paths: no empty segments, no dot segments, no backslashes. So if `path` is a key without
    /// percent sign, question mark and number sign, parsing the target would lead to it.
    pub(super) fn fresh_unparsed(&mut self, path: &[u8], now: Instant) -> Option<&mut Prepared> {
        self.fresh_entry(path, now)
            .filter(|entry| entry.is_literal)
            .map(|entry| &mut entry.prepared)
    }

    #[inline]
    fn fresh_entry(&mut self, key: &[u8], now: Instant) -> Option<&mut Entry> {
        let is_last = self.entries.get(self.last).is_some_and(|entry| *entry.key == *key);
        if !is_last {
            self.last = *self.index.get(key)?;
        }
        let entry = &mut self.entries[self.last];
        if now >= entry.stale_at {
            return None;
        }
        entry.referenced = true;
        Some(entry)
    }

    /// The content cached for `key`, if its file still has the settled stamp it had; forgotten otherwise.
    pub(super) fn revalidate(&mut self, key: &[u8], stamp: &Stamp, now: Instant) -> Option<Arc<Representation>> {
        let entry = &mut self.entries[*self.index.get(key)?];
        if entry.stamp.as_ref() == Some(stamp) {
            entry.stale_at = now + self.max_age;
            entry.referenced = true;
            return Some(Arc::clone(entry.prepared.representation()));
        }
        self.remove(key);
        None
    }

    /// The content cached for `key`, though it cannot be compared with its file. It will be tried again after the time
    /// that entries are fresh.
    pub(super) fn keep(&mut self, key: &[u8], now: Instant) -> Option<Arc<Representation>> {
        let entry = &mut self.entries[*self.index.get(key)?];
        entry.stale_at = now + self.max_age;
        entry.referenced = true;
        Some(Arc::clone(entry.prepared.representation()))
    }

    /// Forgets what is cached for `key`.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some(&slot) = self.index.get(key) {
            self.remove_slot(slot);
        }
    }

    /// Caches `prepared`, with the stamp of its file if that is settled; returns how many entries gave way. Something
    /// larger than the whole cache is not cached.
    pub(super) fn insert(&mut self, key: &[u8], prepared: Prepared, stamp: Option<Stamp>, now: Instant) -> u64 {
        self.remove(key);
        let charge = charge(key, prepared.content_length());
        if charge > self.limit {
            return 0;
        }
        let mut evicted = 0;
        while self.used + charge > self.limit {
            self.evict();
            evicted += 1;
        }
        let key: Arc<[u8]> = key.into();
        self.index.insert(Arc::clone(&key), self.entries.len());
        self.entries.push(Entry {
            is_literal: !key.iter().any(|byte| matches!(byte, b'%' | b'?' | b'#')),
            key,
            prepared,
            stamp,
            stale_at: now + self.max_age,
            referenced: false,
            charge,
        });
        self.used += charge;
        evicted
    }

    /// Removes the next entry that was not hit since the hand last passed. There is at least one entry.
    fn evict(&mut self) {
        loop {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let entry = &mut self.entries[self.hand];
            if !entry.referenced {
                break;
            }
            entry.referenced = false;
            self.hand += 1;
        }
        self.remove_slot(self.hand);
    }

    fn remove_slot(&mut self, slot: usize) {
        let entry = self.entries.swap_remove(slot);
        self.index.remove(&entry.key);
        self.used -= entry.charge;
        let content = entry.prepared.into_content();
        if content.len() > WHOLE_LIMIT && !content.is_unique() {
            self.evicted_bytes += content.len();
            self.evicted.push_back(content);
        }
        if let Some(moved) = self.entries.get(slot)
            && let Some(position) = self.index.get_mut(&moved.key)
        {
            *position = slot;
        }
    }
}

/// The cost of `length` bytes of content cached for `key`.
fn charge(key: &[u8], length: usize) -> usize {
    prepared::content_memory(length)
        .saturating_add(key.len())
        .saturating_add(ENTRY_OVERHEAD)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::etag::EntityTag;
    use super::*;

    const SIZE: usize = 1000;
    const SECOND: Duration = Duration::from_secs(1);

    fn stamp(modified: i64) -> Stamp {
        Stamp::for_test(SIZE as u64, modified)
    }

    fn prepared() -> Prepared {
        Prepared::in_memory(Bytes::from(vec![0; SIZE]), |content| {
            Representation::of_file(b"a", &stamp(0), EntityTag::fixed("a"), content, 0)
        })
    }

    /// A cache with room for `entries` entries of one-byte keys.
    fn cache(entries: usize) -> Cache {
        Cache::new(entries * charge(b"a", SIZE), SECOND)
    }

    fn insert(cache: &mut Cache, key: &[u8]) -> u64 {
        cache.insert(key, prepared(), Some(stamp(0)), Instant::ZERO)
    }

    fn has(cache: &mut Cache, key: &[u8]) -> bool {
        cache.fresh(key, Instant::ZERO).is_some()
    }

    /// Every key leads to its entry, and the charges add up.
    fn check(cache: &Cache) {
        assert_eq!(cache.index.len(), cache.entries.len());
        for (slot, entry) in cache.entries.iter().enumerate() {
            assert_eq!(cache.index.get(&entry.key), Some(&slot));
        }
        assert_eq!(
            cache.used,
            cache.entries.iter().map(|entry| entry.charge).sum::<usize>()
        );
        assert!(cache.used <= cache.limit);
    }

    #[test]
    fn an_entry_is_fresh_for_its_time() {
        let mut cache = cache(1);
        insert(&mut cache, b"a");
        assert!(cache.fresh(b"a", Instant::from_millis(999)).is_some());
        assert!(cache.fresh(b"a", Instant::from_millis(1000)).is_none());
        assert!(cache.revalidate(b"a", &stamp(0), Instant::from_millis(1000)).is_some());
        assert!(cache.fresh(b"a", Instant::from_millis(1999)).is_some());
        assert!(cache.revalidate(b"a", &stamp(1), Instant::from_millis(2000)).is_none());
        assert!(cache.entries.is_empty());
        check(&cache);
    }

    #[test]
    fn an_entry_without_a_settled_stamp_is_not_fresh_again() {
        let mut cache = cache(1);
        cache.insert(b"a", prepared(), None, Instant::ZERO);
        assert!(has(&mut cache, b"a"));
        assert!(cache.revalidate(b"a", &stamp(0), Instant::from_millis(1000)).is_none());
        assert!(!has(&mut cache, b"a"));
        check(&cache);
    }

    #[test]
    fn without_a_maximum_age_nothing_is_fresh_and_with_the_largest_everything() {
        for (max_age, fresh) in [(Duration::ZERO, false), (Duration::MAX, true)] {
            let mut cache = Cache::new(1 << 20, max_age);
            insert(&mut cache, b"a");
            assert_eq!(cache.fresh(b"a", Instant::ZERO).is_some(), fresh);
            assert_eq!(cache.fresh(b"a", Instant::from_millis(1 << 50)).is_some(), fresh);
        }
    }

    #[test]
    fn files_that_give_way_while_they_are_sent_are_counted_until_they_are_not() {
        const LENGTH: usize = 100_000;
        let large = || {
            let content = Bytes::from(vec![0; LENGTH]);
            let prepared = Prepared::in_memory(content.clone(), |content| {
                Representation::of_file(b"a", &stamp(0), EntityTag::fixed("a"), content, 0)
            });
            (prepared, content)
        };
        let mut cache = Cache::new(5 * LENGTH, SECOND);
        // Each is being sent to somebody who does not read.
        let mut sent = Vec::new();
        for name in 0..100_u8 {
            if !cache.may_hold(&[name], LENGTH as u64) {
                break;
            }
            let (prepared, content) = large();
            sent.push(content.slice(10..20));
            drop(content);
            cache.insert(&[name], prepared, Some(stamp(0)), Instant::ZERO);
        }
        assert!((5..=11).contains(&sent.len()), "{} files are held", sent.len());
        assert!(cache.may_hold(b"a", WHOLE_LIMIT as u64), "small ones are copied");
        // One that nobody is sent leaves nothing behind.
        sent.clear();
        cache.forget_sent();
        assert!(cache.may_hold(b"a", 4 * LENGTH as u64));
        assert_eq!((cache.evicted.len(), cache.evicted_bytes), (0, 0));
        check(&cache);
    }

    #[test]
    fn readers_that_go_one_by_one_leave_nothing_behind() {
        const LENGTH: usize = WHOLE_LIMIT + 1;
        const READERS: usize = 300;
        let mut cache = Cache::new(charge(b"a", LENGTH), SECOND);
        for one_of_all in [false, true] {
            let mut readers = Vec::new();
            for _ in 0..READERS {
                let content = Bytes::from(vec![0; LENGTH]);
                readers.push(content.clone());
                let prepared = Prepared::in_memory(content, |content| {
                    Representation::of_file(b"a", &stamp(0), EntityTag::fixed("a"), content, 0)
                });
                cache.insert(b"a", prepared, None, Instant::ZERO);
            }
            cache.remove(b"a");
            assert_eq!(cache.evicted_bytes, READERS * LENGTH);
            if one_of_all {
                // A connection that was sent all of them.
                readers.clear();
                for calls in 1..=READERS.div_ceil(MAX_FREED) {
                    cache.forget_sent();
                    assert_eq!(cache.evicted.len(), READERS.saturating_sub(calls * MAX_FREED));
                }
            }
            while let Some(reader) = readers.pop() {
                drop(reader);
                cache.forget_sent();
            }
            assert_eq!((cache.evicted.len(), cache.evicted_bytes), (0, 0));
        }
    }

    #[test]
    fn only_a_literal_key_is_found_without_parsing() {
        let mut cache = cache(10);
        let cases: [(&[u8], bool); 7] = [
            (b"a/b.html", true),
            (b"", true),
            (b"\xc3\xa9", true),
            (b".dotfile", true),
            (b"a%20b", false),
            (b"a?b", false),
            (b"a#b", false),
        ];
        for (key, literal) in cases {
            insert(&mut cache, key);
            assert!(has(&mut cache, key));
            assert_eq!(cache.fresh_unparsed(key, Instant::ZERO).is_some(), literal, "{key:?}");
        }
        assert!(cache.fresh_unparsed(b"", Instant::from_millis(1000)).is_none());
    }

    #[test]
    fn what_was_hit_stays_longer() {
        let mut cache = cache(3);
        for key in [b"a", b"b", b"c"] {
            assert_eq!(insert(&mut cache, key), 0);
        }
        assert!(has(&mut cache, b"a"));
        assert!(has(&mut cache, b"c"));
        assert_eq!(insert(&mut cache, b"d"), 1);
        check(&cache);
        assert!(!has(&mut cache, b"b"));
        for key in [b"a", b"c", b"d"] {
            assert!(has(&mut cache, key));
        }
    }

    #[test]
    fn the_limit_holds_however_much_is_inserted_and_removed() {
        let mut cache = cache(10);
        for number in 0..1000_u32 {
            let key = [(number * 7 % 37) as u8];
            insert(&mut cache, &key);
            check(&cache);
            has(&mut cache, &[(number % 11) as u8]);
            if number % 5 == 0 {
                cache.remove(&[(number % 37) as u8]);
                check(&cache);
            }
        }
        assert!(!cache.entries.is_empty());
    }

    #[test]
    fn what_may_be_held_is_what_can_be_cached() {
        let large = WHOLE_LIMIT + 1;
        for (length, cost) in [
            (0, 0),
            (WHOLE_LIMIT, 3 * WHOLE_LIMIT),
            (large, large),
            (1 << 20, 1 << 20),
        ] {
            for (room, fits) in [(ENTRY_OVERHEAD + 2 + cost, true), (ENTRY_OVERHEAD + 1 + cost, false)] {
                let mut cache = Cache::new(room, SECOND);
                assert_eq!(
                    cache.may_hold(b"ab", length as u64),
                    fits,
                    "{length} bytes, room for {room}"
                );
                let content = Prepared::in_memory(Bytes::from(vec![0; length]), |content| {
                    Representation::of_file(b"ab", &stamp(0), EntityTag::fixed("a"), content, 0)
                });
                cache.insert(b"ab", content, Some(stamp(0)), Instant::ZERO);
                assert_eq!(has(&mut cache, b"ab"), fits, "{length} bytes, room for {room}");
            }
        }
        assert!(!Cache::new(1 << 20, SECOND).may_hold(b"a", u64::MAX));
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_cached() {
        let mut cache = Cache::new(SIZE, SECOND);
        assert_eq!(insert(&mut cache, b"a"), 0);
        assert!(!has(&mut cache, b"a"));
        check(&cache);
    }
}
