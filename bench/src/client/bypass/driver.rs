//! One shard of the client: keeps as many connections as it should, begins what is due, and ends when the time is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tidegate_runtime::Driver;
use tidegate_tcp::State;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::Engine;
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::Transmit;

use crate::client::bypass::application::Requests;
use crate::client::bypass::findings::Findings;
use crate::client::bypass::hold::Hold;
use crate::client::bypass::opener::{Opener, PAUSE};
use crate::client::bypass::schedule::Schedule;
use crate::client::errors::Kind;
use crate::client::{Direction, Frames, Workload, stuck};

/// Most connections that are being opened at the same time where they stay open; with new ones all the time it is the
/// connections asked for.
pub(super) const MOST_OPENING: u32 = 1_000;

/// Most SYNs, or requests of an open loop, that are sent in one turn, so that what arrives is not kept waiting.
pub(super) const PER_TURN: u32 = 64;

/// How long all connections may take to be established before the first request of an open loop is due anyway.
const OPENING: Duration = Duration::from_secs(2);

/// How long requests of an open loop that are due at the end may take to be answered.
const GRACE: Duration = Duration::from_secs(1);

/// What one shard has to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) workload: Workload,
    /// Connections at the same time.
    pub(super) connections: u32,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// What one shard found.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) findings: Findings,
    /// How long was measured; for [`Workload::Hold`] how long all connections were kept.
    pub(super) measured: Duration,
    /// Sent and received since the first turn.
    pub(super) frames: Frames,
}

/// How a shard tells the thread that started it.
#[derive(Debug)]
pub(super) struct Reports {
    /// What the shown rate is of.
    pub(super) steps: Arc<AtomicU64>,
    /// Told once, at the end.
    pub(super) outcome: Sender<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first turn.
    New,
    /// The connections of an open loop are being established.
    Opening {
        until: Instant,
    },
    WarmUp {
        until: Instant,
    },
    Measuring {
        since: Instant,
    },
    /// What was due before `end` may still be answered.
    Grace {
        end: Instant,
    },
    Over,
}

/// The driver of one shard.
#[derive(Debug)]
pub(super) struct ClientDriver {
    task: Task,
    opener: Opener,
    reports: Reports,
    stage: Stage,
    measured: Duration,
    /// When each connection that failed may be replaced, the earliest first: all wait equally long.
    replacements: VecDeque<Instant>,
    /// A connection has failed, so it is no use to wait for all.
    failed: bool,
    /// [`Workload::Latency`]: when requests are due, once they are.
    schedule: Option<Schedule>,
    /// [`Workload::Hold`] goes another way.
    hold: Option<Hold>,
    /// Bytes sent, as far as they were counted.
    sent: u64,
}

impl ClientDriver {
    /// A driver whose time begins with its first turn.
    pub(super) fn new(task: Task, opener: Opener, reports: Reports) -> Self {
        let hold = (task.workload == Workload::Hold).then(|| Hold::new(task.connections, task.duration));
        Self {
            task,
            opener,
            reports,
            stage: Stage::New,
            measured: Duration::ZERO,
            replacements: VecDeque::new(),
            failed: false,
            schedule: None,
            hold,
            sent: 0,
        }
    }

    fn count_failures(&mut self, engine: &mut Engine<Requests>, now: Instant) {
        let failed = self.opener.count_failed(engine) + engine.application_mut().take_failed();
        self.failed |= failed > 0;
        for _ in 0..failed {
            self.replacements.push_back(now + PAUSE);
        }
        while self.replacements.front().is_some_and(|&due| due <= now) {
            self.replacements.pop_front();
        }
    }

    /// Counts what was sent to a discard service.
    fn count_sent(&mut self, engine: &mut Engine<Requests>) {
        if let Workload::Throughput {
            direction: Direction::Up,
        } = self.task.workload
        {
            let sent = engine.counters().get(Counter::BytesOut);
            engine.application_mut().findings.count(sent - self.sent);
            self.sent = sent;
        }
    }

    /// Goes from stage to stage as time passes.
    fn advance(&mut self, engine: &mut Engine<Requests>, now: Instant) {
        loop {
            let next = match self.stage {
                Stage::New => match self.task.workload {
                    Workload::Latency { .. } => Stage::Opening { until: now + OPENING },
                    _ => Stage::WarmUp {
                        until: now + self.task.warm_up,
                    },
                },
                Stage::Opening { until } => {
                    let complete = engine.application().established() >= self.task.connections;
                    if !complete && !self.failed && now < until {
                        return;
                    }
                    if let Workload::Latency { rate } = self.task.workload {
                        self.schedule = Some(Schedule::new(now, rate));
                    }
                    Stage::WarmUp {
                        until: now + self.task.warm_up,
                    }
                }
                Stage::WarmUp { until } => {
                    if now < until {
                        return;
                    }
                    engine.application_mut().findings.begin_measuring();
                    Stage::Measuring { since: now }
                }
                Stage::Measuring { since } => {
                    if now < since + self.task.duration {
                        return;
                    }
                    self.count_stuck(engine, now, since);
                    engine.application_mut().findings.stop();
                    self.measured = now.since(since);
                    match self.schedule {
                        Some(_) => Stage::Grace {
                            end: since + self.task.duration,
                        },
                        None => Stage::Over,
                    }
                }
                Stage::Grace { end } => {
                    if !self.is_answered(engine, now, end) {
                        return;
                    }
                    Stage::Over
                }
                Stage::Over => return,
            };
            self.stage = next;
        }
    }

    /// Counts the connections of a closed loop that have waited for an answer ever since the measurement began, at
    /// `since`.
    fn count_stuck(&self, engine: &mut Engine<Requests>, now: Instant, since: Instant) {
        if !matches!(self.task.workload, Workload::Cps { .. } | Workload::Rps { .. }) {
            return;
        }
        let is_stuck = |begun: Instant| stuck::is_stuck(now.since(begun), now.since(since));
        let application = engine.application();
        let mut count = application.waiting().filter(|&begun| is_stuck(begun)).count();
        // The application does not learn which handshakes failed. The engine knows which go on, but its listing has
        // everything in TIME-WAIT, too, so it is not asked without a reason.
        if application.opening().any(is_stuck) {
            count += engine
                .connections()
                .filter(|connection| connection.state == State::SynSent)
                .filter_map(|connection| application.opening_from(connection.local))
                .filter(|&begun| is_stuck(begun))
                .count();
        }
        let findings = &mut engine.application_mut().findings;
        for _ in 0..count {
            findings.error(Kind::Unfinished, stuck::DETAIL);
        }
    }

    /// Whether nothing of an open loop is waited for any more. What is then without an answer are errors.
    fn is_answered(&self, engine: &mut Engine<Requests>, now: Instant, end: Instant) -> bool {
        let missed = self.schedule.map_or(0, |schedule| schedule.missed(end));
        let unanswered = engine.application().under_way() + missed;
        if unanswered > 0 && now < end + GRACE {
            return false;
        }
        let detail = format!(
            "no answer to a request that was due at least {} s before",
            GRACE.as_secs()
        );
        for _ in 0..unanswered {
            engine.application_mut().findings.error(Kind::Unfinished, &detail);
        }
        true
    }

    /// Opens as many connections as are wanting. True if it has to go on in the next turn.
    fn fill_up<T: Transmit>(&mut self, engine: &mut Engine<Requests>, now: Instant, out: &mut T) -> bool {
        if matches!(self.stage, Stage::Grace { .. } | Stage::Over) {
            return false;
        }
        let wanted = self.task.connections.saturating_sub(self.replacements.len() as u32);
        let most_opening = match self.task.workload {
            Workload::Cps { .. } => u32::MAX,
            _ => MOST_OPENING,
        };
        let active = engine.population().connections - engine.application().closing();
        let missing = wanted.saturating_sub(active).min(most_opening);
        if missing > 1 {
            self.opener.prepare(engine, missing);
        }
        for _ in 0..PER_TURN {
            // A connection that is done and only has to end is not in the way of the next.
            let active = engine.population().connections - engine.application().closing();
            if active >= wanted || Opener::opening(engine) >= most_opening || !self.opener.open(engine, now, out) {
                return false;
            }
        }
        true
    }

    /// Sends the requests of an open loop that are due. True if it has to go on in the next turn.
    fn send_due<T: Transmit>(&mut self, engine: &mut Engine<Requests>, now: Instant, out: &mut T) -> bool {
        let Some(schedule) = &mut self.schedule else {
            return false;
        };
        let end = match self.stage {
            Stage::Measuring { since } => since + self.task.duration,
            Stage::Grace { end } => end,
            _ => Instant::NEVER,
        };
        for _ in 0..PER_TURN {
            if !engine.application().has_idle() {
                return false;
            }
            let Some(due) = schedule.begin(now, end) else {
                return false;
            };
            let mut sent = None;
            while sent != Some(true)
                && let Some(id) = engine.application_mut().take_idle()
            {
                sent = engine.with_connection(now, id, out, |application, connection, stream| {
                    application.ask_idle(connection, stream, due)
                });
            }
            if sent != Some(true) {
                schedule.put_back();
            }
        }
        true
    }

    /// When something is to be done even if nothing arrives.
    fn deadline(&self, engine: &Engine<Requests>, now: Instant) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Opening { until } | Stage::WarmUp { until } => Some(until),
            Stage::Measuring { since } => Some(since + self.task.duration),
            Stage::Grace { end } => Some(end + GRACE),
            Stage::New | Stage::Over => None,
        };
        let due = self
            .schedule
            .filter(|_| engine.application().has_idle())
            .map(|schedule| schedule.next());
        let pause = Some(self.opener.paused_until()).filter(|&until| until > now);
        let replacement = self.replacements.front().copied();
        [stage, due, pause, replacement].into_iter().flatten().min()
    }

    /// Tells what was found, and does nothing from now on.
    fn finish(&mut self, engine: &mut Engine<Requests>) {
        let outcome = Outcome {
            findings: engine.application_mut().end(),
            measured: self.measured,
            frames: Frames {
                sent: engine.counters().get(Counter::FramesOut),
                received: engine.counters().get(Counter::FramesIn),
            },
        };
        // Whoever started it may have given up.
        let _ = self.reports.outcome.send(outcome);
        self.stage = Stage::Over;
    }
}

impl Driver<Requests> for ClientDriver {
    fn turn<T: Transmit>(&mut self, engine: &mut Engine<Requests>, now: Instant, out: &mut T) -> Option<Instant> {
        if self.stage == Stage::Over {
            return None;
        }
        self.count_failures(engine, now);
        self.reports
            .steps
            .store(engine.application().findings.steps(), Ordering::Relaxed);
        if let Some(hold) = &mut self.hold {
            let deadline = hold.turn(&mut self.opener, engine, now, out);
            if deadline.is_none() {
                self.measured = hold.kept();
                self.finish(engine);
            }
            return deadline;
        }
        self.count_sent(engine);
        self.advance(engine, now);
        if self.stage == Stage::Over {
            self.finish(engine);
            return None;
        }
        let more_to_open = self.fill_up(engine, now, out);
        let more_to_send = self.send_due(engine, now, out);
        if more_to_open || more_to_send {
            return Some(now);
        }
        self.deadline(engine, now)
    }

    fn arrived_elsewhere(&mut self, frame: &[u8]) {
        self.opener.arrived_elsewhere(frame);
    }
}
