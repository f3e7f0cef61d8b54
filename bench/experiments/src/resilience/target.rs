//! Starting the servers under test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use tidegate_lab::Family;
use tidegate_lab::arrangement::SERVER_DEVICE;
use tidegate_lab::machine;
use tidegate_lab::{Child, Children};
use tidegate_lab::{Lab, Place};

use super::linux_listener;
use super::plan::Target;
use crate::nginx;

/// All that is needed to start a server.
pub(super) struct Servers<'a> {
    /// Where.
    pub(super) lab: &'a Lab,
    /// The guard that ends it if this program is ended.
    pub(super) children: &'a Children,
    /// The program `tidegate`.
    pub(super) tidegate: PathBuf,
    /// The program `nginx`, if it is installed.
    pub(super) nginx: Option<PathBuf>,
    /// A directory for what nginx needs.
    pub(super) work: &'a Path,
    /// This program.
    pub(super) this: PathBuf,
    /// The directory served.
    pub(super) root: &'a Path,
    /// The core it runs on.
    pub(super) cpu: usize,
}

impl Servers<'_> {
    /// Starts `target` for one IP version. It runs until the result is dropped. nginx may take another moment until it
    /// accepts connections.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(super) fn start(&self, target: Target, family: Family) -> anyhow::Result<Child> {
        let address = SocketAddr::new(family.server(), target.port());
        let (command, ready) = match target {
            Target::TidegateAuto => (self.tidegate(address, "auto"), "tidegate: ready"),
            Target::TidegateNever => (self.tidegate(address, "never"), "tidegate: ready"),
            Target::LinuxOnOverflow | Target::LinuxAlways => (self.linux(address), linux_listener::READY),
            Target::Nginx => (self.nginx(address)?, nginx::READY),
        };
        let value = if target == Target::LinuxAlways { 2 } else { 1 };
        // It is for IPv6, too.
        self.lab.set_variable(Place::Server, "net.ipv4.tcp_syncookies", value)?;
        // A process is on the core of the thread that starts it.
        let start = || {
            machine::pin_this_thread(self.cpu)?;
            self.children.start(command, ready)
        };
        self.lab
            .inside(Place::Server, start)
            .with_context(|| format!("{} does not start on {address}", target.name()))
    }

    /// `program`, to be run before the kernel thread that polls the device on the same core, which else runs until its
    /// time slice is over.
    fn command(&self, program: &Path) -> Command {
        let mut command = self.lab.command(Place::Server, Path::new("nice"));
        command.args(["-n", "-10"]).arg(program);
        command
    }

    fn tidegate(&self, address: SocketAddr, syn_cookies: &str) -> Command {
        let mut command = self.command(&self.tidegate);
        command.args(["serve", "--quiet", "--iface", SERVER_DEVICE, "--xdp-mode", "native"]);
        command.args(["--listen", &format!("http={address}")]);
        command.args(["--syn-cookies", syn_cookies]);
        // A server that spins takes its core from the device that is polled on it.
        command.args(["--wait", "poll", "--drain", "100ms"]);
        command.arg("--root").arg(self.root);
        command
    }

    fn linux(&self, address: SocketAddr) -> Command {
        let mut command = self.command(&self.this);
        command.args(["resilience", "--linux-listener", &address.to_string()]);
        command
    }

    fn nginx(&self, address: SocketAddr) -> anyhow::Result<Command> {
        let program = self.nginx.as_ref().context("nginx is not installed")?;
        let mut shell = self.command(Path::new("sh"));
        let text = nginx::configuration(address, self.root, self.work, self.cpu);
        nginx::add_to(&mut shell, program, self.work, &text)?;
        Ok(shell)
    }
}
