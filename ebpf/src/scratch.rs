//! Values that the verifier is to know nothing of.
//!
//! It follows what is in a register through every branch, each value by itself, and walks a limited number of ways. Of
//! what is in a map it knows nothing, so values that come out of one are followed once.

use crate::maps::{SCRATCH, ScratchValues};

/// The running CPU's values. All access is volatile, so that LLVM does not keep them in registers after all.
#[derive(Clone, Copy)]
pub struct Scratch(*mut ScratchValues);

impl Scratch {
    /// The running CPU's.
    #[inline(always)]
    pub fn get() -> Option<Self> {
        SCRATCH.get_ptr_mut(0).map(Self)
    }

    /// `value`, of which the verifier then knows nothing. Overwrites the offer.
    #[inline(always)]
    pub fn launder(self, value: u64) -> u64 {
        self.set_offer(value);
        self.offer()
    }

    /// Both numbers, of which the verifier then knows no more than that the first is below 128 and the second below 64.
    /// Overwrites the others.
    #[inline(always)]
    pub fn launder_both(self, first: usize, second: usize) -> (usize, usize) {
        self.set_at(first);
        // SAFETY: as in `at`.
        let first = unsafe { (&raw const (*self.0).at).read_volatile() as usize };
        (first & 0x7f, self.launder(second as u64) as usize & 0x3f)
    }

    /// Octets of options that were read, below 64.
    #[inline(always)]
    pub fn at(self) -> usize {
        // SAFETY: the map's value lives as long as the map, only this CPU uses it, and the field is aligned.
        unsafe { (&raw const (*self.0).at).read_volatile() as usize & 0x3f }
    }

    /// Sets [`Scratch::at`].
    #[inline(always)]
    pub fn set_at(self, at: usize) {
        // SAFETY: as in `at`.
        unsafe { (&raw mut (*self.0).at).write_volatile(at as u64) }
    }

    /// The options that were read: an offer in one word.
    #[inline(always)]
    pub fn offer(self) -> u64 {
        // SAFETY: as in `at`.
        unsafe { (&raw const (*self.0).offer).read_volatile() }
    }

    /// Sets [`Scratch::offer`].
    #[inline(always)]
    pub fn set_offer(self, offer: u64) {
        // SAFETY: as in `at`.
        unsafe { (&raw mut (*self.0).offer).write_volatile(offer) }
    }
}
