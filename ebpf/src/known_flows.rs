//! The flows the engines know, as far as userspace's counts tell: a SYN of one of them is for its engine.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use tidegate_abi::known_flows::{SLOTS_PER_WORD, word_of};

/// Counts of flows by slot, eight to a word; userspace writes them in the map's own memory. The loader sets the size.
#[map]
static KNOWN_FLOWS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Whether the count of `slot` is above zero: an engine may know a flow of this slot.
#[inline(always)]
pub fn is_counted(slot: u32) -> bool {
    let Some(word) = KNOWN_FLOWS.get_ptr(word_of(slot)) else {
        return false;
    };
    // SAFETY: one of the eight octets of a map's entry; userspace changes it meanwhile, as a whole.
    unsafe { word.cast::<u8>().add((slot % SLOTS_PER_WORD) as usize).read_volatile() != 0 }
}
