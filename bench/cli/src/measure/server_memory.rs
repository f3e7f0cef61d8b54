//! The memory of a server while connections to it are opened and kept.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tidegate_lab::machine::Memory;

use super::run::MemoryUse;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks at the memory of a process and of the kernel, ten times a second, in a thread of its own.
///
/// The connections are gone when a measurement is over, so what counts is the most there was in between.
pub(super) struct ServerMemory {
    before: Memory,
    /// Dropping it ends the thread.
    end: Sender<()>,
    thread: JoinHandle<anyhow::Result<Memory>>,
}

impl ServerMemory {
    /// Begins with process `id`.
    ///
    /// # Errors
    ///
    /// There is no such process, or no thread can be started.
    pub(super) fn watch(id: u32) -> anyhow::Result<Self> {
        let before = Memory::with(id)
            .with_context(|| format!("cannot look at the memory of process {id}, given by --server-pid"))?;
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("server-memory".to_owned())
            .spawn(move || -> anyhow::Result<Memory> {
                let mut highest = before;
                loop {
                    let now = Memory::with(id).with_context(|| format!("process {id}, the server, has ended"))?;
                    highest = Memory {
                        resident: highest.resident.max(now.resident),
                        kernel: highest.kernel.max(now.kernel),
                        slab: highest.slab.max(now.slab),
                    };
                    if ended.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                        return Ok(highest);
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(Self { before, end, thread })
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// The process has ended meanwhile.
    pub(super) fn finish(self) -> anyhow::Result<MemoryUse> {
        drop(self.end);
        let highest = self
            .thread
            .join()
            .map_err(|_| anyhow!("the thread that looked at the server's memory panicked"))??;
        Ok(MemoryUse {
            before: self.before,
            highest,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_most_is_not_below_what_was_there_before() {
        let found = ServerMemory::watch(std::process::id()).unwrap().finish().unwrap();
        assert!(found.before.resident > 0);
        assert!(found.highest.resident >= found.before.resident && found.highest.kernel >= found.before.kernel);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        let mut child = Command::new("true").spawn().unwrap();
        let id = child.id();
        child.wait().unwrap();
        let error = ServerMemory::watch(id).err().unwrap().to_string();
        assert!(error.contains("--server-pid"), "{error}");
    }
}
