//! The rate at which the peer takes a response that waits for room.

use tidegate_tcp::application::Stream;

use super::config::Config;

/// The bytes of a response given to the stream, and those of them that the peer has acknowledged.
pub(super) struct Pace {
    given: u64,
    /// The bytes acknowledged at the last look.
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
        since >= config.min_sent()
    }
}
