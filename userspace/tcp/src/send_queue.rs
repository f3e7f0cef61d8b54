//! What an application has given to be sent and the peer has not acknowledged.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::wire::checksum::TextSum;

/// A queue of shared buffers. With one buffer in it, it has allocated nothing.
pub(crate) struct SendQueue {
    first: Bytes,
    /// The sum of all of `first`, if it is known.
    first_sum: Option<TextSum>,
    rest: VecDeque<Bytes>,
    length: usize,
}

/// Room for this many further buffers is kept when the queue is empty; more is given back.
const KEPT_CAPACITY: usize = 4;

impl SendQueue {
    /// An empty queue.
    pub(crate) const fn new() -> Self {
        Self {
            first: Bytes::new(),
            first_sum: None,
            rest: VecDeque::new(),
            length: 0,
        }
    }

    /// Lets go of everything in the queue.
    pub(crate) fn clear(&mut self) {
        self.length = 0;
        self.first = Bytes::new();
        self.first_sum = None;
        if self.rest.capacity() > KEPT_CAPACITY {
            self.rest = VecDeque::new();
        } else {
            self.rest.clear();
        }
    }

    /// Bytes in the queue.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Appends `data`, whose sum may be known.
    #[inline]
    pub(crate) fn push(&mut self, data: Bytes, sum: Option<TextSum>) {
        if data.is_empty() {
            return;
        }
        if self.length == 0 {
            self.length = data.len();
            self.first = data;
            self.first_sum = sum;
        } else {
            self.length += data.len();
            self.rest.push_back(data);
        }
    }

    /// Removes `count` bytes from the front: they have been acknowledged.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub(crate) fn consume(&mut self, mut count: usize) {
        assert!(count <= self.length, "acknowledged {count} of {} bytes", self.length);
        if count == self.length {
            self.clear();
            return;
        }
        self.length -= count;
        self.first_sum = None;
        while count >= self.first.len() && count > 0 {
            count -= self.first.len();
            self.first = self.rest.pop_front().unwrap_or_default();
        }
        self.first.advance(count);
    }

    /// Copies the bytes from `offset` on into the whole of `target` and returns their sum.
    ///
    /// # Panics
    ///
    /// When the queue ends before that.
    #[inline]
    pub(crate) fn copy_to(&self, offset: usize, target: &mut [u8]) -> TextSum {
        if let Some(text) = self.first.get(offset..offset + target.len()) {
            target.copy_from_slice(text);
            if let Some(sum) = self.first_sum.filter(|_| target.len() == self.first.len()) {
                return sum;
            }
        } else {
            self.copy_pieces(offset, target);
        }
        TextSum::of(target)
    }

    /// Copies what is not all in the first buffer.
    fn copy_pieces(&self, mut offset: usize, mut target: &mut [u8]) {
        for chunk in core::iter::once(&self.first).chain(&self.rest) {
            if target.is_empty() {
                return;
            }
            if offset >= chunk.len() {
                offset -= chunk.len();
                continue;
            }
            let count = target.len().min(chunk.len() - offset);
            target[..count].copy_from_slice(&chunk[offset..offset + count]);
            target = &mut target[count..];
            offset = 0;
        }
        assert!(target.is_empty(), "copied past the end of the send queue");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn holds_what_was_pushed(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20),
            cuts in proptest::collection::vec((0..60_usize, 0..60_usize), 0..20),
        ) {
            let mut queue = SendQueue::new();
            let mut model = Vec::new();
            let mut chunks = chunks.into_iter();
            for (step, (consume, copy)) in cuts.into_iter().enumerate() {
                if let Some(chunk) = chunks.next() {
                    model.extend_from_slice(&chunk);
                    let sum = TextSum::of(&chunk);
                    queue.push(Bytes::from(chunk), (step % 2 == 0).then_some(sum));
                }
                let consume = consume.min(model.len());
                model.drain(..consume);
                queue.consume(consume);
                prop_assert_eq!(queue.len(), model.len());
                let offset = copy.min(model.len());
                let mut target = vec![0; model.len() - offset];
                let sum = queue.copy_to(offset, &mut target);
                prop_assert_eq!(&target, &model[offset..]);
                prop_assert_eq!(sum, TextSum::of(&target));
            }
        }
    }

    #[test]
    fn keeps_little_when_all_is_acknowledged() {
        let mut queue = SendQueue::new();
        queue.push(Bytes::from_static(b"one"), None);
        assert_eq!(queue.rest.capacity(), 0);
        queue.push(Bytes::from_static(b"two"), None);
        queue.consume(6);
        assert!(queue.first.is_empty() && queue.rest.is_empty());
        assert!((1..=KEPT_CAPACITY).contains(&queue.rest.capacity()), "for the next two");
        for _ in 0..100 {
            queue.push(Bytes::from_static(b"more"), None);
        }
        queue.consume(400);
        assert!(queue.first.is_empty() && queue.rest.capacity() == 0);
    }
}
