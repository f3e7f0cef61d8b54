//! The decisions about each frame, and what they came to.

use alloc::collections::VecDeque;
use core::time::Duration;

use tidegate_random::Random;

use crate::damage;
use crate::impairment::{Impairment, Rate, Reordering, Room};

/// Frames of one direction that the impairment has dropped or changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImpairmentStats {
    /// Frames lost by chance.
    pub lost: u64,
    /// Frames lost in bursts.
    pub lost_in_bursts: u64,
    /// Frames that found the queue full.
    pub queue_full: u64,
    /// Frames doubled.
    pub duplicated: u64,
    /// Frames that changed their place.
    pub reordered: u64,
    /// Frames damaged.
    pub corrupted: u64,
}

impl ImpairmentStats {
    /// Returns the frames that did not get through.
    pub fn dropped(&self) -> u64 {
        self.lost + self.lost_in_bursts + self.queue_full
    }

    /// Adds those of another direction.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            lost,
            lost_in_bursts,
            queue_full,
            duplicated,
            reordered,
            corrupted,
        } = other;
        self.lost += lost;
        self.lost_in_bursts += lost_in_bursts;
        self.queue_full += queue_full;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.corrupted += corrupted;
    }
}

/// The reason of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Chance, for each frame by itself.
    Chance,
    /// A burst.
    Burst,
}

/// The end of a frame's stay in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The time at which its last bit has gone out.
    pub at: Duration,
    /// Whether more than half of a queue of bytes was taken when it came, which is when routers mark congestion.
    pub half_full: bool,
}

/// One direction of a link, without the frames themselves.
#[derive(Debug)]
pub struct Path {
    impairment: Impairment,
    random: Random,
    /// Whether the link loses in bursts now, and when that ends.
    bad: bool,
    state_changes_at: Duration,
    /// The times at which the frames of a queue of frames have gone out.
    departures: VecDeque<Duration>,
    /// The time at which the queue is empty.
    idle_from: Duration,
    /// The time at which the last frame that kept its place arrives.
    last_arrival: Duration,
    stats: ImpairmentStats,
}

impl Path {
    /// Creates a path that decides by `random`.
    pub fn new(impairment: Impairment, random: Random) -> Self {
        Self {
            impairment,
            random,
            bad: true,
            state_changes_at: Duration::ZERO,
            departures: VecDeque::new(),
            idle_from: Duration::ZERO,
            last_arrival: Duration::ZERO,
            stats: ImpairmentStats::default(),
        }
    }

    /// Returns what has been done so far.
    pub fn stats(&self) -> ImpairmentStats {
        self.stats
    }

    /// Returns the sequence that decides, for decisions of others that are to follow from the same seed.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Decides whether a frame that comes at `now` is lost, and why.
    pub fn loses(&mut self, now: Duration) -> Option<Loss> {
        if self.impairment.loss.happens(&mut self.random) {
            self.stats.lost += 1;
            return Some(Loss::Chance);
        }
        if self.loses_in_burst(now) {
            self.stats.lost_in_bursts += 1;
            return Some(Loss::Burst);
        }
        None
    }

    fn loses_in_burst(&mut self, now: Duration) -> bool {
        let Some(bursts) = self.impairment.bursts else {
            return false;
        };
        // After a long silence only the present matters.
        let memory = 16 * (bursts.good + bursts.bad);
        if now.saturating_sub(self.state_changes_at) > memory {
            self.state_changes_at = now - memory;
        }
        while self.state_changes_at <= now {
            self.bad = !self.bad;
            let longest = if self.bad { bursts.bad } else { bursts.good };
            self.state_changes_at += Duration::from_micros(1) + self.random.up_to(longest);
        }
        self.bad && bursts.loss.happens(&mut self.random)
    }

    /// Decides whether a frame is doubled.
    pub fn doubles(&mut self) -> bool {
        let doubles = self.impairment.duplicate.happens(&mut self.random);
        self.stats.duplicated += u64::from(doubles);
        doubles
    }

    /// Puts a frame of `bytes` bytes into the queue of the bottleneck at `now`; `None` when there is no room for it.
    pub fn enqueue(&mut self, now: Duration, bytes: usize) -> Option<Departure> {
        let Some(rate) = self.impairment.rate else {
            return Some(Departure {
                at: now,
                half_full: false,
            });
        };
        let Some(half_full) = self.finds_room(now, rate, bytes as u64) else {
            self.stats.queue_full += 1;
            return None;
        };
        self.idle_from = self.idle_from.max(now) + transmission_time(rate, bytes as u64);
        if let Room::Frames(_) = rate.room {
            self.departures.push_back(self.idle_from);
        }
        Some(Departure {
            at: self.idle_from,
            half_full,
        })
    }

    /// Whether more than half of the room is taken; `None` when the rest is too little.
    fn finds_room(&mut self, now: Duration, rate: Rate, bytes: u64) -> Option<bool> {
        match rate.room {
            Room::Bytes(room) => {
                let backlog = self.idle_from.saturating_sub(now).as_nanos();
                let waiting = (backlog * u128::from(rate.bits_per_second.get()) / 8_000_000_000) as u64;
                (waiting + bytes <= room).then_some(2 * waiting > room)
            }
            Room::Frames(room) => {
                while self.departures.front().is_some_and(|&departure| departure <= now) {
                    self.departures.pop_front();
                }
                (self.departures.len() < room).then_some(false)
            }
        }
    }

    /// Decides whether `frame` is damaged, and damages it.
    pub fn corrupts(&mut self, frame: &mut [u8]) -> bool {
        let corrupts = self.impairment.corrupt.happens(&mut self.random)
            && damage::apply(self.impairment.damage, frame, &mut self.random);
        self.stats.corrupted += u64::from(corrupts);
        corrupts
    }

    /// Decides when a frame arrives that departs at `departs`.
    pub fn arrival(&mut self, departs: Duration) -> Duration {
        let at = departs + self.impairment.delay + self.random.up_to(self.impairment.jitter);
        if self.impairment.reorder.happens(&mut self.random) {
            self.stats.reordered += 1;
            return match self.impairment.reordering {
                Reordering::HoldBack(longest) => at + self.random.up_to(longest),
                Reordering::SkipDelay => departs,
            };
        }
        self.last_arrival = self.last_arrival.max(at);
        self.last_arrival
    }
}

/// The time of a frame of `bytes` bytes on the wire.
fn transmission_time(rate: Rate, bytes: u64) -> Duration {
    let nanos = (u128::from(bytes) * 8_000_000_000).div_ceil(rate.bits_per_second.get().into()) as u64;
    let granularity = (rate.granularity.as_nanos() as u64).max(1);
    Duration::from_nanos(nanos.div_ceil(granularity) * granularity)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::num::NonZeroU64;

    use super::*;
    use crate::{Bursts, Chance};

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn path(impairment: Impairment, seed: u64) -> Path {
        Path::new(impairment, Random::new(seed))
    }

    fn rate(megabits: u64, room: Room) -> Option<Rate> {
        Some(Rate {
            bits_per_second: NonZeroU64::new(megabits * 1_000_000).unwrap(),
            room,
            granularity: Duration::from_nanos(1),
        })
    }

    #[test]
    fn without_impairment_every_frame_arrives_at_once_and_unchanged() {
        let mut path = path(Impairment::default(), 1);
        for now in (0..1000).map(ms) {
            let mut frame = [0x5a; 60];
            assert!(path.loses(now).is_none() && !path.doubles() && !path.corrupts(&mut frame));
            let departure = path.enqueue(now, frame.len()).unwrap();
            assert_eq!((departure.at, path.arrival(departure.at)), (now, now));
            assert_eq!(frame, [0x5a; 60]);
        }
        assert_eq!(path.stats(), ImpairmentStats::default());
    }

    #[test]
    fn loss_and_duplication_are_as_frequent_as_asked_for_and_repeat_with_the_seed() {
        let impairment = Impairment {
            loss: Chance::permille(100),
            duplicate: Chance::permille(200),
            ..Impairment::default()
        };
        let copies = |seed| {
            let mut path = path(impairment, seed);
            let mut copies = || match path.loses(Duration::ZERO) {
                Some(_) => 0,
                None => 1 + u64::from(path.doubles()),
            };
            let copies: Vec<u64> = (0..10_000).map(|_| copies()).collect();
            (copies, path.stats())
        };
        let (drawn, stats) = copies(7);
        let with = |count| drawn.iter().filter(|&&copies| copies == count).count() as u64;
        assert_eq!((stats.lost, stats.duplicated), (with(0), with(2)));
        assert!((900..1100).contains(&stats.lost), "{stats:?}");
        // A fifth of the nine tenths that are not lost.
        assert!((1650..1950).contains(&stats.duplicated), "{stats:?}");
        assert_eq!(copies(7).0, drawn);
        assert_ne!(copies(8).0, drawn);
    }

    #[test]
    fn bursts_lose_only_in_bad_times_and_end_when_nobody_sends() {
        let bursts = Bursts {
            good: ms(20),
            bad: ms(10),
            loss: Chance::permille(1000),
        };
        let impairment = Impairment {
            bursts: Some(bursts),
            ..Impairment::default()
        };
        let mut path = path(impairment, 1);
        let lost: Vec<bool> = (0..10_000).map(|millis| path.loses(ms(millis)).is_some()).collect();
        // A good and a bad time take 15 ms together, on average.
        let bursts = lost.chunk_by(|a, b| a == b).filter(|run| run[0]);
        let lengths: Vec<usize> = bursts.map(<[bool]>::len).collect();
        assert!((400..900).contains(&lengths.len()), "{}", lengths.len());
        let longest = lengths.iter().max().unwrap();
        // Two bad times may have less than a millisecond between them.
        assert!((8..40).contains(longest), "{longest}");
        let stats = path.stats();
        assert_eq!((stats.lost, stats.dropped()), (0, stats.lost_in_bursts));
        // An hour later it takes no time to find out.
        let _ = path.loses(Duration::from_secs(3600));
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_keeps_the_order() {
        let impairment = Impairment {
            delay: ms(3),
            jitter: ms(4),
            ..Impairment::default()
        };
        let mut path = path(impairment, 1);
        let delays: Vec<Duration> = (0..1000)
            .map(|number| path.arrival(ms(10 * number)) - ms(10 * number))
            .collect();
        assert!(delays.iter().all(|delay| (ms(3)..=ms(7)).contains(delay)));
        assert!(delays.iter().any(|&delay| delay < ms(4)) && delays.iter().any(|&delay| delay > ms(6)));
        // Close together, a late one holds up those behind it.
        let arrivals: Vec<Duration> = (0..1000)
            .map(|number| path.arrival(ms(10_000) + Duration::from_nanos(number)))
            .collect();
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn a_reordered_frame_holds_up_nobody() {
        for reordering in [Reordering::SkipDelay, Reordering::HoldBack(ms(3))] {
            let impairment = Impairment {
                delay: ms(5),
                reorder: Chance::permille(250),
                reordering,
                ..Impairment::default()
            };
            let mut path = path(impairment, 1);
            let mut moved = 0;
            for now in (0..1000).map(Duration::from_nanos) {
                let delay = path.arrival(now) - now;
                match reordering {
                    _ if delay == ms(5) => continue,
                    Reordering::SkipDelay => assert_eq!(delay, Duration::ZERO),
                    Reordering::HoldBack(longest) => assert!(delay > ms(5) && delay <= ms(5) + longest),
                }
                moved += 1;
            }
            assert_eq!(path.stats().reordered, moved);
            assert!((200..300).contains(&moved), "{moved}");
        }
    }

    #[test]
    fn the_rate_spaces_frames_and_a_queue_of_frames_drops_what_it_cannot_hold() {
        let impairment = Impairment {
            rate: rate(100, Room::Frames(3)),
            ..Impairment::default()
        };
        let mut path = path(impairment, 1);
        // 1,250 bytes take 100 microseconds.
        let mut departs = |micros| Some(path.enqueue(Duration::from_micros(micros), 1250)?.at.as_micros());
        assert_eq!(departs(0), Some(100));
        assert_eq!(departs(0), Some(200));
        assert_eq!(departs(0), Some(300));
        assert_eq!(departs(99), None);
        assert_eq!(departs(100), Some(400));
        assert_eq!(departs(1000), Some(1100), "an idle link saves up nothing");
        assert_eq!(path.stats().queue_full, 1);
    }

    #[test]
    fn a_queue_of_bytes_is_half_full_before_it_is_full() {
        let impairment = Impairment {
            rate: rate(8, Room::Bytes(3000)),
            ..Impairment::default()
        };
        let mut path = path(impairment, 1);
        // 1,000 bytes take a millisecond.
        let mut found = |now| Some(path.enqueue(ms(now), 1000)?.half_full);
        assert_eq!(
            [found(0), found(0), found(0), found(0)],
            [Some(false), Some(false), Some(true), None]
        );
        assert_eq!(found(1), Some(true));
    }

    #[test]
    fn times_on_the_wire_are_rounded_up_to_the_granularity() {
        let mut rate = rate(1000, Room::Frames(1)).unwrap();
        assert_eq!(transmission_time(rate, 60), Duration::from_nanos(480));
        rate.granularity = Duration::from_micros(1);
        assert_eq!(transmission_time(rate, 60), Duration::from_micros(1));
    }

    #[test]
    fn all_stats_are_merged() {
        let one = ImpairmentStats {
            lost: 1,
            lost_in_bursts: 2,
            queue_full: 3,
            duplicated: 4,
            reordered: 5,
            corrupted: 6,
        };
        let mut total = ImpairmentStats::default();
        total.merge(&one);
        assert_eq!(total, one);
        assert_eq!(total.dropped(), 6);
    }
}
