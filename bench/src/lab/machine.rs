//! What the kernel says about its processors and its memory.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, anyhow};

/// The CPUs the calling thread may run on, in ascending order.
///
/// # Errors
///
/// The affinity mask cannot be read.
pub(crate) fn allowed_cpus() -> anyhow::Result<Vec<usize>> {
    tidegate_affinity::allowed().context("cannot read the CPU affinity mask")
}

/// Binds the calling thread, and with it the threads and processes it starts, to `cpu`.
///
/// # Errors
///
/// There is no such CPU for this process.
pub(crate) fn pin_this_thread(cpu: usize) -> anyhow::Result<()> {
    tidegate_affinity::pin_this_thread(cpu).with_context(|| format!("cannot use CPU {cpu}"))
}

/// Binds all kernel threads that poll `device` to `cpu`. Returns how many there are.
///
/// # Errors
///
/// `/proc` cannot be read, or the kernel refuses.
pub(crate) fn pin_napi_threads(device: &str, cpu: usize) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let entry = entry.context("cannot list /proc")?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // It may have ended since.
        let Ok(name) = fs::read_to_string(entry.path().join("comm")) else {
            continue;
        };
        if is_napi_thread(name.trim_end(), device) {
            tidegate_affinity::pin(id, cpu)
                .with_context(|| format!("cannot bind the thread {} to CPU {cpu}", name.trim_end()))?;
            count += 1;
        }
    }
    Ok(count)
}

/// Kernel threads that poll a device are called `napi/DEVICE-NUMBER`.
fn is_napi_thread(name: &str, device: &str) -> bool {
    name.strip_prefix("napi/")
        .and_then(|rest| rest.strip_prefix(device))
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some()
}

/// Keeps idle processors from halting. To be held as long as that is wanted.
///
/// A virtual processor that has halted takes up to a tenth of a millisecond to come back, and meanwhile the rings of a
/// veth device, 256 frames each, overflow at rates that a running one takes with ease.
pub(crate) struct Awake {
    // The kernel takes the wish back when this is closed.
    _file: File,
}

impl Awake {
    /// Asks the kernel for wake-ups without delay (PM QoS, `/dev/cpu_dma_latency`). `None` if it has no such device.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn ask() -> anyhow::Result<Option<Self>> {
        let path = "/dev/cpu_dma_latency";
        let mut file = match OpenOptions::new().write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open {path}")),
        };
        // The longest delay in microseconds.
        file.write_all(&0_i32.to_ne_bytes())
            .with_context(|| format!("cannot write to {path}"))?;
        Ok(Some(Self { _file: file }))
    }
}

/// What a processor has done since the system was started, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreTime {
    busy: u64,
    idle: u64,
}

impl CoreTime {
    /// That of `cpu`.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub(crate) fn of(cpu: usize) -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&text, cpu).ok_or_else(|| anyhow!("/proc/stat has no CPU {cpu}"))
    }

    fn parse(text: &str, cpu: usize) -> Option<Self> {
        let name = format!("cpu{cpu}");
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name.as_str()))?;
        // user nice system idle iowait irq softirq steal; guest time, which follows, is in user time.
        let ticks: Vec<u64> = line
            .split_ascii_whitespace()
            .skip(1)
            .take(8)
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self {
            busy: ticks.iter().sum::<u64>() - idle,
            idle,
        })
    }

    /// The part of the time since `earlier` in which the processor was not idle, 0 to 1.
    pub(crate) fn busy_since(self, earlier: Self) -> f64 {
        let busy = self.busy.saturating_sub(earlier.busy) as f64;
        let idle = self.idle.saturating_sub(earlier.idle) as f64;
        if busy + idle > 0.0 { busy / (busy + idle) } else { 0.0 }
    }
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Of a process: what is resident.
    pub(crate) resident: u64,
    /// Of the kernel: objects it cannot do without.
    pub(crate) kernel: u64,
    /// Of the kernel: all objects, with those it could do without.
    pub(crate) slab: u64,
}

impl Memory {
    /// That of the kernel and of process `id`.
    ///
    /// # Errors
    ///
    /// The process has ended, or the kernel does not say.
    pub(crate) fn with(id: u32) -> anyhow::Result<Self> {
        let meminfo = Path::new("/proc/meminfo");
        Ok(Self {
            resident: field(Path::new(&format!("/proc/{id}/status")), "VmRSS")?,
            kernel: field(meminfo, "SUnreclaim")?,
            slab: field(meminfo, "Slab")?,
        })
    }
}

/// A line `NAME:  NUMBER kB` of `file`, in bytes.
fn field(file: &Path, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let kilobytes = parse_field(&text, name).ok_or_else(|| anyhow!("{} has no {name}", file.display()))?;
    Ok(kilobytes * 1024)
}

fn parse_field(text: &str, name: &str) -> Option<u64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 100 10 20 300 40 5 25 0 7 7\ncpu10 1 1 1 1 1 1 1 1 1 1\nintr 1\n";

    #[test]
    fn busy_is_all_but_idle_and_waiting() {
        let earlier = CoreTime::parse(STAT, 1).unwrap();
        assert_eq!(earlier, CoreTime { busy: 160, idle: 340 });
        let later = CoreTime { busy: 235, idle: 365 };
        assert_eq!(later.busy_since(earlier), 0.75);
        assert_eq!(earlier.busy_since(earlier), 0.0);
        assert_eq!(CoreTime::parse(STAT, 10).unwrap(), CoreTime { busy: 6, idle: 2 });
        assert_eq!(CoreTime::parse(STAT, 2), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "VmRSSx:\t1 kB\nVmRSS:\t   2148 kB\nThreads:\t4\n";
        assert_eq!(parse_field(text, "VmRSS"), Some(2148));
        assert_eq!(parse_field(text, "Vm"), None);
        assert_eq!(parse_field(text, "Threads"), None);
    }

    #[test]
    fn this_process_has_memory_and_a_processor() {
        let memory = Memory::with(std::process::id()).unwrap();
        assert!(
            memory.resident > 0 && memory.kernel > 0 && memory.slab >= memory.kernel,
            "{memory:?}"
        );
        let cpus = allowed_cpus().unwrap();
        CoreTime::of(cpus[0]).unwrap();
    }

    #[test]
    fn only_the_threads_of_the_device_are_its_own() {
        assert!(is_napi_thread("napi/tgs0-8195", "tgs0"));
        for name in ["napi/tgs01-1", "napi/tgc0-1", "tgs0-1", "napi/tgs0"] {
            assert!(!is_napi_thread(name, "tgs0"), "{name}");
        }
    }
}
