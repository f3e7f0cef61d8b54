//! Copies of the frames of a port, for captures and traces.

use nix::time::{ClockId, clock_gettime};
use tidegate_capture::ring::Offered;
use tidegate_capture::{Direction, Tap};

use crate::report::PortCounters;

/// The taps of one port: most of the time none, which is all that a frame then asks.
#[derive(Debug, Default)]
pub(crate) struct Taps(Vec<Tap>);

impl Taps {
    /// Whether there is none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one, and forgets those whose other end is gone.
    pub(crate) fn add(&mut self, tap: Tap) {
        self.0.retain(|tap| !tap.is_abandoned());
        self.0.push(tap);
    }

    /// Offers a frame to each.
    #[cold]
    pub(crate) fn show(&mut self, frame: &[u8], device: u8, direction: Direction, counters: &mut PortCounters) {
        self.0.retain_mut(|tap| {
            match tap.offer(frame, device, direction, now) {
                Offered::Other => {}
                Offered::Captured => counters.captured += 1,
                Offered::Lost => counters.capture_lost += 1,
            }
            !tap.is_abandoned()
        });
    }
}

/// Nanoseconds of CLOCK_MONOTONIC, by which frames of several shards and of the XDP program are put in order.
pub(crate) fn now() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// Nanoseconds of `clock`; 0 if there is no such clock.
pub(crate) fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
