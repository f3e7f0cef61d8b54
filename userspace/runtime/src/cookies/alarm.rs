//! The alarm by which a shard tells the controller that SYNs come in.
//!
//! The controller sleeps while nothing happens, so a shard rings for it: after a number of SYNs, and when its half-open
//! connections reach their threshold. Once cookies are on, the shard sees no SYNs any more, and the controller looks by
//! itself.

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use crossbeam::channel::Sender;
use crossbeam::utils::CachePadded;

use super::policy::Thresholds;

/// SYNs after which a shard rings, unless the threshold asks for fewer.
const RING_AFTER: u64 = 200;

/// Half-open connections of each shard, written by the shard and read by the controller.
#[derive(Clone)]
pub(crate) struct HalfOpen(Arc<[CachePadded<AtomicU32>]>);

impl HalfOpen {
    /// Of `shards` shards that have none.
    pub(crate) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| CachePadded::new(AtomicU32::new(0))).collect())
    }

    /// Those of shard `shard`.
    pub(crate) fn get(&self, shard: usize) -> u32 {
        self.0[shard].load(Ordering::Relaxed)
    }

    fn set(&self, shard: usize, count: u32) {
        self.0[shard].store(count, Ordering::Relaxed);
    }
}

/// One shard's side.
pub(crate) struct Alarm {
    shard: usize,
    counts: HalfOpen,
    bell: Sender<()>,
    ring_after: u64,
    threshold: u32,
    half_open: u32,
    /// The SYNs counted when it last rang.
    syns: u64,
}

impl Alarm {
    /// The alarm of shard `shard`. `bell` has room for one ring: a second one before the first was heard says nothing
    /// new.
    pub(crate) fn new(shard: usize, counts: HalfOpen, bell: Sender<()>, thresholds: &Thresholds) -> Self {
        Self {
            shard,
            counts,
            bell,
            // At the threshold, about every 10 ms.
            ring_after: (thresholds.syn_rate / 100).clamp(1, RING_AFTER),
            threshold: thresholds.half_open,
            half_open: 0,
            syns: 0,
        }
    }

    /// To be called once per turn of the shard's loop, with the SYNs counted since the start and the half-open
    /// connections there are now.
    #[inline]
    pub(crate) fn turn(&mut self, syns: u64, half_open: u32) {
        let mut rings = syns - self.syns >= self.ring_after;
        if half_open != self.half_open {
            self.counts.set(self.shard, half_open);
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
        // Full: the controller has yet to hear the last ring. Gone: the server stops.
        let _ = self.bell.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use crossbeam::channel::{self, Receiver};

    use super::*;

    fn alarm(syn_rate: u64) -> (Alarm, HalfOpen, Receiver<()>) {
        let thresholds = Thresholds {
            syn_rate,
            half_open: 100,
            off_after: Duration::from_secs(1),
        };
        let counts = HalfOpen::new(2);
        let (bell, heard) = channel::bounded(1);
        (Alarm::new(1, counts.clone(), bell, &thresholds), counts, heard)
    }

    #[test]
    fn it_rings_after_a_number_of_syns() {
        let (mut alarm, _, heard) = alarm(20_000);
        alarm.turn(199, 0);
        assert!(heard.try_recv().is_err());
        alarm.turn(200, 0);
        assert!(heard.try_recv().is_ok());
        alarm.turn(399, 0);
        assert!(heard.try_recv().is_err());
        alarm.turn(1000, 0);
        assert!(heard.try_recv().is_ok());
    }

    #[test]
    fn a_low_threshold_is_not_missed() {
        let (mut alarm, _, heard) = alarm(50);
        alarm.turn(1, 0);
        assert!(heard.try_recv().is_ok());
    }

    #[test]
    fn half_open_connections_are_told_and_ring_when_they_reach_the_threshold() {
        let (mut alarm, counts, heard) = alarm(20_000);
        alarm.turn(0, 99);
        assert_eq!((counts.get(0), counts.get(1)), (0, 99));
        assert!(heard.try_recv().is_err());
        alarm.turn(0, 100);
        assert!(heard.try_recv().is_ok());
        alarm.turn(0, 130);
        assert_eq!(counts.get(1), 130);
        assert!(heard.try_recv().is_err(), "it was over the threshold before");
    }

    #[test]
    fn an_unheard_ring_stands_for_all_that_follow() {
        let (mut alarm, _, heard) = alarm(20_000);
        alarm.turn(200, 0);
        alarm.turn(400, 0);
        assert!(heard.try_recv().is_ok());
        assert!(heard.try_recv().is_err());
    }
}
