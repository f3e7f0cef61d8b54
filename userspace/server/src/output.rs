//! Output that never makes anybody wait.
//!
//! A reader may stop reading for as long as it likes, and a pipe that is full blocks whoever writes to it. So a thread
//! of its own writes to standard output and another to standard error; what they cannot take is lost, and counted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that may wait to be written: some ten reports of all counters.
const MAX_WAITING: usize = 1 << 20;

/// How long a writer waits where a descriptor does not block and takes nothing.
const RETRY: Duration = Duration::from_millis(10);

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
    /// What the kernel says: too many descriptors, or threads.
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

    /// Waits until everything is written, for at most `limit`. Returns whether it is.
    pub(crate) fn finish(&self, limit: Duration) -> bool {
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.locked(), limit, |state| state.waiting > 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting == 0
    }
}

/// The thread that writes.
fn write_all(shared: &Shared, mut file: File) {
    loop {
        let mut state = shared
            .changed
            .wait_while(shared.locked(), |state| state.texts.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(text) = state.texts.pop_front() else { continue };
        drop(state);
        let written = write_text(&mut file, &text);
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

fn write_text(file: &mut File, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match file.write(text) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares the descriptor has made it non-blocking.
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

/// Waits until both are written, for at most `limit` together.
pub(crate) fn finish(limit: Duration) {
    let deadline = Instant::now() + limit;
    for output in [stdout(), stderr()].into_iter().flatten() {
        output.finish(deadline.saturating_duration_since(Instant::now()));
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

    #[test]
    fn what_nobody_reads_makes_nobody_wait_and_is_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::to(writer.as_fd(), "test").unwrap();
        drop(writer);
        let text = [b'x'; 100_000];
        for _ in 0..100 {
            output.write(&text);
        }
        assert!(!output.finish(Duration::from_millis(1)), "a pipe took 1 MB");
        // Ten are a little less than a MiB. One more fits if part of the first is in the pipe by then; no more do, since a
        // text counts until it is written whole.
        let lost = output.lost();
        assert_eq!(lost, 90);
        let mut read = vec![0; (100 - lost as usize) * text.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read.iter().all(|&byte| byte == b'x'));
        assert!(output.finish(Duration::from_secs(10)));
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
        assert!(output.finish(Duration::from_secs(10)));
        assert_eq!(output.lost(), 3);
    }
}
