//! Steering: a frame for a served address and port goes to the AF_XDP socket of the queue that received it, unless it
//! is answered or dropped before. So does what comes from a remote that a client talks to.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use tidegate_abi::{MAX_QUEUES, XdpCounter};

use crate::frame::Frame;
use crate::maps::{DEVICE_XSKS, DEVICES, LISTENER_SLOTS, LISTENERS, XSKS, holds, is_attended};
use crate::parse::{Destination, Segment};
use crate::{flow_filter, remotes, sources, syn_ack};

/// Control bits (RFC 9293, section 3.1).
pub const FIN: usize = 0x01;
pub const SYN: usize = 0x02;
pub const RST: usize = 0x04;
pub const ACK: usize = 0x10;

/// The XDP action for a frame for `destination` that came in on `queue`, and the counter that says why.
#[inline(always)]
pub fn steer(frame: Frame<'_>, destination: &Destination, queue: u32) -> (u32, XdpCounter) {
    let is_served = holds(&LISTENER_SLOTS, &LISTENERS, &destination.listener);
    let version = destination.listener.version();
    let segment = &destination.segment;
    let features = sources::features();
    let redirected = if is_served && !is_attended(queue, features) {
        return (XDP_PASS, XdpCounter::PassNoSocket);
    } else if destination.is_too_big() {
        // About what a client sent as well: that is left to the kernel.
        if !is_served {
            return (XDP_PASS, XdpCounter::PassNotTcp);
        }
        if !flow_filter::knows_quoted(frame, segment, version) {
            return (XDP_DROP, XdpCounter::DropNoFlow);
        }
        XdpCounter::RedirectTooBig
    } else if is_served {
        match admit(frame, segment, version, queue, features) {
            Ok(counter) => counter,
            Err(verdict) => return verdict,
        }
    } else if remotes::is_source(frame, segment, version) {
        XdpCounter::RedirectRemote
    } else {
        return (XDP_PASS, XdpCounter::PassNotServed);
    };
    // The flags are the action the kernel returns when the queue has no socket, the moment after a crash included.
    match XSKS
        .redirect(queue, XDP_PASS.into())
        .or_else(|_| redirect_by_device(frame, queue))
    {
        Ok(redirect) => (redirect, redirected),
        Err(_) => (XDP_PASS, XdpCounter::PassNoSocket),
    }
}

/// As the redirect by [`XSKS`], which is empty where there are several devices: that of one costs nothing more.
#[inline(always)]
fn redirect_by_device(frame: Frame<'_>, queue: u32) -> Result<u32, u32> {
    // What is above would be the next device's.
    if queue >= MAX_QUEUES {
        return Err(XDP_PASS);
    }
    let Some(first) = DEVICES.get_ptr(frame.device()) else {
        return Err(XDP_PASS);
    };
    // SAFETY: a map's entry, which lives as long as the map; userspace writes it before the program is attached.
    DEVICE_XSKS.redirect(unsafe { *first } + queue, XDP_PASS.into())
}

/// Whether a segment to a served destination is for the engine, and as what it is counted; else its verdict.
#[inline(always)]
fn admit(
    frame: Frame<'_>,
    segment: &Segment,
    version: u8,
    queue: u32,
    features: u32,
) -> Result<XdpCounter, (u32, XdpCounter)> {
    if sources::is_denied(frame, segment, version, features) {
        return Err((XDP_DROP, XdpCounter::DropSourceDenied));
    }
    if segment.flags & (SYN | ACK) != SYN {
        return flow_filter::admit(frame, segment, version, queue, features);
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
