//! Signals as something to wait for beside sockets.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGINT or SIGTERM: stop.
    Stop,
    /// SIGUSR1: print the counters and go on.
    Report,
}

/// SIGINT, SIGTERM and SIGUSR1. Its descriptor is readable when one has come.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Takes the signals over for the rest of the process's life.
    ///
    /// Only for a process without other threads and children: a thread that does not block the signals would get them
    /// the usual way, and a child would have them blocked.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn take_over() -> anyhow::Result<Self> {
        let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1].into_iter().collect();
        set.thread_block().context("cannot block signals")?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot make a descriptor for signals")?;
        Ok(Self(descriptor))
    }

    /// The next signal, if one has come.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn next(&self) -> anyhow::Result<Option<Event>> {
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
