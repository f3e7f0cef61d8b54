//! A port whose device is two queues in memory.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use tidegate_capture::{Direction, Tap};
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::wire;
use tidegate_xsk::{Frame, FramePool, Statistics, Unsent};

use crate::report::{FrameCensus, PortCounters};
use crate::routes::Routes;
use crate::shard_port::ShardPort;
use crate::taps::Taps;

/// Octets of a frame.
const FRAME_SIZE: usize = 2048;

/// The other side of a port.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) to_shard: RefCell<VecDeque<Vec<u8>>>,
    pub(super) from_shard: RefCell<Vec<Vec<u8>>>,
    /// The device that frames to the shard arrive from.
    pub(super) device: Cell<u8>,
    /// The device that the last frame from the shard was to leave by.
    pub(super) left_by: Cell<u8>,
    /// Whether nothing that is sent moves.
    pub(super) is_busy: Cell<bool>,
}

/// A frame with contents.
pub(super) struct MemoryFrame {
    frame: Frame,
    bytes: Vec<u8>,
    device: u8,
}

/// Frames that are in the pool, in one of the lists here, or with another shard.
pub(super) struct MemoryPort {
    wire: Rc<Wire>,
    pool: FramePool,
    fill: Vec<Frame>,
    reserved: Option<MemoryFrame>,
    queued: Vec<MemoryFrame>,
    /// Given to be sent, and not yet on the wire.
    unsent: VecDeque<MemoryFrame>,
    /// On the wire, and not yet taken back.
    sent: Vec<Frame>,
    handed_over: u32,
    taps: Taps,
    counters: PortCounters,
}

impl MemoryPort {
    pub(super) fn new(frames: u32, wire: Rc<Wire>) -> Self {
        let mut port = Self {
            wire,
            pool: FramePool::new(frames),
            fill: Vec::new(),
            reserved: None,
            queued: Vec::new(),
            unsent: VecDeque::new(),
            sent: Vec::new(),
            handed_over: 0,
            taps: Taps::default(),
            counters: PortCounters::default(),
        };
        port.replenish_fill();
        port
    }

    /// Whether no tap is left.
    pub(super) fn taps_are_gone(&self) -> bool {
        self.taps.is_empty()
    }

    /// Frames that wait to be received into, as far as there are any.
    fn fill_target(&self) -> usize {
        self.pool.total() as usize / 2
    }
}

impl Transmit for MemoryPort {
    fn leave_by(&mut self, device: u8) {
        self.wire.left_by.set(device);
    }

    fn reserve(&mut self, _: Purpose) -> Option<&mut [u8]> {
        if self.reserved.is_none() {
            let Some(frame) = self.pool.take() else {
                self.counters.tx_refused += 1;
                return None;
            };
            let bytes = vec![0; FRAME_SIZE];
            self.reserved = Some(MemoryFrame {
                frame,
                bytes,
                device: 0,
            });
        }
        self.reserved.as_mut().map(|frame| frame.bytes.as_mut_slice())
    }

    fn commit(&mut self, length: usize) {
        if length == 0 {
            return;
        }
        let mut frame = self.reserved.take().expect("a frame was reserved");
        frame.bytes.truncate(length);
        self.taps.show(
            &frame.bytes,
            self.wire.left_by.get(),
            Direction::Sent,
            &mut self.counters,
        );
        self.queued.push(frame);
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += length as u64;
    }
}

impl ShardPort for MemoryPort {
    type Frame = MemoryFrame;
    type Memory = ();

    fn contents<'a>((): &'a (), frame: &'a MemoryFrame) -> wire::Frame<'a> {
        wire::Frame {
            bytes: &frame.bytes,
            device: frame.device,
        }
    }

    fn receive(&mut self, batch: &mut Vec<MemoryFrame>, limit: usize) {
        let mut to_shard = self.wire.to_shard.borrow_mut();
        let count = limit.min(self.fill.len()).min(to_shard.len());
        for (frame, bytes) in self.fill.drain(..count).zip(to_shard.drain(..count)) {
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += bytes.len() as u64;
            let device = self.wire.device.get();
            self.taps.show(&bytes, device, Direction::Received, &mut self.counters);
            batch.push(MemoryFrame { frame, bytes, device });
        }
    }

    fn has_received(&mut self) -> bool {
        !self.wire.to_shard.borrow().is_empty()
    }

    fn recycle(&mut self, frame: MemoryFrame) {
        self.pool.put(frame.frame);
    }

    fn note_handed_over(&mut self) {
        self.handed_over += 1;
    }

    fn note_returned(&mut self) {
        self.handed_over -= 1;
    }

    fn replenish_fill(&mut self) {
        while self.fill.len() < self.fill_target() {
            let Some(frame) = self.pool.take() else { break };
            self.fill.push(frame);
        }
    }

    fn is_fill_short(&self) -> bool {
        self.fill.len() < self.fill_target()
    }

    fn reap_completions(&mut self) {
        for frame in self.sent.drain(..) {
            self.pool.put(frame);
        }
    }

    fn queued(&self) -> usize {
        self.queued.len()
    }

    fn flush(&mut self) {
        self.unsent.extend(self.queued.drain(..));
        if self.wire.is_busy.get() {
            return;
        }
        let mut from_shard = self.wire.from_shard.borrow_mut();
        for MemoryFrame { frame, bytes, .. } in self.unsent.drain(..) {
            from_shard.push(bytes);
            self.sent.push(frame);
        }
    }

    fn unsent(&self) -> Unsent {
        if self.unsent.is_empty() {
            Unsent::Nothing
        } else {
            Unsent::Busy
        }
    }

    fn can_send(&mut self) -> bool {
        self.pool.free() > 0
    }

    fn set_routes(&mut self, _: Routes) {}

    fn add_tap(&mut self, tap: Tap) {
        self.taps.add(tap);
    }

    fn poll_device(&mut self) {}

    fn sleep(&self, _: RawFd, _: Duration) -> io::Result<bool> {
        // What the shard would wait for, a test does between two turns.
        Ok(false)
    }

    fn census(&self, foreign: u32) -> FrameCensus {
        FrameCensus {
            total: self.pool.total(),
            pool: self.pool.free(),
            fill: self.fill.len() as u32,
            tx: (self.unsent.len() + self.sent.len()) as u32,
            in_hand: (self.queued.len() + usize::from(self.reserved.is_some())) as u32,
            handed_over: self.handed_over,
            foreign,
        }
    }

    fn counters(&self) -> &PortCounters {
        &self.counters
    }

    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}

impl Drop for MemoryPort {
    fn drop(&mut self) {
        // With the port its memory is gone: no token is lost.
        let written = self.reserved.take().into_iter();
        let written = written.chain(self.queued.drain(..)).chain(self.unsent.drain(..));
        for frame in written
            .map(|frame| frame.frame)
            .chain(self.fill.drain(..))
            .chain(self.sent.drain(..))
        {
            frame.into_number();
        }
    }
}
