//! Opens connections, and finds out which of them came to nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{ConnectError, Engine, LOOKUP_GROUP};
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::Transmit;
use tidegate_tcp::wire::{LinkHeader, Segment};

use crate::client::bypass::application::Requests;
use crate::client::bypass::tuples::Tuples;
use crate::client::errors::Kind;

/// Pause before connections that failed are made anew, and before ports are looked for again when none was free.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Pairs of local address and port that are tried for one connection. They come free in the order in which they were
/// used, so if a few in a row are in use there is hardly a free one.
const TRIES: u32 = 256;

/// Longer than the engine waits for the answer to a SYN.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens connections to one server.
#[derive(Debug)]
pub(super) struct Opener {
    target: SocketAddr,
    link: LinkHeader,
    tuples: Tuples,
    /// Handshakes that the server refused, and that timed out, as far as they were told.
    refused: u64,
    unanswered: u64,
    /// No attempts before this.
    paused_until: Instant,
}

impl Opener {
    /// Opens connections from `tuples` to `target` by way of `link`.
    pub(super) fn new(target: SocketAddr, link: LinkHeader, tuples: Tuples) -> Self {
        Self {
            target,
            link,
            tuples,
            refused: 0,
            unanswered: 0,
            paused_until: Instant::ZERO,
        }
    }

    /// Connections that are being opened.
    pub(super) fn opening(engine: &Engine<Requests>) -> u32 {
        let all = engine.population().connections;
        all.saturating_sub(engine.application().established())
    }

    /// Nothing is tried before this; it may be in the past.
    pub(super) fn paused_until(&self) -> Instant {
        self.paused_until
    }

    /// Says that so many connections are about to be opened, a burst at most.
    pub(super) fn prepare(&self, engine: &Engine<Requests>, count: u32) {
        let coming = self.tuples.coming(count.min(LOOKUP_GROUP as u32));
        engine.prepare(coming.map(|local| (local, self.target)));
    }

    /// Sends one SYN. False if it cannot, which counts as an error, and then cannot for a moment.
    pub(super) fn open<T: Transmit>(&mut self, engine: &mut Engine<Requests>, now: Instant, out: &mut T) -> bool {
        if now < self.paused_until {
            return false;
        }
        let mut result = self.connect(engine, now, out);
        // A connection whose answers arrive on another queue is better than none.
        if result == Err(ConnectError::InUse) && self.tuples.forget_elsewhere() {
            result = self.connect(engine, now, out);
        }
        let Err(error) = result else { return true };
        let findings = &mut engine.application_mut().findings;
        if error == ConnectError::InUse {
            let detail = format!(
                "all {} pairs of local address and port are in use, or in TIME-WAIT; give more addresses, or let the \
                 other side close",
                self.tuples.len()
            );
            findings.error(Kind::NoPort, detail);
        } else {
            findings.error(Kind::Connect, error);
        }
        self.paused_until = now + PAUSE;
        false
    }

    /// Sends one SYN from the next pair that is not in use.
    ///
    /// # Errors
    ///
    /// What the engine says; [`ConnectError::InUse`] if that is so for all pairs that were tried.
    fn connect<T: Transmit>(
        &mut self,
        engine: &mut Engine<Requests>,
        now: Instant,
        out: &mut T,
    ) -> Result<(), ConnectError> {
        for _ in 0..TRIES.min(self.tuples.len()) {
            let local = self.tuples.take_next();
            match engine.connect(now, local, self.target, &self.link, out) {
                Ok(id) => {
                    let application = engine.application_mut();
                    application.note_opening(now, local, id, PATIENCE);
                    return Ok(());
                }
                Err(ConnectError::InUse) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ConnectError::InUse)
    }

    /// Counts the handshakes that came to nothing since the last call, as errors. Returns how many there are.
    pub(super) fn count_failed(&mut self, engine: &mut Engine<Requests>) -> u32 {
        // The engine tells its application only of connections that were established, but counts them all.
        let counters = engine.counters();
        let (reset, timed_out) = (counters.get(Counter::ResetByPeer), counters.get(Counter::TimedOut));
        let (established_reset, established_timed_out) = engine.application().ended_badly();
        let refused = reset.saturating_sub(established_reset);
        let unanswered = timed_out.saturating_sub(established_timed_out);
        let failed = (refused - self.refused) + (unanswered - self.unanswered);
        if failed > 0 {
            let findings = &mut engine.application_mut().findings;
            for _ in self.refused..refused {
                findings.error(Kind::Refused, "the server answered the SYN with RST");
            }
            for _ in self.unanswered..unanswered {
                findings.error(Kind::TimedOut, "no answer to the SYN");
            }
            (self.refused, self.unanswered) = (refused, unanswered);
        }
        failed as u32
    }

    /// A frame of one of the connections arrived on the queue of another shard.
    pub(super) fn arrived_elsewhere(&mut self, frame: &[u8]) {
        // The engine has verified it by now.
        if let Ok(segment) = Segment::parse(frame, false) {
            self.tuples.note_elsewhere(segment.key.local());
        }
    }
}
