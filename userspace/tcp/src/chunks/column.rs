//! Values by slot.

use super::{Advice, CHUNK, chunk_of, place_of};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
