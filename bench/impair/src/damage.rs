//! Bits that flip on the way.

use tidegate_random::Random;

use crate::{Damage, ETHERNET_HEADER};

/// Damages `frame`. Returns false when there is nothing to damage.
pub(crate) fn apply(damage: Damage, frame: &mut [u8], random: &mut Random) -> bool {
    match damage {
        Damage::OneBit => flip_bit(frame, random),
        Damage::Noticed => flip_burst(frame, random),
    }
}

fn flip_bit(frame: &mut [u8], random: &mut Random) -> bool {
    let Some(target) = frame.get_mut(ETHERNET_HEADER..).filter(|target| !target.is_empty()) else {
        return false;
    };
    let bit = random.below(target.len() as u64 * 8);
    target[(bit / 8) as usize] ^= 1_u8 << (bit % 8);
    true
}

/// Flips a single bit or a burst of up to 15.
///
/// A one's complement sum notices every burst of up to 15 bits, but only most of the longer ones. Left alone are the
/// bytes from which damage would change how much is summed (IHL, payload length, next header): there, too, 1 in 65,536
/// would pass. What TCP has to fear happens in routers.
fn flip_burst(frame: &mut [u8], random: &mut Random) -> bool {
    let ipv4 = frame.get(ETHERNET_HEADER).is_some_and(|byte| byte >> 4 == 4);
    let first = ETHERNET_HEADER + if ipv4 { 1 } else { 8 };
    let Some(target) = frame.get_mut(first..).filter(|target| target.len() >= 2) else {
        return false;
    };
    let length = if random.permille(500) { 1 } else { random.between(2, 15) };
    let start = random.below(target.len() as u64 * 8 - length + 1);
    for bit in 0..length {
        // The outer bits are flipped always, so that the burst is as long as was drawn.
        if bit == 0 || bit == length - 1 || random.permille(500) {
            let at = start + bit;
            target[(at / 8) as usize] ^= 0x80 >> (at % 8);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn one_bit_behind_the_ethernet_header_flips() {
        let mut random = Random::new(3);
        let mut places = BTreeSet::new();
        for _ in 0..1000 {
            let mut frame = [0_u8; 60];
            assert!(apply(Damage::OneBit, &mut frame, &mut random));
            let changed: Vec<usize> = (0..60).filter(|&at| frame[at] != 0).collect();
            assert_eq!(changed.len(), 1);
            assert_eq!(frame[changed[0]].count_ones(), 1);
            assert!(changed[0] >= ETHERNET_HEADER);
            places.insert(changed[0]);
        }
        assert_eq!(places.len(), 60 - ETHERNET_HEADER);
    }

    #[test]
    fn a_burst_has_up_to_15_bits_and_spares_what_says_how_much_is_summed() {
        let mut random = Random::new(5);
        for (version, first) in [(0x45, ETHERNET_HEADER + 1), (0x60, ETHERNET_HEADER + 8)] {
            let mut longest = 0;
            for _ in 0..1000 {
                let mut frame = [0_u8; 60];
                frame[ETHERNET_HEADER] = version;
                assert!(apply(Damage::Noticed, &mut frame, &mut random));
                frame[ETHERNET_HEADER] ^= version;
                let bits: Vec<usize> = (0..480)
                    .filter(|bit| frame[bit / 8] & (0x80 >> (bit % 8)) != 0)
                    .collect();
                assert!(bits[0] >= first * 8, "{bits:?}");
                longest = longest.max(bits[bits.len() - 1] - bits[0] + 1);
            }
            assert_eq!(longest, 15);
        }
    }

    #[test]
    fn a_frame_with_nothing_to_damage_stays_as_it_is() {
        let mut random = Random::new(1);
        assert!(!apply(Damage::OneBit, &mut [0; ETHERNET_HEADER], &mut random));
        assert!(!apply(Damage::Noticed, &mut [0; ETHERNET_HEADER + 9], &mut random));
        assert!(!apply(Damage::Noticed, &mut [], &mut random));
    }
}
