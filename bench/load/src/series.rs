//! The course of a run: what happened in each second of it, and the latencies of all that count.

use std::collections::BTreeMap;
use std::time::Duration;

use procfs::process::Process;
use tidegate_report::{Latencies, Quantiles};

use crate::errors::{Errors, Kind};
use crate::phase::Phase;

/// Seconds that may wait for shards that are behind.
const MAX_PENDING: usize = 3;

/// A second of a run. The last second of a phase is shorter, or longer if the client was too busy to look at the clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The phase, which a second never goes beyond.
    pub phase: Phase,
    /// The time since the beginning of the run.
    pub start: Duration,
    /// How long it took.
    pub length: Duration,
    /// Operations, as the workload counts them; while [`Workload::Hold`](crate::Workload::Hold) opens its connections,
    /// these.
    pub operations: u64,
    /// Errors.
    pub errors: u64,
    /// Latencies of requests; `None` if there were none.
    pub latency: Option<Quantiles>,
    /// Connections that were established.
    pub connects: u64,
    /// Connections with something to do, at the end of the second.
    pub open: u32,
    /// The mean of the same over the second.
    pub open_mean: f64,
    /// The highest of the same; of several shards, the sum of theirs.
    pub open_max: u32,
    /// The client's resident memory in bytes, if the kernel says it.
    pub resident: Option<u64>,
}

impl Point {
    /// Operations in a second.
    pub fn per_second(&self) -> f64 {
        if self.length.is_zero() {
            0.0
        } else {
            self.operations as f64 / self.length.as_secs_f64()
        }
    }
}

/// Connections that were really open, while it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenConnections {
    /// The highest number; of several shards, at most this.
    pub max: u32,
    /// The number at the end.
    pub at_end: u32,
}

/// The latencies that are recorded at present.
#[derive(Debug)]
pub(crate) struct Histograms {
    pub(crate) latency: Latencies,
    pub(crate) connect: Latencies,
    /// Of the responses that came in parts: until the first byte, and until the last.
    pub(crate) parts: (Latencies, Latencies),
}

impl Histograms {
    pub(crate) fn new() -> Self {
        Self {
            latency: Latencies::new(),
            connect: Latencies::new(),
            parts: Default::default(),
        }
    }

    fn merge(&mut self, other: &Self) {
        for (own, more) in [
            (&mut self.latency, &other.latency),
            (&mut self.connect, &other.connect),
            (&mut self.parts.0, &other.parts.0),
            (&mut self.parts.1, &other.parts.1),
        ] {
            if !more.is_empty() {
                own.merge(more);
            }
        }
    }

    fn clear(&mut self) {
        let (first, last) = &mut self.parts;
        for latencies in [&mut self.latency, &mut self.connect, first, last] {
            if !latencies.is_empty() {
                latencies.clear();
            }
        }
    }
}

/// A second of one shard.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) shard: usize,
    pub(crate) phase: Phase,
    /// The number of the second within its phase.
    pub(crate) second: u64,
    pub(crate) start: Duration,
    pub(crate) length: Duration,
    pub(crate) is_counted: bool,
    pub(crate) operations: u64,
    pub(crate) errors: [u64; Kind::ALL.len()],
    pub(crate) open: u32,
    pub(crate) open_mean: f64,
    pub(crate) open_max: u32,
    pub(crate) histograms: Histograms,
}

/// A second of which some shards have told.
#[derive(Debug)]
struct Pending {
    /// Its histograms are those of the shard that told first, and go back to it.
    sum: Sample,
    shards: usize,
}

/// The state of a run after a second of it.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// The seconds so far; the last is the one that has just passed.
    pub series: &'a [Point],
    /// Latencies of connecting in the last second.
    pub connect: &'a Latencies,
    /// Latencies of requests that count, so far.
    pub latency_so_far: &'a Latencies,
    /// Latencies of connecting that count, so far.
    pub connect_so_far: &'a Latencies,
    /// Errors of all phases, so far.
    pub errors: &'a Errors,
}

/// Everything that the samples of a run come to.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) latency: Latencies,
    pub(crate) connect: Latencies,
    parts: (Latencies, Latencies),
    pub(crate) series: Vec<Point>,
    pub(crate) open: OpenConnections,
}

impl Collected {
    /// Returns the times until the first byte of all responses whose latency counts. Where a response came in one
    /// piece it is that of its last byte.
    pub(crate) fn first_byte(&self) -> Latencies {
        let (first, last) = &self.parts;
        let mut all = self.latency.clone();
        all.subtract(last);
        all.merge(first);
        all
    }
}

/// Puts the samples of all shards together.
#[derive(Debug)]
pub(crate) struct Collector {
    shards: usize,
    pending: BTreeMap<(Phase, u64), Pending>,
    total: Histograms,
    series: Vec<Point>,
    open: OpenConnections,
    errors: Errors,
}

impl Collector {
    /// For so many shards, and a run of about `seconds`.
    pub(crate) fn new(shards: usize, seconds: usize) -> Self {
        Self {
            shards,
            pending: BTreeMap::new(),
            total: Histograms::new(),
            series: Vec::with_capacity(seconds),
            open: OpenConnections::default(),
            errors: Errors::default(),
        }
    }

    /// Adds a sample. `give_back` is told of histograms that are empty again, and of the shard they belong to; `tell`,
    /// of each second that is complete.
    pub(crate) fn add(
        &mut self,
        mut sample: Sample,
        mut give_back: impl FnMut(usize, Histograms),
        mut tell: impl FnMut(&Snapshot<'_>),
    ) {
        if sample.is_counted {
            self.total.merge(&sample.histograms);
        }
        let key = (sample.phase, sample.second);
        match self.pending.get_mut(&key) {
            None => {
                self.pending.insert(key, Pending { sum: sample, shards: 1 });
            }
            Some(Pending { sum, shards }) => {
                *shards += 1;
                sum.start = sum.start.min(sample.start);
                sum.length = sum.length.max(sample.length);
                sum.operations += sample.operations;
                for (count, more) in sum.errors.iter_mut().zip(sample.errors) {
                    *count += more;
                }
                sum.open += sample.open;
                sum.open_mean += sample.open_mean;
                sum.open_max += sample.open_max;
                sum.histograms.merge(&sample.histograms);
                sample.histograms.clear();
                give_back(sample.shard, sample.histograms);
            }
        }
        while let Some(first) = self.pending.first_entry()
            && (first.get().shards == self.shards || self.pending.len() > MAX_PENDING)
        {
            self.complete(&mut give_back, &mut tell);
        }
    }

    /// Reduces the earliest second that is pending to its figures. False if there is none.
    fn complete(
        &mut self,
        give_back: &mut impl FnMut(usize, Histograms),
        tell: &mut impl FnMut(&Snapshot<'_>),
    ) -> bool {
        let Some((_, Pending { mut sum, .. })) = self.pending.pop_first() else {
            return false;
        };
        self.errors.add_counts(&sum.errors);
        if sum.is_counted {
            self.open.max = self.open.max.max(sum.open_max);
        }
        if sum.phase == Phase::Sustain {
            self.open.at_end = sum.open;
        }
        self.series.push(Point {
            phase: sum.phase,
            start: sum.start,
            length: sum.length,
            operations: sum.operations,
            errors: sum.errors.iter().sum(),
            latency: sum.histograms.latency.quantiles(),
            connects: sum.histograms.connect.len(),
            open: sum.open,
            open_mean: sum.open_mean,
            open_max: sum.open_max,
            resident: resident(),
        });
        tell(&Snapshot {
            series: &self.series,
            connect: &sum.histograms.connect,
            latency_so_far: &self.total.latency,
            connect_so_far: &self.total.connect,
            errors: &self.errors,
        });
        sum.histograms.clear();
        give_back(sum.shard, sum.histograms);
        true
    }

    /// Ends it.
    pub(crate) fn finish(mut self) -> Collected {
        while self.complete(&mut |_, _| {}, &mut |_| {}) {}
        // A shard that was behind told of its second when the others had gone on.
        self.series.sort_by_key(|point| point.start);
        Collected {
            latency: self.total.latency,
            connect: self.total.connect,
            parts: self.total.parts,
            series: self.series,
            open: self.open,
        }
    }
}

/// The resident memory of this process in bytes.
fn resident() -> Option<u64> {
    let statm = Process::myself().and_then(|process| process.statm()).ok()?;
    Some(statm.resident * procfs::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sample(shard: usize, phase: Phase, second: u64, latency_ms: u64) -> Sample {
        let mut histograms = Histograms::new();
        histograms.latency.record(Duration::from_millis(latency_ms));
        histograms.connect.record(Duration::from_millis(latency_ms));
        let mut errors = [0; Kind::ALL.len()];
        errors[Kind::Reset as usize] = 1;
        Sample {
            shard,
            phase,
            second,
            start: SECOND * second as u32,
            length: SECOND,
            is_counted: phase.is_counted(),
            operations: 10,
            errors,
            open: 3,
            open_mean: 2.5,
            open_max: 4,
            histograms,
        }
    }

    #[test]
    fn the_first_byte_of_a_response_in_one_piece_is_its_last() {
        let millis = Duration::from_millis;
        let mut collector = Collector::new(2, 8);
        for shard in 0..2 {
            let mut sample = sample(shard, Phase::Sustain, 0, 5);
            for (first, last) in [(1, 9), (7, 7), (2, 300_000)] {
                sample.histograms.latency.record(millis(last));
                if first < last {
                    sample.histograms.parts.0.record(millis(first));
                    sample.histograms.parts.1.record(millis(last));
                }
            }
            collector.add(
                sample,
                |_, histograms| assert!(histograms.parts.0.is_empty() && histograms.parts.1.is_empty()),
                |_| {},
            );
        }
        let collected = collector.finish();
        let found = collected.first_byte().quantiles().unwrap();
        assert_eq!((found.count, found.p50.round()), (8, 2_001.0));
        assert!((found.max - 7_000.0).abs() < 7.0, "{found:?}");
        // Two minutes are the longest that is told apart.
        assert!(collected.latency.quantiles().unwrap().max > 100e6);
    }

    #[test]
    fn shards_are_put_together_second_by_second() {
        let mut collector = Collector::new(2, 8);
        let mut told = 0;
        let samples = [
            sample(0, Phase::WarmUp, 0, 1),
            sample(1, Phase::WarmUp, 0, 9),
            sample(0, Phase::Sustain, 0, 2),
            sample(0, Phase::Sustain, 1, 4),
            sample(1, Phase::Sustain, 0, 3),
        ];
        for sample in samples {
            collector.add(
                sample,
                |_, histograms| assert!(histograms.latency.is_empty() && histograms.connect.is_empty()),
                |snapshot| {
                    told += 1;
                    assert_eq!(snapshot.series.len(), told);
                    assert_eq!(snapshot.errors.iter().collect::<Vec<_>>(), [("reset", 2 * told as u64)]);
                },
            );
        }
        assert_eq!(told, 2);
        let found = collector.finish();
        // The last second is known of one shard only.
        let points: Vec<_> = found
            .series
            .iter()
            .map(|point| {
                (
                    point.phase,
                    point.operations,
                    point.open,
                    point.open_mean,
                    point.open_max,
                )
            })
            .collect();
        assert_eq!(
            points,
            [
                (Phase::WarmUp, 20, 6, 5.0, 8),
                (Phase::Sustain, 20, 6, 5.0, 8),
                (Phase::Sustain, 10, 3, 2.5, 4)
            ]
        );
        let quantiles = found.series[0].latency.unwrap();
        assert_eq!((quantiles.count, (quantiles.max / 1e3).round()), (2, 9.0));
        // The warm-up does not count.
        assert_eq!((found.latency.len(), found.connect.len()), (3, 3));
        assert_eq!(found.open, OpenConnections { max: 8, at_end: 3 });
        assert!(found.series[0].resident.is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn a_shard_that_is_behind_does_not_make_the_others_wait_and_loses_nothing() {
        let mut collector = Collector::new(2, 8);
        for second in 0..8 {
            collector.add(sample(0, Phase::Sustain, second, 1), |_, _| {}, |_| {});
        }
        assert!(collector.pending.len() <= MAX_PENDING);
        for second in 0..8 {
            collector.add(sample(1, Phase::Sustain, second, 1), |_, _| {}, |_| {});
        }
        let found = collector.finish();
        assert_eq!(found.latency.len(), 16);
        assert_eq!(found.series.iter().map(|point| point.operations).sum::<u64>(), 160);
        assert!(found.series.is_sorted_by_key(|point| point.start));
    }

    #[test]
    fn histograms_are_used_again_however_long_a_run_is() {
        let mut collector = Collector::new(1, 1_900);
        let mut spares = vec![Histograms::new()];
        let capacity = collector.series.capacity();
        for second in 0..1_900 {
            let histograms = spares.pop().expect("it came back after the last second");
            let sample = Sample {
                histograms,
                ..sample(0, Phase::Sustain, second, 1)
            };
            collector.add(sample, |_, histograms| spares.push(histograms), |_| {});
            assert_eq!((spares.len(), collector.pending.len()), (1, 0));
        }
        assert_eq!(collector.series.capacity(), capacity);
    }
}
