//! Sets of small numbers.

/// A set of numbers, of which the lowest is found by looking at a word for each 4,096.
#[derive(Default)]
pub(super) struct BitSet {
    words: Vec<u64>,
    /// A bit for each word that is not zero.
    summary: Vec<u64>,
}

impl BitSet {
    pub(super) fn insert(&mut self, number: usize) {
        let word = number / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
            self.summary.resize(word / 64 + 1, 0);
        }
        self.words[word] |= 1 << (number % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    pub(super) fn remove(&mut self, number: usize) {
        let word = number / 64;
        let Some(bits) = self.words.get_mut(word) else { return };
        *bits &= !(1 << (number % 64));
        if *bits == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
    }

    pub(super) fn first(&self) -> Option<usize> {
        let summary = self.summary.iter().position(|&bits| bits != 0)?;
        let word = summary * 64 + self.summary[summary].trailing_zeros() as usize;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_number_is_found() {
        let mut set = BitSet::default();
        assert_eq!(set.first(), None);
        for number in [70_000, 4096, 64, 63] {
            set.insert(number);
            assert_eq!(set.first(), Some(number));
        }
        for (number, next) in [(63, Some(64)), (64, Some(4096)), (4096, Some(70_000)), (70_000, None)] {
            set.remove(number);
            assert_eq!(set.first(), next);
        }
    }
}
