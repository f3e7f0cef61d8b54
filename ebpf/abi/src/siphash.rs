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
    let mut state = State::new(key);
    for &word in words {
        state.v3 ^= word;
        for _ in 0..C {
            state.round();
        }
        state.v0 ^= word;
    }
    // The last block holds the length modulo 256 in its top byte; whole words leave the other seven empty.
    let last = ((8 * N as u64) & 0xff) << 56;
    state.v3 ^= last;
    for _ in 0..C {
        state.round();
    }
    state.v0 ^= last;
    state.v2 ^= 0xff;
    for _ in 0..D {
        state.round();
    }
    state.v0 ^ state.v1 ^ state.v2 ^ state.v3
}

/// SipHash-2-4: for what an attacker sees and must not forge (sequence numbers, cookies).
#[inline(always)]
pub fn siphash24<const N: usize>(key: Key, words: &[u64; N]) -> u64 {
    siphash_words::<2, 4, N>(key, words)
}

/// SipHash-1-3: for tables, whose hashes nobody sees.
#[inline(always)]
pub fn siphash13<const N: usize>(key: Key, words: &[u64; N]) -> u64 {
    siphash_words::<1, 3, N>(key, words)
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

    #[test]
    fn a_key_is_not_printed() {
        extern crate std;
        assert_eq!(std::format!("{:?}", Key(1, 2)), "Key(..)");
    }
}
