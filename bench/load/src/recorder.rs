//! The clock of one shard: cuts what its statistics gather into seconds, and hands these over to be reduced elsewhere,
//! so that the shard loses no time with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use tidegate_tcp::time::Instant;

use crate::errors::Kind;
use crate::phase::Phase;
use crate::series::{Histograms, Sample};
use crate::stats::Stats;

/// The length of a second, as it is written down.
const SECOND: Duration = Duration::from_secs(1);

/// Histograms that a shard may have given away without one coming back, before its second goes on for longer.
const MAX_LENT: usize = 8;

/// The state of a shard, for whoever looks at any time.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// The steps that the shown rate counts.
    pub(crate) steps: AtomicU64,
    /// Connections with something to do.
    pub(crate) open: AtomicU32,
    /// The index of the phase.
    phase: AtomicUsize,
}

impl Board {
    /// The phase of the shard's last turn.
    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[self.phase.load(Ordering::Relaxed)]
    }
}

/// The recorder of one shard.
#[derive(Debug)]
pub(crate) struct Recorder {
    shard: usize,
    samples: Sender<Sample>,
    /// Histograms that are empty again.
    spares: Receiver<Histograms>,
    lent: usize,
    board: Arc<Board>,
    stop: Arc<AtomicBool>,
    current: Option<Current>,
}

/// The present second.
#[derive(Debug)]
struct Current {
    /// The first turn of all.
    start: Instant,
    phase: Phase,
    /// The first turn of the phase.
    phase_start: Instant,
    since: Instant,
    until: Instant,
    /// The last turn, and the connections that were open then.
    last: Instant,
    open: u32,
    /// The integral of open connections over time in microseconds.
    open_micros: u64,
    open_max: u32,
    /// Steps and errors when it began.
    steps: u64,
    errors: [u64; Kind::ALL.len()],
}

impl Recorder {
    /// The recorder of a shard that ends its run early when `stop` is set.
    pub(crate) fn new(
        shard: usize,
        samples: Sender<Sample>,
        spares: Receiver<Histograms>,
        board: Arc<Board>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            shard,
            samples,
            spares,
            lent: 0,
            board,
            stop,
            current: None,
        }
    }

    /// Whether the run is to end early.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The end of the present second.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.current.as_ref().map(|current| current.until)
    }

    /// Writes down what there is at `now`, in the phase that begins, or goes on. All that `stats` has gathered since
    /// the last call belongs to the phase of that call.
    pub(crate) fn turn(&mut self, now: Instant, phase: Phase, stats: &mut Stats, open: u32) {
        let Some(current) = &mut self.current else {
            self.current = Some(Current::new(now, phase, stats, open));
            self.publish(phase, stats, open);
            return;
        };
        current.look(now, open);
        if phase != current.phase {
            self.hand_over(now, stats, true);
            if let Some(current) = &mut self.current {
                (current.phase, current.phase_start) = (phase, now);
                current.begin(now, stats);
            }
        } else if now >= current.until
            && self.hand_over(now, stats, false)
            && let Some(current) = &mut self.current
        {
            current.begin(now, stats);
        }
        self.publish(phase, stats, open);
    }

    /// Writes down the last of it.
    pub(crate) fn finish(&mut self, now: Instant, stats: &mut Stats, open: u32) {
        if let Some(current) = &mut self.current {
            current.look(now, open);
            self.hand_over(now, stats, true);
            self.current = None;
        }
    }

    fn publish(&self, phase: Phase, stats: &Stats, open: u32) {
        self.board.steps.store(stats.steps(), Ordering::Relaxed);
        self.board.open.store(open, Ordering::Relaxed);
        self.board.phase.store(phase as usize, Ordering::Relaxed);
    }

    /// Hands the present second over. False if it has to go on, because too many are still being reduced.
    fn hand_over(&mut self, now: Instant, stats: &mut Stats, is_last: bool) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let length = now.since(current.since);
        let operations = stats.steps().saturating_sub(current.steps);
        let errors = stats.errors_in_all();
        let errors = std::array::from_fn(|kind| errors[kind].saturating_sub(current.errors[kind]));
        let is_empty = operations == 0 && stats.latency.is_empty() && stats.connect.is_empty();
        if length.is_zero() && is_empty && errors.iter().all(|&count: &u64| count == 0) {
            return true;
        }
        let spare = match self.spares.try_recv() {
            Ok(spare) => spare,
            Err(_) if is_last || self.lent < MAX_LENT => {
                self.lent += 1;
                Histograms::new()
            }
            Err(_) => return false,
        };
        let sample = Sample {
            shard: self.shard,
            phase: current.phase,
            second: current.since.since(current.phase_start).as_secs(),
            start: current.since.since(current.start),
            length,
            is_counted: stats.counts_all() || current.phase.is_counted(),
            operations,
            errors,
            open: current.open,
            open_mean: match length.as_micros() {
                0 => f64::from(current.open),
                micros => current.open_micros as f64 / micros as f64,
            },
            open_max: current.open_max,
            histograms: stats.take_latencies(spare),
        };
        // Nobody listens any more if the run has failed.
        let _ = self.samples.send(sample);
        true
    }
}

impl Current {
    fn new(now: Instant, phase: Phase, stats: &Stats, open: u32) -> Self {
        let mut current = Self {
            start: now,
            phase,
            phase_start: now,
            since: now,
            until: now,
            last: now,
            open,
            open_micros: 0,
            open_max: open,
            steps: 0,
            errors: [0; Kind::ALL.len()],
        };
        current.begin(now, stats);
        current
    }

    /// A second begins.
    fn begin(&mut self, now: Instant, stats: &Stats) {
        let whole = now.since(self.phase_start).as_secs();
        self.since = now;
        self.until = self.phase_start + SECOND * u32::try_from(whole + 1).unwrap_or(u32::MAX);
        self.open_micros = 0;
        self.open_max = self.open;
        self.steps = stats.steps();
        self.errors = stats.errors_in_all();
    }

    fn look(&mut self, now: Instant, open: u32) {
        self.open_micros += u64::from(self.open) * now.micros_since(self.last);
        self.last = now;
        self.open = open;
        self.open_max = self.open_max.max(open);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(5_000 + millis)
    }

    fn recorder() -> (Recorder, Receiver<Sample>, Sender<Histograms>) {
        let (samples, handed_over) = channel();
        let (give_back, spares) = channel();
        let recorder = Recorder::new(3, samples, spares, Arc::default(), Arc::default());
        (recorder, handed_over, give_back)
    }

    #[test]
    fn a_second_belongs_to_one_phase_and_has_what_happened_in_it() {
        let (mut recorder, samples, _give_back) = recorder();
        let mut stats = Stats::new();
        recorder.turn(at(0), Phase::WarmUp, &mut stats, 0);
        stats.count(5);
        stats.latency(SECOND);
        stats.error(Kind::Reset, "reset");
        recorder.turn(at(500), Phase::WarmUp, &mut stats, 4);
        assert!(samples.try_recv().is_err());
        recorder.turn(at(1_000), Phase::WarmUp, &mut stats, 2);
        stats.count(1);
        stats.begin_measuring();
        recorder.turn(at(1_300), Phase::Sustain, &mut stats, 2);
        stats.count(7);
        stats.connected(SECOND);
        recorder.finish(at(1_400), &mut stats, 1);

        let found: Vec<Sample> = samples.try_iter().collect();
        let times: Vec<_> = found
            .iter()
            .map(|sample| {
                (
                    sample.phase,
                    sample.second,
                    sample.start.as_millis(),
                    sample.length.as_millis(),
                )
            })
            .collect();
        assert_eq!(
            times,
            [
                (Phase::WarmUp, 0, 0, 1_000),
                (Phase::WarmUp, 1, 1_000, 300),
                (Phase::Sustain, 0, 1_300, 100)
            ]
        );
        let counts: Vec<_> = found
            .iter()
            .map(|sample| {
                let histograms = &sample.histograms;
                let errors: u64 = sample.errors.iter().sum();
                (
                    sample.operations,
                    errors,
                    histograms.latency.len(),
                    histograms.connect.len(),
                )
            })
            .collect();
        assert_eq!(counts, [(5, 1, 1, 0), (1, 0, 0, 0), (7, 0, 0, 1)]);
        let open: Vec<_> = found
            .iter()
            .map(|sample| (sample.open, sample.open_mean, sample.open_max, sample.is_counted))
            .collect();
        assert_eq!(open, [(2, 2.0, 4, false), (2, 2.0, 2, false), (1, 2.0, 2, true)]);
        assert!(found.iter().all(|sample| sample.shard == 3));
    }

    #[test]
    fn a_second_goes_on_while_too_many_are_being_reduced() {
        let (mut recorder, samples, give_back) = recorder();
        let mut stats = Stats::new();
        for second in 0..20 {
            stats.count(1);
            recorder.turn(at(second * 1_000), Phase::Sustain, &mut stats, 1);
        }
        let found: Vec<Sample> = samples.try_iter().collect();
        assert_eq!(found.len(), MAX_LENT);
        give_back.send(Histograms::new()).unwrap();
        recorder.turn(at(19_500), Phase::Sustain, &mut stats, 1);
        let next = samples.try_recv().unwrap();
        assert_eq!((next.second, next.length.as_millis(), next.operations), (8, 11_500, 11));
        // The end of a phase does not wait.
        recorder.turn(at(19_600), Phase::Drain, &mut stats, 1);
        assert_eq!(samples.try_iter().count(), 1);
    }
}
