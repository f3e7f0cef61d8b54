//! Bytes, in one direction, as fast as they go.

use std::time::Instant;

use mio::Token;

use crate::client::Direction;
use crate::client::errors::{Failure, Kind};
use crate::client::kernel::event_loop::{Driver, Io, Readiness};
use crate::client::kernel::retries::Retries;
use crate::client::kernel::slot::{Slot, Stop, closed_early};
use crate::client::responses::Expected;
use crate::http_client::Url;

/// Bytes written at once.
const CHUNK: usize = 64 * 1024;

/// Reads or writes on one connection before it is the turn of the others: a connection whose data never stops must
/// not keep the loop from them, nor from the time.
const TURN: u32 = 16;

/// The workload `throughput`.
pub(super) struct Bulk {
    direction: Direction,
    /// The request, or what is sent to a discard service.
    data: Vec<u8>,
    slots: Vec<Slot>,
    retries: Retries,
    expected: Expected,
    /// Slots whose turn was over before the kernel had no more for them: it may not report them again.
    unfinished: Vec<usize>,
    /// Swapped with `unfinished`, so that neither is allocated anew.
    resumed: Vec<usize>,
    /// For each slot in `unfinished`: what was reported.
    pending: Vec<Option<Readiness>>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It waits for the kernel.
    Wait,
    /// It goes on when the others have had their turn.
    GoOn,
    /// A new one takes its place.
    Replace,
}

impl Bulk {
    /// Transfers in `direction` over `connections`.
    pub(super) fn new(url: &Url, connections: u32, direction: Direction) -> Self {
        let now = Instant::now();
        Self {
            direction,
            data: match direction {
                Direction::Down => url.request(true),
                Direction::Up => vec![b'x'; CHUNK],
            },
            slots: (0..connections).map(|_| Slot::new(now)).collect(),
            retries: Retries::all(connections, now),
            expected: Expected::default(),
            unfinished: Vec::with_capacity(connections as usize),
            resumed: Vec::with_capacity(connections as usize),
            pending: vec![None; connections as usize],
        }
    }

    fn open(&mut self, io: &mut Io<'_>, index: usize) {
        let slot = &mut self.slots[index];
        match slot.open(io.target, &io.registry, Token(index), Instant::now()) {
            Ok(()) if self.direction == Direction::Down => slot.begin(1, self.data.len()),
            Ok(()) => {}
            Err(failure) => self.fail(io, index, &failure),
        }
    }

    fn fail(&mut self, io: &mut Io<'_>, index: usize, failure: &Failure) {
        io.recorder.failure(failure);
        self.slots[index].close();
        self.retries.failed(index, Instant::now());
    }

    /// Asks for the body and reads it, again and again.
    fn receive(&mut self, io: &mut Io<'_>, index: usize, readiness: Readiness) -> Result<Next, Failure> {
        let slot = &mut self.slots[index];
        if !slot.is_connected() {
            let now = Instant::now();
            slot.write(&self.data)?;
            if !slot.is_connected() {
                return Ok(Next::Wait);
            }
            io.recorder.connected(now.duration_since(slot.since));
            slot.since = now;
        } else if slot.has_unsent() {
            slot.write(&self.data)?;
        }
        if !readiness.readable {
            return Ok(Next::Wait);
        }
        for _ in 0..TURN {
            let (taken, stop) = slot.read_once(&mut io.buffer, &mut self.expected)?;
            io.recorder.operations(taken.body);
            if taken.responses > 0 {
                let now = Instant::now();
                io.recorder.latency(now.duration_since(slot.since));
                slot.since = now;
                if taken.is_last {
                    io.recorder.announced_end();
                    continue;
                }
                slot.begin(1, self.data.len());
                // After a FIN it would be answered with RST, which hides that the server closed in good order.
                if !readiness.closed {
                    slot.write(&self.data)?;
                }
            }
            match stop {
                Stop::Full => {}
                Stop::Short if readiness.closed => {}
                Stop::Short | Stop::Empty => return Ok(Next::Wait),
                // Nothing of the request under way was written or answered: a server may end a connection so.
                Stop::End if slot.has_unsent() || slot.is_ending() => return Ok(Next::Replace),
                Stop::End => return Err(closed_early()),
            }
        }
        Ok(Next::GoOn)
    }

    /// Writes as long as the kernel takes it.
    fn send(&mut self, io: &mut Io<'_>, index: usize, readiness: Readiness) -> Result<Next, Failure> {
        let slot = &mut self.slots[index];
        if slot.finish_connecting()? {
            io.recorder.connected(slot.since.elapsed());
        }
        if !slot.is_connected() {
            return Ok(Next::Wait);
        }
        if readiness.readable {
            let (_, stop) = slot.read_once(&mut io.buffer, &mut self.expected)?;
            match stop {
                Stop::Empty => {}
                Stop::End => return Err(Failure::new(Kind::ClosedEarly, "the server closed the connection")),
                Stop::Short | Stop::Full => {
                    let detail = "data from the server; the target has to be a discard service";
                    return Err(Failure::new(Kind::Malformed, detail));
                }
            }
        }
        for _ in 0..TURN {
            match slot.write_once(&self.data)? {
                // It fits: the kernel takes at most CHUNK at once.
                Some(count) => io.recorder.operations(count as u64),
                None => return Ok(Next::Wait),
            }
        }
        Ok(Next::GoOn)
    }
}

impl Driver for Bulk {
    fn turn(&mut self, io: &mut Io<'_>, now: Instant) -> Option<Instant> {
        std::mem::swap(&mut self.unfinished, &mut self.resumed);
        while let Some(index) = self.resumed.pop() {
            if let Some(readiness) = self.pending[index].take() {
                self.ready(io, index, readiness);
            }
        }
        while let Some(index) = self.retries.take_due(now) {
            self.open(io, index);
        }
        if self.unfinished.is_empty() {
            self.retries.next()
        } else {
            Some(now)
        }
    }

    fn ready(&mut self, io: &mut Io<'_>, index: usize, readiness: Readiness) {
        if !self.slots[index].is_open() {
            return;
        }
        if let Some(pending) = &mut self.pending[index] {
            pending.readable |= readiness.readable;
            pending.closed |= readiness.closed;
            return;
        }
        let next = match self.direction {
            Direction::Down => self.receive(io, index, readiness),
            Direction::Up => self.send(io, index, readiness),
        };
        match next {
            Ok(Next::Wait) => {}
            Ok(Next::GoOn) => {
                self.pending[index] = Some(readiness);
                self.unfinished.push(index);
            }
            Ok(Next::Replace) => {
                self.slots[index].close();
                self.open(io, index);
            }
            Err(failure) => self.fail(io, index, &failure),
        }
    }
}
