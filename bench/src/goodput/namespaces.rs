//! The lab's network namespaces, from the outside.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, anyhow, bail};
use nix::sched::{CloneFlags, setns};

/// The lab with a middle: `scripts/lab.sh up --middle`.
pub(super) struct Lab {
    name: String,
}

/// One of the lab's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Where the client is.
    Client,
    /// Where the link is.
    Middle,
    /// Where both servers are.
    Server,
}

impl Lab {
    /// The lab called `name`, which must be up.
    ///
    /// # Errors
    ///
    /// One of its namespaces is missing.
    pub(super) fn find(name: &str) -> anyhow::Result<Self> {
        let lab = Self { name: name.to_owned() };
        for place in [Place::Client, Place::Middle, Place::Server] {
            if !lab.path(place).exists() {
                bail!(
                    "there is no network namespace {}; run `scripts/lab.sh up --middle`, or `scripts/goodput.sh`, \
                     which does that too",
                    lab.namespace(place)
                );
            }
        }
        Ok(lab)
    }

    fn namespace(&self, place: Place) -> String {
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

    /// `program`, to be run at `place`. `ip netns exec` replaces itself by it, so the child is the program.
    pub(super) fn command(&self, place: Place, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(place)]).arg(program);
        command
    }

    /// Runs `work` on a thread at `place`. Sockets it makes stay there for life, and so do threads it starts.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered, or what `work` returns.
    pub(super) fn inside<T: Send>(
        &self,
        place: Place,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
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
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a thread in the lab panicked")))
        })
    }

    /// Sets a variable of `net.ipv4` at `place`.
    ///
    /// # Errors
    ///
    /// The kernel does not know it, or refuses.
    pub(super) fn set_ipv4(&self, place: Place, variable: &str, value: u32) -> anyhow::Result<()> {
        let path = format!("/proc/sys/net/ipv4/{variable}");
        self.inside(place, || {
            fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|mut file| file.write_all(value.to_string().as_bytes()))
                .with_context(|| format!("cannot set {path} to {value}"))
        })
    }
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
    fn commands_name_the_namespace() {
        let lab = Lab { name: "tg".to_owned() };
        let command = lab.command(Place::Middle, Path::new("/bin/true"));
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["netns", "exec", "tg-middle", "/bin/true"]);
    }
}
