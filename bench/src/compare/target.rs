//! Starting the servers under test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use tidegate_lab::arrangement::SERVER_DEVICE;
use tidegate_lab::machine;
use tidegate_lab::{Child, Children};
use tidegate_lab::{Lab, Place};

use super::nginx;
use super::plan::Target;

/// What tidegate prints when it serves.
const TIDEGATE_READY: &str = "tidegate: ready";

/// What serve-kernel prints when it serves, and what is printed for nginx before it begins.
const READY: &str = "ready";

/// What is needed to start a server.
pub(super) struct Servers<'a> {
    /// Where.
    pub(super) lab: &'a Lab,
    /// Who ends it if this program is ended.
    pub(super) children: &'a Children,
    /// The program `tidegate`.
    pub(super) tidegate: PathBuf,
    /// How a shard of tidegate waits for frames.
    pub(super) wait: String,
    /// The program `nginx`, if it is among the targets.
    pub(super) nginx: Option<PathBuf>,
    /// This program.
    pub(super) this: PathBuf,
    /// The directory served.
    pub(super) root: &'a Path,
    /// A directory for what nginx needs.
    pub(super) work: &'a Path,
    /// The address all of them serve, one after the other, so that they are asked with the same octets.
    pub(super) address: SocketAddr,
    /// The core they run on.
    pub(super) cpu: usize,
}

impl Servers<'_> {
    /// Starts `target`. It runs until the result is dropped. nginx may take another moment until it accepts connections.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(super) fn start(&self, target: Target) -> anyhow::Result<Child> {
        let (command, ready) = match target {
            Target::Tidegate => (self.tidegate(), TIDEGATE_READY),
            Target::Nginx => (self.nginx()?, READY),
            Target::ServeKernel => (self.serve_kernel(), READY),
        };
        // A process is on the core of the thread that starts it.
        let start = || {
            machine::pin_this_thread(self.cpu)?;
            self.children.start(command, ready)
        };
        self.lab
            .inside(Place::Server, start)
            .with_context(|| format!("{} does not start on {}", target.name(), self.address))
    }

    /// The arguments of tidegate, but for what it serves.
    pub(super) fn tidegate_arguments(&self) -> Vec<&str> {
        // Cookies would spare it the half-open connections that the others keep.
        let fixed = ["--xdp-mode", "native", "--syn-cookies", "never", "--drain", "100ms"];
        let mut arguments = fixed.to_vec();
        arguments.extend(["--wait", self.wait.as_str()]);
        arguments
    }

    fn tidegate(&self) -> Command {
        let mut command = self.lab.command(Place::Server, &self.tidegate);
        command.args(["serve", "--quiet", "--iface", SERVER_DEVICE]);
        command.args(self.tidegate_arguments());
        command.args(["--listen", &format!("http={}", self.address)]);
        command.arg("--root").arg(self.root);
        command
    }

    fn nginx(&self) -> anyhow::Result<Command> {
        let program = self.nginx.as_ref().context("nginx was not looked for")?;
        let file = self.work.join(nginx::CONFIGURATION);
        let text = nginx::configuration(self.address, self.root, self.work, self.cpu);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        // nginx does not say when it is ready; the shell is replaced by it.
        let mut command = self.lab.command(Place::Server, Path::new("sh"));
        command.args(["-c", "echo ready; exec \"$0\" \"$@\""]);
        command.arg(program).arg("-p").arg(self.work).arg("-c").arg(file);
        Ok(command)
    }

    fn serve_kernel(&self) -> Command {
        let mut command = self.lab.command(Place::Server, &self.this);
        command.args(["serve-kernel", "--listen", &format!("http={}", self.address)]);
        command.arg("--root").arg(self.root);
        command
    }
}

/// What `program` says about its version when it is asked by `argument`, without what stands before the number.
///
/// # Errors
///
/// It cannot be run, or fails.
pub(super) fn version(program: &Path, argument: &str) -> anyhow::Result<String> {
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
    fn a_program_that_is_not_there_is_named() {
        let error = version(Path::new("/no/such/program"), "--version").unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
        let error = version(Path::new("false"), "--version").unwrap_err().to_string();
        assert!(error.contains("`false --version` failed"), "{error}");
    }
}
