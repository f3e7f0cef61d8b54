//! The lab's network namespaces, from the outside.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// The lab that `scripts/lab.sh up` makes. A value is only its name: it neither makes a lab nor takes it down.
#[derive(Clone, Debug)]
pub struct Lab {
    name: Cow<'static, str>,
}

/// One of the lab's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The client's.
    Client,
    /// The one between the two, which only a lab made by `up --middle` has.
    Middle,
    /// The server's.
    Server,
}

impl Lab {
    /// Returns the lab called `name`, whether it is up or not.
    pub fn named(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into() }
    }

    /// Returns the lab called `name`, which must be up with a middle.
    ///
    /// # Errors
    ///
    /// One of its namespaces is missing.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        let lab = Self::of(name);
        if let Some(missing) = lab.missing(&[Place::Client, Place::Middle, Place::Server]) {
            bail!(
                "there is no network namespace {missing}; run `scripts/lab.sh up --middle`, or `scripts/goodput.sh` or \
                 `scripts/fairness.sh`, which do that too"
            );
        }
        Ok(lab)
    }

    /// Returns the lab called `name`, which must be up without a middle.
    ///
    /// # Errors
    ///
    /// One of its namespaces is missing, or there is a middle.
    pub fn find_direct(name: &str) -> anyhow::Result<Self> {
        let lab = Self::of(name);
        let remedy = "run `scripts/lab.sh up`, or `scripts/resilience.sh` or `scripts/compare.sh`, which do that too";
        if let Some(missing) = lab.missing(&[Place::Client, Place::Server]) {
            bail!("there is no network namespace {missing}; {remedy}");
        }
        if lab.exists(Place::Middle) {
            bail!("the lab has a middle, {}; {remedy}", lab.namespace(Place::Middle));
        }
        Ok(lab)
    }

    fn of(name: &str) -> Self {
        Self {
            name: Cow::Owned(name.to_owned()),
        }
    }

    fn missing(&self, places: &[Place]) -> Option<String> {
        let place = places.iter().find(|&&place| !self.exists(place))?;
        Some(self.namespace(*place))
    }

    /// Returns the lab's name, which `scripts/lab.sh` takes as TIDEGATE_LAB.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the namespace is there now.
    pub fn exists(&self, place: Place) -> bool {
        self.path(place).exists()
    }

    /// Returns the name that `ip netns` knows the namespace by.
    pub fn namespace(&self, place: Place) -> String {
        let side = match place {
            Place::Client => "client",
            Place::Middle => "middle",
            Place::Server => "server",
        };
        format!("{}-{side}", self.name)
    }

    fn path(&self, place: Place) -> PathBuf {
        Path::new("/run/netns").join(self.namespace(place))
    }

    /// Returns a command that runs `program` at `place`. `ip netns exec` replaces itself by it, so the child is the
    /// program.
    pub fn command(&self, place: Place, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(place)]).arg(program);
        command
    }

    /// Runs `work` on a thread at `place`. Sockets it makes stay there for life, and so do threads it starts. A panic
    /// of `work` goes on in the caller.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered, or what `work` returns.
    pub fn inside<T: Send>(&self, place: Place, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let path = self.path(place);
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .spawn_scoped(scope, move || {
                    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
                    setns(&file, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("cannot enter the namespace of {}", path.display()))?;
                    work()
                })
                .context("cannot start a thread")?;
            thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    /// As [`Lab::inside`], and `/sys` is that of the namespace, as AF_XDP's set-up needs it.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered, its `/sys` not be mounted, or what `work` returns.
    pub fn inside_with_sysfs<T: Send>(
        &self,
        place: Place,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.inside(place, || {
            mount_sysfs().context("cannot mount the /sys of the namespace")?;
            work()
        })
    }

    /// Sets a kernel variable at `place`, for example `net.ipv4.tcp_sack`.
    ///
    /// # Errors
    ///
    /// The kernel does not know it, or refuses.
    pub fn set_variable(&self, place: Place, variable: &str, value: impl Display) -> anyhow::Result<()> {
        let path = format!("/proc/sys/{}", variable.replace('.', "/"));
        let value = value.to_string();
        self.inside(place, || {
            fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|mut file| file.write_all(value.as_bytes()))
                .with_context(|| format!("cannot set {path} to {value}"))
        })
    }
}

/// Gives the calling thread, and those it starts, the `/sys` of its network namespace, as `ip netns exec` does.
fn mount_sysfs() -> nix::Result<()> {
    const NONE: Option<&str> = None;
    // Mounts of its own, of which nobody else learns.
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE)?;
    umount2("/sys", MntFlags::MNT_DETACH)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_that_is_not_up_comes_with_the_way_to_bring_it_up() {
        let error = Lab::find("no-such-lab").map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("no-such-lab-client") && error.contains("lab.sh up --middle"),
            "{error}"
        );
    }

    #[test]
    fn a_lab_without_a_middle_is_asked_for_as_such() {
        let error = Lab::find_direct("no-such-lab").map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("no-such-lab-client") && error.contains("resilience.sh"),
            "{error}"
        );
    }

    #[test]
    fn commands_name_the_namespace() {
        let command = Lab::named("tg").command(Place::Middle, "/bin/true");
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["netns", "exec", "tg-middle", "/bin/true"]);
    }
}
