//! What every result depends on, whatever was measured.

use std::fs;
use std::thread;

use anyhow::Context;
use serde_json::{Map, Value};

/// The kernel, the processor, how many CPUs this process may use, and the version of this program.
///
/// # Errors
///
/// `/proc` cannot be read.
pub(crate) fn describe() -> anyhow::Result<Map<String, Value>> {
    let cores = thread::available_parallelism().context("cannot find out how many CPUs there are")?;
    let entries: [(&str, Value); 4] = [
        ("kernel", kernel_release()?.into()),
        ("cpu_model", cpu_model()?.into()),
        ("cores", cores.get().into()),
        ("bench_version", env!("CARGO_PKG_VERSION").into()),
    ];
    Ok(entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

/// The release of the running kernel.
fn kernel_release() -> anyhow::Result<String> {
    let file = "/proc/sys/kernel/osrelease";
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    Ok(text.trim().to_owned())
}

/// What the first processor calls itself.
fn cpu_model() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    Ok(parse_cpu_model(&text).unwrap_or("unknown").to_owned())
}

fn parse_cpu_model(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_the_processor() {
        let text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n";
        assert_eq!(parse_cpu_model(text), Some("AMD EPYC"));
        assert_eq!(parse_cpu_model("processor\t: 0\n"), None);
    }

    #[test]
    fn this_machine_can_be_described() {
        let environment = describe().unwrap();
        for key in ["kernel", "cpu_model", "bench_version"] {
            assert!(!environment[key].as_str().unwrap().is_empty(), "{key}");
        }
        assert!(environment["cores"].as_u64().unwrap() > 0);
    }
}
