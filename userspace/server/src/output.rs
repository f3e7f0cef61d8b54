//! Output that never makes anybody wait.
//!
//! A reader may stop reading for as long as it likes, and a pipe that is full blocks its writers. So a thread
//! of its own writes to standard output and another to standard error; what they cannot take is lost, and counted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::privileges;

/// Bytes that may wait to be written: some ten reports of all counters.
const MAX_WAITING: usize = 1 << 20;

/// The time a writer waits where a descriptor does not block and takes nothing.
const RETRY: Duration = Duration::from_millis(10);

/// Bytes given to the kernel at a time, of which a pipe takes all or none at once (`PIPE_BUF`).
const CHUNK: usize = 4096;

/// The time that the last output may take to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputTimeout {
    /// The time without any of it being read.
    pub(crate) idle: Duration,
    /// The time in all.
    pub(crate) total: Duration,
}

impl OutputTimeout {
    /// Until when to wait that has begun at `began`, if the last was read at `read_at`.
    fn deadline(self, began: Instant, read_at: Option<Instant>) -> Instant {
        let since = read_at.map_or(began, |read_at| read_at.max(began));
        (since + self.idle).min(began + self.total)
    }
}

/// Text on its way to a descriptor, at most [`MAX_WAITING`] bytes of it.
pub(crate) struct Output {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    texts: VecDeque<Box<[u8]>>,
    /// Bytes of `texts` and of the one that is being written.
    waiting: usize,
    /// The time at which the descriptor last took something.
    written_at: Option<Instant>,
    lost: u64,
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    /// Output to what `descriptor` is open to.
    ///
    /// # Errors
    ///
    /// The kernel's error: too many descriptors, or threads.
    fn to(descriptor: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        let file = File::from(descriptor.try_clone_to_owned()?);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || write_all(&writer, file))?;
        Ok(Self { shared })
    }

    /// Has `text` written, whole or, where too much waits already, not at all. Returns at once.
    pub(crate) fn write(&self, text: &[u8]) {
        let mut state = self.shared.locked();
        if state.waiting + text.len() > MAX_WAITING {
            state.lost += 1;
            return;
        }
        state.waiting += text.len();
        state.texts.push_back(text.into());
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Texts that were lost, because nobody read or the descriptor is closed.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.locked().lost
    }

    /// Waits until everything is written, for as long as `timeout`, which has begun at `began`, allows. Returns
    /// whether it is.
    fn finish(&self, began: Instant, timeout: OutputTimeout) -> bool {
        let mut state = self.shared.locked();
        while state.waiting > 0 {
            let left = timeout
                .deadline(began, state.written_at)
                .saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        true
    }
}

/// The thread that writes.
fn write_all(shared: &Shared, mut file: File) {
    privileges::confine_helper();
    loop {
        let mut state = shared
            .changed
            .wait_while(shared.locked(), |state| state.texts.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(text) = state.texts.pop_front() else { continue };
        drop(state);
        let written = write_text(shared, &mut file, &text);
        let mut state = shared.locked();
        state.waiting -= text.len();
        // A reader that has gone away does not stop the server.
        if written.is_err() {
            state.lost += 1;
        }
        drop(state);
        shared.changed.notify_all();
    }
}

fn write_text(shared: &Shared, file: &mut File, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        // A pipe that blocks would return from writing all of it only at the end.
        match file.write(&text[..text.len().min(CHUNK)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                text = &text[written..];
                shared.locked().written_at = Some(Instant::now());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process that shares the descriptor has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Standard output.
pub(crate) fn stdout() -> Option<&'static Output> {
    static STDOUT: OnceLock<Option<Output>> = OnceLock::new();
    STDOUT
        .get_or_init(|| Output::to(io::stdout().as_fd(), "stdout").ok())
        .as_ref()
}

/// Standard error.
pub(crate) fn stderr() -> Option<&'static Output> {
    static STDERR: OnceLock<Option<Output>> = OnceLock::new();
    STDERR
        .get_or_init(|| Output::to(io::stderr().as_fd(), "stderr").ok())
        .as_ref()
}

/// Texts lost on both.
pub(crate) fn lost() -> u64 {
    [stdout(), stderr()].into_iter().flatten().map(Output::lost).sum()
}

/// Waits until both are written, for as long as `timeout` allows both together.
pub(crate) fn finish(timeout: OutputTimeout) {
    let began = Instant::now();
    for output in [stdout(), stderr()].into_iter().flatten() {
        output.finish(began, timeout);
    }
}

/// Standard error as a writer, for the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if let Some(output) = stderr() {
            output.write(text);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const TIMEOUT: OutputTimeout = OutputTimeout {
        idle: Duration::from_secs(10),
        total: Duration::from_secs(60),
    };

    #[test]
    fn a_reader_that_goes_on_reading_is_waited_for_but_not_for_ever() {
        let timeout = OutputTimeout {
            idle: Duration::from_secs(1),
            total: Duration::from_secs(10),
        };
        let began = Instant::now();
        let after = |ms| began + Duration::from_millis(ms);
        let deadline = |read_at| timeout.deadline(began, read_at);
        assert_eq!(deadline(None), after(1000));
        // What was read before does not count.
        assert_eq!(deadline(began.checked_sub(Duration::from_millis(500))), after(1000));
        assert_eq!(deadline(Some(after(900))), after(1900));
        assert_eq!(deadline(Some(after(8000))), after(9000));
        assert_eq!(deadline(Some(after(9500))), after(10_000));
    }

    #[test]
    fn every_chunk_that_is_read_of_a_long_text_counts() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::to(writer.as_fd(), "test").unwrap();
        drop(writer);
        output.write(&vec![b'x'; MAX_WAITING]);
        let read_at = || output.shared.locked().written_at;
        // One text, so nothing less waits until all of it is written; a pipe takes 64 KiB by itself.
        let mut chunk = vec![0; MAX_WAITING / 2];
        reader.read_exact(&mut chunk).unwrap();
        let half = read_at().expect("half of it was read");
        assert!(output.shared.locked().waiting > 0);
        reader.read_exact(&mut chunk).unwrap();
        assert!(output.finish(Instant::now(), TIMEOUT));
        assert!(read_at() > Some(half));
    }

    #[test]
    fn what_nobody_reads_makes_nobody_wait_and_is_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::to(writer.as_fd(), "test").unwrap();
        drop(writer);
        let text = [b'x'; 100_000];
        for _ in 0..100 {
            output.write(&text);
        }
        let no_time = OutputTimeout {
            idle: Duration::from_millis(1),
            ..TIMEOUT
        };
        // What the pipe takes counts as read.
        assert!(!output.finish(Instant::now(), no_time), "a pipe took 1 MB");
        // Ten are a little less than a MiB. One more fits if part of the first is in the pipe by then; no more do,
        // since a text counts until it is written whole.
        let lost = output.lost();
        assert_eq!(lost, 90);
        let mut read = vec![0; (100 - lost as usize) * text.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read.iter().all(|&byte| byte == b'x'));
        assert!(output.finish(Instant::now(), TIMEOUT));
        output.write(b"after that\n");
        let mut line = [0; 11];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"after that\n");
    }

    #[test]
    fn a_reader_that_has_gone_away_is_counted_and_stops_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        let output = Output::to(writer.as_fd(), "test").unwrap();
        drop(reader);
        for _ in 0..3 {
            output.write(b"a line\n");
        }
        assert!(output.finish(Instant::now(), TIMEOUT));
        assert_eq!(output.lost(), 3);
    }
}
