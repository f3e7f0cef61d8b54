//! Connections that are opened, stay open, and are all asked once at the end, and then closed.

use std::time::Duration;

use tidegate_tcp::time::Instant;

use crate::connector::{Connector, Opener};
use crate::driver::{MAX_OPENING, PER_TURN};
use crate::errors::{Failure, Kind};
use crate::phase;
use crate::stats::Stats;

/// The number of connections that are being asked at the same time, or closed, at most.
const MAX_IN_FLIGHT: u64 = 1_000;

/// The time everything may stand still before what is left is given up: longer than a transport takes to give up a
/// connection whose peer acknowledges nothing.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The time in which a peer that misses the last acknowledgment of its connection is answered, where nobody answers it
/// later: it sends its FIN again after 200 ms or little more, and then after twice that.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Keeping {
        since: Instant,
    },
    Asking,
    /// As many as there are, reset at once, would be more than a receive ring holds, and nobody sends an RST again.
    Closing,
    /// All are closed.
    Lingering {
        until: Instant,
    },
    Over,
}

/// Numbers of which one changes when something happens.
type Mark = (u32, u32, usize, usize, u64);

/// The workload `hold` of one thread. Each connection is tried once.
#[derive(Debug)]
pub(crate) struct Hold {
    connections: u32,
    keep: Duration,
    phase: Phase,
    /// Connections that were opened, or tried.
    tried: u32,
    /// Connections that were asked, in the order they were established.
    asked: usize,
    /// Connections that were closed, in the same order.
    closed: usize,
    kept: Duration,
    /// The statistics, once connections are being closed: nothing that comes then is an answer or an error.
    stats: Option<Stats>,
    /// The time at which something last happened, and the state then.
    moved: Option<(Instant, Mark)>,
}

impl Hold {
    /// `connections` that are kept for the time `keep` when they are all open.
    pub(crate) fn new(connections: u32, keep: Duration) -> Self {
        Self {
            connections,
            keep,
            phase: Phase::Opening,
            tried: 0,
            asked: 0,
            closed: 0,
            kept: Duration::ZERO,
            stats: None,
            moved: None,
        }
    }

    /// The time all connections were kept before they were asked.
    pub(crate) fn kept(&self) -> Duration {
        self.kept
    }

    /// The phase of the run.
    pub(crate) fn phase(&self) -> phase::Phase {
        match self.phase {
            Phase::Opening => phase::Phase::Opening,
            Phase::Keeping { .. } => phase::Phase::Sustain,
            Phase::Asking => phase::Phase::Drain,
            Phase::Closing | Phase::Lingering { .. } | Phase::Over => phase::Phase::RampDown,
        }
    }

    /// Asks the connections that there are, without opening more or keeping them longer. True if that is any
    /// different.
    pub(crate) fn cut_short(&mut self) -> bool {
        let is_early = matches!(self.phase, Phase::Opening | Phase::Keeping { .. });
        if is_early {
            self.connections = self.tried;
            self.keep = Duration::ZERO;
        }
        is_early
    }

    /// The statistics, once connections are being closed.
    pub(crate) fn stats_mut(&mut self) -> Option<&mut Stats> {
        self.stats.as_mut()
    }

    /// The statistics, if connections were closed; once.
    pub(crate) fn take_stats(&mut self) -> Option<Stats> {
        self.stats.take()
    }

    /// Does what there is to do. Returns when there is more at the latest; `None` when it is over.
    pub(crate) fn turn<C: Connector>(
        &mut self,
        opener: &mut Opener,
        connector: &mut C,
        now: Instant,
    ) -> Option<Instant> {
        let timeout_at = self.look(connector, now) + TIMEOUT;
        loop {
            self.phase = match self.phase {
                Phase::Opening => {
                    let more = self.open(opener, connector, now);
                    if self.tried < self.connections && now >= timeout_at {
                        let detail = format!("no connection could be begun for {} s", TIMEOUT.as_secs());
                        self.give_up_opening(connector, &Failure::new(Kind::Connect, detail));
                    }
                    if self.tried < self.connections || connector.opening() > 0 {
                        // While attempts pause, nothing else may happen.
                        let next = if more { now } else { opener.paused_until() };
                        return Some(if next >= now { next } else { timeout_at });
                    }
                    match connector.application().established() {
                        0 => Phase::Over,
                        _ => Phase::Keeping { since: now },
                    }
                }
                Phase::Keeping { since } => {
                    if now < since + self.keep {
                        return Some(since + self.keep);
                    }
                    self.kept = now.since(since);
                    self.moved = Some((now, self.mark(connector)));
                    Phase::Asking
                }
                Phase::Asking => {
                    let more = self.ask(connector);
                    if more {
                        return Some(now);
                    }
                    let unasked = connector.application().held().len() - self.asked;
                    let unanswered = connector.application().under_way() + unasked as u64;
                    if unanswered > 0 && now < timeout_at {
                        return Some(timeout_at);
                    }
                    let detail = format!("no answer, and none to any other request for {} s", TIMEOUT.as_secs());
                    for _ in 0..unanswered {
                        connector.application_mut().stats.error(Kind::Unfinished, &detail);
                    }
                    self.stats = Some(connector.application_mut().end());
                    self.moved = Some((now, self.mark(connector)));
                    Phase::Closing
                }
                Phase::Closing => {
                    if self.close(connector) {
                        return Some(now);
                    }
                    let timeout_at = self.look(connector, now) + TIMEOUT;
                    if connector.application().established() > 0 && now < timeout_at {
                        return Some(timeout_at);
                    }
                    if C::ANSWERS_AFTERWARDS {
                        Phase::Over
                    } else {
                        Phase::Lingering { until: now + LINGER }
                    }
                }
                Phase::Lingering { until } => {
                    if now < until {
                        return Some(until);
                    }
                    Phase::Over
                }
                Phase::Over => return None,
            };
        }
    }

    /// The time at which something last happened.
    fn look(&mut self, connector: &impl Connector, now: Instant) -> Instant {
        let mark = self.mark(connector);
        match self.moved {
            Some((at, last)) if last == mark => at,
            _ => {
                self.moved = Some((now, mark));
                now
            }
        }
    }

    fn mark(&self, connector: &impl Connector) -> Mark {
        let application = connector.application();
        (
            self.tried,
            application.established(),
            self.asked,
            self.closed,
            application.under_way(),
        )
    }

    /// Opens some more. True if there are still more for the next turn.
    fn open<C: Connector>(&mut self, opener: &mut Opener, connector: &mut C, now: Instant) -> bool {
        for _ in 0..PER_TURN {
            if self.tried == self.connections || connector.opening() >= MAX_OPENING {
                return false;
            }
            match opener.try_open(connector, now, now) {
                Some(Ok(())) => self.tried += 1,
                // No port becomes free as long as all are kept, and the kernel looks at each to find that out. What
                // it says of a server that never answered, it would say again.
                Some(Err(failure))
                    if !C::PORTS_COME_FREE
                        && (failure.kind == Kind::NoPort || connector.application().established() == 0) =>
                {
                    self.give_up_opening(connector, &failure);
                }
                Some(Err(failure)) => {
                    connector.application_mut().stats.failure(&failure);
                    self.tried += u32::from(!C::PORTS_COME_FREE);
                    return false;
                }
                None => return false,
            }
        }
        true
    }

    /// The connections that were not tried will not be: they would fail as the others did.
    fn give_up_opening<C: Connector>(&mut self, connector: &mut C, failure: &Failure) {
        for _ in self.tried..self.connections {
            connector.application_mut().stats.failure(failure);
        }
        self.tried = self.connections;
    }

    /// Closes some more. True if there are still more for the next turn.
    fn close<C: Connector>(&mut self, connector: &mut C) -> bool {
        for _ in 0..PER_TURN {
            let application = connector.application();
            let held = application.held();
            let open = (held.len() - self.closed) as u64;
            if u64::from(application.established()) >= open + MAX_IN_FLIGHT {
                return false;
            }
            let Some(&id) = held.get(self.closed) else {
                return false;
            };
            self.closed += 1;
            connector.with_connection(id, |application, connection, stream| {
                application.close_held(connection, stream);
            });
        }
        true
    }

    /// Asks some more. True if there are still more for the next turn.
    fn ask<C: Connector>(&mut self, connector: &mut C) -> bool {
        for _ in 0..PER_TURN {
            let application = connector.application();
            if application.under_way() >= MAX_IN_FLIGHT {
                return false;
            }
            let Some(&id) = application.held().get(self.asked) else {
                return false;
            };
            self.asked += 1;
            // One that has gone was counted as an error then.
            connector.with_connection(id, |application, connection, stream| {
                application.ask_held(connection, id, stream);
            });
        }
        true
    }
}
