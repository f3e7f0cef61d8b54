//! Signals as events for the main loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use nix::libc::{SI_KERNEL, siginfo_t};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::raw::WithRawSiginfo;

use crate::privileges;

/// The request of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGINT, SIGTERM, or the terminal is gone: stop.
    Stop,
    /// SIGUSR1: print the counters and go on.
    Report,
    /// SIGHUP from another process: read the configuration file again.
    Reload,
    /// SIGUSR2: open the log files anew.
    Reopen,
    /// SIGWINCH from another process: end all connections in good order, accept no others, and stay.
    Drain,
}

/// Ends the main loop's waiting before its time.
#[derive(Clone)]
pub(crate) struct Waker(SyncSender<()>);

impl Waker {
    /// A waker, and what it wakes.
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (wake, woken) = mpsc::sync_channel(1);
        (Self(wake), woken)
    }

    /// Wakes. A wake-up that has not been taken yet wakes for this one, too.
    pub(crate) fn wake(&self) {
        let _ = self.0.try_send(());
    }
}

/// The signals from the moment of [`watch`] on. However many come before they are looked at, they are remembered as one
/// of each kind.
pub(crate) struct SignalEvents {
    asked: Arc<Asked>,
    waker: Waker,
    woken: Receiver<()>,
    /// Becomes true at the second SIGINT or SIGTERM: do not wait any longer.
    pub(crate) stop_now: Arc<AtomicBool>,
}

#[derive(Default)]
struct Asked {
    stop: AtomicBool,
    report: AtomicBool,
    reload: AtomicBool,
    reopen: AtomicBool,
    drain: AtomicBool,
}

impl Asked {
    fn note(&self, event: Event) {
        match event {
            Event::Stop => self.stop.store(true, Ordering::Release),
            Event::Report => self.report.store(true, Ordering::Release),
            Event::Reload => self.reload.store(true, Ordering::Release),
            Event::Reopen => self.reopen.store(true, Ordering::Release),
            Event::Drain => self.drain.store(true, Ordering::Release),
        }
    }

    /// The next request. Stopping comes first, and is asked for good.
    fn take(&self) -> Option<Event> {
        if self.stop.load(Ordering::Acquire) {
            return Some(Event::Stop);
        }
        if self.drain.swap(false, Ordering::AcqRel) {
            return Some(Event::Drain);
        }
        if self.reload.swap(false, Ordering::AcqRel) {
            return Some(Event::Reload);
        }
        if self.reopen.swap(false, Ordering::AcqRel) {
            return Some(Event::Reopen);
        }
        self.report.swap(false, Ordering::AcqRel).then_some(Event::Report)
    }
}

impl SignalEvents {
    /// Ends the waiting of [`SignalEvents::next`], which then returns `None`.
    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The request of a signal, if one comes within `limit` or has come before, and before the waker wakes.
    pub(crate) fn next(&self, limit: Duration) -> Option<Event> {
        if let Some(event) = self.asked.take() {
            return Some(event);
        }
        match self.woken.recv_timeout(limit) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => self.asked.take(),
            // The thread that waits for signals lives as long as the process; without it nothing could stop the server.
            Err(RecvTimeoutError::Disconnected) => Some(Event::Stop),
        }
    }
}

/// The request of a signal; `None`: it is none.
fn event_of(info: &siginfo_t) -> Option<Event> {
    match info.si_signo {
        SIGUSR1 => Some(Event::Report),
        SIGUSR2 => Some(Event::Reopen),
        // The kernel's say that the terminal is gone.
        SIGHUP if info.si_code != SI_KERNEL => Some(Event::Reload),
        // The kernel's say that the terminal has another size.
        SIGWINCH => (info.si_code != SI_KERNEL).then_some(Event::Drain),
        _ => Some(Event::Stop),
    }
}

/// Takes over SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and SIGWINCH for the rest of the process's life.
///
/// # Errors
///
/// The kernel refuses the handlers or the thread that serves them.
pub(crate) fn watch() -> io::Result<SignalEvents> {
    let mut signals = SignalsInfo::<WithRawSiginfo>::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])?;
    let asked = Arc::new(Asked::default());
    let stop_now = Arc::new(AtomicBool::new(false));
    let (waker, woken) = Waker::new();
    let events = SignalEvents {
        asked: Arc::clone(&asked),
        waker: waker.clone(),
        woken,
        stop_now: Arc::clone(&stop_now),
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        privileges::confine_helper();
        let mut stopping = false;
        for info in signals.forever() {
            let Some(event) = event_of(&info) else { continue };
            if event == Event::Stop {
                if stopping {
                    stop_now.store(true, Ordering::Relaxed);
                }
                stopping = true;
            }
            asked.note(event);
            waker.wake();
        }
    })?;
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_reports_is_one_and_does_not_hold_up_the_stop() {
        let asked = Asked::default();
        assert_eq!(asked.take(), None);
        for _ in 0..1000 {
            asked.note(Event::Report);
        }
        assert_eq!(asked.take(), Some(Event::Report));
        assert_eq!(asked.take(), None);
        asked.note(Event::Report);
        asked.note(Event::Reopen);
        asked.note(Event::Reload);
        asked.note(Event::Drain);
        assert_eq!(asked.take(), Some(Event::Drain));
        assert_eq!(asked.take(), Some(Event::Reload));
        assert_eq!(asked.take(), Some(Event::Reopen));
        assert_eq!(asked.take(), Some(Event::Report));
        asked.note(Event::Stop);
        assert_eq!(asked.take(), Some(Event::Stop));
        assert_eq!(asked.take(), Some(Event::Stop));
    }
}
