//! tidegate's XDP program: TCP to a served address and port, and ICMP "too big" about TCP from there, goes to the
//! AF_XDP socket of the receiving queue, all else to the kernel. While SYN cookies are on for a queue, its SYNs are
//! answered here, and segments of flows that no engine has are dropped here.
//!
//! It never drops or changes a frame that is for another address and port; it only redirects those of them that come
//! from a server which a client of this host talks to.
//!
//! | module | concern |
//! |---|---|
//! | [`frame`] | access to the packet, the only one there is |
//! | [`maps`] | every map |
//! | [`headers`] | lengths, offsets and numbers of headers |
//! | [`parse`], [`icmp`] | the address and port a frame is for, or is about where it is ICMP |
//! | [`steer`] | whether that is served, and the verdict |
//! | [`sources`] | whether its sender is served |
//! | [`remotes`] | whether it comes from a server that a client of this host talks to |
//! | [`flow_filter`] | whether an engine has its flow, and what becomes of it if none has |
//! | [`syn_ack`], [`syn_options`] | SYN-ACKs with cookies, by the options of the SYN |
//! | [`mod@decapsulate`] | what balancers send, without its outer headers |
//! | [`capture`] | copies of what is dropped and answered, while somebody looks |
//! | [`scratch`] | values passed through a map for the verifier's sake |
//! | [`counters`] | the reason for every verdict |
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod capture;
mod counters;
mod decapsulate;
mod flow_filter;
mod frame;
mod headers;
mod icmp;
mod maps;
mod parse;
mod remotes;
mod scratch;
mod sources;
mod steer;
mod syn_ack;
mod syn_options;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};
use tidegate_abi::XdpCounter;

use crate::decapsulate::{Decapsulated, decapsulate};

/// The verdict on one frame.
#[xdp]
pub fn tidegate(ctx: XdpContext) -> u32 {
    verdict(&ctx, None)
}

/// The verdict on one frame that may lie in several buffers, for MTUs that take it (Linux 6.6 redirects such frames to
/// AF_XDP sockets). A program of its own, so that the other one is no longer for it and taken by older kernels.
#[xdp(frags)]
pub fn tidegate_frags(ctx: XdpContext) -> u32 {
    // Asked for first, while there is nothing that would have to be kept elsewhere across the call.
    let length = frame::length_of_all_buffers(&ctx);
    verdict(&ctx, Some(length))
}

/// The same behind balancers. A program of its own: hosts without balancers are not to pay for the look.
#[xdp]
pub fn tidegate_balanced(ctx: XdpContext) -> u32 {
    let queue = ctx.rx_queue_index();
    // Where nobody serves any more the kernel gets what came.
    let decapsulated = if maps::is_attended(queue, sources::features()) {
        decapsulate(&ctx)
    } else {
        Decapsulated::No
    };
    match decapsulated {
        Decapsulated::No => {}
        Decapsulated::Yes => counters::add_one(XdpCounter::Decapsulated, queue),
        Decapsulated::NotFromBalancer => {
            counters::add_one(XdpCounter::PassNotBalancer, queue);
            return XDP_PASS;
        }
    }
    verdict(&ctx, None)
}

#[inline(always)]
fn verdict(ctx: &XdpContext, length: Option<u64>) -> u32 {
    let queue = ctx.rx_queue_index();
    let frame = frame::Frame::new(ctx);
    let (action, counter) = match parse::destination(frame, length) {
        Ok(destination) => steer::steer(frame, &destination, queue),
        Err(reason) => (XDP_PASS, reason),
    };
    counters::add_one(counter, queue);
    capture::verdict(ctx, action, counter);
    action
}

/// Nothing here panics; the compiler asks for a handler all the same.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// `bpf_redirect_map` is open to any licence, but the kernel wants one named.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
