//! One direction of an impaired link.

use core::fmt;
use core::time::Duration;

use tidegate_random::Random;

use crate::icmp;
use crate::impairment::Impairment;
use crate::middlebox;
use crate::segment::ETHERNET_HEADER;

/// What a direction did, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Given to the link.
    pub offered: u64,
    /// Bytes given to the link.
    pub offered_bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost in bursts.
    pub lost_in_bursts: u64,
    /// Dropped at the tail of the queue.
    pub queue_full: u64,
    /// Dropped because they exceed the MTU.
    pub too_big: u64,
    /// Dropped while the link was down.
    pub link_down: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Damaged.
    pub corrupted: u64,
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
        self.lost + self.lost_in_bursts + self.queue_full + self.too_big + self.link_down
    }

    /// Adds those of another link.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            offered,
            offered_bytes,
            lost,
            lost_in_bursts,
            queue_full,
            too_big,
            link_down,
            duplicated,
            reordered,
            corrupted,
            tampered,
            marked,
            delivered,
        } = other;
        self.offered += offered;
        self.offered_bytes += offered_bytes;
        self.lost += lost;
        self.lost_in_bursts += lost_in_bursts;
        self.queue_full += queue_full;
        self.too_big += too_big;
        self.link_down += link_down;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.corrupted += corrupted;
        self.tampered += tampered;
        self.marked += marked;
        self.delivered += delivered;
    }
}

/// What becomes of one frame.
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

/// What a link makes of a frame.
#[derive(Debug)]
pub struct Carried {
    /// What becomes of it.
    pub fate: Fate,
    /// A router's message to its sender.
    pub answer: Option<Vec<u8>>,
}

/// One direction of a link. Times are counted from the start of the run and never go backwards.
#[derive(Debug)]
pub struct Link {
    impairment: Impairment,
    random: Random,
    bad: bool,
    weather_changes: Duration,
    idle_from: Duration,
    last_arrival: Duration,
    counters: LinkCounters,
}

impl Link {
    /// A link that decides by `random`.
    pub fn new(impairment: Impairment, random: Random) -> Self {
        Self {
            impairment,
            random,
            bad: true,
            weather_changes: Duration::ZERO,
            idle_from: Duration::ZERO,
            last_arrival: Duration::ZERO,
            counters: LinkCounters::default(),
        }
    }

    /// What it did so far.
    pub fn counters(&self) -> &LinkCounters {
        &self.counters
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
        if self.random.permille(self.impairment.loss) {
            self.counters.lost += 1;
            return dropped(Fate::Lost);
        }
        if self.lost_in_burst(now) {
            self.counters.lost_in_bursts += 1;
            return dropped(Fate::LostInBurst);
        }
        let Some(departs) = self.queue(now, &mut frame) else {
            self.counters.queue_full += 1;
            return dropped(Fate::QueueFull);
        };
        let mut damaged = false;
        if self.random.permille(self.impairment.corrupt) && corrupt(&mut frame, &mut self.random) {
            self.counters.corrupted += 1;
            damaged = true;
        }
        if self.random.permille(self.impairment.tamper) && middlebox::tamper(&mut frame, &mut self.random) {
            self.counters.tampered += 1;
            damaged = true;
        }
        let mut at = departs + self.impairment.delay + self.random.up_to(self.impairment.jitter);
        if self.random.permille(self.impairment.reorder) {
            self.counters.reordered += 1;
            at += self.random.up_to(self.impairment.reorder_by);
        } else {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        let twice = self.random.permille(self.impairment.duplicate);
        if twice {
            self.counters.duplicated += 1;
            self.counters.delivered += 1;
            let later = at + self.random.up_to(self.impairment.delay + Duration::from_millis(1));
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

    fn lost_in_burst(&mut self, now: Duration) -> bool {
        let Some(bursts) = self.impairment.bursts else {
            return false;
        };
        // After a long silence only the present matters.
        let memory = 16 * (bursts.good + bursts.bad);
        if now.saturating_sub(self.weather_changes) > memory {
            self.weather_changes = now - memory;
        }
        while self.weather_changes <= now {
            self.bad = !self.bad;
            let longest = if self.bad { bursts.bad } else { bursts.good };
            self.weather_changes += Duration::from_micros(1) + self.random.up_to(longest);
        }
        self.bad && self.random.permille(bursts.loss)
    }

    /// When the frame leaves the bottleneck; `None` when there is no room for it.
    fn queue(&mut self, now: Duration, frame: &mut [u8]) -> Option<Duration> {
        let Some(rate) = self.impairment.rate else {
            return Some(now);
        };
        let length = frame.len() as u64;
        let backlog = self.idle_from.saturating_sub(now).as_micros() as u64;
        let waiting = backlog * rate.bits_per_second / 8_000_000;
        if waiting + length > rate.queue {
            return None;
        }
        if rate.marks && 2 * waiting > rate.queue && middlebox::mark_congestion(frame) {
            self.counters.marked += 1;
        }
        let transmission = Duration::from_micros((length * 8_000_000).div_ceil(rate.bits_per_second));
        self.idle_from = self.idle_from.max(now) + transmission;
        Some(self.idle_from)
    }
}

/// Flips a single bit or a burst of up to 15; false when there is nothing to damage.
///
/// A one's complement sum notices every burst of up to 15 bits, but only most of the longer ones. Left alone are the
/// bytes from which damage would change how much is summed (IHL, payload length, next header): there, too, 1 in 65,536
/// would pass. Ethernet headers arrive whole, since damage on a wire meets the frame check sequence; what TCP has to
/// fear happens in routers.
fn corrupt(frame: &mut [u8], random: &mut Random) -> bool {
    let ipv4 = frame.get(ETHERNET_HEADER).is_some_and(|byte| byte >> 4 == 4);
    let first = ETHERNET_HEADER + if ipv4 { 1 } else { 8 };
    let Some(target) = frame.get_mut(first..).filter(|target| target.len() >= 2) else {
        return false;
    };
    let length = if random.permille(500) { 1 } else { random.between(2, 15) };
    let start = random.below(target.len() as u64 * 8 - length + 1);
    for bit in 0..length {
        // The outer bits are flipped always, so that the burst is as long as was drawn.
        if bit == 0 || bit == length - 1 || random.permille(500) {
            let at = start + bit;
            target[(at / 8) as usize] ^= 0x80 >> (at % 8);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::impairment::{Bursts, MtuChange, Outage, Rate};
    use crate::segment::{ACK, Draft, Endpoint};
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
        let mut random = Random::new(3);
        for round in 0..20_000 {
            // Text of zeros, and of every length, is what one's complement sums are weakest at.
            let mut damaged = frame(round % 2 == 0, round % 40);
            assert!(corrupt(&mut damaged, &mut random));
            assert!(Segment::parse(&damaged, true).is_err(), "round {round}: {damaged:02x?}");
        }
    }

    #[test]
    fn every_frame_is_accounted_for() {
        let impairment = Impairment {
            loss: 100,
            bursts: Some(Bursts {
                good: ms(20),
                bad: ms(10),
                loss: 800,
            }),
            delay: ms(5),
            jitter: ms(2),
            reorder: 100,
            reorder_by: ms(10),
            duplicate: 100,
            corrupt: 100,
            rate: Some(Rate {
                bits_per_second: 1_000_000,
                queue: 3000,
                marks: true,
            }),
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
            counters.offered + counters.duplicated,
            counters.delivered + counters.dropped()
        );
        for (name, count) in [
            ("lost", counters.lost),
            ("lost in bursts", counters.lost_in_bursts),
            ("queue full", counters.queue_full),
            ("too big", counters.too_big),
            ("link down", counters.link_down),
            ("duplicated", counters.duplicated),
            ("reordered", counters.reordered),
            ("corrupted", counters.corrupted),
        ] {
            assert!(count > 0, "{name}");
        }
        let mut total = LinkCounters::default();
        total.merge(counters);
        assert_eq!(total, *counters);
    }

    #[test]
    fn jitter_alone_keeps_the_order_and_the_rate_spaces_frames() {
        let impairment = Impairment {
            delay: ms(5),
            jitter: ms(20),
            rate: Some(Rate {
                bits_per_second: 8_000_000,
                queue: 1 << 20,
                marks: false,
            }),
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
                loss: 300,
                jitter: ms(3),
                reorder: 300,
                reorder_by: ms(9),
                corrupt: 300,
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
