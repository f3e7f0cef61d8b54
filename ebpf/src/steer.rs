//! What is for a served address and port goes to the AF_XDP socket of the queue that received the frame.

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    macros::map,
    maps::{HashMap, XskMap},
};
use tidegate_abi::{ListenerKey, MAX_LISTENERS, MAX_QUEUES, XdpCounter};

use crate::parse::{Content, Destination};

/// The destinations served; written by userspace, and only looked up here.
#[map]
static LISTENERS: HashMap<ListenerKey, u32> = HashMap::with_max_entries(MAX_LISTENERS, 0);

/// The AF_XDP socket of each receive queue. A socket takes frames of its own queue only, so the queue is the index.
#[map]
static XSKS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

/// The XDP action for a frame for `destination` that came in on `queue`, and the counter that says why.
#[inline(always)]
pub fn steer(destination: &Destination, queue: u32) -> (u32, XdpCounter) {
    let (redirected, not_served) = match destination.content {
        Content::Segment => (XdpCounter::Redirect, XdpCounter::PassNotServed),
        Content::TooBig => (XdpCounter::RedirectTooBig, XdpCounter::PassNotTcp),
    };
    if LISTENERS.get_ptr(destination.listener).is_none() {
        return (XDP_PASS, not_served);
    }
    // The flags are the action the kernel returns when the queue has no socket, the moment after a crash included.
    match XSKS.redirect(queue, XDP_PASS.into()) {
        Ok(redirect) => (redirect, redirected),
        Err(_) => (XDP_PASS, XdpCounter::PassNoSocket),
    }
}
