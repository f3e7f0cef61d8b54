//! One direction of an impaired link.

use core::fmt;
use core::time::Duration;

use tidegate_impair::{ImpairmentStats, Loss, Path};
use tidegate_random::Random;

use crate::icmp;
use crate::impairment::Impairment;
use crate::middlebox;
use crate::segment::ETHERNET_HEADER;

/// The history of a direction, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Given to the link.
    pub offered: u64,
    /// Bytes given to the link.
    pub offered_bytes: u64,
    /// Lost, doubled, damaged, held back, or dropped at the tail of the queue.
    pub impaired: ImpairmentStats,
    /// Dropped because they exceed the MTU.
    pub too_big: u64,
    /// Dropped while the link was down.
    pub link_down: u64,
    /// Changed unnoticeably.
    pub tampered: u64,
    /// Marked as having met congestion.
    pub marked: u64,
    /// To be delivered, duplicates included.
    pub delivered: u64,
}

impl LinkCounters {
    /// Frames that did not get through.
    pub fn dropped(&self) -> u64 {
        self.impaired.dropped() + self.too_big + self.link_down
    }

    /// Adds those of another link.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            offered,
            offered_bytes,
            impaired,
            too_big,
            link_down,
            tampered,
            marked,
            delivered,
        } = other;
        self.offered += offered;
        self.offered_bytes += offered_bytes;
        self.impaired.merge(impaired);
        self.too_big += too_big;
        self.link_down += link_down;
        self.tampered += tampered;
        self.marked += marked;
        self.delivered += delivered;
    }
}

/// The fate of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Arrives {
        /// When.
        at: Duration,
        /// Damaged or tampered with.
        damaged: bool,
        /// It arrives once more later.
        twice: bool,
    },
    /// Lost by chance.
    Lost,
    /// Lost in a burst.
    LostInBurst,
    /// The queue was full.
    QueueFull,
    /// It exceeds the MTU.
    TooBig,
    /// The link was down.
    LinkDown,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arrives { damaged, twice, .. } => match (damaged, twice) {
                (false, false) => "",
                (true, false) => "damaged",
                (false, true) => "duplicated",
                (true, true) => "damaged and duplicated",
            },
            Self::Lost => "lost",
            Self::LostInBurst => "lost in a burst",
            Self::QueueFull => "dropped: queue full",
            Self::TooBig => "dropped: too big",
            Self::LinkDown => "dropped: link down",
        })
    }
}

/// The outcome of a frame on a link.
#[derive(Debug)]
pub struct Carried {
    /// Its fate.
    pub fate: Fate,
    /// A router's message to its sender.
    pub answer: Option<Vec<u8>>,
}

/// One direction of a link. Times are counted from the start of the run and never go backwards.
#[derive(Debug)]
pub struct Link {
    impairment: Impairment,
    path: Path,
    counters: LinkCounters,
}

impl Link {
    /// A link that decides by `random`.
    pub fn new(impairment: Impairment, random: Random) -> Self {
        Self {
            path: Path::new(impairment.link, random),
            impairment,
            counters: LinkCounters::default(),
        }
    }

    /// Its frames so far.
    pub fn counters(&self) -> LinkCounters {
        LinkCounters {
            impaired: self.path.stats(),
            ..self.counters
        }
    }

    /// Takes a frame at `now` and adds what arrives at the other end, and when, to `arrivals`.
    pub fn carry(&mut self, now: Duration, mut frame: Vec<u8>, arrivals: &mut Vec<(Duration, Vec<u8>)>) -> Carried {
        self.counters.offered += 1;
        self.counters.offered_bytes += frame.len() as u64;
        self.impairment.middlebox.process(&mut frame);
        let dropped = |fate| Carried { fate, answer: None };
        if self
            .impairment
            .outages
            .iter()
            .any(|outage| (outage.from..outage.until).contains(&now))
        {
            self.counters.link_down += 1;
            return dropped(Fate::LinkDown);
        }
        if let Some(mtu) = self.mtu(now)
            && frame.len() > ETHERNET_HEADER + usize::from(mtu)
        {
            self.counters.too_big += 1;
            let answer = self.impairment.too_big.then(|| icmp::too_big(&frame, mtu)).flatten();
            return Carried {
                fate: Fate::TooBig,
                answer,
            };
        }
        match self.path.loses(now) {
            Some(Loss::Chance) => return dropped(Fate::Lost),
            Some(Loss::Burst) => return dropped(Fate::LostInBurst),
            None => {}
        }
        let Some(departure) = self.path.enqueue(now, frame.len()) else {
            return dropped(Fate::QueueFull);
        };
        if self.impairment.marks && departure.half_full && middlebox::mark_congestion(&mut frame) {
            self.counters.marked += 1;
        }
        let mut damaged = self.path.corrupts(&mut frame);
        let random = self.path.random();
        if self.impairment.tamper.happens(random) && middlebox::tamper(&mut frame, random) {
            self.counters.tampered += 1;
            damaged = true;
        }
        let at = self.path.arrival(departure.at);
        let twice = self.path.doubles();
        if twice {
            self.counters.delivered += 1;
            let longest = self.impairment.link.delay + Duration::from_millis(1);
            let later = at + self.path.random().up_to(longest);
            arrivals.push((later, frame.clone()));
        }
        self.counters.delivered += 1;
        arrivals.push((at, frame));
        Carried {
            fate: Fate::Arrives { at, damaged, twice },
            answer: None,
        }
    }

    fn mtu(&self, now: Duration) -> Option<u16> {
        let changes = self.impairment.mtu.iter();
        changes
            .take_while(|change| change.at <= now)
            .last()
            .map(|change| change.mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::impairment::{MtuChange, Outage, bottleneck};
    use crate::segment::{ACK, Draft, Endpoint};
    use tidegate_impair::{Bursts, Chance, Damage, Reordering};
    use tidegate_tcp::wire::Segment;

    fn frame(ipv6: bool, text: usize) -> Vec<u8> {
        let end = |number: u8| Endpoint {
            mac: [2, 0, 0, 0, 0, number],
            address: if ipv6 {
                format!("[2001:2::{number}]:7").parse().unwrap()
            } else {
                format!("198.18.0.{number}:7").parse().unwrap()
            },
        };
        Draft {
            from: end(2),
            to: end(1),
            seq: 1,
            ack: 2,
            flags: ACK,
            window: 3,
            options: &[],
            text: &vec![0; text],
        }
        .frame()
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn damage_is_always_noticed() {
        let impairment = tidegate_impair::Impairment {
            corrupt: Chance::permille(1000),
            damage: Damage::Noticed,
            ..tidegate_impair::Impairment::default()
        };
        let mut path = Path::new(impairment, Random::new(3));
        for round in 0..20_000 {
            // Text of zeros, and of every length, is what one's complement sums are weakest at.
            let mut damaged = frame(round % 2 == 0, round % 40);
            assert!(path.corrupts(&mut damaged));
            assert!(Segment::parse(&damaged, true).is_err(), "round {round}: {damaged:02x?}");
        }
    }

    #[test]
    fn every_frame_is_accounted_for() {
        let tenth = Chance::permille(100);
        let impairment = Impairment {
            link: tidegate_impair::Impairment {
                loss: tenth,
                bursts: Some(Bursts {
                    good: ms(20),
                    bad: ms(10),
                    loss: Chance::permille(800),
                }),
                delay: ms(5),
                jitter: ms(2),
                reorder: tenth,
                reordering: Reordering::HoldBack(ms(10)),
                duplicate: tenth,
                corrupt: tenth,
                rate: Some(bottleneck(1_000_000, 3000)),
                ..tidegate_impair::Impairment::default()
            },
            marks: true,
            outages: vec![Outage {
                from: ms(300),
                until: ms(400),
            }],
            mtu: vec![MtuChange { at: ms(500), mtu: 576 }],
            ..Impairment::default()
        };
        let mut link = Link::new(impairment, Random::new(1));
        let mut arrivals = Vec::new();
        for millis in 0..1000 {
            let size = if millis % 10 == 0 { 800 } else { 100 };
            link.carry(ms(millis), frame(false, size), &mut arrivals);
        }
        let counters = link.counters();
        assert_eq!(counters.offered, 1000);
        assert_eq!(counters.delivered, arrivals.len() as u64);
        assert_eq!(
            counters.offered + counters.impaired.duplicated,
            counters.delivered + counters.dropped()
        );
        for (name, count) in [
            ("lost", counters.impaired.lost),
            ("lost in bursts", counters.impaired.lost_in_bursts),
            ("queue full", counters.impaired.queue_full),
            ("too big", counters.too_big),
            ("link down", counters.link_down),
            ("duplicated", counters.impaired.duplicated),
            ("reordered", counters.impaired.reordered),
            ("corrupted", counters.impaired.corrupted),
        ] {
            assert!(count > 0, "{name}");
        }
        let mut total = LinkCounters::default();
        total.merge(&counters);
        assert_eq!(total, counters);
    }

    #[test]
    fn jitter_alone_keeps_the_order_and_the_rate_spaces_frames() {
        let impairment = Impairment {
            link: tidegate_impair::Impairment {
                delay: ms(5),
                jitter: ms(20),
                rate: Some(bottleneck(8_000_000, 1 << 20)),
                ..tidegate_impair::Impairment::default()
            },
            ..Impairment::default()
        };
        let mut link = Link::new(impairment, Random::new(1));
        let mut arrivals = Vec::new();
        for _ in 0..100 {
            link.carry(Duration::ZERO, frame(false, 946), &mut arrivals);
        }
        // 1,000 bytes take a millisecond.
        for (number, (at, _)) in arrivals.iter().enumerate() {
            assert!(*at >= ms(number as u64 + 1 + 5));
        }
        assert!(arrivals.is_sorted_by_key(|(at, _)| *at));
    }

    #[test]
    fn a_black_hole_is_silent_and_a_router_is_not() {
        for too_big in [false, true] {
            let impairment = Impairment {
                mtu: vec![MtuChange { at: ms(10), mtu: 1280 }, MtuChange { at: ms(20), mtu: 1500 }],
                too_big,
                ..Impairment::default()
            };
            let mut link = Link::new(impairment, Random::new(1));
            let mut arrivals = Vec::new();
            link.carry(ms(9), frame(true, 1440), &mut arrivals);
            let carried = link.carry(ms(10), frame(true, 1440), &mut arrivals);
            assert_eq!((carried.fate, carried.answer.is_some()), (Fate::TooBig, too_big));
            link.carry(ms(10), frame(true, 1220), &mut arrivals);
            link.carry(ms(20), frame(true, 1440), &mut arrivals);
            assert_eq!(arrivals.len(), 3);
        }
    }

    #[test]
    fn the_same_seed_does_the_same() {
        let run = |seed| {
            let impairment = Impairment {
                link: tidegate_impair::Impairment {
                    loss: Chance::permille(300),
                    jitter: ms(3),
                    reorder: Chance::permille(300),
                    reordering: Reordering::HoldBack(ms(9)),
                    corrupt: Chance::permille(300),
                    ..tidegate_impair::Impairment::default()
                },
                ..Impairment::default()
            };
            let mut link = Link::new(impairment, Random::new(seed));
            let mut arrivals = Vec::new();
            for millis in 0..100 {
                link.carry(ms(millis), frame(false, 100), &mut arrivals);
            }
            arrivals
        };
        assert!(run(1) == run(1));
        assert!(run(1) != run(2));
    }
}
