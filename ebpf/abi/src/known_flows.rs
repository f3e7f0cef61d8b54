//! Which flows the engines know: counts that userspace keeps in memory it shares with the XDP program.
//!
//! Every flow has a slot by a hash of its 4-tuple, and every slot a count of the flows that the engines of all shards
//! have there: connections and what is left of them in TIME-WAIT. A slot at zero says that no engine knows the flow;
//! any other, that one may. So the program leaves the SYN of a client that lost its state to the engine that has its
//! old connection, and a shard hands such a SYN over to the shard that has it.

use core::fmt;

/// Slots in a word of the map.
pub const SLOTS_PER_WORD: u32 = 8;

/// Slots for each flow there may be: with all of them in use, one SYN of five of unknown flows finds a count above
/// zero.
const SLOTS_PER_FLOW: u64 = 4;

/// Slots at most: 1 GiB of them.
const MAX_SLOTS: u64 = 1 << 30;

/// Numbers that are drawn at random for a [`FlowSlots`].
pub const RANDOM_WORDS: usize = 10;

/// From 4-tuple to slot; one for the whole program.
///
/// The layout is that of the map's entry it is in: 88 bytes, no padding.
///
/// Words of the 4-tuple are taken as they lie in the headers, in the host's byte order or not: the hash is the same on
/// both sides, and nothing is swapped.
///
/// IPv4 (Thorup, "High Speed Hashing for Integers and Strings", section 2.3) multiplies by a random odd number: any two
/// flows to one server address share a slot at most twice as often as by chance. Flows to two addresses may share one
/// whatever the number is, which costs a SYN its cookie and nothing else. IPv6 (section 3.5) multiplies pairs of 32-bit
/// words, each added to a random number of its own: any two flows share a slot as rarely as by chance.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowSlots {
    random: [u64; RANDOM_WORDS],
    /// Bits of the hash that are not part of the slot.
    shift: u64,
}

impl fmt::Debug for FlowSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows the random numbers can aim at flows that share a slot.
        f.debug_struct("FlowSlots").finish_non_exhaustive()
    }
}

impl FlowSlots {
    /// Slots for at most `flows` flows.
    pub fn new(flows: u64, mut random: [u64; RANDOM_WORDS]) -> Self {
        random[0] |= 1;
        let slots = (flows.saturating_mul(SLOTS_PER_FLOW)).clamp(u64::from(SLOTS_PER_WORD), MAX_SLOTS);
        Self {
            random,
            shift: u64::from(u64::BITS - slots.next_power_of_two().ilog2()),
        }
    }

    /// The number of slots: a power of two, at least [`SLOTS_PER_WORD`].
    pub fn count(&self) -> u32 {
        1 << (u64::from(u64::BITS) - self.shift)
    }

    /// The slot of an IPv4 flow, from words of its header ([`u32::from_ne_bytes`]). In memory the client's port comes
    /// first in `ports`.
    #[inline(always)]
    pub fn v4(&self, client: u32, server: u32, ports: u32) -> u32 {
        // No two flows to one address have the same number: the server's address is the same summand in all of them.
        let flow = u64::from(client) | u64::from(ports.wrapping_add(server)) << 32;
        self.slot(flow.wrapping_mul(self.random[0]))
    }

    /// The slot of an IPv6 flow, from words as for [`FlowSlots::v4`], four for each address.
    #[inline(always)]
    pub fn v6(&self, client: [u32; 4], server: [u32; 4], ports: u32) -> u32 {
        let sum = self
            .pair(0, client[0], client[1])
            .wrapping_add(self.pair(2, client[2], client[3]))
            .wrapping_add(self.pair(4, server[0], server[1]))
            .wrapping_add(self.pair(6, server[2], server[3]))
            .wrapping_add(self.pair(8, ports, 0));
        self.slot(sum)
    }

    #[inline(always)]
    fn pair(&self, index: usize, first: u32, second: u32) -> u64 {
        let first = self.random[index].wrapping_add(first as u64);
        first.wrapping_mul(self.random[index + 1].wrapping_add(second as u64))
    }

    #[inline(always)]
    fn slot(&self, sum: u64) -> u32 {
        (sum >> (self.shift & 63)) as u32
    }
}

/// Index of the word of the map that a slot is in. Its octets in memory are the counts of eight slots, one after the
/// other.
#[inline(always)]
pub const fn word_of(slot: u32) -> u32 {
    slot / SLOTS_PER_WORD
}

#[cfg(feature = "userspace")]
// SAFETY: `repr(C)`, integers of one size only, and no padding (10 * 8 + 8 = 88 bytes, alignment 8).
unsafe impl aya::Pod for FlowSlots {}

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
        assert_eq!(size_of::<FlowSlots>(), 88);
    }

    #[test]
    fn there_are_four_slots_for_each_flow_and_never_too_many() {
        for (flows, slots) in [
            (0, 8),
            (1, 8),
            (3, 16),
            (393_216, 1 << 21),
            (1 << 20, 1 << 22),
            (u64::MAX, 1 << 30),
        ] {
            let map = FlowSlots::new(flows, RANDOM);
            assert_eq!(map.count(), slots, "{flows} flows");
            assert!(map.v4(u32::MAX, u32::MAX, u32::MAX) < slots);
            assert!(map.v6([u32::MAX; 4], [0; 4], u32::MAX) < slots);
        }
    }

    #[test]
    fn every_word_of_the_tuple_has_a_part_in_the_slot() {
        let map = FlowSlots::new(1 << 28, RANDOM);
        let v4 = map.v4(1, 2, 3);
        for other in [map.v4(0, 2, 3), map.v4(1, 3, 3), map.v4(1, 2, 2), map.v4(2, 1, 3)] {
            assert_ne!(v4, other);
        }
        let (client, server) = ([1, 2, 3, 4], [5, 6, 7, 8]);
        let v6 = map.v6(client, server, 9);
        for word in 0..4 {
            let (mut other_client, mut other_server) = (client, server);
            other_client[word] ^= 16;
            other_server[word] ^= 16;
            assert_ne!(v6, map.v6(other_client, server, 9));
            assert_ne!(v6, map.v6(client, other_server, 9));
        }
        assert_ne!(v6, map.v6(client, server, 10));
        assert_ne!(v6, map.v6(server, client, 9));
    }

    /// Numbers as random as any, another ten for each `seed`.
    fn random(seed: u64) -> [u64; RANDOM_WORDS] {
        RANDOM.map(|number| {
            let mixed = (number ^ seed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb)
        })
    }

    /// Scans over ports and over addresses leave no more slots empty than random numbers do.
    #[test]
    fn slots_fill_evenly() {
        const SEEDS: u64 = 16;
        for (address_step, port_step) in [(0, 1), (1, 0), (256, 0), (1 << 16, 1 << 16), (1, 1 << 16), (0, 1 << 16)] {
            for ipv4 in [true, false] {
                let mut empty = 0;
                let mut slots = 0;
                for seed in 0..SEEDS {
                    let map = FlowSlots::new(1 << 10, random(seed));
                    slots = map.count() as usize;
                    let mut filled = vec![false; slots];
                    for number in 0..slots as u32 {
                        let address = 0xc612_0002_u32.wrapping_add(number.wrapping_mul(address_step));
                        let ports = (40_000 << 16 | 80_u32).wrapping_add(number.wrapping_mul(port_step));
                        let (address, ports) = (address.to_be(), ports.to_be());
                        let slot = if ipv4 {
                            map.v4(address, 0xc612_0001_u32.to_be(), ports)
                        } else {
                            let prefix = 0x2001_0002_u32.to_be();
                            map.v6([prefix, 0, 0, address], [prefix, 0, 0, 1_u32.to_be()], ports)
                        };
                        filled[slot as usize] = true;
                    }
                    empty += filled.iter().filter(|filled| !**filled).count();
                }
                // Thrown at random they would leave 1/e of them empty; steps may do better, and not much worse.
                assert!(
                    empty * 2 < slots * SEEDS as usize,
                    "{empty} of {SEEDS} * {slots}: {address_step} {port_step}, IPv4: {ipv4}"
                );
            }
        }
    }
}
