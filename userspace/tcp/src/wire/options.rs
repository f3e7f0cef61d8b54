//! TCP options: MSS (RFC 9293), window scale and timestamps (RFC 7323), SACK (RFC 2018).

use super::checksum;
use crate::seq::SeqNumber;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Largest shift that counts (RFC 7323, section 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// Blocks that fit beside nothing else; three fit beside timestamps.
pub const MAX_SACK_BLOCKS: usize = 4;

/// Longest option field.
pub const MAX_OPTIONS: usize = 40;

/// Length of an option field that has timestamps only.
pub(super) const TIMESTAMPS_ALONE: usize = 12;
/// The octets before the two values of timestamps (RFC 7323, appendix A).
const TIMESTAMPS_WORD: [u8; 4] = [NOP, NOP, TIMESTAMPS, 10];

/// Timestamps option: TSval and TSecr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock.
    pub value: u32,
    /// The clock value echoed.
    pub echo: u32,
}

impl Timestamps {
    /// Reads an option field that has timestamps only, in the layout nearly everybody uses (RFC 7323, appendix A).
    /// `None`: it is another.
    #[inline]
    pub(super) fn alone(field: &[u8; TIMESTAMPS_ALONE]) -> Option<Self> {
        let &[a, b, c, d, v0, v1, v2, v3, e0, e1, e2, e3] = field;
        ([a, b, c, d] == TIMESTAMPS_WORD).then(|| Self {
            value: u32::from_be_bytes([v0, v1, v2, v3]),
            echo: u32::from_be_bytes([e0, e1, e2, e3]),
        })
    }
}

/// A range of received sequence numbers: first, and first after it.
pub type SackBlock = (SeqNumber, SeqNumber);

/// The options of a segment. Unknown options are skipped; from the first malformed one on, the rest is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size; on a SYN only.
    pub mss: Option<u16>,
    /// Window scale; on a SYN only. At most [`MAX_WINDOW_SCALE`].
    pub window_scale: Option<u8>,
    /// SACK-permitted; on a SYN only.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks.
    pub sack: SackBlocks,
}

/// Up to [`MAX_SACK_BLOCKS`] SACK blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SackBlocks {
    blocks: [SackBlock; MAX_SACK_BLOCKS],
    count: u8,
}

impl PartialEq for SackBlocks {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SackBlocks {}

impl SackBlocks {
    /// The blocks.
    pub fn as_slice(&self) -> &[SackBlock] {
        &self.blocks[..usize::from(self.count)]
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Options {
    /// Sets the SACK blocks, as many as there is room for.
    pub fn set_sack_blocks(&mut self, blocks: impl Iterator<Item = SackBlock>) {
        let room = if self.timestamps.is_some() {
            MAX_SACK_BLOCKS - 1
        } else {
            MAX_SACK_BLOCKS
        };
        self.sack = SackBlocks::default();
        for (slot, block) in self.sack.blocks[..room].iter_mut().zip(blocks) {
            *slot = block;
            self.sack.count += 1;
        }
    }

    /// Reads the option field of a header.
    pub fn parse(field: &[u8]) -> Self {
        let mut options = Self::default();
        options.read(field);
        options
    }

    /// [`Options::parse`] into options that were used before.
    #[inline(always)]
    pub(super) fn read(&mut self, field: &[u8]) {
        self.mss = None;
        self.window_scale = None;
        self.sack_permitted = false;
        self.sack.count = 0;
        self.timestamps = None;
        if field.is_empty() {
            return;
        }
        // What nearly every segment of a connection carries, if it carries any.
        if let Ok(field) = <&[u8; TIMESTAMPS_ALONE]>::try_from(field)
            && let Some(timestamps) = Timestamps::alone(field)
        {
            self.timestamps = Some(timestamps);
        } else {
            self.read_each(field);
        }
    }

    /// Reads options of any kind, one after the other.
    #[inline(never)]
    fn read_each(&mut self, mut field: &[u8]) {
        loop {
            // Those of a SYN, where there is nothing to find out about their lengths.
            field = match *field {
                [NOP, ref rest @ ..] => rest,
                [MSS, 4, high, low, ref rest @ ..] => {
                    self.mss = Some(u16::from_be_bytes([high, low]));
                    rest
                }
                [WINDOW_SCALE, 3, shift, ref rest @ ..] => {
                    self.window_scale = Some(shift.min(MAX_WINDOW_SCALE));
                    rest
                }
                [SACK_PERMITTED, 2, ref rest @ ..] => {
                    self.sack_permitted = true;
                    rest
                }
                [TIMESTAMPS, 10, v0, v1, v2, v3, e0, e1, e2, e3, ref rest @ ..] => {
                    self.timestamps = Some(Timestamps {
                        value: u32::from_be_bytes([v0, v1, v2, v3]),
                        echo: u32::from_be_bytes([e0, e1, e2, e3]),
                    });
                    rest
                }
                [] | [END, ..] => return,
                [kind, length, ..] => {
                    let length = usize::from(length);
                    let Some(body) = field.get(2..length) else {
                        return;
                    };
                    if kind == SACK {
                        self.read_sack(body);
                    }
                    &field[length..]
                }
                [_] => return,
            };
        }
    }

    fn read_sack(&mut self, body: &[u8]) {
        let word = |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        if let 8 | 16 | 24 | 32 = body.len() {
            self.sack.count = (body.len() / 8) as u8;
            for (index, slot) in self.sack.blocks[..body.len() / 8].iter_mut().enumerate() {
                *slot = (SeqNumber(word(index * 8)), SeqNumber(word(index * 8 + 4)));
            }
        }
    }

    /// Bytes [`Options::write`] will write; a multiple of four.
    #[inline]
    pub fn length(&self) -> usize {
        let mut length = 0;
        if self.mss.is_some() {
            length += 4;
        }
        if self.window_scale.is_some() {
            length += 4;
        }
        if self.timestamps.is_some() {
            length += 12;
        } else if self.sack_permitted {
            length += 4;
        }
        if !self.sack.is_empty() {
            length += 4 + 8 * self.sack.as_slice().len();
        }
        length
    }

    /// Writes the options to `field`, which is as long as [`Options::length`] says, and returns the one's complement
    /// sum of what it wrote.
    #[inline(always)]
    pub(super) fn fill(&self, field: &mut [u8]) -> u64 {
        if field.is_empty() {
            return 0;
        }
        if let Some(timestamps) = self.timestamps
            && field.len() == TIMESTAMPS_ALONE
            && !self.sack_permitted
        {
            let words = [
                TIMESTAMPS_WORD,
                timestamps.value.to_be_bytes(),
                timestamps.echo.to_be_bytes(),
            ];
            for (place, word) in field.as_chunks_mut::<4>().0.iter_mut().zip(words) {
                *place = word;
            }
            return checksum::sum_words(words);
        }
        self.fill_each(field)
    }

    /// [`Options::fill`] for other options than timestamps alone.
    #[inline(never)]
    fn fill_each(&self, field: &mut [u8]) -> u64 {
        let (places, _) = field.as_chunks_mut::<4>();
        let (mut at, mut sum) = (0, 0);
        self.words(|word| {
            places[at] = word;
            at += 1;
            sum += checksum::sum_words([word]);
        });
        sum
    }

    /// Writes the options to the front of `buffer`, padded to whole words, and returns their length.
    ///
    /// # Panics
    ///
    /// If `buffer` is shorter.
    pub fn write(&self, buffer: &mut [u8]) -> usize {
        let length = self.length();
        self.fill(&mut buffer[..length]);
        length
    }

    /// Gives the options to `put`, word by word, padded to whole ones.
    #[inline(always)]
    fn words(&self, mut put: impl FnMut([u8; 4])) {
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put([MSS, 4, high, low]);
        }
        if let Some(timestamps) = self.timestamps {
            if self.sack_permitted {
                put([SACK_PERMITTED, 2, TIMESTAMPS, 10]);
            } else {
                put(TIMESTAMPS_WORD);
            }
            put(timestamps.value.to_be_bytes());
            put(timestamps.echo.to_be_bytes());
        } else if self.sack_permitted {
            put([SACK_PERMITTED, 2, NOP, NOP]);
        }
        if let Some(shift) = self.window_scale {
            put([NOP, WINDOW_SCALE, 3, shift]);
        }
        if !self.sack.is_empty() {
            put([NOP, NOP, SACK, 2 + 8 * self.sack.count]);
            for (left, right) in self.sack.as_slice() {
                put(left.0.to_be_bytes());
                put(right.0.to_be_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_options_are_skipped() {
        let options = Options::parse(&[254, 4, 1, 2, MSS, 4, 5, 0xb4, NOP, WINDOW_SCALE, 3, 7, END, MSS]);
        assert_eq!(options.mss, Some(1460));
        assert_eq!(options.window_scale, Some(7));
    }

    #[test]
    fn a_malformed_option_ends_the_reading_without_harm() {
        for field in [
            &[MSS][..],
            &[MSS, 0, 1, 2],
            &[MSS, 1, 1, 2],
            &[MSS, 5, 1, 2],
            &[TIMESTAMPS, 10, 1],
        ] {
            assert_eq!(Options::parse(field), Options::default(), "{field:?}");
        }
        let options = Options::parse(&[MSS, 4, 5, 0xb4, WINDOW_SCALE, 200, 7]);
        assert_eq!((options.mss, options.window_scale), (Some(1460), None));
    }

    #[test]
    fn a_window_scale_above_fourteen_counts_as_fourteen() {
        assert_eq!(Options::parse(&[WINDOW_SCALE, 3, 255]).window_scale, Some(14));
    }

    proptest! {
        #[test]
        fn anything_may_be_parsed(field in proptest::collection::vec(any::<u8>(), 0..=MAX_OPTIONS)) {
            Options::parse(&field);
        }

        #[test]
        fn what_is_written_is_read_back(
            mss: Option<u16>,
            window_scale in proptest::option::of(0..=MAX_WINDOW_SCALE),
            sack_permitted: bool,
            timestamps: Option<(u32, u32)>,
        ) {
            let options = Options {
                mss,
                window_scale,
                sack_permitted,
                timestamps: timestamps.map(|(value, echo)| Timestamps { value, echo }),
                ..Options::default()
            };
            let mut buffer = [0; MAX_OPTIONS];
            let length = options.write(&mut buffer);
            prop_assert_eq!(length, options.length());
            prop_assert_eq!(length % 4, 0);
            prop_assert_eq!(Options::parse(&buffer[..length]), options);
            let mut filled = [0xee; MAX_OPTIONS];
            let sum = options.fill(&mut filled[..length]);
            prop_assert_eq!(&filled[..length], &buffer[..length]);
            prop_assert_eq!(checksum::of_sum(sum), checksum::of_sum(checksum::sum(&buffer[..length])));
        }

        #[test]
        fn sack_blocks_are_read_back(blocks in proptest::collection::vec(any::<(u32, u32)>(), 0..6), stamped: bool) {
            let mut options = Options {
                timestamps: stamped.then_some(Timestamps { value: 1, echo: 2 }),
                ..Options::default()
            };
            options.set_sack_blocks(blocks.iter().map(|&(left, right)| (SeqNumber(left), SeqNumber(right))));
            prop_assert_eq!(options.sack.as_slice().len(), blocks.len().min(if stamped { 3 } else { 4 }));
            let mut buffer = [0; MAX_OPTIONS];
            let length = options.write(&mut buffer);
            prop_assert_eq!(length, options.length());
            prop_assert_eq!(Options::parse(&buffer[..length]), options);
        }
    }
}
