//! Counters, and what `tidegate ctl top` shows beside them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The reply to `counters`: all of them, in the order in which SIGUSR1 has them printed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Counters {
    /// The counters.
    pub counters: Vec<Counter>,
}

/// One counter.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Counter {
    /// Its name.
    pub name: String,
    /// Its value, over all queues.
    pub total: u64,
    /// Its value for each queue, the first that of queue 0; empty for one that has no queue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<u64>,
}

impl Counters {
    /// The counter of this name.
    pub fn get(&self, name: &str) -> Option<&Counter> {
        self.counters.iter().find(|counter| counter.name == name)
    }

    /// The total of the counter of this name; 0 if there is none.
    pub fn total(&self, name: &str) -> u64 {
        self.get(name).map_or(0, |counter| counter.total)
    }

    /// The value of the counter of this name for `queue`; 0 if there is none.
    pub fn of_queue(&self, name: &str, queue: usize) -> u64 {
        let counter = self.get(name);
        counter
            .and_then(|counter| counter.queues.get(queue))
            .map_or(0, |&value| value)
    }
}

/// A reply to `top`, of which there is one every interval.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Top {
    /// All counters.
    pub counters: Vec<Counter>,
    /// Latencies in microseconds since the reply before, by name: `rtt`, `accept` and `response`.
    pub latencies_us: BTreeMap<String, Latency>,
    /// Connections by state, of those that were looked at.
    pub states: BTreeMap<String, u64>,
    /// Whether all connections were looked at: there may be too many for one interval.
    pub complete: bool,
    /// The peers with most bytes on their open connections, the busiest first, of those that were looked at.
    pub peers: Vec<Peer>,
}

/// The durations of an interval.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Latency {
    /// Their number.
    pub count: u64,
    /// The duration that half of them do not exceed; `null` when there are none, as the next.
    pub p50: Option<u64>,
    /// The duration that 90 % of them do not exceed.
    pub p90: Option<u64>,
    /// The duration that 99 % of them do not exceed.
    pub p99: Option<u64>,
}

/// The open connections of a peer's address.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Peer {
    /// The address.
    pub address: IpAddr,
    /// Its connections.
    pub connections: u64,
    /// Bytes received on them.
    pub bytes_received: u64,
    /// Bytes sent on them.
    pub bytes_sent: u64,
}
