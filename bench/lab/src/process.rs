//! Child processes whose output is collected and which end with their guard.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The interval between two looks at a process that is to end.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The interval between two looks at a process whose output is waited for.
const ENDED_INTERVAL: Duration = Duration::from_millis(100);

/// The time that the rest of the output may take after the end of a process.
const READERS_TIMEOUT: Duration = Duration::from_secs(1);

/// The time that the answer to SIGUSR1 may take.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The silence that ends the answer to SIGUSR1.
const REPORT_PAUSE: Duration = Duration::from_millis(200);

/// The number of lines of each stream that [`Process::describe`] shows.
const MAX_LINES_SHOWN: usize = 40;

/// The lines a child has printed so far.
#[derive(Debug, Default)]
pub struct Lines {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Lines {
    fn collect(self: &Arc<Self>, source: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(self);
        thread::spawn(move || {
            // Read to the end, or the child would stand still when the pipe is full.
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.locked().push(line);
                lines.changed.notify_all();
            }
        })
    }

    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of lines.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a process that has printed nothing is no case of its own"
    )]
    pub fn len(&self) -> usize {
        self.locked().len()
    }

    /// Returns a copy of the lines from number `start` (the first is 0).
    pub fn since(&self, start: usize) -> Vec<String> {
        self.locked().get(start..).unwrap_or_default().to_vec()
    }

    /// Waits at most `timeout` until `found` holds for the lines. Returns whether it does.
    pub fn wait_for(&self, timeout: Duration, found: impl Fn(&[String]) -> bool) -> bool {
        let (_lines, outcome) = self
            .changed
            .wait_timeout_while(self.locked(), timeout, |lines| !found(lines.as_slice()))
            .unwrap_or_else(PoisonError::into_inner);
        !outcome.timed_out()
    }

    /// Waits until no line has come for `pause`.
    fn wait_until_quiet(&self, pause: Duration) {
        let mut length = self.len();
        loop {
            thread::sleep(pause);
            let now = self.len();
            if now == length {
                return;
            }
            length = now;
        }
    }

    fn last_ones(&self) -> String {
        let lines = self.locked();
        lines[lines.len().saturating_sub(MAX_LINES_SHOWN)..].join("\n")
    }
}

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    description: String,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` without standard input, and collects what it prints.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        Self::spawn(command.stderr(Stdio::piped()))
    }

    /// Starts `command` without standard input, and collects what it prints to standard output, and to standard error
    /// if that is a pipe.
    pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let description = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {description}"))?;
        let stdout = Arc::new(Lines::default());
        let stderr = Arc::new(Lines::default());
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|pipe| stdout.collect(pipe)));
        readers.extend(child.stderr.take().map(|pipe| stderr.collect(pipe)));
        Ok(Self {
            child,
            description,
            stdout,
            stderr,
            readers,
        })
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.id().cast_signed())
    }

    /// Returns what it has printed to standard output.
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// Returns what it has printed to standard error.
    pub fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Sends `signal`.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to {}", self.describe()))
    }

    /// Waits at most `timeout` until the process has printed the line `ready` to standard output.
    ///
    /// # Errors
    ///
    /// It has ended before, or the line does not come in time.
    pub fn wait_until_ready(&mut self, ready: &str, timeout: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        let is_ready = |lines: &[String]| lines.iter().any(|line| line.trim() == ready);
        while !self.stdout.wait_for(ENDED_INTERVAL, is_ready) {
            if let Some(status) = self.ended()? {
                self.wait_for_readers();
                if self.stdout.wait_for(Duration::ZERO, is_ready) {
                    break;
                }
                bail!("ended with {status} before the line `{ready}`: {}", self.describe());
            }
            if Instant::now() >= deadline {
                bail!("no line `{ready}` within {timeout:?}: {}", self.describe());
            }
        }
        Ok(())
    }

    /// Sends SIGUSR1 and returns the lines that the process prints to standard output then.
    ///
    /// # Errors
    ///
    /// The process is gone, or prints nothing.
    pub fn report(&self) -> anyhow::Result<Vec<String>> {
        let start = self.stdout.len();
        self.signal(Signal::SIGUSR1)?;
        if !self.stdout.wait_for(REPORT_TIMEOUT, |lines| lines.len() > start) {
            bail!("nothing within {REPORT_TIMEOUT:?} of SIGUSR1: {}", self.describe());
        }
        self.stdout.wait_until_quiet(REPORT_PAUSE);
        Ok(self.stdout.since(start))
    }

    /// Returns its exit status if it has ended.
    ///
    /// # Errors
    ///
    /// The process cannot be waited for.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot wait for {}", self.description))
    }

    /// Waits at most `timeout` for its end. Returns whether it has ended.
    ///
    /// # Errors
    ///
    /// The process cannot be waited for.
    pub(crate) fn wait_for_end(&mut self, timeout: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + timeout;
        while self.ended()?.is_none() {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(true)
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    ///
    /// The process cannot be waited for.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .with_context(|| format!("cannot kill {}", self.description))?;
        Ok(())
    }

    /// Waits at most `timeout` for its end.
    ///
    /// # Errors
    ///
    /// It still runs then, and is killed.
    pub fn wait(mut self, timeout: Duration) -> anyhow::Result<Finished> {
        if !self.wait_for_end(timeout)? {
            bail!("after {timeout:?} still runs: {}", self.describe());
        }
        let status = self.child.wait().context("the child was waited for before")?;
        self.wait_for_readers();
        Ok(Finished {
            description: self.description.clone(),
            status,
            stdout: self.stdout.since(0).join("\n"),
            stderr: self.stderr.since(0).join("\n"),
        })
    }

    /// Waits until everything is collected that a process which has ended has printed.
    fn wait_for_readers(&self) {
        // A grandchild that outlives the process may keep the pipes open.
        let deadline = Instant::now() + READERS_TIMEOUT;
        while Instant::now() < deadline && !self.readers.iter().all(JoinHandle::is_finished) {
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Returns the command and the last lines it printed.
    pub fn describe(&self) -> String {
        format!(
            "{}\n--- stdout:\n{}\n--- stderr:\n{}",
            self.description,
            self.stdout.last_ones(),
            self.stderr.last_ones()
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is already gone. A reaped child is not signalled again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    description: String,
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything it has printed to standard output.
    pub stdout: String,
    /// Everything it has printed to standard error.
    pub stderr: String,
}

impl Finished {
    /// Panics unless the process ended with exit code 0.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(self.status.success(), "{}", self.describe());
        self
    }

    /// Returns the command, how it ended and what it printed.
    pub fn describe(&self) -> String {
        format!(
            "{}\nended with {}\n--- stdout:\n{}\n--- stderr:\n{}",
            self.description, self.status, self.stdout, self.stderr
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command).unwrap()
    }

    #[test]
    fn output_and_exit_status_are_collected() {
        let finished = shell("echo out; echo err >&2; exit 3").wait(TIMEOUT).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out", "err"));
        assert!(
            finished.describe().contains("exit status: 3"),
            "{}",
            finished.describe()
        );
    }

    #[test]
    fn a_process_that_does_not_end_is_killed() {
        let process = shell("exec sleep 60");
        let pid = process.pid();
        let error = process.wait(Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("still runs") && error.contains("sleep 60"), "{error}");
        assert!(kill(pid, None).is_err(), "it is still there");
    }

    #[test]
    fn a_report_is_what_comes_after_the_signal() {
        let mut process = shell("trap 'echo one; echo two' USR1; echo ready; while :; do sleep 0.05; done");
        process.wait_until_ready("ready", TIMEOUT).unwrap();
        assert_eq!(process.report().unwrap(), ["one", "two"]);
        process.kill().unwrap();
    }

    #[test]
    fn a_process_that_ends_before_it_is_ready_is_an_error_with_its_output() {
        let error = shell("echo other; exit 4")
            .wait_until_ready("ready", TIMEOUT)
            .unwrap_err();
        let error = error.to_string();
        assert!(error.contains("exit status: 4") && error.contains("other"), "{error}");
    }

    #[test]
    fn output_that_is_read_after_the_end_is_in_the_error_too() {
        // What a child of the process prints comes as late as what a reader has not got to yet.
        let error = shell("(sleep 0.2; echo late >&2) & exit 4")
            .wait_until_ready("ready", TIMEOUT)
            .unwrap_err();
        let error = error.to_string();
        assert!(error.contains("exit status: 4") && error.contains("late"), "{error}");
    }
}
