//! Times as people write them, and how long they may be.

use std::time::Duration;

/// Shortest time to measure.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// Longest time to measure, or to warm up.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// Longest time to keep connections.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// Parses a duration like `5s` or `1500ms` that is not below `lowest` and not above `highest`.
///
/// # Errors
///
/// A sentence when it is none, or outside.
pub(super) fn within(text: &str, lowest: Duration, highest: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < lowest || duration > highest {
        return Err(format!(
            "it must be at least {} and at most {}",
            humantime::format_duration(lowest),
            humantime::format_duration(highest)
        ));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_limits() {
        for (text, duration) in [("1ms", SHORTEST), ("60s", LONGEST), ("1m", LONGEST)] {
            assert_eq!(within(text, SHORTEST, LONGEST), Ok(duration), "{text}");
        }
        assert_eq!(within("0s", Duration::ZERO, LONGEST), Ok(Duration::ZERO));
        let error = within("61s", SHORTEST, LONGEST).unwrap_err();
        assert_eq!(error, "it must be at least 1ms and at most 1m");
        for text in ["0s", "61s", "x", "", "5", "-1s"] {
            assert!(within(text, SHORTEST, LONGEST).is_err(), "{text}");
        }
    }
}
