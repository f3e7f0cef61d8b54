//! One count for each frame, under the reason for its verdict.

use tidegate_abi::XdpCounter;

use crate::maps::COUNTERS;

/// Adds one to `counter` of receive queue `queue`.
#[inline(always)]
pub fn add_one(counter: XdpCounter, queue: u32) {
    if let Some(count) = COUNTERS.get_ptr_mut(counter.index(queue)) {
        // SAFETY: the kernel gave this pointer to the running CPU's own slot, which lives as long as the map. No other
        // run of the program shares it: XDP runs with softirqs disabled.
        unsafe { *count = (*count).wrapping_add(1) };
    }
}
