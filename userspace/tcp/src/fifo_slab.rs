//! Records in slots that remember the order in which they came, so that the oldest can give way.

use crate::chunks::{Advice, ChunkedSlab};

const NONE: u32 = u32::MAX;

struct Entry<T> {
    record: T,
    previous: u32,
    next: u32,
}

/// A slab with a queue through it: O(1) for everything.
pub(crate) struct FifoSlab<T> {
    entries: ChunkedSlab<Entry<T>>,
    oldest: u32,
    newest: u32,
}

impl<T> Default for FifoSlab<T> {
    fn default() -> Self {
        Self {
            entries: ChunkedSlab::default(),
            oldest: NONE,
            newest: NONE,
        }
    }
}

impl<T> FifoSlab<T> {
    /// Records held.
    pub(crate) fn len(&self) -> u32 {
        self.entries.len()
    }

    /// Adds a record as the newest and returns its slot.
    pub(crate) fn insert(&mut self, record: T) -> u32 {
        let index = self.entries.insert(Entry {
            record,
            previous: self.newest,
            next: NONE,
        });
        match self.newest {
            NONE => self.oldest = index,
            newest => self.entries[newest].next = index,
        }
        self.newest = index;
        index
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let Entry { record, previous, next } = self.entries.take(index)?;
        self.unlink(previous, next);
        Some(record)
    }

    /// Closes the gap between two records of the queue.
    fn unlink(&mut self, previous: u32, next: u32) {
        match previous {
            NONE => self.oldest = next,
            previous => self.entries[previous].next = next,
        }
        match next {
            NONE => self.newest = previous,
            next => self.entries[next].previous = previous,
        }
    }

    /// Makes a record the newest.
    pub(crate) fn renew(&mut self, index: u32) {
        let Some(&Entry { previous, next, .. }) = self.entries.get(index).filter(|_| self.newest != index) else {
            return;
        };
        self.unlink(previous, next);
        let newest = self.newest;
        self.entries[newest].next = index;
        let entry = &mut self.entries[index];
        (entry.previous, entry.next) = (newest, NONE);
        self.newest = index;
    }

    /// The slot of the record that came after the one at `index`, which is there.
    pub(crate) fn next(&self, index: u32) -> Option<u32> {
        let next = self.entries.get(index)?.next;
        (next != NONE).then_some(next)
    }

    /// The slot of the oldest record.
    pub(crate) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// A record.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index).map(|entry| &entry.record)
    }

    /// A record.
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index).map(|entry| &mut entry.record)
    }

    /// Bytes of memory that the slots take.
    pub(crate) fn memory(&self) -> usize {
        self.entries.memory()
    }

    /// The number of slots, of which some may be free.
    pub(crate) fn slots(&self) -> u32 {
        self.entries.slots()
    }

    /// From now on has `advice` for the memory of further slots.
    pub(crate) fn set_advice(&mut self, advice: Advice) {
        self.entries.set_advice(advice);
    }

    /// Whether [`FifoSlab::give_back`] has something to look at.
    #[inline]
    pub(crate) fn has_emptied(&self) -> bool {
        self.entries.has_emptied()
    }

    /// Gives back the memory of a chunk without records, if there is one: after a flood. Returns its number.
    pub(crate) fn give_back(&mut self) -> Option<u32> {
        self.entries.give_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_oldest_is_the_oldest(steps in proptest::collection::vec((0..4_u8, 0..20_usize), 1..200)) {
            let mut slab = FifoSlab::default();
            let mut model: Vec<(u32, usize)> = Vec::new();
            for (number, (step, which)) in steps.into_iter().enumerate() {
                if step > 1 {
                    model.push((slab.insert(number), number));
                } else if step == 1 && !model.is_empty() {
                    let renewed = model.remove(which % model.len());
                    slab.renew(renewed.0);
                    model.push(renewed);
                } else if !model.is_empty() {
                    let (index, record) = model.remove(which % model.len());
                    prop_assert_eq!(slab.remove(index), Some(record));
                    prop_assert_eq!(slab.remove(index), None);
                }
                prop_assert_eq!(slab.len() as usize, model.len());
                prop_assert_eq!(slab.oldest(), model.first().map(|&(index, _)| index));
                for (place, &(index, record)) in model.iter().enumerate() {
                    prop_assert_eq!(slab.get(index), Some(&record));
                    prop_assert_eq!(slab.next(index), model.get(place + 1).map(|&(index, _)| index));
                }
            }
        }
    }
}
