//! The flow filter: a table of all flows that the engines of a server have, in memory they share with the XDP program.
//!
//! A flow is in it from before its first SYN or SYN-ACK leaves until its last record is gone: half-open, open, or in
//! TIME-WAIT. Every flow has a [`Bucket`] by a hash of its 4-tuple, one line of a cache, and in it an entry of its own:
//! a fingerprint, which is a further part of the hash, and the shard that owns it. Two flows with the same fingerprint
//! are two entries. Flows that find their bucket full are counted in its first word, and as long as any of them is left
//! all segments that belong there are taken for those of a known flow: no flow is ever lost.
//!
//! What is in each bucket is counted once more, in an octet of a table of its own ([`Counts`]): most segments of a
//! flood belong to buckets without a flow. Those octets are in the processor's caches, where as many lines at random
//! are not.
//!
//! Engines change a word at a time, by compare-exchange; the program only reads. It has a table of its own besides: of
//! handshakes whose cookie it found genuine a moment ago ([`handshake`]), for what follows before the engine has opened
//! the connection.

use core::fmt;

/// 32-bit words of a bucket: the count of flows that had no room, and the entries.
pub const BUCKET_WORDS: usize = 16;

/// The bucket of a map, two of its words in each of these, the first in the lower half.
pub type Bucket = [u64; BUCKET_WORDS / 2];

/// Counts of so many buckets that follow each other, as an entry of a map: of each its entries, and one more where
/// flows are without room.
pub type Counts = [u8; 8];

/// Flows for which there is a bucket: with the table as full as it may become, one bucket of 400 has more than it has
/// entries.
const FLOWS_PER_BUCKET: u64 = 7;

/// Buckets at most: 1 GiB of them.
const MAX_BUCKETS: u64 = 1 << 24;

/// Buckets at least.
const MIN_BUCKETS: u64 = 2;

/// Numbers that are drawn at random for a [`FlowHasher`].
pub const RANDOM_WORDS: usize = 10;

/// From 4-tuple to hash and from there to bucket and fingerprint; one for the whole server.
///
/// The layout is that of the map's entry it is in: 88 bytes, no padding.
///
/// Words of the 4-tuple are taken as they lie in the headers, in the host's byte order or not: the hash is the same on
/// both sides, and nothing is swapped.
///
/// IPv4 (Thorup, "High Speed Hashing for Integers and Strings", section 2.3) multiplies by a random odd number: of the
/// highest bits of the hash, however many of them, any two flows to one server address share all at most twice as often
/// as by chance. Flows to two addresses may share them whatever the number is, which costs a look-up and nothing else.
/// IPv6 (section 3.5) multiplies pairs of 32-bit words, each added to a random number of its own: any two flows share
/// the highest 32 bits as rarely as by chance.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowHasher {
    random: [u64; RANDOM_WORDS],
    /// Bits of a hash below those that say which bucket.
    shift: u64,
}

impl fmt::Debug for FlowHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An attacker who knows the random numbers can aim at flows that share a bucket.
        f.debug_struct("FlowHasher")
            .field("buckets", &self.buckets())
            .finish_non_exhaustive()
    }
}

/// The hash of a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FlowHash(u64);

impl FlowHash {
    /// The hash as a number.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The hash that is `bits` as a number.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl FlowHasher {
    /// Buckets for at most `flows` flows.
    pub fn new(flows: u64, mut random: [u64; RANDOM_WORDS]) -> Self {
        random[0] |= 1;
        let buckets = flows.div_ceil(FLOWS_PER_BUCKET).clamp(MIN_BUCKETS, MAX_BUCKETS);
        Self {
            random,
            shift: u64::from(u64::BITS - buckets.next_power_of_two().ilog2()),
        }
    }

    /// The number of [`Counts`].
    pub fn counts(&self) -> u32 {
        self.buckets().div_ceil(size_of::<Counts>() as u32)
    }

    /// The number of buckets: a power of two.
    pub fn buckets(&self) -> u32 {
        1 << (u64::from(u64::BITS) - self.shift).min(31)
    }

    /// The hash of an IPv4 flow, from words of its header ([`u32::from_ne_bytes`]). In memory the client's port comes
    /// first in `ports`.
    #[inline(always)]
    pub fn v4(&self, client: u32, server: u32, ports: u32) -> FlowHash {
        // No two flows to one address have the same number: the server's address is the same summand in all of them.
        let flow = u64::from(client) | u64::from(ports.wrapping_add(server)) << 32;
        FlowHash(flow.wrapping_mul(self.random[0]))
    }

    /// The hash of an IPv6 flow, from words as for [`FlowHasher::v4`], four for each address.
    #[inline(always)]
    pub fn v6(&self, client: [u32; 4], server: [u32; 4], ports: u32) -> FlowHash {
        let sum = self
            .pair(0, client[0], client[1])
            .wrapping_add(self.pair(2, client[2], client[3]))
            .wrapping_add(self.pair(4, server[0], server[1]))
            .wrapping_add(self.pair(6, server[2], server[3]))
            .wrapping_add(self.pair(8, ports, 0));
        FlowHash(sum)
    }

    #[inline(always)]
    fn pair(&self, index: usize, first: u32, second: u32) -> u64 {
        let first = self.random[index].wrapping_add(first as u64);
        first.wrapping_mul(self.random[index + 1].wrapping_add(second as u64))
    }

    /// The bucket of the flow.
    #[inline(always)]
    pub fn bucket(&self, hash: FlowHash) -> u32 {
        (hash.0 >> (self.shift & 63)) as u32
    }

    /// The fingerprint of the flow: the bits of the hash behind those of its bucket.
    #[inline(always)]
    pub fn fingerprint(&self, hash: FlowHash) -> Fingerprint {
        let behind = hash.0 << (u64::from(u64::BITS).wrapping_sub(self.shift) & 63);
        Fingerprint((behind >> 32) as u32 & !(OWNER | IN_USE) | IN_USE)
    }
}

/// The bits of an entry that say whose the flow is.
const OWNER: u32 = 0x7e;
/// Set in every entry: one that is all zero is free.
const IN_USE: u32 = 1;

/// The shard that an entry, which is not 0, is of.
#[inline]
pub const fn owner_of(entry: u32) -> u16 {
    ((entry & OWNER) >> 1) as u16
}

/// The part of an entry that tells its flow from others of the bucket, 25 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u32);

impl Fingerprint {
    /// The entry of such a flow that shard `owner`, below 64, has.
    #[inline]
    pub const fn entry(self, owner: u16) -> u32 {
        self.0 | (owner as u32) << 1 & OWNER
    }

    /// The owner that `entry` names, if it is of such a flow.
    #[inline]
    pub const fn owner_in(self, entry: u32) -> Option<u16> {
        if entry & !OWNER == self.0 {
            Some(owner_of(entry))
        } else {
            None
        }
    }

    /// Zero exactly if none of the two words of a bucket's `pair` is an entry of such a flow. Without a branch, since
    /// the program looks at all of them.
    #[inline(always)]
    pub const fn found_in(self, pair: u64) -> u64 {
        const LOWEST: u64 = 0x1_0000_0001;
        let differs = (pair ^ (self.0 as u64 * LOWEST)) & (!OWNER as u64 * LOWEST);
        differs.wrapping_sub(LOWEST) & !differs & LOWEST << 31
    }
}

/// Handshakes that a cookie was found genuine of: for some seconds, or until another takes the slot or the connection
/// ends, each has a word in a table of the XDP program. A handshake has one slot, so that of two queues which its
/// acknowledgment reaches at once one makes the entry and the other finds it.
pub mod handshake {
    use super::FlowHash;

    /// Slots: 512 KiB of them.
    pub const SLOTS: u32 = 1 << 16;

    /// Bits of the tick.
    const TICK_BITS: u32 = 16;
    /// Bits of the owner above those of the tick.
    const OWNER_BITS: u32 = 6;
    const FLOW: u64 = u64::MAX << (TICK_BITS + OWNER_BITS);

    /// Ticks for which an entry holds: 2 s.
    const MAX_AGE: u16 = 8;

    /// The tick at `clock_ms` milliseconds.
    #[inline(always)]
    pub const fn tick(clock_ms: u32) -> u16 {
        (clock_ms >> 8) as u16
    }

    /// The slot of the flow.
    #[inline(always)]
    pub const fn slot(hash: FlowHash) -> u32 {
        (hash.0 >> 48) as u32
    }

    /// The entry of a flow that is to be of shard `owner`, made at `tick`.
    #[inline(always)]
    pub const fn entry(hash: FlowHash, owner: u32, tick: u16) -> u64 {
        hash.0 << 16 & FLOW | ((owner & 63) as u64) << TICK_BITS | tick as u64
    }

    /// Whether `entry` still holds at `tick`.
    #[inline(always)]
    pub const fn holds(entry: u64, tick: u16) -> bool {
        entry != 0 && tick.wrapping_sub(entry as u16) <= MAX_AGE
    }

    /// Whether `entry` is that of the flow, as far as 42 bits tell besides those of its slot.
    #[inline(always)]
    pub const fn is_of(entry: u64, hash: FlowHash) -> bool {
        (entry ^ hash.0 << 16) & FLOW == 0
    }

    /// The shard `entry` names.
    #[inline(always)]
    pub const fn owner(entry: u64) -> u16 {
        (entry >> TICK_BITS & 63) as u16
    }
}

#[cfg(feature = "userspace")]
// SAFETY: `repr(C)`, integers of one size only, and no padding (10 * 8 + 8 = 88 bytes, alignment 8).
unsafe impl aya::Pod for FlowHasher {}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;

    const RANDOM: [u64; RANDOM_WORDS] = [
        0x6b17_d1f2_e12c_4247,
        0xf8bc_e6e5_63a4_40f2,
        0x7703_7d81_2deb_33a0,
        0xf4a1_3945_d898_c296,
        0x4fe3_42e2_fe1a_7f9b,
        0x8ee7_eb4a_7c0f_9e16,
        0x2bce_3357_6b31_5ece,
        0xcbb6_4068_37bf_51f5,
        0x9e37_79b9_7f4a_7c15,
        0xbf58_476d_1ce4_e5b9,
    ];

    #[test]
    fn the_layout_has_no_padding() {
        assert_eq!(size_of::<FlowHasher>(), 88);
        assert_eq!(size_of::<Bucket>(), 64);
    }

    #[test]
    fn there_is_a_bucket_for_seven_flows_and_never_too_many() {
        for (flows, buckets) in [
            (0, 2),
            (14, 2),
            (15, 4),
            (409_600, 1 << 16),
            (1 << 20, 1 << 18),
            (u64::MAX, 1 << 24),
        ] {
            let hasher = FlowHasher::new(flows, RANDOM);
            assert_eq!(hasher.buckets(), buckets, "{flows} flows");
            assert!(hasher.bucket(hasher.v4(u32::MAX, u32::MAX, u32::MAX)) < buckets);
            assert!(hasher.bucket(hasher.v6([u32::MAX; 4], [0; 4], u32::MAX)) < buckets);
        }
    }

    #[test]
    fn every_word_of_the_tuple_has_a_part_in_bucket_and_fingerprint() {
        let hasher = FlowHasher::new(1 << 28, RANDOM);
        let place = |hash| (hasher.bucket(hash), hasher.fingerprint(hash).0);
        let v4 = place(hasher.v4(1, 2, 3));
        for other in [(0, 2, 3), (1, 3, 3), (1, 2, 2), (2, 1, 3)] {
            let other = place(hasher.v4(other.0, other.1, other.2));
            assert!(v4.0 != other.0 && v4.1 != other.1, "{other:?}");
        }
        let (client, server) = ([1, 2, 3, 4], [5, 6, 7, 8]);
        let v6 = place(hasher.v6(client, server, 9));
        let differs = |hash| {
            let other = place(hash);
            assert!(v6.0 != other.0 && v6.1 != other.1, "{other:?}");
        };
        for word in 0..4 {
            let (mut other_client, mut other_server) = (client, server);
            other_client[word] ^= 16;
            other_server[word] ^= 16;
            differs(hasher.v6(other_client, server, 9));
            differs(hasher.v6(client, other_server, 9));
        }
        differs(hasher.v6(client, server, 10));
        differs(hasher.v6(server, client, 9));
    }

    /// Numbers as random as any, another ten for each `seed`.
    fn random(seed: u64) -> [u64; RANDOM_WORDS] {
        RANDOM.map(|number| {
            let mixed = (number ^ seed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb)
        })
    }

    /// Scans over ports and over addresses leave no more buckets empty than random numbers do, and flows of one bucket
    /// differ in their fingerprints.
    #[test]
    fn buckets_fill_evenly_and_fingerprints_differ() {
        const SEEDS: u64 = if cfg!(miri) { 1 } else { 16 };
        const BUCKETS: u64 = if cfg!(miri) { 1 << 6 } else { 1 << 12 };
        for (address_step, port_step) in [(0, 1), (1, 0), (256, 0), (1 << 16, 1 << 16), (1, 1 << 16), (0, 1 << 16)] {
            for ipv4 in [true, false] {
                let mut empty = 0;
                let mut alike = 0;
                let mut buckets = 0;
                for seed in 0..SEEDS {
                    let hasher = FlowHasher::new(7 * BUCKETS, random(seed));
                    buckets = hasher.buckets() as usize;
                    let mut filled = vec![None; buckets];
                    for number in 0..buckets as u32 {
                        let address = 0xc612_0002_u32.wrapping_add(number.wrapping_mul(address_step));
                        let ports = (40_000 << 16 | 80_u32).wrapping_add(number.wrapping_mul(port_step));
                        let (address, ports) = (address.to_be(), ports.to_be());
                        let hash = if ipv4 {
                            hasher.v4(address, 0xc612_0001_u32.to_be(), ports)
                        } else {
                            let prefix = 0x2001_0002_u32.to_be();
                            hasher.v6([prefix, 0, 0, address], [prefix, 0, 0, 1_u32.to_be()], ports)
                        };
                        let place = &mut filled[hasher.bucket(hash) as usize];
                        let fingerprint = hasher.fingerprint(hash).0;
                        alike += usize::from(*place == Some(fingerprint));
                        *place = Some(fingerprint);
                    }
                    empty += filled.iter().filter(|filled| filled.is_none()).count();
                }
                // Thrown at random they would leave 1/e of them empty; steps may do better, and not much worse.
                assert!(
                    empty * 2 < buckets * SEEDS as usize,
                    "{empty} of {SEEDS} * {buckets}: {address_step} {port_step}, IPv4: {ipv4}"
                );
                assert_eq!(alike, 0, "{address_step} {port_step}, IPv4: {ipv4}");
            }
        }
    }

    #[test]
    fn an_entry_is_found_wherever_it_is_and_whoever_has_it() {
        let hasher = FlowHasher::new(1000, RANDOM);
        let fingerprint = hasher.fingerprint(hasher.v4(1, 2, 3));
        let other = hasher.fingerprint(hasher.v4(4, 5, 6));
        for owner in [0, 1, 31, 63] {
            let entry = fingerprint.entry(owner);
            assert!(entry != 0);
            assert_eq!(fingerprint.owner_in(entry), Some(owner));
            assert_eq!(other.owner_in(entry), None);
            for neighbour in [0, 1, u32::MAX, other.entry(owner), entry ^ 0x80, entry ^ 1 << 31] {
                let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
                assert_ne!(fingerprint.found_in(pair(entry, neighbour)), 0, "{neighbour:x}");
                assert_ne!(fingerprint.found_in(pair(neighbour, entry)), 0, "{neighbour:x}");
                assert_eq!(fingerprint.found_in(pair(neighbour, neighbour)), 0, "{neighbour:x}");
            }
        }
        assert_eq!(fingerprint.owner_in(0), None, "a free entry");
    }

    #[test]
    fn a_handshake_is_held_for_two_seconds() {
        let hasher = FlowHasher::new(1000, RANDOM);
        let (hash, other) = (hasher.v4(1, 2, 3), hasher.v4(4, 5, 6));
        for clock_ms in [0_u32, 1000, 0xff_ffff, u32::MAX] {
            let tick = handshake::tick(clock_ms);
            let entry = handshake::entry(hash, 63, tick);
            assert!(handshake::is_of(entry, hash) && !handshake::is_of(entry, other));
            assert_eq!(handshake::owner(entry), 63);
            let holds_after = |ms| handshake::holds(entry, handshake::tick(clock_ms.wrapping_add(ms)));
            assert!(holds_after(0) && holds_after(2000) && !holds_after(3000) && !holds_after(1_000_000));
        }
        assert!(!handshake::holds(0, 0), "an empty slot");
        assert!(handshake::slot(FlowHash::from_bits(u64::MAX)) < handshake::SLOTS);
    }
}
