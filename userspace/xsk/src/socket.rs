//! A bound socket: its rings, on one device or on several, and the frames that no ring has.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::io;
use std::os::fd::RawFd;

use xsk_rs::FrameDesc;

use crate::MAX_DEVICES;
use crate::frame::{Frame, FramePool};
use crate::multi_buffer::{Added, Assembler, Loss};
use crate::options;
use crate::rings::Rings;
use crate::rx_frame::RxFrame;
use crate::statistics::Statistics;
use crate::umem::{SocketSettings, Umem, bind};

/// A UMEM and its AF_XDP sockets, one on a queue of each device. A device is called by its number, in the order in
/// which they were bound. The sockets are closed when this and the last [`Umems`](crate::Umems) of the memory are
/// dropped.
#[derive(Debug)]
pub struct Socket {
    /// By device.
    pub(crate) rings: Vec<Rings>,
    /// The device that is looked at first for what was received.
    first: usize,
    pub(crate) umem: xsk_rs::Umem,
    /// Tells this UMEM from all others of the process.
    pub(crate) umem_id: u32,
    /// Base-2 logarithm of the frame size.
    frame_shift: u32,
    /// By frame number: the descriptor of the frame when it is free.
    pub(crate) descriptors: Box<[FrameDesc]>,
    pub(crate) pool: FramePool,
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
const MAX_FRAMES_PER_PACKET: usize = 4;

impl Socket {
    pub(crate) fn new(umem: Umem, rings: Rings, settings: &SocketSettings<'_>) -> Self {
        static NEXT_UMEM: AtomicU32 = AtomicU32::new(0);
        let frame_size = umem.frame_size();
        let umem_id = NEXT_UMEM.fetch_add(1, Ordering::Relaxed);
        // Numbers must not come round: a frame would be taken for one of another UMEM's.
        assert!(umem_id < u32::MAX, "a process binds 2^32 - 1 sockets at most");
        Self {
            rings: vec![rings],
            first: 0,
            umem: umem.memory,
            umem_id,
            frame_shift: frame_size.trailing_zeros(),
            pool: FramePool::new(umem.descriptors.len() as u32),
            scratch: vec![FrameDesc::default(); settings.burst as usize].into_boxed_slice(),
            descriptors: umem.descriptors,
            frame_room: umem.frame_room,
            assembler: settings.multi_buffer.map(Assembler::new),
        }
    }

    /// Binds a queue of another device to the same UMEM (Linux 5.10), in the mode of the first, which is the one that
    /// counts. Its fill ring is empty.
    ///
    /// # Errors
    ///
    /// As [`Umem::bind`]; also when the device cannot do what the first does, or there are [`MAX_DEVICES`] already.
    pub fn add_device(&mut self, settings: &SocketSettings<'_>) -> io::Result<()> {
        if self.rings.len() == MAX_DEVICES {
            return Err(io::Error::other(format!("a UMEM has {MAX_DEVICES} devices at most")));
        }
        self.rings.push(bind(&self.umem, settings)?);
        Ok(())
    }

    /// The number of devices.
    pub fn devices(&self) -> u8 {
        self.rings.len() as u8
    }

    /// Leaves the rings of a device alone from now on: it is gone. The frames in them do not come back, and go on being
    /// counted as what they were; those that are queued for it are free again.
    pub fn close_device(&mut self, device: u8) {
        let rings = &mut self.rings[usize::from(device)];
        rings.is_closed = true;
        for descriptor in rings.queued.drain(..) {
            self.pool.put(frame_of(&descriptor, self.frame_shift));
        }
    }

    /// The rings of the devices that were not closed.
    fn open(&self) -> impl Iterator<Item = &Rings> {
        self.rings.iter().filter(|rings| !rings.is_closed)
    }

    /// The same.
    pub(crate) fn open_mut(&mut self) -> impl Iterator<Item = &mut Rings> {
        self.rings.iter_mut().filter(|rings| !rings.is_closed)
    }

    /// The descriptor of the socket on a device, for an XSKMAP, for [`options`] and to wait for. It is closed with the
    /// socket.
    pub fn fd(&self, device: u8) -> RawFd {
        self.rings[usize::from(device)].fd
    }

    /// The kernel's counters, of all devices together.
    pub fn statistics(&self) -> Statistics {
        let mut sum = Statistics::default();
        for rings in &self.rings {
            // The call fails only for what is no AF_XDP socket, and this is one as long as it lives.
            sum.merge(&options::statistics(rings.fd).unwrap_or_default());
        }
        sum
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

    /// The number of frames given to the kernel for receiving: in the fill rings, or received and still in the RX
    /// rings.
    #[inline]
    pub fn in_fill(&self) -> u32 {
        self.rings.iter().map(|rings| rings.in_fill).sum()
    }

    /// Whether a fill ring has less than `level` frames.
    #[inline]
    pub fn is_fill_below(&self, level: u32) -> bool {
        self.open().any(|rings| rings.in_fill < level)
    }

    /// The number of frames given to the kernel for sending: in the TX rings, on their way, or in the completion rings.
    #[inline]
    pub fn in_tx(&self) -> u32 {
        self.rings.iter().map(|rings| rings.in_tx).sum()
    }

    /// Takes the frames that have been sent back. Returns their number.
    #[inline]
    pub fn reap_completions(&mut self) -> u32 {
        let Self {
            rings,
            pool,
            scratch,
            frame_shift,
            ..
        } = self;
        let mut reaped = 0;
        for rings in rings.iter_mut().filter(|rings| !rings.is_closed) {
            while rings.in_tx > 0 {
                // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the TX
                // ring.
                let sent = unsafe { rings.completion.consume(scratch) };
                for descriptor in &scratch[..sent] {
                    pool.put(frame_of(descriptor, *frame_shift));
                }
                rings.in_tx -= sent as u32;
                reaped += sent as u32;
                if sent < scratch.len() {
                    break;
                }
            }
        }
        reaped
    }

    /// Gives the kernel frames to receive into until it has `level` for each device, as far as there are free ones and
    /// room in the rings.
    #[inline]
    pub fn replenish_fill(&mut self, level: u32) {
        for device in 0..self.rings.len() {
            if !self.rings[device].is_closed {
                self.replenish_device(device, level);
            }
        }
    }

    #[inline]
    fn replenish_device(&mut self, device: usize, level: u32) {
        let rings = &mut self.rings[device];
        loop {
            let missing = level.saturating_sub(rings.in_fill);
            let wanted = missing.min(self.scratch.len() as u32);
            if wanted == 0 || self.pool.free() == 0 {
                break;
            }
            let mut ready = wanted.min(self.pool.free());
            ready = ready.min(rings.fill.nb_free(ready));
            if ready == 0 {
                break;
            }
            for slot in &mut self.scratch[..ready as usize] {
                let Some(frame) = self.pool.take() else { break };
                *slot = self.descriptors[frame.into_number() as usize];
            }
            // SAFETY: the descriptors are this UMEM's, and the tokens of their frames have just ended.
            let given = unsafe { rings.fill.produce(&self.scratch[..ready as usize]) } as u32;
            rings.in_fill += given;
            if given < ready {
                // The ring takes all or nothing, and it had room; put back what it did not take all the same.
                for descriptor in &self.scratch[given as usize..ready as usize] {
                    self.pool.put(frame_of(descriptor, self.frame_shift));
                }
                break;
            }
        }
    }

    /// Whether the kernel wants [`Socket::wake_receive`] to look at a fill ring.
    #[inline]
    pub fn fill_needs_wakeup(&self) -> bool {
        self.open().any(|rings| rings.fill.needs_wakeup())
    }

    /// Has the kernel look at the fill rings, or poll the devices where busy polling is on.
    #[inline]
    pub fn wake_receive(&self) {
        for rings in self.open() {
            // What the kernel cannot do now is asked for again.
            let _ = options::wake_receive(rings.fd);
        }
    }

    /// Puts up to `limit` received packets, a burst at most, behind those in `batch`. Another device comes first each
    /// time.
    #[inline]
    pub fn receive(&mut self, batch: &mut Vec<RxFrame>, limit: usize) -> Burst {
        let limit = limit.min(self.scratch.len());
        let (first, devices) = (self.first, self.rings.len());
        self.first = if first + 1 < devices { first + 1 } else { 0 };
        let mut burst = Burst::default();
        for device in (first..devices).chain(0..first) {
            let left = limit.saturating_sub(burst.packets as usize);
            if left == 0 {
                break;
            }
            if self.rings[device].is_closed {
                continue;
            }
            if self.assembler.is_some() {
                self.receive_packets_from(device, batch, left, &mut burst);
            } else {
                self.receive_from(device, batch, left, &mut burst);
            }
        }
        burst
    }

    #[inline]
    fn receive_from(&mut self, device: usize, batch: &mut Vec<RxFrame>, limit: usize, burst: &mut Burst) {
        let rings = &mut self.rings[device];
        // SAFETY: the ring is this UMEM's, and only descriptors of this UMEM's frames were put into the fill ring.
        let received = unsafe { rings.rx.consume(&mut self.scratch[..limit]) };
        let (frame_shift, umem_id) = (self.frame_shift, self.umem_id);
        batch.extend(self.scratch[..received].iter().map(|descriptor| {
            burst.bytes += descriptor.lengths().data() as u64;
            RxFrame {
                frame: frame_of(descriptor, frame_shift),
                descriptor: *descriptor,
                umem_id,
                device: device as u8,
                packet: None,
            }
        }));
        rings.in_fill -= received as u32;
        burst.frames += received as u32;
        burst.packets += received as u32;
    }

    /// [`Socket::receive_from`] where packets may have several frames.
    fn receive_packets_from(&mut self, device: usize, batch: &mut Vec<RxFrame>, limit: usize, burst: &mut Burst) {
        let (end, mut frames) = (batch.len() + limit, 0);
        while batch.len() < end && frames < limit * MAX_FRAMES_PER_PACKET {
            let wanted = end - batch.len();
            let rings = &mut self.rings[device];
            // SAFETY: as in `receive_from`.
            let taken = unsafe { rings.rx.consume(&mut self.scratch[..wanted]) };
            rings.in_fill -= taken as u32;
            for index in 0..taken {
                let descriptor = self.scratch[index];
                batch.extend(self.receive_frame(device, descriptor, burst));
            }
            frames += taken;
            if taken < wanted {
                break;
            }
        }
        burst.frames += frames as u32;
    }

    /// The packet that ends in a received frame, if there is one.
    #[inline]
    fn receive_frame(&mut self, device: usize, descriptor: FrameDesc, burst: &mut Burst) -> Option<RxFrame> {
        let frame = self.frame_of(&descriptor);
        burst.bytes += descriptor.lengths().data() as u64;
        let more = descriptor.has_more_frames();
        let packet = match &mut self.assembler {
            Some(assembler) if more || assembler.is_under_way(device) => {
                // SAFETY: the descriptor is of this UMEM, as the kernel gave it, and its frame is in no ring and nobody
                // else's hand while `frame` exists.
                let contents = unsafe { self.umem.data(&descriptor) }.contents();
                match assembler.add(device, contents, more) {
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
            device: device as u8,
            packet,
        })
    }

    /// The number of received frames that wait in the RX rings.
    #[inline]
    pub fn received(&mut self) -> u32 {
        self.open_mut().map(|rings| rings.rx.nb_avail_exact()).sum()
    }

    /// Whether received frames wait in an RX ring.
    #[inline]
    pub fn has_received(&mut self) -> bool {
        self.open_mut().any(|rings| rings.rx.nb_avail(1) > 0)
    }

    /// Sleeps until a frame is received, `bell` can be read, or the time is over. Returns whether `bell` can.
    ///
    /// # Errors
    ///
    /// As [`options::sleep`].
    pub fn sleep(&self, bell: RawFd, limit: Duration) -> io::Result<bool> {
        options::sleep(self.open().map(|rings| rings.fd), bell, limit)
    }

    /// The contents of a received frame, Ethernet header first.
    ///
    /// # Panics
    ///
    /// The frame is another socket's.
    #[inline]
    pub fn contents<'a>(&'a self, frame: &'a RxFrame) -> &'a [u8] {
        self.check_umem(frame.umem_id);
        match &frame.packet {
            Some(packet) => &packet.bytes,
            // SAFETY: the kernel gave the descriptor for a frame of this UMEM, and whoever has the `RxFrame` has the
            // only token of it, so nobody writes to it while the result borrows that.
            None => unsafe { self.umem.data(&frame.descriptor) }.contents(),
        }
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
        frame_of(descriptor, self.frame_shift)
    }

    /// Every token of the process is of one UMEM, whose socket alone takes it.
    #[inline]
    pub(crate) fn check_umem(&self, umem_id: u32) {
        assert!(umem_id == self.umem_id, "a frame of another UMEM");
    }
}

/// The token of the frame that a descriptor out of a ring is of, frames being of 2^`frame_shift` bytes.
#[inline]
fn frame_of(descriptor: &FrameDesc, frame_shift: u32) -> Frame {
    Frame::out_of_ring((descriptor.addr() >> frame_shift) as u32)
}
