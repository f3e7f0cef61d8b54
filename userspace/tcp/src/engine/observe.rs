//! Observers: events of an engine's connections, told while somebody listens.

use super::Engine;
use crate::application::Application;
use crate::connection::{Outcome, State};
use crate::counters::Counter;
use crate::wire::FlowKey;

/// Something that happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It left one state for another. Those between, which it has left again in the same event, are not told.
    State {
        /// The one before; CLOSED or LISTEN where there was no connection.
        from: State,
        /// The one it is in now; CLOSED where there is none any more.
        to: State,
    },
    /// A retransmission timeout (RFC 6298).
    Timeout,
    /// A fast recovery has begun (RFC 6675).
    Recovery,
    /// A tail loss probe was sent (RFC 8985).
    TailProbe,
}

/// A receiver of the events of an engine's connections.
pub trait Observer: Send {
    /// Takes the event `happening` of the connection `key`.
    fn observe(&mut self, key: &FlowKey, happening: Happening);

    /// Whether nobody wants to know any more. The engine then drops the observer at the next event, or when the next
    /// observer comes.
    fn is_done(&self) -> bool;
}

/// The counters that tell of a connection's recovery.
const RECOVERY: [(Counter, Happening); 3] = [
    (Counter::Timeouts, Happening::Timeout),
    (Counter::Recoveries, Happening::Recovery),
    (Counter::TailProbes, Happening::TailProbe),
];

/// The observers of an engine: most of the time none, which is all that an event then asks.
#[derive(Default)]
pub(super) struct Observers {
    all: Vec<Box<dyn Observer>>,
    /// The values of [`RECOVERY`] that were told of.
    told: [u64; RECOVERY.len()],
}

impl Observers {
    #[inline]
    pub(super) fn are_any(&self) -> bool {
        !self.all.is_empty()
    }

    #[cold]
    fn tell(&mut self, key: &FlowKey, happening: Happening) {
        self.all.retain_mut(|observer| {
            observer.observe(key, happening);
            !observer.is_done()
        });
    }
}

impl<A: Application> Engine<A> {
    /// Tells `observer` of all that happens to connections from now on, until it is done.
    pub fn add_observer(&mut self, observer: Box<dyn Observer>) {
        // Those that are done would stay for as long as nothing happens.
        self.observers.all.retain(|observer| !observer.is_done());
        self.observers.all.push(observer);
        self.observers.told = self.recovery_counts();
    }

    fn recovery_counts(&self) -> [u64; RECOVERY.len()] {
        RECOVERY.map(|(counter, _)| self.counters.get(counter))
    }

    /// Tells what an event has done to a connection, but for its end.
    #[cold]
    pub(super) fn tell(&mut self, slot: u32, outcome: Outcome) {
        let tcb = &self.connections[slot].tcb;
        let (key, from) = (tcb.key.get(), tcb.settled);
        let to = match outcome {
            Outcome::Open => tcb.state,
            Outcome::TimeWait => State::TimeWait,
            // That is told when the connection is taken out of the table.
            Outcome::Closed(_) => from,
        };
        let counts = self.recovery_counts();
        let told = core::mem::replace(&mut self.observers.told, counts);
        for (index, (_, happening)) in RECOVERY.into_iter().enumerate() {
            if counts[index] != told[index] {
                self.observers.tell(&key, happening);
            }
        }
        self.tell_of(&key, from, to);
    }

    /// Tells of a change of state, if it is one.
    #[inline]
    pub(super) fn tell_of(&mut self, key: &FlowKey, from: State, to: State) {
        if self.observers.are_any() && from != to {
            self.observers.tell(key, Happening::State { from, to });
        }
    }
}
