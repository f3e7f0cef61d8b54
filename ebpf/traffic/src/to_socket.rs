//! Takes frames to AF_XDP sockets, those of a bare reflect at the least cost there is.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::map,
    maps::XskMap,
    programs::XdpContext,
};
use tidegate_traffic_abi::packet::ETHERNET_HEADER;
use tidegate_traffic_abi::{MAX_QUEUES, TO_SOCKET_ETHER_TYPE};

use crate::frame::head;

/// The socket of each receive queue.
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

/// Redirects a frame of the reflect; `None` for anything else, and for another queue's.
#[inline(always)]
pub fn redirect(ctx: &XdpContext) -> Option<u32> {
    let pointer = head::<[u8; ETHERNET_HEADER]>(ctx)?;
    // SAFETY: these octets are in the frame, as `head` has compared, and nothing writes to them meanwhile.
    let octets = unsafe { &*pointer };
    if u16::from_be_bytes([octets[12], octets[13]]) != TO_SOCKET_ETHER_TYPE {
        return None;
    }
    SOCKETS.redirect(ctx.rx_queue_index(), XDP_PASS.into()).ok()
}

/// Redirects a frame to the socket of its queue, or drops it if there is none.
#[inline(always)]
pub fn redirect_or_drop(ctx: &XdpContext) -> u32 {
    SOCKETS
        .redirect(ctx.rx_queue_index(), XDP_DROP.into())
        .unwrap_or(XDP_DROP)
}
