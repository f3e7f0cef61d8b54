//! The lab, the program under test, and what else every experiment begins with.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::ValueEnum;
use tempfile::TempDir;
use tidegate_flood::Prefix;
use tidegate_lab::{Children, Cores, Lab, arrangement, machine};
use tidegate_runtime::WaitStrategy;

/// The lab and the server under test, as arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Setup {
    /// The server under test (default: `tidegate` beside this program).
    #[arg(long, value_name = "FILE")]
    tidegate: Option<PathBuf>,
    /// Name of the lab (default: what TIDEGATE_LAB says, as for `scripts/lab.sh`, or tg)
    #[arg(long, value_name = "NAME")]
    lab: Option<String>,
}

/// A lab without a middle, the cores of its two sides, and the processes in it.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) cores: Cores,
    pub(crate) children: Children,
}

impl Setup {
    /// Finds the lab, which must be up with a middle.
    ///
    /// # Errors
    ///
    /// It is not.
    pub(crate) fn lab_with_middle(&self) -> anyhow::Result<Lab> {
        Lab::find(&self.lab_name())
    }

    /// Finds the lab, which must be up without a middle, prepares it, and binds this thread to the client's core.
    ///
    /// # Errors
    ///
    /// It is not up, a command in it fails, or the kernel refuses something.
    pub(crate) fn stage(&self) -> anyhow::Result<Stage> {
        let lab = Lab::find_direct(&self.lab_name())?;
        let cores = Cores::choose()?;
        machine::pin_this_thread(cores.client)?;
        let children = Children::new()?;
        arrangement::prepare(&lab, [Prefix::SOURCES_V4, Prefix::SOURCES_V6])?;
        Ok(Stage { lab, cores, children })
    }

    fn lab_name(&self) -> String {
        let name = self.lab.clone().or_else(|| env::var("TIDEGATE_LAB").ok());
        name.unwrap_or_else(|| "tg".to_owned())
    }

    /// Returns the server under test.
    ///
    /// # Errors
    ///
    /// This program's own file, which it is beside, is not known.
    pub(crate) fn tidegate(&self) -> anyhow::Result<PathBuf> {
        match &self.tidegate {
            Some(program) => Ok(program.clone()),
            None => Ok(this_program()?.with_file_name("tidegate")),
        }
    }
}

/// Returns the file of this program.
///
/// # Errors
///
/// The kernel does not know it.
pub(crate) fn this_program() -> anyhow::Result<PathBuf> {
    env::current_exe().context("cannot find this program's own file")
}

/// Returns the name of a strategy as the command line of tidegate has it.
///
/// # Errors
///
/// It has none.
pub(crate) fn wait_name(wait: WaitStrategy) -> anyhow::Result<String> {
    let value = wait.to_possible_value().context("a strategy without a name")?;
    Ok(value.get_name().to_owned())
}

/// Makes a directory that is removed when the result is dropped. `purpose` is in its name.
///
/// # Errors
///
/// It cannot be made.
pub(crate) fn directory(purpose: &str) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("tidegate-{purpose}-"))
        .tempdir()
        .context("cannot make a temporary directory")
}

/// Asks `program` for its version by `argument`, and returns the answer without what stands before the number.
///
/// # Errors
///
/// It cannot be run, or fails.
pub(crate) fn version(program: &Path, argument: &str) -> anyhow::Result<String> {
    let name = program.display();
    let output = Command::new(program)
        .arg(argument)
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("`{name} {argument}` failed");
    }
    // nginx says it on standard error.
    let said = [output.stdout, output.stderr].concat();
    Ok(parse_version(&String::from_utf8_lossy(&said)))
}

fn parse_version(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    let start = line.find(|character: char| character.is_ascii_digit()).unwrap_or(0);
    line[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_version_is_what_counts() {
        assert_eq!(parse_version("tidegate 0.1.0\n"), "0.1.0");
        assert_eq!(parse_version("nginx version: nginx/1.22.1\n"), "1.22.1");
        assert_eq!(parse_version("unknown"), "unknown");
        assert_eq!(parse_version(""), "");
    }

    #[test]
    fn a_strategy_has_the_name_that_tidegate_takes() {
        assert_eq!(wait_name(WaitStrategy::BusyPoll).unwrap(), "busy-poll");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = version(Path::new("/no/such/program"), "--version").unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
        let error = version(Path::new("false"), "--version").unwrap_err().to_string();
        assert!(error.contains("`false --version` failed"), "{error}");
    }
}
