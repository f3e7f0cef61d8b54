//! One queue's AF_XDP socket with its UMEM: rings, frames, wake-ups. The only module that knows xsk-rs.
//!
//! All frames of the UMEM belong to the port. Whoever is not a kernel ring holds a frame by its [`Frame`] token; the
//! `unsafe` calls below are sound because a frame's descriptor enters a ring only when its token ends, and its memory
//! is only touched by whoever holds the token.

mod fill_level;
mod open;
mod segment;
mod transmit;

use std::os::fd::RawFd;

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem};

use fill_level::FillLevel;
pub(crate) use segment::{Segment, Umems};

use crate::frame::{Frame, FramePool};
use crate::report::{FrameCensus, PortCounters, SocketStatistics};
use crate::socket_options;
use crate::wait::Unsent;

/// A bound AF_XDP socket.
pub(crate) struct Port {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    umem: Umem,
    socket: RawFd,
    /// Index of the shard, and of this UMEM among [`Umems`].
    owner: u16,
    zero_copy: bool,
    /// Base-2 logarithm of the frame size.
    frame_shift: u32,
    /// By frame number: the descriptor of the frame when it is free.
    descriptors: Box<[FrameDesc]>,
    pool: FramePool,
    fill_level: FillLevel,
    tx_ring: u32,
    control_reserve: u32,
    /// Frames the kernel has for receiving.
    in_fill: u32,
    /// Frames the kernel has for sending.
    in_tx: u32,
    /// Frames handed to other shards.
    handed_over: u32,
    /// The frame the engine writes to.
    reserved: Option<FrameDesc>,
    /// Frames to be sent with the next flush.
    queued: Vec<FrameDesc>,
    /// Room for the descriptors of one burst.
    scratch: Box<[FrameDesc]>,
    unsent: Unsent,
    /// Whether the log already says that the interface is down.
    link_down_logged: bool,
    counters: PortCounters,
}

impl Port {
    /// Frames the engine has written that the kernel was not given yet.
    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.queued.len()
    }

    /// The socket, for the XSKMAP and to wait for.
    pub(crate) fn socket(&self) -> RawFd {
        self.socket
    }

    /// Whether the kernel gave zero-copy.
    pub(crate) fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    pub(crate) fn counters(&self) -> &PortCounters {
        &self.counters
    }

    /// The kernel's counters of the socket.
    pub(crate) fn statistics(&self) -> SocketStatistics {
        // The call fails only for what is no AF_XDP socket, and this is one as long as the port lives.
        socket_options::statistics(self.socket).unwrap_or_default()
    }

    /// What is left in the TX ring.
    #[inline]
    pub(crate) fn unsent(&self) -> Unsent {
        self.unsent
    }

    /// Takes the frames that have been sent back into the pool.
    pub(crate) fn collect(&mut self) {
        while self.in_tx > 0 {
            // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the TX ring.
            let sent = unsafe { self.completion.consume(&mut self.scratch) };
            for descriptor in &self.scratch[..sent] {
                let number = descriptor.addr() >> self.frame_shift;
                self.pool.put(Frame::out_of_ring(number as u32));
            }
            self.in_tx -= sent as u32;
            if sent < self.scratch.len() {
                break;
            }
        }
    }

    /// Fills the fill ring up to its level, as far as there are free frames.
    pub(crate) fn refill(&mut self) {
        loop {
            let missing = self.fill_level.get().saturating_sub(self.in_fill);
            let wanted = missing.min(self.scratch.len() as u32);
            if wanted == 0 || self.pool.free() == 0 {
                break;
            }
            let mut ready = wanted.min(self.pool.free());
            ready = ready.min(self.fill.nb_free(ready));
            if ready == 0 {
                break;
            }
            for slot in &mut self.scratch[..ready as usize] {
                let Some(frame) = self.pool.take() else { break };
                *slot = self.descriptors[frame.into_number() as usize];
            }
            // SAFETY: the descriptors are this UMEM's, and the tokens of their frames have just ended.
            let given = unsafe { self.fill.produce(&self.scratch[..ready as usize]) } as u32;
            self.in_fill += given;
            if given < ready {
                // The ring takes all or nothing, and it had room; put back what it did not take all the same.
                for descriptor in &self.scratch[given as usize..ready as usize] {
                    let number = descriptor.addr() >> self.frame_shift;
                    self.pool.put(Frame::out_of_ring(number as u32));
                }
                break;
            }
        }
        if self.fill.needs_wakeup() {
            self.wake_receive();
        }
    }

    /// Whether the fill ring could not be filled up, so that receiving may end for want of frames.
    #[inline]
    pub(crate) fn is_fill_short(&self) -> bool {
        self.in_fill < self.fill_level.get()
    }

    /// Takes up to `limit` received frames, a burst at most, out of the RX ring.
    #[inline]
    pub(crate) fn receive(&mut self, batch: &mut Vec<Segment>, limit: usize) {
        let limit = limit.min(self.scratch.len());
        // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the fill ring.
        let received = unsafe { self.rx.consume(&mut self.scratch[..limit]) };
        if received == 0 {
            return;
        }
        let (frame_shift, owner) = (self.frame_shift, self.owner);
        let mut bytes = 0;
        batch.extend(self.scratch[..received].iter().map(|descriptor| {
            bytes += descriptor.lengths().data() as u64;
            Segment {
                frame: Frame::out_of_ring((descriptor.addr() >> frame_shift) as u32),
                descriptor: *descriptor,
                owner,
            }
        }));
        self.in_fill -= received as u32;
        let waiting = if received == limit { self.rx.nb_avail_exact() } else { 0 };
        self.fill_level.note(received as u32, waiting);
        self.counters.rx_frames += received as u64;
        self.counters.rx_bytes += bytes;
    }

    /// Whether received frames wait in the RX ring.
    pub(crate) fn has_received(&mut self) -> bool {
        self.rx.nb_avail(1) > 0
    }

    /// Takes the frame of a segment that has been dealt with back into the pool.
    #[inline]
    pub(crate) fn recycle(&mut self, segment: Segment) {
        debug_assert_eq!(segment.owner, self.owner, "a frame of another UMEM");
        self.pool.put(segment.frame);
    }

    /// Notes that a segment of this port was handed to another shard.
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
            total: self.pool.total(),
            pool: self.pool.free(),
            fill: self.in_fill,
            tx: self.in_tx,
            in_hand: self.queued.len() as u32 + u32::from(self.reserved.is_some()),
            handed_over: self.handed_over,
            foreign,
        }
    }

    fn wake_receive(&mut self) {
        self.counters.fill_wakeups += 1;
        // What the kernel cannot do now is asked for again in the next turn.
        let _ = socket_options::wake_receive(self.socket);
    }
}
