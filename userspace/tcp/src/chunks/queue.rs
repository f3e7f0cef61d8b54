//! Numbers of slots in a queue.

use std::collections::VecDeque;

use super::CHUNK;

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
    use proptest::prelude::*;

    use super::*;

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
    }
}
