//! Names, settings, counters and packets that the traffic programs of the benchmarks share with their userspace.
//!
//! Both sides are compiled from this crate, so a map cannot have two layouts. It is `no_std` and allocates nothing. A
//! packet is made by [`packet`] alone, both in the XDP program and where frames have to be made in userspace: from the
//! settings in [`Flood`] and from [`Random`], and only for addresses that are reserved for benchmarks.
//!
//! ```
//! use tidegate_traffic_abi::{Flood, Random, kind, packet};
//!
//! let flood = Flood {
//!     source: [0xc613_0000, 0, 0, 0],
//!     source_mask: [0xffff_0000, 0, 0, 0],
//!     target: [0xc612_0001, 0, 0, 0],
//!     target_mask: [u32::MAX, 0, 0, 0],
//!     version: 4,
//!     kind: kind::SYN,
//!     target_port: 80,
//!     ..Flood::default()
//! };
//! let packet = packet::ipv4(&flood, &mut Random(1)).expect("both addresses are in 198.18.0.0/15");
//! assert_eq!(packet.ip[3] >> 16, 0xc613);
//! // 10.0.0.1 is not.
//! let outside = Flood { target: [0x0a00_0001, 0, 0, 0], ..flood };
//! assert_eq!(packet::ipv4(&outside, &mut Random(1)), None);
//! ```
#![no_std]
#![cfg_attr(not(feature = "userspace"), forbid(unsafe_code))]

pub mod packet;

/// Name of the program that makes the frames of a flood. It is run by `BPF_PROG_TEST_RUN` and never attached.
pub const PROGRAM_FLOOD: &str = "flood";

/// Name of the program that counts what answers a flood, and takes it to the flood's sockets, if any, or drops it.
pub const PROGRAM_SINK: &str = "sink";

/// Name of the program that sends every SYN back as a SYN-ACK, without looking anything up.
pub const PROGRAM_REFLECT: &str = "reflect";

/// Name of the program that counts and drops everything from the prefixes of [`MAP_SINK`], and leaves the rest to the
/// program in [`MAP_NEXT`].
pub const PROGRAM_FILTER: &str = "filter";

/// Name of the map with that program (`ProgramArray`, 1 entry). Without an entry, the kernel gets what is left.
pub const MAP_NEXT: &str = "NEXT";

/// Name of the program that redirects the frames of [`TO_SOCKET_ETHER_TYPE`] to an AF_XDP socket.
pub const PROGRAM_TO_SOCKET: &str = "to_socket";

/// Name of the map with the socket of each receive queue (`XskMap`, [`MAX_QUEUES`] entries).
pub const MAP_SOCKETS: &str = "SOCKETS";

/// Receive queues that can have a socket.
pub const MAX_QUEUES: u32 = 64;

/// The EtherType of frames that only go to and fro between AF_XDP sockets: Local Experimental 1 (IEEE Std 802).
pub const TO_SOCKET_ETHER_TYPE: u16 = 0x88b5;

/// Name of the map with the one [`Flood`] (`Array<Flood>`, 1 entry).
pub const MAP_FLOOD: &str = "FLOOD";

/// Name of the map with the state of each CPU's [`Random`] (`PerCpuArray<u64>`, 1 entry).
pub const MAP_RANDOM: &str = "RANDOM";

/// Name of the map with the one [`Schedule`] (`Array<Schedule>`, 1 entry).
pub const MAP_SCHEDULE: &str = "SCHEDULE";

/// Name of the map with each CPU's [`Progress`] (`PerCpuArray<Progress>`, 1 entry).
pub const MAP_PROGRESS: &str = "PROGRESS";

/// Name of the map with the one [`Sink`] (`Array<Sink>`, 1 entry).
pub const MAP_SINK: &str = "SINK";

/// Name of the counters (`PerCpuArray<u64>`; the indexes are in [`counter`]).
pub const MAP_TRAFFIC: &str = "TRAFFIC";

/// Indexes of the counters.
pub mod counter {
    /// Frames of the flood that were made and sent on.
    pub const FRAMES: u32 = 0;
    /// SYN-ACKs the sink took.
    pub const SYN_ACKS: u32 = 1;
    /// RSTs the sink took.
    pub const RSTS: u32 = 2;
    /// Other TCP segments the sink took.
    pub const OTHERS: u32 = 3;
    /// SYNs that were reflected.
    pub const SYNS: u32 = 4;
    /// Frames the filter dropped.
    pub const FILTERED: u32 = 5;
    /// Octets of the frames the sink took.
    pub const SINK_OCTETS: u32 = 6;
    /// The number of counters.
    pub const COUNT: u32 = 7;
}

/// The kinds of packets of a flood: values of [`Flood::kind`].
pub mod kind {
    /// SYNs, with options as common systems send them.
    pub const SYN: u32 = 0;
    /// Bare ACKs, half of them with timestamps.
    pub const ACK: u32 = 1;
    /// RSTs.
    pub const RST: u32 = 2;
    /// FINs with ACK, half of them with timestamps.
    pub const FIN: u32 = 3;
    /// SYN-ACKs, with options as common systems send them.
    pub const SYN_ACK: u32 = 4;
    /// UDP datagrams with random content.
    pub const UDP: u32 = 5;
    /// SYNs with text.
    pub const SYN_DATA: u32 = 6;
    /// Fragments of TCP segments, as many first ones as later ones.
    pub const FRAGMENT: u32 = 7;
    /// The number of kinds so far, all of which [`MIX`] is made of.
    pub const COUNT: u32 = 8;
    /// Each packet of one of the other kinds, all equally likely.
    pub const MIX: u32 = 8;
}

/// Octets of the frame that `BPF_PROG_TEST_RUN` is given. Every frame made is shorter, so the program always cuts it,
/// and the kernel always takes the length anew and never from what an earlier receiver left in the same page.
pub const INPUT_LENGTH: usize = 100;

/// Octets of the shortest Ethernet frame, without its check sequence. Shorter ones are padded with zeros.
pub const MIN_FRAME: usize = 60;

/// Settings of a flood.
///
/// Addresses are four words, the first octet in the highest bits of the first; an IPv4 address is the first word. The
/// layout is the map's: 92 bytes, no padding. Integers are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flood {
    /// The prefix of the source addresses.
    pub source: [u32; 4],
    /// Ones where the source address is the prefix, zeros where it is random.
    pub source_mask: [u32; 4],
    /// The prefix of the destination addresses.
    pub target: [u32; 4],
    /// Ones where the destination address is the prefix, zeros where it is random.
    pub target_mask: [u32; 4],
    /// Index of the interface the frames are sent on.
    pub interface: u32,
    /// IP version, 4 or 6.
    pub version: u32,
    /// A value of [`kind`].
    pub kind: u32,
    /// The destination port.
    pub target_port: u16,
    /// Ethernet destination.
    pub target_mac: [u8; 6],
    /// Ethernet source.
    pub source_mac: [u8; 6],
    /// Always zero.
    pub reserved: u16,
}

/// The pace of the frames of a flood. Until one is due, the program drops what it runs on.
///
/// The layout is the map's: 24 bytes, no padding. Integers are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The first moment, in nanoseconds of `CLOCK_MONOTONIC`.
    pub start: u64,
    /// The moment from which on nothing is sent, in nanoseconds of `CLOCK_MONOTONIC`.
    pub end: u64,
    /// From one frame to the next, in units of 2^-10 ns; 0: as many as go.
    pub interval: u64,
}

/// The progress of a CPU in a [`Schedule`]. Both are in units of 2^-10 ns since [`Schedule::start`].
///
/// The layout is the map's: 16 bytes, no padding. Integers are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The time at which the next frame is due.
    pub due: u64,
    /// Before this it is not sent even if it is overdue.
    pub earliest: u64,
}

impl Schedule {
    /// Frames overdue by more than this are left out, in units of 2^-10 ns: 0.1 s.
    const CATCH_UP: u64 = 100_000_000 << 10;

    /// The interval of `per_second` frames (1 to 10^9).
    pub const fn interval_of(per_second: u64) -> u64 {
        (1_000_000_000 << 10) / per_second
    }

    /// Whether a frame is to be sent at `now`, in nanoseconds of `CLOCK_MONOTONIC`. If it is, the progress after it.
    ///
    /// Overdue frames are made up for at 1.2 times the rate: a flood that stood still does not come back as a burst,
    /// which overflows rings that its rate does not.
    #[inline(always)]
    pub const fn next(&self, now: u64, progress: Progress) -> Option<Progress> {
        if now < self.start || now >= self.end {
            return None;
        }
        // 2^54 ns are more than half a year.
        let now = (now - self.start) << 10;
        if progress.due > now || progress.earliest > now {
            return None;
        }
        Some(Progress {
            due: later(progress.due, now.saturating_sub(Self::CATCH_UP)) + self.interval,
            // Counted from when this frame could have been sent, or runs that come a little late would lower the rate.
            earliest: later(progress.earliest, now.saturating_sub(self.interval)) + self.interval / 6 * 5,
        })
    }
}

#[inline(always)]
const fn later(a: u64, b: u64) -> u64 {
    if a < b { b } else { a }
}

/// The sources of floods: the destinations whose segments the sink takes, the sources whose frames the filter drops.
///
/// Addresses as in [`Flood`]. The layout is the map's: 40 bytes, no padding. Integers are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sink {
    /// The IPv4 prefix.
    pub v4: u32,
    /// Its mask.
    pub v4_mask: u32,
    /// The IPv6 prefix.
    pub v6: [u32; 4],
    /// Its mask.
    pub v6_mask: [u32; 4],
}

#[cfg(feature = "userspace")]
mod pod {
    // SAFETY: `repr(C)`, integers and arrays of them, and no padding (4 * 16 + 3 * 4 + 2 + 6 + 6 + 2 = 92 bytes,
    // alignment 4).
    unsafe impl aya::Pod for super::Flood {}
    // SAFETY: `repr(C)`, three integers of the same size, so no padding.
    unsafe impl aya::Pod for super::Schedule {}
    // SAFETY: `repr(C)`, two integers of the same size, so no padding.
    unsafe impl aya::Pod for super::Progress {}
    // SAFETY: `repr(C)`, integers and arrays of them, and no padding (2 * 4 + 2 * 16 = 40 bytes, alignment 4).
    unsafe impl aya::Pod for super::Sink {}
}

/// Whether an IPv4 address is in 198.18.0.0/15, which is for benchmarks only (RFC 2544, RFC 6890).
#[inline(always)]
pub const fn is_benchmark_v4(address: u32) -> bool {
    address >> 17 == 0xc612_0000 >> 17
}

/// Whether an IPv6 address is in 2001:2::/48, which is for benchmarks only (RFC 5180).
#[inline(always)]
pub const fn is_benchmark_v6(address: &[u32; 4]) -> bool {
    address[0] == 0x2001_0002 && address[1] >> 16 == 0
}

/// SplitMix64 (Steele, Lea and Flood, 2014); its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits, as two words.
    #[inline(always)]
    pub const fn next_words(&mut self) -> [u32; 2] {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^= value >> 31;
        [(value >> 32) as u32, value as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_no_padding() {
        assert_eq!((size_of::<Flood>(), align_of::<Flood>()), (92, 4));
        assert_eq!((size_of::<Sink>(), align_of::<Sink>()), (40, 4));
        assert_eq!((size_of::<Schedule>(), align_of::<Schedule>()), (24, 8));
        assert_eq!((size_of::<Progress>(), align_of::<Progress>()), (16, 8));
    }

    /// The number of frames sent if that is tried every `step` nanoseconds.
    fn sent(schedule: &Schedule, from: u64, to: u64, step: usize, progress: &mut Progress) -> u64 {
        let mut count = 0;
        for now in (from..to).step_by(step) {
            if let Some(next) = schedule.next(now, *progress) {
                *progress = next;
                count += 1;
            }
        }
        count
    }

    #[test]
    fn frames_are_sent_at_their_rate_and_within_their_time() {
        let schedule = Schedule {
            start: 5_000,
            end: 1_000_005_000,
            interval: Schedule::interval_of(333_333),
        };
        let mut progress = Progress::default();
        assert_eq!(sent(&schedule, 0, 5_000, 100, &mut progress), 0);
        let count = sent(&schedule, 5_000, 1_000_005_000, 100, &mut progress);
        assert!((333_332..=333_335).contains(&count), "{count}");
        assert_eq!(sent(&schedule, 1_000_005_000, 1_001_000_000, 100, &mut progress), 0);
    }

    #[test]
    fn what_is_overdue_is_made_up_for_at_1_2_times_the_rate() {
        let schedule = Schedule {
            start: 0,
            end: u64::MAX,
            interval: Schedule::interval_of(1_000_000),
        };
        let mut progress = Progress::default();
        // Nothing happened for 20 ms.
        let begin = 20_000_000;
        let first = sent(&schedule, begin, begin + 1_000_000, 100, &mut progress);
        assert!((1_199..=1_202).contains(&first), "{first} in the millisecond after");
        sent(&schedule, begin + 1_000_000, begin + 110_000_000, 100, &mut progress);
        let later = sent(&schedule, begin + 110_000_000, begin + 111_000_000, 100, &mut progress);
        assert!((999..=1_001).contains(&later), "{later}, when nothing is overdue");
        // Nothing happened for an hour: a tenth of a second of it is made up for.
        let begin = 3_600_000_000_000;
        let all = sent(&schedule, begin, begin + 1_000_000_000, 100, &mut progress);
        assert!((1_099_000..=1_101_000).contains(&all), "{all}");
    }

    #[test]
    fn the_rate_is_kept_by_runs_that_seldom_come_in_time() {
        let schedule = Schedule {
            start: 0,
            end: u64::MAX,
            interval: Schedule::interval_of(4_200_000),
        };
        // Five sixths of an interval are 198 ns, after which the next run is at 200, 234 being too late for the next.
        let count = sent(&schedule, 0, 100_000_000, 117, &mut Progress::default());
        assert!((419_900..=420_100).contains(&count), "{count}");
    }

    #[test]
    fn without_an_interval_there_is_always_one_due() {
        let schedule = Schedule {
            start: 10,
            end: 20,
            interval: 0,
        };
        let progress = Progress::default();
        assert_eq!(schedule.next(9, progress), None);
        for now in [10, 19] {
            assert!(schedule.next(now, progress).is_some(), "{now}");
        }
        assert_eq!(schedule.next(20, progress), None);
        assert_eq!(Schedule::default().next(1, progress), None);
    }

    #[test]
    fn the_ranges_end_where_the_standards_say() {
        for (address, inside) in [
            (0xc611_ffff, false),
            (0xc612_0000, true),
            (0xc613_ffff, true),
            (0xc614_0000, false),
            (0, false),
            (u32::MAX, false),
        ] {
            assert_eq!(is_benchmark_v4(address), inside, "{address:#x}");
        }
        for (address, inside) in [
            ([0x2001_0002, 0, 0, 1], true),
            ([0x2001_0002, 0x0000_ffff, u32::MAX, u32::MAX], true),
            ([0x2001_0002, 0x0001_0000, 0, 0], false),
            ([0x2001_0001, 0, 0, 1], false),
            ([0x2001_0003, 0, 0, 1], false),
            ([0, 0, 0xffff, 0xc612_0001], false),
        ] {
            assert_eq!(is_benchmark_v6(&address), inside, "{address:x?}");
        }
    }

    #[test]
    fn random_words_agree_with_the_published_sequence() {
        let mut random = Random(1_234_567);
        for expected in [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973] {
            let [high, low] = random.next_words();
            assert_eq!(u64::from(high) << 32 | u64::from(low), expected);
        }
    }

    #[test]
    fn the_input_is_longer_than_any_frame() {
        const { assert!(INPUT_LENGTH > packet::MAX_FRAME_V4 && INPUT_LENGTH > packet::MAX_FRAME_V6) };
    }
}
