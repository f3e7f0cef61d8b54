//! The number of neighbours that the kernel is told of in a second.

use core::time::Duration;
use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Instant;

/// The time a budget is for.
pub(super) const BUDGET_INTERVAL: Duration = Duration::from_secs(1);

/// So many of each kind in a second.
pub(super) struct Budget {
    rate: u32,
    pub(super) since: Instant,
    unresolved: u32,
    in_use: u32,
    /// The addresses that were asked for in this second.
    asked: HashSet<(u32, IpAddr)>,
}

impl Budget {
    pub(super) fn new(rate: u32) -> Self {
        Self {
            rate,
            since: Instant::now(),
            unresolved: rate,
            in_use: rate,
            asked: HashSet::new(),
        }
    }

    pub(super) fn renew(&mut self, now: Instant) {
        if now.duration_since(self.since) >= BUDGET_INTERVAL {
            self.since = now;
            (self.unresolved, self.in_use) = (self.rate, self.rate);
            self.asked.clear();
        }
    }

    /// Whether the kernel is to resolve a neighbour; `None` if it was asked for in this second.
    pub(super) fn allow_unresolved(&mut self, neighbour: (u32, IpAddr)) -> Option<bool> {
        if self.asked.contains(&neighbour) {
            return None;
        }
        Some(match self.unresolved.checked_sub(1) {
            Some(left) => {
                self.unresolved = left;
                self.asked.insert(neighbour)
            }
            None => false,
        })
    }

    pub(super) fn take_in_use(&mut self) -> bool {
        let left = self.in_use.checked_sub(1);
        self.in_use = left.unwrap_or(0);
        left.is_some()
    }
}
