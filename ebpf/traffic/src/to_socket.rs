//! Takes the frames of a bare AF_XDP reflect to its socket, at the least cost there is.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::map, maps::XskMap, programs::XdpContext};
use tidegate_traffic_abi::TO_SOCKET_ETHER_TYPE;
use tidegate_traffic_abi::packet::ETHERNET_HEADER;

use crate::frame::head;

/// The socket of the first receive queue.
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(1, 0);

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
