//! How fast the peer takes a response that waits for room.

use tidegate_tcp::application::Stream;

use super::config::Config;

/// What of a response the stream was given, and what the peer has acknowledged of that.
pub(super) struct Pace {
    given: u64,
    /// What was acknowledged when it was last looked at.
    taken: u64,
}

impl Pace {
    /// Begins with what the stream has been given and the peer has not acknowledged.
    pub(super) fn new<S: Stream>(stream: &S) -> Self {
        Self {
            given: stream.unacknowledged() as u64,
            taken: 0,
        }
    }

    /// The stream was given `bytes` more.
    pub(super) fn note_given(&mut self, bytes: u64) {
        self.given += bytes;
    }

    /// Whether the peer has taken enough since this was last asked, `send_timeout` ago.
    pub(super) fn is_kept<S: Stream>(&mut self, stream: &S, config: &Config) -> bool {
        let taken = self.given.saturating_sub(stream.unacknowledged() as u64);
        let since = taken.saturating_sub(self.taken);
        self.taken = taken;
        since >= config.least_sent()
    }
}
