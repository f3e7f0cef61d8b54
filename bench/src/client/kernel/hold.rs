//! Connections that are opened, stay open, and are all asked once at the end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mio::Token;

use crate::client::errors::{Failure, Kind};
use crate::client::kernel::event_loop::{Driver, Io, Readiness};
use crate::client::kernel::slot::{Slot, closed_early};
use crate::client::responses::Expected;
use crate::http_client::Url;

/// Most connections that are being made, or asked, at the same time.
const UNDER_WAY: usize = 1_000;

/// How long the connections being made may stand still, all of them, before they are given up. The kernel repeats an
/// unanswered SYN after 1, 3 and 7 seconds.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How long the answer to a request is waited for.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// The workload `hold`. Each connection is tried once: those that answer and the errors add up to what was asked for,
/// unless one answers and then breaks.
pub(super) struct Hold {
    keep: Duration,
    request: Vec<u8>,
    slots: Vec<Slot>,
    expected: Expected,
    phase: Phase,
    /// Slots below this one have been opened, or tried.
    opened: usize,
    connecting: usize,
    /// When a connection was last begun, established or given up.
    moved: Instant,
    /// Slots below this one have been asked, if they had a connection.
    asked: usize,
    answering: usize,
    /// When which slot was asked, the earliest first.
    questions: VecDeque<(Instant, usize)>,
    kept: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Keeping { since: Instant },
    Asking,
    Over,
}

impl Hold {
    /// `connections` that are kept for the time `keep` when they are all open.
    pub(super) fn new(url: &Url, connections: u32, keep: Duration) -> Self {
        let now = Instant::now();
        Self {
            keep,
            request: url.request(true),
            slots: (0..connections).map(|_| Slot::new(now)).collect(),
            expected: Expected::default(),
            phase: Phase::Opening,
            opened: 0,
            connecting: 0,
            moved: now,
            asked: 0,
            answering: 0,
            questions: VecDeque::with_capacity(UNDER_WAY),
            kept: Duration::ZERO,
        }
    }

    /// How long all connections were kept before they were asked.
    pub(super) fn kept(&self) -> Duration {
        self.kept
    }

    fn fail(&mut self, io: &mut Io<'_>, index: usize, failure: &Failure) {
        io.recorder.failure(failure);
        self.close(index);
    }

    fn close(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if slot.is_open() && !slot.is_connected() {
            self.connecting -= 1;
            self.moved = Instant::now();
        }
        if slot.under_way() > 0 {
            self.answering -= 1;
        }
        slot.close();
    }

    fn open_more(&mut self, io: &mut Io<'_>, now: Instant) {
        while self.opened < self.slots.len() && self.connecting < UNDER_WAY {
            let index = self.opened;
            self.opened += 1;
            self.moved = now;
            match self.slots[index].open(io.target, &io.registry, Token(index), now) {
                Ok(()) => self.connecting += 1,
                Err(failure) => {
                    self.fail(io, index, &failure);
                    // No port becomes free as long as all are kept, and the kernel looks at each to find that out.
                    if failure.kind == Kind::NoPort {
                        self.give_up_opening(io, &failure);
                    }
                }
            }
        }
        if self.connecting > 0 && now >= self.moved + CONNECT_PATIENCE {
            let detail = format!("no connection within {} s", CONNECT_PATIENCE.as_secs());
            let failure = Failure::new(Kind::TimedOut, detail);
            for index in 0..self.opened {
                if self.slots[index].is_open() && !self.slots[index].is_connected() {
                    self.fail(io, index, &failure);
                }
            }
            self.give_up_opening(io, &failure);
        }
    }

    /// The slots that were not tried will not be: they would fail as the others did.
    fn give_up_opening(&mut self, io: &mut Io<'_>, failure: &Failure) {
        for _ in self.opened..self.slots.len() {
            io.recorder.failure(failure);
        }
        self.opened = self.slots.len();
    }

    fn ask_more(&mut self, io: &mut Io<'_>, now: Instant) {
        while let Some(&(since, index)) = self.questions.front() {
            let unanswered = self.slots[index].under_way() > 0;
            if unanswered && now < since + ANSWER_PATIENCE {
                break;
            }
            self.questions.pop_front();
            if unanswered {
                let detail = format!("no answer within {} s", ANSWER_PATIENCE.as_secs());
                self.fail(io, index, &Failure::new(Kind::Unfinished, detail));
            }
        }
        while self.asked < self.slots.len() && self.answering < UNDER_WAY {
            let index = self.asked;
            self.asked += 1;
            let slot = &mut self.slots[index];
            if !slot.is_connected() {
                continue;
            }
            slot.since = Instant::now();
            slot.begin(1, self.request.len());
            self.answering += 1;
            self.questions.push_back((slot.since, index));
            if let Err(failure) = slot.write(&self.request) {
                self.fail(io, index, &failure);
            }
        }
    }

    /// Does all that is possible for a connection without waiting.
    fn advance(&mut self, io: &mut Io<'_>, index: usize, readiness: Readiness) -> Result<(), Failure> {
        let slot = &mut self.slots[index];
        if !slot.is_connected() {
            if !slot.finish_connecting()? {
                return Ok(());
            }
            self.connecting -= 1;
            self.moved = Instant::now();
            io.recorder.connected(self.moved.duration_since(slot.since));
            io.recorder.step();
        }
        if slot.has_unsent() {
            slot.write(&self.request)?;
        }
        if !readiness.readable {
            return Ok(());
        }
        let received = slot.read(&mut io.buffer, &mut self.expected, readiness.closed);
        if received.responses > 0 {
            io.recorder.latency(slot.since.elapsed());
            io.recorder.operations(1);
            self.answering -= 1;
        }
        if !received.end? {
            return Ok(());
        }
        if slot.under_way() > 0 {
            return Err(closed_early());
        }
        if index >= self.asked {
            let detail = "the server closed a connection that was to stay open";
            return Err(Failure::new(Kind::ClosedEarly, detail));
        }
        // It has answered; what becomes of it now is the server's affair.
        slot.close();
        Ok(())
    }
}

impl Driver for Hold {
    fn turn(&mut self, io: &mut Io<'_>, now: Instant) -> Option<Instant> {
        loop {
            match self.phase {
                Phase::Opening => {
                    self.open_more(io, now);
                    if self.opened < self.slots.len() || self.connecting > 0 {
                        return Some(self.moved + CONNECT_PATIENCE);
                    }
                    self.phase = if self.slots.iter().any(Slot::is_connected) {
                        Phase::Keeping { since: now }
                    } else {
                        Phase::Over
                    };
                }
                Phase::Keeping { since } => {
                    if now < since + self.keep {
                        return Some(since + self.keep);
                    }
                    self.kept = now.duration_since(since);
                    self.phase = Phase::Asking;
                }
                Phase::Asking => {
                    self.ask_more(io, now);
                    if self.asked < self.slots.len() || self.answering > 0 {
                        return self.questions.front().map(|&(since, _)| since + ANSWER_PATIENCE);
                    }
                    self.phase = Phase::Over;
                }
                Phase::Over => return None,
            }
        }
    }

    fn ready(&mut self, io: &mut Io<'_>, index: usize, readiness: Readiness) {
        if self.slots[index].is_open()
            && let Err(failure) = self.advance(io, index, readiness)
        {
            self.fail(io, index, &failure);
        }
    }

    fn is_over(&mut self, _io: &mut Io<'_>, _now: Instant) -> bool {
        self.phase == Phase::Over
    }
}
