//! A dispatcher of libxdp's protocol, version 2: an XDP program that runs up to ten others, each put in the place of a
//! function of it.
//!
//! libxdp has to know it for one of its own: the names of the functions, their types and the layout of the
//! configuration are its.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{
    xdp_action::{XDP_ABORTED, XDP_PASS},
    xdp_md,
};
use aya_ebpf::helpers::bpf_xdp_adjust_tail;
use tidegate_abi::dispatcher::{CONTINUE, Config, MAX_PROGRAMS};

/// Written before the program is loaded, and constant for the verifier from then on.
#[unsafe(no_mangle)]
static CONFIG: Config = Config::EMPTY;

/// The function in a place that no program has taken. Its result is not to be known to the compiler, and it is to be
/// allowed to change the packet, since a program that does can take the place of such a function only.
#[inline(always)]
fn vacant(context: *mut xdp_md) -> i32 {
    let mut action = CONTINUE as i32;
    // SAFETY: a variable of this function.
    unsafe { (&raw mut action).write_volatile(CONTINUE as i32) };
    if context.is_null() {
        return XDP_ABORTED as i32;
    }
    // SAFETY: the context is that of the running program; by 0 octets nothing changes.
    unsafe { bpf_xdp_adjust_tail(context, 0) };
    // SAFETY: a variable of this function.
    unsafe { (&raw const action).read_volatile() }
}

macro_rules! places {
    ($($name:ident)*) => {$(
        #[doc = "A place for a program."]
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name(context: *mut xdp_md) -> i32 {
            vacant(context)
        }
    )*};
}

// libxdp tries `compat_test` to find out what the kernel can do.
places!(prog0 prog1 prog2 prog3 prog4 prog5 prog6 prog7 prog8 prog9 compat_test);

/// Runs the programs in turn, for as long as each says by its action that the next is to be run.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn xdp_dispatcher(context: *mut xdp_md) -> i32 {
    // SAFETY: a static, whose value the compiler is not to know.
    let programs = unsafe { (&raw const CONFIG.programs).read_volatile() };
    macro_rules! run {
        ($($index:literal $name:ident)*) => {$(
            if programs <= $index {
                return XDP_PASS as i32;
            }
            let action = $name(context);
            // SAFETY: as above.
            let go_on = unsafe { (&raw const CONFIG.chain_call_actions[$index]).read_volatile() };
            if 1 << (action as u32 & 31) & go_on == 0 {
                return action;
            }
        )*};
    }
    run!(0 prog0 1 prog1 2 prog2 3 prog3 4 prog4 5 prog5 6 prog6 7 prog7 8 prog8 9 prog9);
    if usize::from(programs) > MAX_PROGRAMS {
        return compat_test(context);
    }
    XDP_PASS as i32
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
