//! tidegate's XDP program: TCP to a served address and port, and ICMP "too big" about TCP from there, goes to the
//! AF_XDP socket of the receiving queue, all else to the kernel. While SYN cookies are on for a queue, its SYNs are
//! answered here.
//!
//! It never drops or changes a frame that is for another address and port; it only redirects those of them that come
//! from a server which a client of this host talks to. [`parse`] finds what a frame is for ([`icmp`] where it is ICMP) and
//! reads it through [`frame`] and [`packet`], [`steer`] whether that is served, [`remotes`] whether it comes from such a
//! server, [`sources`] whether its sender is served, [`known_flows`] whether an engine knows its flow, [`syn_ack`] answers
//! the SYNs of other flows with cookies by what [`offer`] reads, with [`scratch`] for the verifier's sake, and
//! [`counters`] remembers the reason for every verdict.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod counters;
mod frame;
mod icmp;
mod known_flows;
mod offer;
mod packet;
mod parse;
mod remotes;
mod scratch;
mod sources;
mod steer;
mod syn_ack;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};

/// The verdict on one frame.
#[xdp]
pub fn tidegate(ctx: XdpContext) -> u32 {
    let queue = ctx.rx_queue_index();
    let frame = frame::Frame::new(&ctx);
    let (action, counter) = match parse::destination(frame) {
        Ok(destination) => steer::steer(frame, &destination, queue),
        Err(reason) => (XDP_PASS, reason),
    };
    counters::add_one(counter, queue);
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
