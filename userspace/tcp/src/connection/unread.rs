//! In-order data an application has not consumed, and the memory it takes.

/// The memory of a connection's [`Unread`] beside its bytes: the allocator's share, and
/// [`super::recv_state::RecvState`].
pub(crate) const OVERHEAD: usize = 256;

/// Memory up to which giving some back is not worth copying.
const KEPT_CAPACITY: usize = 4096;

/// Data in one piece, since an application is offered all of it. Holds memory only while it is not empty, and at most
/// four times what is in it, a few KiB aside.
#[derive(Default)]
pub(crate) struct Unread {
    /// The consumed octets, up to `start`, then those that are not.
    buffer: Vec<u8>,
    start: usize,
}

impl Unread {
    /// Bytes not consumed.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Memory held, in bytes.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        match self.buffer.capacity() {
            0 => 0,
            capacity => capacity + OVERHEAD,
        }
    }

    /// The least memory with which `length` more bytes can be held, in bytes.
    pub(crate) fn memory_with(&self, length: usize) -> usize {
        let needed = if self.may_close_up() {
            self.len()
        } else {
            self.buffer.len()
        };
        (needed + length).max(self.buffer.capacity()) + OVERHEAD
    }

    /// Appends `text`; afterwards at most `limit` bytes of memory are held, which [`Unread::memory_with`] fits.
    pub(crate) fn push(&mut self, text: &[u8], limit: usize) {
        debug_assert!(self.memory_with(text.len()) <= limit);
        if self.buffer.capacity() - self.buffer.len() < text.len() && self.may_close_up() {
            self.close_up();
        }
        let needed = self.buffer.len() + text.len();
        let capacity = self.buffer.capacity();
        if needed > capacity {
            // By half, so that a stream of octets is not copied for each of them.
            let larger = (capacity + capacity / 2).min(limit - OVERHEAD).max(needed);
            self.buffer.reserve_exact(larger - self.buffer.len());
        }
        self.buffer.extend_from_slice(text);
    }

    /// Removes `count` bytes from the front, at most all.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.buffer.len() {
            *self = Self::default();
            return;
        }
        let capacity = self.buffer.capacity();
        if capacity > KEPT_CAPACITY && self.len() <= capacity / 4 {
            self.close_up();
            self.buffer.shrink_to_fit();
        }
    }

    /// Whether moving what is left to the front is paid for by what was consumed.
    fn may_close_up(&self) -> bool {
        self.start >= self.len()
    }

    fn close_up(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_was_pushed_within_the_limit(
            steps in proptest::collection::vec((0..3000_usize, 0..4000_usize), 1..100),
            limit in 1000..20_000_usize,
        ) {
            let (mut unread, mut model) = (Unread::default(), Vec::new());
            let mut number = 0_u8;
            for (length, consumed) in steps {
                number = number.wrapping_add(1);
                let text = vec![number; length];
                if unread.memory_with(length) <= limit && length > 0 {
                    unread.push(&text, limit);
                    model.extend_from_slice(&text);
                }
                prop_assert_eq!(unread.as_slice(), &model[..]);
                let consumed = consumed.min(model.len());
                unread.consume(consumed);
                model.drain(..consumed);
                prop_assert_eq!(unread.as_slice(), &model[..]);
                prop_assert_eq!((unread.len(), unread.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(unread.memory() <= limit);
                prop_assert_eq!(unread.memory() == 0, model.is_empty());
                prop_assert!(unread.memory() <= (4 * model.len()).max(KEPT_CAPACITY) + OVERHEAD);
            }
        }
    }

    #[test]
    fn octets_one_by_one_are_copied_a_constant_number_of_times() {
        let mut unread = Unread::default();
        let mut grown = 0;
        for _ in 0..1 << 20 {
            let before = unread.memory();
            unread.push(b"x", usize::MAX);
            grown += usize::from(unread.memory() > before);
        }
        assert!(grown < 100, "{grown} times");
        // The last of the limit is taken at once.
        let limit = unread.memory() + 1000;
        while unread.memory_with(1) <= limit {
            let before = unread.memory();
            unread.push(b"x", limit);
            grown += usize::from(unread.memory() > before);
        }
        assert!(grown < 102, "{grown} times");
    }
}
