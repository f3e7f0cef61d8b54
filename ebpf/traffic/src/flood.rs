//! Writes a packet into the frame it runs on, and sends it.
//!
//! The frame is written whole: its page has been with a receiver before, which may have left anything in it.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, bpf_redirect, bpf_xdp_adjust_tail},
    macros::map,
    maps::{Array, PerCpuArray},
    programs::XdpContext,
};
use tidegate_traffic_abi::packet::{
    self, ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_WORDS, IPV6_WORDS, MAX_FRAME_V4, MAX_FRAME_V6,
};
use tidegate_traffic_abi::{Flood, INPUT_LENGTH, Progress, Random, Schedule, counter};

use crate::counters;
use crate::frame::head;

#[map]
static FLOOD: Array<Flood> = Array::with_max_entries(1, 0);

#[map]
static SCHEDULE: Array<Schedule> = Array::with_max_entries(1, 0);

/// The progress of each CPU in it.
#[map]
static PROGRESS: PerCpuArray<Progress> = PerCpuArray::with_max_entries(1, 0);

/// The state of the random numbers, which userspace has set differently for each CPU.
#[map]
static RANDOM: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The frame as pairs of octets: behind an Ethernet header nothing wider is aligned. A live frame begins at a multiple
/// of 8 within its page.
type FrameV4 = [u16; MAX_FRAME_V4 / 2];
type FrameV6 = [u16; MAX_FRAME_V6 / 2];

/// Where the headers begin, in pairs of octets.
const IP: usize = ETHERNET_HEADER / 2;
const TRANSPORT_V4: usize = IP + 2 * IPV4_WORDS;
const TRANSPORT_V6: usize = IP + 2 * IPV6_WORDS;

/// Writes words to `$frame` from index `$first` on. Each index is a constant, without a loop that might remain one.
macro_rules! write_words {
    ($frame:ident[$first:expr] = $words:expr, $($index:literal)+) => {
        $(
            $frame[$first + 2 * $index] = (($words[$index] >> 16) as u16).to_be();
            $frame[$first + 2 * $index + 1] = ($words[$index] as u16).to_be();
        )+
    };
}

/// Makes the next packet and sends it. `None` if none is due, or there are no settings, or none that are allowed.
#[inline(always)]
pub fn send(ctx: &XdpContext) -> Option<u32> {
    let progress = PROGRESS.get_ptr_mut(0)?;
    // SAFETY: the helper only reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the running CPU's own slot, which lives as long as the map. The kernel runs the program with softirqs
    // disabled, so nothing else on this CPU uses it.
    unsafe { *progress = SCHEDULE.get(0)?.next(now, *progress)? };
    let flood = FLOOD.get(0)?;
    let state = RANDOM.get_ptr_mut(0)?;
    // SAFETY: as above.
    let mut random = Random(unsafe { *state });
    let length = match flood.version {
        4 => write_v4(ctx, flood, &mut random)?,
        6 => write_v6(ctx, flood, &mut random)?,
        _ => return None,
    };
    // SAFETY: as above.
    unsafe { *state = random.0 };
    // SAFETY: the context is that of the running program; no reference into the frame is used after this.
    let failed = unsafe { bpf_xdp_adjust_tail(ctx.ctx, length as i32 - INPUT_LENGTH as i32) };
    if failed != 0 {
        return None;
    }
    counters::add_one(counter::FRAMES);
    // SAFETY: the helper takes numbers, and notes where the frame is to go.
    Some(unsafe { bpf_redirect(flood.interface, 0) } as u32)
}

/// Writes an IPv4 packet. Returns the length of its frame.
#[inline(always)]
fn write_v4(ctx: &XdpContext, flood: &Flood, random: &mut Random) -> Option<usize> {
    let packet = packet::ipv4(flood, random)?;
    // SAFETY: these octets are in the frame, as `head` has compared; they are aligned for pairs; nothing else refers
    // to them.
    let frame = unsafe { &mut *head::<FrameV4>(ctx)? };
    write_ethernet(frame, flood, ETHERTYPE_IPV4);
    write_words!(frame[IP] = packet.ip, 0 1 2 3 4);
    write_words!(frame[TRANSPORT_V4] = packet.transport, 0 1 2 3 4 5 6 7 8 9 10);
    Some(packet.frame_length)
}

/// Writes an IPv6 packet. Returns the length of its frame.
#[inline(always)]
fn write_v6(ctx: &XdpContext, flood: &Flood, random: &mut Random) -> Option<usize> {
    let packet = packet::ipv6(flood, random)?;
    // SAFETY: as in `write_v4`.
    let frame = unsafe { &mut *head::<FrameV6>(ctx)? };
    write_ethernet(frame, flood, ETHERTYPE_IPV6);
    write_words!(frame[IP] = packet.ip, 0 1 2 3 4 5 6 7 8 9);
    write_words!(frame[TRANSPORT_V6] = packet.transport, 0 1 2 3 4 5 6 7 8 9 10);
    Some(packet.frame_length)
}

/// Writes the Ethernet header.
#[inline(always)]
fn write_ethernet<const N: usize>(frame: &mut [u16; N], flood: &Flood, ethertype: u16) {
    let [a, b, c, d, e, f] = flood.target_mac;
    let [g, h, i, j, k, l] = flood.source_mac;
    frame[0] = u16::from_ne_bytes([a, b]);
    frame[1] = u16::from_ne_bytes([c, d]);
    frame[2] = u16::from_ne_bytes([e, f]);
    frame[3] = u16::from_ne_bytes([g, h]);
    frame[4] = u16::from_ne_bytes([i, j]);
    frame[5] = u16::from_ne_bytes([k, l]);
    frame[6] = ethertype.to_be();
}
