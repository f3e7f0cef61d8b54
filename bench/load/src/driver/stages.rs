//! The stages of a run, one after the other, and what is counted at their ends.

use std::time::Duration;

use tidegate_tcp::time::Instant;

use super::Driver;
use crate::body::Verify;
use crate::connector::Connector;
use crate::errors::Kind;
use crate::phase::{Phase, Raising};
use crate::schedule::Schedule;
use crate::window::Opened;
use crate::{Workload, stalled};

/// The time all connections may take to be established before the first request of an open loop is due anyway.
const OPENING: Duration = Duration::from_secs(2);

/// The time requests of an open loop that are due at the end may take to be answered.
const GRACE: Duration = Duration::from_secs(1);

/// The same where every response is verified.
const VERIFICATION_GRACE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
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
    pub(super) fn phase(self) -> Option<Phase> {
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

impl Driver {
    /// Ends it early if that is wanted, with what was measured.
    pub(super) fn heed_stop(&mut self, now: Instant) {
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
    pub(super) fn advance(&mut self, connector: &mut impl Connector, now: Instant) {
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

    /// The time requests that are due at the end may take to be answered.
    pub(super) fn grace(&self) -> Duration {
        self.task.spread.unwrap_or(match self.task.verify {
            Verify::Any | Verify::Length => GRACE,
            Verify::Alike | Verify::Equal(_) => VERIFICATION_GRACE,
        })
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
}
