//! The counters of all programs here.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use tidegate_traffic_abi::counter;

#[map]
static TRAFFIC: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Adds one to the counter at `index`.
#[inline(always)]
pub fn add_one(index: u32) {
    add(index, 1);
}

/// Adds `more` to the counter at `index`.
#[inline(always)]
pub fn add(index: u32, more: u64) {
    if let Some(count) = TRAFFIC.get_ptr_mut(index) {
        // SAFETY: the kernel gave this pointer to the running CPU's own slot, which lives as long as the map. No other
        // run of the program shares it: XDP runs with softirqs disabled.
        unsafe { *count = (*count).wrapping_add(more) };
    }
}
