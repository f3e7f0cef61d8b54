//! The conditions that the figures depend on besides the code.

use std::fmt;
use std::fs;
use std::io;

/// The processor.
pub(crate) struct Machine {
    model: String,
    /// Its frequency, for figures in cycles; `None` where the kernel does not tell.
    megahertz: Option<f64>,
}

impl Machine {
    /// The first processor, as `/proc/cpuinfo` names it.
    pub(crate) fn read() -> Self {
        // Without it there are no cycles in the table, and all else is as it was.
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            model: field(&text, "model name").unwrap_or("unknown processor").to_owned(),
            megahertz: field(&text, "cpu MHz").and_then(|value| value.parse().ok()),
        }
    }

    /// Cycles in `nanos` nanoseconds.
    pub(crate) fn cycles(&self, nanos: f64) -> Option<f64> {
        self.megahertz.map(|megahertz| nanos * megahertz / 1000.0)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.model)?;
        match self.megahertz {
            Some(megahertz) => write!(f, ", {megahertz:.0} MHz (which cycles are reckoned by)"),
            None => f.write_str(", frequency unknown"),
        }
    }
}

/// The first value of `name` in text of the form `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// Memory of this process that is in RAM, in bytes.
///
/// # Errors
///
/// `/proc/self/status` cannot be read, or says nothing about it.
pub(crate) fn resident_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    field(&text, "VmRSS")
        .and_then(|value| value.strip_suffix(" kB"))
        .and_then(|value| value.parse::<u64>().ok())
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no line VmRSS in kB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_fields_counts() {
        let text = "processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 2000.5\nprocessor\t: 1\nmodel name\t: B\n";
        assert_eq!(field(text, "model name"), Some("A"));
        assert_eq!(field(text, "cpu MHz"), Some("2000.5"));
        assert_eq!(field(text, "cpu"), None);
    }

    #[test]
    fn memory_in_use_is_seen() {
        let before = resident_bytes().unwrap();
        let memory = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident_bytes().unwrap() >= before + (32 << 20));
        drop(memory);
    }
}
