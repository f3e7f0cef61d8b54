//! The sending side of a socket: frames to be written, and how they reach the kernel.

use core::slice;
use std::io;

use xsk_rs::FrameDesc;

use crate::options::{self, TX_BATCH};
use crate::rings::Rings;
use crate::rx_frame::RxFrame;
use crate::socket::Socket;

/// A frame that is in no ring, to be written and sent. One that is dropped is lost.
#[must_use = "a frame that is put nowhere is lost"]
#[derive(Debug)]
pub struct TxFrame {
    descriptor: FrameDesc,
    /// The UMEM it is in.
    umem_id: u32,
}

/// The state of the TX ring after the kernel was asked to look at it.
///
/// In the order of what has to be looked after most: of several devices, the greatest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsent {
    /// Nothing, or nothing that needs another system call.
    Nothing,
    /// Frames that have to wait until the interface is up again.
    LinkDown,
    /// Frames the kernel has no room for at the moment.
    Busy,
}

/// The outcome of asking the kernel to look at the TX ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kick {
    /// The frames that are left in it, by the reason why.
    pub unsent: Unsent,
    /// System calls it took.
    pub wakeups: u32,
}

impl Socket {
    /// Takes a free frame.
    #[inline]
    pub fn take(&mut self) -> Option<TxFrame> {
        let frame = self.pool.take()?;
        Some(TxFrame {
            descriptor: self.descriptors[frame.into_number() as usize],
            umem_id: self.umem_id,
        })
    }

    /// Makes a received frame one to be sent, with the contents it has.
    ///
    /// # Panics
    ///
    /// The frame is another socket's, or its contents came in several.
    #[inline]
    pub fn turn_into_tx(&self, frame: RxFrame) -> TxFrame {
        self.check_umem(frame.umem_id);
        assert!(frame.packet.is_none(), "a packet of several frames");
        let mut descriptor = frame.descriptor;
        // What the kernel says about a received frame is nothing to be sent with.
        descriptor.set_options(0);
        frame.frame.into_number();
        TxFrame {
            descriptor,
            umem_id: frame.umem_id,
        }
    }

    /// All the room there is in a frame.
    ///
    /// # Panics
    ///
    /// The frame is another socket's.
    #[inline]
    pub fn buffer<'a>(&'a self, frame: &'a mut TxFrame) -> &'a mut [u8] {
        self.check_umem(frame.umem_id);
        // SAFETY: the descriptor is this UMEM's, and its frame is in no ring and nobody else's hand.
        let mut data = unsafe { self.umem.data_mut(&mut frame.descriptor) };
        let room = data.cursor().buf_len();
        data.cursor().set_pos(room);
        let buffer = data.contents_mut();
        let (start, length) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the pointer and length are those of the frame's memory, which lives as long as `self.umem`. The
        // result borrows `frame`, the only token there is, so there is no other reference to it.
        unsafe { slice::from_raw_parts_mut(start, length) }
    }

    /// Queues the first `length` bytes of a frame, at most all of its room, to be sent by a device with the next
    /// [`Socket::submit`]. False if the device was closed; the frame is free again then.
    ///
    /// # Panics
    ///
    /// The frame is another socket's.
    #[inline]
    pub fn queue(&mut self, mut frame: TxFrame, device: u8, length: usize) -> bool {
        self.check_umem(frame.umem_id);
        if self.rings[usize::from(device)].is_closed {
            self.put_back(frame);
            return false;
        }
        {
            // SAFETY: as in `buffer`, whose result is no longer borrowed.
            let mut data = unsafe { self.umem.data_mut(&mut frame.descriptor) };
            debug_assert!(length <= data.cursor().buf_len(), "{length} bytes do not fit a frame");
            data.cursor().set_pos(length);
        }
        self.rings[usize::from(device)].queued.push(frame.descriptor);
        true
    }

    /// The number of frames that a packet of `length` bytes takes.
    #[inline]
    pub fn frames_of(&self, length: usize) -> u32 {
        length.div_ceil(self.frame_room).max(1) as u32
    }

    /// Queues a copy of `bytes` as one packet. False if too few frames are free, or it takes several and packets of
    /// these sockets have one, or the device was closed.
    pub fn queue_copy(&mut self, device: u8, bytes: &[u8]) -> bool {
        let frames = self.frames_of(bytes.len());
        if self.pool.free() < frames || frames > 1 && self.assembler.is_none() {
            return false;
        }
        let mut rest = bytes;
        for following in (0..frames).rev() {
            // There are so many.
            let Some(mut frame) = self.take() else { return false };
            let (piece, behind) = rest.split_at(rest.len().min(self.frame_room));
            self.buffer(&mut frame)[..piece.len()].copy_from_slice(piece);
            frame
                .descriptor
                .set_options(if following > 0 { libc::XDP_PKT_CONTD } else { 0 });
            // A closed device takes none of them.
            if !self.queue(frame, device, piece.len()) {
                return false;
            }
            rest = behind;
        }
        true
    }

    /// Takes back a frame that is not to be sent after all.
    ///
    /// # Panics
    ///
    /// The frame is another socket's.
    pub fn put_back(&mut self, frame: TxFrame) {
        self.check_umem(frame.umem_id);
        self.pool.put(self.frame_of(&frame.descriptor));
    }

    /// The number of frames queued and not yet submitted.
    #[inline]
    pub fn queued(&self) -> usize {
        self.rings.iter().map(|rings| rings.queued.len()).sum()
    }

    /// Whether `frames` are free beside `kept` ones, and the device's TX ring has room for them behind what is queued,
    /// or the device was closed.
    #[inline]
    pub fn has_tx_room(&mut self, device: u8, frames: u32, kept: u32) -> bool {
        self.pool.free() >= kept + frames && self.rings[usize::from(device)].has_tx_room(frames)
    }

    /// As [`Socket::has_tx_room`], on every device.
    pub fn has_tx_room_everywhere(&mut self, frames: u32, kept: u32) -> bool {
        self.pool.free() >= kept + frames && self.open_mut().all(|rings| rings.has_tx_room(frames))
    }

    /// Puts what is queued into the TX rings, all of it or, without room, nothing. Returns the number of frames.
    #[inline]
    pub fn submit(&mut self) -> usize {
        self.open_mut().map(Rings::submit).sum()
    }

    /// Asks the kernel to look at the TX rings until they are empty, the driver goes on by itself, or nothing moves.
    pub fn kick(&mut self) -> Kick {
        let mut all = Kick {
            unsent: Unsent::Nothing,
            wakeups: 0,
        };
        for rings in self.open_mut() {
            let kick = rings.kick();
            all.unsent = all.unsent.max(kick.unsent);
            all.wakeups += kick.wakeups;
        }
        all
    }
}

impl Rings {
    #[inline]
    fn has_tx_room(&mut self, frames: u32) -> bool {
        let queued = self.queued.len() as u32 + frames;
        // What is not known to have been sent may be in the TX ring, and nothing else can be: often that is answer
        // enough, without a look at the ring.
        self.in_tx + queued <= self.tx_ring || self.is_closed || queued <= self.tx.nb_free(queued)
    }

    #[inline]
    fn submit(&mut self) -> usize {
        // SAFETY: the descriptors are this UMEM's; their frames' tokens have ended, and they are in no other ring.
        let given = unsafe { self.tx.produce(&self.queued) };
        self.queued.drain(..given);
        self.in_tx += given as u32;
        given
    }

    fn kick(&mut self) -> Kick {
        let mut waiting = self.unsent();
        // In copy mode a call moves a batch and says EAGAIN, also when it moved none for want of room. How far it got
        // is not to be seen in the ring before a later call, so the calls are bounded instead.
        let max_wakeups = waiting.div_ceil(TX_BATCH) + 1;
        let mut wakeups = 0;
        let mut unsent = Unsent::Nothing;
        while waiting > 0 && self.tx.needs_wakeup() {
            if wakeups == max_wakeups {
                unsent = Unsent::Busy;
                break;
            }
            wakeups += 1;
            match options::wake_transmit(self.fd) {
                // With zero-copy the driver empties the ring by itself once woken; with copy it is empty now.
                Ok(()) => break,
                Err(error) => match outcome(&error) {
                    Outcome::More => waiting = self.unsent(),
                    Outcome::Later(left) => {
                        unsent = left;
                        break;
                    }
                },
            }
        }
        Kick { unsent, wakeups }
    }

    /// The number of frames in the TX ring that the kernel has not taken yet.
    fn unsent(&mut self) -> u32 {
        self.tx_ring - self.tx.nb_free_exact()
    }
}

/// The meaning of an error of the TX wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Call again at once.
    More,
    /// Call again later, and why.
    Later(Unsent),
}

fn outcome(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        // EBUSY: the device dropped one frame; the next may pass.
        Some(libc::EAGAIN | libc::EBUSY | libc::EINTR) => Outcome::More,
        // Down, or gone.
        Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Outcome::Later(Unsent::LinkDown),
        // ENOBUFS, and whatever else a driver may say.
        _ => Outcome::Later(Unsent::Busy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_decides_when_to_try_again() {
        let of = |errno| outcome(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::EAGAIN), Outcome::More);
        assert_eq!(of(libc::EBUSY), Outcome::More);
        assert_eq!(of(libc::ENOBUFS), Outcome::Later(Unsent::Busy));
        assert_eq!(of(libc::ENETDOWN), Outcome::Later(Unsent::LinkDown));
        assert_eq!(of(libc::ENXIO), Outcome::Later(Unsent::LinkDown));
    }
}
