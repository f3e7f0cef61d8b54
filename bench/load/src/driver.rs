//! One thread of the client: keeps as many connections as it should, begins what is due, and ends when the time is
//! over.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_tcp::time::Instant;

use crate::body::{Body, Verify};
use crate::connector::{Connector, Opener, PAUSE};
use crate::effort::{Effort, Generator};
use crate::errors::Kind;
use crate::hold::Hold;
use crate::phase::{Phase, Raising, Ramp, connections_left};
use crate::recorder::Recorder;
use crate::schedule::{Arrival, Schedule};
use crate::stats::Stats;
use crate::window::{Opened, Window};
use crate::{Direction, Frames, Plan, Workload, stalled};

/// The number of connections that are being opened at the same time where they stay open, at most; with new ones all
/// the time it is the connections asked for.
pub(crate) const MAX_OPENING: u32 = 1_000;

/// The number of SYNs, or requests of an open loop, that are sent in one turn at most, so that what arrives is not kept
/// waiting.
pub(crate) const PER_TURN: u32 = 64;

/// The time all connections may take to be established before the first request of an open loop is due anyway.
const OPENING: Duration = Duration::from_secs(2);

/// The time requests of an open loop that are due at the end may take to be answered.
const GRACE: Duration = Duration::from_secs(1);

/// The same where every response is verified.
const VERIFICATION_GRACE: Duration = Duration::from_secs(2);

/// The part of a plan that one thread has to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) workload: Workload,
    /// Connections at the same time.
    pub(crate) connections: u32,
    pub(crate) ramp: Ramp,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) verify: Verify,
    /// Connections are begun evenly spread over the duration and tried once each, and the last are waited for so long.
    pub(crate) spread: Option<Duration>,
    pub(crate) arrival: Arrival,
}

impl Task {
    /// All of `plan`.
    pub(crate) fn of(plan: &Plan) -> Self {
        Self {
            workload: plan.workload,
            connections: plan.connections,
            ramp: plan.ramp,
            warm_up: plan.warm_up,
            duration: plan.duration,
            verify: plan.verify,
            spread: plan.spread,
            arrival: plan.arrival,
        }
    }
}

/// The results of one thread.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stats: Stats,
    /// The time that was measured; for [`Workload::Hold`] the time all connections were kept.
    pub(crate) measured: Duration,
    /// Sent and received since the first turn, where they are known.
    pub(crate) frames: Option<Frames>,
    /// The body of all responses, where it was verified.
    pub(crate) body: Option<Body>,
    pub(crate) generator: Generator,
    /// The time that was measured, but for [`Workload::Hold`].
    pub(crate) window: Option<Window>,
    /// It was ended before its time.
    pub(crate) cut_short: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first turn.
    New,
    /// Nothing is sent.
    Initial {
        until: Instant,
    },
    /// The connections of an open loop are being established.
    Opening {
        until: Instant,
    },
    /// The load is raised.
    Ramp {
        until: Instant,
    },
    WarmUp {
        until: Instant,
    },
    Measuring {
        since: Instant,
        until: Instant,
    },
    /// Requests that were due before `end` may still be answered.
    Grace {
        end: Instant,
    },
    /// The load is lowered.
    RampDown {
        since: Instant,
    },
    Over,
}

impl Stage {
    /// The phase of the run; `None` before and after it.
    fn phase(self) -> Option<Phase> {
        match self {
            Self::New | Self::Over => None,
            Self::Initial { .. } => Some(Phase::Initial),
            Self::Opening { .. } => Some(Phase::Opening),
            Self::Ramp { .. } => Some(Phase::Ramp),
            Self::WarmUp { .. } => Some(Phase::WarmUp),
            Self::Measuring { .. } => Some(Phase::Sustain),
            Self::Grace { .. } => Some(Phase::Drain),
            Self::RampDown { .. } => Some(Phase::RampDown),
        }
    }
}

impl Outcome {
    /// Adds what another thread found at the same time.
    pub(crate) fn add(&mut self, other: &Self) {
        self.stats.merge(&other.stats);
        self.measured = self.measured.max(other.measured);
        self.generator.add(&other.generator);
        self.cut_short |= other.cut_short;
        match (self.body, other.body) {
            (Some(one), Some(another)) if one != another => {
                let detail = format!("a body of {another}; another thread of the client had {one}");
                self.stats.error(Kind::Content, detail);
            }
            (one, another) => self.body = one.or(another),
        }
        if let (Some(window), Some(more)) = (&mut self.window, &other.window) {
            window.add(more);
        }
        if let (Some(frames), Some(more)) = (&mut self.frames, other.frames) {
            frames.sent += more.sent;
            frames.received += more.received;
        }
    }
}

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

    /// Ends it early if that is wanted, with what was measured.
    fn heed_stop(&mut self, now: Instant) {
        if self.cut_short || !self.recorder.is_stopped() {
            return;
        }
        match &mut self.stage {
            Stage::Measuring { until, .. } => *until = now,
            Stage::Grace { .. } => return,
            // All was measured.
            Stage::RampDown { .. } => {
                self.stage = Stage::Over;
                return;
            }
            stage => *stage = Stage::Over,
        }
        self.cut_short = true;
    }

    /// Goes from stage to stage as time passes.
    fn advance(&mut self, connector: &mut impl Connector, now: Instant) {
        loop {
            let next = match self.stage {
                Stage::New => Stage::Initial {
                    until: now + self.task.ramp.initial,
                },
                Stage::Initial { until } => {
                    if now < until {
                        return;
                    }
                    match self.task.workload {
                        Workload::Latency { .. } => Stage::Opening { until: now + OPENING },
                        _ => self.begin_ramp(now),
                    }
                }
                Stage::Opening { until } => {
                    let complete = connector.application().established() >= self.task.connections;
                    if !complete && !self.failed && now < until {
                        return;
                    }
                    self.begin_ramp(now)
                }
                Stage::Ramp { until } => {
                    if now < until {
                        return;
                    }
                    Stage::WarmUp {
                        until: now + self.task.warm_up,
                    }
                }
                Stage::WarmUp { until } => {
                    if now < until {
                        return;
                    }
                    connector.application_mut().stats.begin_measuring();
                    let under_way = self.under_way(connector);
                    self.effort.begin(now, under_way);
                    self.opened = Some(Opened::now());
                    if self.task.spread.is_some() {
                        let count = u64::from(self.task.connections);
                        self.schedule = Some(Schedule::even(now, count, self.task.duration));
                    }
                    Stage::Measuring {
                        since: now,
                        until: now + self.task.duration,
                    }
                }
                Stage::Measuring { since, until } => {
                    if now < until {
                        return;
                    }
                    self.effort.end(now);
                    self.count_stalled(connector, now, since);
                    if self.task.spread.is_none() {
                        connector.application_mut().stats.stop();
                    }
                    self.measured = now.since(since);
                    self.window = self.opened.take().and_then(Opened::close);
                    if self.schedule.is_some() {
                        Stage::Grace { end: until }
                    } else if self.task.verify.hashes() {
                        connector.application_mut().stop_asking();
                        Stage::Grace { end: now }
                    } else {
                        self.begin_ramp_down(connector, now)
                    }
                }
                Stage::Grace { end } => {
                    if !self.is_answered(connector, now, end) {
                        return;
                    }
                    self.missed = self.task.workload.rate().map(|_| self.count_missed(end));
                    self.begin_ramp_down(connector, now)
                }
                Stage::RampDown { since } => {
                    if now < since + self.task.ramp.down {
                        return;
                    }
                    Stage::Over
                }
                Stage::Over => return,
            };
            self.stage = next;
        }
    }

    /// Whether each connection has one request, and is begun when it is due.
    fn connections_are_due(&self) -> bool {
        self.task.spread.is_some() || matches!(self.task.workload, Workload::OpenCps { .. })
    }

    /// The number of requests or connections that were due before `end` and were not begun.
    fn count_missed(&mut self, end: Instant) -> u64 {
        let end = self.scheduled(end);
        self.schedule.as_mut().map_or(0, |schedule| schedule.missed(end))
    }

    /// The ramp begins, and with it the open loop, if it is one.
    fn begin_ramp(&mut self, now: Instant) -> Stage {
        let rate = self.task.workload.rate();
        self.schedule = rate.map(|rate| Schedule::at_rate(now, rate, self.task.arrival));
        self.raising = Raising::new(now, self.task.ramp.up);
        Stage::Ramp {
            until: now + self.task.ramp.up,
        }
    }

    fn begin_ramp_down(&self, connector: &mut impl Connector, now: Instant) -> Stage {
        if self.task.ramp.down.is_zero() || self.cut_short {
            return Stage::Over;
        }
        connector.application_mut().stats.pause();
        Stage::RampDown { since: now }
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

    /// The time of the schedule at `now`.
    fn scheduled(&self, now: Instant) -> Instant {
        self.raising.map_or(now, |raising| raising.scheduled(now))
    }

    /// The time at which something is due that the schedule has at `scheduled`.
    fn real(&self, scheduled: Instant) -> Instant {
        self.raising.map_or(scheduled, |raising| raising.real(scheduled))
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

    /// Counts the connections of a closed loop that have waited for an answer ever since the measurement began, at
    /// `since`.
    fn count_stalled(&self, connector: &mut impl Connector, now: Instant, since: Instant) {
        let is_closed_loop = matches!(self.task.workload, Workload::Cps { .. } | Workload::Rps { .. });
        if !is_closed_loop || self.task.spread.is_some() {
            return;
        }
        let is_stalled = |begun: Instant| stalled::is_stalled(now.since(begun), now.since(since));
        // With verification requests are waited for, and counted after that.
        let requests = match self.task.verify {
            Verify::Any | Verify::Length => connector
                .application()
                .waiting()
                .filter(|&begun| is_stalled(begun))
                .count(),
            Verify::Alike | Verify::Equal(_) => 0,
        };
        let count = requests + connector.count_opening(is_stalled);
        let stats = &mut connector.application_mut().stats;
        for _ in 0..count {
            stats.error(Kind::Unfinished, stalled::DETAIL);
        }
    }

    /// The time requests that are due at the end may take to be answered.
    fn grace(&self) -> Duration {
        self.task.spread.unwrap_or(match self.task.verify {
            Verify::Any | Verify::Length => GRACE,
            Verify::Alike | Verify::Equal(_) => VERIFICATION_GRACE,
        })
    }

    /// The number of requests that were begun and are not done, or of connections that are tried once or due at a rate.
    fn under_way(&self, connector: &impl Connector) -> u64 {
        let application = connector.application();
        if self.connections_are_due() {
            u64::from(connector.opening() + application.established() - application.closing())
        } else if let Workload::Throughput { .. } = self.task.workload {
            // There is always a body under way, and bytes are what counts.
            0
        } else {
            application.under_way()
        }
    }

    /// Returns whether nothing is waited for any more. Requests without an answer are errors then.
    fn is_answered(&mut self, connector: &mut impl Connector, now: Instant, end: Instant) -> bool {
        let unanswered = self.count_missed(end) + self.under_way(connector);
        let grace = self.grace();
        if unanswered > 0 && now < end + grace {
            return false;
        }
        let detail = match (self.task.spread, self.task.workload) {
            (Some(_), _) => "no complete response when the measurement was over".to_owned(),
            (None, Workload::OpenCps { .. }) => format!(
                "no complete response on a connection that was due at least {} s before",
                grace.as_secs()
            ),
            _ => format!(
                "no answer to a request that was due at least {} s before",
                grace.as_secs()
            ),
        };
        for _ in 0..unanswered {
            connector.application_mut().stats.error(Kind::Unfinished, &detail);
        }
        true
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

    /// Whether nothing that is due can be begun before a connection is done.
    fn is_full(&self, connector: &impl Connector) -> bool {
        match self.task.workload {
            Workload::OpenCps { .. } => {
                connector.connections() - connector.application().closing() >= self.task.connections
            }
            Workload::Latency { .. } => !connector.application().has_idle(),
            _ => false,
        }
    }

    /// Sends the requests of an open loop, or opens the connections, that are due. True if it has to go on in the next
    /// turn.
    fn begin_due<C: Connector>(&mut self, connector: &mut C, now: Instant) -> bool {
        let end = match self.stage {
            Stage::Measuring { until, .. } => until,
            Stage::Grace { end } => end,
            Stage::RampDown { .. } => return false,
            _ => Instant::NEVER,
        };
        let (at, end) = (self.scheduled(now), self.scheduled(end));
        let raising = self.raising;
        let Some(schedule) = &mut self.schedule else {
            return false;
        };
        if self.task.spread.is_some() {
            for _ in 0..PER_TURN {
                if schedule.begin(at, end).is_none() {
                    return false;
                }
                if let Err(failure) = connector.connect(now) {
                    connector.application_mut().stats.failure(&failure);
                }
            }
            return true;
        }
        if let Workload::OpenCps { .. } = self.task.workload {
            return self.open_due(connector, now, (at, end));
        }
        for _ in 0..PER_TURN {
            if !connector.application().has_idle() {
                return false;
            }
            let Some(due) = schedule.begin(at, end) else {
                return false;
            };
            let due = raising.map_or(due, |raising| raising.real(due));
            let mut sent = None;
            while sent != Some(true)
                && let Some(id) = connector.application_mut().take_idle()
            {
                sent = connector.with_connection(id, |application, connection, stream| {
                    application.ask_idle(connection, stream, due)
                });
            }
            if sent == Some(true) {
                self.effort.start(due, now);
            } else {
                schedule.put_back();
            }
        }
        true
    }

    /// Opens the connections that the schedule has until `at` and before `end`, as many as there may be. True if it has
    /// to go on in the next turn.
    fn open_due<C: Connector>(&mut self, connector: &mut C, now: Instant, (at, end): (Instant, Instant)) -> bool {
        for _ in 0..PER_TURN {
            if self.is_full(connector) {
                return false;
            }
            let Some(schedule) = &mut self.schedule else {
                return false;
            };
            let Some(due) = schedule.begin(at, end) else {
                return false;
            };
            let due = self.raising.map_or(due, |raising| raising.real(due));
            match self.opener.try_open(connector, now, due) {
                Some(Ok(())) => self.effort.start(due, now),
                // It was tried, at its time.
                Some(Err(failure)) => {
                    self.effort.start(due, now);
                    connector.application_mut().stats.failure(&failure);
                }
                None => {
                    schedule.put_back();
                    return false;
                }
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
