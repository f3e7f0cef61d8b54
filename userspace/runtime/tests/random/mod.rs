//! Numbers that look random and are the same in every run.

/// xorshift32 (Marsaglia, 2003).
pub(crate) struct Random(u32);

impl Random {
    /// The sequence from its beginning.
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9)
    }

    /// Any number but 0.
    pub(crate) fn number(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.number() % bound
    }

    /// One of `choices`.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.number() as usize % choices.len()]
    }

    /// `count` octets.
    pub(crate) fn octets(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number() as u8).collect()
    }
}
