//! Copies of the frames that never reach an engine, because they are dropped or answered here, while somebody captures.
//! Nobody does: a look at one word, and only for such frames.

use aya_ebpf::{
    bindings::{
        BPF_RB_NO_WAKEUP,
        xdp_action::{XDP_DROP, XDP_TX},
        xdp_md,
    },
    helpers::{bpf_jiffies64, bpf_ktime_get_ns, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use tidegate_abi::XdpCounter;
use tidegate_abi::capture::{MAX_OCTETS, MAX_PER_JIFFY, Sample};

use crate::counters;
use crate::maps::{CAPTURE, CAPTURE_RATE, CAPTURE_SWITCH};
use crate::parse::ETHERNET_HEADER;

/// Captures a frame with its verdict, if that is one of those that are captured: as it came, or, if it was answered, as
/// it leaves.
#[inline(always)]
pub fn verdict(ctx: &XdpContext, action: u32, counter: XdpCounter) {
    if (action == XDP_DROP || action == XDP_TX) && is_on() {
        take(ctx.ctx, counter as u32, u32::from(action == XDP_TX));
    }
}

/// Captures a SYN that is about to be made its answer.
#[inline(always)]
pub fn answered(context: *mut xdp_md) {
    if is_on() {
        take(context, XdpCounter::TxSynCookie as u32, 0);
    }
}

#[inline(always)]
fn is_on() -> bool {
    CAPTURE_SWITCH.get(0).is_some_and(|&switch| switch != 0)
}

/// Puts a sample of the frame into the ring. A function of its own, so that what it needs is not on the stack of the
/// others. Returns nothing of interest.
#[inline(never)]
fn take(context: *mut xdp_md, counter: u32, is_sent: u32) -> u32 {
    let taken = is_within_rate() && sample(context, counter, is_sent).is_some();
    if !taken {
        // SAFETY: the kernel gave the pointer for this run of the program.
        let queue = unsafe { (*context).rx_queue_index };
        counters::add_one(XdpCounter::CaptureLost, queue);
    }
    u32::from(taken)
}

#[inline(always)]
fn is_within_rate() -> bool {
    let Some(rate) = CAPTURE_RATE.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the helper takes nothing and reads a clock.
    let jiffy = unsafe { bpf_jiffies64() } << 32;
    // SAFETY: this CPU's own slot, which lives as long as the map; XDP runs with softirqs disabled.
    unsafe {
        let before = *rate;
        let taken = if before & !0xffff_ffff == jiffy {
            before & 0xffff_ffff
        } else {
            0
        };
        *rate = jiffy | (taken + 1);
        taken < MAX_PER_JIFFY
    }
}

#[inline(always)]
fn sample(context: *mut xdp_md, counter: u32, is_sent: u32) -> Option<()> {
    // SAFETY: the context is that of the running program, and the helper only reads it.
    let length = unsafe { bpf_xdp_get_buff_len(context) };
    let mut captured = length as u32;
    if captured < ETHERNET_HEADER as u32 {
        return None;
    }
    if captured > MAX_OCTETS as u32 {
        captured = MAX_OCTETS as u32;
    }
    let mut entry = CAPTURE.reserve::<Sample>(0)?;
    let sample = entry.as_mut_ptr();
    // SAFETY: the ring gave room for a sample, aligned to 8 octets, and each field is written before it is passed on,
    // but for the octets behind `captured`, of which nobody makes anything. The context is that of the running program.
    let is_copied = unsafe {
        (&raw mut (*sample).time).write(bpf_ktime_get_ns());
        (&raw mut (*sample).length).write(length as u32);
        (&raw mut (*sample).captured).write(captured);
        (&raw mut (*sample).counter).write(counter);
        (&raw mut (*sample).queue).write((*context).rx_queue_index);
        (&raw mut (*sample).ifindex).write((*context).ingress_ifindex);
        (&raw mut (*sample).is_sent).write(is_sent);
        bpf_xdp_load_bytes(context, 0, (&raw mut (*sample).octets).cast(), captured) == 0
    };
    // Who takes them looks by itself: waking it would cost more than the frame.
    if is_copied {
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        Some(())
    } else {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        None
    }
}
