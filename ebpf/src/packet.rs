//! The one way by which the programs come to the octets of a frame.
//!
//! Verifiers differ in what they know of a number. Up to Linux 6.16 one that has changed its byte order may be anything
//! again; later ones refuse what compilers make of `offset - 1`. Compilers differ in the order in which they add, and a
//! verifier takes a sum in another order for another pointer, of which it knows nothing. So nothing is left to either:
//! an offset is masked and added in assembly, which the compiler does not look into, right before the comparison with
//! the frame's end, and what is read is at a constant distance from the pointer that was compared.

use core::arch::asm;

use aya_ebpf::bindings::xdp_md;

/// No offset in a frame is greater: 22 octets of Ethernet header and tags, 40 of IPv6, and six extension headers of 2,048
/// are less. One bit more, and together with what is read there it might exceed what verifiers follow, 65,535 octets.
pub const MAX_OFFSET: usize = 0x3fff;

/// No packet is longer: lengths in IP headers have 16 bits, and IPv6 does not count its own header.
const MAX_LENGTH: usize = 0x1_ffff;

/// The address of the frame's first octet.
#[inline(always)]
pub fn start(ctx: *mut xdp_md) -> usize {
    // SAFETY: the context is valid while the program runs, and its `data` is an aligned `u32`.
    unsafe { (*ctx).data as usize }
}

/// The address behind the frame's last octet, asked for anew each time: the compiler is not to conclude from one
/// comparison that a later one is not needed.
#[inline(always)]
fn end(ctx: *mut xdp_md) -> usize {
    // SAFETY: as in `start`, for `data_end`.
    unsafe { core::ptr::read_volatile(&raw const (*ctx).data_end) as usize }
}

/// The place of a `T` at `address`, which [`start`], [`advance`] or [`next_word`] gave, unless the frame ends before the
/// end of it.
#[inline(always)]
pub fn at<T>(ctx: *mut xdp_md, address: usize) -> Option<*mut T> {
    const { assert!(size_of::<T>() <= MAX_OFFSET) };
    (address + size_of::<T>() <= end(ctx)).then_some(address as *mut T)
}

/// The address `offset` octets behind `address`.
#[inline(always)]
pub fn advance(address: usize, offset: usize) -> usize {
    sum::<MAX_OFFSET>(address, offset)
}

/// Whether the frame reaches at least `length` octets past `address`.
#[inline(always)]
pub fn reaches(ctx: *mut xdp_md, address: usize, length: usize) -> bool {
    // Addresses are compared, and no length is computed: subtracting packet pointers takes CAP_PERFMON.
    sum::<MAX_LENGTH>(address, length) <= end(ctx)
}

/// `address + offset`, of which the verifier knows that no more than `MAX` was added. The compiler knows nothing of it, not
/// even that a sum with a constant does not wrap: from that it would make `sum >= end` of `sum + 1 > end`, and of the former
/// verifiers conclude nothing.
#[inline(always)]
fn sum<const MAX: usize>(address: usize, offset: usize) -> usize {
    let mut sum = address;
    // SAFETY: two instructions that change the registers they are given, and nothing else.
    unsafe {
        asm!(
            "{offset} &= {MAX}",
            "{sum} += {offset}",
            offset = inout(reg) offset => _,
            sum = inout(reg) sum,
            MAX = const MAX,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// `address + 4`, of which the compiler knows nothing: a loop that steps by it need not be unrolled to be understood.
#[inline(always)]
pub fn next_word(address: usize) -> usize {
    let mut next = address;
    // SAFETY: one instruction that changes the register it is given, and nothing else.
    unsafe {
        asm!("{next} += 4", next = inout(reg) next, options(pure, nomem, nostack, preserves_flags));
    }
    next
}
