//! Signals behind a descriptor, to be polled together with sockets.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The request that a signal stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGINT or SIGTERM: stop.
    Stop,
    /// SIGUSR1: print the counters and go on.
    Report,
}

/// SIGINT, SIGTERM and SIGUSR1. Its descriptor is readable when one has come.
pub struct Signals(SignalFd);

impl Signals {
    /// Takes the signals over for the rest of the process's life.
    ///
    /// Only for a process without other threads and children: a thread that does not block the signals would get them
    /// the usual way, and a child would have them blocked.
    ///
    /// # Errors
    ///
    /// The signals cannot be blocked, or the kernel has no descriptor for them.
    pub fn take_over() -> anyhow::Result<Self> {
        let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1].into_iter().collect();
        set.thread_block().context("cannot block signals")?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot make a descriptor for signals")?;
        Ok(Self(descriptor))
    }

    /// Returns the next signal, if one has come.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be read.
    pub fn next(&self) -> anyhow::Result<Option<Event>> {
        let information = self.0.read_signal().context("cannot read which signal came")?;
        Ok(information.map(|information| {
            if i32::try_from(information.ssi_signo) == Ok(Signal::SIGUSR1 as i32) {
                Event::Report
            } else {
                Event::Stop
            }
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
