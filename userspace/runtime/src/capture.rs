//! Captures: copies of the frames of all shards, and of those that never reach one, in the order of their time.

use core::ops::ControlFlow;
use std::sync::Arc;

use nix::net::if_::if_nametoindex;
use nix::time::ClockId;
use tidegate_abi::capture::Sample;
use tidegate_abi::{MAX_QUEUES, XdpCounter};
use tidegate_capture::{Direction, Filter, Record, Source};

use crate::taps::{nanoseconds, now};
use crate::xdp::{CounterMap, Steering, Subscription};

/// Captures and traces at a time.
pub const MAX_CAPTURES: usize = 4;

/// Octets of the ring between each shard and each capture.
pub(crate) const RING: usize = 4 << 20;

/// Frames are put in order that are older than this, in nanoseconds: until then a shard may still be writing one.
const SETTLING: u64 = 1_000_000;

/// The frames to capture.
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    /// Which.
    pub filter: Arc<Filter>,
    /// Octets of each.
    pub snaplen: u32,
}

/// A captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Octets of the whole frame.
    pub length: u32,
    /// Its way.
    pub direction: Direction,
    /// The number of its device, in the order of [`Capture::devices`].
    pub device: u32,
    /// The queue it was received on, or is sent by.
    pub queue: u32,
    /// What the XDP program made of it; `None` if a shard received or sent it.
    pub verdict: Option<XdpCounter>,
    /// Its octets, as far as they were captured, in one piece or in two.
    pub octets: [&'a [u8]; 2],
}

/// A running capture. It ends when it is dropped.
pub struct Capture {
    filter: Arc<Filter>,
    snaplen: usize,
    devices: Vec<Device>,
    /// By shard, with its queue.
    sources: Vec<(u32, Source)>,
    drops: Subscription,
    /// The next of [`Capture::drops`] that matches.
    next_drop: Option<Sample>,
    counters: Arc<CounterMap>,
    /// Of those of [`XdpCounter::CaptureLost`], of which others may have been the reason.
    lost_before: u64,
    /// Nanoseconds from CLOCK_MONOTONIC to CLOCK_REALTIME, at the beginning.
    epoch: u64,
    /// One of as many as there may be.
    _one_of: Arc<()>,
}

struct Device {
    name: String,
    /// The kernel's number; 0 if it is gone.
    ifindex: u32,
}

impl Capture {
    pub(crate) fn new(
        settings: &CaptureSettings,
        devices: &[String],
        sources: Vec<(u32, Source)>,
        one_of: Arc<()>,
        steering: &Steering,
    ) -> Self {
        let device = |name: &String| Device {
            name: name.clone(),
            ifindex: if_nametoindex(name.as_str()).unwrap_or(0),
        };
        let counters = steering.counters();
        Self {
            filter: Arc::clone(&settings.filter),
            snaplen: settings.snaplen as usize,
            devices: devices.iter().map(device).collect(),
            sources,
            drops: steering.drops().subscribe(),
            next_drop: None,
            lost_before: lost_in_program(&counters),
            counters,
            epoch: nanoseconds(ClockId::CLOCK_REALTIME).wrapping_sub(now()),
            _one_of: one_of,
        }
    }

    /// The names of the devices, by number.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().map(|device| device.name.as_str())
    }

    /// Nanoseconds since 1970, by the clock of the frames.
    pub fn now(&self) -> u64 {
        now().wrapping_add(self.epoch)
    }

    /// Shows `see` what was captured meanwhile, the oldest first, until it breaks; `all`: the last moment included.
    pub fn take<B>(&mut self, all: bool, mut see: impl FnMut(&Captured<'_>) -> ControlFlow<B>) -> ControlFlow<B> {
        let until = if all { u64::MAX } else { now().saturating_sub(SETTLING) };
        loop {
            let by_shards = self
                .sources
                .iter_mut()
                .enumerate()
                .filter_map(|(index, (_, source))| source.peek().map(|record| (record.time, index)))
                .min();
            let by_program = self.next_drop().map(|sample| sample.time);
            match (by_shards, by_program) {
                (Some((time, index)), other) if other.is_none_or(|other| time <= other) => {
                    if time > until {
                        break;
                    }
                    let (queue, source) = &mut self.sources[index];
                    let epoch = self.epoch;
                    let seen = source.take(|record, octets| see(&of_shard(&record, *queue, epoch, octets)));
                    match seen {
                        // Its octets are still being written.
                        None => break,
                        Some(flow) => flow?,
                    }
                }
                (_, Some(time)) if time <= until => {
                    if let Some(sample) = self.next_drop.take() {
                        see(&self.of_program(&sample))?;
                    }
                }
                _ => break,
            }
        }
        ControlFlow::Continue(())
    }

    /// The oldest sample of the program that matches.
    fn next_drop(&mut self) -> Option<&Sample> {
        while self.next_drop.is_none() {
            let sample = self.drops.next()?;
            if self
                .filter
                .matches(sample.octets(), sample.length as usize, direction(&sample))
            {
                self.next_drop = Some(sample);
            }
        }
        self.next_drop.as_ref()
    }

    fn of_program<'a>(&self, sample: &'a Sample) -> Captured<'a> {
        let octets = sample.octets();
        let device = self.devices.iter().position(|device| device.ifindex == sample.ifindex);
        Captured {
            time: sample.time.wrapping_add(self.epoch),
            length: sample.length,
            direction: direction(sample),
            device: device.unwrap_or(0) as u32,
            queue: sample.queue,
            verdict: XdpCounter::ALL.get(sample.counter as usize).copied(),
            octets: [&octets[..octets.len().min(self.snaplen)], &[]],
        }
    }

    /// Frames that are missing because their shard's ring was full.
    pub fn lost_by_shards(&self) -> u64 {
        self.sources.iter().map(|(_, source)| source.lost()).sum()
    }

    /// Frames that the XDP program dropped or answered, matching or not, and that are missing: they were more than it
    /// tells of, or were taken too slowly.
    pub fn lost_by_program(&self) -> u64 {
        self.drops.lost() + lost_in_program(&self.counters).saturating_sub(self.lost_before)
    }

    /// Whether the shards have ended.
    pub fn is_over(&self) -> bool {
        self.sources.iter().all(|(_, source)| source.is_abandoned())
    }
}

impl core::fmt::Debug for Capture {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Capture")
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

fn of_shard<'a>(record: &Record, queue: u32, epoch: u64, octets: [&'a [u8]; 2]) -> Captured<'a> {
    Captured {
        time: record.time.wrapping_add(epoch),
        length: record.length,
        direction: record.direction,
        device: u32::from(record.device),
        queue,
        verdict: None,
        octets,
    }
}

/// The value of [`XdpCounter::CaptureLost`] of all queues.
fn lost_in_program(counters: &CounterMap) -> u64 {
    (0..MAX_QUEUES)
        .filter_map(|queue| counters.get(XdpCounter::CaptureLost, queue).ok())
        .sum()
}

fn direction(sample: &Sample) -> Direction {
    if sample.is_sent == 0 {
        Direction::Received
    } else {
        Direction::Sent
    }
}
