//! Access to the frame, at constant offsets only, and the offsets of what is in a segment.

use aya_ebpf::programs::XdpContext;
use tidegate_traffic_abi::packet::ETHERNET_HEADER;

/// Octets of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Octets of an IPv6 header.
pub const IPV6_HEADER: usize = 40;
/// Octets of a TCP header without options.
pub const TCP_HEADER: usize = 20;

/// Octets of the headers of an IPv4 segment without options, Ethernet's included.
pub const HEADERS_V4: usize = ETHERNET_HEADER + IPV4_HEADER + TCP_HEADER;
/// The same of an IPv6 segment.
pub const HEADERS_V6: usize = ETHERNET_HEADER + IPV6_HEADER + TCP_HEADER;

/// Offset of the control bits in a TCP header.
pub const TCP_FLAGS: usize = 13;

/// Protocol number of TCP.
const TCP: u8 = 6;

/// "More fragments" and the high bits of the fragment offset, in octet 6 of an IPv4 header.
const FRAGMENT_HIGH: u8 = 0x3f;

/// Control bits (RFC 9293, section 3.1).
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// The frame's beginning as a `T`, unless the frame is shorter than that. `T` is an array of octets or of pairs of
/// them, for which any content is a value.
#[inline(always)]
pub fn head<T>(ctx: &XdpContext) -> Option<*mut T> {
    // SAFETY: the context is valid while the program runs, and its `data` is an aligned `u32`.
    let start = unsafe { (*ctx.ctx).data as usize };
    let end = start + size_of::<T>();
    (end <= frame_end(ctx)).then_some(start as *mut T)
}

/// The number of octets of the frame.
#[inline(always)]
pub fn length(ctx: &XdpContext) -> u64 {
    // SAFETY: as in `head`.
    let start = unsafe { (*ctx.ctx).data as usize };
    frame_end(ctx).wrapping_sub(start) as u64
}

/// The four octets at `at` as a number.
#[inline(always)]
pub fn word<const N: usize>(octets: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

/// The address behind the frame's last octet, asked for anew each time: the compiler is not to conclude from one
/// comparison that a later one is not needed, which verifiers ask for.
#[inline(always)]
fn frame_end(ctx: &XdpContext) -> usize {
    // SAFETY: as in `head`, for `data_end`.
    unsafe { core::ptr::read_volatile(&raw const (*ctx.ctx).data_end) as usize }
}

/// The headers of an unfragmented TCP segment over IPv4 without options, if that is what the frame begins with.
#[inline(always)]
pub fn segment_v4(ctx: &XdpContext) -> Option<*mut [u8; HEADERS_V4]> {
    let pointer = head::<[u8; HEADERS_V4]>(ctx)?;
    // SAFETY: these octets are in the frame, as `head` has compared, and nothing writes to them meanwhile.
    let octets = unsafe { &*pointer };
    let is_segment = octets[12] == 0x08
        && octets[13] == 0x00
        && octets[ETHERNET_HEADER] == 0x45
        && octets[ETHERNET_HEADER + 6] & FRAGMENT_HIGH == 0
        && octets[ETHERNET_HEADER + 7] == 0
        && octets[ETHERNET_HEADER + 9] == TCP;
    is_segment.then_some(pointer)
}

/// The headers of a TCP segment over IPv6 without extension headers, if that is what the frame begins with.
#[inline(always)]
pub fn segment_v6(ctx: &XdpContext) -> Option<*mut [u8; HEADERS_V6]> {
    let pointer = head::<[u8; HEADERS_V6]>(ctx)?;
    // SAFETY: as above.
    let octets = unsafe { &*pointer };
    let is_segment = octets[12] == 0x86
        && octets[13] == 0xdd
        && octets[ETHERNET_HEADER] >> 4 == 6
        && octets[ETHERNET_HEADER + 6] == TCP;
    is_segment.then_some(pointer)
}
