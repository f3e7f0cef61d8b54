//! Files kept in memory, bounded in bytes.
//!
//! What gives way is chosen by the clock algorithm: a hit sets a bit, and the hand that looks for a victim passes over
//! the entries with the bit set once, clearing it. It is close to least-recently-used without moving anything at a hit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_tcp::time::Instant;

use super::files::Stamp;
use super::representation::Representation;

/// What an entry costs besides its content and its key: about the size of its parts, so that empty files are bounded.
const ENTRY_OVERHEAD: usize = 768;

/// Representations by their path.
pub(super) struct Cache {
    limit: usize,
    used: usize,
    index: HashMap<Arc<[u8]>, usize>,
    entries: Vec<Entry>,
    hand: usize,
}

struct Entry {
    key: Arc<[u8]>,
    representation: Arc<Representation>,
    stamp: Stamp,
    /// When it was last compared with the file.
    checked: Instant,
    referenced: bool,
    charge: usize,
}

impl Cache {
    /// A cache for at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: 0,
            index: HashMap::new(),
            entries: Vec::new(),
            hand: 0,
        }
    }

    /// What is cached for `key`, if it was compared with its file less than `max_age` ago.
    pub(super) fn fresh(&mut self, key: &[u8], now: Instant, max_age: Duration) -> Option<Arc<Representation>> {
        let entry = &mut self.entries[*self.index.get(key)?];
        if now.since(entry.checked) >= max_age {
            return None;
        }
        entry.referenced = true;
        Some(Arc::clone(&entry.representation))
    }

    /// What is cached for `key`, if its file still has the stamp it had; forgotten otherwise.
    pub(super) fn revalidate(&mut self, key: &[u8], stamp: &Stamp, now: Instant) -> Option<Arc<Representation>> {
        let entry = &mut self.entries[*self.index.get(key)?];
        if entry.stamp == *stamp {
            entry.checked = now;
            entry.referenced = true;
            return Some(Arc::clone(&entry.representation));
        }
        self.remove(key);
        None
    }

    /// Forgets what is cached for `key`.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some(&slot) = self.index.get(key) {
            self.remove_slot(slot);
        }
    }

    /// Caches `representation`, whose content is `size` bytes; returns how many entries gave way. Something larger
    /// than the whole cache is not cached.
    pub(super) fn insert(
        &mut self,
        key: &[u8],
        representation: Arc<Representation>,
        stamp: Stamp,
        size: usize,
        now: Instant,
    ) -> u64 {
        self.remove(key);
        let charge = size.saturating_add(key.len()).saturating_add(ENTRY_OVERHEAD);
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
            key,
            representation,
            stamp,
            checked: now,
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
        if let Some(moved) = self.entries.get(slot)
            && let Some(position) = self.index.get_mut(&moved.key)
        {
            *position = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::representation::Content;
    use super::*;

    const SIZE: usize = 1000;
    const SECOND: Duration = Duration::from_secs(1);

    fn stamp(modified: i64) -> Stamp {
        Stamp {
            device: 0,
            inode: 0,
            length: SIZE as u64,
            modified,
            modified_nanos: 0,
        }
    }

    fn representation() -> Arc<Representation> {
        let content = Content::Memory(Bytes::from(vec![0; SIZE]));
        Arc::new(Representation::of_file(b"a", &stamp(0), content, 0))
    }

    /// A cache with room for `entries` entries of one-byte keys.
    fn cache(entries: usize) -> Cache {
        Cache::new(entries * (SIZE + 1 + ENTRY_OVERHEAD))
    }

    fn insert(cache: &mut Cache, key: &[u8]) -> u64 {
        cache.insert(key, representation(), stamp(0), SIZE, Instant::ZERO)
    }

    fn has(cache: &mut Cache, key: &[u8]) -> bool {
        cache.fresh(key, Instant::ZERO, SECOND).is_some()
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
        assert!(cache.fresh(b"a", Instant::from_millis(999), SECOND).is_some());
        assert!(cache.fresh(b"a", Instant::from_millis(1000), SECOND).is_none());
        assert!(cache.revalidate(b"a", &stamp(0), Instant::from_millis(1000)).is_some());
        assert!(cache.fresh(b"a", Instant::from_millis(1999), SECOND).is_some());
        assert!(cache.revalidate(b"a", &stamp(1), Instant::from_millis(2000)).is_none());
        assert!(cache.entries.is_empty());
        check(&cache);
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
    fn what_is_larger_than_the_cache_is_not_cached() {
        let mut cache = Cache::new(SIZE);
        assert_eq!(insert(&mut cache, b"a"), 0);
        assert!(!has(&mut cache, b"a"));
        check(&cache);
    }
}
