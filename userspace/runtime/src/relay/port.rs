//! The port of a shard whose socket another process has taken over: it receives and sends by a relay.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;

use tidegate_capture::{Direction, Tap};
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::wire::Frame;
use tidegate_xsk::options;
use tidegate_xsk::{Statistics, Unsent};

use super::{OUT_SLOTS, Relay, SLOT_HEADER, announce_sleep, silence, wake};
use crate::report::{FrameCensus, PortCounters};
use crate::routes::Routes;
use crate::shard_port::ShardPort;
use crate::taps::Taps;

/// Frames kept for what ends work rather than starts it.
const RESERVE: u32 = 64;

/// The earlier process's side of a relay.
#[derive(Debug)]
pub(crate) struct RelayPort {
    relay: Arc<Relay>,
    /// Segments received.
    in_seen: u32,
    /// Segments answered.
    in_done: u32,
    /// Frames written.
    out_head: u32,
    /// Those of them that the other process was told of.
    out_told: u32,
    device: u8,
    taps: Taps,
    counters: PortCounters,
    /// Those of the socket there was before.
    statistics: Statistics,
}

/// A segment in its slot.
#[derive(Debug)]
pub(crate) struct RelayedFrame(u32);

impl RelayPort {
    /// The side of a relay that was not used before.
    pub(crate) fn new(relay: Arc<Relay>) -> Self {
        Self {
            relay,
            in_seen: 0,
            in_done: 0,
            out_head: 0,
            out_told: 0,
            device: 0,
            taps: Taps::default(),
            counters: PortCounters::default(),
            statistics: Statistics::default(),
        }
    }

    /// The memory to read received segments in.
    pub(crate) fn relay(&self) -> Arc<Relay> {
        Arc::clone(&self.relay)
    }

    /// Goes on telling the kernel's counters of the socket there was before.
    pub(crate) fn keep_statistics(&mut self, statistics: Statistics) {
        self.statistics = statistics;
    }

    fn answer(&mut self, frame: RelayedFrame, taken: bool) {
        // The order is that in which they were received: this shard alone has them.
        debug_assert_eq!(frame.0, self.in_done);
        let slot = self.relay.in_slot(frame.0);
        // SAFETY: it is between `in_done` and `in_head`, and the other side looks at this octet once it is answered.
        unsafe { slot.add(5).write(u8::from(taken)) };
        self.in_done = self.in_done.wrapping_add(1);
    }

    fn room(&self) -> u32 {
        let tail = self.relay.header().out_tail.0.load(Ordering::Acquire);
        OUT_SLOTS.saturating_sub(self.out_head.wrapping_sub(tail))
    }
}

impl Transmit for RelayPort {
    fn leave_by(&mut self, device: u8) {
        self.device = device;
    }

    fn reserve(&mut self, purpose: Purpose) -> Option<&mut [u8]> {
        let kept = if purpose == Purpose::Control { 0 } else { RESERVE };
        if self.room() <= kept {
            self.counters.tx_refused += 1;
            return None;
        }
        let slot = self.relay.out_slot(self.out_head);
        // SAFETY: there is room, so the other side is done with this slot; the result borrows `self`, which alone
        // writes to it.
        Some(unsafe { self.relay.room(slot) })
    }

    fn commit(&mut self, length: usize) {
        if length == 0 {
            return;
        }
        debug_assert!(
            length <= self.relay.slot_size - SLOT_HEADER,
            "it was written to such a slot"
        );
        let slot = self.relay.out_slot(self.out_head);
        // SAFETY: as in `reserve`, which came before.
        let (bytes, device) = unsafe {
            self.relay.describe(slot, length, self.device);
            self.relay.contents(slot)
        };
        if !self.taps.is_empty() {
            self.taps.show(bytes, device, Direction::Sent, &mut self.counters);
        }
        self.out_head = self.out_head.wrapping_add(1);
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += length as u64;
    }
}

impl ShardPort for RelayPort {
    type Frame = RelayedFrame;
    type Memory = Relay;

    const IS_RELAY: bool = true;

    fn contents<'a>(memory: &'a Relay, frame: &'a RelayedFrame) -> Frame<'a> {
        // SAFETY: the frame is the only one of its slot, which is this side's until it is answered.
        let (bytes, device) = unsafe { memory.contents(memory.in_slot(frame.0)) };
        Frame { bytes, device }
    }

    fn receive(&mut self, batch: &mut Vec<RelayedFrame>, limit: usize) {
        let head = self.relay.header().in_head.0.load(Ordering::Acquire);
        for _ in 0..limit {
            if self.in_seen == head {
                break;
            }
            let frame = RelayedFrame(self.in_seen);
            self.counters.rx_frames += 1;
            let Frame { bytes, device } = Self::contents(&self.relay, &frame);
            self.counters.rx_bytes += bytes.len() as u64;
            if !self.taps.is_empty() {
                self.taps.show(bytes, device, Direction::Received, &mut self.counters);
            }
            batch.push(frame);
            self.in_seen = self.in_seen.wrapping_add(1);
        }
    }

    fn has_received(&mut self) -> bool {
        self.relay.header().in_head.0.load(Ordering::Acquire) != self.in_seen
    }

    fn recycle(&mut self, frame: RelayedFrame) {
        self.answer(frame, true);
    }

    fn give_back(&mut self, frame: RelayedFrame) {
        self.answer(frame, false);
    }

    fn note_handed_over(&mut self) {}

    fn note_returned(&mut self) {}

    fn replenish_fill(&mut self) {}

    fn is_fill_short(&self) -> bool {
        false
    }

    fn reap_completions(&mut self) {}

    fn queued(&self) -> usize {
        self.out_head.wrapping_sub(self.out_told) as usize
    }

    fn flush(&mut self) {
        let header = self.relay.header();
        let told = (self.out_head, self.in_done);
        if told == (self.out_told, header.in_done.0.load(Ordering::Relaxed)) {
            return;
        }
        self.out_told = self.out_head;
        header.out_head.0.store(self.out_head, Ordering::Release);
        header.in_done.0.store(self.in_done, Ordering::Release);
        wake(&header.later_sleeps, &self.relay.later_bell);
    }

    fn unsent(&self) -> Unsent {
        Unsent::Nothing
    }

    fn can_send(&mut self) -> bool {
        self.room() > RESERVE
    }

    fn set_routes(&mut self, _: Routes) {}

    fn add_tap(&mut self, tap: Tap) {
        self.taps.add(tap);
    }

    fn poll_device(&mut self) {}

    fn sleep(&self, bell: RawFd, limit: Duration) -> io::Result<bool> {
        let header = self.relay.header();
        announce_sleep(&header.earlier_sleeps);
        let slept = if header.in_head.0.load(Ordering::Acquire) == self.in_seen {
            options::sleep([self.relay.earlier_bell.as_raw_fd()], bell, limit)
        } else {
            Ok(false)
        };
        header.earlier_sleeps.0.store(0, Ordering::Relaxed);
        silence(&self.relay.earlier_bell);
        slept
    }

    /// There are no frames to be lost.
    fn census(&self, foreign: u32) -> FrameCensus {
        FrameCensus {
            foreign,
            ..FrameCensus::default()
        }
    }

    fn counters(&self) -> &PortCounters {
        &self.counters
    }

    fn statistics(&self) -> Statistics {
        self.statistics
    }
}
