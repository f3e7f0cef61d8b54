//! Signals as events for the main loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use signal_hook::consts::signal::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGINT or SIGTERM: stop.
    Stop,
    /// SIGUSR1: print the counters and go on.
    Report,
}

/// The signals from the moment of [`watch`] on.
pub(crate) struct SignalEvents {
    /// What came, in order.
    pub(crate) events: Receiver<Event>,
    /// Becomes true at the second SIGINT or SIGTERM: do not wait any longer.
    pub(crate) stop_now: Arc<AtomicBool>,
}

/// Takes over SIGINT, SIGTERM and SIGUSR1 for the rest of the process's life.
///
/// # Errors
///
/// The kernel refuses the handlers or the thread that serves them.
pub(crate) fn watch() -> io::Result<SignalEvents> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    let (sender, events) = mpsc::channel();
    let stop_now = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop_now);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            let event = if signal == SIGUSR1 { Event::Report } else { Event::Stop };
            if event == Event::Stop {
                if stopping {
                    flag.store(true, Ordering::Relaxed);
                }
                stopping = true;
            }
            // While the server drains nobody receives any more; then the flag is all that counts.
            let _ = sender.send(event);
        }
    })?;
    Ok(SignalEvents { events, stop_now })
}
