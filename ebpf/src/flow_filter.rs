//! The flow filter: a segment of a flow that no engine has costs no engine anything, unless it may begin one by a
//! cookie, or there is time for a RST.

#[cfg(target_arch = "bpf")]
use core::arch::asm;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering};

use aya_ebpf::bindings::{xdp_action::XDP_DROP, xdp_md};
use aya_ebpf::helpers::bpf_jiffies64;
use aya_ebpf::programs::XdpContext;
use tidegate_abi::flow_filter::{BUCKET_WORDS, Counts, FlowHash, FlowHasher, handshake};
use tidegate_abi::siphash::Key;
use tidegate_abi::syn_ack::{Settings, feature};
use tidegate_abi::syn_cookie::{self, Accepted, Addresses, Handshake};
use tidegate_abi::{MAX_QUEUES, XdpCounter};

use crate::frame::{Frame, Words};
use crate::headers::{IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use crate::maps::{COOKIE_KEYS, FLOW_COUNTS, FLOWS, HANDSHAKES, SETTINGS, STRAYS};
use crate::parse::Segment;
use crate::scratch::Scratch;
use crate::sources;
use crate::steer::{ACK, RST, SYN};
use crate::syn_options;

/// Lengths of the IP headers in 32-bit words.
const IPV4_WORDS: usize = IPV4_HEADER / 4;
const IPV6_WORDS: usize = IPV6_HEADER / 4;

/// The slot of the next epoch's key.
const NEXT_KEY: u32 = 2;

/// The first word of options that begin with two octets of padding and timestamps, as those of all systems do.
const PADDED_TIMESTAMPS: u32 = 0x0101_080a;

/// Whether an engine may have the flow: it has an entry in its bucket, or the bucket was too full for all that belong
/// there.
#[inline(always)]
pub fn is_known(hasher: &FlowHasher, hash: FlowHash) -> bool {
    let number = hasher.bucket(hash);
    let Some(counts) = FLOW_COUNTS.get_ptr(number / size_of::<Counts>() as u32) else {
        return false;
    };
    // SAFETY: a map's entry, which lives as long as the map. Userspace changes single octets of it meanwhile.
    if unsafe { (&raw const (*counts)[number as usize % size_of::<Counts>()]).read_volatile() } == 0 {
        return false;
    }
    let Some(bucket) = FLOWS.get_ptr(number) else {
        return false;
    };
    let fingerprint = hasher.fingerprint(hash);
    // SAFETY: a map's entry, which lives as long as the map. Userspace changes single words of it meanwhile, each as a
    // whole, and a read of two of them sees each as it was or as it is.
    let pair = |index: usize| unsafe { (&raw const (*bucket)[index]).read_volatile() };
    // The flow may be one of those without room, whose number is no entry as long as it is 0.
    let mut found = pair(0) & 0xffff_ffff;
    for index in 0..BUCKET_WORDS / 2 {
        found |= fingerprint.found_in(pair(index));
    }
    found != 0
}

/// Whether a segment that is no SYN is for an engine, and as what it is counted; else its verdict.
#[inline(always)]
pub fn admit(
    frame: Frame<'_>,
    segment: &Segment,
    version: u8,
    queue: u32,
    features: u32,
) -> Result<XdpCounter, (u32, XdpCounter)> {
    if features & feature::FLOW_FILTER == 0 {
        return Ok(XdpCounter::Redirect);
    }
    let Some(settings) = SETTINGS.get(0) else {
        return Ok(XdpCounter::Redirect);
    };
    let Some(hash) = hash_of::<false>(frame, segment, version, &settings.flow_hasher) else {
        return Ok(XdpCounter::Redirect);
    };
    if is_known(&settings.flow_hasher, hash) {
        return Ok(XdpCounter::Redirect);
    }
    // The verifier goes on from here once, and not for each of the ways to here.
    let Some(scratch) = Scratch::get() else {
        return Ok(XdpCounter::Redirect);
    };
    let packed = scratch.launder(segment.packed(version));
    match Fate::from(stray(frame.context(), packed, queue, hash.to_bits())) {
        Fate::Known => Ok(XdpCounter::Redirect),
        Fate::Cookie => Ok(XdpCounter::RedirectCookie),
        Fate::Answerable => Ok(XdpCounter::RedirectNoFlow),
        Fate::BadCookie => Err((XDP_DROP, XdpCounter::DropBadCookie)),
        Fate::NoFlow => Err((XDP_DROP, XdpCounter::DropNoFlow)),
    }
}

/// Whether ICMP that quotes this segment of the server's is for an engine: one may have its flow, or there is no
/// filter.
#[inline(always)]
pub fn knows_quoted(frame: Frame<'_>, segment: &Segment, version: u8) -> bool {
    if sources::features() & feature::FLOW_FILTER == 0 {
        return true;
    }
    let Some(settings) = SETTINGS.get(0) else {
        return true;
    };
    let hasher = &settings.flow_hasher;
    hash_of::<true>(frame, segment, version, hasher).is_none_or(|hash| is_known(hasher, hash))
}

/// The hash of the segment's flow. `QUOTED`: it is the server's.
#[inline(always)]
fn hash_of<const QUOTED: bool>(
    frame: Frame<'_>,
    segment: &Segment,
    version: u8,
    hasher: &FlowHasher,
) -> Option<FlowHash> {
    let packet = frame.from(segment.ip);
    if version == 4 {
        let ip = packet.words::<IPV4_WORDS>()?;
        let tcp = frame
            .from(segment.ip + segment.between)
            .skip::<IPV4_HEADER>()
            .words::<1>()?;
        let (source, destination) = (ip.raw(3), ip.raw(4));
        Some(if QUOTED {
            hasher.v4(destination, source, tcp.raw(0).rotate_left(16))
        } else {
            hasher.v4(source, destination, tcp.raw(0))
        })
    } else {
        let ip = packet.words::<IPV6_WORDS>()?;
        let tcp = frame
            .from(segment.ip + segment.between)
            .skip::<IPV6_HEADER>()
            .words::<1>()?;
        let address = |first: usize| [0, 1, 2, 3].map(|index| ip.raw(first + index));
        let (source, destination) = (address(2), address(6));
        Some(if QUOTED {
            hasher.v6(destination, source, tcp.raw(0).rotate_left(16))
        } else {
            hasher.v6(source, destination, tcp.raw(0))
        })
    }
}

/// The fate of a segment of a flow that is not in the table.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Fate {
    /// It follows a genuine cookie of a moment ago.
    Known,
    /// It acknowledges a genuine cookie.
    Cookie,
    /// It may be answered by a RST.
    Answerable,
    /// Neither, and it might have been a cookie's.
    BadCookie,
    /// Neither, and it is no acknowledgment.
    NoFlow,
}

impl Fate {
    #[inline(always)]
    fn from(number: u32) -> Self {
        match number {
            0 => Self::Known,
            1 => Self::Cookie,
            2 => Self::Answerable,
            3 => Self::BadCookie,
            _ => Self::NoFlow,
        }
    }
}

/// The fate of a segment of a flow that is not in the table, as a number. A function of its own, so that the verifier
/// goes through it once.
#[inline(never)]
fn stray(context: *mut xdp_md, segment: u64, queue: u32, hash: u64) -> u32 {
    let context = XdpContext::new(context);
    let (segment, version) = Segment::unpacked(segment);
    fate(
        Frame::new(&context),
        &segment,
        version,
        queue,
        FlowHash::from_bits(hash),
    ) as u32
}

#[inline(always)]
fn fate(frame: Frame<'_>, segment: &Segment, version: u8, queue: u32, hash: FlowHash) -> Fate {
    let Some(settings) = SETTINGS.get(0) else {
        return Fate::NoFlow;
    };
    // SAFETY: the helper takes nothing and reads a clock.
    let clock_ms = settings.syn_ack.clock_ms(unsafe { bpf_jiffies64() });
    let flags = segment.flags;
    let mut refused = Fate::NoFlow;
    if sources::features() & feature::COOKIES != 0
        && let Some(slot) = HANDSHAKES.get_ptr_mut(handshake::slot(hash))
    {
        // SAFETY: an aligned word of a map's entry, which lives as long as the map and is written as a whole.
        let entry = unsafe { slot.read_volatile() };
        let tick = handshake::tick(clock_ms);
        let holds = handshake::holds(entry, tick);
        if holds && handshake::is_of(entry, hash) {
            return Fate::Known;
        }
        if flags & (ACK | SYN | RST) == ACK {
            if is_genuine(frame, segment, version) {
                if !holds {
                    // SAFETY: as above. Where another queue is faster it has made the entry.
                    unsafe { compare_exchange(slot, entry, handshake::entry(hash, queue, tick)) };
                }
                return Fate::Cookie;
            }
            refused = Fate::BadCookie;
        }
    }
    // No RST answers a RST, nor what acknowledges nothing (RFC 9293, section 3.10.7.2).
    if flags & (ACK | RST) == ACK && is_within_limit(settings, queue, clock_ms >> 10) {
        return Fate::Answerable;
    }
    refused
}

/// Replaces the word at `place` by `new` if it is still `old`, at once for all CPUs.
///
/// # Safety
///
/// There is an aligned word of a map at `place`.
#[inline(always)]
unsafe fn compare_exchange(place: *mut u64, old: u64, new: u64) {
    // SAFETY: the caller's. The instruction changes that word and register 0, where it leaves what was there.
    #[cfg(target_arch = "bpf")]
    unsafe {
        asm!(
            "r0 = cmpxchg_64({place} + 0, r0, {new})",
            place = in(reg) place,
            new = in(reg) new,
            inout("r0") old => _,
            options(nostack, preserves_flags)
        );
    }
    // Only clippy and rustdoc come here, which look at the program for the host. For BPF the standard library has no
    // compare-exchange.
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    let _ = unsafe { AtomicU64::from_ptr(place) }.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
}

/// Takes a segment from those that go on to the engine of `queue` in `second`; false when there are none left.
#[inline(always)]
fn is_within_limit(settings: &Settings, queue: u32, second: u32) -> bool {
    let Some(word) = STRAYS.get_ptr_mut(if queue < MAX_QUEUES { queue } else { MAX_QUEUES - 1 }) else {
        return false;
    };
    // SAFETY: an aligned word of a map's entry, which lives as long as the map. One CPU at a time serves a queue; the
    // queues of this number of several devices may lose counts to each other, and then so many more are let go.
    let passed = unsafe { word.read_volatile() };
    let passed = if (passed >> 32) as u32 == second {
        passed as u32
    } else {
        0
    };
    if passed >= settings.strays {
        return false;
    }
    // SAFETY: as above.
    unsafe { word.write_volatile(u64::from(second) << 32 | u64::from(passed + 1)) };
    true
}

/// Whether the segment acknowledges a SYN-ACK whose sequence number is a genuine cookie.
#[inline(always)]
fn is_genuine(frame: Frame<'_>, segment: &Segment, version: u8) -> bool {
    if version == 4 {
        genuine::<IPV4_WORDS>(frame, segment)
    } else {
        genuine::<IPV6_WORDS>(frame, segment)
    }
    .unwrap_or(false)
}

/// `IP`: 32-bit words of the fixed part of the IP header.
#[inline(always)]
fn genuine<const IP: usize>(frame: Frame<'_>, segment: &Segment) -> Option<bool> {
    let tcp_offset = segment.ip + 4 * IP + segment.between;
    let options_length = segment.header_length.saturating_sub(TCP_HEADER);
    let echo = echo_of(frame, tcp_offset + TCP_HEADER, options_length)?;
    let ip = frame.from(segment.ip).words::<IP>()?;
    let tcp = frame.from(tcp_offset).words::<{ TCP_HEADER / 4 }>()?;
    let long = |index| u64::from(ip.get(index)) << 32 | u64::from(ip.get(index + 1));
    let addresses = if IP == IPV4_WORDS {
        Addresses::V4(long(3))
    } else {
        Addresses::V6([long(2), long(4), long(6), long(8)])
    };
    let ports = tcp.get(0);
    let handshake = Handshake {
        addresses,
        client_port: (ports >> 16) as u16,
        server_port: ports as u16,
        client_isn: tcp.get(1).wrapping_sub(1),
        timestamps: echo.is_some(),
    };
    let accepted = if sources::features() & feature::ALL_COOKIES != 0 {
        Accepted::All
    } else {
        Accepted::Strong
    };
    Some(is_made_by_any(&handshake, tcp, echo, accepted))
}

#[inline(always)]
fn is_made_by_any(
    handshake: &Handshake,
    tcp: Words<{ TCP_HEADER / 4 }>,
    echo: Option<u32>,
    accepted: Accepted,
) -> bool {
    let isn = tcp.get(2).wrapping_sub(1);
    let mut slot = syn_cookie::key_id(isn);
    // One place in the program, for what is hashed there takes much of the stack.
    for _ in 0..2 {
        if let Some(&[low, high]) = COOKIE_KEYS.get(slot)
            && low | high != 0
            && syn_cookie::check(Key(low, high), handshake, isn, echo, accepted).is_some()
        {
            return true;
        }
        // The next epoch's has the same id as the previous one's.
        slot = NEXT_KEY;
    }
    false
}

/// TSecr of the `length` octets of options at `offset`, if there are timestamps. `None`: they cannot be read.
#[inline(always)]
fn echo_of(frame: Frame<'_>, offset: usize, length: usize) -> Option<Option<u32>> {
    if length == 0 {
        return Some(None);
    }
    if length >= 12 {
        let words = frame.from(offset).words::<3>()?;
        if words.get(0) == PADDED_TIMESTAMPS {
            return Some(Some(words.get(2)));
        }
    }
    syn_options::echo(frame, Scratch::get()?, offset, length)
}
