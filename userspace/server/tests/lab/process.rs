//! Child processes whose output is collected and which end with their guard.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const POLL: Duration = Duration::from_millis(10);
const READERS_LIMIT: Duration = Duration::from_secs(1);
const LINES_SHOWN: usize = 40;
const REPORT_LIMIT: Duration = Duration::from_secs(5);
const REPORT_PAUSE: Duration = Duration::from_millis(200);
/// How often a process that is waited for is asked whether it has ended.
const ENDED_POLL: Duration = Duration::from_millis(100);

/// Lines a child has printed so far.
#[derive(Default)]
pub(crate) struct Lines {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Lines {
    fn collect(self: &Arc<Self>, source: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(self);
        std::thread::spawn(move || {
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

    /// How many lines there are.
    pub(crate) fn len(&self) -> usize {
        self.locked().len()
    }

    /// A copy of the lines from number `start` (the first is 0).
    pub(crate) fn since(&self, start: usize) -> Vec<String> {
        self.locked().get(start..).unwrap_or_default().to_vec()
    }

    /// Waits at most `limit` until `found` holds for the lines. Returns whether it does.
    pub(crate) fn wait_for(&self, limit: Duration, found: impl Fn(&[String]) -> bool) -> bool {
        let (_lines, outcome) = self
            .changed
            .wait_timeout_while(self.locked(), limit, |lines| !found(lines.as_slice()))
            .unwrap_or_else(PoisonError::into_inner);
        !outcome.timed_out()
    }

    /// Waits until no line has come for `pause`.
    pub(crate) fn wait_until_quiet(&self, pause: Duration) {
        let mut length = self.len();
        loop {
            std::thread::sleep(pause);
            let now = self.len();
            if now == length {
                return;
            }
            length = now;
        }
    }

    fn last_ones(&self) -> String {
        let lines = self.locked();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }
}

/// A child process. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    description: String,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts `command`, which must be possible.
    pub(crate) fn start(command: Command) -> Self {
        Self::try_start(command).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Starts `command`, or says why it cannot be started.
    pub(crate) fn try_start(mut command: Command) -> Result<Self, String> {
        let description = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("starting {description}: {error}"))?;
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

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed to standard output.
    pub(crate) fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// What it has printed to standard error.
    pub(crate) fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Sends `signal`. A process that is already gone is a failed test.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a process id fits pid_t");
        kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.describe()));
    }

    /// Waits at most `limit` until the process has printed the line `ready`. One that ends before is a failed test.
    pub(crate) fn wait_until_ready(&mut self, ready: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        let is_ready = |lines: &[String]| lines.iter().any(|line| line.trim() == ready);
        while !self.stdout.wait_for(ENDED_POLL, is_ready) {
            if let Some(status) = self.ended() {
                panic!("ended with {status} before the line `{ready}`: {}", self.describe());
            }
            assert!(
                Instant::now() < deadline,
                "no line `{ready}` within {limit:?}: {}",
                self.describe()
            );
        }
    }

    /// The lines that SIGUSR1 asks the process to print.
    pub(crate) fn report(&self) -> Vec<String> {
        let start = self.stdout.len();
        self.signal(Signal::SIGUSR1);
        assert!(
            self.stdout.wait_for(REPORT_LIMIT, |lines| lines.len() > start),
            "no counters within {REPORT_LIMIT:?} of SIGUSR1: {}",
            self.describe()
        );
        self.stdout.wait_until_quiet(REPORT_PAUSE);
        self.stdout.since(start)
    }

    /// Its exit status if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .unwrap_or_else(|error| panic!("waiting for {}: {error}", self.description))
    }

    /// Kills it with SIGKILL and waits for its end.
    pub(crate) fn kill(mut self) {
        self.child
            .kill()
            .unwrap_or_else(|error| panic!("killing {}: {error}", self.description));
        self.child
            .wait()
            .unwrap_or_else(|error| panic!("waiting for {}: {error}", self.description));
    }

    /// Waits for its end, at most `limit`; a process that takes longer is killed and described in
    /// the error.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<Finished, String> {
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
                Ok(None) => return Err(format!("after {limit:?} still runs: {}", self.describe())),
                Err(error) => return Err(format!("waiting for {}: {error}", self.description)),
            }
        };
        // A grandchild that outlives the process may keep the pipes open.
        let deadline = Instant::now() + READERS_LIMIT;
        while Instant::now() < deadline && !self.readers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(POLL);
        }
        Ok(Finished {
            description: self.description.clone(),
            status,
            stdout: self.stdout.since(0).join("\n"),
            stderr: self.stderr.since(0).join("\n"),
        })
    }

    /// The command and the last lines it printed.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{}\n--- stdout:\n{}\n--- stderr:\n{}",
            self.description,
            self.stdout.last_ones(),
            self.stderr.last_ones()
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that is already gone. A reaped child is not signalled again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    description: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Fails the test unless the process ended with exit code 0.
    pub(crate) fn expect_success(self) -> Self {
        assert!(self.status.success(), "{}", self.describe());
        self
    }

    /// The command, how it ended and what it printed.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{}\nended with {}\n--- stdout:\n{}\n--- stderr:\n{}",
            self.description, self.status, self.stdout, self.stderr
        )
    }
}

/// Runs `command` to its end, which must come within `limit`.
pub(crate) fn run(command: Command, limit: Duration) -> Finished {
    Running::start(command)
        .wait(limit)
        .unwrap_or_else(|problem| panic!("{problem}"))
}
