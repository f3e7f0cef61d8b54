//! Connections that wait for an answer all the time. Nothing fails on them, so they show only when somebody looks.

use std::time::Duration;

/// A server that has too much to do lets every connection wait for a while, which is no error.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// Where there is no warm-up, connections are opened when the measurement has begun, a few at a time.
const OPENING: Duration = Duration::from_millis(100);

/// A phrase about such a connection.
pub(crate) const DETAIL: &str = "no answer in all the time that was measured";

/// Whether a connection that has `waited` for an answer, when the measurement ends that took `measured`, is one.
pub(crate) fn is_stalled(waited: Duration, measured: Duration) -> bool {
    waited >= MIN_WAIT && waited + OPENING >= measured
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_waits_for_long_and_all_the_time_is_stalled() {
        for (waited, measured, expected) in [
            (5_000, 5_000, true),
            (6_000, 5_000, true),
            (4_950, 5_000, true),
            (4_850, 5_000, false),
            (1_000, 10, true),
            (999, 10, false),
            (999, 999, false),
        ] {
            let [waited, measured] = [waited, measured].map(Duration::from_millis);
            assert_eq!(is_stalled(waited, measured), expected, "{waited:?} of {measured:?}");
        }
    }
}
