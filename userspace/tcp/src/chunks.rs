//! Memory by slot, in chunks that come and go: [`ChunkedSlab`] has records, [`Column`] what is kept beside them.
//!
//! A vector that doubles would copy all of its records in one call, and keep its size for as long as one is left. A
//! chunk is made when a record needs it, none is ever moved, and one without records goes back by itself.

use core::ops::{Index, IndexMut};
use std::collections::VecDeque;
use std::sync::Arc;

const NONE: u32 = u32::MAX;

/// Slots of a chunk, as a power of two. In tests few, so that small tables have several.
const CHUNK_BITS: u32 = if cfg!(test) { 4 } else { 13 };

/// A slab that never had more records than this keeps its chunk when it has none.
const KEPT: usize = if cfg!(test) { 8 } else { 1024 };

/// Slots of a chunk.
pub(crate) const CHUNK: usize = 1 << CHUNK_BITS;

#[inline]
fn chunk_of(slot: u32) -> usize {
    (slot >> CHUNK_BITS) as usize
}

#[inline]
fn place_of(slot: u32) -> usize {
    slot as usize & (CHUNK - 1)
}

/// The host's part in the memory of an engine's tables.
pub trait MemoryAdvisor: Send + Sync {
    /// `length` bytes from `address` on, which the engine owns and has not written yet, are to become a chunk of a
    /// table. They are read and written in random order, and given back all at once.
    fn allocated(&self, address: usize, length: usize);
}

/// Somebody who is told of chunks, or nobody.
#[derive(Clone, Default)]
pub(crate) struct Advice(Option<Arc<dyn MemoryAdvisor>>);

impl Advice {
    pub(crate) fn new(advisor: Arc<dyn MemoryAdvisor>) -> Self {
        Self(Some(advisor))
    }

    fn tell_of<T>(&self, chunk: &Vec<T>) {
        if let Some(advisor) = &self.0 {
            advisor.allocated(chunk.as_ptr().addr(), chunk.capacity() * size_of::<T>());
        }
    }
}

/// A set of numbers, of which the lowest is found by looking at a word for each 4,096.
#[derive(Default)]
struct BitSet {
    words: Vec<u64>,
    /// A bit for each word that is not zero.
    summary: Vec<u64>,
}

impl BitSet {
    fn insert(&mut self, number: usize) {
        let word = number / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
            self.summary.resize(word / 64 + 1, 0);
        }
        self.words[word] |= 1 << (number % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    fn remove(&mut self, number: usize) {
        let word = number / 64;
        let Some(bits) = self.words.get_mut(word) else { return };
        *bits &= !(1 << (number % 64));
        if *bits == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
    }

    fn first(&self) -> Option<usize> {
        let summary = self.summary.iter().position(|&bits| bits != 0)?;
        let word = summary * 64 + self.summary[summary].trailing_zeros() as usize;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }
}

enum Slot<T> {
    /// The next free place of the chunk, or [`NONE`].
    Free(u32),
    Used(T),
}

struct Chunk<T> {
    /// With room for [`CHUNK`] of them, or none at all. Those that were never used are not in it, so that their memory
    /// is not touched.
    slots: Vec<Slot<T>>,
    /// The first free place, or [`NONE`].
    free: u32,
    used: u32,
    /// It is among those that are to be looked at because they have become empty.
    is_listed: bool,
}

impl<T> Chunk<T> {
    const ABSENT: Self = Self {
        slots: Vec::new(),
        free: NONE,
        used: 0,
        is_listed: false,
    };

    fn is_present(&self) -> bool {
        self.slots.capacity() > 0
    }
}

/// Records in slots: O(1) to add one, in the lowest chunk that has room, to find it and to take it out.
pub(crate) struct ChunkedSlab<T> {
    chunks: Vec<Chunk<T>>,
    length: u32,
    /// The chunk that the next record comes into, or [`NONE`] if no chunk has room.
    filling: u32,
    /// Chunks that have room, and those that are absent.
    roomy: BitSet,
    absent: BitSet,
    present: usize,
    /// Chunks that have become empty, and may have got records since.
    emptied: Vec<u32>,
    /// Present chunks without records.
    empty: u32,
    advice: Advice,
}

impl<T> Default for ChunkedSlab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            length: 0,
            filling: NONE,
            roomy: BitSet::default(),
            absent: BitSet::default(),
            present: 0,
            emptied: Vec::new(),
            empty: 0,
            advice: Advice::default(),
        }
    }
}

impl<T> ChunkedSlab<T> {
    /// From now on has `advice` for new chunks.
    pub(crate) fn set_advice(&mut self, advice: Advice) {
        self.advice = advice;
    }

    /// Records held.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.length
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Slots that there may be records in: those from here on have none.
    pub(crate) fn slots(&self) -> u32 {
        let last = self.chunks.last().map_or(CHUNK, |chunk| chunk.slots.len());
        ((self.chunks.len() << CHUNK_BITS) + last - CHUNK) as u32
    }

    /// Bytes of memory that the chunks take.
    pub(crate) fn memory(&self) -> usize {
        self.present * CHUNK * size_of::<Slot<T>>() + self.chunks.capacity() * size_of::<Chunk<T>>()
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        match self.chunks.get(chunk_of(slot))?.slots.get(place_of(slot))? {
            Slot::Used(record) => Some(record),
            Slot::Free(_) => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        match self.chunks.get_mut(chunk_of(slot))?.slots.get_mut(place_of(slot))? {
            Slot::Used(record) => Some(record),
            Slot::Free(_) => None,
        }
    }

    /// Adds a record and returns its slot.
    #[inline]
    pub(crate) fn insert(&mut self, record: T) -> u32 {
        if self.filling == NONE {
            self.filling = self.add_chunk();
        }
        let number = self.filling;
        let chunk = &mut self.chunks[number as usize];
        if chunk.used == 0 {
            self.empty -= 1;
        }
        chunk.used += 1;
        self.length += 1;
        let place = chunk.free;
        let place = if place == NONE {
            chunk.slots.push(Slot::Used(record));
            chunk.slots.len() as u32 - 1
        } else {
            let slot = &mut chunk.slots[place as usize];
            if let Slot::Free(next) = *slot {
                chunk.free = next;
            }
            *slot = Slot::Used(record);
            place
        };
        if chunk.used == CHUNK as u32 {
            self.filled(number);
        }
        number << CHUNK_BITS | place
    }

    /// A chunk has no room any more.
    #[cold]
    fn filled(&mut self, number: u32) {
        self.roomy.remove(number as usize);
        self.filling = self.roomy.first().map_or(NONE, |number| number as u32);
    }

    /// Makes a chunk, the lowest that is absent.
    #[cold]
    fn add_chunk(&mut self) -> u32 {
        let number = self.absent.first().unwrap_or(self.chunks.len());
        if number == self.chunks.len() {
            self.chunks.push(Chunk::ABSENT);
        }
        self.absent.remove(number);
        self.roomy.insert(number);
        let slots = Vec::with_capacity(CHUNK);
        self.advice.tell_of(&slots);
        self.chunks[number].slots = slots;
        self.present += 1;
        self.empty += 1;
        number as u32
    }

    /// Takes a record out and drops it where it is; false if there is none.
    #[inline]
    pub(crate) fn remove(&mut self, slot: u32) -> bool {
        let number = chunk_of(slot);
        let Some(chunk) = self.chunks.get_mut(number) else {
            return false;
        };
        match chunk.slots.get_mut(place_of(slot)) {
            Some(place @ Slot::Used(_)) => *place = Slot::Free(chunk.free),
            _ => return false,
        }
        self.freed(slot);
        true
    }

    /// Takes a record out.
    #[inline]
    pub(crate) fn take(&mut self, slot: u32) -> Option<T> {
        let chunk = self.chunks.get_mut(chunk_of(slot))?;
        let place = chunk
            .slots
            .get_mut(place_of(slot))
            .filter(|place| matches!(place, Slot::Used(_)))?;
        let Slot::Used(record) = core::mem::replace(place, Slot::Free(chunk.free)) else {
            return None;
        };
        self.freed(slot);
        Some(record)
    }

    /// A slot refers to the free one that was the first of its chunk, and is to be that from now on.
    #[inline]
    fn freed(&mut self, slot: u32) {
        let number = chunk_of(slot);
        let chunk = &mut self.chunks[number];
        chunk.free = place_of(slot) as u32;
        chunk.used -= 1;
        self.length -= 1;
        if chunk.used == CHUNK as u32 - 1 {
            self.roomy.insert(number);
        }
        if chunk.used == 0 {
            self.empty += 1;
            self.list(number as u32);
        }
        // NONE is the largest.
        self.filling = self.filling.min(number as u32);
    }

    /// Whether a chunk without records is kept for those to come.
    fn is_kept(&self, chunk: &Chunk<T>) -> bool {
        self.empty == 1 && (self.length > 0 || chunk.slots.len() <= KEPT)
    }

    /// Lists an empty chunk, if its memory is to go back.
    #[cold]
    fn list(&mut self, number: u32) {
        let chunk = &self.chunks[number as usize];
        if !chunk.is_listed && !self.is_kept(chunk) {
            self.chunks[number as usize].is_listed = true;
            self.emptied.push(number);
        }
    }

    /// Whether [`ChunkedSlab::give_back`] has something to look at.
    #[inline]
    pub(crate) fn has_emptied(&self) -> bool {
        !self.emptied.is_empty()
    }

    /// Looks at a chunk that has become empty, and gives its memory back if it still is. Returns its number then, for
    /// [`Column::give_back`]. An empty chunk is kept for records to come, unless there are none left at all and it once
    /// had many.
    pub(crate) fn give_back(&mut self) -> Option<u32> {
        let number = self.emptied.pop()?;
        let chunk = self.chunks.get_mut(number as usize)?;
        chunk.is_listed = false;
        let chunk = &self.chunks[number as usize];
        if chunk.used > 0 || self.is_kept(chunk) {
            return None;
        }
        self.chunks[number as usize] = Chunk::ABSENT;
        self.present -= 1;
        self.empty -= 1;
        self.roomy.remove(number as usize);
        self.absent.insert(number as usize);
        while self.chunks.last().is_some_and(|chunk| !chunk.is_present()) {
            self.chunks.pop();
            self.absent.remove(self.chunks.len());
        }
        let roomy = self.roomy.first().map(|number| number as u32);
        if self.filling == number {
            self.filling = roomy.unwrap_or(NONE);
        }
        if let Some(last) = roomy.filter(|_| self.length == 0 && self.emptied.is_empty()) {
            // The one that was kept.
            self.list(last);
        }
        Some(number)
    }

    /// Every record with its slot, in the order of the slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..self.slots()).filter_map(|slot| Some((slot, self.get(slot)?)))
    }
}

impl<T> Index<u32> for ChunkedSlab<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: u32) -> &T {
        self.get(slot).expect(NO_RECORD)
    }
}

impl<T> IndexMut<u32> for ChunkedSlab<T> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        self.get_mut(slot).expect(NO_RECORD)
    }
}

const NO_RECORD: &str = "a record is in the slot";

/// Something kept for each slot, at first its default.
pub(crate) struct Column<T> {
    chunks: Vec<Option<Box<[T; CHUNK]>>>,
    present: usize,
    advice: Advice,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            present: 0,
            advice: Advice::default(),
        }
    }
}

impl<T: Copy + Default> Column<T> {
    /// From now on has `advice` for new chunks.
    pub(crate) fn set_advice(&mut self, advice: Advice) {
        self.advice = advice;
    }

    /// The value of a slot; `None` where it is the default because nothing was ever written near it.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        let chunk = self.chunks.get(chunk_of(slot))?.as_deref()?;
        Some(&chunk[place_of(slot)])
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(chunk_of(slot))?.as_deref_mut()?;
        Some(&mut chunk[place_of(slot)])
    }

    /// The value of a slot that was written before.
    ///
    /// # Panics
    ///
    /// If it was not.
    #[inline]
    pub(crate) fn at(&mut self, slot: u32) -> &mut T {
        self.get_mut(slot).expect("the slot was written before")
    }

    /// The value of a slot, for writing.
    #[inline]
    pub(crate) fn entry(&mut self, slot: u32) -> &mut T {
        if self.get(slot).is_none() {
            self.add_chunk(chunk_of(slot));
        }
        self.at(slot)
    }

    #[cold]
    #[inline(never)]
    fn add_chunk(&mut self, number: usize) {
        if self.chunks.len() <= number {
            self.chunks.resize_with(number + 1, || None);
        }
        let mut chunk = Vec::with_capacity(CHUNK);
        self.advice.tell_of(&chunk);
        chunk.resize(CHUNK, T::default());
        self.chunks[number] = chunk.into_boxed_slice().try_into().ok();
        self.present += 1;
    }

    /// Gives back the memory of a chunk, whose slots read as the default from now on.
    pub(crate) fn give_back(&mut self, number: u32) {
        if let Some(chunk) = self.chunks.get_mut(number as usize)
            && chunk.take().is_some()
        {
            self.present -= 1;
        }
    }

    /// The values of a chunk, if there are any.
    pub(crate) fn chunk(&self, number: u32) -> Option<&[T; CHUNK]> {
        self.chunks.get(number as usize)?.as_deref()
    }

    /// Bytes of memory that the chunks take.
    pub(crate) fn memory(&self) -> usize {
        self.present * CHUNK * size_of::<T>() + self.chunks.capacity() * size_of::<usize>()
    }
}

/// Numbers of slots in the order in which they came. Its memory goes back as they are taken out.
#[derive(Default)]
pub(crate) struct SlotQueue {
    /// None is empty but the last, and all but that are full.
    chunks: VecDeque<Vec<u32>>,
    /// Numbers of the first chunk that were taken out.
    taken: usize,
}

impl SlotQueue {
    /// Numbers in the queue.
    pub(crate) fn len(&self) -> usize {
        let last = self.chunks.back().map_or(0, Vec::len);
        self.chunks.len().saturating_sub(1) * CHUNK + last - self.taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push_back(&mut self, slot: u32) {
        match self.chunks.back_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => last.push(slot),
            None => {
                // The first is as large as it has to be: few wait for anything.
                let mut chunk = Vec::with_capacity(if self.chunks.is_empty() { 0 } else { CHUNK });
                chunk.push(slot);
                self.chunks.push_back(chunk);
            }
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<u32> {
        let first = self.chunks.front_mut()?;
        let slot = *first.get(self.taken)?;
        self.taken += 1;
        if self.taken == first.len() {
            self.taken = 0;
            if first.len() < CHUNK {
                first.clear();
            } else {
                self.chunks.pop_front();
            }
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Chunks(Mutex<Vec<usize>>);

    impl MemoryAdvisor for Chunks {
        fn allocated(&self, address: usize, length: usize) {
            assert_ne!(address, 0);
            self.0.lock().unwrap().push(length);
        }
    }

    #[test]
    fn every_chunk_is_told_of_when_it_is_made() {
        let told = Arc::new(Chunks::default());
        let mut slab = ChunkedSlab::default();
        slab.set_advice(Advice::new(told.clone()));
        for number in 0..=2 * CHUNK as u64 {
            slab.insert(number);
        }
        let bytes = CHUNK * size_of::<Slot<u64>>();
        assert_eq!(*told.0.lock().unwrap(), [bytes; 3]);
        let mut column = Column::default();
        column.set_advice(Advice::new(told.clone()));
        *column.entry(5) = 1_u64;
        *column.entry(6) = 1_u64;
        assert_eq!(told.0.lock().unwrap()[3..], [CHUNK * 8]);
    }

    #[test]
    fn a_column_reads_as_its_default_until_it_is_written() {
        let mut column = Column::default();
        assert_eq!(column.get(40), None);
        *column.entry(40) = 7_u32;
        assert_eq!((column.get(40), column.get(41)), (Some(&7), Some(&0)));
        assert!(column.memory() >= CHUNK * 4 && column.memory() < 2 * CHUNK * 4 + 100);
        column.give_back(chunk_of(40) as u32);
        assert_eq!((column.get(40), column.chunk(chunk_of(40) as u32)), (None, None));
    }

    #[test]
    fn chunks_without_records_go_back_one_at_a_time() {
        let mut slab = ChunkedSlab::default();
        let slots: Vec<u32> = (0..8 * CHUNK as u32).map(|number| slab.insert(number)).collect();
        let full = slab.memory();
        for &slot in &slots[CHUNK..] {
            assert!(slab.remove(slot));
        }
        let mut given_back = 0;
        while slab.has_emptied() {
            let before = slab.present;
            given_back += u32::from(slab.give_back().is_some());
            assert!(before - slab.present <= 1);
        }
        // One is kept for records to come.
        assert_eq!((given_back, slab.present), (6, 2));
        assert!(slab.memory() < full / 2);
        for &slot in &slots[..CHUNK] {
            assert_eq!(slab.get(slot), Some(&slot));
            assert!(slab.remove(slot));
        }
        while slab.has_emptied() {
            slab.give_back();
        }
        assert_eq!(slab.present, 0);
        slab.insert(1);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_large_table_is_given_back_whole() {
        let mut slab = ChunkedSlab::default();
        for number in 0..3 * CHUNK as u32 {
            slab.insert(number);
        }
        for slot in 0..3 * CHUNK as u32 {
            slab.remove(slot);
        }
        while slab.has_emptied() {
            slab.give_back();
        }
        assert_eq!((slab.present, slab.slots()), (0, 0));
    }

    #[test]
    fn a_small_table_is_kept_and_nothing_is_to_be_done_about_it() {
        let mut slab = ChunkedSlab::default();
        for _ in 0..3 {
            for number in 0..KEPT as u32 {
                assert!(slab.insert(number) < KEPT as u32);
            }
            for slot in 0..KEPT as u32 {
                slab.remove(slot);
            }
            assert_eq!((slab.has_emptied(), slab.present), (false, 1));
        }
    }

    #[test]
    fn the_lowest_number_is_found() {
        let mut set = BitSet::default();
        assert_eq!(set.first(), None);
        for number in [70_000, 4096, 64, 63] {
            set.insert(number);
            assert_eq!(set.first(), Some(number));
        }
        for (number, next) in [(63, Some(64)), (64, Some(4096)), (4096, Some(70_000)), (70_000, None)] {
            set.remove(number);
            assert_eq!(set.first(), next);
        }
    }

    proptest! {
        #[test]
        fn a_queue_is_one(steps in proptest::collection::vec((any::<bool>(), 0..40_usize), 1..100)) {
            let (mut queue, mut model) = (SlotQueue::default(), VecDeque::new());
            let mut next = 0;
            for (comes, count) in steps {
                for _ in 0..count {
                    if comes {
                        queue.push_back(next);
                        model.push_back(next);
                        next += 1;
                    } else {
                        prop_assert_eq!(queue.pop_front(), model.pop_front());
                    }
                    prop_assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
                    prop_assert!(queue.chunks.len() <= model.len() / CHUNK + 2);
                }
            }
        }

        #[test]
        fn records_are_where_they_were_put(
            steps in proptest::collection::vec((0..5_u8, 0..200_usize), 1..600),
        ) {
            let mut slab = ChunkedSlab::default();
            let mut model: Vec<(u32, usize)> = Vec::new();
            for (number, (step, which)) in steps.into_iter().enumerate() {
                match step {
                    0..3 => {
                        let slot = slab.insert(number);
                        prop_assert!(model.iter().all(|&(known, _)| known != slot));
                        model.push((slot, number));
                    }
                    3 if !model.is_empty() => {
                        let (slot, record) = model.swap_remove(which % model.len());
                        prop_assert_eq!(slab.take(slot), Some(record));
                        prop_assert_eq!(slab.take(slot), None);
                        prop_assert!(!slab.remove(slot));
                    }
                    _ => {
                        if let Some(number) = slab.give_back() {
                            prop_assert!(model.iter().all(|&(slot, _)| chunk_of(slot) != number as usize));
                        }
                    }
                }
                prop_assert_eq!(slab.len() as usize, model.len());
                for &(slot, record) in &model {
                    prop_assert_eq!(slab.get(slot), Some(&record));
                    prop_assert!(slot < slab.slots());
                }
                prop_assert_eq!(slab.iter().count(), model.len());
                let present = slab.chunks.iter().filter(|chunk| chunk.is_present()).count();
                let empty = slab.chunks.iter().filter(|chunk| chunk.is_present() && chunk.used == 0).count();
                prop_assert_eq!((slab.present, slab.empty as usize), (present, empty));
            }
        }
    }
}
