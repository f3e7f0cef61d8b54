//! Buffers for frames, made once and used again and again, as a NIC's rings use a UMEM.

use tidegate_tcp::transmit::{Purpose, Transmit};

/// Frames that are processed together.
pub const BURST: usize = 64;

/// Bytes from one buffer to the next: the usual frame size of a UMEM.
const SLOT: usize = 2048;

/// A sequence of frames, each in a buffer of its own.
pub struct Frames {
    bytes: Box<[u8]>,
    lengths: Vec<usize>,
}

impl Frames {
    /// No frames, and buffers for `capacity` of them.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity * SLOT].into_boxed_slice(),
            lengths: Vec::with_capacity(capacity),
        }
    }

    /// Frames held.
    #[inline]
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether no frame is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Whether every buffer holds a frame.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() * SLOT == self.bytes.len()
    }

    /// Forgets all frames and keeps the buffers.
    #[inline]
    pub fn clear(&mut self) {
        self.lengths.clear();
    }

    /// The frame at `index`; `None` when there are not so many.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let length = *self.lengths.get(index)?;
        self.bytes.get(index * SLOT..index * SLOT + length)
    }

    /// The next free buffer, 2,048 bytes long; its content is undefined. `None` when there is none.
    #[inline]
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        let start = self.len() * SLOT;
        self.bytes.get_mut(start..start + SLOT)
    }

    /// Makes the first `length` bytes of the next free buffer a frame.
    ///
    /// # Panics
    ///
    /// If there is no free buffer, or `length` is above its size.
    #[inline]
    pub fn fill(&mut self, length: usize) {
        assert!(!self.is_full() && length <= SLOT, "no buffer for {length} bytes");
        self.lengths.push(length);
    }

    /// All frames as one burst, however many they are.
    #[inline]
    pub fn all(&self) -> Burst<'_> {
        Burst {
            frames: self,
            first: 0,
            count: self.len(),
        }
    }

    /// The frames in bursts of [`BURST`]; the last may have fewer.
    pub fn bursts(&self) -> impl Iterator<Item = Burst<'_>> {
        (0..self.len()).step_by(BURST).map(move |first| Burst {
            frames: self,
            first,
            count: BURST.min(self.len() - first),
        })
    }
}

impl Transmit for Frames {
    #[inline]
    fn reserve(&mut self, _: Purpose) -> Option<&mut [u8]> {
        self.slot()
    }

    #[inline]
    fn commit(&mut self, length: usize) {
        self.fill(length);
    }
}

/// Frames that arrive together.
#[derive(Clone, Copy)]
pub struct Burst<'a> {
    frames: &'a Frames,
    first: usize,
    count: usize,
}

impl<'a> Burst<'a> {
    /// Frames in the burst.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no frame.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The frame at `index`; `None` when there are not so many.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        (index < self.count)
            .then(|| self.frames.get(self.first + index))
            .flatten()
    }

    /// The frames, each from its Ethernet header on.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.count).filter_map(move |index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(count: u8, capacity: usize) -> Frames {
        let mut frames = Frames::with_capacity(capacity);
        for number in 0..count {
            frames.slot().unwrap()[0] = number;
            frames.fill(1 + usize::from(number));
        }
        frames
    }

    #[test]
    fn bursts_hold_every_frame_once_and_in_order() {
        let frames = numbered(130, 200);
        let lengths: Vec<usize> = frames.bursts().map(|burst| burst.len()).collect();
        assert_eq!(lengths, [64, 64, 2]);
        let seen: Vec<(u8, usize)> = frames
            .bursts()
            .flat_map(Burst::iter)
            .map(|frame| (frame[0], frame.len()))
            .collect();
        let expected: Vec<(u8, usize)> = (0..130).map(|number| (number, 1 + usize::from(number))).collect();
        assert_eq!(seen, expected);
        assert!(frames.all().get(130).is_none());
    }

    #[test]
    fn a_full_ring_has_no_slot_until_it_is_cleared() {
        let mut frames = numbered(3, 3);
        assert!(frames.is_full() && frames.slot().is_none());
        frames.clear();
        assert!(frames.is_empty() && frames.get(0).is_none() && frames.slot().is_some());
    }
}
