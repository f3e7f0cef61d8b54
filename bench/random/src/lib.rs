//! A pseudo-random sequence that a seed repeats exactly, on every machine and in every version: the simulation, the
//! impaired links and the data of tests and measurements are made from [`Random`].
//!
//! ```
//! use tidegate_random::Random;
//!
//! let mut random = Random::new(7);
//! let data = random.bytes(1000);
//! assert_eq!(data, Random::new(7).bytes(1000));
//! assert!(random.below(6) < 6);
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates the sequence of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    #[inline]
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Returns a number from 0 up to and without 1, every one of 2^53 equally likely.
    pub fn fraction(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number below `bound`; 0 when `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.word() % bound }
    }

    /// Returns a number from `low` to `high`, both included.
    #[inline]
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Returns true `chance` times in a thousand.
    #[inline]
    pub fn permille(&mut self, chance: u32) -> bool {
        chance > 0 && self.below(1000) < u64::from(chance)
    }

    /// Returns one of `choices`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Returns a time of whole microseconds from zero to `longest`.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.between(0, longest.as_micros() as u64))
    }

    /// Returns another sequence, that goes on independently of this one.
    pub fn fork(&mut self) -> Self {
        Self(self.word())
    }

    /// Overwrites `buffer` with the next words in little-endian order. Bytes that a last incomplete word would have
    /// left are skipped.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Returns `length` bytes without a pattern, so that bytes in the wrong place do not go unnoticed.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_sequence() {
        // The first outputs for these seeds, as given with the reference implementation.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.word(), 6_457_827_717_110_365_317);
        assert_eq!(random.word(), 3_203_168_211_198_807_973);
        assert_eq!(Random::new(0).word(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn stays_within_bounds() {
        let mut random = Random::new(1);
        for _ in 0..1000 {
            assert!(random.below(7) < 7);
            assert!((3..=5).contains(&random.between(3, 5)));
            assert!(random.up_to(Duration::from_millis(2)) <= Duration::from_millis(2));
            assert!(!random.permille(0));
            assert!(random.permille(1000));
        }
        assert_eq!(random.below(0), 0);
        assert_eq!(random.between(9, 9), 9);
        for length in [0, 1, 7, 8, 9, 1000] {
            assert_eq!(random.bytes(length).len(), length);
        }
    }

    #[test]
    fn fractions_stay_below_one_and_spread() {
        let mut random = Random::new(1);
        let fractions: Vec<f64> = (0..1000).map(|_| random.fraction()).collect();
        assert!(fractions.iter().all(|fraction| (0.0..1.0).contains(fraction)));
        let mean = fractions.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }

    #[test]
    fn seeds_differ_and_repeat() {
        assert_eq!(Random::new(1).bytes(21), Random::new(1).bytes(21));
        assert_ne!(Random::new(1).bytes(21), Random::new(2).bytes(21));
    }
}
