//! Takes the segments that answer a flood: nobody is at the addresses they are for, but for the flood itself where its
//! kind needs the answers.

use aya_ebpf::{macros::map, maps::Array, programs::XdpContext};
use tidegate_traffic_abi::packet::ETHERNET_HEADER;
use tidegate_traffic_abi::{Sink, counter};

use crate::counters;
use crate::frame::{ACK, IPV4_HEADER, IPV6_HEADER, RST, SYN, TCP_FLAGS, segment_v4, segment_v6};
use crate::to_socket::redirect_or_drop;

#[map]
static SINK: Array<Sink> = Array::with_max_entries(1, 0);

/// Offsets of the destination address in the frame.
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
    Some(redirect_or_drop(ctx))
}

/// The control bits of an IPv4 segment for one of the flood's addresses.
#[inline(always)]
fn flags_v4(ctx: &XdpContext, sink: &Sink) -> Option<u8> {
    // SAFETY: these octets are in the frame, as was compared for the pointer, and nothing writes to them.
    let segment = unsafe { &*segment_v4(ctx)? };
    let destination = u32::from_be_bytes([
        segment[DESTINATION_V4],
        segment[DESTINATION_V4 + 1],
        segment[DESTINATION_V4 + 2],
        segment[DESTINATION_V4 + 3],
    ]);
    (destination & sink.v4_mask == sink.v4).then_some(segment[ETHERNET_HEADER + IPV4_HEADER + TCP_FLAGS])
}

/// The same of an IPv6 segment.
#[inline(always)]
fn flags_v6(ctx: &XdpContext, sink: &Sink) -> Option<u8> {
    // SAFETY: as above.
    let segment = unsafe { &*segment_v6(ctx)? };
    let [a, b, c, d] = [
        word(segment, DESTINATION_V6),
        word(segment, DESTINATION_V6 + 4),
        word(segment, DESTINATION_V6 + 8),
        word(segment, DESTINATION_V6 + 12),
    ];
    let is_the_floods = a & sink.v6_mask[0] == sink.v6[0]
        && b & sink.v6_mask[1] == sink.v6[1]
        && c & sink.v6_mask[2] == sink.v6[2]
        && d & sink.v6_mask[3] == sink.v6[3];
    is_the_floods.then_some(segment[ETHERNET_HEADER + IPV6_HEADER + TCP_FLAGS])
}

#[inline(always)]
fn word<const N: usize>(octets: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}
