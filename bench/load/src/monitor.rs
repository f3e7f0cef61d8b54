//! The other side of the recorders: reduces their seconds, and shows how the run is getting on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::Plan;
use crate::phase::Phase;
use crate::progress::{INTERVAL, Progress, Tick};
use crate::recorder::{Board, Recorder};
use crate::series::{Collected, Collector, Histograms, Sample};

/// Seconds of a run beyond those of its plan, at most: opening, draining, and the short last second of each phase.
const OTHER_SECONDS: usize = 32;

/// Looks after the shards of a run.
#[derive(Debug)]
pub(crate) struct Monitor {
    progress: Progress,
    unit: &'static str,
    samples: Receiver<Sample>,
    /// To each shard.
    spares: Vec<Sender<Histograms>>,
    boards: Vec<Arc<Board>>,
    collector: Collector,
    start: Instant,
    /// The time at which the rate was last shown, and the number of steps then.
    last: (Duration, u64),
}

impl Monitor {
    /// A monitor, with a recorder for each of `shards`.
    pub(crate) fn new(plan: &Plan, progress: &Progress, shards: usize) -> (Self, Vec<Recorder>) {
        let (sender, samples) = channel();
        let mut monitor = Self {
            progress: progress.clone(),
            unit: plan.workload.unit(),
            samples,
            spares: Vec::new(),
            boards: Vec::new(),
            collector: Collector::new(shards, plan.total().as_secs() as usize + OTHER_SECONDS),
            start: Instant::now(),
            last: (Duration::ZERO, 0),
        };
        let recorder = |shard| {
            let (give_back, spares) = channel();
            let board = Arc::<Board>::default();
            monitor.spares.push(give_back);
            monitor.boards.push(Arc::clone(&board));
            Recorder::new(shard, sender.clone(), spares, board, progress.stop_flag())
        };
        let recorders = (0..shards).map(recorder).collect();
        (monitor, recorders)
    }

    /// The number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.boards.len()
    }

    /// Waits for [`INTERVAL`] at most, reduces a second if there is one, and shows the present state. False if there
    /// are no recorders any more.
    pub(crate) fn look(&mut self) -> bool {
        let goes_on = match self.samples.recv_timeout(INTERVAL) {
            Ok(sample) => {
                self.add(sample);
                true
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
        };
        self.show();
        goes_on
    }

    /// Ends it, when all recorders have handed over their last second.
    pub(crate) fn finish(mut self) -> Collected {
        while let Ok(sample) = self.samples.try_recv() {
            self.add(sample);
        }
        self.progress.finish();
        self.collector.finish()
    }

    fn add(&mut self, sample: Sample) {
        let Self {
            collector,
            spares,
            progress,
            ..
        } = self;
        let give_back = |shard: usize, histograms| {
            // The shard may be through.
            let _ = spares[shard].send(histograms);
        };
        collector.add(sample, give_back, |snapshot| progress.second(snapshot));
    }

    fn show(&mut self) {
        let elapsed = self.start.elapsed();
        let interval = elapsed.saturating_sub(self.last.0);
        if interval < INTERVAL {
            return;
        }
        let boards = self.boards.iter();
        let steps: u64 = boards.map(|board| board.steps.load(Ordering::Relaxed)).sum();
        self.progress.tick(&Tick {
            elapsed,
            // Some may be ahead of others.
            phase: self
                .boards
                .iter()
                .map(|board| board.phase())
                .min()
                .unwrap_or(Phase::Initial),
            per_second: steps.saturating_sub(self.last.1) as f64 / interval.as_secs_f64(),
            unit: self.unit,
            open: self.boards.iter().map(|board| board.open.load(Ordering::Relaxed)).sum(),
        });
        self.last = (elapsed, steps);
    }
}
