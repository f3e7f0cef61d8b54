//! Processor time while something is measured, by core and by kind, and frames that pass the server's interface.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use tidegate_lab::Cores;
use tidegate_lab::arrangement::SERVER_DEVICE;
use tidegate_lab::machine::{self, CoreTime, TICK};
use tidegate_lab::{Lab, Place};

/// Between two samples. It is long enough to cost nothing and short enough to find the begin and the end of a load.
const INTERVAL: Duration = Duration::from_millis(50);

/// The part of the busiest frame rate above which an interval belongs to the load.
const BUSY: f64 = 0.5;

/// Time on one core by kind, in microseconds per second or per operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Parts {
    /// In processes.
    pub(super) user: f64,
    /// In the kernel on behalf of processes, and in kernel threads.
    pub(super) system: f64,
    /// In interrupts.
    pub(super) irq: f64,
    /// In soft interrupts: NAPI, and with it XDP and the receiving side of the kernel's TCP.
    pub(super) softirq: f64,
}

impl Parts {
    /// All of it.
    pub(super) fn total(self) -> f64 {
        self.user + self.system + self.irq + self.softirq
    }

    fn scaled(self, factor: f64) -> Self {
        Self {
            user: self.user * factor,
            system: self.system * factor,
            irq: self.irq * factor,
            softirq: self.softirq * factor,
        }
    }
}

/// Processor time, in microseconds per second or per operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// The client's core.
    pub(super) client: Parts,
    /// The server's core; nothing if it is the client's.
    pub(super) server: Parts,
    /// The server's processes, in user mode and in the kernel; these are parts of the above.
    pub(super) process: Option<[f64; 2]>,
}

impl Usage {
    /// Of both cores.
    pub(super) fn total(self) -> f64 {
        self.client.total() + self.server.total()
    }

    /// Returns the time per operation, at so many operations in a second.
    pub(super) fn per_operation(self, operations_per_s: f64) -> Self {
        let factor = if operations_per_s > 0.0 {
            1.0 / operations_per_s
        } else {
            0.0
        };
        Self {
            client: self.client.scaled(factor),
            server: self.server.scaled(factor),
            process: self.process.map(|[user, system]| [user * factor, system * factor]),
        }
    }
}

/// Rates while something ran.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Observed {
    /// Per second.
    pub(super) usage: Usage,
    /// Frames per second that the server's interface received and sent.
    pub(super) interface_frames_per_s: f64,
}

/// Time by kind between two moments that are `seconds` apart.
fn parts(now: CoreTime, earlier: CoreTime, seconds: f64) -> Parts {
    let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 * TICK.as_micros() as f64 / seconds;
    Parts {
        user: per_second(now.user, earlier.user),
        system: per_second(now.system, earlier.system),
        irq: per_second(now.irq, earlier.irq),
        softirq: per_second(now.softirq, earlier.softirq),
    }
}

/// All counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    client: CoreTime,
    server: CoreTime,
    /// User mode and kernel.
    process: Option<[Duration; 2]>,
    frames: u64,
}

impl Sample {
    fn take(cores: Cores, process: Option<u32>) -> anyhow::Result<Self> {
        let [client, mut server] = CoreTime::of([cores.client, cores.server])?;
        if cores.server == cores.client {
            server = CoreTime::default();
        }
        let frames = machine::device_counts(SERVER_DEVICE)?;
        Ok(Self {
            at: Instant::now(),
            client,
            server,
            process: process.map(machine::processor_time),
            frames: frames.received + frames.sent,
        })
    }
}

/// Runs `work` on the calling thread while another one looks at the counters. What was seen is `None` when that was too
/// short to see anything.
///
/// # Errors
///
/// `work` fails, or the kernel does not tell its counters.
pub(super) fn watch<T>(
    lab: &Lab,
    cores: Cores,
    process: Option<u32>,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Option<Observed>)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let samples = scope.spawn(|| lab.inside(Place::Server, || collect(cores, process, &stop)));
        let result = {
            // Whatever happens, the other thread has an end.
            let _end = SetOnDrop(&stop);
            work()
        };
        let samples = samples
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the thread that reads the counters panicked")));
        Ok((result?, observed(&samples?)))
    })
}

/// Sets a flag when it is dropped.
pub(super) struct SetOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn collect(cores: Cores, process: Option<u32>, stop: &AtomicBool) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        samples.push(Sample::take(cores, process)?);
        thread::sleep(INTERVAL);
    }
    Ok(samples)
}

/// Returns the rates from the first to the last sample of the load.
fn observed(samples: &[Sample]) -> Option<Observed> {
    let (first, last) = busy(samples)?;
    let seconds = (last.at - first.at).as_secs_f64();
    let process = match (first.process, last.process) {
        (Some(then), Some(now)) => {
            let per_second = |index: usize| now[index].saturating_sub(then[index]).as_secs_f64() * 1e6 / seconds;
            Some([per_second(0), per_second(1)])
        }
        _ => None,
    };
    Some(Observed {
        usage: Usage {
            client: parts(last.client, first.client, seconds),
            server: parts(last.server, first.server, seconds),
            process,
        },
        interface_frames_per_s: last.frames.saturating_sub(first.frames) as f64 / seconds,
    })
}

/// The ends of the longest stretch in which frames pass at half the highest rate or more. A client sets up and clears
/// up around its load, which is not to count.
fn busy(samples: &[Sample]) -> Option<(&Sample, &Sample)> {
    let rates: Vec<f64> = samples
        .windows(2)
        .map(|pair| {
            let seconds = (pair[1].at - pair[0].at).as_secs_f64();
            let frames = pair[1].frames.saturating_sub(pair[0].frames) as f64;
            if seconds > 0.0 { frames / seconds } else { 0.0 }
        })
        .collect();
    let highest = rates.iter().copied().fold(0.0, f64::max);
    if highest <= 0.0 {
        return None;
    }
    let (mut longest, mut begin) = (0..0, 0);
    for end in 1..=rates.len() {
        if rates[end - 1] < highest * BUSY {
            begin = end;
        } else if end - begin > longest.len() {
            longest = begin..end;
        }
    }
    Some((&samples[longest.start], &samples[longest.end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(begin: Instant, millis: u64, ticks: u64, frames: u64) -> Sample {
        Sample {
            at: begin + Duration::from_millis(millis),
            client: CoreTime {
                user: ticks,
                ..CoreTime::default()
            },
            server: CoreTime {
                softirq: 2 * ticks,
                ..CoreTime::default()
            },
            process: Some([TICK * ticks as u32, Duration::ZERO]),
            frames,
        }
    }

    #[test]
    fn only_the_load_counts_and_not_what_is_around_it() {
        let begin = Instant::now();
        let samples = [
            sample(begin, 0, 0, 0),
            // Setting up: processor time and few frames.
            sample(begin, 100, 10, 5),
            sample(begin, 200, 15, 1_000),
            sample(begin, 300, 20, 2_000),
            sample(begin, 400, 25, 2_900),
            // Clearing up.
            sample(begin, 500, 35, 2_901),
        ];
        let observed = observed(&samples).unwrap();
        let usage = observed.usage;
        // 15 ticks of 10 ms in 0.3 s, from the second sample to the fifth.
        assert!((usage.client.user - 500_000.0).abs() < 1e-3, "{usage:?}");
        assert!((usage.server.softirq - 1_000_000.0).abs() < 1e-3, "{usage:?}");
        assert!((usage.total() - 1_500_000.0).abs() < 1e-3, "{usage:?}");
        assert!((usage.process.unwrap()[0] - 500_000.0).abs() < 1e-3, "{usage:?}");
        assert!((observed.interface_frames_per_s - 2_895.0 / 0.3).abs() < 1e-3);
    }

    #[test]
    fn without_frames_nothing_was_seen() {
        let begin = Instant::now();
        assert!(observed(&[]).is_none());
        assert!(observed(&[sample(begin, 0, 0, 7)]).is_none());
        assert!(observed(&[sample(begin, 0, 0, 7), sample(begin, 100, 3, 7)]).is_none());
    }

    #[test]
    fn time_is_divided_among_operations() {
        let usage = Usage {
            client: Parts {
                user: 400_000.0,
                ..Parts::default()
            },
            server: Parts {
                system: 100_000.0,
                irq: 50_000.0,
                softirq: 50_000.0,
                ..Parts::default()
            },
            process: Some([0.0, 100_000.0]),
        };
        let each = usage.per_operation(100_000.0);
        assert!((each.total() - 6.0).abs() < 1e-9, "{each:?}");
        assert!((each.process.unwrap()[1] - 1.0).abs() < 1e-9, "{each:?}");
        assert_eq!(usage.per_operation(0.0).total(), 0.0);
    }
}
