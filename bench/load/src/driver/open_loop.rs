//! Operations at the time at which they are due: requests of an open loop, and connections.

use tidegate_tcp::time::Instant;

use super::stages::Stage;
use super::{Driver, PER_TURN};
use crate::Workload;
use crate::connector::Connector;

impl Driver {
    /// Whether each connection has one request, and is begun when it is due.
    pub(super) fn connections_are_due(&self) -> bool {
        self.task.spread.is_some() || matches!(self.task.workload, Workload::OpenCps { .. })
    }

    /// The number of requests or connections that were due before `end` and were not begun.
    pub(super) fn count_missed(&mut self, end: Instant) -> u64 {
        let end = self.scheduled(end);
        self.schedule.as_mut().map_or(0, |schedule| schedule.missed(end))
    }

    /// The time of the schedule at `now`.
    pub(super) fn scheduled(&self, now: Instant) -> Instant {
        self.raising.map_or(now, |raising| raising.scheduled(now))
    }

    /// The time at which something is due that the schedule has at `scheduled`.
    pub(super) fn real(&self, scheduled: Instant) -> Instant {
        self.raising.map_or(scheduled, |raising| raising.real(scheduled))
    }

    /// Whether nothing that is due can be begun before a connection is done.
    pub(super) fn is_full(&self, connector: &impl Connector) -> bool {
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
    pub(super) fn begin_due<C: Connector>(&mut self, connector: &mut C, now: Instant) -> bool {
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
}
