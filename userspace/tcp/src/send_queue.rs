//! What an application has given to be sent and the peer has not acknowledged.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// A queue of shared buffers. Empty it owns nothing; with one buffer in it, it has allocated nothing.
#[derive(Default)]
pub(crate) struct SendQueue {
    first: Bytes,
    rest: VecDeque<Bytes>,
    length: usize,
}

impl SendQueue {
    /// Bytes in the queue.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Appends `data`.
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if self.length == 0 {
            self.length = data.len();
            self.first = data;
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
        self.length -= count;
        while count >= self.first.len() && count > 0 {
            count -= self.first.len();
            self.first = self.rest.pop_front().unwrap_or_default();
        }
        self.first.advance(count);
        if self.length == 0 {
            self.first = Bytes::new();
            self.rest = VecDeque::new();
        }
    }

    /// Copies the bytes from `offset` on into the whole of `target`.
    ///
    /// # Panics
    ///
    /// When the queue ends before that.
    pub(crate) fn copy_to(&self, mut offset: usize, mut target: &mut [u8]) {
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
            let mut queue = SendQueue::default();
            let mut model = Vec::new();
            let mut chunks = chunks.into_iter();
            for (consume, copy) in cuts {
                if let Some(chunk) = chunks.next() {
                    model.extend_from_slice(&chunk);
                    queue.push(Bytes::from(chunk));
                }
                let consume = consume.min(model.len());
                model.drain(..consume);
                queue.consume(consume);
                prop_assert_eq!(queue.len(), model.len());
                let offset = copy.min(model.len());
                let mut target = vec![0; model.len() - offset];
                queue.copy_to(offset, &mut target);
                prop_assert_eq!(&target, &model[offset..]);
            }
        }
    }

    #[test]
    fn is_empty_handed_when_all_is_acknowledged() {
        let mut queue = SendQueue::default();
        queue.push(Bytes::from_static(b"one"));
        assert_eq!(queue.rest.capacity(), 0);
        queue.push(Bytes::from_static(b"two"));
        queue.consume(6);
        assert!(queue.rest.capacity() == 0 && queue.first.is_empty());
    }
}
