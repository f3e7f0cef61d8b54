//! The command `counters`.

use tidegate_control::{Counter, Counters};

use super::Client;
use crate::counter_rows::Row;

/// All counters, those of earlier runtimes included.
///
/// # Errors
///
/// A sentence: a shard or the main loop does not answer.
pub(super) fn read(client: &Client<'_>) -> Result<Counters, String> {
    let rows = client.caller.call(|main| match &main.serving {
        Some(serving) => serving.counters(main.past).map_err(|error| error.to_string()),
        None => Ok(main.past.counters()),
    });
    let rows = rows.unwrap_or_else(|error| Err(error.to_string()))?;
    Ok(Counters {
        counters: rows.into_iter().map(told).collect(),
    })
}

/// A row, whose queues are those from 0 on.
fn told(row: Row) -> Counter {
    Counter {
        name: row.name.to_string(),
        total: row.total,
        queues: row.queues.iter().map(|&(_, value)| value).collect(),
    }
}
