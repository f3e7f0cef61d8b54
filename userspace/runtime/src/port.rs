//! One queue's AF_XDP sockets, one for each device, as a shard uses them: levels, reserves, what is counted, and where
//! the frames are.

mod fill_level;
mod open;
mod transmit;

use core::hint::black_box;
use core::time::Duration;
use std::io;
use std::os::fd::RawFd;

use tidegate_capture::{Direction, Tap};
use tidegate_tcp::wire::Frame;
use tidegate_xsk::{RxFrame, Socket, Statistics, TxFrame, Umems, Unsent};

use fill_level::FillLevel;

use crate::report::{FrameCensus, PortCounters};
use crate::routes::Routes;
use crate::shard_port::ShardPort;
use crate::taps::Taps;

/// A bound AF_XDP socket.
pub(crate) struct Port {
    socket: Socket,
    queue: u32,
    zero_copy: bool,
    fill_level: FillLevel,
    control_reserve: u32,
    /// Frames handed to other shards.
    handed_over: u32,
    /// The frame the engine writes to.
    reserved: Option<TxFrame>,
    /// The place the engine writes to instead where what it sends may take several frames.
    packet: Option<Box<[u8]>>,
    /// Frames that the longest that it sends takes.
    max_frames: u32,
    /// The device it leaves by.
    device: u8,
    routes: Routes,
    unsent: Unsent,
    /// Whether the log already says that the interface is down.
    link_down_logged: bool,
    taps: Taps,
    counters: PortCounters,
}

impl Port {
    /// The socket, to read its frames.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether the kernel gave zero-copy.
    pub(crate) fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    fn wake_receive(&mut self) {
        self.counters.fill_wakeups += 1;
        self.socket.wake_receive();
    }
}

impl ShardPort for Port {
    type Frame = RxFrame;
    type Memory = Umems;

    #[inline]
    fn contents<'a>(memory: &'a Umems, frame: &'a RxFrame) -> Frame<'a> {
        Frame {
            bytes: memory.bytes(frame),
            device: frame.device(),
        }
    }

    #[inline]
    fn receive(&mut self, batch: &mut Vec<RxFrame>, limit: usize) {
        let before = batch.len();
        let burst = self.socket.receive(batch, limit);
        if burst.frames == 0 {
            return;
        }
        let waiting = if burst.packets as usize == limit {
            self.socket.received()
        } else {
            0
        };
        self.fill_level.note(burst.frames, waiting);
        self.counters.rx_frames += u64::from(burst.packets);
        self.counters.rx_bytes += burst.bytes;
        if burst.multi_buffer > 0 {
            self.counters.rx_multi_buffer += u64::from(burst.multi_buffer);
            self.counters.rx_too_long += u64::from(burst.too_long);
            self.counters.rx_no_buffer += u64::from(burst.no_buffer);
        }
        if !self.taps.is_empty() {
            // The first octet of each is read in advance, so that the processor waits for all of them at once, as it
            // does in the engine.
            let first = |frame| self.socket.contents(frame).first().copied().unwrap_or(0);
            black_box(batch[before..].iter().fold(0, |sum, frame| sum ^ first(frame)));
            for frame in &batch[before..] {
                let contents = self.socket.contents(frame);
                self.taps
                    .show(contents, frame.device(), Direction::Received, &mut self.counters);
            }
        }
    }

    fn has_received(&mut self) -> bool {
        self.socket.has_received()
    }

    #[inline]
    fn recycle(&mut self, frame: RxFrame) {
        self.socket.recycle(frame);
    }

    #[inline]
    fn note_handed_over(&mut self) {
        self.handed_over += 1;
    }

    #[inline]
    fn note_returned(&mut self) {
        self.handed_over -= 1;
    }

    #[inline]
    fn replenish_fill(&mut self) {
        self.socket.replenish_fill(self.fill_level.get());
        if self.socket.fill_needs_wakeup() {
            self.wake_receive();
        }
    }

    #[inline]
    fn is_fill_short(&self) -> bool {
        self.socket.is_fill_below(self.fill_level.get())
    }

    #[inline]
    fn reap_completions(&mut self) {
        self.socket.reap_completions();
    }

    #[inline]
    fn queued(&self) -> usize {
        self.socket.queued()
    }

    #[inline]
    fn flush(&mut self) {
        let queued = self.socket.queued();
        if queued > 0 {
            let given = self.socket.submit();
            debug_assert_eq!(given, queued, "the TX ring takes all or nothing, and it had room");
            self.kick();
        } else if self.unsent != Unsent::Nothing {
            self.kick();
        }
    }

    #[inline]
    fn unsent(&self) -> Unsent {
        self.unsent
    }

    fn can_send(&mut self) -> bool {
        self.socket
            .has_tx_room_everywhere(self.max_frames, 2 * self.control_reserve)
    }

    fn set_routes(&mut self, routes: Routes) {
        self.routes = routes;
        for device in 0..self.socket.devices() {
            if routes.is_gone(usize::from(device)) {
                self.socket.close_device(device);
            }
        }
    }

    fn add_tap(&mut self, tap: Tap) {
        self.taps.add(tap);
    }

    fn poll_device(&mut self) {
        self.wake_receive();
    }

    fn sleep(&self, bell: RawFd, limit: Duration) -> io::Result<bool> {
        self.socket.sleep(bell, limit)
    }

    fn census(&self, foreign: u32) -> FrameCensus {
        FrameCensus {
            total: self.socket.frames(),
            pool: self.socket.free(),
            fill: self.socket.in_fill(),
            tx: self.socket.in_tx(),
            in_hand: self.socket.queued() as u32 + u32::from(self.reserved.is_some()),
            handed_over: self.handed_over,
            foreign,
        }
    }

    fn counters(&self) -> &PortCounters {
        &self.counters
    }

    fn statistics(&self) -> Statistics {
        self.socket.statistics()
    }
}
