//! The flows the engines know, as far as userspace's counts tell: a SYN of one of them is for its engine.

use tidegate_abi::known_flows::{SLOTS_PER_WORD, word_of};

use crate::maps::KNOWN_FLOWS;

/// Whether the count of `slot` is above zero: an engine may know a flow of this slot.
#[inline(always)]
pub fn is_counted(slot: u32) -> bool {
    let Some(word) = KNOWN_FLOWS.get_ptr(word_of(slot)) else {
        return false;
    };
    // SAFETY: one of the eight octets of a map's entry; userspace changes it meanwhile, as a whole.
    unsafe { word.cast::<u8>().add((slot % SLOTS_PER_WORD) as usize).read_volatile() != 0 }
}
