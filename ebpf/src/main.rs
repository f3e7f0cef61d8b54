//! tidegate's XDP program: TCP to a served address and port, and ICMP "too big" about TCP from there, goes to the
//! AF_XDP socket of the receiving queue, all else to the kernel.
//!
//! It never drops and never changes a frame. [`parse`] finds what a frame is for ([`icmp`] where it is ICMP), [`steer`]
//! whether that is served, and [`counters`] remembers the reason for every verdict.
#![no_std]
#![no_main]

mod counters;
mod icmp;
mod parse;
mod steer;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};

/// The verdict on one frame.
#[xdp]
pub fn tidegate(ctx: XdpContext) -> u32 {
    let queue = ctx.rx_queue_index();
    let (action, counter) = match parse::destination(parse::Frame::new(&ctx)) {
        Ok(destination) => steer::steer(&destination, queue),
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
