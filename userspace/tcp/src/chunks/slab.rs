//! Records in slots of chunks.

use core::ops::{Index, IndexMut};

use super::bit_set::BitSet;
use super::{Advice, CHUNK, CHUNK_BITS, NONE, chunk_of, place_of};

/// A slab that never had more records than this keeps its chunk when it has none.
const KEPT: usize = if cfg!(test) { 8 } else { 1024 };

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

    /// The slot of the next record to be added.
    #[inline]
    pub(crate) fn vacant_slot(&mut self) -> u32 {
        if self.filling == NONE {
            self.filling = self.add_chunk();
        }
        let chunk = &self.chunks[self.filling as usize];
        let place = if chunk.free == NONE {
            chunk.slots.len() as u32
        } else {
            chunk.free
        };
        self.filling << CHUNK_BITS | place
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
    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    proptest! {
        #[test]
        fn records_are_where_they_were_put(
            steps in proptest::collection::vec((0..5_u8, 0..200_usize), 1..600),
        ) {
            let mut slab = ChunkedSlab::default();
            let mut model: Vec<(u32, usize)> = Vec::new();
            for (number, (step, which)) in steps.into_iter().enumerate() {
                match step {
                    0..3 => {
                        let vacant = slab.vacant_slot();
                        let slot = slab.insert(number);
                        prop_assert_eq!(slot, vacant);
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
