//! Takes the segments that answer a flood, and what comes from its addresses: nobody is there, but for the flood itself
//! where its kind needs the answers.

use aya_ebpf::{bindings::xdp_action::XDP_DROP, macros::map, maps::Array, programs::XdpContext};
use tidegate_traffic_abi::packet::ETHERNET_HEADER;
use tidegate_traffic_abi::{Sink, counter};

use crate::counters;
use crate::frame::{ACK, IPV4_HEADER, IPV6_HEADER, RST, SYN, TCP_FLAGS, head, length, segment_v4, segment_v6, word};
use crate::to_socket::redirect_or_drop;

#[map]
static SINK: Array<Sink> = Array::with_max_entries(1, 0);

/// Offsets of the source address in the frame.
const SOURCE_V4: usize = ETHERNET_HEADER + 12;
const SOURCE_V6: usize = ETHERNET_HEADER + 8;

/// Offsets of the destination address.
const DESTINATION_V4: usize = ETHERNET_HEADER + 16;
const DESTINATION_V6: usize = ETHERNET_HEADER + 24;

/// Counts a TCP segment for one of the flood's addresses, and takes it to the flood's socket or drops it; `None` for
/// anything else.
#[inline(always)]
pub fn take(ctx: &XdpContext) -> Option<u32> {
    let sink = SINK.get(0)?;
    let flags = match flags_v4(ctx, sink) {
        Some(flags) => flags,
        None => flags_v6(ctx, sink)?,
    };
    counters::add_one(if flags & RST != 0 {
        counter::RSTS
    } else if flags & (SYN | ACK) == SYN | ACK {
        counter::SYN_ACKS
    } else {
        counter::OTHERS
    });
    counters::add(counter::SINK_OCTETS, length(ctx));
    Some(redirect_or_drop(ctx))
}

/// The control bits of an IPv4 segment for one of the flood's addresses.
#[inline(always)]
fn flags_v4(ctx: &XdpContext, sink: &Sink) -> Option<u8> {
    // SAFETY: these octets are in the frame, as was compared for the pointer, and nothing writes to them.
    let segment = unsafe { &*segment_v4(ctx)? };
    is_floods_v4(segment, DESTINATION_V4, sink).then_some(segment[ETHERNET_HEADER + IPV4_HEADER + TCP_FLAGS])
}

/// The same of an IPv6 segment.
#[inline(always)]
fn flags_v6(ctx: &XdpContext, sink: &Sink) -> Option<u8> {
    // SAFETY: as above.
    let segment = unsafe { &*segment_v6(ctx)? };
    is_floods_v6(segment, DESTINATION_V6, sink).then_some(segment[ETHERNET_HEADER + IPV6_HEADER + TCP_FLAGS])
}

/// Counts and drops a frame from one of the flood's addresses; `None` for anything else.
#[inline(always)]
pub fn filter(ctx: &XdpContext) -> Option<u32> {
    let sink = SINK.get(0)?;
    if !is_from_v4(ctx, sink) && !is_from_v6(ctx, sink) {
        return None;
    }
    counters::add_one(counter::FILTERED);
    Some(XDP_DROP)
}

/// Whether it is an IPv4 packet from one of the flood's addresses, whatever is in it.
#[inline(always)]
fn is_from_v4(ctx: &XdpContext, sink: &Sink) -> bool {
    let Some(pointer) = head::<[u8; ETHERNET_HEADER + IPV4_HEADER]>(ctx) else {
        return false;
    };
    // SAFETY: these octets are in the frame, as `head` has compared, and nothing writes to them.
    let octets = unsafe { &*pointer };
    octets[12] == 0x08 && octets[13] == 0x00 && is_floods_v4(octets, SOURCE_V4, sink)
}

/// Whether it is an IPv6 packet from one of the flood's addresses, whatever is in it.
#[inline(always)]
fn is_from_v6(ctx: &XdpContext, sink: &Sink) -> bool {
    let Some(pointer) = head::<[u8; ETHERNET_HEADER + IPV6_HEADER]>(ctx) else {
        return false;
    };
    // SAFETY: as above.
    let octets = unsafe { &*pointer };
    octets[12] == 0x86 && octets[13] == 0xdd && is_floods_v6(octets, SOURCE_V6, sink)
}

/// Whether the IPv4 address at `at` is one of the flood's.
#[inline(always)]
fn is_floods_v4<const N: usize>(octets: &[u8; N], at: usize, sink: &Sink) -> bool {
    word(octets, at) & sink.v4_mask == sink.v4
}

/// Whether the IPv6 address at `at` is one of the flood's.
#[inline(always)]
fn is_floods_v6<const N: usize>(octets: &[u8; N], at: usize, sink: &Sink) -> bool {
    word(octets, at) & sink.v6_mask[0] == sink.v6[0]
        && word(octets, at + 4) & sink.v6_mask[1] == sink.v6[1]
        && word(octets, at + 8) & sink.v6_mask[2] == sink.v6[2]
        && word(octets, at + 12) & sink.v6_mask[3] == sink.v6[3]
}
