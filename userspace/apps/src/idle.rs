//! How long a connection without requests of its own may idle: what echo and discard have in common.

use std::time::Duration;

/// While the server drains, a connection on which nothing happened for so long counts as idle.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// How long a connection may idle, by the configured time (zero: without limit) and whether the server drains; `None`
/// without limit.
pub(crate) fn limit(configured: Duration, draining: bool) -> Option<Duration> {
    let configured = Some(configured).filter(|limit| !limit.is_zero());
    if draining {
        Some(configured.map_or(DRAIN_IDLE, |limit| limit.min(DRAIN_IDLE)))
    } else {
        configured
    }
}
