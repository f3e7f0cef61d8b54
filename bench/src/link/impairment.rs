//! What happens to a frame on its way: lost, doubled, changed, queued, delayed, or let past the others.
//!
//! A frame meets, in this order: loss, duplication (both copies go on, each for itself), corruption, the queue in front
//! of the rate limit, the delay. The clock is a parameter, in nanoseconds.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use tidegate_random::Random;

use super::frame::ETHERNET_HEADER;
use super::units::Share;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What is done to the frames of one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Impairment {
    /// Frames lost.
    pub(super) loss: Share,
    /// Frames sent twice.
    pub(super) duplicate: Share,
    /// Frames with one bit changed, anywhere behind the Ethernet header.
    pub(super) corrupt: Share,
    /// Frames that skip the delay, and so overtake those sent before them.
    pub(super) reorder: Share,
    /// Delay in nanoseconds.
    pub(super) delay: u64,
    /// Largest deviation from the delay in nanoseconds, at most the delay. It changes no order.
    pub(super) jitter: u64,
    /// Bits per second, counted from the Ethernet header to the end of the payload.
    pub(super) rate: Option<NonZeroU64>,
    /// Frames that may wait for the rate limit.
    pub(super) limit: usize,
}

/// What has been done to the frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deeds {
    /// Frames lost.
    pub(super) lost: u64,
    /// Frames doubled.
    pub(super) duplicated: u64,
    /// Copies with a bit changed.
    pub(super) corrupted: u64,
    /// Copies that skipped the delay.
    pub(super) reordered: u64,
    /// Copies that found the queue full.
    pub(super) over_limit: u64,
}

/// One direction of the link, without the frames themselves.
#[derive(Debug)]
pub(super) struct Path {
    impairment: Impairment,
    random: Random,
    /// When each frame in the queue has gone out at the rate limit.
    departures: VecDeque<u64>,
    /// When the last frame has gone out at the rate limit.
    busy_until: u64,
    /// When the last frame that did not skip the delay is due.
    last_due: u64,
    deeds: Deeds,
}

impl Path {
    /// A path that draws from the stream of `seed`.
    pub(super) fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            random: Random::new(seed),
            departures: VecDeque::new(),
            busy_until: 0,
            last_due: 0,
            deeds: Deeds::default(),
        }
    }

    /// What has been done so far.
    pub(super) fn deeds(&self) -> Deeds {
        self.deeds
    }

    /// How many copies of the next frame go on: 0, 1 or 2.
    pub(super) fn copies(&mut self) -> usize {
        if self.drawn(self.impairment.loss) {
            self.deeds.lost += 1;
            return 0;
        }
        if self.drawn(self.impairment.duplicate) {
            self.deeds.duplicated += 1;
            return 2;
        }
        1
    }

    /// Sends a copy on its way at time `now`, which never goes back. Returns when it arrives; `None` if the queue is
    /// full.
    pub(super) fn pass(&mut self, now: u64, frame: &mut [u8]) -> Option<u64> {
        let corrupt = self.drawn(self.impairment.corrupt);
        let reorder = self.drawn(self.impairment.reorder);
        let delay = self.delay();
        if corrupt {
            self.flip_bit(frame);
        }
        let Some(departure) = self.queue(now, frame.len()) else {
            self.deeds.over_limit += 1;
            return None;
        };
        if corrupt {
            self.deeds.corrupted += 1;
        }
        if reorder {
            self.deeds.reordered += 1;
            return Some(departure);
        }
        self.last_due = self.last_due.max(departure + delay);
        Some(self.last_due)
    }

    fn drawn(&mut self, share: Share) -> bool {
        !share.is_zero() && share.contains(self.random.fraction())
    }

    /// The delay, with the jitter evenly spread on both of its sides.
    fn delay(&mut self) -> u64 {
        let Impairment { delay, jitter, .. } = self.impairment;
        if jitter == 0 {
            return delay;
        }
        delay - jitter + self.random.word() % (2 * jitter + 1)
    }

    fn flip_bit(&mut self, frame: &mut [u8]) {
        let changeable = frame.get_mut(ETHERNET_HEADER..).unwrap_or_default();
        if changeable.is_empty() {
            return;
        }
        let bit = self.random.word() % (changeable.len() as u64 * 8);
        changeable[(bit / 8) as usize] ^= 1_u8 << (bit % 8);
    }

    /// Queues `bytes` bytes for the rate limit. Returns when the last of them has gone out; `None` if the queue is
    /// full.
    fn queue(&mut self, now: u64, bytes: usize) -> Option<u64> {
        let Some(rate) = self.impairment.rate else {
            return Some(now);
        };
        while self.departures.front().is_some_and(|&departure| departure <= now) {
            self.departures.pop_front();
        }
        if self.departures.len() >= self.impairment.limit {
            return None;
        }
        // At most 100 kB: far from the limits of 64 bits.
        let takes = bytes as u64 * 8 * NANOS_PER_SECOND / rate;
        self.busy_until = self.busy_until.max(now) + takes;
        self.departures.push_back(self.busy_until);
        Some(self.busy_until)
    }
}

#[cfg(test)]
mod tests {
    use super::super::units::{parse_rate, parse_share};
    use super::*;

    const MS: u64 = 1_000_000;

    const NOTHING: Impairment = Impairment {
        loss: Share::NONE,
        duplicate: Share::NONE,
        corrupt: Share::NONE,
        reorder: Share::NONE,
        delay: 0,
        jitter: 0,
        rate: None,
        limit: 1000,
    };

    fn share(text: &str) -> Share {
        parse_share(text).unwrap()
    }

    #[test]
    fn without_impairment_every_frame_arrives_at_once_and_unchanged() {
        let mut path = Path::new(NOTHING, 1);
        for now in 0..1000 {
            let mut frame = [0x5a; 60];
            assert_eq!(path.copies(), 1);
            assert_eq!(path.pass(now, &mut frame), Some(now));
            assert_eq!(frame, [0x5a; 60]);
        }
        assert_eq!(path.deeds(), Deeds::default());
    }

    #[test]
    fn loss_and_duplication_are_as_frequent_as_asked_for_and_repeat_with_the_seed() {
        let impairment = Impairment {
            loss: share("10%"),
            duplicate: share("20%"),
            ..NOTHING
        };
        let copies = |seed| {
            let mut path = Path::new(impairment, seed);
            let copies: Vec<usize> = (0..10_000).map(|_| path.copies()).collect();
            (copies, path.deeds())
        };
        let (drawn, deeds) = copies(7);
        assert_eq!(deeds.lost, drawn.iter().filter(|&&copies| copies == 0).count() as u64);
        assert_eq!(
            deeds.duplicated,
            drawn.iter().filter(|&&copies| copies == 2).count() as u64
        );
        assert!((900..1100).contains(&deeds.lost), "{deeds:?}");
        // A fifth of the nine tenths that are not lost.
        assert!((1650..1950).contains(&deeds.duplicated), "{deeds:?}");
        assert_eq!(copies(7).0, drawn);
        assert_ne!(copies(8).0, drawn);
    }

    #[test]
    fn everything_can_be_lost() {
        let mut path = Path::new(
            Impairment {
                loss: share("100%"),
                ..NOTHING
            },
            1,
        );
        assert!((0..1000).all(|_| path.copies() == 0));
    }

    #[test]
    fn corruption_changes_one_bit_behind_the_ethernet_header() {
        let mut path = Path::new(
            Impairment {
                corrupt: share("100%"),
                ..NOTHING
            },
            3,
        );
        let mut places = std::collections::HashSet::new();
        for _ in 0..1000 {
            let mut frame = [0; 60];
            path.pass(0, &mut frame);
            let changed: Vec<usize> = (0..60).filter(|&at| frame[at] != 0).collect();
            assert_eq!(changed.len(), 1);
            assert_eq!(frame[changed[0]].count_ones(), 1);
            assert!(changed[0] >= ETHERNET_HEADER);
            places.insert(changed[0]);
        }
        assert_eq!(places.len(), 60 - ETHERNET_HEADER);
        assert_eq!(path.deeds().corrupted, 1000);
        path.pass(0, &mut [0; ETHERNET_HEADER]);
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_keeps_the_order() {
        let mut path = Path::new(
            Impairment {
                delay: 5 * MS,
                jitter: 2 * MS,
                ..NOTHING
            },
            1,
        );
        let mut last = 0;
        let mut delays = Vec::new();
        for number in 0..1000 {
            let now = number * 10 * MS;
            let due = path.pass(now, &mut [0; 60]).unwrap();
            assert!(due >= last);
            last = due;
            delays.push(due - now);
        }
        assert!(delays.iter().all(|delay| (3 * MS..=7 * MS).contains(delay)));
        assert!(delays.iter().any(|&delay| delay < 4 * MS) && delays.iter().any(|&delay| delay > 6 * MS));
        // Close together, a late one holds up those behind it.
        let dues: Vec<u64> = (0..1000)
            .map(|number| path.pass(10_000 * MS + number, &mut [0; 60]).unwrap())
            .collect();
        assert!(dues.is_sorted());
    }

    #[test]
    fn a_reordered_frame_skips_the_delay_and_holds_up_nobody() {
        let mut path = Path::new(
            Impairment {
                delay: 5 * MS,
                reorder: share("25%"),
                ..NOTHING
            },
            1,
        );
        let mut early = 0;
        for now in 0..1000 {
            match path.pass(now, &mut [0; 60]).unwrap() - now {
                0 => early += 1,
                delay => assert_eq!(delay, 5 * MS),
            }
        }
        assert_eq!(path.deeds().reordered, early);
        assert!((200..300).contains(&early), "{early}");
    }

    #[test]
    fn the_rate_limit_spaces_frames_and_drops_what_the_queue_cannot_hold() {
        let mut path = Path::new(
            Impairment {
                rate: Some(parse_rate("100mbit").unwrap()),
                limit: 3,
                delay: MS,
                ..NOTHING
            },
            1,
        );
        // 1,250 bytes take 100 microseconds.
        let mut pass = |now| path.pass(now, &mut [0; 1250]);
        assert_eq!(pass(0), Some(100_000 + MS));
        assert_eq!(pass(0), Some(200_000 + MS));
        assert_eq!(pass(0), Some(300_000 + MS));
        assert_eq!(pass(99_999), None);
        assert_eq!(pass(100_000), Some(400_000 + MS));
        assert_eq!(pass(MS), Some(1_100_000 + MS), "an idle link saves up nothing");
        assert_eq!(path.deeds().over_limit, 1);
    }
}
