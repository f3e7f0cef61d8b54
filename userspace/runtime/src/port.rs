//! One queue's AF_XDP socket as a shard uses it: levels, reserves, what is counted, and where the frames are.

mod fill_level;
mod open;
mod transmit;

use std::os::fd::RawFd;

use tidegate_xsk::{RxFrame, Socket, Statistics, TxFrame, Unsent};

use fill_level::FillLevel;

use crate::report::{FrameCensus, PortCounters};

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
    unsent: Unsent,
    /// Whether the log already says that the interface is down.
    link_down_logged: bool,
    counters: PortCounters,
}

impl Port {
    /// The number of frames the engine has written that the kernel was not given yet.
    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.socket.queued()
    }

    /// The socket, to read its frames.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The descriptor of the socket, for the XSKMAP and to wait for.
    pub(crate) fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// Whether the kernel gave zero-copy.
    pub(crate) fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    pub(crate) fn counters(&self) -> &PortCounters {
        &self.counters
    }

    /// The kernel's counters of the socket.
    pub(crate) fn statistics(&self) -> Statistics {
        self.socket.statistics()
    }

    /// What is left in the TX ring.
    #[inline]
    pub(crate) fn unsent(&self) -> Unsent {
        self.unsent
    }

    /// Takes the frames that have been sent back into the pool.
    #[inline]
    pub(crate) fn reap_completions(&mut self) {
        self.socket.reap_completions();
    }

    /// Fills the fill ring up to its level, as far as there are free frames.
    #[inline]
    pub(crate) fn replenish_fill(&mut self) {
        self.socket.replenish_fill(self.fill_level.get());
        if self.socket.fill_needs_wakeup() {
            self.wake_receive();
        }
    }

    /// Whether the fill ring could not be filled up, so that receiving may end for want of frames.
    #[inline]
    pub(crate) fn is_fill_short(&self) -> bool {
        self.socket.in_fill() < self.fill_level.get()
    }

    /// Takes up to `limit` received frames, a burst at most, out of the RX ring.
    #[inline]
    pub(crate) fn receive(&mut self, batch: &mut Vec<RxFrame>, limit: usize) {
        let burst = self.socket.receive(batch, limit);
        if burst.frames == 0 {
            return;
        }
        let waiting = if burst.frames as usize == limit {
            self.socket.received()
        } else {
            0
        };
        self.fill_level.note(burst.frames, waiting);
        self.counters.rx_frames += u64::from(burst.frames);
        self.counters.rx_bytes += burst.bytes;
    }

    /// Whether received frames wait in the RX ring.
    pub(crate) fn has_received(&mut self) -> bool {
        self.socket.has_received()
    }

    /// Takes the frame of a segment that has been dealt with back into the pool.
    #[inline]
    pub(crate) fn recycle(&mut self, frame: RxFrame) {
        self.socket.recycle(frame);
    }

    /// Notes that a frame of this port was handed to another shard.
    #[inline]
    pub(crate) fn note_handed_over(&mut self) {
        self.handed_over += 1;
    }

    /// Notes that one came home.
    #[inline]
    pub(crate) fn note_returned(&mut self) {
        self.handed_over -= 1;
    }

    /// Has the kernel poll the device, where busy polling is on.
    pub(crate) fn poll_device(&mut self) {
        self.wake_receive();
    }

    /// Where the frames are; `foreign` frames of other shards wait for this one. Between two turns of the loop no
    /// segment is in anybody's hand.
    pub(crate) fn census(&self, foreign: u32) -> FrameCensus {
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

    fn wake_receive(&mut self) {
        self.counters.fill_wakeups += 1;
        self.socket.wake_receive();
    }
}
