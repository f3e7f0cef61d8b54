//! The connections of one thread of a client, whichever TCP they are on.

use std::fmt;
use std::time::Duration;

use tidegate_tcp::application::Stream;
use tidegate_tcp::time::Instant;

use crate::Frames;
use crate::application::Requests;
use crate::errors::Failure;
use crate::record::Connection;

/// Pause before connections that failed are made anew: a server that refuses is not stormed, and nobody is kept busy
/// with the search for a free port.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// A transport: opens connections to one server, on which [`Requests`] runs. Time is that of the present turn.
pub(crate) trait Connector {
    /// A connection, by number. Numbers may be used again.
    type Id: Copy + fmt::Debug;

    /// Source ports that are in use, or in TIME-WAIT, become free while connections are held.
    const PORTS_COME_FREE: bool;

    /// When this process has ended, a peer that misses the last acknowledgment of a connection is still answered.
    const ANSWERS_AFTERWARDS: bool;

    /// The application.
    fn application(&self) -> &Requests<Self::Id>;

    /// The application.
    fn application_mut(&mut self) -> &mut Requests<Self::Id>;

    /// The number of connections, those that are being opened included.
    fn connections(&self) -> u32;

    /// Says that [`Connector::connect`] is about to be called `_count` times.
    fn prepare(&self, _count: u32) {}

    /// Begins to open a connection, which was due at `due`.
    ///
    /// # Errors
    ///
    /// No SYN could be sent, or the answer is there already and a bad one.
    fn connect(&mut self, due: Instant) -> Result<(), Failure>;

    /// Runs `action` on a connection outside of its callbacks. `None` when there is no such connection, or it is not
    /// established yet.
    fn with_connection<R>(
        &mut self,
        id: Self::Id,
        action: impl FnOnce(&mut Requests<Self::Id>, &mut Connection, &mut dyn Stream) -> R,
    ) -> Option<R>;

    /// Tells why connections were never opened, of each that failed since the last call.
    fn take_failed(&mut self, tell: impl FnMut(&mut Requests<Self::Id>, Failure));

    /// The number of connections that are being opened since a time for which `is_stalled` is true.
    fn count_opening(&self, is_stalled: impl Fn(Instant) -> bool) -> usize;

    /// Bytes of all connections that were sent.
    fn bytes_sent(&self) -> u64;

    /// Frames of all connections, if they are known.
    fn frames(&self) -> Option<Frames>;

    /// A number that grows with whatever comes from the server.
    fn arrived(&self) -> u64;

    /// The number of connections that are being opened.
    fn opening(&self) -> u32 {
        self.connections().saturating_sub(self.application().established())
    }
}

/// Opens connections, with a pause after each attempt that fails.
#[derive(Debug, Default)]
pub(crate) struct Opener {
    paused_until: Instant,
}

impl Opener {
    /// No attempts before this; it may be in the past.
    pub(crate) fn paused_until(&self) -> Instant {
        self.paused_until
    }

    /// Begins to open a connection. False if it may not or cannot now, which counts as an error.
    pub(crate) fn open<C: Connector>(&mut self, connector: &mut C, now: Instant) -> bool {
        match self.try_open(connector, now, now) {
            Some(Ok(())) => true,
            Some(Err(failure)) => {
                connector.application_mut().stats.failure(&failure);
                false
            }
            None => false,
        }
    }

    /// As [`Opener::open`], but for a connection that was due at `due`, and leaves counting the error to the caller;
    /// `None` during the pause.
    pub(crate) fn try_open<C: Connector>(
        &mut self,
        connector: &mut C,
        now: Instant,
        due: Instant,
    ) -> Option<Result<(), Failure>> {
        if now < self.paused_until {
            return None;
        }
        let result = connector.connect(due);
        if result.is_err() {
            self.paused_until = now + PAUSE;
        }
        Some(result)
    }
}
