//! Captures: copies of the frames of all shards, and of those that never reach one, in the order of their time.

use core::ops::ControlFlow;
use std::sync::Arc;

use nix::time::ClockId;
use tidegate_abi::capture::Sample;
use tidegate_abi::{MAX_QUEUES, XdpCounter};
use tidegate_capture::{Direction, Filter, Peer, Record, Source};

use crate::taps::{nanoseconds, now};
use crate::trace::{Happened, Happenings};
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
    /// The peers of whose connections it is to be told what happens to them.
    pub connections_of: Option<Peer>,
}

/// The frames that a capture shows.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// A frame.
    Frame(Captured<'a>),
    /// Something that happened to a connection.
    Happened(Happened),
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
    /// The verdict of the XDP program; `None` if a shard received or sent it.
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
    /// By shard, if anybody asks.
    happenings: Vec<Happenings>,
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

/// The place of a capture.
#[derive(Clone, Copy)]
enum From {
    /// By the shard of this index: a frame.
    Shard(usize),
    /// By its engine.
    Engine(usize),
    /// By the XDP program.
    Program,
}

struct Device {
    name: String,
    /// The kernel's number; 0 if it is gone.
    ifindex: u32,
}

impl Capture {
    pub(crate) fn new(
        settings: &CaptureSettings,
        devices: Vec<(String, u32)>,
        (sources, happenings): (Vec<(u32, Source)>, Vec<Happenings>),
        one_of: Arc<()>,
        steering: &Steering,
    ) -> Self {
        let device = |(name, ifindex)| Device { name, ifindex };
        let counters = steering.counters();
        Self {
            filter: Arc::clone(&settings.filter),
            snaplen: settings.snaplen as usize,
            devices: devices.into_iter().map(device).collect(),
            sources,
            happenings,
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

    /// Happenings that are missing.
    pub fn lost_happenings(&self) -> u64 {
        self.happenings.iter().map(Happenings::lost).sum()
    }

    /// Shows `see` what was captured meanwhile, the oldest first, until it breaks; `all`: the last moment included.
    pub fn take<B>(&mut self, all: bool, mut see: impl FnMut(Shown<'_>) -> ControlFlow<B>) -> ControlFlow<B> {
        let until = if all { u64::MAX } else { now().saturating_sub(SETTLING) };
        while let Some((time, from)) = self.oldest()
            && time <= until
        {
            let epoch = self.epoch;
            match from {
                From::Shard(index) => {
                    let (queue, source) = &mut self.sources[index];
                    match source.take(|record, octets| see(Shown::Frame(of_shard(&record, *queue, epoch, octets)))) {
                        // Its octets are still being written.
                        None => break,
                        Some(flow) => flow?,
                    }
                }
                From::Engine(index) => {
                    if let Ok(mut happened) = self.happenings[index].ring.pop() {
                        happened.time = happened.time.wrapping_add(epoch);
                        see(Shown::Happened(happened))?;
                    }
                }
                From::Program => {
                    if let Some(sample) = self.next_drop.take() {
                        see(Shown::Frame(self.of_program(&sample)))?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The time of the oldest that was not taken, and where it is.
    fn oldest(&mut self) -> Option<(u64, From)> {
        let program = self.next_drop().map(|sample| (sample.time, From::Program));
        let sources = self.sources.iter_mut().enumerate();
        let shards = sources.filter_map(|(index, (_, source))| Some((source.peek()?.time, From::Shard(index))));
        let happenings = self.happenings.iter_mut().enumerate();
        let engines = happenings.filter_map(|(index, told)| Some((told.ring.peek().ok()?.time, From::Engine(index))));
        // Of the same time the frame comes before what it did.
        program
            .into_iter()
            .chain(shards)
            .chain(engines)
            .min_by_key(|&(time, _)| time)
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
