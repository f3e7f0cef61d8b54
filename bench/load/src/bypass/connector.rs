//! Connections on the engine: opens them, and finds out which of them came to nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_tcp::State;
use tidegate_tcp::application::Stream;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{ConnectError, ConnectionId, Engine, LOOKUP_GROUP};
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::Transmit;
use tidegate_tcp::wire::{LinkHeader, Segment};

use crate::Frames;
use crate::application::Requests;
use crate::bypass::tuples::Tuples;
use crate::connector::Connector;
use crate::errors::{Failure, Kind};
use crate::openings::Opening;
use crate::record::Connection;

/// Pairs of local address and port that are tried for one connection. They come free in the order in which they were
/// used, so if a few in a row are in use there is hardly a free one.
const MAX_TRIES: u32 = 256;

/// Longer than the engine waits for the answer to a SYN.
const SYN_TIMEOUT: Duration = Duration::from_secs(60);

/// The state of one shard that its connections need beside the engine.
#[derive(Debug)]
pub(crate) struct Dialer {
    target: SocketAddr,
    link: LinkHeader,
    tuples: Tuples,
    /// Handshakes that the server refused, and that timed out, as far as they were told.
    refused: u64,
    unanswered: u64,
}

impl Dialer {
    /// Connects from `tuples` to `target` by way of `link`.
    pub(crate) fn new(target: SocketAddr, link: LinkHeader, tuples: Tuples) -> Self {
        Self {
            target,
            link,
            tuples,
            refused: 0,
            unanswered: 0,
        }
    }

    /// A frame of one of the connections arrived on the queue of another shard.
    pub(crate) fn arrived_elsewhere(&mut self, frame: &[u8]) {
        // The engine has verified it by now.
        if let Ok(segment) = Segment::parse(frame, false) {
            self.tuples.note_elsewhere(segment.key.local());
        }
    }
}

/// The engine of one shard during a turn.
pub(crate) struct EngineConnector<'a, T> {
    pub(crate) dialer: &'a mut Dialer,
    pub(crate) engine: &'a mut Engine<Requests<ConnectionId>>,
    pub(crate) now: Instant,
    pub(crate) out: &'a mut T,
}

impl<T: Transmit> EngineConnector<'_, T> {
    /// Sends one SYN, which was due at `due`, from the next pair that is not in use.
    ///
    /// # Errors
    ///
    /// An error of the engine; [`ConnectError::InUse`] if it is that for all pairs that were tried.
    fn connect_from_next(&mut self, due: Instant) -> Result<(), ConnectError> {
        let Dialer {
            target, link, tuples, ..
        } = &mut *self.dialer;
        for _ in 0..MAX_TRIES.min(tuples.len()) {
            let local = tuples.take_next();
            match self.engine.connect(self.now, local, *target, link, self.out) {
                Ok(id) => {
                    let application = self.engine.application_mut();
                    let opening = Opening { since: due, id };
                    application.openings.note(self.now, local, opening, SYN_TIMEOUT);
                    return Ok(());
                }
                Err(ConnectError::InUse) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ConnectError::InUse)
    }
}

impl<T: Transmit> Connector for EngineConnector<'_, T> {
    type Id = ConnectionId;

    const PORTS_COME_FREE: bool = true;

    const ANSWERS_AFTERWARDS: bool = false;

    fn application(&self) -> &Requests<ConnectionId> {
        self.engine.application()
    }

    fn application_mut(&mut self) -> &mut Requests<ConnectionId> {
        self.engine.application_mut()
    }

    fn connections(&self) -> u32 {
        self.engine.population().connections
    }

    fn prepare(&self, count: u32) {
        let target = self.dialer.target;
        let coming = self.dialer.tuples.coming(count.min(LOOKUP_GROUP as u32));
        self.engine.prepare(coming.map(|local| (local, target)));
    }

    fn connect(&mut self, due: Instant) -> Result<(), Failure> {
        let mut result = self.connect_from_next(due);
        // A connection whose answers arrive on another queue is better than none.
        if result == Err(ConnectError::InUse) && self.dialer.tuples.forget_elsewhere() {
            result = self.connect_from_next(due);
        }
        result.map_err(|error| match error {
            ConnectError::InUse => Failure::new(
                Kind::NoPort,
                format!(
                    "all {} pairs of local address and port are in use, or in TIME-WAIT; give more addresses, or let \
                     the other side close",
                    self.dialer.tuples.len()
                ),
            ),
            error => Failure::new(Kind::Connect, error.to_string()),
        })
    }

    fn with_connection<R>(
        &mut self,
        id: ConnectionId,
        action: impl FnOnce(&mut Requests<ConnectionId>, &mut Connection, &mut dyn Stream) -> R,
    ) -> Option<R> {
        self.engine.with_connection(self.now, id, self.out, action)
    }

    fn take_failed(&mut self, mut tell: impl FnMut(&mut Requests<ConnectionId>, Failure)) {
        // The engine tells its application only of connections that were established, but counts them all.
        let counters = self.engine.counters();
        let (reset, timed_out) = (counters.get(Counter::ResetByPeer), counters.get(Counter::TimedOut));
        let application = self.engine.application_mut();
        let (established_reset, established_timed_out) = application.ended_badly();
        let refused = reset.saturating_sub(established_reset);
        let unanswered = timed_out.saturating_sub(established_timed_out);
        for _ in self.dialer.refused..refused {
            let failure = Failure::new(Kind::Refused, "the server answered the SYN with RST");
            tell(application, failure);
        }
        for _ in self.dialer.unanswered..unanswered {
            tell(application, Failure::new(Kind::TimedOut, "no answer to the SYN"));
        }
        (self.dialer.refused, self.dialer.unanswered) = (refused, unanswered);
    }

    fn count_opening(&self, is_stalled: impl Fn(Instant) -> bool) -> usize {
        let application = self.engine.application();
        // The application does not learn which handshakes failed. The engine knows which go on, but its listing has
        // everything in TIME-WAIT, too, so it is not asked without a reason.
        if !application.openings.noted().any(&is_stalled) {
            return 0;
        }
        self.engine
            .connections()
            .filter(|connection| connection.state == State::SynSent)
            .filter_map(|connection| application.openings.since(connection.local))
            .filter(|&begun| is_stalled(begun))
            .count()
    }

    fn bytes_sent(&self) -> u64 {
        self.engine.counters().get(Counter::BytesOut)
    }

    fn frames(&self) -> Option<Frames> {
        let counters = self.engine.counters();
        Some(Frames {
            sent: counters.get(Counter::FramesOut),
            received: counters.get(Counter::FramesIn),
        })
    }

    fn arrived(&self) -> u64 {
        self.engine.counters().get(Counter::FramesIn)
    }
}
