//! Frames made in the kernel: `BPF_PROG_TEST_RUN` runs the flood's program on live frames, which it redirects to the
//! interface (Linux 5.18).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, TestRun, TestRunAttrs, TestRunOptions};
use nix::time::{ClockId, clock_gettime};
use tidegate_random::Random;
use tidegate_traffic_abi::{
    Flood, INPUT_LENGTH, MAP_FLOOD, MAP_PROGRESS, MAP_RANDOM, MAP_SCHEDULE, PROGRAM_FLOOD, Progress, Schedule, counter,
};

use crate::object::{self, Counters};
use crate::rate::Rate;

/// Frames the kernel makes before it hands them over; it takes 256 at most.
const BATCH: u32 = 64;

/// The time one call is meant to last. Before and after each, the kernel waits for all processors to have left the
/// programs they run, some 10 ms, in which nothing is sent; and a flood ends with its call.
const CALL: Duration = Duration::from_millis(200);

/// The runs of the program by the first call, and the fewest by any.
const MIN_RUNS: u32 = 16_384;

/// The most runs by a call: frames that are not due take some 50 ns.
const MAX_RUNS: u32 = 1 << 23;

/// The contents of each frame before the program has written it.
const INPUT: [u8; INPUT_LENGTH] = [0; INPUT_LENGTH];

/// The kernel's generator, set up for one flood.
pub(crate) struct LiveFrames {
    ebpf: Ebpf,
    counters: Arc<Counters>,
    /// The runs of the program by the next call.
    runs: u32,
}

impl LiveFrames {
    /// Loads the program for `flood`. `None` when this kernel has no live frames.
    ///
    /// # Errors
    ///
    /// The kernel refuses the program or its maps, or to run it.
    pub(crate) fn new(flood: &Flood, seed: u64) -> anyhow::Result<Option<Self>> {
        let mut ebpf = object::load()?;
        let counters = Arc::new(Counters::take(&mut ebpf)?);
        let mut random = Random::new(seed);
        object::set_per_cpu(&mut ebpf, MAP_RANDOM, || random.word())?;
        let program = object::load_program(&mut ebpf, PROGRAM_FLOOD)?;
        // Without a schedule the program drops what it runs on, so that nothing is sent by this.
        match run(program, 1) {
            Err(error) if is_missing(tidegate_runtime::errno(&error)) => return Ok(None),
            result => result.context("cannot run the flood's program (BPF_PROG_TEST_RUN)")?,
        }
        object::set_only_entry(&mut ebpf, MAP_FLOOD, *flood)?;
        Ok(Some(Self {
            ebpf,
            counters,
            runs: MIN_RUNS,
        }))
    }

    /// Has frames made from now on, for `duration`.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub(crate) fn begin(&mut self, rate: Rate, duration: Duration) -> anyhow::Result<()> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
        let start = Duration::from(now);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let schedule = Schedule {
            start: nanos(start),
            end: nanos(start + duration),
            interval: match rate {
                Rate::Pps(rate) => Schedule::interval_of(rate),
                Rate::Max => 0,
            },
        };
        object::set_per_cpu(&mut self.ebpf, MAP_PROGRESS, Progress::default)?;
        object::set_only_entry(&mut self.ebpf, MAP_SCHEDULE, schedule)
    }

    /// Makes and sends what is due, for about a fifth of a second, or less when a signal comes.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub(crate) fn send(&mut self) -> anyhow::Result<()> {
        let program = self.ebpf.program(PROGRAM_FLOOD);
        let program = program.with_context(|| format!("the program {PROGRAM_FLOOD} is gone"))?;
        let start = Instant::now();
        match run(<&Xdp>::try_from(program)?, self.runs) {
            Err(error) if tidegate_runtime::errno(&error) == Some(libc::EINTR) => Ok(()),
            result => {
                self.runs = next_runs(self.runs, start.elapsed());
                result.context("cannot make frames (BPF_PROG_TEST_RUN)")
            }
        }
    }

    /// Counts the frames made and sent. The interface may have had no room for some of them.
    pub(crate) fn counter(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

/// The runs of the program by the next call, if `runs` took `elapsed`.
fn next_runs(runs: u32, elapsed: Duration) -> u32 {
    let right = f64::from(runs) * (CALL.as_secs_f64() / elapsed.as_secs_f64().max(1e-6));
    // What was interrupted, or ran while nothing was due, says little: not more than four times as many at once.
    let most = runs.saturating_mul(4).min(MAX_RUNS);
    (right as u32).clamp(MIN_RUNS, most.max(MIN_RUNS))
}

/// Frames made and sent so far, by `counters`.
pub(crate) fn frames(counters: &Counters) -> u64 {
    counters.get(counter::FRAMES)
}

fn run(program: &Xdp, count: u32) -> Result<(), ProgramError> {
    program
        .test_run(TestRunOptions {
            data_in: Some(&INPUT),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        })
        .map(|_| ())
}

/// Whether this is what a kernel says that does not know live frames.
fn is_missing(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EINVAL | libc::EOPNOTSUPP | libc::E2BIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_become_as_long_as_they_are_meant_to_be() {
        assert_eq!(next_runs(MIN_RUNS, CALL), MIN_RUNS);
        assert_eq!(next_runs(100_000, CALL / 2), 200_000);
        assert_eq!(next_runs(100_000, CALL / 100), 400_000);
        assert_eq!(next_runs(100_000, CALL * 2), 50_000);
        assert_eq!(next_runs(MAX_RUNS, Duration::ZERO), MAX_RUNS);
        assert_eq!(next_runs(MIN_RUNS, Duration::from_secs(60)), MIN_RUNS);
    }

    #[test]
    fn only_a_kernel_without_live_frames_falls_back() {
        for errno in [libc::EINVAL, libc::EOPNOTSUPP] {
            assert!(is_missing(Some(errno)));
        }
        for errno in [libc::EPERM, libc::ENOMEM, libc::EINTR] {
            assert!(!is_missing(Some(errno)));
        }
        assert!(!is_missing(None));
    }
}
