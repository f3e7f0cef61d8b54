//! Connections by source: how many each prefix holds and begins, and which of them gives way when there is no room.
//!
//! Every connection that a listener accepted is in one of two kinds of lists. While its peer has made no complete
//! request it is in that of all such connections, oldest first; from then on in that of its source. Nothing here is
//! found by a walk: a source by a hash of its prefix and a look at eight entries, the source that holds most by lists
//! of sources that hold about as many, the rest by links.
//!
//! The table of sources has a fixed size. Where the eight entries a prefix may have are all of others, one without
//! connections gives way, that with the most of its account first; if all have connections, the prefix shares the entry
//! with the fewest, and its limits.

use tidegate_abi::siphash::Key;

use crate::chunks::{Advice, Column};
use crate::counters::Counter;
use crate::time::Instant;
use crate::wire::address::{Address, is_v4, table_hash_v4, v4_octets};

const NONE: u32 = u32::MAX;

/// Entries that a prefix may have, side by side.
const WAYS: usize = 8;

/// The prefix of an entry that was never used: no source's, since it would be one of multicast.
const UNUSED: u64 = u64::MAX;

/// Marks the links of a connection that is in the list of its source.
const SERVED: u32 = 1 << 31;

/// Numbers of connections that are told apart, each up to 16 and an eighth apart beyond.
const RANKS: usize = 256;

/// Limits of connections by the prefix they come from, of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLimits {
    /// Connections that a source may have open; 0: no limit.
    pub max_connections: u32,
    /// Handshakes that a source may complete in a second; 0: no limit.
    pub connection_rate: u32,
    /// Handshakes it may complete at once after a pause (1 or more).
    pub connection_burst: u32,
    /// Bits of an IPv4 address that make a source (0 to 32).
    pub prefix_v4: u32,
    /// Bits of an IPv6 address that make a source (0 to 64).
    pub prefix_v6: u32,
    /// Sources that are told apart, rounded up to a power of two (8 to 2^24).
    pub remembered: u32,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            max_connections: 0,
            connection_rate: 0,
            connection_burst: 256,
            prefix_v4: 32,
            prefix_v6: 64,
            remembered: 1 << 16,
        }
    }
}

impl SourceLimits {
    /// The number that stands for the source of `address`.
    #[inline]
    fn prefix(&self, address: &Address) -> u64 {
        let kept = |bits: u32, of: u32| if bits == 0 { 0 } else { u64::MAX << (of - bits.min(of)) };
        if is_v4(address) {
            // Where an IPv6 prefix would be multicast.
            let octets = u32::from_be_bytes(v4_octets(address));
            0xff << 56 | u64::from(octets) & kept(self.prefix_v4, 32)
        } else {
            (u128::from_be_bytes(*address) >> 64) as u64 & kept(self.prefix_v6, 64)
        }
    }
}

/// The entry of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceId(u32);

/// A list of what has links, by their numbers.
#[derive(Clone, Copy)]
struct List {
    oldest: u32,
    newest: u32,
}

impl List {
    const EMPTY: Self = Self {
        oldest: NONE,
        newest: NONE,
    };

    /// The links of an item that is added as the newest.
    #[inline]
    fn links_of_next(&self) -> Links {
        Links {
            previous: self.newest,
            next: NONE,
        }
    }
}

/// The neighbours in a list.
#[derive(Clone, Copy)]
struct Links {
    previous: u32,
    next: u32,
}

/// What is in lists.
trait Linked {
    /// The links of the item with a number.
    fn links(&mut self, index: u32) -> &mut Links;
}

#[inline]
fn append(items: &mut impl Linked, list: &mut List, index: u32) {
    *items.links(index) = list.links_of_next();
    add(items, list, index);
}

/// Adds an item whose links are [`List::links_of_next`] already.
#[inline]
fn add(items: &mut impl Linked, list: &mut List, index: u32) {
    match list.newest {
        NONE => list.oldest = index,
        newest => items.links(newest).next = index,
    }
    list.newest = index;
}

#[inline]
fn unlink(items: &mut impl Linked, list: &mut List, index: u32) {
    let links = *items.links(index);
    close_gap(items, list, links);
}

/// Takes the item with these links, which are of no use any more, out of its list.
#[inline]
fn close_gap(items: &mut impl Linked, list: &mut List, Links { previous, next }: Links) {
    match previous {
        NONE => list.oldest = next,
        previous => items.links(previous).next = next,
    }
    match next {
        NONE => list.newest = previous,
        next => items.links(next).previous = previous,
    }
}

struct Source {
    /// The time up to which the handshakes it has completed are paid for, in nanoseconds (the generic cell rate
    /// algorithm).
    paid_until: u64,
    /// Connections it has open.
    open: u32,
    /// Those whose peer has made a complete request.
    served: List,
    /// Among the sources that hold about as many.
    links: Links,
}

impl Linked for Vec<Source> {
    fn links(&mut self, index: u32) -> &mut Links {
        &mut self[index as usize].links
    }
}

/// The first of a list, which becomes the last.
fn look_at(places: &mut Column<Place>, list: &mut List) -> Option<u32> {
    let slot = list.oldest;
    if slot == NONE {
        return None;
    }
    if list.newest != slot {
        unlink(places, list, slot);
        append(places, list, slot);
    }
    Some(slot)
}

/// The place of a connection in its list.
#[derive(Clone, Copy)]
struct Place {
    links: Links,
    /// The number of its source, with [`SERVED`]; [`NONE`]: it is in no list.
    source: u32,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            links: Links {
                previous: NONE,
                next: NONE,
            },
            source: NONE,
        }
    }
}

impl Linked for Column<Place> {
    fn links(&mut self, index: u32) -> &mut Links {
        &mut self.at(index).links
    }
}

/// The most sources whose memory is given back: making it anew takes a millisecond.
const MAX_GIVEN_BACK: u32 = 65_536;

/// All sources of an engine and the lists of their connections.
pub(crate) struct SourceTable {
    limits: SourceLimits,
    key: Key,
    /// The prefixes of the sources, which are looked through. Empty until the first connection comes.
    prefixes: Vec<u64>,
    sources: Vec<Source>,
    /// By the number of the connection.
    places: Column<Place>,
    /// Connections without a complete request, of all sources.
    waiting: List,
    /// Sources by how many connections they hold.
    ranks: Box<[List; RANKS]>,
    /// A bit for each rank that has sources.
    ranked: [u64; RANKS / 64],
}

fn nanoseconds(now: Instant) -> u64 {
    now.as_micros().saturating_mul(1000)
}

/// The rank of a source with `open` connections; 0 if it has none.
fn rank(open: u32) -> usize {
    if open < 16 {
        return open as usize;
    }
    let bits = open.ilog2();
    ((bits as usize - 2) << 3) + (open >> (bits - 3) & 7) as usize
}

/// Whether `rank(a) == rank(b)`.
#[inline]
fn is_of_rank(a: u32, b: u32) -> bool {
    // A rank is told by the highest four bits; below 16 there are no others.
    (a ^ b) >> ((a | 8).ilog2() - 3) == 0
}

impl SourceTable {
    pub(crate) fn new(limits: SourceLimits, key: Key) -> Self {
        Self {
            limits,
            key,
            prefixes: Vec::new(),
            sources: Vec::new(),
            places: Column::default(),
            waiting: List::EMPTY,
            ranks: Box::new([List::EMPTY; RANKS]),
            ranked: [0; RANKS / 64],
        }
    }

    /// Takes all of `limits` but what a source is and how many are told apart.
    pub(crate) fn change_limits(&mut self, limits: SourceLimits) {
        self.limits = SourceLimits {
            prefix_v4: self.limits.prefix_v4,
            prefix_v6: self.limits.prefix_v6,
            remembered: self.limits.remembered,
            ..limits
        };
    }

    /// The source of a handshake that `address` completed, which is to be charged if it is admitted.
    ///
    /// # Errors
    ///
    /// The counter of the limit it is beyond.
    #[inline]
    pub(crate) fn check(&mut self, now: Instant, address: &Address) -> Result<SourceId, Counter> {
        let id = self.find(self.limits.prefix(address));
        let open = self.sources[id.0 as usize].open;
        if self.limits.max_connections != 0 && open >= self.limits.max_connections {
            return Err(Counter::DropSourceConnections);
        }
        if self.paid(now, id).is_some_and(|paid| paid > nanoseconds(now)) {
            return Err(Counter::DropSourceRate);
        }
        Ok(id)
    }

    /// Takes a handshake from its source's account.
    #[inline]
    pub(crate) fn charge(&mut self, now: Instant, id: SourceId) {
        if let Some(paid) = self.paid(now, id) {
            self.sources[id.0 as usize].paid_until = paid;
        }
    }

    /// The time up to which the handshakes of a source are paid for with one more, if they are limited.
    #[inline]
    fn paid(&self, now: Instant, id: SourceId) -> Option<u64> {
        let cost = 1_000_000_000_u64.checked_div(u64::from(self.limits.connection_rate))?;
        let earliest = nanoseconds(now).saturating_sub(cost * u64::from(self.limits.connection_burst));
        Some(self.sources[id.0 as usize].paid_until.max(earliest) + cost)
    }

    /// The entry of a prefix, made if there is none.
    #[inline]
    fn find(&mut self, prefix: u64) -> SourceId {
        if self.prefixes.is_empty() {
            self.make_entries();
        }
        let first = table_hash_v4([prefix, 0], self.key) as usize & (self.prefixes.len() - 1) & !(WAYS - 1);
        let prefixes = &self.prefixes[first..first + WAYS];
        match prefixes.iter().position(|&known| known == prefix) {
            Some(way) => SourceId((first + way) as u32),
            None => self.make(first, prefix),
        }
    }

    /// Makes the table.
    #[cold]
    fn make_entries(&mut self) {
        let entries = self.entries();
        self.prefixes = vec![UNUSED; entries];
        self.sources.resize_with(entries, || Source {
            paid_until: 0,
            open: 0,
            served: List::EMPTY,
            links: Links {
                previous: NONE,
                next: NONE,
            },
        });
    }

    /// The entry that a prefix gets, or shares, of those from `first` on.
    #[inline(never)]
    fn make(&mut self, first: usize, prefix: u64) -> SourceId {
        let ways = &mut self.sources[first..first + WAYS];
        let least = (0..WAYS).min_by_key(|&way| (ways[way].open, ways[way].paid_until));
        let least = least.unwrap_or(0);
        if ways[least].open == 0 {
            self.prefixes[first + least] = prefix;
            ways[least].paid_until = 0;
        }
        SourceId((first + least) as u32)
    }

    fn entries(&self) -> usize {
        (self.limits.remembered as usize)
            .clamp(WAYS, 1 << 24)
            .next_power_of_two()
    }

    /// A connection of an admitted handshake has the number `slot`; its peer has made no complete request.
    #[inline]
    pub(crate) fn open(&mut self, slot: u32, id: SourceId) {
        *self.places.entry(slot) = Place {
            links: self.waiting.links_of_next(),
            source: id.0,
        };
        add(&mut self.places, &mut self.waiting, slot);
        self.count(id, 1);
    }

    /// The peer of a connection has made its first complete request.
    #[inline]
    pub(crate) fn serve(&mut self, slot: u32) {
        let Some(place) = self.places.get_mut(slot) else {
            return;
        };
        if place.source & SERVED != 0 {
            return;
        }
        let Place { links, source } = *place;
        let served = &mut self.sources[source as usize].served;
        *place = Place {
            links: served.links_of_next(),
            source: source | SERVED,
        };
        close_gap(&mut self.places, &mut self.waiting, links);
        add(&mut self.places, served, slot);
    }

    /// A connection is no more.
    #[inline]
    pub(crate) fn close(&mut self, slot: u32) {
        let Some(place) = self.places.get_mut(slot) else {
            return;
        };
        let Place { links, source } = *place;
        place.source = NONE;
        if source == NONE {
            return;
        }
        let id = SourceId(source & !SERVED);
        if source == id.0 {
            close_gap(&mut self.places, &mut self.waiting, links);
        } else {
            close_gap(&mut self.places, &mut self.sources[id.0 as usize].served, links);
        }
        self.count(id, -1);
    }

    /// A source has one connection more, or less.
    #[inline]
    fn count(&mut self, id: SourceId, change: i32) {
        let source = &mut self.sources[id.0 as usize];
        let before = source.open;
        source.open = before.wrapping_add_signed(change);
        if !is_of_rank(before, source.open) {
            let (from, to) = (rank(before), rank(source.open));
            self.move_source(id, from, to);
        }
    }

    /// A source goes from one rank to another.
    #[inline(never)]
    fn move_source(&mut self, id: SourceId, from: usize, to: usize) {
        if from != 0 {
            unlink(&mut self.sources, &mut self.ranks[from], id.0);
            if self.ranks[from].oldest == NONE {
                self.ranked[from / 64] &= !(1 << (from % 64));
            }
        }
        if to != 0 {
            append(&mut self.sources, &mut self.ranks[to], id.0);
            self.ranked[to / 64] |= 1 << (to % 64);
        }
    }

    /// The connection that was looked at longest ago, or else is the oldest, of those without a complete request. From
    /// now on it was looked at last.
    pub(crate) fn look_at_waiting(&mut self) -> Option<u32> {
        look_at(&mut self.places, &mut self.waiting)
    }

    /// The connections that the source of a connection has open.
    pub(crate) fn held_beside(&self, slot: u32) -> u32 {
        self.places
            .get(slot)
            .map_or(0, |place| self.held_by(SourceId(place.source & !SERVED)))
    }

    /// The source that holds most connections, to within an eighth; of several the one that has held so many for
    /// longest.
    pub(crate) fn largest(&self) -> Option<SourceId> {
        let word = self.ranked.iter().rposition(|&word| word != 0)?;
        let rank = word * 64 + self.ranked[word].ilog2() as usize;
        Some(SourceId(self.ranks[rank].oldest))
    }

    /// The connections a source has open.
    pub(crate) fn held_by(&self, id: SourceId) -> u32 {
        self.sources[id.0 as usize].open
    }

    /// The connection of a source that was looked at longest ago, of those whose peer has made a complete request. From
    /// now on it was looked at last.
    pub(crate) fn look_at_served(&mut self, id: SourceId) -> Option<u32> {
        look_at(&mut self.places, &mut self.sources[id.0 as usize].served)
    }

    /// Bytes of memory that the places of connections take.
    pub(crate) fn places_memory(&self) -> usize {
        self.places.memory()
    }

    /// Bytes of memory that the sources take.
    pub(crate) fn memory(&self) -> usize {
        self.prefixes.capacity() * size_of::<u64>() + self.sources.capacity() * size_of::<Source>()
    }

    /// From now on has `advice` for the memory of further connections.
    pub(crate) fn set_advice(&mut self, advice: Advice) {
        self.places.set_advice(advice);
    }

    /// Gives back the memory of a chunk of numbers, of which none is a connection's.
    pub(crate) fn give_back(&mut self, chunk: u32) {
        self.places.give_back(chunk);
    }

    /// Gives back the memory of the sources, now that there are no connections, unless something has to be kept of
    /// them, what they have left of their rate, or it would take the next connection long to make it anew.
    pub(crate) fn give_back_sources(&mut self) {
        if self.limits.connection_rate == 0 && self.limits.remembered <= MAX_GIVEN_BACK {
            self.prefixes = Vec::new();
            self.sources = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::address::from_v4;
    use proptest::prelude::*;

    const NOW: Instant = Instant::from_millis(1_000_000);

    fn table(remembered: u32) -> SourceTable {
        let limits = SourceLimits {
            remembered,
            ..SourceLimits::default()
        };
        SourceTable::new(limits, Key(5, 6))
    }

    #[test]
    fn ranks_rise_with_the_number_and_are_an_eighth_apart() {
        let mut last = (0, 0);
        for open in (0..5000).chain((13..29).flat_map(|bits| [(1 << bits) - 1, 1 << bits])) {
            let rank = rank(open);
            assert!(rank >= last.1 && rank < RANKS, "{open}");
            if rank == last.1 {
                assert!(open - last.0 <= last.0 / 8, "{open} is like {}", last.0);
            } else {
                last = (open, rank);
            }
            for next in [open, open + 1] {
                assert_eq!(is_of_rank(open, next), rank == super::rank(next), "{open}, {next}");
                assert_eq!(is_of_rank(next, open), rank == super::rank(next), "{next}, {open}");
            }
        }
    }

    #[test]
    fn a_source_without_connections_gives_up_its_entry_the_fullest_account_first() {
        let mut table = table(8);
        table.limits.connection_rate = 1;
        let address = |host| from_v4([198, 18, 0, host]);
        let ids: Vec<SourceId> = (1..=8)
            .map(|host| {
                let id = table.check(NOW, &address(host)).expect("a full account");
                table.charge(NOW, id);
                id
            })
            .collect();
        table.open(0, ids[0]);
        // The second has the fullest account from here on, but for the first, which has a connection.
        for id in &ids[2..] {
            table.sources[id.0 as usize].paid_until += 1;
        }
        assert_eq!(table.check(NOW, &address(9)), Ok(ids[1]));
        assert_eq!(table.sources[ids[0].0 as usize].open, 1);
    }

    proptest! {
        #[test]
        fn lists_and_counts_are_those_of_the_connections(
            steps in proptest::collection::vec((0..4_u8, 0..64_u32, 1..6_u8), 1..400),
        ) {
            let mut table = table(64);
            // Number, source, and whether it was served, in the order in which they came.
            let mut model: Vec<(u32, SourceId, bool)> = Vec::new();
            for (step, slot, host) in steps {
                let known = model.iter().position(|&(number, ..)| number == slot);
                match (step, known) {
                    (0..2, None) => {
                        // Some hold many more than others.
                        let source = table.check(NOW, &from_v4([198, 18, 0, host.min(3)])).expect("no limit");
                        table.open(slot, source);
                        model.push((slot, source, false));
                    }
                    (2, Some(place)) => {
                        table.serve(slot);
                        model[place].2 = true;
                    }
                    _ => {
                        table.close(slot);
                        model.retain(|&(number, ..)| number != slot);
                    }
                }
                let waiting = model.iter().position(|(.., served)| !served);
                prop_assert_eq!(table.look_at_waiting(), waiting.map(|place| model[place].0));
                if let Some(place) = waiting {
                    let looked_at = model.remove(place);
                    prop_assert_eq!(table.held_beside(looked_at.0), table.held_by(looked_at.1));
                    model.push(looked_at);
                }
                let held = |id| model.iter().filter(|&&(_, source, _)| source == id).count();
                let most = model.iter().map(|&(_, id, _)| held(id)).max();
                let largest = table.largest();
                prop_assert_eq!(largest.is_some(), most.is_some());
                if let (Some(id), Some(most)) = (largest, most) {
                    prop_assert_eq!(table.held_by(id) as usize, held(id));
                    prop_assert!(held(id) * 8 >= most * 7);
                    let served = model.iter().filter(|&&(_, source, served)| source == id && served).count();
                    let looked: Vec<u32> = (0..served).filter_map(|_| table.look_at_served(id)).collect();
                    let mut different = looked.clone();
                    different.sort_unstable();
                    different.dedup();
                    prop_assert_eq!((looked.len(), different.len()), (served, served));
                }
            }
        }
    }
}
