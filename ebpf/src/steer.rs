//! What is for a served address and port goes to the AF_XDP socket of the queue that received the frame, but for what
//! is answered or dropped before. So does what comes from a remote that a client talks to.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::map,
    maps::{HashMap, XskMap},
};
use tidegate_abi::{ListenerKey, MAX_LISTENERS, MAX_QUEUES, XdpCounter};

use crate::parse::{Content, Destination, Frame, Segment};
use crate::{remotes, sources, syn_ack};

/// Control bits (RFC 9293, section 3.1).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The destinations served; written by userspace, and only looked up here.
#[map]
static LISTENERS: HashMap<ListenerKey, u32> = HashMap::with_max_entries(MAX_LISTENERS, 0);

/// The AF_XDP socket of each receive queue. A socket takes frames of its own queue only, so the queue is the index.
#[map]
static XSKS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

/// The XDP action for a frame for `destination` that came in on `queue`, and the counter that says why.
#[inline(always)]
pub fn steer(frame: Frame<'_>, destination: &Destination, queue: u32) -> (u32, XdpCounter) {
    let is_served = LISTENERS.get_ptr(destination.listener).is_some();
    let version = destination.listener.version;
    let redirected = match destination.content {
        Content::TooBig if is_served => XdpCounter::RedirectTooBig,
        // About what a client sent as well: that is left to the kernel.
        Content::TooBig => return (XDP_PASS, XdpCounter::PassNotTcp),
        Content::Segment(segment) if is_served => match admit(frame, &segment, version, queue) {
            Ok(counter) => counter,
            Err(verdict) => return verdict,
        },
        Content::Segment(segment) if remotes::is_source(frame, &segment, version) => XdpCounter::RedirectRemote,
        Content::Segment(_) => return (XDP_PASS, XdpCounter::PassNotServed),
    };
    // The flags are the action the kernel returns when the queue has no socket, the moment after a crash included.
    match XSKS.redirect(queue, XDP_PASS.into()) {
        Ok(redirect) => (redirect, redirected),
        Err(_) => (XDP_PASS, XdpCounter::PassNoSocket),
    }
}

/// Whether a segment to a served destination is for the engine, and as what it is counted; else its verdict.
#[inline(always)]
fn admit(frame: Frame<'_>, segment: &Segment, version: u8, queue: u32) -> Result<XdpCounter, (u32, XdpCounter)> {
    let features = sources::features();
    if sources::is_denied(frame, segment, version, features) {
        return Err((XDP_DROP, XdpCounter::DropSourceDenied));
    }
    if segment.flags & (SYN | ACK) != SYN {
        return Ok(XdpCounter::Redirect);
    }
    if segment.flags & (FIN | RST) != 0 {
        return Err((XDP_DROP, XdpCounter::DropSynFlags));
    }
    if sources::is_above_rate(frame, segment, version, features) {
        return Err((XDP_DROP, XdpCounter::DropSynRate));
    }
    match syn_ack::answer(frame, segment, version, queue) {
        Some(verdict) => Err(verdict),
        None => Ok(XdpCounter::RedirectSyn),
    }
}
