//! `slow-read`, `zero-window` and `zero-one-window`: a request, and next to no room for its response.

use std::time::Duration;

use crate::peers::script::Script;

/// A peer that reads slowly, or not at all.
pub(in crate::peers) struct Reader {
    request: Vec<u8>,
    interval: Duration,
    /// The room at first, in octets.
    room: u32,
    /// Octets read in an interval.
    read: u32,
}

impl Reader {
    /// One with `room` for so many octets of the response to `request`, which reads so many of them in each interval.
    pub(in crate::peers) fn new(request: String, interval: Duration, room: u32, read: u32) -> Self {
        Self {
            request: request.into_bytes(),
            interval,
            room,
            read,
        }
    }
}

impl Script for Reader {
    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }

    fn request(&self) -> &[u8] {
        &self.request
    }

    fn room(&self) -> u32 {
        self.room
    }

    fn reads(&self) -> Option<u32> {
        Some(self.read)
    }
}
