//! The loop of the link: wait for frames, for the time of those on their way, or for a signal.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tidegate_args::signals::{Event, Signals};

use crate::device::{BATCH, Device};
use crate::direction::Direction;
use crate::frame::{BEYOND_MTU, Frame, Pool};
use crate::report::Counts;

/// Batches taken from one device before the other one and what is due get their turn.
const ROUNDS: usize = 4;

/// Two devices and the two directions between them.
pub(crate) struct Relay {
    devices: [Device; 2],
    /// The direction with number `n` leads from device `n` to the other one.
    directions: [Direction; 2],
    pool: Pool,
    batch: Vec<Frame>,
    start: Instant,
}

/// The things there are to do.
struct Ready {
    devices: [bool; 2],
    signal: bool,
}

impl Relay {
    /// A relay between `devices`; `direction` makes the direction with a number, for frames of a length at most.
    pub(crate) fn new(devices: [Device; 2], direction: impl Fn(usize, usize) -> Direction) -> Self {
        let longest = |device: &Device| device.mtu() + BEYOND_MTU;
        // What may go on is what the device it leaves by can send.
        let directions = [direction(0, longest(&devices[1])), direction(1, longest(&devices[0]))];
        let room = longest(&devices[0]).max(longest(&devices[1]));
        Self {
            devices,
            directions,
            pool: Pool::new(room),
            batch: Vec::with_capacity(BATCH),
            start: Instant::now(),
        }
    }

    /// Relays until a signal asks to stop or `duration` is over. At each signal for a report `print` gets the counts.
    ///
    /// # Errors
    ///
    /// A device can no longer be used.
    pub(crate) fn run(
        &mut self,
        signals: &Signals,
        duration: Option<Duration>,
        print: impl Fn(&[Counts; 2]),
    ) -> anyhow::Result<()> {
        let end = duration.map(nanos);
        loop {
            let now = self.now();
            if end.is_some_and(|end| now >= end) {
                return Ok(());
            }
            let ready = self.wait(signals, now, end)?;
            if ready.signal {
                while let Some(event) = signals.next()? {
                    match event {
                        Event::Stop => return Ok(()),
                        Event::Report => print(&self.counts()?),
                    }
                }
            }
            for (from, ready) in ready.devices.into_iter().enumerate() {
                if ready {
                    self.receive(from)?;
                }
            }
            let now = self.now();
            let Self {
                devices,
                directions,
                pool,
                ..
            } = self;
            for (direction, device) in directions.iter_mut().zip(devices.iter().rev()) {
                direction.send_due(now, device, pool)?;
            }
        }
    }

    /// The counts of both directions until now.
    ///
    /// # Errors
    ///
    /// The kernel does not tell the frames it dropped.
    pub(crate) fn counts(&mut self) -> anyhow::Result<[Counts; 2]> {
        for (device, direction) in self.devices.iter().zip(&mut self.directions) {
            let overruns = device
                .take_overruns()
                .with_context(|| format!("cannot read the statistics of the socket on {}", device.name()))?;
            direction.add_overruns(overruns);
        }
        Ok(self.directions.each_ref().map(Direction::counts))
    }

    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Waits for frames, for a signal, or for the next frame that is due.
    fn wait(&self, signals: &Signals, now: u64, end: Option<u64>) -> anyhow::Result<Ready> {
        let dues = self.directions.iter().filter_map(Direction::next_due);
        let timeout = dues
            .chain(end)
            .min()
            .map(|due| TimeSpec::from_duration(Duration::from_nanos(due.saturating_sub(now))));
        // The device with number `n` sends what the other one received.
        let interest = |device: usize| {
            if self.directions[1 - device].is_blocked() {
                PollFlags::POLLIN | PollFlags::POLLOUT
            } else {
                PollFlags::POLLIN
            }
        };
        let mut polled = [
            PollFd::new(self.devices[0].as_fd(), interest(0)),
            PollFd::new(self.devices[1].as_fd(), interest(1)),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match ppoll(&mut polled, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for frames"),
        }
        // An error counts as ready as well: receiving is what brings it out and ends it.
        let [first, second, signal] = polled.each_ref().map(|polled| polled.any().unwrap_or(true));
        Ok(Ready {
            devices: [first, second],
            signal,
        })
    }

    /// Takes what device number `from` has received.
    fn receive(&mut self, from: usize) -> anyhow::Result<()> {
        let Self {
            devices,
            directions,
            pool,
            batch,
            start,
        } = self;
        for _ in 0..ROUNDS {
            while batch.len() < BATCH {
                batch.push(pool.take());
            }
            let received = match devices[from].receive(batch) {
                Ok(received) => received,
                // It goes on when the device is up again.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => return Ok(()),
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot receive from {}", devices[from].name()));
                }
            };
            let now = nanos(start.elapsed());
            for frame in batch.drain(..received) {
                directions[from].take(now, frame, pool);
            }
            if received < BATCH {
                break;
            }
        }
        Ok(())
    }
}

/// A duration as nanoseconds; the longest there are, for 584 years and more.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
