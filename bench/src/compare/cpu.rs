//! What the processors do while something is measured, by core and by kind, and what passes the server's interface.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use crate::lab::arrangement::{Cores, SERVER_DEVICE};
use crate::lab::namespaces::{Lab, Place};

/// Between two samples. It is long enough to cost nothing and short enough to find the begin and the end of a load.
const INTERVAL: Duration = Duration::from_millis(50);

/// Microseconds in a tick of `/proc` (USER_HZ is 100 wherever Linux has XDP in drivers).
const TICK_US: f64 = 10_000.0;

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

    /// What is per second, for each of so many operations in a second.
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

/// What was seen while something ran.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Observed {
    /// Per second.
    pub(super) usage: Usage,
    /// Frames per second that the server's interface received and sent.
    pub(super) interface_frames_per_s: f64,
}

/// The counters of a core since the system was started, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    user: u64,
    system: u64,
    irq: u64,
    softirq: u64,
}

impl Ticks {
    fn since(self, earlier: Self, seconds: f64) -> Parts {
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 * TICK_US / seconds;
        Parts {
            user: per_second(self.user, earlier.user),
            system: per_second(self.system, earlier.system),
            irq: per_second(self.irq, earlier.irq),
            softirq: per_second(self.softirq, earlier.softirq),
        }
    }
}

/// All counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    client: Ticks,
    server: Ticks,
    /// User mode and kernel, in ticks.
    process: Option<[u64; 2]>,
    frames: u64,
}

impl Sample {
    fn take(cores: Cores, process: Option<u32>) -> anyhow::Result<Self> {
        let stat = read("/proc/stat")?;
        let of = |cpu| core_ticks(&stat, cpu).ok_or_else(|| anyhow!("/proc/stat has no CPU {cpu}"));
        let client = of(cores.client)?;
        let server = if cores.server == cores.client {
            Ticks::default()
        } else {
            of(cores.server)?
        };
        // The calling thread's namespace, not the process's.
        let devices = read("/proc/thread-self/net/dev")?;
        let frames = device_frames(&devices, SERVER_DEVICE)
            .ok_or_else(|| anyhow!("/proc/thread-self/net/dev has no {SERVER_DEVICE}"))?;
        Ok(Self {
            at: Instant::now(),
            client,
            server,
            process: process.map(process_ticks),
            frames,
        })
    }
}

/// Runs `work` on the calling thread while another one looks at the counters. What was seen is `None` when that was too
/// short to see anything.
///
/// # Errors
///
/// What `work` returns, or the kernel does not tell its counters.
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

/// What there was from the first to the last sample of the load.
fn observed(samples: &[Sample]) -> Option<Observed> {
    let (first, last) = busy(samples)?;
    let seconds = (last.at - first.at).as_secs_f64();
    let process = match (first.process, last.process) {
        (Some(then), Some(now)) => {
            let per_second = |index: usize| now[index].saturating_sub(then[index]) as f64 * TICK_US / seconds;
            Some([per_second(0), per_second(1)])
        }
        _ => None,
    };
    Some(Observed {
        usage: Usage {
            client: last.client.since(first.client, seconds),
            server: last.server.since(first.server, seconds),
            process,
        },
        interface_frames_per_s: last.frames.saturating_sub(first.frames) as f64 / seconds,
    })
}

/// The ends of the longest stretch in which frames pass at half the highest rate or more. A client sets up and clears up
/// around its load, which is not to count.
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

fn read(file: &str) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {file}"))
}

/// The counters of `cpu` in `/proc/stat`.
fn core_ticks(stat: &str, cpu: usize) -> Option<Ticks> {
    let name = format!("cpu{cpu}");
    let mut fields = stat
        .lines()
        .map(str::split_ascii_whitespace)
        .find_map(|mut fields| (fields.next()? == name).then_some(fields))?;
    // user nice system idle iowait irq softirq
    let mut next = || fields.next()?.parse::<u64>().ok();
    let user = next()? + next()?;
    let system = next()?;
    let (_idle, _waiting) = (next()?, next()?);
    Some(Ticks {
        user,
        system,
        irq: next()?,
        softirq: next()?,
    })
}

/// Frames received and sent by `device` in `/proc/net/dev`.
fn device_frames(table: &str, device: &str) -> Option<u64> {
    let numbers = table.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == device).then_some(numbers)
    })?;
    // Eight numbers about receiving, the second of them the frames, and then the same about sending.
    let mut numbers = numbers.split_ascii_whitespace();
    let received: u64 = numbers.nth(1)?.parse().ok()?;
    let sent: u64 = numbers.nth(7)?.parse().ok()?;
    Some(received + sent)
}

/// User mode and kernel of process `id` and of the processes it has started, in ticks. A process that has ended has
/// none, and a measurement whose server has ended is an error elsewhere.
fn process_ticks(id: u32) -> [u64; 2] {
    let of = |id: &str| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat_ticks(&stat).unwrap_or_default()
    };
    let id = id.to_string();
    let mut ticks = of(&id);
    // nginx's worker is a child of what was started. Kernels without this list have none.
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    for child in children.split_ascii_whitespace() {
        let more = of(child);
        ticks = [ticks[0] + more[0], ticks[1] + more[1]];
    }
    ticks
}

/// `utime` and `stime` of a line of `/proc/PID/stat`.
fn stat_ticks(line: &str) -> Option<[u64; 2]> {
    // The second field is the name in parentheses, which may have any characters in it.
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some([fields.next()?.parse().ok()?, fields.next()?.parse().ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 100 10 20 300 40 5 25 0 7 7\ncpu10 1 1 1 1 1 1 1 1 1 1\nintr 1\n";

    #[test]
    fn a_core_is_found_by_its_whole_name_and_its_time_by_kind() {
        let expected = Ticks {
            user: 110,
            system: 20,
            irq: 5,
            softirq: 25,
        };
        assert_eq!(core_ticks(STAT, 1), Some(expected));
        assert_eq!(core_ticks(STAT, 10).unwrap().user, 2);
        assert_eq!(core_ticks(STAT, 2), None);
        assert_eq!(core_ticks("cpu1 100 10 20\n", 1), None);
    }

    #[test]
    fn frames_are_those_of_the_device_both_ways() {
        let table = "Inter-| Receive\n face |bytes packets\n  tgs01: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  tgs0: 9876 98 0 \
                     0 0 0 0 0 12345 67 1 2 0 0 0 0\n";
        assert_eq!(device_frames(table, "tgs0"), Some(165));
        assert_eq!(device_frames(table, "tgs"), None);
    }

    #[test]
    fn the_name_of_a_process_may_look_like_anything() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 31 17 0 0 20 0 1 0 5 0 0";
        assert_eq!(stat_ticks(line), Some([31, 17]));
        assert_eq!(stat_ticks("7 (a) S 1"), None);
        assert_eq!(stat_ticks(""), None);
    }

    fn sample(begin: Instant, millis: u64, ticks: u64, frames: u64) -> Sample {
        Sample {
            at: begin + Duration::from_millis(millis),
            client: Ticks {
                user: ticks,
                ..Ticks::default()
            },
            server: Ticks {
                softirq: 2 * ticks,
                ..Ticks::default()
            },
            process: Some([ticks, 0]),
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

    #[test]
    fn this_process_has_used_a_processor() {
        let begin = Instant::now();
        let mut sum = 0_u64;
        while process_ticks(std::process::id()) == [0, 0] && begin.elapsed() < Duration::from_secs(10) {
            sum = sum.wrapping_add(begin.elapsed().subsec_nanos().into());
        }
        assert_ne!(process_ticks(std::process::id()), [0, 0], "{sum}");
    }
}
