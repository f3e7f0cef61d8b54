//! Processes that end with this one.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::signal::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long a process may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// How long a process may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(10);

/// The processes that have to be ended when this one is.
#[derive(Clone, Default)]
pub(crate) struct Children(Arc<Mutex<Vec<Pid>>>);

impl Children {
    /// Takes over SIGINT and SIGTERM: they end all children, and then this process with exit code 1.
    ///
    /// # Errors
    ///
    /// The kernel refuses the handlers or the thread that serves them.
    pub(crate) fn new() -> anyhow::Result<Self> {
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

    fn spawn(&self, command: &mut Command) -> anyhow::Result<Process> {
        // A signal in between would leave the child behind.
        let mut pids = self.locked();
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("the process id is out of range")?);
        pids.push(pid);
        Ok(Process {
            child,
            pid,
            children: self.clone(),
        })
    }

    /// Starts `command` and waits until it prints the line `ready` to standard output. Its errors go to this process's.
    ///
    /// # Errors
    ///
    /// It cannot be started, ends first, or is not ready in time.
    pub(crate) fn start(&self, mut command: Command, ready: &'static str) -> anyhow::Result<Process> {
        let description = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = self
            .spawn(&mut command)
            .with_context(|| format!("cannot start {description}"))?;
        let output = process.child.stdout.take();
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new()
            .spawn(move || {
                // Read to the end, or the child would stand still when the pipe is full.
                for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
                    let Ok(line) = line else { return };
                    if line == ready {
                        // Nobody waits any more when it came too late.
                        let _ = sender.send(());
                    }
                }
            })
            .context("cannot start a thread")?;
        match receiver.recv_timeout(READY_LIMIT) {
            Ok(()) => Ok(process),
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "after {} s there is no line `{ready}` from {description}",
                    READY_LIMIT.as_secs()
                )
            }
            Err(RecvTimeoutError::Disconnected) => bail!("ended before it was ready: {description}"),
        }
    }
}

/// A running process. Dropping it ends it: by SIGTERM, and if that is not enough, by SIGKILL.
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    children: Children,
}

impl Process {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn is_running(&mut self) -> anyhow::Result<bool> {
        let status = self.child.try_wait().context("cannot look after a child process")?;
        Ok(status.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // From here on its number may become another process's.
        self.children.locked().retain(|&pid| pid != self.pid);
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = kill(self.pid, Signal::SIGTERM);
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        // Both fail only for a process that has just ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
        let pid = process.pid;
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
            assert_eq!(*children.locked(), [process.pid]);
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
