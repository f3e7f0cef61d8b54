//! The facts that every result depends on, whatever was measured.

use std::fs;
use std::thread;

use anyhow::Context;
use procfs::{CpuInfo, Current};
use serde_json::{Map, Value};

/// Returns the kernel's release, the model of the first processor, the number of CPUs this process may use, and the
/// version of this program.
///
/// # Errors
///
/// `/proc` cannot be read.
pub fn describe() -> anyhow::Result<Map<String, Value>> {
    let cores = thread::available_parallelism().context("cannot find out how many CPUs there are")?;
    let release = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(release).with_context(|| format!("cannot read {release}"))?;
    let cpus = CpuInfo::current().context("cannot read /proc/cpuinfo")?;
    let entries: [(&str, Value); 4] = [
        ("kernel", release.trim().into()),
        ("cpu_model", cpus.model_name(0).unwrap_or("unknown").into()),
        ("cores", cores.get().into()),
        ("bench_version", env!("CARGO_PKG_VERSION").into()),
    ];
    Ok(entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_described() {
        let environment = describe().unwrap();
        for key in ["kernel", "cpu_model", "bench_version"] {
            assert!(!environment[key].as_str().unwrap().is_empty(), "{key}");
        }
        assert!(environment["cores"].as_u64().unwrap() > 0);
    }
}
