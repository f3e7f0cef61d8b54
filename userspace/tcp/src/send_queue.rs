//! Text an application has given to be sent and the peer has not acknowledged.

use core::mem::take;
use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::wire::checksum::TextSum;

/// A queue of buffers. With one buffer in it, it has allocated nothing.
///
/// Large buffers are shared, small ones copied behind one another into chunks: of a peer that has a service answer in
/// single octets, the queue holds little more than those octets, and a few octets never hold a large buffer.
pub(crate) struct SendQueue {
    first: Bytes,
    /// The sum of all of `first`, if it is known.
    first_sum: Option<TextSum>,
    /// The octets of `first` before some of them were acknowledged: it holds the memory of all until none is left.
    first_length: usize,
    /// The buffers behind the first, none of them empty.
    rest: VecDeque<Piece>,
    /// The chunk behind those, which small buffers are copied into.
    open: Vec<u8>,
    /// The position of the first octet that is not acknowledged, counted from the first there ever was.
    front: u64,
    length: usize,
}

struct Piece {
    /// The position of its first octet.
    start: u64,
    data: Bytes,
}

/// Buffers up to this size (octets) are copied.
const MAX_COPIED: usize = 1024;

/// The largest chunk of small buffers, in octets.
const MAX_CHUNK: usize = 16 << 10;

/// Room for this many further buffers is kept when the queue is empty; more is given back.
const KEPT_CAPACITY: usize = 4;

/// The memory of a buffer beside its octets: its entry, of whose kind the queue may have four times as many as are in
/// use, and what an allocator adds.
const PIECE_OVERHEAD: usize = 4 * size_of::<Piece>() + 32;

impl SendQueue {
    /// An empty queue.
    pub(crate) const fn new() -> Self {
        Self {
            first: Bytes::new(),
            first_sum: None,
            first_length: 0,
            rest: VecDeque::new(),
            open: Vec::new(),
            front: 0,
            length: 0,
        }
    }

    /// Lets go of everything in the queue.
    pub(crate) fn clear(&mut self) {
        if self.length == 0 {
            return;
        }
        self.front += self.length as u64;
        self.length = 0;
        self.first = Bytes::new();
        self.first_sum = None;
        if self.rest.capacity() | self.open.capacity() != 0 {
            self.release();
        }
    }

    /// Lets go of the buffers behind the first, of which most queues have none.
    #[cold]
    fn release(&mut self) {
        if self.rest.capacity() > KEPT_CAPACITY {
            self.rest = VecDeque::new();
        } else {
            self.rest.clear();
        }
        self.open = Vec::new();
    }

    /// Octets in the queue.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The most memory the queue may be holding, in octets: no less than it does hold, and at most twice
    /// [`SendQueue::len`], what of the first buffer is acknowledged, and [`PIECE_OVERHEAD`] for each buffer. Shared
    /// buffers count as if nobody else had them.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        if self.length == 0 {
            return 0;
        }
        let acknowledged = self.first_length - self.first.len();
        let buffers = 1 + self.rest.len() + usize::from(!self.open.is_empty());
        // A growing vector has room for at most twice as much as is in it.
        self.length + acknowledged + self.open.len() + buffers * PIECE_OVERHEAD
    }

    /// Appends `data`, whose sum may be known. Where it is not, a small buffer is copied, since it may be the rest of a
    /// large one.
    #[inline]
    pub(crate) fn push(&mut self, data: Bytes, sum: Option<TextSum>) {
        if data.is_empty() {
            return;
        }
        if sum.is_some() && self.length == 0 {
            self.put_first(data, sum);
        } else {
            self.push_behind(data);
        }
    }

    /// Appends `data` without its sum, which is not known, or of no use behind other text.
    #[inline(never)]
    fn push_behind(&mut self, data: Bytes) {
        if data.len() <= MAX_COPIED {
            self.push_copy(&data);
        } else if self.length == 0 {
            self.put_first(data, None);
        } else {
            self.append(data);
        }
    }

    /// Appends a copy of `data`.
    pub(crate) fn push_copy(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if self.length == 0 {
            self.put_first(Bytes::copy_from_slice(data), None);
        } else if data.len() <= MAX_COPIED {
            if self.open.len() + data.len() > MAX_CHUNK {
                self.close_chunk();
            }
            self.open.extend_from_slice(data);
            self.length += data.len();
        } else {
            self.append(Bytes::copy_from_slice(data));
        }
    }

    #[inline]
    fn put_first(&mut self, data: Bytes, sum: Option<TextSum>) {
        self.length = data.len();
        self.first_length = data.len();
        self.first = data;
        self.first_sum = sum;
    }

    fn append(&mut self, data: Bytes) {
        self.close_chunk();
        let start = self.front + self.length as u64;
        self.length += data.len();
        self.rest.push_back(Piece { start, data });
    }

    /// Makes a buffer of the open chunk.
    fn close_chunk(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let start = self.open_start();
        let data = Bytes::from(take(&mut self.open).into_boxed_slice());
        self.rest.push_back(Piece { start, data });
    }

    /// The position of the open chunk's first octet.
    fn open_start(&self) -> u64 {
        self.front + (self.length - self.open.len()) as u64
    }

    /// Removes `count` octets from the front: they have been acknowledged.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.length, "acknowledged {count} of {} bytes", self.length);
        if count == self.length {
            self.clear();
        } else {
            self.advance(count);
        }
    }

    /// Removes `count` octets from the front, and not all there are.
    fn advance(&mut self, mut count: usize) {
        self.length -= count;
        self.front += count as u64;
        self.first_sum = None;
        // No buffer is empty, and there is more than `count` in all of them together.
        while count >= self.first.len() {
            count -= self.first.len();
            self.next_buffer();
        }
        self.first.advance(count);
    }

    /// The first buffer is acknowledged: the next one takes its place.
    fn next_buffer(&mut self) {
        self.first = match self.rest.pop_front() {
            Some(piece) => piece.data,
            None => Bytes::from(take(&mut self.open).into_boxed_slice()),
        };
        self.first_length = self.first.len();
        let capacity = self.rest.capacity();
        if capacity > KEPT_CAPACITY && self.rest.len() * 4 <= capacity {
            self.rest.shrink_to((capacity / 2).max(KEPT_CAPACITY));
        }
    }

    /// Copies the octets from `offset` on into the whole of `target` and returns their sum.
    ///
    /// # Panics
    ///
    /// If the queue ends before that.
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
    fn copy_pieces(&self, offset: usize, mut target: &mut [u8]) {
        let mut position = self.front + offset as u64;
        let mut copy = |start: u64, data: &[u8]| {
            // What begins before the position may also end before it.
            let data = data.get((position - start) as usize..).unwrap_or(&[]);
            let count = target.len().min(data.len());
            let (now, later) = take(&mut target).split_at_mut(count);
            now.copy_from_slice(&data[..count]);
            target = later;
            position += count as u64;
            target.is_empty()
        };
        if copy(self.front, &self.first) {
            return;
        }
        let wanted = self.front + offset as u64;
        let next = self.rest.partition_point(|piece| {
            visited();
            piece.start <= wanted
        });
        for piece in self.rest.range(next.saturating_sub(1)..) {
            visited();
            if copy(piece.start, &piece.data) {
                return;
            }
        }
        assert!(
            copy(self.open_start(), &self.open),
            "copied past the end of the send queue"
        );
    }
}

#[cfg(test)]
std::thread_local! {
    /// Buffers looked at to find the place of a segment.
    static VISITED: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// Counts a buffer that is looked at, in tests.
#[inline]
fn visited() {
    #[cfg(test)]
    VISITED.set(VISITED.get() + 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl SendQueue {
        /// The memory the queue has allocated or shares, in octets.
        fn allocated(&self) -> usize {
            let pieces: usize = self.rest.iter().map(|piece| piece.data.len()).sum();
            let entries = self.rest.capacity() * size_of::<Piece>();
            let first = if self.length == 0 { 0 } else { self.first_length };
            first + pieces + entries + self.open.capacity()
        }
    }

    proptest! {
        #[test]
        fn holds_what_was_pushed(
            steps in proptest::collection::vec(
                (0..4_u8, prop_oneof![0..50_usize, 1000..1100_usize, 1..5000_usize], 0..6000_usize, 0..6000_usize),
                0..60,
            ),
        ) {
            let mut queue = SendQueue::new();
            let mut model = Vec::new();
            for (step, (kind, push, consume, copy)) in steps.into_iter().enumerate() {
                let chunk: Vec<u8> = (0..push).map(|at| (at + step) as u8).collect();
                model.extend_from_slice(&chunk);
                match kind {
                    0 => queue.push(Bytes::from(chunk.clone()), Some(TextSum::of(&chunk))),
                    1 => queue.push(Bytes::from(chunk), None),
                    _ => queue.push_copy(&chunk),
                }
                prop_assert!(queue.allocated() <= queue.held().max(KEPT_CAPACITY * size_of::<Piece>()));
                // Consuming nothing, something, everything.
                let consume = if kind == 3 { 0 } else { consume.min(model.len()) };
                model.drain(..consume);
                queue.consume(consume);
                prop_assert_eq!(queue.len(), model.len());
                prop_assert!(queue.rest.iter().all(|piece| !piece.data.is_empty()));
                let offset = copy.min(model.len());
                let mut target = vec![0; (model.len() - offset).min(copy % 2000)];
                let sum = queue.copy_to(offset, &mut target);
                prop_assert_eq!(&target, &model[offset..offset + target.len()]);
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
        queue.push(Bytes::from(vec![0; 2000]), None);
        queue.consume(2006);
        assert!(queue.first.is_empty() && queue.rest.is_empty());
        assert_eq!((queue.held(), queue.open.capacity()), (0, 0));
        assert!((1..=KEPT_CAPACITY).contains(&queue.rest.capacity()), "for the next two");
        for _ in 0..100 {
            queue.push(Bytes::from(vec![0; 2000]), None);
        }
        queue.consume(200_000);
        assert!(queue.first.is_empty() && queue.rest.capacity() == 0);
    }

    #[test]
    fn single_octets_are_held_at_less_than_thrice_their_number() {
        let mut queue = SendQueue::new();
        for octet in 0..100_000 {
            queue.push_copy(&[octet as u8]);
            assert!(queue.allocated() <= queue.held());
        }
        assert!(queue.held() < 110_000 + 100 * PIECE_OVERHEAD, "{}", queue.held());
        assert!(queue.held() < 3 * queue.len());
        // From the end on, while the front is acknowledged octet by octet.
        while queue.len() > 0 {
            queue.consume(1);
            queue.push_copy(&[0]);
            assert!(queue.allocated() <= queue.held());
            queue.consume(1);
            assert!(queue.held() <= 2 * queue.len() + MAX_CHUNK + (queue.len() / MAX_CHUNK + 3) * PIECE_OVERHEAD);
        }
    }

    #[test]
    fn a_few_octets_do_not_hold_the_buffer_they_are_cut_from() {
        let large = Bytes::from(vec![7; 1 << 20]);
        let mut queue = SendQueue::new();
        for _ in 0..3 {
            queue.push(large.slice(5..5 + MAX_COPIED), None);
        }
        assert!(large.is_unique());
        // A buffer whose sum is known is a whole one.
        let mut queue = SendQueue::new();
        queue.push(large.clone(), Some(TextSum::of(&large)));
        assert!(!large.is_unique());
        assert!(queue.held() >= 1 << 20);
        queue.consume((1 << 20) - 1);
        assert!(queue.held() >= 1 << 20, "the last octet holds all of it");
    }

    #[test]
    fn the_place_of_a_segment_is_found_without_walking_to_it() {
        // 20 MiB in pieces that are not joined, and 2 MiB in such that are.
        for (size, pieces) in [(MAX_COPIED + 1, 20_000), (100, 20_000)] {
            let mut queue = SendQueue::new();
            for piece in 0..pieces {
                queue.push(Bytes::from(vec![piece as u8; size]), None);
            }
            let mut target = vec![0; 1460];
            for offset in (0..queue.len() - 1460).step_by(100_000) {
                VISITED.set(0);
                queue.copy_to(offset, &mut target);
                assert_eq!(target[0], (offset / size) as u8);
                let most = 8 + 4 * queue.rest.len().max(1).ilog2() as usize;
                assert!(VISITED.get() <= most, "{} buffers for offset {offset}", VISITED.get());
            }
        }
    }

    #[test]
    fn the_entries_of_acknowledged_buffers_are_given_back() {
        let mut queue = SendQueue::new();
        for _ in 0..1000 {
            queue.push(Bytes::from(vec![0; 2000]), None);
        }
        while queue.len() > 2000 {
            queue.consume(2000);
            assert!(queue.allocated() <= queue.held(), "{} buffers", queue.rest.len());
        }
    }
}
