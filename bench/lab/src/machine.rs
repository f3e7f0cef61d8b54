//! Processor time, memory and frames as the kernel counts them, and the kernel threads of a device.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::time::Duration;

use anyhow::{Context, anyhow};
use procfs::net::{InterfaceDeviceStatus, Snmp};
use procfs::process::{self, Process};
use procfs::{Current, FromRead, Meminfo};

/// Binds the calling thread, and with it the threads and processes it starts, to `cpu`.
///
/// # Errors
///
/// There is no such CPU for this process.
pub fn pin_this_thread(cpu: usize) -> anyhow::Result<()> {
    tidegate_affinity::pin_this_thread(cpu).with_context(|| format!("cannot use CPU {cpu}"))
}

/// Binds all kernel threads that poll `device` to `cpu`. Returns their number.
///
/// # Errors
///
/// `/proc` cannot be read, or there is no such CPU for them.
pub fn pin_napi_threads(device: &str, cpu: usize) -> anyhow::Result<usize> {
    let mut count = 0;
    for process in process::all_processes().context("cannot list /proc")? {
        // It may have ended since.
        let Ok(stat) = process.and_then(|process| process.stat()) else {
            continue;
        };
        if is_napi_thread(&stat.comm, device) {
            tidegate_affinity::pin(stat.pid, cpu)
                .with_context(|| format!("cannot bind the thread {} to CPU {cpu}", stat.comm))?;
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
pub struct Awake {
    // The kernel takes the wish back when this is closed.
    _file: File,
}

impl Awake {
    /// Asks the kernel for wake-ups without delay (PM QoS, `/dev/cpu_dma_latency`). `None` if it has no such device.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn ask() -> anyhow::Result<Option<Self>> {
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

/// The time a processor has spent since the system was started, by kind, in ticks of [`TICK`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreTime {
    /// In processes.
    pub user: u64,
    /// In the kernel on behalf of processes, and in kernel threads.
    pub system: u64,
    /// In interrupts.
    pub irq: u64,
    /// In soft interrupts: NAPI, and with it XDP and the receiving side of the kernel's TCP.
    pub softirq: u64,
    /// Taken by the hypervisor for others.
    pub steal: u64,
    /// Idle, or waiting for a disk.
    pub idle: u64,
}

/// The unit of `/proc/stat`: USER_HZ is 100 wherever Linux has XDP in drivers.
pub const TICK: Duration = Duration::from_millis(10);

impl CoreTime {
    /// Returns the times of `cpus`, all of the same moment.
    ///
    /// # Errors
    ///
    /// `/proc/stat` cannot be read, or lacks one of them.
    pub fn of<const COUNT: usize>(cpus: [usize; COUNT]) -> anyhow::Result<[Self; COUNT]> {
        // procfs numbers processors by their position in the file, from which those that are offline are missing.
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let mut times = [Self::default(); COUNT];
        for (time, cpu) in times.iter_mut().zip(cpus) {
            *time = Self::parse(&text, cpu).ok_or_else(|| anyhow!("/proc/stat has no CPU {cpu}"))?;
        }
        Ok(times)
    }

    fn parse(text: &str, cpu: usize) -> Option<Self> {
        let name = format!("cpu{cpu}");
        let mut lines = text.lines();
        Self::parse_line(lines.find(|line| line.split(' ').next() == Some(name.as_str()))?)
    }

    fn parse_line(line: &str) -> Option<Self> {
        let ticks: Vec<u64> = line
            .split_ascii_whitespace()
            .skip(1)
            .map_while(|number| number.parse().ok())
            .collect();
        // Guest time, which follows, is in user time.
        let &[user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks.as_slice() else {
            return None;
        };
        Some(Self {
            user: user + nice,
            system,
            irq,
            softirq,
            steal,
            idle: idle + iowait,
        })
    }

    /// Returns the most time that a hypervisor has taken from one of the processors between two looks at all of them.
    pub fn most_stolen(before: &[Self], after: &[Self]) -> Duration {
        let ticks = before
            .iter()
            .zip(after)
            .map(|(before, after)| after.steal.saturating_sub(before.steal));
        TICK * ticks.max().unwrap_or(0).min(u64::from(u32::MAX)) as u32
    }

    /// Returns the times of all processors that are online.
    ///
    /// # Errors
    ///
    /// `/proc/stat` cannot be read.
    pub fn of_all() -> anyhow::Result<Vec<Self>> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Ok(Self::parse_all(&text))
    }

    fn parse_all(text: &str) -> Vec<Self> {
        let is_one = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
        text.lines().filter(is_one).filter_map(Self::parse_line).collect()
    }

    /// Returns the part of the time since `earlier` in which the processor was not idle, 0 to 1.
    pub fn busy_since(self, earlier: Self) -> f64 {
        let busy = self.busy().saturating_sub(earlier.busy()) as f64;
        let idle = self.idle.saturating_sub(earlier.idle) as f64;
        if busy + idle > 0.0 { busy / (busy + idle) } else { 0.0 }
    }

    fn busy(self) -> u64 {
        self.user + self.system + self.irq + self.softirq + self.steal
    }
}

/// Returns the processor time of process `id` and of those it has started, in user mode and in the kernel. A process
/// that has ended has none.
pub fn processor_time(id: u32) -> [Duration; 2] {
    let of = |id: u32| {
        let stat = Process::new(id.cast_signed()).and_then(|process| process.stat());
        stat.map_or([0; 2], |stat| [stat.utime, stat.stime])
    };
    let ticks = children(id)
        .into_iter()
        .map(of)
        .fold(of(id), |sum, more| [sum[0] + more[0], sum[1] + more[1]]);
    ticks.map(|ticks| Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64))
}

/// Returns the processor time of the threads that process `id` and those it has started have now, to the nanosecond,
/// where the kernel tells it (CONFIG_SCHED_INFO); else that of [`processor_time`]. It is for short times, in which
/// ticks are coarse, and for programs that keep their threads.
pub fn processor_time_of_threads(id: u32) -> Duration {
    let of = |id: u32| -> Option<u64> {
        let tasks = Process::new(id.cast_signed())
            .and_then(|process| process.tasks())
            .ok()?;
        // A thread may end while they are listed.
        let times = tasks.filter_map(|task| task.and_then(|task| task.schedstat()).ok());
        let times: Vec<u64> = times.map(|times| times.sum_exec_runtime).collect();
        (!times.is_empty()).then(|| times.iter().sum())
    };
    let Some(own) = of(id) else {
        return processor_time(id).iter().sum();
    };
    let children = children(id).into_iter().filter_map(of);
    Duration::from_nanos(own + children.sum::<u64>())
}

/// Returns whether there is a process `id` that has not ended.
pub fn is_running(id: u32) -> bool {
    let stat = Process::new(id.cast_signed()).and_then(|process| process.stat());
    // One that nobody has waited for is still in the list.
    stat.is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Returns the processes that process `id` has started. nginx's worker is one. Kernels without this list have none.
fn children(id: u32) -> Vec<u32> {
    Process::new(id.cast_signed())
        .and_then(|process| process.task_main_thread())
        .and_then(|thread| thread.children())
        .unwrap_or_default()
}

/// Counts of a network device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Frames received.
    pub received: u64,
    /// Octets in them.
    pub received_octets: u64,
    /// Frames sent.
    pub sent: u64,
}

/// Returns the counts of `device` of the calling thread's network namespace.
///
/// # Errors
///
/// The kernel's table cannot be read, or the device is gone.
pub fn device_counts(device: &str) -> anyhow::Result<DeviceCounts> {
    // The calling thread's namespace, not the process's.
    let table = "/proc/thread-self/net/dev";
    let devices = InterfaceDeviceStatus::from_file(table).with_context(|| format!("cannot read {table}"))?;
    let status = devices
        .0
        .get(device)
        .with_context(|| format!("{table} does not list {device}"))?;
    Ok(DeviceCounts {
        received: status.recv_packets,
        received_octets: status.recv_bytes,
        sent: status.sent_packets,
    })
}

/// Returns the TCP segments that the kernel has received in the calling thread's network namespace, over both families.
///
/// # Errors
///
/// The kernel's table cannot be read.
pub fn tcp_segments_received() -> anyhow::Result<u64> {
    Ok(snmp()?.tcp_in_segs)
}

/// TCP segments that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentsSent {
    /// All of them.
    pub all: u64,
    /// Those of them whose text had been sent before.
    pub again: u64,
}

impl SegmentsSent {
    /// Returns those sent since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            all: self.all.saturating_sub(earlier.all),
            again: self.again.saturating_sub(earlier.again),
        }
    }

    /// Returns the percentage that was sent again; `None` if nothing was sent.
    pub fn percent_again(self) -> Option<f64> {
        (self.all > 0).then(|| self.again as f64 * 100.0 / self.all as f64)
    }
}

/// Returns the TCP segments that the kernel has sent in the calling thread's network namespace, over both families.
///
/// # Errors
///
/// The kernel's table cannot be read.
pub fn tcp_segments_sent() -> anyhow::Result<SegmentsSent> {
    let counters = snmp()?;
    // OutSegs leaves out those that carry only what was sent before (RFC 4022).
    Ok(SegmentsSent {
        all: counters.tcp_out_segs + counters.tcp_retrans_segs,
        again: counters.tcp_retrans_segs,
    })
}

/// The counters of the calling thread's network namespace.
fn snmp() -> anyhow::Result<Snmp> {
    let table = "/proc/thread-self/net/snmp";
    Snmp::from_file(table).with_context(|| format!("cannot read {table}"))
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Of a process and those it has started, resident.
    pub resident: u64,
    /// Of the kernel, objects it cannot do without.
    pub kernel: u64,
    /// Of the kernel, all objects, with those it could do without.
    pub slab: u64,
}

impl Memory {
    /// Returns that of the kernel and of process `id`.
    ///
    /// # Errors
    ///
    /// The process has ended, or `/proc/meminfo` lacks a line.
    pub fn with(id: u32) -> anyhow::Result<Self> {
        let resident = |id: u32| {
            let status = Process::new(id.cast_signed()).and_then(|process| process.status());
            status.map(|status| status.vmrss.unwrap_or_default() * 1024)
        };
        let own = resident(id).with_context(|| format!("cannot read the status of process {id}"))?;
        let of_children: u64 = children(id).into_iter().filter_map(|id| resident(id).ok()).sum();
        let kernel = Meminfo::current().context("cannot read /proc/meminfo")?;
        Ok(Self {
            resident: own + of_children,
            kernel: kernel.s_unreclaim.context("/proc/meminfo has no SUnreclaim")?,
            slab: kernel.slab,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const STAT: &str =
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 100 10 20 300 40 5 25 0 7 7\ncpu10 1 1 1 1 1 1 1 1 1 1\nintr 1\n";

    #[test]
    fn a_core_is_found_by_its_whole_name_and_its_time_by_kind() {
        let expected = CoreTime {
            user: 110,
            system: 20,
            irq: 5,
            softirq: 25,
            steal: 0,
            idle: 340,
        };
        assert_eq!(CoreTime::parse(STAT, 1), Some(expected));
        assert_eq!(CoreTime::parse(STAT, 10).unwrap().user, 2);
        assert_eq!(CoreTime::parse(STAT, 2), None);
        assert_eq!(CoreTime::parse("cpu1 100 10 20\n", 1), None);
        let all = CoreTime::parse_all(STAT);
        assert_eq!(all, [1, 10].map(|cpu| CoreTime::parse(STAT, cpu).unwrap()));
    }

    #[test]
    fn steal_is_that_of_the_processor_that_lost_most() {
        let all = |steals: [u64; 2]| {
            steals.map(|steal| CoreTime {
                steal,
                ..CoreTime::default()
            })
        };
        assert_eq!(
            CoreTime::most_stolen(&all([3, 5]), &all([4, 15])),
            Duration::from_millis(100)
        );
        assert_eq!(CoreTime::most_stolen(&all([3, 5]), &all([3, 5])), Duration::ZERO);
    }

    #[test]
    fn busy_is_all_but_idle_and_waiting() {
        let earlier = CoreTime::parse(STAT, 1).unwrap();
        assert_eq!(earlier.busy(), 160);
        let later = CoreTime {
            system: earlier.system + 50,
            steal: 25,
            idle: 365,
            ..earlier
        };
        assert_eq!(later.busy_since(earlier), 0.75);
        assert_eq!(earlier.busy_since(earlier), 0.0);
    }

    #[test]
    fn this_process_has_memory_and_a_processor() {
        let memory = Memory::with(std::process::id()).unwrap();
        assert!(
            memory.resident > 0 && memory.kernel > 0 && memory.slab >= memory.kernel,
            "{memory:?}"
        );
        let cpus = tidegate_affinity::allowed().unwrap();
        CoreTime::of([cpus[0]]).unwrap();
        assert!(CoreTime::of_all().unwrap().len() >= cpus.len());
        assert!(CoreTime::of([usize::MAX]).is_err());
    }

    #[test]
    fn this_process_has_used_a_processor() {
        let begin = Instant::now();
        let used = || processor_time(std::process::id());
        let mut sum = 0_u64;
        while used() == [Duration::ZERO; 2] && begin.elapsed() < Duration::from_secs(10) {
            sum = sum.wrapping_add(begin.elapsed().subsec_nanos().into());
        }
        assert_ne!(used(), [Duration::ZERO; 2], "{sum}");
    }

    #[test]
    fn the_time_of_threads_includes_that_of_children() {
        let mut shell = std::process::Command::new("sh");
        // The shell itself only waits.
        shell
            .args(["-c", "(while echo; do :; done) & read -r line; kill $!"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null());
        let mut shell = shell.spawn().unwrap();
        let begin = Instant::now();
        let used = || processor_time_of_threads(shell.id());
        while used() < Duration::from_millis(50) && begin.elapsed() < Duration::from_secs(30) {}
        let used = used();
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(used >= Duration::from_millis(50), "{used:?}");
        assert!(!is_running(shell.id()));
    }

    #[test]
    fn the_memory_of_a_process_includes_its_childrens() {
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", "sleep 60 & echo; read -r line; kill $!"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        // Its line comes after the child was started.
        std::io::Read::read_exact(&mut shell.stdout.take().unwrap(), &mut [0]).unwrap();
        let alone = Process::new(shell.id().cast_signed()).unwrap().status().unwrap();
        let both = Memory::with(shell.id()).unwrap().resident;
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(both > alone.vmrss.unwrap() * 1024, "{both}");
    }

    #[test]
    fn the_time_of_a_process_includes_its_childrens() {
        let mut shell = std::process::Command::new("sh");
        // The shell itself only waits, and has used next to nothing by then.
        shell
            .args(["-c", "sh -c 'while :; do :; done' & read -r line; kill $!"])
            .stdin(std::process::Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let begin = Instant::now();
        let used = || processor_time(child.id()).iter().sum::<Duration>();
        while used() < Duration::from_millis(100) && begin.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(TICK);
        }
        let used = used();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(used >= Duration::from_millis(100), "{used:?}");
    }

    #[test]
    fn frames_are_those_of_the_device() {
        assert!(device_counts("lo").is_ok());
        let error = device_counts("no-such-dev").unwrap_err().to_string();
        assert!(error.contains("no-such-dev"), "{error}");
    }

    #[test]
    fn the_kernel_counts_the_segments_of_a_connection() {
        let before = tcp_segments_received().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(tcp_segments_received().unwrap() >= before + 3);
        let sent = tcp_segments_sent().unwrap();
        assert!(sent.all >= 3 && sent.all >= sent.again, "{sent:?}");
    }

    #[test]
    fn what_was_sent_again_is_a_percentage_of_all() {
        let sent = |all, again| SegmentsSent { all, again };
        assert_eq!(sent(300, 12).since(sent(100, 2)).percent_again(), Some(5.0));
        assert_eq!(sent(1, 0).since(sent(1, 0)).percent_again(), None);
    }

    #[test]
    fn only_the_threads_of_the_device_are_its_own() {
        assert!(is_napi_thread("napi/tgs0-8195", "tgs0"));
        for name in ["napi/tgs01-1", "napi/tgc0-1", "tgs0-1", "napi/tgs0"] {
            assert!(!is_napi_thread(name, "tgs0"), "{name}");
        }
    }
}
