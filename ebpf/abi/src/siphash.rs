//! SipHash (Aumasson and Bernstein, 2012): a keyed hash short enough for the XDP program.

/// A 128-bit key as the two little-endian words the algorithm works on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub u64, pub u64);

impl core::fmt::Debug for Key {
    // A key must not reach a log.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A key from 16 bytes, little-endian as in the reference implementation.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self(
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        )
    }
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    fn new(key: Key) -> Self {
        Self {
            v0: key.0 ^ 0x736f_6d65_7073_6575,
            v1: key.1 ^ 0x646f_7261_6e64_6f6d,
            v2: key.0 ^ 0x6c79_6765_6e65_7261,
            v3: key.1 ^ 0x7465_6462_7974_6573,
        }
    }

    /// The state after `words`.
    #[inline(always)]
    fn after<const C: usize, const N: usize>(key: Key, words: &[u64; N]) -> Self {
        let mut state = Self::new(key);
        for &word in words {
            state.absorb::<C>(word);
        }
        state
    }

    /// The hash of a message of `length` bytes whose last word holds `tail`, less than 8 bytes.
    #[inline(always)]
    fn finish<const C: usize, const D: usize>(mut self, length: usize, tail: u64) -> u64 {
        // The last word has the length modulo 256 in its top byte.
        self.absorb::<C>((length as u64) << 56 | tail);
        self.v2 ^= 0xff;
        for _ in 0..D {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    #[inline(always)]
    fn absorb<const C: usize>(&mut self, word: u64) {
        self.v3 ^= word;
        for _ in 0..C {
            self.round();
        }
        self.v0 ^= word;
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

/// SipHash-`C`-`D` of `words`, hashed as `8 * N` bytes (each word in little-endian order).
#[inline(always)]
pub fn siphash_words<const C: usize, const D: usize, const N: usize>(key: Key, words: &[u64; N]) -> u64 {
    State::after::<C, N>(key, words).finish::<C, D>(8 * N, 0)
}

/// SipHash-2-4: for what an attacker sees and must not forge (sequence numbers, cookies).
#[inline(always)]
pub fn siphash24<const N: usize>(key: Key, words: &[u64; N]) -> u64 {
    siphash_words::<2, 4, N>(key, words)
}

/// SipHash-2-4 of `words` and the `bytes` lowest bytes of `tail` behind them, the lowest first: at most 7, and the
/// others of `tail` are zero.
#[inline(always)]
pub fn siphash24_with_tail<const N: usize>(key: Key, words: &[u64; N], tail: u64, bytes: usize) -> u64 {
    State::after::<2, N>(key, words).finish::<2, 4>(8 * N + bytes, tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference_key() -> Key {
        let mut bytes = [0; 16];
        for (value, byte) in bytes.iter_mut().enumerate() {
            *byte = value as u8;
        }
        Key::from_bytes(bytes)
    }

    /// Vectors of the reference implementation (`vectors_sip64`): input 00 01 02 .. of length 0, 8 and 16.
    #[test]
    fn siphash24_agrees_with_the_reference_vectors() {
        let key = reference_key();
        let low = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]);
        let high = u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(siphash24(key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash24(key, &[low]), 0x93f5_f579_9a93_2462);
        assert_eq!(siphash24(key, &[low, high]), 0x3f2a_cc7f_57c2_9bdb);
    }

    /// Vectors of the reference implementation: input 00 01 02 .. of length 1, 7, 9 and 15.
    #[test]
    fn messages_that_end_within_a_word_agree_with_the_reference_vectors() {
        let key = reference_key();
        assert_eq!(siphash24_with_tail(key, &[], 0, 1), 0x74f8_39c5_93dc_67fd);
        assert_eq!(
            siphash24_with_tail(key, &[], 0x0006_0504_0302_0100, 7),
            0xab02_00f5_8b01_d137
        );
        let word = 0x0706_0504_0302_0100;
        assert_eq!(siphash24_with_tail(key, &[word], 0x08, 1), 0x9e00_82df_0ba9_e4b0);
        assert_eq!(
            siphash24_with_tail(key, &[word], 0x000e_0d0c_0b0a_0908, 7),
            0xa129_ca61_49be_45e5
        );
        assert_eq!(siphash24_with_tail(key, &[word], 0, 0), siphash24(key, &[word]));
    }

    #[test]
    fn a_key_is_not_printed() {
        extern crate std;
        assert_eq!(std::format!("{:?}", Key(1, 2)), "Key(..)");
    }
}
