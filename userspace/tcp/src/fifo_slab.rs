//! Records in slots that remember the order in which they came, so that the oldest can give way.

const NONE: u32 = u32::MAX;

struct Slot<T> {
    /// `None`: free, and `next` is the next free slot.
    record: Option<T>,
    previous: u32,
    next: u32,
}

/// A slab with a queue through it: O(1) for everything.
pub(crate) struct FifoSlab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    oldest: u32,
    newest: u32,
    length: u32,
}

impl<T> Default for FifoSlab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            oldest: NONE,
            newest: NONE,
            length: 0,
        }
    }
}

impl<T> FifoSlab<T> {
    /// Records held.
    pub(crate) fn len(&self) -> u32 {
        self.length
    }

    /// Adds a record as the newest and returns its slot.
    pub(crate) fn insert(&mut self, record: T) -> u32 {
        let slot = Slot {
            record: Some(record),
            previous: self.newest,
            next: NONE,
        };
        let index = if self.free == NONE {
            self.slots.push(slot);
            self.slots.len() as u32 - 1
        } else {
            let index = self.free;
            self.free = self.slots[index as usize].next;
            self.slots[index as usize] = slot;
            index
        };
        match self.newest {
            NONE => self.oldest = index,
            newest => self.slots[newest as usize].next = index,
        }
        self.newest = index;
        self.length += 1;
        index
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slots.get_mut(index as usize)?;
        let record = slot.record.take()?;
        self.unlink(index);
        self.slots[index as usize].next = self.free;
        self.free = index;
        self.length -= 1;
        if self.length == 0 {
            // After a flood the memory goes back.
            *self = Self::default();
        }
        Some(record)
    }

    /// Takes a slot out of the queue.
    fn unlink(&mut self, index: u32) {
        let Slot { previous, next, .. } = self.slots[index as usize];
        match previous {
            NONE => self.oldest = next,
            previous => self.slots[previous as usize].next = next,
        }
        match next {
            NONE => self.newest = previous,
            next => self.slots[next as usize].previous = previous,
        }
    }

    /// Makes a record the newest.
    pub(crate) fn renew(&mut self, index: u32) {
        if self.get(index).is_none() || self.newest == index {
            return;
        }
        self.unlink(index);
        let newest = self.newest;
        self.slots[newest as usize].next = index;
        let slot = &mut self.slots[index as usize];
        (slot.previous, slot.next) = (newest, NONE);
        self.newest = index;
    }

    /// The slot of the record that came after the one at `index`, which is there.
    pub(crate) fn next(&self, index: u32) -> Option<u32> {
        let next = self.slots.get(index as usize)?.next;
        (next != NONE).then_some(next)
    }

    /// The slot of the oldest record.
    pub(crate) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// A record.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.record.as_ref()
    }

    /// A record.
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.record.as_mut()
    }

    /// Bytes of memory that the slots take.
    pub(crate) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<T>>()
    }

    /// The number of slots, of which some may be free.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
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
