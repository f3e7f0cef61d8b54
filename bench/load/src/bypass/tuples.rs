//! The local addresses and ports of the connections, walked in order.
//!
//! Every pair of local address and port has a number. Where there are several shards each has some of them, so that no
//! two open the same connection: those whose answers arrive on its own queue, where that can be computed
//! ([`Steering`]), else those of its own remainder. It learns which of them the network card gives to another all the
//! same: what belongs to a pair whose answers arrived on the wrong queue is not opened again as long as there are
//! others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use tidegate_flood::Prefix;
use tidegate_nic::PeerQueues;

/// Pairs at most; what a prefix has beyond is not used.
const MAX_PAIRS: u32 = 1 << 28;

/// Pairs of which it is counted how many each queue has: that takes a tenth of a second.
const MAX_COUNTED: u32 = 1 << 24;

/// Local addresses, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The bits of the first one.
    first: u128,
    /// Their number, at least 1.
    count: u32,
    ipv4: bool,
}

impl Addresses {
    /// One address.
    pub(crate) fn one(address: IpAddr) -> Self {
        let (first, ipv4) = bits(address);
        Self { first, count: 1, ipv4 }
    }

    /// Those of a prefix that a host may have: without the first and the last of an IPv4 network, which are its own and
    /// its broadcast address, and without the first of an IPv6 one, which is its routers' (RFC 4291, section 2.6.1).
    pub(crate) fn of(prefix: &Prefix) -> Self {
        let (words, mask) = prefix.words();
        if prefix.is_ipv4() {
            // The range of benchmarks has 2^17 addresses.
            let (first, others) = (u128::from(words[0]), !mask[0]);
            if others > 1 {
                return Self {
                    first: first + 1,
                    count: others - 1,
                    ipv4: true,
                };
            }
            return Self {
                first,
                count: others + 1,
                ipv4: true,
            };
        }
        let (first, others) = (joined(words), !joined(mask));
        let others = u32::try_from(others).unwrap_or(MAX_PAIRS).min(MAX_PAIRS);
        Self {
            first: first + u128::from(others > 0),
            count: others.max(1),
            ipv4: false,
        }
    }
}

/// Which part of all pairs a shard has: those whose number leaves the remainder `index` when divided by `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) index: u32,
    /// The number of shards, at least 1.
    pub(crate) of: u32,
}

impl Share {
    /// This shard's part of `total` things that are dealt out, the remainder one each to the first shards.
    pub(crate) fn part(self, total: u64) -> u64 {
        let (index, of) = (u64::from(self.index), u64::from(self.of));
        total / of + u64::from(index < total % of)
    }
}

/// All pairs, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pairs {
    addresses: Addresses,
    first_port: u16,
    ports: u32,
    /// At least 1.
    total: u32,
}

impl Pairs {
    /// Addresses and ports, `ports` not being empty.
    fn new(addresses: Addresses, ports: &RangeInclusive<u16>) -> Self {
        let count = u32::from(*ports.end()).saturating_sub(u32::from(*ports.start())) + 1;
        let total = u64::from(addresses.count) * u64::from(count);
        Self {
            addresses,
            first_port: *ports.start(),
            ports: count,
            total: total.min(u64::from(MAX_PAIRS)) as u32,
        }
    }

    fn local(&self, number: u32) -> SocketAddr {
        let bits = self.addresses.first + u128::from(number / self.ports);
        let address = if self.addresses.ipv4 {
            IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        };
        SocketAddr::new(address, self.first_port + (number % self.ports) as u16)
    }

    fn number(&self, local: SocketAddr) -> Option<u32> {
        let (bits, ipv4) = bits(local.ip());
        let address = u32::try_from(bits.checked_sub(self.addresses.first)?).ok()?;
        let port = u32::from(local.port().checked_sub(self.first_port)?);
        if ipv4 != self.addresses.ipv4 || address >= self.addresses.count || port >= self.ports {
            return None;
        }
        let number = u64::from(address) * u64::from(self.ports) + u64::from(port);
        u32::try_from(number).ok().filter(|&number| number < self.total)
    }
}

/// The queues on which the answers to all pairs arrive.
#[derive(Debug)]
pub(crate) struct Steering {
    queues: PeerQueues,
    /// The number of pairs of each queue.
    counts: Vec<u32>,
}

impl Steering {
    /// Of `shards` queues, where the interface receives the target's segments by `queues`.
    pub(crate) fn new(addresses: Addresses, ports: &RangeInclusive<u16>, queues: PeerQueues, shards: u32) -> Self {
        let pairs = Pairs::new(addresses, ports);
        let counted = pairs.total.min(MAX_COUNTED);
        let mut counts = vec![0_u64; shards as usize];
        for number in 0..counted {
            if let Some(count) = counts.get_mut(queues.queue(pairs.local(number)) as usize) {
                *count += 1;
            }
        }
        // The same parts of the rest: the hash spreads evenly.
        let of_all = |count| count * u64::from(pairs.total) / u64::from(counted);
        Self {
            queues,
            counts: counts.into_iter().map(|count| of_all(count) as u32).collect(),
        }
    }

    /// The number of pairs of a shard.
    pub(crate) fn count(&self, share: Share) -> u32 {
        self.counts.get(share.index as usize).copied().unwrap_or_default()
    }
}

/// The pairs of one shard.
#[derive(Debug)]
pub(crate) struct Tuples {
    pairs: Pairs,
    share: Share,
    steering: Option<Arc<Steering>>,
    /// The number of pairs.
    len: u32,
    /// The next number that may be one of this shard.
    next: u32,
    /// From there to the one after it.
    step: u32,
    /// A bit for each number whose answers arrive on another shard's queue; empty as long as there are none.
    elsewhere: Vec<u64>,
    /// Numbers of this shard that are not among these.
    left: u32,
}

impl Tuples {
    /// Addresses and ports, `ports` not being empty: this shard's share, or what `steering` says is its own.
    pub(crate) fn new(
        addresses: Addresses,
        ports: &RangeInclusive<u16>,
        share: Share,
        steering: Option<Arc<Steering>>,
    ) -> Self {
        let pairs = Pairs::new(addresses, ports);
        let (len, next, step) = match &steering {
            Some(steering) => (steering.count(share), 0, 1),
            None => (share.part(u64::from(pairs.total)) as u32, share.index, share.of),
        };
        Self {
            pairs,
            share,
            steering,
            len,
            next,
            step,
            elsewhere: Vec::new(),
            left: len,
        }
    }

    /// Has the next pair be that of any port of the first address, chosen by `random`: those that an earlier client
    /// began with may be in TIME-WAIT at the server.
    pub(crate) fn begin_at(&mut self, random: u64) {
        let first = self.share.index % self.step;
        let numbers = self.pairs.ports.min(self.pairs.total).saturating_sub(first);
        let steps = u64::from(numbers.div_ceil(self.step).max(1));
        self.next = first + (random % steps) as u32 * self.step;
    }

    /// Returns the number of pairs of this shard.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The next pair, again from the first after the last. There is at least one.
    pub(crate) fn take_next(&mut self) -> SocketAddr {
        loop {
            let number = self.next;
            let next = number + self.step;
            self.next = if next < self.pairs.total {
                next
            } else {
                self.share.index % self.step
            };
            if self.is_mine(number) && !self.is_elsewhere(number) {
                return self.pairs.local(number);
            }
        }
    }

    /// The next `count` pairs, but for those that [`Tuples::take_next`] passes over.
    pub(crate) fn coming(&self, count: u32) -> impl Iterator<Item = SocketAddr> {
        (self.next..self.pairs.total)
            .step_by(self.step as usize)
            .filter(|&number| self.is_mine(number))
            .take(count as usize)
            .map(|number| self.pairs.local(number))
    }

    /// Notes that frames for `local` arrive on the queue of another shard.
    pub(crate) fn note_elsewhere(&mut self, local: SocketAddr) {
        let Some(number) = self.pairs.number(local) else {
            return;
        };
        if !self.is_mine(number) || self.is_elsewhere(number) {
            return;
        }
        if self.left <= 1 {
            // All of them do by now, so it is no property of the pairs.
            self.forget_elsewhere();
            return;
        }
        if self.elsewhere.is_empty() {
            self.elsewhere.resize(self.pairs.total.div_ceil(u64::BITS) as usize, 0);
        }
        self.elsewhere[(number / u64::BITS) as usize] |= 1 << (number % u64::BITS);
        self.left -= 1;
    }

    /// All pairs are used again, wherever their answers arrive. False if they are already.
    pub(crate) fn forget_elsewhere(&mut self) -> bool {
        let had_any = !self.elsewhere.is_empty();
        self.elsewhere.clear();
        self.left = self.len;
        had_any
    }

    #[inline]
    fn is_mine(&self, number: u32) -> bool {
        match &self.steering {
            Some(steering) => steering.queues.queue(self.pairs.local(number)) == self.share.index,
            None => number % self.share.of == self.share.index,
        }
    }

    fn is_elsewhere(&self, number: u32) -> bool {
        let word = self.elsewhere.get((number / u64::BITS) as usize);
        word.is_some_and(|word| word >> (number % u64::BITS) & 1 == 1)
    }
}

/// An address as a number, and whether it is an IPv4 one.
fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), true),
        IpAddr::V6(v6) => (v6.to_bits(), false),
    }
}

fn joined(words: [u32; 4]) -> u128 {
    words.iter().fold(0, |bits, &word| bits << 32 | u128::from(word))
}

#[cfg(test)]
mod tests {
    use tidegate_nic::RssHash;

    use super::*;

    const ALONE: Share = Share { index: 0, of: 1 };

    fn addresses(prefix: &str) -> Addresses {
        Addresses::of(&prefix.parse().unwrap())
    }

    fn walk(tuples: &mut Tuples, count: usize) -> Vec<String> {
        (0..count).map(|_| tuples.take_next().to_string()).collect()
    }

    #[test]
    fn what_is_coming_is_what_comes() {
        let mut tuples = Tuples::new(
            addresses("198.19.0.0/30"),
            &(1000..=1003),
            Share { index: 1, of: 2 },
            None,
        );
        assert_eq!(tuples.coming(10).count(), 4, "up to the last");
        for _ in 0..4 {
            let coming: Vec<_> = tuples.coming(2).collect();
            let next = tuples.take_next();
            assert_eq!(coming[0], next);
        }
    }

    #[test]
    fn ports_are_walked_first_and_then_addresses_and_then_again() {
        let mut tuples = Tuples::new(addresses("198.19.0.0/30"), &(65_534..=65_535), ALONE, None);
        assert_eq!(tuples.len(), 4);
        assert_eq!(
            walk(&mut tuples, 5),
            [
                "198.19.0.1:65534",
                "198.19.0.1:65535",
                "198.19.0.2:65534",
                "198.19.0.2:65535",
                "198.19.0.1:65534",
            ]
        );
        let one = Addresses::one("2001:2::7".parse().unwrap());
        let mut tuples = Tuples::new(one, &(1024..=1024), ALONE, None);
        assert_eq!(walk(&mut tuples, 2), ["[2001:2::7]:1024", "[2001:2::7]:1024"]);
    }

    #[test]
    fn the_first_is_any_port_of_the_first_address_and_all_others_follow() {
        let begin = |share, random| {
            let mut tuples = Tuples::new(addresses("198.19.0.0/30"), &(1..=5), share, None);
            tuples.begin_at(random);
            let count = tuples.len() as usize;
            walk(&mut tuples, count)
        };
        for share in [
            ALONE,
            Share { index: 0, of: 3 },
            Share { index: 2, of: 3 },
            Share { index: 6, of: 7 },
        ] {
            let mut expected = begin(share, 0);
            let mut firsts = Vec::new();
            for random in 0..10 {
                let mut all = begin(share, random);
                firsts.push(all[0].clone());
                all.sort();
                expected.sort();
                assert_eq!(all, expected, "{share:?}, {random}");
            }
            firsts.sort();
            firsts.dedup();
            let own = expected.iter().filter(|pair| pair.starts_with("198.19.0.1:"));
            assert_eq!(firsts.len(), own.count().max(1), "{share:?}: {firsts:?}");
        }
    }

    #[test]
    fn prefixes_give_the_addresses_hosts_may_have() {
        for (prefix, first, count) in [
            ("198.19.0.0/16", "198.19.0.1", 65_534),
            ("198.19.0.8/29", "198.19.0.9", 6),
            ("198.19.0.8/31", "198.19.0.8", 2),
            ("198.19.0.8/32", "198.19.0.8", 1),
            ("2001:2::8/125", "2001:2::9", 7),
            ("2001:2::8/128", "2001:2::8", 1),
            ("2001:2:0:8000::/64", "2001:2:0:8000::1", MAX_PAIRS),
        ] {
            let found = addresses(prefix);
            let expected = Addresses {
                count,
                ..Addresses::one(first.parse().unwrap())
            };
            assert_eq!(found, expected, "{prefix}");
        }
    }

    #[test]
    fn every_pair_has_a_number_and_nothing_else_has() {
        for prefix in ["198.19.0.0/29", "2001:2::/125"] {
            let pairs = Pairs::new(addresses(prefix), &(1000..=1009));
            for number in 0..pairs.total {
                assert_eq!(pairs.number(pairs.local(number)), Some(number), "{prefix}");
            }
        }
        let pairs = Pairs::new(addresses("198.19.0.0/29"), &(1000..=1009));
        for other in [
            "198.19.0.0:1000",
            "198.19.0.7:1000",
            "198.19.0.1:999",
            "198.19.0.1:1010",
            "[::198.19.0.1]:1000",
        ] {
            assert_eq!(pairs.number(other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn the_most_there_can_be_is_bounded() {
        let tuples = Tuples::new(addresses("2001:2::/48"), &(1..=65_535), ALONE, None);
        assert_eq!(tuples.len(), MAX_PAIRS);
        let pairs = tuples.pairs;
        assert_eq!(pairs.number(pairs.local(MAX_PAIRS - 1)), Some(MAX_PAIRS - 1));
    }

    #[test]
    fn shards_share_all_pairs_and_have_none_in_common() {
        let addresses = addresses("198.19.0.0/30");
        let mut all = Vec::new();
        for index in 0..3 {
            let mut tuples = Tuples::new(addresses, &(1..=5), Share { index, of: 3 }, None);
            let count = tuples.len() as usize;
            all.extend(walk(&mut tuples, count));
            // And again the same.
            assert_eq!(walk(&mut tuples, 1), all[all.len() - count..][..1]);
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 10);
    }

    #[test]
    fn parts_make_the_whole() {
        for total in [0, 1, 7, 64, 1_000_001] {
            let parts = (0..3).map(|index| Share { index, of: 3 }.part(total));
            assert_eq!(parts.sum::<u64>(), total);
        }
    }

    #[test]
    fn pairs_that_belong_elsewhere_are_left_out() {
        let one = Addresses::one("198.18.0.2".parse().unwrap());
        let mut tuples = Tuples::new(one, &(1..=8), Share { index: 1, of: 2 }, None);
        assert_eq!(
            walk(&mut tuples, 4),
            ["198.18.0.2:2", "198.18.0.2:4", "198.18.0.2:6", "198.18.0.2:8"]
        );
        for (port, times) in [(4, 2), (3, 1), (9, 1), (8, 1)] {
            for _ in 0..times {
                tuples.note_elsewhere(SocketAddr::from(([198, 18, 0, 2], port)));
            }
        }
        assert_eq!(walk(&mut tuples, 3), ["198.18.0.2:2", "198.18.0.2:6", "198.18.0.2:2"]);
        // When all are said to belong elsewhere, all are used again.
        for port in [2, 6] {
            tuples.note_elsewhere(SocketAddr::from(([198, 18, 0, 2], port)));
        }
        assert_eq!(
            walk(&mut tuples, 4),
            ["198.18.0.2:4", "198.18.0.2:6", "198.18.0.2:8", "198.18.0.2:2"]
        );
    }

    #[test]
    fn pairs_that_belong_elsewhere_are_there_when_they_are_needed() {
        let one = Addresses::one("198.18.0.2".parse().unwrap());
        let mut tuples = Tuples::new(one, &(1..=3), ALONE, None);
        assert!(!tuples.forget_elsewhere());
        for _ in 0..2 {
            tuples.note_elsewhere(SocketAddr::from(([198, 18, 0, 2], 2)));
            assert_eq!(walk(&mut tuples, 2), ["198.18.0.2:1", "198.18.0.2:3"]);
            assert!(tuples.forget_elsewhere());
            assert_eq!(walk(&mut tuples, 3), ["198.18.0.2:1", "198.18.0.2:2", "198.18.0.2:3"]);
        }
        assert!(!tuples.forget_elsewhere());
    }

    /// Those of a device that hashes segments of `target` by some key, with a table for `queues` queues.
    fn queues(target: &str, queues: u32) -> PeerQueues {
        let hash = RssHash {
            function: 1,
            key: (0..40).map(|octet: u8| octet.wrapping_mul(167) ^ 0x6d).collect(),
            ..RssHash::default()
        };
        let table: Vec<u32> = (0..128).map(|entry| entry % queues).collect();
        PeerQueues::new(&hash, &table, target.parse().unwrap()).expect("it can be computed")
    }

    #[test]
    fn where_the_queue_of_answers_is_known_every_shard_has_its_own_pairs_and_all_of_them() {
        for (prefix, target) in [("198.19.0.0/30", "198.18.0.1:80"), ("2001:2::8/126", "[2001:2::1]:80")] {
            let (addresses, ports) = (addresses(prefix), 1000..=1499);
            let queues = queues(target, 4);
            let steering = Arc::new(Steering::new(addresses, &ports, queues.clone(), 4));
            let mut all = Vec::new();
            for index in 0..4 {
                let share = Share { index, of: 4 };
                let mut tuples = Tuples::new(addresses, &ports, share, Some(Arc::clone(&steering)));
                let count = tuples.len();
                assert_eq!(count, steering.count(share));
                assert!(count > 100, "{count}");
                let coming: Vec<_> = tuples.coming(count).collect();
                let walked: Vec<_> = (0..count).map(|_| tuples.take_next()).collect();
                assert_eq!(coming, walked);
                assert!(walked.iter().all(|&local| queues.queue(local) == index));
                assert_eq!(tuples.take_next(), walked[0], "and again");
                all.extend(walked);
            }
            all.sort();
            all.dedup();
            assert_eq!(all.len(), 500 * addresses.count as usize);
        }
    }

    #[test]
    fn what_arrives_elsewhere_all_the_same_is_left_out() {
        let one = Addresses::one("198.18.0.2".parse().unwrap());
        let ports = 1000..=1099;
        let steering = Arc::new(Steering::new(one, &ports, queues("198.18.0.1:80", 2), 2));
        let mut tuples = Tuples::new(one, &ports, Share { index: 1, of: 2 }, Some(steering));
        let first = tuples.take_next();
        let second = tuples.take_next();
        tuples.note_elsewhere(first);
        // The other shard's.
        let others = (1000..1100).map(|port| SocketAddr::from(([198, 18, 0, 2], port)));
        let mine: Vec<_> = tuples.coming(100).chain([first, second]).collect();
        others
            .filter(|other| !mine.contains(other))
            .for_each(|other| tuples.note_elsewhere(other));
        let left: Vec<_> = (1..tuples.len()).map(|_| tuples.take_next()).collect();
        assert!(!left.contains(&first) && left.contains(&second));
        assert_eq!(left.len(), mine.len() - 1);
        assert!(tuples.forget_elsewhere());
    }

    #[test]
    fn a_queue_that_the_table_does_not_have_has_no_pairs() {
        let one = Addresses::one("198.18.0.2".parse().unwrap());
        let steering = Steering::new(one, &(1000..=1099), queues("198.18.0.1:80", 2), 3);
        let count = |index| steering.count(Share { index, of: 3 });
        assert_eq!((count(0) + count(1), count(2)), (100, 0));
    }
}
