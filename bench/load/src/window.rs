//! The part of a run that was measured, for what is counted beside the client, and the client's processor time in it.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The time that was measured, by the clock of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The moment from which operations counted.
    pub begin: Instant,
    /// The moment after which they did not.
    pub end: Instant,
    /// The processor time of the client's threads in between, in user mode and in the kernel.
    pub client_cpu: Duration,
}

impl Window {
    /// Adds that of another thread of the same client.
    pub(crate) fn add(&mut self, other: &Self) {
        self.begin = self.begin.min(other.begin);
        self.end = self.end.max(other.end);
        self.client_cpu += other.client_cpu;
    }
}

/// A window that has not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    begin: Instant,
    cpu: Option<Duration>,
}

impl Opened {
    /// Begins now.
    pub(crate) fn now() -> Self {
        Self {
            begin: Instant::now(),
            cpu: thread_time(),
        }
    }

    /// Ends now, in the same thread; `None` if the kernel does not tell a thread's processor time.
    pub(crate) fn close(self) -> Option<Window> {
        // Between the two looks at the clock, so that it is never more than the time that passed.
        let client_cpu = thread_time()?.saturating_sub(self.cpu?);
        Some(Window {
            begin: self.begin,
            end: Instant::now(),
            client_cpu,
        })
    }
}

/// Returns the processor time of the calling thread; `None` if the kernel does not tell it.
pub(crate) fn thread_time() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_is_that_of_the_thread() {
        let opened = Opened::now();
        let window = std::thread::spawn(move || {
            let other = Opened::now();
            while thread_time().unwrap() < Duration::from_millis(20) {}
            other.close().unwrap()
        });
        let window = window.join().unwrap();
        assert!(window.client_cpu >= Duration::from_millis(10), "{window:?}");
        assert!(window.end - window.begin >= window.client_cpu, "{window:?}");
        let own = opened.close().unwrap();
        assert!(own.begin <= window.begin && own.end >= window.end);
        let mut both = window;
        both.add(&own);
        assert_eq!((both.begin, both.end), (own.begin, own.end));
        assert_eq!(both.client_cpu, window.client_cpu + own.client_cpu);
    }
}
