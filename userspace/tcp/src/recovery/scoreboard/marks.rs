//! Three bits for each outstanding segment, in which the next of a kind is found without looking at those between.

/// A kind of segments to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Selectively acknowledged.
    Sacked,
    /// Not selectively acknowledged.
    Unsacked,
    /// Lost and not sent again since.
    Lost,
    /// Sent once, not selectively acknowledged and not lost.
    Plain,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Sacked, Self::Unsacked, Self::Lost, Self::Plain];
}

/// The marks of 64 segments, a bit for each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Word {
    pub(super) sacked: u64,
    pub(super) lost: u64,
    pub(super) again: u64,
}

impl Word {
    fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Sacked => self.sacked,
            Kind::Unsacked => !self.sacked,
            Kind::Lost => self.lost,
            Kind::Plain => !(self.sacked | self.lost | self.again),
        }
    }
}

/// The marks of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) sacked: bool,
    pub(super) lost: bool,
    /// Sent more than once.
    pub(super) again: bool,
}

impl Flags {
    /// Sent again, and neither selectively acknowledged nor lost.
    pub(super) fn waits(self) -> bool {
        self.again && !self.sacked && !self.lost
    }
}

/// For 64 words, which of them have segments of each kind.
type Summary = [u64; Kind::ALL.len()];

/// A ring of marks, by the numbers of segments. What is not outstanding has none. The number of words is a power of
/// two.
#[derive(Debug)]
pub(super) struct Marks {
    words: Box<[Word]>,
    summaries: Box<[Summary]>,
}

const WORD: u64 = 64;

impl Marks {
    /// Nothing is marked; there is room for the segments from `from` to `to`.
    pub(super) fn new(from: u64, to: u64) -> Self {
        let mut marks = Self {
            words: Box::default(),
            summaries: Box::default(),
        };
        marks.cover(from, to);
        marks
    }

    /// Makes room for the segments up to `to`; those before `from` are no longer outstanding.
    pub(super) fn cover(&mut self, from: u64, to: u64) {
        let first = from / WORD;
        let wanted = (to / WORD - first + 1) as usize;
        if wanted <= self.words.len() {
            return;
        }
        let old = core::mem::take(&mut self.words);
        let count = wanted.next_power_of_two();
        self.words = vec![Word::default(); count].into_boxed_slice();
        self.summaries = vec![Summary::default(); count.div_ceil(WORD as usize)].into_boxed_slice();
        for word in first..first + old.len() as u64 {
            let at = self.place(word);
            self.words[at] = old[word as usize & (old.len() - 1)];
        }
        for at in 0..count {
            self.summarize(at);
        }
    }

    fn place(&self, word: u64) -> usize {
        word as usize & (self.words.len() - 1)
    }

    fn summarize(&mut self, at: usize) {
        let word = &self.words[at];
        let summary = &mut self.summaries[at / WORD as usize];
        let shift = at % WORD as usize;
        for kind in Kind::ALL {
            let bits = &mut summary[kind as usize];
            *bits = *bits & !(1 << shift) | u64::from(word.of(kind) != 0) << shift;
        }
    }

    /// The marks of segment `id`.
    pub(super) fn get(&self, id: u64) -> Flags {
        let word = &self.words[self.place(id / WORD)];
        let is_set = |bits: u64| bits >> (id % WORD) & 1 == 1;
        Flags {
            sacked: is_set(word.sacked),
            lost: is_set(word.lost),
            again: is_set(word.again),
        }
    }

    /// Marks segment `id` with `flags` and nothing else.
    pub(super) fn set(&mut self, id: u64, flags: Flags) {
        let at = self.place(id / WORD);
        let shift = id % WORD;
        let put = |bits: &mut u64, flag: bool| *bits = *bits & !(1 << shift) | u64::from(flag) << shift;
        let word = &mut self.words[at];
        put(&mut word.sacked, flags.sacked);
        put(&mut word.lost, flags.lost);
        put(&mut word.again, flags.again);
        self.summarize(at);
    }

    /// Marks all from `from` to `to` that are not selectively acknowledged as lost; `reneged`: none is any more.
    /// Returns how many are.
    pub(super) fn lose_all(&mut self, from: u64, to: u64, reneged: bool) -> u32 {
        let (mut id, mut count) = (from, 0);
        while id < to {
            let end = to.min((id / WORD + 1) * WORD);
            let mask = (!0 << (id % WORD)) & (!0 >> (WORD - 1 - (end - 1) % WORD));
            let at = self.place(id / WORD);
            let word = &mut self.words[at];
            if reneged {
                word.sacked = 0;
            }
            word.lost = mask & !word.sacked;
            count += word.lost.count_ones();
            self.summarize(at);
            id = end;
        }
        count
    }

    /// The first segment of a kind from `from` on and before `to`.
    pub(super) fn next(&self, kind: Kind, from: u64, to: u64) -> Option<u64> {
        if from >= to {
            return None;
        }
        let word = from / WORD;
        let bits = self.words[self.place(word)].of(kind) & (!0 << (from % WORD));
        let (word, bits) = if bits != 0 {
            (word, bits)
        } else {
            let word = self.next_word(kind, word + 1, (to - 1) / WORD)?;
            (word, self.words[self.place(word)].of(kind))
        };
        let id = word * WORD + u64::from(bits.trailing_zeros());
        (id < to).then_some(id)
    }

    /// The last segment of a kind from `from` on and before `to`.
    pub(super) fn previous(&self, kind: Kind, from: u64, to: u64) -> Option<u64> {
        if from >= to {
            return None;
        }
        let word = (to - 1) / WORD;
        let bits = self.words[self.place(word)].of(kind) & (!0 >> (WORD - 1 - (to - 1) % WORD));
        let (word, bits) = if bits != 0 {
            (word, bits)
        } else {
            let word = self.previous_word(kind, from / WORD, word)?;
            (word, self.words[self.place(word)].of(kind))
        };
        let id = word * WORD + u64::from(bits.ilog2());
        (id >= from).then_some(id)
    }

    /// The first word from `word` to `last` that has segments of a kind.
    fn next_word(&self, kind: Kind, mut word: u64, last: u64) -> Option<u64> {
        let group = WORD.min(self.words.len() as u64);
        while word <= last {
            let at = self.place(word) as u64;
            let bits = self.summaries[(at / WORD) as usize][kind as usize] & (!0 << (at % WORD));
            if bits != 0 {
                word += u64::from(bits.trailing_zeros()) - at % WORD;
                return (word <= last).then_some(word);
            }
            word += group - at % group;
        }
        None
    }

    /// The last word from `first` on and before `end` that has segments of a kind.
    fn previous_word(&self, kind: Kind, first: u64, mut end: u64) -> Option<u64> {
        let group = WORD.min(self.words.len() as u64);
        while end > first {
            let at = self.place(end - 1) as u64;
            let bits = self.summaries[(at / WORD) as usize][kind as usize] & (!0 >> (WORD - 1 - at % WORD));
            if bits != 0 {
                let word = (end - 1).checked_sub(at % WORD - u64::from(bits.ilog2()))?;
                return (word >= first).then_some(word);
            }
            end = (end - 1).checked_sub(at % group)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Wherever the ring begins and however it grows, it finds what a look at every segment finds.
        #[test]
        fn finds_what_a_walk_finds(
            base in 1_000_u64..20_000,
            lengths in proptest::collection::vec(1_u64..3_000, 1..4),
            marked in proptest::collection::vec((any::<u16>(), 0..8_u8, 1..200_u64), 0..40),
            asked in proptest::collection::vec((any::<u16>(), any::<u16>()), 1..40),
        ) {
            let mut to = base;
            let mut marks = Marks::new(base, base);
            let mut model = std::collections::BTreeMap::new();
            for length in lengths {
                to += length;
                marks.cover(base, to);
                for &(at, flags, count) in &marked {
                    let start = base + u64::from(at) % (to - base);
                    let flags = Flags { sacked: flags & 1 != 0, lost: flags & 2 != 0, again: flags & 4 != 0 };
                    for id in start..to.min(start + count) {
                        marks.set(id, flags);
                        model.insert(id, flags);
                    }
                }
            }
            let is = |id: u64, kind: Kind| {
                let Flags { sacked, lost, again } = model.get(&id).copied().unwrap_or_default();
                match kind {
                    Kind::Sacked => sacked,
                    Kind::Unsacked => !sacked,
                    Kind::Lost => lost,
                    Kind::Plain => !(sacked || lost || again),
                }
            };
            for (a, b) in asked {
                let (a, b) = (base + u64::from(a) % (to - base + 1), base + u64::from(b) % (to - base + 1));
                for kind in Kind::ALL {
                    prop_assert_eq!(marks.next(kind, a, b), (a..b).find(|&id| is(id, kind)));
                    prop_assert_eq!(marks.previous(kind, a, b), (a..b).rev().find(|&id| is(id, kind)));
                }
            }
        }

        #[test]
        fn all_but_what_is_acknowledged_is_lost(
            base in 1_000_u64..20_000,
            length in 1_u64..1_000,
            sacked in proptest::collection::vec(any::<u16>(), 0..300),
            reneged: bool,
        ) {
            let to = base + length;
            let mut marks = Marks::new(base, to);
            let sacked: std::collections::BTreeSet<u64> =
                sacked.into_iter().map(|at| base + u64::from(at) % length).collect();
            for &id in &sacked {
                marks.set(id, Flags { sacked: true, ..Flags::default() });
            }
            let lost = marks.lose_all(base, to, reneged);
            prop_assert_eq!(lost as usize, length as usize - if reneged { 0 } else { sacked.len() });
            for id in base..to {
                let sacked = sacked.contains(&id) && !reneged;
                prop_assert_eq!(marks.get(id), Flags { sacked, lost: !sacked, again: false });
            }
            prop_assert_eq!(marks.next(Kind::Lost, to, to + 1), None);
        }
    }
}
