//! Requests at a fixed rate, due whether or not earlier ones were answered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mio::Token;

use crate::client::errors::{Failure, Kind};
use crate::client::kernel::event_loop::{Driver, Io, Readiness};
use crate::client::kernel::retries::Retries;
use crate::client::kernel::slot::{Slot, closed_early};
use crate::client::responses::Expected;
use crate::http_client::Url;

/// How long all connections may take to be established before the first request is due anyway.
const OPENING: Duration = Duration::from_secs(2);

/// How long requests that are due at the end may take to be answered.
const GRACE: Duration = Duration::from_secs(1);

/// The workload `latency`.
///
/// Request k is due k / rate after the first. It goes to the connection that has been idle longest; if none is, it
/// waits until one is, and its latency counts from when it was due all the same. What waits needs no memory: it is
/// those whose time has come and that were not begun.
///
/// After the end no further requests are due, but those that are may still be answered, so that a server that stands
/// still at the end is seen, too: their latencies count, and those without an answer are errors.
pub(super) struct OpenLoop {
    schedule: Option<Schedule>,
    rate: u64,
    request: Vec<u8>,
    slots: Vec<Slot>,
    /// Established connections without a request under way, the one that has waited longest first.
    idle: VecDeque<usize>,
    under_way: usize,
    retries: Retries,
    expected: Expected,
    /// When the first request is due at the latest.
    start_by: Instant,
    /// A connection has failed, so it is no use to wait for all.
    failed: bool,
}

/// When requests are due.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    start: Instant,
    rate: u64,
    /// How many were begun.
    begun: u64,
    /// When the one after them is due.
    next: Instant,
}

impl Schedule {
    fn new(start: Instant, rate: u64) -> Self {
        Self {
            start,
            rate,
            begun: 0,
            next: start,
        }
    }

    /// The next request is begun. Returns when it was due.
    fn begin(&mut self) -> Instant {
        let due = self.next;
        self.begun += 1;
        let nanos = u128::from(self.begun % self.rate) * 1_000_000_000 / u128::from(self.rate);
        // Less than a second, so it fits.
        self.next = self.start + Duration::new(self.begun / self.rate, nanos as u32);
        due
    }
}

impl OpenLoop {
    /// `rate` requests per second, at least 1, over `connections` that stay open.
    pub(super) fn new(url: &Url, connections: u32, rate: u64) -> Self {
        let now = Instant::now();
        Self {
            schedule: None,
            rate,
            request: url.request(true),
            slots: (0..connections).map(|_| Slot::new(now)).collect(),
            idle: VecDeque::with_capacity(connections as usize),
            under_way: 0,
            retries: Retries::all(connections, now),
            expected: Expected::default(),
            start_by: now + OPENING,
            failed: false,
        }
    }

    fn open(&mut self, io: &mut Io<'_>, index: usize, now: Instant) {
        if let Err(failure) = self.slots[index].open(io.target, &io.registry, Token(index), now) {
            self.fail(io, index, &failure);
        }
    }

    fn fail(&mut self, io: &mut Io<'_>, index: usize, failure: &Failure) {
        io.recorder.failure(failure);
        self.close(index);
        self.retries.failed(index, Instant::now());
        self.failed = true;
    }

    fn close(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if slot.under_way() > 0 {
            self.under_way -= 1;
        } else if slot.is_connected() {
            self.idle.retain(|&other| other != index);
        }
        slot.close();
    }

    /// Begins what is due at `now`, as far as there are idle connections.
    fn begin_due(&mut self, io: &mut Io<'_>, now: Instant) {
        let end = io.recorder.end();
        while let Some(schedule) = &mut self.schedule
            && schedule.next <= now
            && end.is_none_or(|end| schedule.next < end)
            && let Some(index) = self.idle.pop_front()
        {
            let slot = &mut self.slots[index];
            slot.since = schedule.begin();
            slot.begin(1, self.request.len());
            self.under_way += 1;
            if let Err(failure) = slot.write(&self.request) {
                self.fail(io, index, &failure);
            }
        }
    }

    /// Does all that is possible for a connection without waiting. False if the server has closed it and owes nothing.
    fn advance(&mut self, io: &mut Io<'_>, index: usize, readiness: Readiness) -> Result<bool, Failure> {
        let slot = &mut self.slots[index];
        if !slot.is_connected() {
            if !slot.finish_connecting()? {
                return Ok(true);
            }
            let now = Instant::now();
            io.recorder.connected(now.duration_since(slot.since));
            self.idle.push_back(index);
            self.begin_due(io, now);
        }
        let slot = &mut self.slots[index];
        if slot.has_unsent() {
            slot.write(&self.request)?;
        }
        if !readiness.readable {
            return Ok(true);
        }
        let received = slot.read(&mut io.buffer, &mut self.expected, readiness.closed);
        let now = Instant::now();
        if received.responses > 0 {
            io.recorder.latency(now.duration_since(slot.since));
            io.recorder.operations(1);
            self.under_way -= 1;
            if slot.is_ending() {
                io.recorder.announced_end();
            } else {
                self.idle.push_back(index);
            }
        }
        if received.end? {
            return if self.slots[index].under_way() > 0 {
                Err(closed_early())
            } else {
                Ok(false)
            };
        }
        self.begin_due(io, now);
        Ok(true)
    }
}

impl Driver for OpenLoop {
    const PRECISE: bool = true;

    fn turn(&mut self, io: &mut Io<'_>, now: Instant) -> Option<Instant> {
        while let Some(index) = self.retries.take_due(now) {
            self.open(io, index, now);
        }
        let retry = self.retries.next();
        if self.schedule.is_none() {
            if self.idle.len() < self.slots.len() && !self.failed && now < self.start_by {
                return Some(self.start_by);
            }
            self.schedule = Some(Schedule::new(now, self.rate));
            io.recorder.restart(now);
        }
        self.begin_due(io, now);
        let due = match &self.schedule {
            Some(schedule) if schedule.next > now && !self.idle.is_empty() => Some(schedule.next),
            _ => None,
        };
        [due, retry].into_iter().flatten().min()
    }

    fn ready(&mut self, io: &mut Io<'_>, index: usize, readiness: Readiness) {
        if !self.slots[index].is_open() {
            return;
        }
        match self.advance(io, index, readiness) {
            Ok(true) => {}
            Ok(false) => {
                self.close(index);
                self.open(io, index, Instant::now());
            }
            Err(failure) => self.fail(io, index, &failure),
        }
    }

    fn is_over(&mut self, io: &mut Io<'_>, now: Instant) -> bool {
        let (Some(schedule), Some(end)) = (&mut self.schedule, io.recorder.end()) else {
            return false;
        };
        if now < end {
            return false;
        }
        io.recorder.stop(now);
        if self.under_way == 0 && schedule.next >= end {
            return true;
        }
        if now < end + GRACE {
            return false;
        }
        let detail = format!(
            "no answer to a request that was due at least {} s before",
            GRACE.as_secs()
        );
        let failure = Failure::new(Kind::Unfinished, detail);
        for _ in 0..self.under_way {
            io.recorder.failure(&failure);
        }
        while schedule.next < end {
            io.recorder.failure(&failure);
            schedule.begin();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly_and_without_drift() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 3);
        let due: Vec<u128> = (0..7)
            .map(|_| schedule.begin().duration_since(start).as_nanos())
            .collect();
        assert_eq!(
            due,
            [
                0,
                333_333_333,
                666_666_666,
                1_000_000_000,
                1_333_333_333,
                1_666_666_666,
                2_000_000_000
            ]
        );
        assert_eq!(schedule.begun, 7);
    }

    #[test]
    fn high_rates_are_met_for_long() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 2_000_000);
        schedule.begun = 2_000_000 * 3_600;
        schedule.begin();
        assert_eq!(schedule.begin().duration_since(start).as_nanos(), 3_600_000_000_500);
    }
}
