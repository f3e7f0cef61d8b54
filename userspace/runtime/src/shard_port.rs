//! The port of a shard, as the shard sees it: the seam at which a test puts memory in the place of a device.

use core::time::Duration;
use std::io;
use std::os::fd::RawFd;

use tidegate_capture::Tap;
use tidegate_tcp::transmit::Transmit;
use tidegate_tcp::wire::Frame;
use tidegate_xsk::{Statistics, Unsent};

use crate::report::{FrameCensus, PortCounters};
use crate::routes::Routes;

/// The frames a shard receives and sends, and the kernel behind them. [`Port`](crate::port::Port) in a server.
pub(crate) trait ShardPort: Transmit {
    /// The right to one received frame, which any shard may read and only its own port takes back.
    type Frame;

    /// The memory of the frames of all shards.
    type Memory;

    /// Whether this is a relay to another process, which is told of each frame whether its flow is known here.
    const IS_RELAY: bool = false;

    /// The contents of a frame, Ethernet header first, and the device it was received from.
    fn contents<'a>(memory: &'a Self::Memory, frame: &'a Self::Frame) -> Frame<'a>;

    /// Puts up to `limit` received frames behind those in `batch`.
    fn receive(&mut self, batch: &mut Vec<Self::Frame>, limit: usize);

    /// Whether received frames wait.
    fn has_received(&mut self) -> bool;

    /// Takes back the frame of a segment that has been dealt with.
    fn recycle(&mut self, frame: Self::Frame);

    /// Takes back the frame of a segment of an unknown flow, where [`Self::IS_RELAY`].
    fn give_back(&mut self, frame: Self::Frame) {
        self.recycle(frame);
    }

    /// Notes that a frame of this port was handed to another shard.
    fn note_handed_over(&mut self);

    /// Notes that one came home.
    fn note_returned(&mut self);

    /// Gives the kernel frames to receive into, as far as there are free ones.
    fn replenish_fill(&mut self);

    /// Whether it could not be given as many as it should have, so that receiving may end for want of frames.
    fn is_fill_short(&self) -> bool;

    /// Takes the frames that have been sent back.
    fn reap_completions(&mut self);

    /// The number of frames the engine has written that the kernel was not given yet.
    fn queued(&self) -> usize;

    /// Gives the kernel what the engine has written since the last call, and has it look at what waits to be sent.
    fn flush(&mut self);

    /// The frames that wait to be sent, by the reason why.
    fn unsent(&self) -> Unsent;

    /// Whether there are frames for every purpose, and room to send them.
    fn can_send(&mut self) -> bool;

    /// Sends by other devices from now on.
    fn set_routes(&mut self, routes: Routes);

    /// Shows `tap` what is received and sent from now on, until nobody takes it any more.
    fn add_tap(&mut self, tap: Tap);

    /// Has the kernel poll the device, where busy polling is on.
    fn poll_device(&mut self);

    /// Sleeps until a frame is received, `bell` can be read, or the time is over. Returns whether `bell` can.
    ///
    /// # Errors
    ///
    /// The kernel's error; `EINTR` after a signal.
    fn sleep(&self, bell: RawFd, limit: Duration) -> io::Result<bool>;

    /// Where the frames are; `foreign` frames of other shards wait for this one. Between two turns of the loop no
    /// segment is in anybody's hand.
    fn census(&self, foreign: u32) -> FrameCensus;

    /// The port's own counters.
    fn counters(&self) -> &PortCounters;

    /// The kernel's counters.
    fn statistics(&self) -> Statistics;
}
