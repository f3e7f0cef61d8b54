//! The machine, as far as it decides whether something can be served, and how fast.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use tidegate_nic::Finding;
use tidegate_nic::drivers::Version;
use tidegate_xsk::options;

use crate::capability::{self, CAP_IPC_LOCK};
use crate::config::Config;
use crate::error::Error;
use crate::xdp::kernel_release;

/// Features of the kernel that cannot be asked for without using them, by the version that brought them.
const BY_VERSION: [(Version, &str); 5] = [
    (Version(5, 4), "need_wakeup"),
    (Version(5, 9), "XDP by bpf_link"),
    (Version(5, 18), "live frames"),
    (Version(6, 6), "frames of several buffers"),
    (Version(6, 8), "TX metadata"),
];

/// From here on memory of BPF maps does not count as locked.
const MAPS_WITHOUT_MEMLOCK: Version = Version(5, 11);

/// Frames redirected between queues made it panic; the next version does not.
const PANICS: Version = Version(6, 9);

/// Clock sources that take a system call, or worse, whenever the time is read.
const SLOW_CLOCKS: [&str; 5] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"];

/// The version of the running kernel.
pub(crate) fn version() -> Option<Version> {
    Version::parse(&kernel_release())
}

/// The kernel, and what it has. `tells_xdp_features`: whether family netdev was there to be asked.
pub(crate) fn kernel(version: Option<Version>, tells_xdp_features: bool) -> Finding {
    let release = kernel_release();
    let Some(version) = version else {
        return Finding::ok("kernel", format!("Linux {release}, of which nothing is known"));
    };
    if version == PANICS {
        return Finding::warning(
            "kernel",
            format!(
                "Linux {release} may panic when frames are redirected between queues by other XDP programs; Linux 6.10 \
                 does not"
            ),
        );
    }
    let (has, lacks): (Vec<_>, Vec<_>) = BY_VERSION.iter().partition(|(since, _)| version >= *since);
    let names = |features: &[&(Version, &str)]| {
        let names: Vec<&str> = features.iter().map(|(_, name)| *name).collect();
        names.join(", ")
    };
    let mut asked = vec!["AF_XDP"; usize::from(options::probe_af_xdp().is_ok())];
    if has_busy_poll().unwrap_or(false) {
        asked.push("busy polling");
    }
    if tells_xdp_features {
        asked.push("xdp-features");
    }
    let mut line = format!("Linux {release} has, when asked: {}", asked.join(", "));
    if !has.is_empty() {
        line += &format!("; by its version: {}", names(&has));
    }
    if !lacks.is_empty() {
        line += &format!("; not: {}", names(&lacks));
    }
    if version < Version(5, 9) {
        line += "; after kill -9 the XDP program stays on the interface";
        return Finding::warning("kernel", line);
    }
    Finding::ok("kernel", line)
}

fn has_busy_poll() -> io::Result<bool> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    Ok(options::has_busy_poll(socket.as_raw_fd()))
}

/// Whether memory for so many UMEMs may be locked, and is there.
pub(crate) fn memory(config: &Config, umems: u32, frame_size: u32, version: Option<Version>) -> Finding {
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(RLIM_INFINITY, |(soft, _)| soft);
    let limit = (limit != RLIM_INFINITY && !capability::has(CAP_IPC_LOCK)).then_some(limit);
    let huge = config.huge_pages.then(|| free_huge_pages(Path::new("/proc")));
    judge_memory(config, umems, frame_size, version, limit, huge)
}

/// As [`memory`], with the limit if it counts, and the octets of free huge pages if they are to be used.
fn judge_memory(
    config: &Config,
    umems: u32,
    frame_size: u32,
    version: Option<Version>,
    limit: Option<u64>,
    huge: Option<u64>,
) -> Finding {
    const SUBJECT: &str = "memory";
    let each = config.umem_bytes(frame_size);
    let all = each * u64::from(umems);
    if limit.is_some_and(|limit| limit < all) {
        return Finding::failure(SUBJECT, Error::Memlock { bytes: each }.to_string());
    }
    if huge.is_some_and(|free| free < all) {
        let error = Error::NoMemory {
            bytes: each,
            huge_pages: true,
        };
        return Finding::failure(SUBJECT, error.to_string());
    }
    if let Some(limit) = limit
        && version.is_some_and(|version| version < MAPS_WITHOUT_MEMLOCK)
    {
        return Finding::warning(
            SUBJECT,
            format!(
                "{limit} bytes may be locked, UMEMs take {all}, and before Linux {MAPS_WITHOUT_MEMLOCK} the maps of the \
                 XDP program count, too; raise the limit with `ulimit -l unlimited`"
            ),
        );
    }
    let locked = limit.map_or_else(|| "without a limit".to_owned(), |limit| format!("of {limit}"));
    let pages = if huge.is_some() { " in huge pages" } else { "" };
    Finding::ok(
        SUBJECT,
        format!("{umems} UMEMs of {each} bytes{pages} may be locked, {locked}"),
    )
}

/// Octets in huge pages that are free, or may be made.
fn free_huge_pages(proc: &Path) -> u64 {
    let text = fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
    let of = |key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_default()
    };
    let overcommit = fs::read_to_string(proc.join("sys/vm/nr_overcommit_hugepages"));
    let overcommit: u64 = overcommit
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default();
    let pages = of("HugePages_Free") + overcommit.saturating_sub(of("HugePages_Surp"));
    pages * of("Hugepagesize") * 1024
}

/// The frequencies of the CPUs that shards may run on.
pub(crate) fn governor(sysfs: &Path, cpus: &[usize]) -> Finding {
    const SUBJECT: &str = "cpu";
    let governor = |cpu: &usize| {
        let file = sysfs.join(format!("devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"));
        Some((*cpu, fs::read_to_string(file).ok()?.trim().to_owned()))
    };
    let governors: Vec<(usize, String)> = cpus.iter().filter_map(governor).collect();
    let slow: Vec<_> = governors
        .iter()
        .filter(|(_, governor)| governor != "performance")
        .collect();
    match slow.first() {
        Some((cpu, governor)) => Finding::warning(
            SUBJECT,
            format!(
                "{} of {} CPUs, the first of them {cpu}, wait for load before they run fast (governor {governor}); \
                 `cpupower frequency-set -g performance` has them run fast always",
                slow.len(),
                cpus.len()
            ),
        ),
        None if governors.is_empty() => Finding::ok(
            SUBJECT,
            format!("{} CPUs, which set their speed by themselves", cpus.len()),
        ),
        None => Finding::ok(SUBJECT, format!("{} CPUs, governor performance", cpus.len())),
    }
}

/// The kernel's clock source.
pub(crate) fn clock_source(sysfs: &Path) -> Finding {
    const SUBJECT: &str = "clock";
    let directory = sysfs.join("devices/system/clocksource/clocksource0");
    let read = |file: &str| fs::read_to_string(directory.join(file)).map(|text| text.trim().to_owned());
    let Ok(current) = read("current_clocksource") else {
        return Finding::ok(SUBJECT, "the kernel does not tell its clock source");
    };
    if !SLOW_CLOCKS.contains(&current.as_str()) {
        return Finding::ok(SUBJECT, format!("clock source {current}"));
    }
    let available = read("available_clocksource").unwrap_or_default();
    let better = available
        .split_whitespace()
        .find(|source| !SLOW_CLOCKS.contains(source));
    let remedy = better.map_or_else(
        || "the kernel has no better one, and its log says why".to_owned(),
        |better| {
            let file = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
            format!("take another with `echo {better} > {file}`")
        },
    );
    Finding::warning(
        SUBJECT,
        format!("clock source {current} takes a system call or a slow device whenever the time is read; {remedy}"),
    )
}

/// CPUs that are online.
pub(crate) fn online_cpus(sysfs: &Path) -> Option<u32> {
    let list = fs::read_to_string(sysfs.join("devices/system/cpu/online")).ok()?;
    let counts = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    });
    counts.sum()
}

#[cfg(test)]
mod tests {
    use tidegate_nic::Severity;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        root
    }

    #[test]
    fn memory_that_may_not_be_locked_is_said_as_the_kernels_refusal_is() {
        let config = Config::default();
        let new = Some(Version(6, 1));
        let each = config.umem_bytes(2048);
        let judge = |limit, huge, version| judge_memory(&config, 2, 2048, version, limit, huge);
        let finding = judge(Some(2 * each - 1), None, new);
        assert_eq!(finding.severity, Severity::Failure);
        assert_eq!(finding.sentence.to_string(), Error::Memlock { bytes: each }.to_string());
        assert_eq!(finding.sentence.command(), Some("ulimit -l unlimited"));
        assert_eq!(judge(Some(2 * each), None, new).severity, Severity::Ok);
        assert_eq!(
            judge(Some(2 * each), None, Some(Version(5, 10))).severity,
            Severity::Warning
        );
        assert_eq!(judge(None, None, Some(Version(5, 10))).severity, Severity::Ok);
        let finding = judge(None, Some(2 * each - 1), new);
        assert!(finding.severity == Severity::Failure && finding.sentence.to_string().contains("vm.nr_hugepages"));
        assert_eq!(judge(None, Some(2 * each), new).severity, Severity::Ok);
    }

    #[test]
    fn huge_pages_are_those_that_are_free_and_those_that_may_be_made() {
        let meminfo = "HugePages_Total: 8\nHugePages_Free: 3\nHugePages_Surp: 1\nHugepagesize: 2048 kB\n";
        let proc = tree(&[("meminfo", meminfo), ("sys/vm/nr_overcommit_hugepages", "2\n")]);
        assert_eq!(free_huge_pages(proc.path()), (3 + 1) * (2 << 20));
    }

    #[test]
    fn governors_that_wait_for_load_are_said() {
        let file = |cpu, text| (format!("devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"), text);
        let files = [file(0, "performance\n"), file(1, "powersave\n")];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let sysfs = tree(&files);
        let finding = governor(sysfs.path(), &[0, 1]);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(
            finding
                .sentence
                .to_string()
                .starts_with("1 of 2 CPUs, the first of them 1"),
            "{finding:?}"
        );
        for cpus in [&[0][..], &[2]] {
            assert_eq!(governor(sysfs.path(), cpus).severity, Severity::Ok, "{cpus:?}");
        }
    }

    #[test]
    fn slow_clock_sources_are_said_with_a_better_one() {
        let directory = "devices/system/clocksource/clocksource0/";
        let with = |current, available| {
            let (current, available) = (
                (format!("{directory}current_clocksource"), current),
                (format!("{directory}available_clocksource"), available),
            );
            clock_source(tree(&[(&current.0, current.1), (&available.0, available.1)]).path())
        };
        assert_eq!(with("tsc\n", "tsc hpet\n").severity, Severity::Ok);
        let finding = with("hpet\n", "hpet tsc acpi_pm\n");
        assert_eq!(finding.severity, Severity::Warning);
        assert!(
            finding
                .sentence
                .command()
                .is_some_and(|command| command.starts_with("echo tsc >")),
            "{finding:?}"
        );
        assert_eq!(with("hpet\n", "hpet acpi_pm\n").sentence.command(), None);
    }

    #[test]
    fn the_kernel_is_described_by_its_version() {
        let of = |version| kernel(Some(version), false);
        assert_eq!(of(Version(6, 18)).severity, Severity::Ok);
        assert!(
            of(Version(6, 1))
                .sentence
                .to_string()
                .contains("not: frames of several buffers, TX metadata")
        );
        for version in [PANICS, Version(5, 8)] {
            assert_eq!(of(version).severity, Severity::Warning, "{version}");
        }
    }

    #[test]
    fn cpus_are_counted_in_lists() {
        for (list, count) in [("0\n", Some(1)), ("0-3,8\n", Some(5)), ("\n", None), ("3-1\n", None)] {
            let sysfs = tree(&[("devices/system/cpu/online", list)]);
            assert_eq!(online_cpus(sysfs.path()), count, "{list:?}");
        }
    }
}
