//! Congestion controls, by the names that Linux and tidegate have for them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use tidegate_lab::{Lab, Place};
use tidegate_stream::socket::is_in_kernel;

/// The congestion control that others are compared with.
pub(crate) const CUBIC: &str = "cubic";

/// The names that Linux takes have one octet less than its TCP_CA_NAME_MAX at most.
const MAX_NAME: usize = 15;

/// The congestion controls to measure, as arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Controls {
    /// Congestion controls of the senders, separated by commas, by the names that both Linux and tidegate know; those
    /// that the kernel lacks are left out. Linux's bbr is version 1 in mainline kernels.
    #[arg(long = "control", value_name = "LIST", value_delimiter = ',', default_values = [CUBIC, "bbr"], value_parser = name)]
    names: Vec<String>,
}

/// A name that cannot be mistaken for anything else in a configuration file.
fn name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("a congestion control has a name like cubic, reno or bbr".to_owned())
    }
}

impl Controls {
    /// Returns those that the kernel has, each once, and says on standard error which are left out.
    ///
    /// # Errors
    ///
    /// The kernel has none of them, or cannot be asked; tidegate refuses one that the kernel has.
    pub(super) fn usable(&self, lab: &Lab, tidegate: &Path, work: &Path) -> anyhow::Result<Vec<String>> {
        let mut usable: Vec<String> = Vec::new();
        for name in &self.names {
            if usable.contains(name) {
                continue;
            }
            if lab.inside(Place::Server, || is_in_kernel(name))? {
                check_tidegate(tidegate, name, work)?;
                usable.push(name.clone());
            } else {
                eprintln!("{name} is left out: this kernel does not have it as a congestion control");
            }
        }
        if usable.is_empty() {
            bail!(
                "this kernel has none of the congestion controls {}; --control takes others",
                self.names.join(", ")
            );
        }
        Ok(usable)
    }
}

/// Writes a configuration file of tidegate with `control`, and returns it.
///
/// # Errors
///
/// It cannot be written.
pub(super) fn write_configuration(control: &str, work: &Path) -> anyhow::Result<PathBuf> {
    let file = work.join(format!("{control}.toml"));
    std::fs::write(&file, format!("[tcp]\ncongestion = \"{control}\"\n"))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Has `tidegate` check that it knows `control`.
fn check_tidegate(tidegate: &Path, control: &str, work: &Path) -> anyhow::Result<()> {
    let file = write_configuration(control, work)?;
    let output = Command::new(tidegate)
        .arg("check-config")
        .arg(&file)
        .output()
        .with_context(|| format!("cannot run {}", tidegate.display()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!(
            "tidegate does not take {control} as its congestion control; --control names others. It says:\n{}",
            why.trim_end()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use tidegate_report::testing::parse;

    use super::*;

    #[test]
    fn both_are_measured_unless_told_otherwise() {
        assert_eq!(parse::<Controls>(&[]).unwrap().names, ["cubic", "bbr"]);
        assert_eq!(
            parse::<Controls>(&["--control", "reno,cubic"]).unwrap().names,
            ["reno", "cubic"]
        );
    }

    #[test]
    fn a_name_is_a_word() {
        for text in ["", "a b", "x\"", "1234567890123456", "cubic,"] {
            let error = parse::<Controls>(&["--control", text]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{text:?}");
        }
    }

    #[test]
    fn what_tidegate_refuses_is_an_error_that_names_it() {
        let work = tempfile::tempdir().unwrap();
        let error = check_tidegate(Path::new("false"), "vegas", work.path()).unwrap_err();
        assert!(error.to_string().contains("does not take vegas"), "{error}");
        check_tidegate(Path::new("true"), "vegas", work.path()).unwrap();
        let written = std::fs::read_to_string(work.path().join("vegas.toml")).unwrap();
        assert_eq!(written, "[tcp]\ncongestion = \"vegas\"\n");
        let error = check_tidegate(Path::new("/no/such/program"), "vegas", work.path()).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
