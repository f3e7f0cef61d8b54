//! `slow-head`: an HTTP head that comes an octet at a time, and has no end.

use std::time::Duration;

use crate::peers::script::Script;

/// The fields that follow the first, again and again.
const FIELD: &[u8] = b"X-Slow: 1\r\n";

/// A peer that trickles.
pub(in crate::peers) struct SlowHead {
    /// The request line and the first field.
    begin: Vec<u8>,
    interval: Duration,
}

impl SlowHead {
    /// One that sends an octet of `request` in each interval, without the empty line at its end.
    pub(in crate::peers) fn new(request: &str, interval: Duration) -> Self {
        let begin = request.strip_suffix("\r\n").unwrap_or(request);
        Self {
            begin: begin.as_bytes().to_vec(),
            interval,
        }
    }
}

impl Script for SlowHead {
    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }

    fn said(&self, step: u32) -> u32 {
        step + 1
    }

    fn octet(&self, index: u32) -> u8 {
        let index = index as usize;
        match self.begin.get(index) {
            Some(&octet) => octet,
            None => FIELD[(index - self.begin.len()) % FIELD.len()],
        }
    }
}
