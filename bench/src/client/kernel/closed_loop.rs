//! New connections one after the other, or requests one after the other on connections that stay open: as soon as one
//! is answered the next is begun.

use std::time::Instant;

use mio::Token;

use crate::client::errors::{Failure, Kind};
use crate::client::kernel::event_loop::{Driver, Io, Readiness};
use crate::client::kernel::retries::Retries;
use crate::client::kernel::slot::{Received, Slot, closed_early};
use crate::client::kernel::start_times::StartTimes;
use crate::client::responses::Expected;
use crate::client::{Close, stuck};
use crate::http_client::Url;

/// The workloads `cps` and `rps`.
pub(super) struct ClosedLoop {
    /// How a connection ends after its response; `None` if it stays open for further requests.
    close: Option<Close>,
    /// Requests under way on each connection.
    pipeline: u32,
    request_length: usize,
    /// `pipeline` requests, so that several are written at once.
    batch: Vec<u8>,
    slots: Vec<Slot>,
    /// Of the requests, where connections stay open. Elsewhere connecting and requesting begin together.
    start_times: StartTimes,
    retries: Retries,
    expected: Expected,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It waits for the kernel.
    Wait,
    /// A new one takes its place.
    Replace,
}

impl ClosedLoop {
    /// `connections` at a time, each for one request.
    pub(super) fn connections(url: &Url, connections: u32, close: Close) -> Self {
        let request = url.request(close != Close::Server);
        Self::new(request, connections, Some(close), 1)
    }

    /// `connections` that stay open, with `pipeline` requests under way on each.
    pub(super) fn requests(url: &Url, connections: u32, pipeline: u32) -> Self {
        Self::new(url.request(true), connections, None, pipeline)
    }

    fn new(request: Vec<u8>, connections: u32, close: Option<Close>, pipeline: u32) -> Self {
        let now = Instant::now();
        Self {
            close,
            pipeline,
            request_length: request.len(),
            batch: request.repeat(pipeline as usize),
            slots: (0..connections).map(|_| Slot::new(now)).collect(),
            start_times: StartTimes::new(connections, pipeline, now),
            retries: Retries::all(connections, now),
            expected: Expected::default(),
        }
    }

    fn open(&mut self, io: &mut Io<'_>, index: usize) {
        let slot = &mut self.slots[index];
        match slot.open(io.target, &io.registry, Token(index), Instant::now()) {
            Ok(()) => slot.begin(self.pipeline, self.batch.len()),
            Err(failure) => self.fail(io, index, &failure),
        }
    }

    fn fail(&mut self, io: &mut Io<'_>, index: usize, failure: &Failure) {
        io.recorder.failure(failure);
        self.slots[index].close();
        self.retries.failed(index, Instant::now());
    }

    fn advance(&mut self, io: &mut Io<'_>, index: usize, readiness: Readiness) -> Result<Next, Failure> {
        let slot = &mut self.slots[index];
        if !slot.is_connected() {
            let now = Instant::now();
            slot.write(&self.batch)?;
            if !slot.is_connected() {
                return Ok(Next::Wait);
            }
            io.recorder.connected(now.duration_since(slot.since));
            self.start_times.clear(index);
            self.start_times.push(index, self.pipeline, now);
        } else if slot.has_unsent() {
            slot.write(&self.batch)?;
        }
        if !readiness.readable {
            return Ok(Next::Wait);
        }
        let received = slot.read(&mut io.buffer, &mut self.expected, readiness.closed);
        match self.close {
            Some(close) => self.end_connection(io, index, received, close),
            None => self.go_on(io, index, received),
        }
    }

    /// When that began for which the connection of slot `index` has waited longest; `None` if it waits for nothing.
    fn waiting_since(&self, index: usize) -> Option<Instant> {
        let slot = &self.slots[index];
        if slot.is_ending() {
            return Some(slot.since);
        }
        // Without a connection nothing is under way, and from the beginning of connecting on something is.
        if slot.under_way() == 0 {
            return None;
        }
        if self.close.is_none() && slot.is_connected() {
            self.start_times.oldest(index)
        } else {
            Some(slot.since)
        }
    }

    /// Ends a connection whose response is complete.
    fn end_connection(
        &mut self,
        io: &mut Io<'_>,
        index: usize,
        received: Received,
        close: Close,
    ) -> Result<Next, Failure> {
        let slot = &mut self.slots[index];
        if received.responses > 0 {
            io.recorder.latency(slot.since.elapsed());
        }
        let end = received.end?;
        if slot.under_way() > 0 {
            return if end { Err(closed_early()) } else { Ok(Next::Wait) };
        }
        match close {
            Close::Client => {}
            Close::Rst => slot.reset()?,
            Close::Server if end => {}
            Close::Server => return Ok(Next::Wait),
        }
        io.recorder.operations(1);
        Ok(Next::Replace)
    }

    /// Begins as many requests as were answered.
    fn go_on(&mut self, io: &mut Io<'_>, index: usize, received: Received) -> Result<Next, Failure> {
        let now = Instant::now();
        for _ in 0..received.responses {
            let Some(start) = self.start_times.pop(index) else {
                return Err(Failure::new(Kind::Malformed, "a response to no request"));
            };
            io.recorder.latency(now.duration_since(start));
        }
        io.recorder.operations(u64::from(received.responses));
        let slot = &mut self.slots[index];
        if slot.is_ending() && received.responses > 0 {
            io.recorder.announced_end();
            self.start_times.clear(index);
            slot.since = now;
        }
        if received.end? {
            // A server may end a connection on which it has answered everything.
            return if slot.under_way() > 0 {
                Err(closed_early())
            } else {
                Ok(Next::Replace)
            };
        }
        if received.responses > 0 && !slot.is_ending() {
            self.start_times.push(index, received.responses, now);
            slot.begin(received.responses, received.responses as usize * self.request_length);
            slot.write(&self.batch)?;
        }
        Ok(Next::Wait)
    }
}

impl Driver for ClosedLoop {
    fn turn(&mut self, io: &mut Io<'_>, now: Instant) -> Option<Instant> {
        while let Some(index) = self.retries.take_due(now) {
            self.open(io, index);
        }
        self.retries.next()
    }

    fn ready(&mut self, io: &mut Io<'_>, index: usize, readiness: Readiness) {
        if !self.slots[index].is_open() {
            return;
        }
        match self.advance(io, index, readiness) {
            Ok(Next::Wait) => {}
            Ok(Next::Replace) => {
                self.slots[index].close();
                self.open(io, index);
            }
            Err(failure) => self.fail(io, index, &failure),
        }
    }

    fn is_over(&mut self, io: &mut Io<'_>, now: Instant) -> bool {
        let (Some(since), Some(end)) = (io.recorder.since(), io.recorder.end()) else {
            return false;
        };
        if now < end {
            return false;
        }
        let measured = now.duration_since(since);
        let failure = Failure::new(Kind::Unfinished, stuck::DETAIL);
        for begun in (0..self.slots.len()).filter_map(|index| self.waiting_since(index)) {
            if stuck::is_stuck(now.duration_since(begun), measured) {
                io.recorder.failure(&failure);
            }
        }
        true
    }
}
