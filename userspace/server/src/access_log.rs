//! The access log: records of the shards on their way to a file.
//!
//! Each shard puts its records into a bounded queue of its own, and one thread writes what is in all of them. A shard
//! never waits: where its queue is full the record is lost, and counted, as is what cannot be written.

mod config;
mod format;
mod writer;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tidegate_apps::http::{self, AccessRecord, AccessSink};

pub(crate) use self::config::{AccessLogConfig, AccessLogFormat};
use crate::failure::Failure;
use crate::privileges::{self, Access};

/// The time a record waits for others to be written with it, at most.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// The time the last records have to be written.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// The interval at which is looked whether they are.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The access log of the process.
static PUBLISHED: OnceLock<Arc<Shared>> = OnceLock::new();

/// Counts of the records, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccessLogCounts {
    /// Records written.
    pub(crate) written: u64,
    /// Records lost because the queue of their shard was full.
    pub(crate) lost_queue_full: u64,
    /// Records lost because the file could not be written.
    pub(crate) lost_write_failed: u64,
    /// Times the file was opened anew.
    pub(crate) reopened: u64,
}

impl AccessLogCounts {
    /// Name, description and value of every counter.
    pub(crate) fn described(&self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("written", "Requests written to the access log.", self.written),
            (
                "lost_queue_full",
                "Requests not logged because the queue of their shard was full.",
                self.lost_queue_full,
            ),
            (
                "lost_write_failed",
                "Requests not logged because the file could not be written.",
                self.lost_write_failed,
            ),
            ("reopened", "Times the access log was opened anew.", self.reopened),
        ]
    }
}

/// The queue of one shard.
struct Queue {
    shard: u32,
    full: ArrayQueue<Box<AccessRecord>>,
    /// Records that were written, to be used again.
    free: ArrayQueue<Box<AccessRecord>>,
    put: AtomicU64,
    lost: AtomicU64,
    writer: thread::Thread,
}

impl AccessSink for Queue {
    fn take(&self) -> Box<AccessRecord> {
        self.free.pop().unwrap_or_default()
    }

    fn put(&self, record: Box<AccessRecord>) {
        if let Err(record) = self.full.push(record) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            let _ = self.free.push(record);
        }
        // The writer is woken now and then only: it looks by itself, too.
        let wake_each = (self.full.capacity() / 4).max(1) as u64;
        if (self.put.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(wake_each) {
            self.writer.unpark();
        }
    }
}

/// A file to write to, and how.
struct Target {
    file: File,
    path: PathBuf,
    format: AccessLogFormat,
}

/// Settings that can be adopted.
pub(crate) struct PreparedLog {
    config: AccessLogConfig,
    /// `None`: the file stays the same, or there is none.
    target: Option<Target>,
}

/// The part of the writer that others see.
#[derive(Default)]
struct Shared {
    queues: Mutex<Vec<Arc<Queue>>>,
    /// The file to write to from now on.
    next: Mutex<Option<Target>>,
    stop: AtomicBool,
    written: AtomicU64,
    lost_write_failed: AtomicU64,
    reopened: AtomicU64,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> MutexGuard<'_, Option<Target>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> AccessLogCounts {
        let lost = self
            .queues()
            .iter()
            .map(|queue| queue.lost.load(Ordering::Relaxed))
            .sum();
        AccessLogCounts {
            written: self.written.load(Ordering::Relaxed),
            lost_queue_full: lost,
            lost_write_failed: self.lost_write_failed.load(Ordering::Relaxed),
            reopened: self.reopened.load(Ordering::Relaxed),
        }
    }
}

/// Counts of the records of the process's access log until now, by outcome.
pub(crate) fn counts() -> AccessLogCounts {
    PUBLISHED
        .get()
        .map_or_else(AccessLogCounts::default, |shared| shared.counts())
}

/// The access log. Dropping it writes what is left, within two seconds.
pub(crate) struct AccessLog {
    shared: Arc<Shared>,
    /// `None`: nothing was ever to be logged.
    writer: Option<JoinHandle<()>>,
    config: AccessLogConfig,
}

impl AccessLog {
    /// Opens the file, if there is to be one.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or there is no thread to be had.
    pub(crate) fn start(config: &AccessLogConfig) -> Result<Self, Failure> {
        let mut log = Self {
            shared: Arc::default(),
            writer: None,
            config: AccessLogConfig::default(),
        };
        let prepared = log.prepare(config)?;
        log.adopt(prepared);
        Ok(log)
    }

    /// The queue for the requests of shard `shard`; `None`: they are not logged.
    pub(crate) fn of_shard(&self, shard: u32) -> Option<http::AccessLog> {
        self.of_shard_by(&self.config, shard)
    }

    /// The same by other settings, which were prepared.
    pub(crate) fn of_shard_by(&self, config: &AccessLogConfig, shard: u32) -> Option<http::AccessLog> {
        let writer = self.writer.as_ref()?.thread();
        config.path.as_ref()?;
        let capacity = config.queue as usize;
        let mut queues = self.shared.queues();
        let known = queues
            .iter()
            .find(|queue| queue.shard == shard && queue.full.capacity() == capacity);
        let queue = known.cloned().unwrap_or_else(|| {
            let queue = Arc::new(Queue {
                shard,
                full: ArrayQueue::new(capacity),
                free: ArrayQueue::new(capacity),
                put: AtomicU64::new(0),
                lost: AtomicU64::new(0),
                writer: writer.clone(),
            });
            queues.push(Arc::clone(&queue));
            queue
        });
        Some(http::AccessLog {
            sink: queue,
            sample: config.sample,
            max_field: config.max_field as usize,
            max_under_way: capacity,
        })
    }

    /// Opens the file anew, by its name: it may have been renamed. What is under way to the old one is written there.
    ///
    /// # Errors
    ///
    /// It cannot be opened; the old one is written on.
    pub(crate) fn reopen(&self) -> Result<(), Failure> {
        if let Some(target) = self.open(&self.config)? {
            *self.shared.next() = Some(target);
            self.shared.reopened.fetch_add(1, Ordering::Relaxed);
            self.wake();
        }
        Ok(())
    }

    /// Opens the file of `config`: `None` if there is to be none.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    fn open(&self, config: &AccessLogConfig) -> Result<Option<Target>, Failure> {
        let Some(path) = &config.path else { return Ok(None) };
        let file = open(path).map_err(|source| {
            let remedy = privileges::objection(path, Access::Write)
                .unwrap_or_else(|| "give a path that can be written to".to_owned());
            Failure::System {
                what: format!("cannot open the access log {}; {remedy}", path.display()),
                source,
            }
        })?;
        Ok(Some(Target {
            file,
            path: path.clone(),
            format: config.format,
        }))
    }

    /// Does all of what `config` asks for that can fail, to be given to [`AccessLog::adopt`].
    ///
    /// # Errors
    ///
    /// As for [`AccessLog::start`]; then all is as before.
    pub(crate) fn prepare(&mut self, config: &AccessLogConfig) -> Result<PreparedLog, Failure> {
        let is_other = (&config.path, config.format) != (&self.config.path, self.config.format);
        let mut target = if is_other { self.open(config)? } else { None };
        if self.writer.is_none()
            && let Some(target) = target.take()
        {
            let shared = Arc::clone(&self.shared);
            let writer = thread::Builder::new()
                .name("access-log".to_owned())
                .spawn(move || writer::run(&shared, target))
                .map_err(|source| Failure::System {
                    what: "cannot start a thread for the access log".to_owned(),
                    source,
                })?;
            self.writer = Some(writer);
        }
        Ok(PreparedLog {
            config: config.clone(),
            target,
        })
    }

    /// Works by other settings from now on. What is under way goes to the file before.
    pub(crate) fn adopt(&mut self, prepared: PreparedLog) {
        if let Some(target) = prepared.target {
            *self.shared.next() = Some(target);
            self.wake();
        }
        self.config = prepared.config;
    }

    /// Has [`counts`] tell of this one.
    pub(crate) fn publish(&self) {
        let _ = PUBLISHED.set(Arc::clone(&self.shared));
    }

    /// Counts of the records until now, by outcome.
    #[cfg(test)]
    fn counts(&self) -> AccessLogCounts {
        self.shared.counts()
    }

    fn wake(&self) {
        if let Some(writer) = &self.writer {
            writer.thread().unpark();
        }
    }

    /// Writes what is left, for as long as two seconds, and ends.
    pub(crate) fn finish(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        let Some(writer) = self.writer.take() else { return };
        let began = Instant::now();
        while !writer.is_finished() && began.elapsed() < LAST_RECORDS {
            thread::sleep(POLL_INTERVAL);
        }
        // One that a disk holds up is left to itself.
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Opens `path` to append to it.
fn open(path: &Path) -> io::Result<File> {
    // O_NONBLOCK: opening a FIFO must not wait for a reader. O_NOCTTY: nor may a terminal become ours.
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)?;
    // The writer may wait.
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
