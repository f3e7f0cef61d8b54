//! `tiny-mss`: a response in as many segments as can be, and acknowledgments that say something else of them each time.

use std::time::Duration;

use tidegate_random::Random;
use tidegate_tcp::wire::Options;

use crate::peers::script::Script;

/// The MSS, below which some servers do not go.
const MSS: u16 = 48;

/// The window and its scale: 8 MiB, so that much of a response can be outstanding.
const WINDOW: u32 = 0xffff << SCALE;
const SCALE: u8 = 7;

/// Octets that it acknowledges as they come, each segment for itself, for the server's congestion window to grow:
/// without, a handful of segments would be outstanding.
const WARM_UP: u32 = 512 * MSS as u32;

/// SACK blocks in each acknowledgment.
const BLOCKS: u32 = 4;

/// A peer with a tiny MSS.
pub(in crate::peers) struct TinyMss {
    request: Vec<u8>,
    interval: Duration,
    seed: u64,
}

impl TinyMss {
    /// One that sends an acknowledgment in each interval.
    pub(in crate::peers) fn new(request: String, interval: Duration, seed: u64) -> Self {
        Self {
            request: request.into_bytes(),
            interval,
            seed,
        }
    }
}

impl Script for TinyMss {
    fn syn_options(&self) -> Options {
        Options {
            mss: Some(MSS),
            window_scale: Some(SCALE),
            sack_permitted: true,
            ..Options::default()
        }
    }

    fn answers(&self, taken: u32) -> bool {
        taken < WARM_UP
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.interval)
    }

    fn request(&self) -> &[u8] {
        &self.request
    }

    fn room(&self) -> u32 {
        WINDOW
    }

    /// After the first, a segment in each interval: it makes progress, but nearly all remains outstanding.
    fn limit(&self, step: u32) -> u32 {
        WARM_UP.saturating_add(step.saturating_mul(u32::from(MSS)))
    }

    fn sack_blocks(&self, step: u32, taken: u32, seen: u32) -> Vec<(u32, u32)> {
        let mss = u32::from(MSS);
        // The first outstanding segment is never in one, and there is one more between two blocks.
        let segments = (seen - taken) / mss;
        let share = segments.saturating_sub(1) / BLOCKS;
        if share < 2 {
            return Vec::new();
        }
        let mut random = Random::new(self.seed ^ u64::from(step) << 32 ^ u64::from(taken));
        (0..BLOCKS)
            .map(|block| {
                let first = 1 + block * share + random.below(u64::from(share / 2)) as u32;
                let length = 1 + random.below(u64::from(share / 2)) as u32;
                (taken + first * mss, taken + (first + length) * mss)
            })
            .collect()
    }
}
