//! Admission by source: prefixes that are allowed or denied, and the rate of SYNs from one source.

use aya_ebpf::{helpers::bpf_ktime_get_ns, maps::lpm_trie::Key};
use tidegate_abi::syn_ack::{SourceKey, feature, source_rule};

use crate::frame::Frame;
use crate::headers::{IPV4_SOURCE, IPV6_SOURCE};
use crate::maps::{FEATURES, SOURCE_RULES_V4, SOURCE_RULES_V6, SYN_RATE, SYN_SOURCES};
use crate::parse::Segment;

/// The features that are switched on: bits of [`feature`].
#[inline(always)]
pub fn features() -> u32 {
    FEATURES.get(0).copied().unwrap_or(0)
}

/// Whether the most specific prefix that holds the segment's source is denied.
#[inline(always)]
pub fn is_denied(frame: Frame<'_>, segment: &Segment, version: u8, features: u32) -> bool {
    if features & feature::SOURCE_RULES == 0 {
        return false;
    }
    let rule = if version == 4 {
        frame
            .from(segment.ip)
            .skip::<IPV4_SOURCE>()
            .first::<4>()
            .and_then(|source| SOURCE_RULES_V4.get(Key::new(32, *source)))
    } else {
        frame
            .from(segment.ip)
            .skip::<IPV6_SOURCE>()
            .first::<16>()
            .and_then(|source| SOURCE_RULES_V6.get(Key::new(128, *source)))
    };
    rule.is_some_and(|&rule| rule == source_rule::DENY)
}

/// Whether an IPv4 SYN of this 4-tuple, in words as they lie in its headers with both ports in `ports`, may be answered
/// (RFC 9293, section 3.9.2.3; RFC 1122, section 3.2.1.3): the engine drops the others itself.
#[inline(always)]
pub fn is_answerable_v4(client: u32, server: u32, ports: u32) -> bool {
    let [first, ..] = client.to_ne_bytes();
    // From 1.0.0.0 to 223.255.255.255, but for the loopback.
    let is_unicast = first.wrapping_sub(1) < 223 && first != 127;
    is_unicast && client != server && has_client_port(ports)
}

/// [`is_answerable_v4`] for IPv6, with addresses of four words.
#[inline(always)]
pub fn is_answerable_v6(client: [u32; 4], server: [u32; 4], ports: u32) -> bool {
    let [a, b, c, d] = client;
    let [first, ..] = a.to_ne_bytes();
    // Neither unspecified nor the loopback.
    let is_unicast = first != 0xff && (a | b | c != 0 || u32::from_be(d) > 1);
    is_unicast && client != server && has_client_port(ports)
}

#[inline(always)]
fn has_client_port(ports: u32) -> bool {
    let [high, low, ..] = ports.to_ne_bytes();
    u16::from_ne_bytes([high, low]) != 0
}

/// Takes a SYN from its source's account, a token bucket kept as one time (as in the generic cell rate algorithm); true
/// when there is nothing left in it. CPUs that serve the same source at once may each let one through that another has
/// paid for.
#[inline(always)]
pub fn is_above_rate(frame: Frame<'_>, segment: &Segment, version: u8, features: u32) -> bool {
    if features & feature::SYN_RATE == 0 {
        return false;
    }
    let Some(limit) = SYN_RATE.get(0) else {
        return false;
    };
    let packet = frame.from(segment.ip);
    let (source, bits) = if version == 4 {
        let Some(&[a, b, c, d]) = packet.skip::<IPV4_SOURCE>().first::<4>() else {
            return false;
        };
        (u64::from(u32::from_be_bytes([a, b, c, d])) << 32, limit.prefix_v4)
    } else {
        let Some(&octets) = packet.skip::<IPV6_SOURCE>().first::<8>() else {
            return false;
        };
        (u64::from_be_bytes(octets), limit.prefix_v6)
    };
    // A shift by 64 is none to the processor.
    let mask = if bits == 0 { 0 } else { u64::MAX << ((64 - bits) & 63) };
    let key = SourceKey {
        prefix: (source & mask).to_be_bytes(),
        version: u32::from(version),
    };
    // SAFETY: the helper takes nothing and reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let earliest = now.wrapping_sub(limit.burst_ns);
    match SYN_SOURCES.get_ptr_mut(key) {
        Some(account) => {
            // SAFETY: an aligned word in a map's entry, which is not reused while a program that found it runs.
            let saved_from = unsafe { core::ptr::read_volatile(account) };
            // Soon after the system's start the earliest time lies before zero, so times are compared as TCP compares
            // sequence numbers.
            let behind = saved_from.wrapping_sub(earliest) as i64;
            let paid = if behind < 0 { earliest } else { saved_from }.wrapping_add(limit.cost_ns);
            if paid.wrapping_sub(now) as i64 > 0 {
                return true;
            }
            // SAFETY: as above. Another CPU may write at the same time; one of the two words is kept whole.
            unsafe { core::ptr::write_volatile(account, paid) };
        }
        None => {
            // A full map makes room by itself; on failure the SYN is served without having been counted.
            let _ = SYN_SOURCES.insert(key, earliest.wrapping_add(limit.cost_ns), 0);
        }
    }
    false
}
