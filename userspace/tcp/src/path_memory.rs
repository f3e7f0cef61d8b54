//! What finished connections have learned of their paths, for the next ones to the same peers (RFC 9040).
//!
//! A path is known by the peer's whole address, as in Linux, IPv6 as well: hosts of one prefix may be behind different
//! links, and what one of them can have remembered must say nothing of another. Only the close of a connection whose
//! peer has acknowledged more than an initial window enters anything, so an address that did not answer for a round
//! trip of data, a forged one above all, has no part in it. Where the entries that an address may have are all of
//! others, the one that was entered first gives way: whoever has many addresses and sends as much to each can have
//! others forgotten, and nothing else.

use core::time::Duration;

use tidegate_abi::siphash::Key;

use crate::congestion::MAX_WINDOW;
use crate::time::Instant;
use crate::wire::address::{Address, address_hash};

/// Entries that an address may have, side by side.
const WAYS: usize = 4;

/// Bytes that a peer must have acknowledged on a connection that is remembered: more than the initial window of
/// segments for Ethernet (RFC 6928), so that some of it was sent upon an acknowledgment.
pub(crate) const MIN_ACKED: u64 = 16 << 10;

/// What one connection has learned, or what is to be assumed of the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    /// Smoothed round-trip time in microseconds; not 0.
    pub(crate) srtt: u32,
    /// Its variance in microseconds.
    pub(crate) rttvar: u32,
    /// Slow start threshold in bytes; 0: the path has shown none.
    pub(crate) ssthresh: u32,
    /// By how much a segment was seen to be overtaken, in microseconds; 0: none was.
    pub(crate) reordering: u32,
}

/// An address with what is known of the path to it: 40 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address: Address,
    path: Path,
    /// The second of the engine's clock in which it was entered or changed, and that in which reordering was seen.
    entered: u32,
    reordered: u32,
}

/// No peer's address.
const UNUSED: Address = [0; 16];

impl Entry {
    const NONE: Self = Self {
        address: UNUSED,
        path: Path {
            srtt: 0,
            rttvar: 0,
            ssthresh: 0,
            reordering: 0,
        },
        entered: 0,
        reordered: 0,
    };
}

/// The paths that an engine remembers.
pub(crate) struct PathMemory {
    /// Empty until something is entered.
    entries: Box<[Entry]>,
    capacity: usize,
    key: Key,
}

fn seconds(now: Instant) -> u32 {
    now.as_secs() as u32
}

/// Whether what was entered in this second is no older than `age` at `now`, which may be a little earlier.
fn is_fresh(entered: u32, now: u32, age: Duration) -> bool {
    (now.wrapping_sub(entered) as i32).max(0) as u64 <= age.as_secs()
}

/// A quantity that is remembered as `old` and was measured as `new`: the larger counts at once, the smaller an eighth
/// each time, so that the timeout is rather too long than too short. As in Linux.
fn blend(old: u32, new: u32) -> u32 {
    if new >= old { new } else { old - (old - new) / 8 }
}

impl PathMemory {
    /// For `capacity` paths, rounded up to a power of two; 0: none.
    pub(crate) fn new(capacity: u32, key: Key) -> Self {
        Self {
            entries: Box::default(),
            capacity: match capacity as usize {
                0 => 0,
                wanted => wanted.next_power_of_two().max(WAYS),
            },
            key,
        }
    }

    /// The first of the entries that an address may have.
    fn first(&self, address: &Address) -> usize {
        address_hash(address, self.key) as usize & (self.entries.len() - 1) & !(WAYS - 1)
    }

    /// What is known of the path to `address`, if it was entered at most `age` ago.
    pub(crate) fn recall(&self, address: &Address, now: Instant, age: Duration) -> Option<Path> {
        if self.entries.is_empty() {
            return None;
        }
        let (first, now) = (self.first(address), seconds(now));
        let entry = self.entries[first..first + WAYS]
            .iter()
            .find(|entry| entry.address == *address)
            .filter(|entry| is_fresh(entry.entered, now, age))?;
        let mut path = entry.path;
        if !is_fresh(entry.reordered, now, age) {
            path.reordering = 0;
        }
        Some(path)
    }

    /// A connection to `address` has ended, having learned `path`.
    pub(crate) fn learn(&mut self, address: &Address, path: Path, now: Instant, age: Duration) {
        if self.capacity == 0 || path.srtt == 0 {
            return;
        }
        if self.entries.is_empty() {
            self.entries = vec![Entry::NONE; self.capacity].into_boxed_slice();
        }
        let before = self.recall(address, now, age);
        let first = self.first(address);
        let now = seconds(now);
        let ways = &mut self.entries[first..first + WAYS];
        let way = ways.iter().position(|entry| entry.address == *address).or_else(|| {
            // One that was never used is as old as can be.
            let age = |entry: &Entry| {
                if entry.address == UNUSED {
                    u32::MAX
                } else {
                    now.wrapping_sub(entry.entered)
                }
            };
            (0..WAYS).max_by_key(|&way| age(&ways[way]))
        });
        let Some(way) = way else { return };
        let reordered = if path.reordering > 0 { now } else { ways[way].reordered };
        let path = match before {
            Some(before) => Path {
                srtt: blend(before.srtt, path.srtt),
                rttvar: blend(before.rttvar, path.rttvar),
                ssthresh: match (before.ssthresh, path.ssthresh) {
                    (0, new) => new,
                    (old, 0) => old,
                    (old, new) => old / 2 + new / 2,
                },
                reordering: before.reordering.max(path.reordering),
            },
            None => path,
        };
        ways[way] = Entry {
            address: *address,
            path: Path {
                ssthresh: path.ssthresh.min(MAX_WINDOW),
                ..path
            },
            entered: now,
            reordered,
        };
    }

    /// The number of paths there is room for.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::address::from_ip;

    const AGE: Duration = Duration::from_secs(3600);
    const KEY: Key = Key(1, 2);

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    fn address(text: &str) -> Address {
        from_ip(text.parse().unwrap())
    }

    fn path(srtt: u32) -> Path {
        Path {
            srtt,
            rttvar: srtt / 4,
            ..Path::default()
        }
    }

    fn memory() -> PathMemory {
        PathMemory::new(64, KEY)
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 40);
    }

    #[test]
    fn what_was_entered_is_known_of_that_address_alone() {
        let mut memory = memory();
        for text in ["198.18.0.2", "2001:2::2"] {
            memory.learn(&address(text), path(50_000), at(10), AGE);
            assert_eq!(memory.recall(&address(text), at(20), AGE), Some(path(50_000)));
        }
        for text in ["198.18.0.3", "2001:2::3", "::198.18.0.2"] {
            assert_eq!(memory.recall(&address(text), at(20), AGE), None, "{text}");
        }
    }

    #[test]
    fn it_is_forgotten_when_it_is_too_old() {
        let mut memory = memory();
        let peer = address("198.18.0.2");
        memory.learn(&peer, path(50_000), at(10), AGE);
        assert!(memory.recall(&peer, at(3610), AGE).is_some());
        assert_eq!(memory.recall(&peer, at(3611), AGE), None);
        // And has no part in what is entered then.
        memory.learn(&peer, path(1_000), at(4000), AGE);
        assert_eq!(memory.recall(&peer, at(4000), AGE), Some(path(1_000)));
    }

    #[test]
    fn a_longer_round_trip_counts_at_once_and_a_shorter_one_by_and_by() {
        let mut memory = memory();
        let peer = address("198.18.0.2");
        memory.learn(&peer, path(40_000), at(1), AGE);
        memory.learn(&peer, path(80_000), at(2), AGE);
        assert_eq!(memory.recall(&peer, at(2), AGE).unwrap().srtt, 80_000);
        memory.learn(&peer, path(40_000), at(3), AGE);
        assert_eq!(memory.recall(&peer, at(3), AGE).unwrap().srtt, 75_000);
    }

    #[test]
    fn a_threshold_is_kept_and_met_half_way() {
        let mut memory = memory();
        let peer = address("198.18.0.2");
        for (learned, known) in [
            (0, 0),
            (40_000, 40_000),
            (0, 40_000),
            (20_000, 30_000),
            (u32::MAX, 536_885_912),
        ] {
            let learned = Path {
                ssthresh: learned.min(MAX_WINDOW),
                ..path(40_000)
            };
            memory.learn(&peer, learned, at(1), AGE);
            assert_eq!(memory.recall(&peer, at(1), AGE).unwrap().ssthresh, known);
        }
    }

    #[test]
    fn reordering_is_forgotten_when_no_connection_has_seen_any_for_long() {
        let mut memory = memory();
        let peer = address("198.18.0.2");
        let reordering = Path {
            reordering: 700,
            ..path(40_000)
        };
        memory.learn(&peer, reordering, at(1), AGE);
        for second in [2000, 3600] {
            memory.learn(&peer, path(40_000), at(second), AGE);
            assert_eq!(memory.recall(&peer, at(second), AGE).unwrap().reordering, 700);
        }
        assert_eq!(memory.recall(&peer, at(3602), AGE).unwrap().reordering, 0);
    }

    #[test]
    fn without_room_or_a_round_trip_time_nothing_is_kept() {
        let mut memory = PathMemory::new(0, KEY);
        let peer = address("198.18.0.2");
        memory.learn(&peer, path(40_000), at(1), AGE);
        assert_eq!(memory.recall(&peer, at(1), AGE), None);
        let mut memory = self::memory();
        memory.learn(&peer, path(0), at(1), AGE);
        assert_eq!(memory.recall(&peer, at(1), AGE), None);
        assert!(memory.entries.is_empty(), "no memory is taken for nothing");
    }

    #[test]
    fn it_has_room_for_no_more_than_it_says_and_the_oldest_gives_way() {
        let mut memory = PathMemory::new(5, KEY);
        assert_eq!(memory.capacity(), 8);
        let peers: Vec<Address> = (0..1000).map(|host| address(&format!("2001:2::{host:x}"))).collect();
        for (second, peer) in (1..).zip(&peers) {
            memory.learn(peer, path(40_000), at(second), AGE);
            assert!(
                memory.recall(peer, at(second), AGE).is_some(),
                "the newest is always there"
            );
        }
        assert_eq!(memory.entries.len(), 8);
        let known = |peer: &&Address| memory.recall(peer, at(1000), AGE).is_some();
        assert_eq!(peers.iter().filter(known).count(), 8);
        assert_eq!(peers[900..].iter().filter(known).count(), 8);
    }

    #[test]
    fn the_clock_may_wrap() {
        let mut memory = memory();
        let peer = address("198.18.0.2");
        let before = at(u64::from(u32::MAX));
        memory.learn(&peer, path(40_000), before, AGE);
        assert!(memory.recall(&peer, before + Duration::from_secs(3600), AGE).is_some());
        assert!(memory.recall(&peer, before + Duration::from_secs(3601), AGE).is_none());
    }
}
