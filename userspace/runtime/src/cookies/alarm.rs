//! The alarm by which a shard tells the controller that SYNs come in, or bad cookies.
//!
//! The controller sleeps while nothing happens, so a shard rings for it: after a number of SYNs or of bad cookies, and
//! when its half-open connections reach their threshold. Once cookies are on, the shard sees no SYNs any more, and the
//! controller looks by itself.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

use crossbeam::channel::Sender;
use crossbeam::utils::CachePadded;

use super::policy::Thresholds;

/// SYNs after which a shard rings, unless the threshold asks for fewer.
const RING_AFTER: u64 = 200;

/// The counts of one shard.
#[derive(Debug, Default)]
struct Counts {
    half_open: AtomicU32,
    bad_cookies: AtomicU64,
}

/// Counts of each shard, written by the shard and read by the controller.
#[derive(Clone)]
pub(crate) struct ShardCounts(Arc<[CachePadded<Counts>]>);

impl ShardCounts {
    /// Of `shards` shards, all zero.
    pub(crate) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| CachePadded::default()).collect())
    }

    /// The half-open connections of shard `shard`.
    pub(crate) fn half_open(&self, shard: usize) -> u32 {
        self.0[shard].half_open.load(Ordering::Relaxed)
    }

    /// Bad cookies that all shards have counted.
    pub(crate) fn bad_cookies(&self) -> u64 {
        self.0
            .iter()
            .map(|counts| counts.bad_cookies.load(Ordering::Relaxed))
            .sum()
    }
}

/// One shard's side.
pub(crate) struct Alarm {
    shard: usize,
    counts: ShardCounts,
    bell: Sender<()>,
    ring_after: u64,
    ring_after_bad_cookies: u64,
    threshold: u32,
    half_open: u32,
    /// The SYNs counted when it last rang.
    syns: u64,
    /// The same of bad cookies.
    rung_bad_cookies: u64,
    bad_cookies: u64,
}

impl Alarm {
    /// The alarm of shard `shard`. `bell` has room for one ring: a second one before the first was heard says nothing
    /// new.
    pub(crate) fn new(shard: usize, counts: ShardCounts, bell: Sender<()>, thresholds: &Thresholds) -> Self {
        Self {
            shard,
            counts,
            bell,
            // At the threshold, about every 10 ms.
            ring_after: (thresholds.syn_rate / 100).clamp(1, RING_AFTER),
            // The program lets only some of them through.
            ring_after_bad_cookies: (thresholds.bad_cookies / 100).clamp(1, RING_AFTER),
            threshold: thresholds.half_open,
            half_open: 0,
            syns: 0,
            rung_bad_cookies: 0,
            bad_cookies: 0,
        }
    }

    /// To be called once per turn of the shard's loop, with the SYNs and the bad cookies counted since the start and
    /// the half-open connections there are now.
    #[inline]
    pub(crate) fn turn(&mut self, syns: u64, bad_cookies: u64, half_open: u32) {
        let mut rings = syns - self.syns >= self.ring_after;
        let counts = &self.counts.0[self.shard];
        if bad_cookies != self.bad_cookies {
            self.bad_cookies = bad_cookies;
            counts.bad_cookies.store(bad_cookies, Ordering::Relaxed);
            rings |= bad_cookies - self.rung_bad_cookies >= self.ring_after_bad_cookies;
        }
        if half_open != self.half_open {
            counts.half_open.store(half_open, Ordering::Relaxed);
            rings |= self.half_open < self.threshold && half_open >= self.threshold;
            self.half_open = half_open;
        }
        if rings {
            self.ring(syns);
        }
    }

    #[cold]
    fn ring(&mut self, syns: u64) {
        self.syns = syns;
        self.rung_bad_cookies = self.bad_cookies;
        // Full: the controller has yet to hear the last ring. Gone: the server stops.
        let _ = self.bell.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use crossbeam::channel::{self, Receiver};

    use super::*;

    fn alarm(syn_rate: u64) -> (Alarm, ShardCounts, Receiver<()>) {
        let thresholds = Thresholds {
            syn_rate,
            half_open: 100,
            bad_cookies: 1000,
            off_after: Duration::from_secs(1),
        };
        let counts = ShardCounts::new(2);
        let (bell, heard) = channel::bounded(1);
        (Alarm::new(1, counts.clone(), bell, &thresholds), counts, heard)
    }

    #[test]
    fn it_rings_after_a_number_of_syns() {
        let (mut alarm, _, heard) = alarm(20_000);
        alarm.turn(199, 0, 0);
        assert!(heard.try_recv().is_err());
        alarm.turn(200, 0, 0);
        assert!(heard.try_recv().is_ok());
        alarm.turn(399, 0, 0);
        assert!(heard.try_recv().is_err());
        alarm.turn(1000, 0, 0);
        assert!(heard.try_recv().is_ok());
    }

    #[test]
    fn a_low_threshold_is_not_missed() {
        let (mut alarm, _, heard) = alarm(50);
        alarm.turn(1, 0, 0);
        assert!(heard.try_recv().is_ok());
    }

    #[test]
    fn half_open_connections_are_told_and_ring_when_they_reach_the_threshold() {
        let (mut alarm, counts, heard) = alarm(20_000);
        alarm.turn(0, 0, 99);
        assert_eq!((counts.half_open(0), counts.half_open(1)), (0, 99));
        assert!(heard.try_recv().is_err());
        alarm.turn(0, 0, 100);
        assert!(heard.try_recv().is_ok());
        alarm.turn(0, 0, 130);
        assert_eq!(counts.half_open(1), 130);
        assert!(heard.try_recv().is_err(), "it was over the threshold before");
    }

    #[test]
    fn bad_cookies_are_told_and_ring_after_a_number_of_them() {
        let (mut alarm, counts, heard) = alarm(20_000);
        alarm.turn(0, 9, 0);
        assert_eq!(counts.bad_cookies(), 9);
        assert!(heard.try_recv().is_err());
        alarm.turn(0, 10, 0);
        assert!(heard.try_recv().is_ok());
        alarm.turn(0, 19, 0);
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn an_unheard_ring_stands_for_all_that_follow() {
        let (mut alarm, _, heard) = alarm(20_000);
        alarm.turn(200, 0, 0);
        alarm.turn(400, 0, 0);
        assert!(heard.try_recv().is_ok());
        assert!(heard.try_recv().is_err());
    }
}
