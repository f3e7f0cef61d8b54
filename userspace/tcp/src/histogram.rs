//! Histograms of durations in buckets that are fixed: counting takes no search and no allocation.

/// Buckets of each power of two, as an exponent: with 4 of them a bucket is at most a quarter wider than where it
/// begins.
const SUB_BITS: u32 = 2;

/// The first power of two beyond all buckets, as an exponent: 2^30 microseconds are 18 minutes.
const LIMIT_BITS: u32 = 30;

/// The number of buckets. The first four are 0 to 3 microseconds.
pub const BUCKETS: usize = ((LIMIT_BITS - SUB_BITS + 1) << SUB_BITS) as usize;

/// Counted durations, in microseconds. Longer ones than [`Histogram::MAX_MICROS`] are in the last bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum: 0,
        }
    }
}

impl Histogram {
    /// The longest duration with a bucket of its own.
    pub const MAX_MICROS: u64 = (1 << LIMIT_BITS) - 1;

    /// Counts a duration.
    #[inline]
    pub fn record(&mut self, micros: u64) {
        self.buckets[index(micros)] += 1;
        self.sum = self.sum.wrapping_add(micros);
    }

    /// Adds all of `other`, for totals.
    pub fn merge(&mut self, other: &Self) {
        for (count, added) in self.buckets.iter_mut().zip(other.buckets) {
            *count = count.wrapping_add(added);
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Their sum, in microseconds.
    pub fn sum_micros(&self) -> u64 {
        self.sum
    }

    /// Every bucket: the first duration that is above it, in microseconds, and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (0..).zip(self.buckets).map(|(index, count)| (end(index), count))
    }
}

/// The latencies an engine measures where it looks at the time anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Round-trip times: every measurement that the retransmission timeout is taken from (RFC 6298; RFC 7323, section
    /// 4), that of the handshake included.
    pub rtt: Histogram,
    /// From a SYN's first SYN-ACK to the acknowledgment that made the connection ESTABLISHED. Those whose SYN was
    /// answered with a cookie are not among them: nothing is remembered of such a SYN.
    pub accept: Histogram,
}

impl Latencies {
    /// Adds all of `other`, for totals.
    pub fn merge(&mut self, other: &Self) {
        self.rtt.merge(&other.rtt);
        self.accept.merge(&other.accept);
    }
}

/// The bucket of a duration.
#[inline]
fn index(micros: u64) -> usize {
    // With at least SUB_BITS + 1 digits, the first one is that of the power of two.
    let micros = micros.min(Histogram::MAX_MICROS) as u32;
    let shift = (u32::BITS - (micros | (1 << SUB_BITS)).leading_zeros()) - (SUB_BITS + 1);
    ((shift << SUB_BITS) + (micros >> shift)) as usize
}

/// The first duration above bucket `index`.
fn end(index: u64) -> u64 {
    let next = index + 1;
    let shift = (next >> SUB_BITS).saturating_sub(1);
    (next - (shift << SUB_BITS)) << shift
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other_and_end_with_the_longest_duration() {
        let ends: Vec<u64> = Histogram::default().buckets().map(|(end, _)| end).collect();
        assert_eq!(ends[..10], [1, 2, 3, 4, 5, 6, 7, 8, 10, 12]);
        assert!(ends.is_sorted_by(|one, next| one < next));
        assert_eq!(ends.last(), Some(&(Histogram::MAX_MICROS + 1)));
    }

    #[test]
    fn histograms_are_added() {
        let mut sum = Histogram::default();
        sum.record(5);
        let mut other = Histogram::default();
        other.record(u64::MAX >> 1);
        (0..3).for_each(|_| other.record(0));
        sum.merge(&other);
        assert_eq!(sum.count(), 5);
        assert_eq!(sum.sum_micros(), 5 + (u64::MAX >> 1));
        let counts: Vec<_> = sum.buckets().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counts, [(1, 3), (6, 1), (Histogram::MAX_MICROS + 1, 1)]);
    }

    proptest! {
        #[test]
        fn a_duration_is_in_the_bucket_that_has_room_for_it(micros in 0..=Histogram::MAX_MICROS, shift in 0..30_u32) {
            let micros = micros >> shift;
            let mut histogram = Histogram::default();
            histogram.record(micros);
            let ends: Vec<u64> = histogram.buckets().map(|(end, _)| end).collect();
            let bucket = ends.iter().position(|&end| micros < end).expect("a bucket");
            prop_assert_eq!(histogram.buckets().nth(bucket), Some((ends[bucket], 1)));
            let start = bucket.checked_sub(1).map_or(0, |before| ends[before]);
            prop_assert!(ends[bucket] - start <= 1 + start / 4);
        }
    }
}
