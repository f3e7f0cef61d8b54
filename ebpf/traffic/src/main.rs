//! The XDP programs of the benchmarks: one that makes a flood, one that counts its answers, and three bare ones that
//! show what the machine itself can do.
//!
//! | program | what it does |
//! |---|---|
//! | [`flood()`] | writes a packet into the frame and sends it on an interface; run by `BPF_PROG_TEST_RUN` |
//! | [`sink()`] | counts TCP for the addresses the flood came from, and takes it to the flood's socket or drops it |
//! | [`reflect()`] | sends every SYN back as a SYN-ACK |
//! | [`filter()`] | counts and drops what comes from the addresses of the flood; the rest goes to the next program |
//! | [`to_socket()`] | redirects frames of an EtherType of their own to an AF_XDP socket |
#![no_std]
#![no_main]

mod counters;
mod flood;
mod frame;
mod sink;
mod syn;
mod to_socket;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::{map, xdp},
    maps::ProgramArray,
    programs::XdpContext,
};

/// The program behind the filter.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Sends one packet of the flood.
#[xdp]
pub fn flood(ctx: XdpContext) -> u32 {
    flood::send(&ctx).unwrap_or(XDP_DROP)
}

/// Takes what answers the flood.
#[xdp]
pub fn sink(ctx: XdpContext) -> u32 {
    sink::take(&ctx).unwrap_or(XDP_PASS)
}

/// Answers a SYN without a look at anything but its flags.
#[xdp]
pub fn reflect(ctx: XdpContext) -> u32 {
    syn::reflect(&ctx).unwrap_or(XDP_PASS)
}

/// Drops the flood, and leaves everything else to the next program, if there is one.
#[xdp]
pub fn filter(ctx: XdpContext) -> u32 {
    if let Some(action) = sink::filter(&ctx) {
        return action;
    }
    // SAFETY: the kernel takes only programs of the same type into the map, and nothing here is used afterwards.
    unsafe { NEXT.tail_call(&ctx, 0) };
    XDP_PASS
}

/// Takes a frame of the bare AF_XDP reflect to its socket.
#[xdp]
pub fn to_socket(ctx: XdpContext) -> u32 {
    to_socket::redirect(&ctx).unwrap_or(XDP_PASS)
}

/// Nothing here panics; the compiler asks for a handler all the same.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers used are open to any licence, but the kernel wants one named.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
