//! Free frames in their pool, and the token of a frame that is in somebody's hand.

use std::mem::ManuallyDrop;

/// The right to one frame of a UMEM. It cannot be copied, so two places cannot have the same frame.
///
/// The kernel's rings hold numbers, not tokens: a token ends when its frame enters a ring, and a new one begins when
/// the frame comes out. A token that is dropped is a frame lost, which debug builds take as a bug.
#[must_use = "a frame that is put nowhere is lost"]
#[derive(Debug)]
pub struct Frame(u32);

impl Frame {
    /// The token of a frame that just came out of a ring.
    #[inline]
    pub fn out_of_ring(number: u32) -> Self {
        Self(number)
    }

    /// Ends the token, for a frame that is about to enter a ring. Returns the frame's number.
    #[inline]
    pub fn into_number(self) -> u32 {
        ManuallyDrop::new(self).0
    }
}

#[cfg(debug_assertions)]
impl Drop for Frame {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "frame {} was lost", self.0);
    }
}

/// The free frames of one UMEM; the one freed last is given out first, while the caches still know it.
#[derive(Debug)]
pub struct FramePool {
    free: Vec<u32>,
    total: u32,
    /// By frame number: whether it is free. Catches a frame that is put back twice.
    #[cfg(debug_assertions)]
    is_free: Vec<bool>,
}

impl FramePool {
    /// A pool that has all frames of a UMEM of `total`.
    pub fn new(total: u32) -> Self {
        Self {
            // In this order, so that the first to be given out is frame 0.
            free: (0..total).rev().collect(),
            total,
            #[cfg(debug_assertions)]
            is_free: vec![true; total as usize],
        }
    }

    /// The number of frames of the UMEM.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// The number of free frames.
    #[inline]
    pub fn free(&self) -> u32 {
        self.free.len() as u32
    }

    /// Takes a free frame.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        let number = self.free.pop()?;
        #[cfg(debug_assertions)]
        {
            self.is_free[number as usize] = false;
        }
        Some(Frame(number))
    }

    /// Puts a frame back.
    #[inline]
    pub fn put(&mut self, frame: Frame) {
        let number = frame.into_number();
        #[cfg(debug_assertions)]
        {
            assert!(!self.is_free[number as usize], "frame {number} is in two places");
            self.is_free[number as usize] = true;
        }
        // The pool was made with room for all frames, so this never allocates.
        self.free.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_given_out_once() {
        let mut pool = FramePool::new(4);
        let frames: Vec<Frame> = core::iter::from_fn(|| pool.take()).collect();
        assert_eq!(pool.free(), 0);
        let mut numbers: Vec<u32> = frames.into_iter().map(Frame::into_number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3]);
        for number in numbers {
            pool.put(Frame::out_of_ring(number));
        }
        assert_eq!(pool.free(), pool.total());
    }

    #[test]
    fn the_frame_freed_last_is_given_out_first() {
        let mut pool = FramePool::new(4);
        let first = pool.take().expect("a frame").into_number();
        let second = pool.take().expect("a frame").into_number();
        pool.put(Frame::out_of_ring(second));
        pool.put(Frame::out_of_ring(first));
        assert_eq!(pool.take().expect("a frame").into_number(), first);
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "frame 2 was lost")]
    fn a_dropped_frame_is_a_bug() {
        drop(Frame::out_of_ring(2));
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "frame 1 is in two places")]
    fn a_frame_put_back_twice_is_a_bug() {
        let mut pool = FramePool::new(2);
        pool.put(Frame::out_of_ring(1));
    }
}
