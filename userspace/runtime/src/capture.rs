//! Captures: copies of the frames of all shards, and of those that never reach one, in the order of their time.

mod merge;

use core::ops::ControlFlow;
use std::sync::Arc;

use nix::time::ClockId;
use tidegate_abi::capture::Sample;
use tidegate_abi::{MAX_QUEUES, XdpCounter};
use tidegate_capture::{Direction, Filter, Peer, Record, Source};

use self::merge::{Merge, Taken, direction};
use crate::taps::{nanoseconds, now};
use crate::trace::{Happened, Happenings};
use crate::xdp::{CounterMap, Steering, Subscription};

/// Frames are put in order that are older than this, in nanoseconds: until then a shard may still be writing one.
const SETTLING: u64 = 1_000_000;

/// The frames to capture.
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    /// The filter they have to match.
    pub filter: Arc<Filter>,
    /// Octets of each.
    pub snaplen: u32,
    /// The peers whose connections' events are shown, too.
    pub connections_of: Option<Peer>,
    /// Octets of the ring between each shard and this capture. A frame that finds no room in it is lost and counted.
    pub ring: usize,
    /// Captures and traces there may be at a time, this one included.
    pub max_captures: usize,
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
    /// Whether it was received or sent.
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
    merge: Merge<Subscription>,
    view: View,
    counters: Arc<CounterMap>,
    /// Of those of [`XdpCounter::CaptureLost`], of which others may have been the reason.
    lost_before: u64,
    /// One of as many as there may be.
    _one_of: Arc<()>,
}

/// The conversion of what is taken into what is shown.
struct View {
    snaplen: usize,
    devices: Vec<Device>,
    /// Nanoseconds from CLOCK_MONOTONIC to CLOCK_REALTIME, at the beginning.
    epoch: u64,
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
        let drops = steering.drops().subscribe();
        Self {
            merge: Merge::new(Arc::clone(&settings.filter), sources, happenings, drops),
            view: View {
                snaplen: settings.snaplen as usize,
                devices: devices.into_iter().map(device).collect(),
                epoch: nanoseconds(ClockId::CLOCK_REALTIME).wrapping_sub(now()),
            },
            lost_before: lost_in_program(&counters),
            counters,
            _one_of: one_of,
        }
    }

    /// The names of the devices, by number.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.view.devices.iter().map(|device| device.name.as_str())
    }

    /// Nanoseconds since 1970, by the clock of the frames.
    pub fn now(&self) -> u64 {
        now().wrapping_add(self.view.epoch)
    }

    /// Happenings that are missing.
    pub fn lost_happenings(&self) -> u64 {
        self.merge.happenings.iter().map(Happenings::lost).sum()
    }

    /// Shows `see` what was captured meanwhile, the oldest first, until it breaks. What is captured during the call is
    /// left for the next one, and so is the last millisecond before it unless `all` is true.
    pub fn take<B>(&mut self, all: bool, mut see: impl FnMut(Shown<'_>) -> ControlFlow<B>) -> ControlFlow<B> {
        let Self { merge, view, .. } = self;
        let until = if all { now() } else { now().saturating_sub(SETTLING) };
        merge.take(until, |taken| match taken {
            Taken::Frame { queue, record, octets } => see(Shown::Frame(view.frame(&record, queue, octets))),
            Taken::Happened(happened) => see(Shown::Happened(Happened {
                time: happened.time.wrapping_add(view.epoch),
                ..happened
            })),
            Taken::Sample(sample) => see(Shown::Frame(view.sample(&sample))),
        })
    }

    /// Whether it should be taken from at once, or something will be missing soon: a ring is a quarter full, or there
    /// is what has a shorter one, an event or a frame that the XDP program dropped or answered.
    pub fn is_urgent(&self) -> bool {
        let Merge {
            sources, happenings, ..
        } = &self.merge;
        sources.iter().any(|(_, source)| source.is_filling())
            || happenings.iter().any(|told| !told.ring.is_empty())
            || self.merge.drops.has_samples()
    }

    /// Frames that are missing because their shard's ring was full.
    pub fn lost_by_shards(&self) -> u64 {
        self.merge.sources.iter().map(|(_, source)| source.lost()).sum()
    }

    /// Frames that the XDP program dropped or answered, matching or not, and that are missing: they were more than it
    /// tells of, or were taken too slowly.
    pub fn lost_by_program(&self) -> u64 {
        self.merge.drops.lost() + lost_in_program(&self.counters).saturating_sub(self.lost_before)
    }

    /// Whether the shards have ended.
    pub fn is_over(&self) -> bool {
        self.merge.sources.iter().all(|(_, source)| source.is_abandoned())
    }
}

impl View {
    fn frame<'a>(&self, record: &Record, queue: u32, octets: [&'a [u8]; 2]) -> Captured<'a> {
        Captured {
            time: record.time.wrapping_add(self.epoch),
            length: record.length,
            direction: record.direction,
            device: u32::from(record.device),
            queue,
            verdict: None,
            octets,
        }
    }

    fn sample<'a>(&self, sample: &'a Sample) -> Captured<'a> {
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
}

impl core::fmt::Debug for Capture {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Capture")
            .field("snaplen", &self.view.snaplen)
            .finish_non_exhaustive()
    }
}

/// The value of [`XdpCounter::CaptureLost`] of all queues.
fn lost_in_program(counters: &CounterMap) -> u64 {
    (0..MAX_QUEUES)
        .filter_map(|queue| counters.get(XdpCounter::CaptureLost, queue).ok())
        .sum()
}
