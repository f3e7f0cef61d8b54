//! The flows the engines know, as far as userspace's counts tell: a SYN of one of them is for its engine.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use tidegate_abi::known_flows::{FlowSlots, is_counted, word_of};

use crate::frame::Frame;
use crate::parse::{IPV4_HEADER, IPV6_HEADER, Segment};

/// Counts of flows by slot, eight to a word; userspace writes them in the map's own memory. The loader sets the size.
#[map]
static KNOWN_FLOWS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// 32-bit words of the IP header with the ports behind it.
const V4_WORDS: usize = IPV4_HEADER / 4 + 1;
const V6_WORDS: usize = IPV6_HEADER / 4 + 1;

/// Whether an engine may know the flow of a segment behind a plain IP header. It is only wrong where there is none.
#[inline(always)]
pub fn may_hold(frame: Frame<'_>, segment: &Segment, version: u8, slots: &FlowSlots) -> bool {
    let packet = frame.from(segment.ip);
    let slot = if version == 4 {
        let Some(words) = packet.words::<V4_WORDS>() else {
            return false;
        };
        slots.v4(words.get(3), words.get(4), words.get(5))
    } else {
        let Some(words) = packet.words::<V6_WORDS>() else {
            return false;
        };
        let address = |first| {
            [
                words.get(first),
                words.get(first + 1),
                words.get(first + 2),
                words.get(first + 3),
            ]
        };
        slots.v6(address(2), address(6), words.get(10))
    };
    match KNOWN_FLOWS.get_ptr(word_of(slot)) {
        // SAFETY: an aligned word in a map's entry; userspace changes its octets meanwhile, each as a whole.
        Some(word) => is_counted(unsafe { word.read_volatile() }, slot),
        None => false,
    }
}
