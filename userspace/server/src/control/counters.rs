//! The command `counters`.

use std::sync::Arc;

use tidegate_control::{Counter, Counters};
use tidegate_runtime::Report;
use tidegate_tcp::histogram::Histogram;

use super::Client;
use crate::counter_rows::Row;
use crate::serve::rows_of;
use crate::service_counters::Published;

/// All that is counted, by earlier runtimes too.
pub(super) struct Counted {
    rows: Vec<Row>,
    pub(super) latencies: Latencies,
}

/// Latencies of all shards.
#[derive(Clone, Default)]
pub(super) struct Latencies {
    pub(super) rtt: Histogram,
    pub(super) accept: Histogram,
    pub(super) response: Histogram,
}

impl Counted {
    /// # Errors
    ///
    /// A sentence: a shard or the main loop does not answer.
    pub(super) fn read(client: &Client<'_>) -> Result<Self, String> {
        let counted = client.caller.call(|main| {
            let (report, services) = main.counts()?.unwrap_or_default();
            Ok(Self {
                latencies: Latencies::of(&report, services),
                rows: rows_of(&report, services),
            })
        });
        counted.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// The counters, for a reply.
    pub(super) fn into_counters(self) -> Counters {
        Counters {
            counters: self.rows.into_iter().map(told).collect(),
        }
    }
}

impl Latencies {
    fn of(report: &Report, services: &[Arc<Published>]) -> Self {
        let mut sum = Self::default();
        for shard in &report.shards {
            sum.rtt.merge(&shard.latencies.rtt);
            sum.accept.merge(&shard.latencies.accept);
        }
        for service in services {
            sum.response.merge(&service.counts().response_time);
        }
        sum
    }
}

/// A row, whose queues are those from 0 on.
fn told(row: Row) -> Counter {
    Counter {
        name: row.name,
        total: row.total,
        queues: row.queues.iter().map(|&(_, value)| value).collect(),
    }
}
