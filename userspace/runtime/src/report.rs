//! Reports of a runtime: its queues, counters and frames.

use core::time::Duration;
use std::collections::BTreeMap;

use tidegate_abi::XdpCounter;
use tidegate_tcp::counters::Counters;
use tidegate_tcp::engine::Population;
use tidegate_tcp::histogram::Latencies;
use tidegate_xsk::Statistics;

/// A queue that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// The queue's number on the device.
    pub queue: u32,
    /// The CPU its shard is pinned to.
    pub cpu: Option<usize>,
    /// Whether the kernel gave zero-copy (as it says itself, `XDP_OPTIONS`).
    pub zero_copy: bool,
    /// Frames of its UMEM.
    pub frames: u32,
}

/// A snapshot of everything that is counted.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One per shard, by queue.
    pub shards: Vec<ShardReport>,
    /// The XDP program's counters, one set per receive queue of the device, served or not.
    pub xdp: Vec<XdpCounts>,
    /// SYN cookies, by queue that is served.
    pub syn_cookies: Vec<SynCookieCounts>,
    /// The counters of what follows the kernel's routes and neighbours.
    pub next_hops: NextHopCounts,
    /// The device, all queues together.
    pub device: DeviceCounts,
}

/// The counters of the device and of its driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Times the XDP program was attached anew because the driver did not run it any more.
    pub reattached: u64,
    /// The driver's counters of lost frames since the start, by its own names, blanks replaced by `_`: those that are
    /// not zero.
    pub driver: BTreeMap<String, u64>,
}

impl DeviceCounts {
    /// Frames that the XDP program sent back by the device (XDP_TX) and the driver lost, as far as it says so: by the
    /// names of veth (`rx_queue_0_xdp_tx_errors`), virtio_net (`tx_xdp_tx_drops`) and mlx5 (`rx_xdp_tx_err`).
    pub(crate) fn lost_of_xdp_tx(&self) -> u64 {
        let of_xdp_tx = self.driver.iter().filter(|(name, _)| name.contains("xdp_tx"));
        of_xdp_tx
            .map(|(_, lost)| lost)
            .fold(0, |sum, lost| sum.wrapping_add(*lost))
    }
}

impl Report {
    /// Adds what was counted by a runtime before this one, so that counters go on. How many connections and frames
    /// there are is told by this one alone.
    pub fn add_earlier(&mut self, earlier: &Self) {
        for before in &earlier.shards {
            match self.shards.iter_mut().find(|shard| shard.queue == before.queue) {
                Some(shard) => {
                    shard.tcp.merge(&before.tcp);
                    shard.latencies.merge(&before.latencies);
                    shard.port.merge(&before.port);
                    shard.cpu_time += before.cpu_time;
                    shard.xdp_statistics.merge(&before.xdp_statistics);
                }
                None => self.shards.push(ShardReport {
                    population: Population::default(),
                    frames: FrameCensus::default(),
                    ..before.clone()
                }),
            }
        }
        self.shards.sort_by_key(|shard| shard.queue);
        if self.xdp.len() < earlier.xdp.len() {
            self.xdp.resize(earlier.xdp.len(), XdpCounts::default());
        }
        for (counts, before) in self.xdp.iter_mut().zip(&earlier.xdp) {
            for (count, before) in counts.0.iter_mut().zip(before.0) {
                *count = count.wrapping_add(before);
            }
        }
        for before in &earlier.syn_cookies {
            match self
                .syn_cookies
                .iter_mut()
                .find(|cookies| cookies.queue == before.queue)
            {
                Some(cookies) => {
                    cookies.turned_on += before.turned_on;
                    cookies.turned_off += before.turned_off;
                }
                None => self.syn_cookies.push(SynCookieCounts {
                    active: false,
                    strong: false,
                    ..*before
                }),
            }
        }
        self.syn_cookies.sort_by_key(|cookies| cookies.queue);
        self.next_hops.merge(&earlier.next_hops);
        self.device.reattached += earlier.device.reattached;
        for (name, before) in &earlier.device.driver {
            *self.device.driver.entry(name.clone()).or_default() += before;
        }
    }
}

/// The number of times SYN cookies were turned on and off for one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynCookieCounts {
    /// The queue.
    pub queue: u32,
    /// Times they were turned on.
    pub turned_on: u64,
    /// Times they were turned off.
    pub turned_off: u64,
    /// Whether they are on now.
    pub active: bool,
    /// Whether those for SYNs without timestamps are strong ones now, on all queues.
    pub strong: bool,
}

/// The counters of one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// The shard's queue.
    pub queue: u32,
    /// The engine's counters.
    pub tcp: Counters,
    /// The engine's latencies.
    pub latencies: Latencies,
    /// The counters of rings, wake-ups and hand-over.
    pub port: PortCounters,
    /// The kernel's counters of the AF_XDP socket.
    pub xdp_statistics: Statistics,
    /// The number of connections.
    pub population: Population,
    /// Whether draining, or the resetting of what is left, has connections yet to come to.
    pub sweeping: bool,
    /// Where the frames are.
    pub frames: FrameCensus,
    /// The processor time of the shard's thread.
    pub cpu_time: Duration,
}

/// The XDP program's counters of one receive queue, summed over CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpCounts(pub [u64; XdpCounter::COUNT as usize]);

impl Default for XdpCounts {
    fn default() -> Self {
        Self([0; XdpCounter::COUNT as usize])
    }
}

impl XdpCounts {
    /// The value of `counter`.
    pub fn get(&self, counter: XdpCounter) -> u64 {
        self.0[counter as usize]
    }

    /// Every counter with its value, in the order of [`XdpCounter::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (XdpCounter, u64)> + '_ {
        XdpCounter::ALL.iter().map(|&counter| (counter, self.get(counter)))
    }
}

macro_rules! counters {
    ($(#[$meta:meta])* $type:ident { $($(#[doc = $doc:literal])+ $field:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $type {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl $type {
            /// The documentation of every counter, in the order of [`Self::iter`].
            pub const DESCRIPTIONS: &[&str] = &[$(concat!($($doc),+),)+];

            /// Every counter's name with its value.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }

            /// Adds all of `other`, for totals.
            pub fn merge(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)+
            }
        }
    };
}

counters! {
    /// The counters of the thread that follows the kernel's routes and neighbours; all 0 without it.
    NextHopCounts {
        /// Times the kernel was told that something is sent to a neighbour, to resolve it or to see whether it is
        /// there.
        neighbour_requests,
        /// Times it was not told of one that is to be resolved: over `neighbour_rate`.
        neighbour_requests_limited,
        /// Times all routes and neighbours were listed: at the start, after messages were lost, and when an interface
        /// or an address has gone.
        listings,
    }
}

counters! {
    /// The counters of a shard around its engine.
    PortCounters {
        /// Frames taken from the RX ring. One in several buffers is one, here and below.
        rx_frames,
        /// Bytes of these frames, Ethernet header included.
        rx_bytes,
        /// Frames put into the TX ring.
        tx_frames,
        /// Bytes of these frames, Ethernet header included.
        tx_bytes,
        /// Times the kernel was asked to look at the fill ring, or to poll the device.
        fill_wakeups,
        /// Times the kernel was asked to look at the TX ring.
        tx_wakeups,
        /// Times sending stalled because the kernel took no more frames for the moment.
        tx_busy,
        /// Times sending stalled because the interface was down.
        tx_link_down,
        /// Frames thrown away because the interface they were to leave by is gone, of several that are served.
        tx_link_gone,
        /// Frames the engine asked for and did not get: the pool was down to what is kept for other purposes, or the TX
        /// ring was full.
        tx_refused,
        /// Times the shard slept.
        sleeps,
        /// Segments that arrived here, belong to no flow of this shard, and were handed to the next one.
        handover_out,
        /// Segments of other shards that belong to a flow of this one.
        handover_in,
        /// Segments of other shards that were handed on.
        handover_passed_on,
        /// Frames of this shard that came home.
        handover_returned,
        /// Segments dropped because the next shard's queue was full, here or on their way.
        handover_full,
        /// Segments of this shard that no shard knew; they are answered with RST.
        handover_unowned,
        /// Frames received in several buffers, those included that were dropped.
        rx_multi_buffer,
        /// Frames sent in several buffers.
        tx_multi_buffer,
        /// Dropped: frames in several buffers that are longer than any of an MTU of 9,000.
        rx_too_long,
        /// Dropped: frames in several buffers while `burst` and `handover_queue` others waited for their shard.
        rx_no_buffer,
        /// Turns of the shard's loop.
        turns,
        /// Those of them in which something came in.
        turns_worked,
        /// Segments given to processes that this one took over from.
        relay_out,
        /// Frames sent for such processes.
        relay_in,
        /// Segments given to such a process that ended before it had answered.
        relay_lost,
        /// Dropped: frames of such processes that are longer than a frame of this one.
        relay_too_long,
        /// Frames copied for captures and traces (`ctl capture`, `ctl trace`), once for each.
        captured,
        /// Those that are missing there: the ring of the shard was full, because who takes them is too slow.
        capture_lost,
    }
}

/// Where a shard's frames are. A frame is in exactly one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCensus {
    /// All frames of the UMEM.
    pub total: u32,
    /// Free.
    pub pool: u32,
    /// Given to the kernel for receiving: in the fill ring, or received and still in the RX ring.
    pub fill: u32,
    /// Given to the kernel for sending: in the TX ring, on their way, or in the completion ring.
    pub tx: u32,
    /// Being written, or written and not yet in the TX ring.
    pub in_hand: u32,
    /// Handed to other shards and not yet home.
    pub handed_over: u32,
    /// Frames of other shards that wait for this one. They are in their own shard's census, not in this one's sum.
    pub foreign: u32,
}

impl FrameCensus {
    /// Whether no frame is lost or in two places: everywhere together makes the total.
    pub fn is_whole(&self) -> bool {
        [self.pool, self.fill, self.tx, self.in_hand, self.handed_over]
            .into_iter()
            .map(u64::from)
            .sum::<u64>()
            == u64::from(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_census_is_whole_when_every_frame_is_somewhere_once() {
        let census = FrameCensus {
            total: 15,
            pool: 1,
            fill: 2,
            tx: 3,
            in_hand: 4,
            handed_over: 5,
            foreign: 9,
        };
        assert!(census.is_whole());
        assert!(!FrameCensus { pool: 0, ..census }.is_whole());
        assert!(!FrameCensus { tx: 4, ..census }.is_whole());
    }

    #[test]
    fn counters_are_named_and_added() {
        let mut sum = PortCounters {
            rx_frames: 1,
            ..PortCounters::default()
        };
        sum.merge(&PortCounters {
            rx_frames: 2,
            handover_unowned: 3,
            ..PortCounters::default()
        });
        let named: Vec<_> = sum.iter().filter(|&(_, value)| value != 0).collect();
        assert_eq!(named, [("rx_frames", 3), ("handover_unowned", 3)]);
    }

    /// A report of `queues` shards in which everything counts `value`.
    fn report(queues: u32, value: u64) -> Report {
        let mut counts = XdpCounts::default();
        counts.0[XdpCounter::Redirect as usize] = value;
        let mut tcp = Counters::default();
        tcp.add(tidegate_tcp::counters::Counter::PassiveOpens, value);
        let mut latencies = Latencies::default();
        (0..value).for_each(|_| latencies.rtt.record(50));
        Report {
            shards: (0..queues)
                .map(|queue| ShardReport {
                    queue,
                    tcp: tcp.clone(),
                    latencies: latencies.clone(),
                    cpu_time: Duration::from_secs(value),
                    port: PortCounters {
                        rx_frames: value,
                        ..PortCounters::default()
                    },
                    xdp_statistics: Statistics {
                        rx_dropped: value,
                        ..Statistics::default()
                    },
                    population: Population {
                        connections: value as u32,
                        ..Population::default()
                    },
                    frames: FrameCensus {
                        total: value as u32,
                        ..FrameCensus::default()
                    },
                    ..ShardReport::default()
                })
                .collect(),
            xdp: vec![counts; queues as usize],
            syn_cookies: (0..queues)
                .map(|queue| SynCookieCounts {
                    queue,
                    turned_on: value,
                    turned_off: value,
                    active: true,
                    strong: false,
                })
                .collect(),
            next_hops: NextHopCounts {
                listings: value,
                ..NextHopCounts::default()
            },
            device: DeviceCounts {
                reattached: value,
                driver: [("rx_drops".to_owned(), value), (format!("rx_{value}"), value)].into(),
            },
        }
    }

    #[test]
    fn counters_of_an_earlier_runtime_are_added_and_its_populations_are_not() {
        for (queues, earlier_queues) in [(2, 2), (1, 2), (2, 1)] {
            let mut sum = report(queues, 3);
            sum.add_earlier(&report(earlier_queues, 4));
            assert_eq!((sum.shards.len(), sum.xdp.len(), sum.syn_cookies.len()), (2, 2, 2));
            assert_eq!(sum.next_hops.listings, 7);
            assert_eq!(sum.device.reattached, 7);
            let driver = [("rx_3", 3), ("rx_4", 4), ("rx_drops", 7)].map(|(name, value)| (name.to_owned(), value));
            assert_eq!(sum.device.driver, driver.into());
            for queue in 0..2 {
                let of = |count: u32, value: u64| if queue < count { value } else { 0 };
                let counted = of(queues, 3) + of(earlier_queues, 4);
                let shard = &sum.shards[queue as usize];
                assert_eq!(shard.queue, queue);
                assert_eq!(shard.tcp.get(tidegate_tcp::counters::Counter::PassiveOpens), counted);
                assert_eq!(
                    (shard.port.rx_frames, shard.xdp_statistics.rx_dropped),
                    (counted, counted)
                );
                assert_eq!(shard.latencies.rtt.count(), counted);
                assert_eq!(shard.cpu_time, Duration::from_secs(counted));
                assert_eq!(u64::from(shard.population.connections), of(queues, 3));
                assert_eq!(u64::from(shard.frames.total), of(queues, 3));
                assert_eq!(sum.xdp[queue as usize].get(XdpCounter::Redirect), counted);
                let cookies = &sum.syn_cookies[queue as usize];
                assert_eq!((cookies.turned_on, cookies.turned_off), (counted, counted));
                assert_eq!(cookies.active, queue < queues);
            }
        }
    }

    #[test]
    fn xdp_counts_are_looked_up_by_their_counter() {
        let mut counts = XdpCounts::default();
        counts.0[XdpCounter::PassNotTcp as usize] = 4;
        assert_eq!(counts.get(XdpCounter::PassNotTcp), 4);
        assert_eq!(counts.iter().map(|(_, value)| value).sum::<u64>(), 4);
    }
}
