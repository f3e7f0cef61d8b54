//! A bound socket: its rings, and the frames that no ring has.

use core::sync::atomic::{AtomicU32, Ordering};
use std::os::fd::{AsRawFd, RawFd};

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use crate::frame::{Frame, FramePool};
use crate::multi_buffer::{Added, Assembler, Loss};
use crate::options;
use crate::rx_frame::RxFrame;
use crate::statistics::Statistics;
use crate::umem::{Rings, SocketSettings, Umem};

/// A bound AF_XDP socket. It is closed when it and the last [`Umems`](crate::Umems) of its memory are dropped.
#[derive(Debug)]
pub struct Socket {
    pub(crate) rx: RxQueue,
    pub(crate) tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    pub(crate) umem: xsk_rs::Umem,
    /// Tells this UMEM from all others of the process.
    pub(crate) umem_id: u32,
    pub(crate) fd: RawFd,
    /// Base-2 logarithm of the frame size.
    frame_shift: u32,
    /// By frame number: the descriptor of the frame when it is free.
    pub(crate) descriptors: Box<[FrameDesc]>,
    pub(crate) pool: FramePool,
    pub(crate) tx_ring: u32,
    /// Frames the kernel has for receiving.
    in_fill: u32,
    /// Frames the kernel has for sending.
    pub(crate) in_tx: u32,
    /// Frames to be sent with the next [`Socket::submit`].
    pub(crate) queued: Vec<FrameDesc>,
    /// Room for the descriptors of one burst.
    scratch: Box<[FrameDesc]>,
    /// Bytes of a packet that a frame has room for.
    pub(crate) frame_room: usize,
    /// Where packets may have several frames.
    pub(crate) assembler: Option<Assembler>,
}

/// The packets that were received at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burst {
    /// Their frames.
    pub frames: u32,
    /// Their number, those included that were dropped.
    pub packets: u32,
    /// Their bytes, Ethernet headers included.
    pub bytes: u64,
    /// Those that came in several frames.
    pub multi_buffer: u32,
    /// Those of several frames that were dropped because they are longer than
    /// [`MultiBuffer::max_packet`](crate::MultiBuffer::max_packet).
    pub too_long: u32,
    /// Those of several frames that were dropped because
    /// [`MultiBuffer::max_held`](crate::MultiBuffer::max_held) others are in somebody's hand.
    pub no_buffer: u32,
}

/// Frames taken at most for each packet that is asked for, where packets may have several.
const MAX_FRAMES_PER_PACKET: u32 = 4;

impl Socket {
    pub(crate) fn new(umem: Umem, rings: Rings, settings: &SocketSettings<'_>) -> Self {
        static NEXT_UMEM: AtomicU32 = AtomicU32::new(0);
        let frame_size = umem.frame_size();
        let umem_id = NEXT_UMEM.fetch_add(1, Ordering::Relaxed);
        // Numbers must not come round: a frame would be taken for one of another UMEM's.
        assert!(umem_id < u32::MAX, "a process binds 2^32 - 1 sockets at most");
        Self {
            fd: rings.rx.fd().as_raw_fd(),
            rx: rings.rx,
            tx: rings.tx,
            fill: rings.fill,
            completion: rings.completion,
            umem: umem.memory,
            umem_id,
            frame_shift: frame_size.trailing_zeros(),
            pool: FramePool::new(umem.descriptors.len() as u32),
            tx_ring: settings.tx_ring,
            in_fill: 0,
            in_tx: 0,
            queued: Vec::with_capacity(settings.tx_ring as usize),
            scratch: vec![FrameDesc::default(); settings.burst as usize].into_boxed_slice(),
            descriptors: umem.descriptors,
            frame_room: umem.frame_room,
            assembler: settings.multi_buffer.map(Assembler::new),
        }
    }

    /// The descriptor of the socket, for an XSKMAP, for [`options`] and to wait for. It is closed with the socket.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// The kernel's counters.
    pub fn statistics(&self) -> Statistics {
        // The call fails only for what is no AF_XDP socket, and this is one as long as it lives.
        options::statistics(self.fd).unwrap_or_default()
    }

    /// The number of frames of the UMEM.
    pub fn frames(&self) -> u32 {
        self.pool.total()
    }

    /// The number of frames that are neither in a ring nor in anybody's hand.
    #[inline]
    pub fn free(&self) -> u32 {
        self.pool.free()
    }

    /// The number of frames given to the kernel for receiving: in the fill ring, or received and still in the RX ring.
    #[inline]
    pub fn in_fill(&self) -> u32 {
        self.in_fill
    }

    /// The number of frames given to the kernel for sending: in the TX ring, on their way, or in the completion ring.
    #[inline]
    pub fn in_tx(&self) -> u32 {
        self.in_tx
    }

    /// Takes the frames that have been sent back. Returns their number.
    #[inline]
    pub fn reap_completions(&mut self) -> u32 {
        let mut reaped = 0;
        while self.in_tx > 0 {
            // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the TX ring.
            let sent = unsafe { self.completion.consume(&mut self.scratch) };
            for index in 0..sent {
                self.pool.put(self.frame_of(&self.scratch[index]));
            }
            self.in_tx -= sent as u32;
            reaped += sent as u32;
            if sent < self.scratch.len() {
                break;
            }
        }
        reaped
    }

    /// Gives the kernel frames to receive into until it has `level`, as far as there are free ones and room in the
    /// ring.
    #[inline]
    pub fn replenish_fill(&mut self, level: u32) {
        loop {
            let missing = level.saturating_sub(self.in_fill);
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
                for index in given as usize..ready as usize {
                    self.pool.put(self.frame_of(&self.scratch[index]));
                }
                break;
            }
        }
    }

    /// Whether the kernel wants [`Socket::wake_receive`] to look at the fill ring.
    #[inline]
    pub fn fill_needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Has the kernel look at the fill ring, or poll the device where busy polling is on.
    #[inline]
    pub fn wake_receive(&self) {
        // What the kernel cannot do now is asked for again.
        let _ = options::wake_receive(self.fd);
    }

    /// Puts up to `limit` received packets, a burst at most, behind those in `batch`.
    #[inline]
    pub fn receive(&mut self, batch: &mut Vec<RxFrame>, limit: usize) -> Burst {
        let limit = limit.min(self.scratch.len());
        if self.assembler.is_some() {
            return self.receive_packets(batch, limit);
        }
        // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the fill ring.
        let received = unsafe { self.rx.consume(&mut self.scratch[..limit]) };
        let (frame_shift, umem_id) = (self.frame_shift, self.umem_id);
        let mut bytes = 0;
        batch.extend(self.scratch[..received].iter().map(|descriptor| {
            bytes += descriptor.lengths().data() as u64;
            RxFrame {
                frame: Frame::out_of_ring((descriptor.addr() >> frame_shift) as u32),
                descriptor: *descriptor,
                umem_id,
                packet: None,
            }
        }));
        self.in_fill -= received as u32;
        Burst {
            frames: received as u32,
            packets: received as u32,
            bytes,
            ..Burst::default()
        }
    }

    /// [`Socket::receive`] where packets may have several frames.
    fn receive_packets(&mut self, batch: &mut Vec<RxFrame>, limit: usize) -> Burst {
        let mut burst = Burst::default();
        let end = batch.len() + limit;
        while batch.len() < end && burst.frames < limit as u32 * MAX_FRAMES_PER_PACKET {
            let wanted = end - batch.len();
            // SAFETY: as in `receive`.
            let taken = unsafe { self.rx.consume(&mut self.scratch[..wanted]) };
            for index in 0..taken {
                let descriptor = self.scratch[index];
                batch.extend(self.receive_frame(descriptor, &mut burst));
            }
            self.in_fill -= taken as u32;
            burst.frames += taken as u32;
            if taken < wanted {
                break;
            }
        }
        burst
    }

    /// The packet that ends in a received frame, if there is one.
    #[inline]
    fn receive_frame(&mut self, descriptor: FrameDesc, burst: &mut Burst) -> Option<RxFrame> {
        let frame = self.frame_of(&descriptor);
        burst.bytes += descriptor.lengths().data() as u64;
        let more = descriptor.has_more_frames();
        let packet = match &mut self.assembler {
            Some(assembler) if more || assembler.is_under_way() => {
                // SAFETY: the descriptor is of this UMEM, as the kernel gave it, and its frame is in no ring and nobody
                // else's hand while `frame` exists.
                let contents = unsafe { self.umem.data(&descriptor) }.contents();
                match assembler.add(contents, more) {
                    Added::Whole(packet) => {
                        burst.multi_buffer += 1;
                        Some(packet)
                    }
                    added => {
                        self.pool.put(frame);
                        if let Added::Lost(loss) = added {
                            burst.packets += 1;
                            burst.multi_buffer += 1;
                            match loss {
                                Loss::TooLong => burst.too_long += 1,
                                Loss::NoBuffer => burst.no_buffer += 1,
                            }
                        }
                        return None;
                    }
                }
            }
            _ => None,
        };
        burst.packets += 1;
        Some(RxFrame {
            frame,
            descriptor,
            umem_id: self.umem_id,
            packet,
        })
    }

    /// The number of received frames that wait in the RX ring.
    #[inline]
    pub fn received(&mut self) -> u32 {
        self.rx.nb_avail_exact()
    }

    /// Whether received frames wait in the RX ring.
    #[inline]
    pub fn has_received(&mut self) -> bool {
        self.rx.nb_avail(1) > 0
    }

    /// Takes back a received frame that has been dealt with.
    ///
    /// # Panics
    ///
    /// The frame is another socket's.
    #[inline]
    pub fn recycle(&mut self, frame: RxFrame) {
        self.check_umem(frame.umem_id);
        self.pool.put(frame.frame);
        if let (Some(packet), Some(assembler)) = (frame.packet, &mut self.assembler) {
            assembler.recycle(packet);
        }
    }

    /// The token of the frame that a descriptor out of a ring is of.
    #[inline]
    pub(crate) fn frame_of(&self, descriptor: &FrameDesc) -> Frame {
        Frame::out_of_ring((descriptor.addr() >> self.frame_shift) as u32)
    }

    /// Every token of the process is of one UMEM, whose socket alone takes it.
    #[inline]
    pub(crate) fn check_umem(&self, umem_id: u32) {
        assert!(umem_id == self.umem_id, "a frame of another UMEM");
    }
}
