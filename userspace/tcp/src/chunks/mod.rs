//! Memory by slot, in chunks that come and go: [`ChunkedSlab`] has records, [`Column`] what is kept beside them,
//! [`SlotQueue`] numbers of slots.
//!
//! A vector that doubles would copy all of its records in one call, and keep its size for as long as one is left. A
//! chunk is made when a record needs it, none is ever moved, and one without records goes back by itself.

mod bit_set;
mod column;
mod queue;
mod slab;

use std::sync::Arc;

pub(crate) use column::Column;
pub(crate) use queue::SlotQueue;
pub(crate) use slab::ChunkedSlab;

const NONE: u32 = u32::MAX;

/// Slots of a chunk, as a power of two. In tests few, so that small tables have several.
const CHUNK_BITS: u32 = if cfg!(test) { 4 } else { 13 };

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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

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
        let bytes = CHUNK * size_of::<(u64, u64)>();
        assert_eq!(*told.0.lock().unwrap(), [bytes; 3]);
        let mut column = Column::default();
        column.set_advice(Advice::new(told.clone()));
        *column.entry(5) = 1_u64;
        *column.entry(6) = 1_u64;
        assert_eq!(told.0.lock().unwrap()[3..], [CHUNK * 8]);
    }
}
