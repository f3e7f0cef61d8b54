//! The command `counters`.

use tidegate_control::Counters;

use super::Client;

/// All counters, those of earlier runtimes included.
///
/// # Errors
///
/// A sentence: a shard or the main loop does not answer.
pub(super) fn read(client: &Client<'_>) -> Result<Counters, String> {
    let counters = client.caller.call(|main| match &main.serving {
        Some(serving) => serving.counters(main.past).map_err(|error| error.to_string()),
        None => Ok(main.past.counters()),
    });
    counters.unwrap_or_else(|error| Err(error.to_string()))
}
