//! The number of frames that wait in the fill ring.
//!
//! The ring is a queue: a frame is written again only after all the others in it were. With few of them, what the
//! kernel copies a packet to is still in the cache of its core and in its table of pages; with thousands it never is.
//! So few wait while few are used up between two turns of the shard, and more as soon as more may be needed.

/// The smallest level, where the limits allow so many.
const MIN_LEVEL: u32 = 512;

/// Frames received before the level may sink.
const PERIOD: u32 = 1 << 16;

/// The number of frames to wait, between a few and the ring's limit.
#[derive(Debug)]
pub(super) struct FillLevel {
    level: u32,
    min: u32,
    max: u32,
    /// The most frames found received at a time in this period.
    peak: u32,
    /// Frames received in this period.
    received: u32,
}

impl FillLevel {
    /// Starts at the smallest level, for at most `max` frames. In zero-copy mode the level is always `max`: the device
    /// takes its own ring's worth of them in advance.
    pub(super) fn new(max: u32, zero_copy: bool) -> Self {
        let min = if zero_copy { max } else { max.min(MIN_LEVEL) };
        Self {
            level: min,
            min,
            max,
            peak: 0,
            received: 0,
        }
    }

    /// Frames that are to wait.
    #[inline]
    pub(super) fn get(&self) -> u32 {
        self.level
    }

    /// `taken` frames were taken out of the RX ring, and `waiting` are left in it.
    #[inline]
    pub(super) fn note(&mut self, taken: u32, waiting: u32) {
        let found = taken + waiting;
        self.peak = self.peak.max(found);
        if found > self.level / 2 {
            self.level = (self.level * 2).min(self.max);
        }
        self.received = self.received.saturating_add(taken);
        if self.received >= PERIOD {
            if self.peak < self.level / 8 {
                self.level = (self.level / 2).max(self.min);
            }
            (self.peak, self.received) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_at_once_and_sinks_slowly() {
        let mut level = FillLevel::new(4096, false);
        assert_eq!(level.get(), MIN_LEVEL);
        level.note(64, 192);
        assert_eq!(level.get(), MIN_LEVEL, "half of them were left");
        level.note(64, 193);
        assert_eq!(level.get(), 1024);
        for _ in 0..10 {
            level.note(64, 4000);
        }
        assert_eq!(level.get(), 4096, "the limit");
        // The period with the rise does not count.
        let periods = |level: &mut FillLevel, count: u32| {
            for _ in 0..count * PERIOD / 64 {
                level.note(64, 0);
            }
        };
        periods(&mut level, 1);
        assert_eq!(level.get(), 4096);
        periods(&mut level, 1);
        assert_eq!(level.get(), 2048);
        periods(&mut level, 5);
        assert_eq!(level.get(), 512, "what is used up at a time is an eighth of it");
    }

    #[test]
    fn stays_within_its_limits() {
        let mut small = FillLevel::new(128, false);
        for _ in 0..PERIOD {
            small.note(64, 64);
            assert_eq!(small.get(), 128);
        }
        let mut device = FillLevel::new(4096, true);
        for _ in 0..2 * PERIOD {
            device.note(1, 0);
            assert_eq!(device.get(), 4096);
        }
    }
}
