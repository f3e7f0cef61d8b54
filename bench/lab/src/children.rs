//! Processes that end with this one, by a signal too.

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::signal::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::process::Process;

/// The time that a process may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// The time that a process may take to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The processes that have to be ended when this one is.
#[derive(Clone, Default)]
pub struct Children(Arc<Mutex<Vec<Pid>>>);

impl Children {
    /// Takes over SIGINT and SIGTERM: they end all children, and then this process with exit code 1.
    ///
    /// # Errors
    ///
    /// The kernel refuses the handlers or the thread that serves them.
    pub fn new() -> anyhow::Result<Self> {
        let children = Self::default();
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot install the signal handlers")?;
        let all = children.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                if signals.forever().next().is_some() {
                    // Kept until the end of the process, so that no further one is started.
                    let pids = all.locked();
                    for &pid in pids.iter() {
                        // It may be ending already.
                        let _ = kill(pid, Signal::SIGTERM);
                    }
                    eprintln!("tidegate-bench: ended by a signal");
                    std::process::exit(1);
                }
            })
            .context("cannot start a thread")?;
        Ok(children)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts `command` and waits until it prints the line `ready` to standard output. Its errors go to this process's.
    ///
    /// # Errors
    ///
    /// It cannot be started, ends first, or is not ready in time.
    pub fn start(&self, mut command: Command, ready: &str) -> anyhow::Result<Child> {
        let mut child = self.spawn(&mut command)?;
        child.process.wait_until_ready(ready, READY_TIMEOUT)?;
        Ok(child)
    }

    fn spawn(&self, command: &mut Command) -> anyhow::Result<Child> {
        // A signal in between would leave the child behind.
        let mut pids = self.locked();
        let process = Process::spawn(command)?;
        pids.push(process.pid());
        Ok(Child {
            process,
            children: self.clone(),
        })
    }
}

/// A running process. Dropping it ends it: by SIGTERM, and if that is not enough, by SIGKILL.
pub struct Child {
    process: Process,
    children: Children,
}

impl Child {
    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns whether it still runs.
    ///
    /// # Errors
    ///
    /// The process cannot be waited for.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Sends SIGUSR1 and returns the lines that the process prints to standard output then.
    ///
    /// # Errors
    ///
    /// The process is gone, or prints nothing.
    pub fn report(&self) -> anyhow::Result<Vec<String>> {
        self.process.report()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // From here on its number may become another process's.
        let pid = self.process.pid();
        self.children.locked().retain(|&other| other != pid);
        // A process that has ended is not signalled, and one that is still there afterwards ends with its guard.
        if let Ok(None) = self.process.ended() {
            let _ = self.process.signal(Signal::SIGTERM);
            let _ = self.process.wait_for_end(END_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_process_is_ready_when_it_says_so_and_ends_with_its_guard() {
        let children = Children::default();
        let mut process = children
            .start(shell("echo first; echo ready; exec sleep 60"), "ready")
            .unwrap();
        assert!(process.is_running().unwrap());
        let pid = process.process.pid();
        assert_eq!(*children.locked(), [pid]);
        drop(process);
        assert!(children.locked().is_empty());
        assert!(kill(pid, None).is_err(), "it is still there");
    }

    #[test]
    fn no_process_is_started_while_a_signal_ends_them() {
        let children = Children::default();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("started");
        let script = format!("touch {}; echo ready; exec sleep 60", file.display());
        thread::scope(|scope| {
            let ending = children.locked();
            let start = scope.spawn(|| children.start(shell(&script), "ready"));
            thread::sleep(Duration::from_millis(100));
            assert!(!file.exists());
            drop(ending);
            let process = start.join().unwrap().unwrap();
            assert!(file.exists());
            assert_eq!(*children.locked(), [process.process.pid()]);
        });
    }

    #[test]
    fn a_process_that_ends_first_is_an_error_that_names_it() {
        let error = Children::default()
            .start(shell("echo other"), "ready")
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("echo other"), "{error}");
    }
}
