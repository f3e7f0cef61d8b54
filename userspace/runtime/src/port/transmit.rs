//! The sending side of a port: where the engine writes its frames, and how they reach the kernel.

use core::slice;
use std::io;

use tidegate_tcp::transmit::{Purpose, Transmit};
use xsk_rs::FrameDesc;

use crate::port::Port;
use crate::socket_options::{self, TX_BATCH};
use crate::wait::Unsent;

impl Transmit for Port {
    #[inline]
    fn reserve(&mut self, purpose: Purpose) -> Option<&mut [u8]> {
        if self.reserved.is_none() {
            self.reserved = self.take(purpose);
            if self.reserved.is_none() {
                self.counters.tx_refused += 1;
            }
        }
        let descriptor = self.reserved.as_mut()?;
        // SAFETY: the descriptor is this UMEM's, and its frame is in no ring and nobody else's hand.
        let mut data = unsafe { self.umem.data_mut(descriptor) };
        let room = data.cursor().buf_len();
        data.cursor().set_pos(room);
        let buffer = data.contents_mut();
        let (start, length) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the pointer and length are those of the frame's memory, which lives as long as `self.umem`. The frame
        // stays reserved while the result borrows `self`, so there is no other reference to it.
        Some(unsafe { slice::from_raw_parts_mut(start, length) })
    }

    #[inline]
    fn commit(&mut self, length: usize) {
        let Some(mut descriptor) = self.reserved.take() else {
            debug_assert!(false, "commit without reserve");
            return;
        };
        if length == 0 {
            self.reserved = Some(descriptor);
            return;
        }
        {
            // SAFETY: as in `reserve`, whose result is no longer borrowed.
            let mut data = unsafe { self.umem.data_mut(&mut descriptor) };
            debug_assert!(length <= data.cursor().buf_len(), "{length} bytes do not fit a frame");
            data.cursor().set_pos(length);
        }
        self.queued.push(descriptor);
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += length as u64;
    }
}

impl Port {
    /// Gives the kernel what the engine has written since the last call, and has it look at the TX ring.
    pub(crate) fn flush(&mut self) {
        if !self.queued.is_empty() {
            // SAFETY: the descriptors are this UMEM's; their frames' tokens have ended, and they are in no other ring.
            let given = unsafe { self.tx.produce(&self.queued) };
            debug_assert_eq!(
                given,
                self.queued.len(),
                "the TX ring takes all or nothing, and it had room"
            );
            self.queued.drain(..given);
            self.in_tx += given as u32;
            self.kick();
        } else if self.unsent != Unsent::Nothing {
            self.kick();
        }
    }

    /// Whether there are frames for every purpose, and room in the TX ring.
    pub(crate) fn can_send(&mut self) -> bool {
        self.has_room(2 * self.control_reserve)
    }

    /// A free frame for `purpose`, unless the last ones are kept for more urgent purposes or the TX ring is full.
    fn take(&mut self, purpose: Purpose) -> Option<FrameDesc> {
        let kept = match purpose {
            Purpose::Handshake => 2 * self.control_reserve,
            Purpose::Data => self.control_reserve,
            Purpose::Control => 0,
        };
        if !self.has_room(kept) {
            // Only what is sent comes back; without anything queued the kernel has been asked already.
            if !self.queued.is_empty() {
                self.flush();
            }
            self.collect();
            if !self.has_room(kept) {
                return None;
            }
        }
        let frame = self.pool.take()?;
        Some(self.descriptors[frame.into_number() as usize])
    }

    #[inline]
    fn has_room(&mut self, kept: u32) -> bool {
        let queued = self.queued.len() as u32;
        // What is not known to have been sent may be in the TX ring, and nothing else can be: often that is answer
        // enough, without a look at the ring.
        self.pool.free() > kept && (self.in_tx + queued < self.tx_ring || queued < self.tx.nb_free(queued + 1))
    }

    /// Asks the kernel to look at the TX ring until it is empty, the driver goes on by itself, or nothing moves.
    fn kick(&mut self) {
        let mut waiting = self.waiting();
        // In copy mode a call moves a batch and says EAGAIN, also when it moved none for want of room. How far it got
        // is not to be seen in the ring before a later call, so the calls are bounded instead.
        let mut attempts = waiting.div_ceil(TX_BATCH) + 1;
        self.unsent = Unsent::Nothing;
        while waiting > 0 && self.tx.needs_wakeup() {
            if attempts == 0 {
                self.stalled(Unsent::Busy);
                return;
            }
            attempts -= 1;
            self.counters.tx_wakeups += 1;
            match socket_options::wake_transmit(self.socket) {
                // With zero-copy the driver empties the ring by itself once woken; with copy it is empty now.
                Ok(()) => break,
                Err(error) => match outcome(&error) {
                    Outcome::More => waiting = self.waiting(),
                    Outcome::Later => {
                        self.stalled(Unsent::Busy);
                        return;
                    }
                    Outcome::LinkDown => {
                        self.stalled(Unsent::LinkDown);
                        return;
                    }
                },
            }
        }
        self.link_down_logged = false;
    }

    /// Frames in the TX ring the kernel has not yet taken.
    fn waiting(&mut self) -> u32 {
        self.tx_ring - self.tx.nb_free_exact()
    }

    #[cold]
    fn stalled(&mut self, unsent: Unsent) {
        self.unsent = unsent;
        if unsent == Unsent::LinkDown {
            self.counters.tx_link_down += 1;
            if !self.link_down_logged {
                self.link_down_logged = true;
                tracing::warn!(
                    queue = self.owner,
                    "the interface is down; what is to be sent waits until it is up again"
                );
            }
        } else {
            self.counters.tx_busy += 1;
        }
    }
}

/// What an error of the TX wake-up means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Call again at once.
    More,
    /// Call again in the next turn.
    Later,
    /// The interface is down, or gone.
    LinkDown,
}

fn outcome(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        // EBUSY: the device dropped one frame; the next may pass.
        Some(libc::EAGAIN | libc::EBUSY | libc::EINTR) => Outcome::More,
        Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Outcome::LinkDown,
        // ENOBUFS, and whatever else a driver may say.
        _ => Outcome::Later,
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
        assert_eq!(of(libc::ENOBUFS), Outcome::Later);
        assert_eq!(of(libc::ENETDOWN), Outcome::LinkDown);
        assert_eq!(of(libc::ENXIO), Outcome::LinkDown);
    }
}
