//! The part of a plan that one thread has to do, and its results.

use std::time::Duration;

use crate::body::{Body, Verify};
use crate::effort::Generator;
use crate::errors::Kind;
use crate::phase::Ramp;
use crate::schedule::Arrival;
use crate::stats::Stats;
use crate::window::Window;
use crate::{Frames, Plan, Workload};

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
