//! The rest of the work of a server whose interface another process has taken over.

use std::time::{Duration, Instant};

use tidegate_runtime::Runtime;

use crate::say;

/// The progress of that.
pub(crate) struct TakenOver {
    /// The time for which the connections may go on.
    limit: Duration,
    since: Option<Instant>,
}

impl TakenOver {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    /// Whether the server is to stop, because another has taken over and no connection is left, or its time is over.
    pub(crate) fn is_finished(&mut self, runtime: &Runtime) -> bool {
        if !runtime.is_taken_over() {
            return false;
        }
        let since = *self.since.get_or_insert_with(|| {
            say("tidegate: taken over\n");
            Instant::now()
        });
        // A shard that does not tell is left to `Runtime::check`.
        since.elapsed() >= self.limit || runtime.flows().is_ok_and(|flows| flows == 0)
    }
}
