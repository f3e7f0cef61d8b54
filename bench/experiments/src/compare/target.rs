//! Starting the servers under test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use tidegate_lab::arrangement::SERVER_DEVICE;
use tidegate_lab::machine;
use tidegate_lab::{Child, Children};
use tidegate_lab::{Lab, Place};

use super::plan::Target;
use crate::nginx;

/// The line that tidegate prints when it serves.
const TIDEGATE_READY: &str = "tidegate: ready";

/// The line that serve-kernel prints when it serves.
const SERVE_KERNEL_READY: &str = "ready";

/// All that is needed to start a server.
pub(super) struct Servers<'a> {
    /// Where.
    pub(super) lab: &'a Lab,
    /// The guard that ends it if this program is ended.
    pub(super) children: &'a Children,
    /// The program `tidegate`.
    pub(super) tidegate: PathBuf,
    /// The way a shard of tidegate waits for frames.
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
    /// Starts `target`. It runs until the result is dropped. nginx may take another moment until it accepts
    /// connections.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(super) fn start(&self, target: Target) -> anyhow::Result<Child> {
        let (command, ready) = match target {
            Target::Tidegate => (self.tidegate(), TIDEGATE_READY),
            Target::Nginx => (self.nginx()?, nginx::READY),
            Target::ServeKernel => (self.serve_kernel(), SERVE_KERNEL_READY),
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
        let mut shell = self.lab.command(Place::Server, "sh");
        let text = nginx::configuration(self.address, self.root, self.work, self.cpu);
        nginx::add_to(&mut shell, program, self.work, &text)?;
        Ok(shell)
    }

    fn serve_kernel(&self) -> Command {
        let mut command = self.lab.command(Place::Server, &self.this);
        command.args(["serve-kernel", "--listen", &format!("http={}", self.address)]);
        command.arg("--root").arg(self.root);
        command
    }
}
