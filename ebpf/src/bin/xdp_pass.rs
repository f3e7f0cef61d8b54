//! An XDP program that passes every frame: the peer of a veth device needs a native program, or the frames sent to it
//! by XDP are lost.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};

/// Passes the frame to the kernel.
#[xdp]
pub fn xdp_pass(_: XdpContext) -> u32 {
    XDP_PASS
}

/// The same for frames in several buffers.
#[xdp(frags)]
pub fn xdp_pass_frags(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Nothing here panics; the compiler asks for a handler all the same.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel wants a licence named.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
