//! A program on a terminal of its own, as its user sees it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

/// The sequences that have a terminal leave the second screen, and show its cursor.
const LEAVE: &str = "\u{1b}[?1049l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";

/// The interval at which the end of the program is looked for.
const PAUSE: Duration = Duration::from_millis(10);

/// The stream on which a program draws. The other one of the two is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// Standard output.
    StandardOutput,
    /// Standard error.
    StandardError,
}

/// A program that draws on a terminal of 80 columns and 24 lines, which is its standard input, too. It is killed when
/// this is dropped.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    terminal: OwnedFd,
    screen: Receiver<Vec<u8>>,
    shown: String,
    told: Option<JoinHandle<std::io::Result<String>>>,
    limit: Duration,
}

impl Terminal {
    /// Starts `command`; whatever is waited for may take up to `limit`.
    ///
    /// # Errors
    ///
    /// The program cannot be started, or there is no terminal for it.
    pub fn start(mut command: Command, drawn: Drawn, limit: Duration) -> anyhow::Result<Self> {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).context("cannot make a terminal")?;
        let end = || slave.try_clone().map(Stdio::from);
        command.env("TERM", "xterm").stdin(end()?);
        match drawn {
            Drawn::StandardOutput => command.stdout(end()?).stderr(Stdio::piped()),
            Drawn::StandardError => command.stderr(end()?).stdout(Stdio::piped()),
        };
        let mut child = command.spawn().context("cannot start the program")?;
        let told: Box<dyn Read + Send> = match (child.stdout.take(), child.stderr.take()) {
            (Some(stream), _) => Box::new(stream),
            (_, Some(stream)) => Box::new(stream),
            (None, None) => bail!("the program has no stream that is read"),
        };
        let told = thread::spawn(move || std::io::read_to_string(told));
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().context("cannot read the terminal")?;
        let (shown, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // When the terminal is gone, reading fails.
            while let Ok(count) = output.read(&mut buffer) {
                if shown.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            keyboard,
            terminal: slave,
            screen,
            shown: String::new(),
            told: Some(told),
            limit,
        })
    }

    /// Types `keys`.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub fn press(&mut self, keys: &[u8]) -> anyhow::Result<()> {
        self.keyboard.write_all(keys).context("cannot type")
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).context("cannot signal the program")
    }

    /// Waits until `text` was drawn in one piece.
    ///
    /// # Errors
    ///
    /// It was not within the limit, or the program has ended.
    pub fn wait_for(&mut self, text: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.limit;
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.screen.recv_timeout(left);
            let bytes = bytes.with_context(|| format!("no {text:?} in {:?}", self.shown))?;
            self.shown += &String::from_utf8_lossy(&bytes);
        }
        Ok(())
    }

    /// Whether keys reach the program one by one, and without an echo.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub fn is_raw(&self) -> anyhow::Result<bool> {
        let flags = tcgetattr(&self.terminal).context("the terminal is gone")?.local_flags;
        Ok(!flags.contains(LocalFlags::ICANON | LocalFlags::ECHO))
    }

    /// Waits for the end of the program. Returns its exit code, and the text of the stream that is read.
    ///
    /// # Errors
    ///
    /// It does not end, or leaves the terminal in another state than it was in.
    pub fn end(mut self) -> anyhow::Result<(Option<i32>, String)> {
        self.wait_for(LEAVE)?;
        self.wait_for(SHOW_CURSOR)?;
        let deadline = Instant::now() + self.limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "the program does not end");
            thread::sleep(PAUSE);
        };
        ensure!(!self.is_raw()?, "the terminal is not as it was");
        let told = match self.told.take().map(JoinHandle::join) {
            Some(Ok(told)) => told.context("its output is no text")?,
            _ => bail!("its output was not read"),
        };
        Ok((status.code(), told))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, unless something was not as expected.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
