//! Settings of the XDP program: the SYN-ACKs it sends, and the sources it serves.

use crate::flow_filter::FlowHasher;

/// The parts of a SYN-ACK that are the same for all clients; one for the whole program.
///
/// The layout is the map's: 12 bytes, no padding. Integers are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynAck {
    /// The window, never scaled (RFC 7323, section 2.2), in bytes.
    pub window: u16,
    /// The MSS offered to IPv4 clients, in bytes.
    pub mss_v4: u16,
    /// The MSS offered to IPv6 clients, in bytes.
    pub mss_v6: u16,
    /// This side's shift, for clients that scale (RFC 7323), 0 to 14.
    pub window_shift: u8,
    /// 1: agree to ECN (RFC 3168), 0: do not.
    pub ecn: u8,
    /// Milliseconds in a jiffy of this kernel, times 2^20 ([`SynAck::per_jiffy`]).
    pub ms_per_jiffy: u32,
}

/// The settings of the program for all segments, in one entry so that they cost one look-up.
///
/// The layout is the map's: 104 bytes, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The place of each flow in the flow filter.
    pub flow_hasher: FlowHasher,
    /// The SYN-ACKs with cookies.
    pub syn_ack: SynAck,
    /// Segments of no flow that go to the engine of each queue in a second of 1,024 ms, to be answered by a RST. The
    /// engine has a limit of its own, which is lower.
    pub strays: u32,
}

/// The binary digits of [`SynAck::ms_per_jiffy`] behind the point.
const JIFFY_FRACTION: u32 = 20;

impl SynAck {
    /// [`SynAck::ms_per_jiffy`] where a jiffy takes `nanoseconds`, at most 1 s.
    pub const fn per_jiffy(nanoseconds: u32) -> u32 {
        (((nanoseconds as u64) << JIFFY_FRACTION) / 1_000_000) as u32
    }

    /// The clock of the SYN-ACKs' timestamps after `jiffies` jiffies, in milliseconds.
    #[inline(always)]
    pub const fn clock_ms(&self, jiffies: u64) -> u32 {
        (jiffies.wrapping_mul(self.ms_per_jiffy as u64) >> JIFFY_FRACTION) as u32
    }
}

/// Whether SYNs of a queue are answered with cookies: the value of a queue's entry in the map of switches.
///
/// One aligned word, so that the program sees the old value or the new one and nothing in between.
pub mod cookie_switch {
    /// No cookies: SYNs go to the engine.
    pub const OFF: u32 = 0;

    /// Cookies, made with the key in the slot of this key id.
    pub const fn on(key_id: u32) -> u32 {
        1 + (key_id & 1)
    }

    /// The same, and those for SYNs without timestamps are strong ones.
    pub const fn on_strong(key_id: u32) -> u32 {
        3 + (key_id & 1)
    }

    /// The key id of a switch that is on.
    #[inline(always)]
    pub const fn key_id(switch: u32) -> u32 {
        switch.wrapping_sub(1) & 1
    }

    /// Whether a switch that is on asks for strong cookies.
    #[inline(always)]
    pub const fn is_strong(switch: u32) -> bool {
        switch >= 3
    }
}

/// The rule for TCP from a source prefix to a served address and port: the value in the tries of prefixes.
pub mod source_rule {
    /// Serve it.
    pub const ALLOW: u32 = 1;
    /// Drop it.
    pub const DENY: u32 = 2;
}

/// The limit of SYNs per source prefix; one for the whole program.
///
/// The layout is the map's: 24 bytes, no padding. Integers are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynRate {
    /// Nanoseconds a SYN costs: 1 s divided by the SYNs per second. 0: no limit.
    pub cost_ns: u64,
    /// Nanoseconds a source can have saved up: the burst times `cost_ns`.
    pub burst_ns: u64,
    /// Bits of an IPv4 source that count, 0 to 32.
    pub prefix_v4: u32,
    /// Bits of an IPv6 source that count, 0 to 64.
    pub prefix_v6: u32,
}

/// The features of the program beyond steering: bits of the one entry in the map of features.
///
/// A feature that is off costs a frame no look-up of its own.
pub mod feature {
    /// Prefixes are allowed or denied.
    pub const SOURCE_RULES: u32 = 1;
    /// SYNs per source are limited.
    pub const SYN_RATE: u32 = 2;
    /// Segments are steered by their source as well.
    pub const REMOTES: u32 = 4;
    /// Segments of flows that are not in the flow filter are dropped but for some.
    pub const FLOW_FILTER: u32 = 8;
    /// Cookies are accepted: acknowledgments of no flow are checked for one first.
    pub const COOKIES: u32 = 16;
    /// Those without timestamps that are not strong are accepted as well.
    pub const ALL_COOKIES: u32 = 32;
    /// The program may outlive the engines: on a queue without a socket everything is left to the kernel.
    pub const OUTLIVES: u32 = 64;
}

/// Key of a limited source: the bits of its address that count, the rest zero, in network byte order. An IPv4 address
/// is in the first four octets of the word, with `version` telling the families apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceKey {
    /// The first eight octets of the address.
    pub prefix: [u8; 8],
    /// IP version, 4 or 6.
    pub version: u32,
}

#[cfg(feature = "userspace")]
mod pod {
    // SAFETY: `repr(C)`, integers only, and no padding (2 + 2 + 2 + 1 + 1 + 4 = 12 bytes, alignment 4).
    unsafe impl aya::Pod for super::SynAck {}
    // SAFETY: `repr(C)`, such types and an integer, and no padding (88 + 12 + 4 = 104 bytes, alignment 8).
    unsafe impl aya::Pod for super::Settings {}
    // SAFETY: `repr(C)`, integers only, and no padding (8 + 8 + 4 + 4 = 24 bytes, alignment 8).
    unsafe impl aya::Pod for super::SynRate {}
    // SAFETY: `repr(C)`, integers and an array of them, and no padding (8 + 4 = 12 bytes, alignment 4).
    unsafe impl aya::Pod for super::SourceKey {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_no_padding() {
        assert_eq!(size_of::<SynAck>(), 12);
        assert_eq!(size_of::<Settings>(), 104);
        assert_eq!(size_of::<SynRate>(), 24);
        assert_eq!(size_of::<SourceKey>(), 12);
    }

    #[test]
    fn the_clock_counts_milliseconds_whatever_a_jiffy_is() {
        for (nanoseconds, per_second) in [(1_000_000, 1000), (3_333_333, 300), (4_000_000, 250), (10_000_000, 100)] {
            let template = SynAck {
                ms_per_jiffy: SynAck::per_jiffy(nanoseconds),
                ..SynAck::default()
            };
            // As many jiffies as the kernel begins with, five minutes before they would wrap at 32 bits.
            let start = 0xffff_ffff - 300 * per_second;
            for seconds in [1_u64, 3_600, 100 * 86_400] {
                let passed = template
                    .clock_ms(start + seconds * per_second)
                    .wrapping_sub(template.clock_ms(start));
                let expected = (seconds * 1000) as u32;
                assert!(
                    u64::from(passed.abs_diff(expected)) <= 1 + seconds / 1000,
                    "{passed} ms in {seconds} s of {per_second} jiffies"
                );
            }
        }
    }

    #[test]
    fn switches_differ() {
        assert_ne!(cookie_switch::on(0), cookie_switch::OFF);
        assert_ne!(cookie_switch::on(1), cookie_switch::OFF);
        assert_ne!(cookie_switch::on(0), cookie_switch::on(1));
        for key_id in [0, 1] {
            let (usual, strong) = (cookie_switch::on(key_id), cookie_switch::on_strong(key_id));
            assert_eq!([usual, strong].map(cookie_switch::key_id), [key_id; 2]);
            assert_eq!([usual, strong].map(cookie_switch::is_strong), [false, true]);
        }
    }
}
