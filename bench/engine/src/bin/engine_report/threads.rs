//! Two engines on two threads, which share nothing but the machine: whether the second does as much again as the first.

use std::fs;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use tidegate_affinity::{allowed, pin_this_thread};
use tidegate_engine_bench::Cost;

/// A thread on a CPU of its own that does pieces of work when it is told to. It has ended when this is dropped.
pub(crate) struct Worker {
    /// `None` while this is dropped, which ends the thread.
    orders: Option<Sender<()>>,
    costs: Receiver<Cost>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread. `prepare` runs in it, so that the memory is the thread's, and returns what does a piece of
    /// work.
    ///
    /// # Panics
    ///
    /// If the thread cannot be started, or bound to `cpu`.
    pub(crate) fn start<W>(cpu: usize, prepare: impl FnOnce() -> W + Send + 'static) -> Self
    where
        W: FnMut() -> Cost,
    {
        let (orders, ordered) = channel();
        let (done, costs) = channel();
        let thread = thread::Builder::new()
            .name(format!("engine on CPU {cpu}"))
            .spawn(move || {
                pin_this_thread(cpu).unwrap_or_else(|error| panic!("cannot be bound to CPU {cpu}: {error}"));
                let mut work = prepare();
                while ordered.recv().is_ok() && done.send(work()).is_ok() {}
            })
            .unwrap_or_else(|error| panic!("cannot start a thread: {error}"));
        Self {
            orders: Some(orders),
            costs,
            thread: Some(thread),
        }
    }

    fn begin(&self) {
        let sent = self.orders.as_ref().map(|orders| orders.send(()));
        assert_eq!(sent, Some(Ok(())), "the thread works as long as it is ordered to");
    }

    fn end(&self) -> Cost {
        self.costs.recv().expect("the thread works as long as it is ordered to")
    }

    /// The cost of a piece of work while the other threads do nothing.
    pub(crate) fn work_alone(&self) -> Cost {
        self.begin();
        self.end()
    }

    /// The cost of a piece of work of this thread and of `other` at the same time. Its operations are those of both,
    /// its time is the mean, so that its rate is that of both together.
    pub(crate) fn work_beside(&self, other: &Self) -> Cost {
        self.begin();
        other.begin();
        let mut cost = self.end();
        cost += other.end();
        cost.time /= 2;
        cost
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Why it has panicked, it has said.
            let _ = thread.join();
        }
    }
}

/// Two CPUs that this process may use, of two cores if there are such, and whether they are.
///
/// # Errors
///
/// The CPUs cannot be read.
pub(crate) fn two_cpus() -> io::Result<Option<(usize, usize, bool)>> {
    let cpus = allowed()?;
    let (Some(&first), Some(&second)) = (cpus.first(), cpus.get(1)) else {
        return Ok(None);
    };
    // Where the kernel does not say, a CPU is a core.
    let list = format!("/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list");
    let siblings = members(&fs::read_to_string(list).unwrap_or_default());
    let elsewhere = cpus[1..].iter().find(|cpu| !siblings.contains(cpu));
    Ok(Some((first, *elsewhere.unwrap_or(&second), elsewhere.is_some())))
}

/// The numbers in a list of the kernel's, as `0-3,8`.
fn members(list: &str) -> Vec<usize> {
    let mut members = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse(), last.parse::<usize>()) {
            members.extend(first..=last);
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        for (list, expected) in [
            ("0\n", &[0][..]),
            ("0-1", &[0, 1]),
            ("0,48", &[0, 48]),
            ("1-2,5", &[1, 2, 5]),
            ("", &[]),
        ] {
            assert_eq!(members(list), expected, "{list}");
        }
    }

    #[test]
    fn the_rate_of_two_is_that_of_both_together() {
        let cpu = allowed().unwrap()[0];
        let worker = |operations| {
            Worker::start(cpu, move || {
                move || Cost {
                    time: Duration::from_millis(2),
                    operations,
                    segments: 1,
                    allocations: 0,
                }
            })
        };
        let (one, other) = (worker(10), worker(30));
        assert_eq!(one.work_alone().per_second(), 5000.0);
        assert_eq!(one.work_beside(&other).per_second(), 20_000.0);
        assert_eq!(one.work_beside(&other).operations, 40);
    }
}
