//! Connections that are opened, stay open, and are all asked once at the end.

use std::time::Duration;

use tidegate_tcp::engine::Engine;
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::Transmit;

use crate::client::bypass::application::Requests;
use crate::client::bypass::driver::{MOST_OPENING, PER_TURN};
use crate::client::bypass::opener::Opener;
use crate::client::errors::Kind;

/// Most connections that are being asked at the same time.
const MOST_UNDER_WAY: u64 = 1_000;

/// How long everything may stand still before what is left is given up: longer than the engine takes to give up a
/// connection whose peer acknowledges nothing.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Keeping { since: Instant },
    Asking,
    Over,
}

/// What changes when something happens.
type Mark = (u32, u32, usize, u64);

/// The workload `hold` of one shard. Each connection is tried once.
#[derive(Debug)]
pub(super) struct Hold {
    connections: u32,
    keep: Duration,
    phase: Phase,
    /// Connections that were opened, or tried.
    tried: u32,
    /// Connections that were asked, in the order they were established.
    asked: usize,
    kept: Duration,
    /// When something last happened, and what it led to.
    moved: Option<(Instant, Mark)>,
}

impl Hold {
    /// `connections` that are kept for the time `keep` when they are all open.
    pub(super) fn new(connections: u32, keep: Duration) -> Self {
        Self {
            connections,
            keep,
            phase: Phase::Opening,
            tried: 0,
            asked: 0,
            kept: Duration::ZERO,
            moved: None,
        }
    }

    /// How long all connections were kept before they were asked.
    pub(super) fn kept(&self) -> Duration {
        self.kept
    }

    /// Does what there is to do. Returns when there is more at the latest; `None` when it is over.
    pub(super) fn turn<T: Transmit>(
        &mut self,
        opener: &mut Opener,
        engine: &mut Engine<Requests>,
        now: Instant,
        out: &mut T,
    ) -> Option<Instant> {
        let patience_ends = self.look(engine, now) + PATIENCE;
        loop {
            self.phase = match self.phase {
                Phase::Opening => {
                    let more = self.open(opener, engine, now, out);
                    if self.tried < self.connections && now >= patience_ends {
                        self.give_up_opening(engine);
                    }
                    if self.tried < self.connections || Opener::opening(engine) > 0 {
                        // While attempts pause, nothing else may happen.
                        let next = if more { now } else { opener.paused_until() };
                        return Some(if next >= now { next } else { patience_ends });
                    }
                    Phase::Keeping { since: now }
                }
                Phase::Keeping { since } => {
                    if now < since + self.keep {
                        return Some(since + self.keep);
                    }
                    self.kept = now.since(since);
                    self.moved = Some((now, self.mark(engine)));
                    Phase::Asking
                }
                Phase::Asking => {
                    let more = self.ask(engine, now, out);
                    if more {
                        return Some(now);
                    }
                    let unasked = engine.application().held().len() - self.asked;
                    let unanswered = engine.application().under_way() + unasked as u64;
                    if unanswered > 0 && now < patience_ends {
                        return Some(patience_ends);
                    }
                    let detail = format!("no answer, and none to any other request for {} s", PATIENCE.as_secs());
                    for _ in 0..unanswered {
                        engine.application_mut().findings.error(Kind::Unfinished, &detail);
                    }
                    Phase::Over
                }
                Phase::Over => return None,
            };
        }
    }

    /// When something last happened.
    fn look(&mut self, engine: &Engine<Requests>, now: Instant) -> Instant {
        let mark = self.mark(engine);
        match self.moved {
            Some((at, last)) if last == mark => at,
            _ => {
                self.moved = Some((now, mark));
                now
            }
        }
    }

    fn mark(&self, engine: &Engine<Requests>) -> Mark {
        let application = engine.application();
        (
            self.tried,
            application.established(),
            self.asked,
            application.under_way(),
        )
    }

    /// Opens some more. True if there are still more for the next turn.
    fn open<T: Transmit>(
        &mut self,
        opener: &mut Opener,
        engine: &mut Engine<Requests>,
        now: Instant,
        out: &mut T,
    ) -> bool {
        for _ in 0..PER_TURN {
            if self.tried == self.connections
                || Opener::opening(engine) >= MOST_OPENING
                || !opener.open(engine, now, out)
            {
                return false;
            }
            self.tried += 1;
        }
        true
    }

    fn give_up_opening(&mut self, engine: &mut Engine<Requests>) {
        let detail = format!("no connection could be begun for {} s", PATIENCE.as_secs());
        for _ in self.tried..self.connections {
            engine.application_mut().findings.error(Kind::Connect, &detail);
        }
        self.tried = self.connections;
    }

    /// Asks some more. True if there are still more for the next turn.
    fn ask<T: Transmit>(&mut self, engine: &mut Engine<Requests>, now: Instant, out: &mut T) -> bool {
        for _ in 0..PER_TURN {
            let application = engine.application();
            if application.under_way() >= MOST_UNDER_WAY {
                return false;
            }
            let Some(&id) = application.held().get(self.asked) else {
                return false;
            };
            self.asked += 1;
            // One that has gone was counted as an error then.
            engine.with_connection(now, id, out, |application, connection, stream| {
                application.ask_held(connection, id, stream);
            });
        }
        true
    }
}
