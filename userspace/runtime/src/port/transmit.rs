//! The sending side of a port: where the engine writes its frames, and how they reach the kernel.

use tidegate_capture::Direction;
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_xsk::{TxFrame, Unsent};

use crate::port::Port;
use crate::shard_port::ShardPort as _;

impl Transmit for Port {
    #[inline]
    fn leave_by(&mut self, device: u8) {
        let device = self.routes.by(device);
        if device != self.device {
            self.device = device;
            // There need not be room for it on this one.
            if let Some(frame) = self.reserved.take() {
                self.socket.put_back(frame);
            }
        }
    }

    #[inline]
    fn reserve(&mut self, purpose: Purpose) -> Option<&mut [u8]> {
        if self.packet.is_some() {
            return self.reserve_packet(purpose);
        }
        if self.reserved.is_none() {
            self.reserved = self.take(purpose);
            if self.reserved.is_none() {
                self.counters.tx_refused += 1;
            }
        }
        let frame = self.reserved.as_mut()?;
        Some(self.socket.buffer(frame))
    }

    #[inline]
    fn commit(&mut self, length: usize) {
        if self.packet.is_some() {
            return self.commit_packet(length);
        }
        let Some(mut frame) = self.reserved.take() else {
            debug_assert!(false, "commit without reserve");
            return;
        };
        if length == 0 {
            self.reserved = Some(frame);
            return;
        }
        if !self.taps.is_empty() {
            let contents = &self.socket.buffer(&mut frame)[..length];
            self.taps
                .show(contents, self.device, Direction::Sent, &mut self.counters);
        }
        if !self.socket.queue(frame, self.device, length) {
            self.counters.tx_link_gone += 1;
            return;
        }
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += length as u64;
    }
}

impl Port {
    /// [`Transmit::reserve`] where what is sent may take several frames. How many will be known only when it is
    /// written, so there must be as many as for the longest; none is taken before.
    fn reserve_packet(&mut self, purpose: Purpose) -> Option<&mut [u8]> {
        if !self.has_room(purpose) {
            self.counters.tx_refused += 1;
            return None;
        }
        self.packet.as_deref_mut()
    }

    /// [`Transmit::commit`] after [`Port::reserve_packet`].
    fn commit_packet(&mut self, length: usize) {
        let Some(packet) = self.packet.as_deref().filter(|_| length > 0) else {
            return;
        };
        if !self.taps.is_empty() {
            self.taps
                .show(&packet[..length], self.device, Direction::Sent, &mut self.counters);
        }
        // There was room, and nothing else takes frames meanwhile.
        if !self.socket.queue_copy(self.device, &packet[..length]) {
            self.counters.tx_link_gone += 1;
            return;
        }
        self.counters.tx_multi_buffer += u64::from(self.socket.frames_of(length) > 1);
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += length as u64;
    }

    /// A free frame for `purpose`, unless there is no room.
    fn take(&mut self, purpose: Purpose) -> Option<TxFrame> {
        if self.has_room(purpose) {
            self.socket.take()
        } else {
            None
        }
    }

    /// Whether there is room for the longest that is sent, but for the last frames, which are kept for more urgent
    /// purposes.
    fn has_room(&mut self, purpose: Purpose) -> bool {
        let kept = match purpose {
            Purpose::Handshake => 2 * self.control_reserve,
            Purpose::Data => self.control_reserve,
            Purpose::Control => 0,
        };
        if self.socket.has_tx_room(self.device, self.max_frames, kept) {
            return true;
        }
        // Only what is sent comes back; without anything queued the kernel has been asked already.
        if self.socket.queued() > 0 {
            self.flush();
        }
        self.reap_completions();
        self.socket.has_tx_room(self.device, self.max_frames, kept)
    }

    /// Asks the kernel to look at the TX ring, and remembers what is left there.
    pub(super) fn kick(&mut self) {
        let kick = self.socket.kick();
        self.counters.tx_wakeups += u64::from(kick.wakeups);
        self.unsent = kick.unsent;
        match kick.unsent {
            Unsent::Nothing => self.link_down_logged = false,
            Unsent::Busy => self.counters.tx_busy += 1,
            Unsent::LinkDown => {
                self.counters.tx_link_down += 1;
                if !self.link_down_logged {
                    self.link_down_logged = true;
                    tracing::warn!(
                        queue = self.queue,
                        "the interface is down; what is to be sent waits until it is up again"
                    );
                }
            }
        }
    }
}
