//! The thread that writes.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::thread;

use tracing::warn;

use super::{Shared, Target, WRITE_INTERVAL, format};

/// Bytes that are written at once, about.
const BATCH: usize = 64 << 10;

/// Writes to `target` until another takes its place. Runs until it is told to stop and all is written.
pub(super) fn run(shared: &Shared, target: Target) {
    crate::privileges::confine_helper();
    let mut writer = Writer {
        target,
        batch: Vec::new(),
        records: 0,
        is_torn: false,
        has_failed: false,
    };
    loop {
        let stops = shared.stop.load(Ordering::Acquire);
        writer.write_all_there_is(shared);
        // In this order: what was under way is written to the file before.
        if let Some(target) = shared.next().take() {
            writer.target = target;
            writer.is_torn = false;
            writer.has_failed = false;
        }
        if stops {
            // Once more, to the file that may have come last.
            writer.write_all_there_is(shared);
            return;
        }
        thread::park_timeout(WRITE_INTERVAL);
    }
}

struct Writer {
    target: Target,
    batch: Vec<u8>,
    /// Records in `batch`.
    records: u64,
    /// The last line in the file is not complete.
    is_torn: bool,
    /// The last attempt failed.
    has_failed: bool,
}

impl Writer {
    /// Writes what is in the queues, at most as many as there is room for in them: a shard that is as quick as this
    /// must not keep it from what else there is to do.
    fn write_all_there_is(&mut self, shared: &Shared) {
        let queues = shared.queues().clone();
        for queue in queues {
            for _ in 0..queue.full.capacity() {
                let Some(record) = queue.full.pop() else { break };
                format::append(&mut self.batch, self.target.format, queue.shard, &record);
                self.records += 1;
                // It is full if as many are under way.
                let _ = queue.free.push(record);
                if self.batch.len() >= BATCH {
                    self.write(shared);
                }
            }
        }
        self.write(shared);
    }

    /// Writes the batch.
    fn write(&mut self, shared: &Shared) {
        if self.records == 0 {
            return;
        }
        let target = &mut self.target;
        let mut written = 0;
        let mut result = Ok(());
        if self.is_torn {
            result = target.file.write_all(b"\n");
            self.is_torn = result.is_err();
        }
        let result = result.and_then(|()| write_counted(&mut target.file, &self.batch, &mut written));
        let done = &self.batch[..written];
        let lines = done.iter().filter(|&&byte| byte == b'\n').count() as u64;
        shared.written.fetch_add(lines, Ordering::Relaxed);
        shared
            .lost_write_failed
            .fetch_add(self.records - lines, Ordering::Relaxed);
        if let Some(&last) = done.last() {
            self.is_torn = last != b'\n';
        }
        let path = target.path.display();
        match (result, self.has_failed) {
            (Err(error), false) => warn!(
                "cannot write to the access log {path}: {error}; requests are counted in \
                 access_log_lost_write_failed until it can be written again"
            ),
            (Ok(()), true) => warn!("the access log {path} is written again"),
            _ => {}
        }
        self.has_failed = written < self.batch.len();
        self.batch.clear();
        self.records = 0;
    }
}

/// Writes all of `text`; `written` says how much of it was, also when it fails.
fn write_counted(file: &mut impl Write, text: &[u8], written: &mut usize) -> std::io::Result<()> {
    while *written < text.len() {
        match file.write(&text[*written..]) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(length) => *written += length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
