//! Costs.

use core::ops::AddAssign;
use core::time::Duration;
use std::time::Instant;

use crate::count_allocations::allocations;
use crate::frames::Frames;

/// The cost of a number of operations for the side that is measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Time spent.
    pub time: Duration,
    /// Operations done: connections or requests, as the method that returned this says.
    pub operations: u64,
    /// Segments received and sent.
    pub segments: u64,
    /// Allocations made; counted only in programs whose allocator is [`crate::CountingAllocator`].
    pub allocations: u64,
}

impl Cost {
    /// The cost of `work` on `arrived` segments, with those it adds to `out`. No operation is counted.
    pub(crate) fn of(arrived: usize, out: &mut Frames, work: impl FnOnce(&mut Frames)) -> Self {
        let sent_before = out.len();
        let allocations_before = allocations();
        let begin = Instant::now();
        work(out);
        let time = begin.elapsed();
        Self {
            time,
            operations: 0,
            segments: (arrived + out.len() - sent_before) as u64,
            allocations: allocations() - allocations_before,
        }
    }

    /// Nanoseconds for each operation.
    pub fn nanos_each(&self) -> f64 {
        self.nanos() / self.operations as f64
    }

    /// Nanoseconds for each segment, received or sent.
    pub fn nanos_per_segment(&self) -> f64 {
        self.nanos() / self.segments as f64
    }

    /// Operations per second of the time spent.
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.time.as_secs_f64()
    }

    /// Allocations for each operation.
    pub fn allocations_each(&self) -> f64 {
        self.allocations as f64 / self.operations as f64
    }

    /// The time `operations` would have taken, for callers who asked for that many and got more.
    pub fn time_of(&self, operations: u64) -> Duration {
        scaled(self.time, operations, self.operations)
    }

    /// The time `segments` would have taken.
    pub fn time_of_segments(&self, segments: u64) -> Duration {
        scaled(self.time, segments, self.segments)
    }

    fn nanos(&self) -> f64 {
        self.time.as_nanos() as f64
    }
}

fn scaled(time: Duration, wanted: u64, done: u64) -> Duration {
    time.mul_f64(wanted as f64 / done.max(1) as f64)
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.time += other.time;
        self.operations += other.operations;
        self.segments += other.segments;
        self.allocations += other.allocations;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_the_sums() {
        let mut cost = Cost {
            time: Duration::from_micros(3),
            operations: 6,
            segments: 12,
            allocations: 3,
        };
        cost += cost;
        assert_eq!(cost.nanos_each(), 500.0);
        assert_eq!(cost.nanos_per_segment(), 250.0);
        assert_eq!(cost.per_second().round(), 2e6);
        assert_eq!(cost.allocations_each(), 0.5);
        assert_eq!(cost.time_of(2), Duration::from_micros(1));
        assert_eq!(cost.time_of_segments(4), Duration::from_micros(1));
    }

    #[test]
    fn segments_are_those_in_and_out() {
        let mut out = Frames::with_capacity(4);
        out.fill(1);
        let cost = Cost::of(5, &mut out, |out| {
            out.fill(1);
            out.fill(1);
        });
        assert_eq!((cost.segments, cost.operations), (7, 0));
    }
}
