//! One thread of the client: keeps as many connections as it should, begins what is due, and ends when the time is
//! over. [`stages`] says what follows on what, [`open_loop`] begins what has a time of its own.

mod open_loop;
mod stages;
mod task;

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_tcp::time::Instant;

use self::stages::Stage;
pub(crate) use self::task::{Outcome, Task};
use crate::connector::{Connector, Opener, PAUSE};
use crate::effort::Effort;
use crate::hold::Hold;
use crate::phase::{Phase, Raising, connections_left};
use crate::recorder::Recorder;
use crate::schedule::Schedule;
use crate::window::{Opened, Window};
use crate::{Direction, Workload};

/// The number of connections that are being opened at the same time where they stay open, at most; with new ones all
/// the time it is the connections asked for.
pub(crate) const MAX_OPENING: u32 = 1_000;

/// The number of SYNs, or requests of an open loop, that are sent in one turn at most, so that what arrives is not kept
/// waiting.
pub(crate) const PER_TURN: u32 = 64;

/// The driver of one thread.
#[derive(Debug)]
pub(crate) struct Driver {
    task: Task,
    opener: Opener,
    outcome: Option<Outcome>,
    stage: Stage,
    measured: Duration,
    /// The beginning of the measurement, until it ends.
    opened: Option<Opened>,
    window: Option<Window>,
    /// The times at which connections that failed may be replaced, the earliest first: all wait equally long.
    replacements: VecDeque<Instant>,
    /// A connection has failed, so it is no use to wait for all.
    failed: bool,
    /// The times at which the requests of [`Workload::Latency`], or connections, are due, once they are.
    schedule: Option<Schedule>,
    effort: Effort,
    /// The number of starts of an open loop that came to nothing, when it is over.
    missed: Option<u64>,
    /// The load that is raised, and since then.
    raising: Option<Raising>,
    recorder: Recorder,
    cut_short: bool,
    /// [`Workload::Hold`] goes another way.
    hold: Option<Hold>,
    /// Bytes sent, as far as they were counted.
    sent: u64,
}

impl Driver {
    /// A driver whose time begins with its first turn.
    pub(crate) fn new(task: Task, recorder: Recorder) -> Self {
        let hold = (task.workload == Workload::Hold).then(|| Hold::new(task.connections, task.duration));
        Self {
            task,
            opener: Opener::default(),
            outcome: None,
            stage: Stage::New,
            measured: Duration::ZERO,
            opened: None,
            window: None,
            replacements: VecDeque::new(),
            failed: false,
            schedule: None,
            effort: Effort::default(),
            missed: None,
            raising: None,
            recorder,
            cut_short: false,
            hold,
            sent: 0,
        }
    }

    /// Returns what was found, once, when it is over.
    pub(crate) fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    fn count_failures(&mut self, connector: &mut impl Connector, now: Instant) {
        let mut failed = connector.application_mut().take_failed();
        connector.take_failed(|application, failure| {
            application.stats.failure(&failure);
            failed += 1;
        });
        self.failed |= failed > 0;
        for _ in 0..failed {
            self.replacements.push_back(now + PAUSE);
        }
        while self.replacements.front().is_some_and(|&due| due <= now) {
            self.replacements.pop_front();
        }
    }

    /// Counts what was sent to a discard service.
    fn count_sent(&mut self, connector: &mut impl Connector) {
        if let Workload::Throughput {
            direction: Direction::Up,
        } = self.task.workload
        {
            let sent = connector.bytes_sent();
            connector.application_mut().stats.count(sent - self.sent);
            self.sent = sent;
        }
    }

    /// Has as many connections closed as are too many by now.
    fn lower<C: Connector>(&self, connector: &mut C, now: Instant) {
        let Stage::RampDown { since } = self.stage else {
            return;
        };
        let wanted = connections_left(self.task.connections, now.since(since), self.task.ramp.down);
        let mut excess = connector.application().open_connections().saturating_sub(wanted);
        for _ in 0..PER_TURN {
            if excess == 0 {
                break;
            }
            let Some(id) = connector.application_mut().take_idle() else {
                break;
            };
            let closed = connector.with_connection(id, |application, connection, stream| {
                application.close_idle(connection, stream)
            });
            excess -= u32::from(closed == Some(true));
        }
        connector.application_mut().close_next(excess);
    }

    /// The connections that there are to be at `now`.
    fn wanted(&self, now: Instant) -> u32 {
        let all = self.task.connections;
        match (self.raising, &self.schedule) {
            (Some(raising), None) => raising.connections(now, all),
            _ => all,
        }
    }

    /// Writes down what was found since the last turn, after which the run is in `phase`, or over.
    fn record(&mut self, connector: &mut impl Connector, now: Instant, phase: Option<Phase>) {
        let application = connector.application_mut();
        let open = application.open_connections();
        let stats = match self.hold.as_mut().and_then(Hold::stats_mut) {
            Some(stats) => stats,
            None => &mut application.stats,
        };
        match phase {
            Some(phase) => self.recorder.turn(now, phase, stats, open),
            None => self.recorder.finish(now, stats, open),
        }
    }

    /// Opens as many connections as are wanting. True if it has to go on in the next turn.
    fn fill_up<C: Connector>(&mut self, connector: &mut C, now: Instant) -> bool {
        let opens = match self.stage {
            Stage::Opening { .. } | Stage::Ramp { .. } | Stage::WarmUp { .. } | Stage::Measuring { .. } => true,
            // What is still due may have to wait for connections in the place of those that the server has ended.
            Stage::Grace { end } => self.count_missed(end) > 0,
            Stage::New | Stage::Initial { .. } | Stage::RampDown { .. } | Stage::Over => false,
        };
        if self.connections_are_due() || !opens {
            return false;
        }
        let wanted = self.wanted(now).saturating_sub(self.replacements.len() as u32);
        let max_opening = match self.task.workload {
            Workload::Cps { .. } => u32::MAX,
            _ => MAX_OPENING,
        };
        let active = connector.connections() - connector.application().closing();
        let missing = wanted.saturating_sub(active).min(max_opening);
        if missing > 1 {
            connector.prepare(missing);
        }
        for _ in 0..PER_TURN {
            // A connection that is done and only has to end is not in the way of the next.
            let active = connector.connections() - connector.application().closing();
            if active >= wanted || connector.opening() >= max_opening {
                return false;
            }
            self.effort.act();
            if !self.opener.open(connector, now) {
                self.failed = true;
                return false;
            }
        }
        true
    }

    /// The time at which something is to be done even if nothing arrives.
    fn deadline(&self, connector: &impl Connector, now: Instant) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Initial { until }
            | Stage::Opening { until }
            | Stage::Ramp { until }
            | Stage::WarmUp { until }
            | Stage::Measuring { until, .. } => Some(until),
            Stage::Grace { end } => Some(end + self.grace()),
            Stage::RampDown { .. } => Some(now + PAUSE),
            Stage::New | Stage::Over => None,
        };
        let pause = Some(self.opener.paused_until()).filter(|&until| until > now);
        let due = self
            .schedule
            .as_ref()
            // What is due waits for a connection, or for the end of the pause.
            .filter(|_| !self.is_full(connector) && (self.task.spread.is_some() || pause.is_none()))
            .map(|schedule| self.real(schedule.next()))
            // Nothing is begun any more in the grace, whatever would be due.
            .filter(|&due| match self.stage {
                Stage::Grace { end } => due < end,
                Stage::RampDown { .. } => false,
                _ => true,
            });
        let raised = self
            .raising
            .filter(|_| self.schedule.is_none() && matches!(self.stage, Stage::Ramp { .. }))
            .map(|raising| raising.next_connection(now, self.task.connections));
        let replacement = self.replacements.front().copied();
        let second = self.recorder.due();
        [stage, due, raised, pause, replacement, second]
            .into_iter()
            .flatten()
            .min()
    }

    /// Tells what was found, and does nothing from now on.
    fn finish(&mut self, connector: &mut impl Connector) {
        let held = self.hold.as_mut().and_then(Hold::take_stats);
        self.outcome = Some(Outcome {
            stats: held.unwrap_or_else(|| connector.application_mut().end()),
            measured: self.measured,
            frames: connector.frames(),
            body: connector.application().body(),
            generator: self.effort.generator(self.missed),
            window: self.window,
            cut_short: self.cut_short,
        });
        self.stage = Stage::Over;
    }

    /// Does what is due. To be called whenever something may have happened. Returns when there is more to do at the
    /// latest; `None` if it is over, and [`Driver::take_outcome`] has what was found.
    pub(crate) fn turn<C: Connector>(&mut self, connector: &mut C, now: Instant) -> Option<Instant> {
        if self.stage == Stage::Over {
            return None;
        }
        self.effort.turn(now, connector.arrived());
        self.count_failures(connector, now);
        if let Some(hold) = &mut self.hold {
            self.cut_short |= self.recorder.is_stopped() && hold.cut_short();
            let deadline = hold.turn(&mut self.opener, connector, now);
            self.measured = hold.kept();
            let phase = deadline.and(Some(hold.phase()));
            self.record(connector, now, phase);
            let Some(deadline) = deadline else {
                self.finish(connector);
                return None;
            };
            return Some(self.recorder.due().map_or(deadline, |due| due.min(deadline)));
        }
        self.count_sent(connector);
        self.heed_stop(now);
        self.advance(connector, now);
        self.record(connector, now, self.stage.phase());
        if self.stage == Stage::Over {
            self.finish(connector);
            return None;
        }
        self.lower(connector, now);
        let more_to_open = self.fill_up(connector, now);
        let more_to_send = self.begin_due(connector, now);
        self.effort.set_full(self.is_full(connector));
        if more_to_open || more_to_send {
            return Some(now);
        }
        self.deadline(connector, now)
    }
}
