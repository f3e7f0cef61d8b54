//! A walk over all flows of an engine, a slice at a time, to list them or to end some of them.

use core::net::SocketAddr;

use super::listing::ConnectionInfo;
use super::{Engine, context};
use crate::application::{Application, CloseReason, ListenerId};
use crate::connection::{Context, Outcome, State};
use crate::time::Instant;
use crate::transmit::Transmit;
use crate::wire::FlowKey;

/// Flows that one slice of a walk looks at, at most.
pub const SLICE: usize = 128;

/// Slots that one slice looks at, at most: most of them may be empty.
const SLOTS_PER_SLICE: usize = 4096;

/// The place a walk has come to; the default is its beginning.
///
/// Half-open connections come first, then open ones, then those in TIME-WAIT, each in the order of their slots. A flow
/// that is there from the beginning of a walk to its end is come to at least once, and again if it has gone from one
/// kind to the next meanwhile; one that begins or ends meanwhile may be come to or not. A walk ends, whatever becomes
/// of the flows: it never goes back, and there are no more slots than the limits of the engine allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    kind: Kind,
    slot: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    HalfOpen,
    Connection,
    TimeWait,
}

impl Cursor {
    /// The place behind this one, in a table of the kind with `slots` slots; `None` at the end of the walk.
    fn settled(self, slots: impl Fn(Kind) -> u32) -> Option<Self> {
        let mut place = self;
        while place.slot >= slots(place.kind) {
            let kind = match place.kind {
                Kind::HalfOpen => Kind::Connection,
                Kind::Connection => Kind::TimeWait,
                Kind::TimeWait => return None,
            };
            place = Self { kind, slot: 0 };
        }
        Some(place)
    }
}

/// The rest of a slice.
struct Slice {
    /// The next place to look at; `None` at the end of the walk.
    place: Option<Cursor>,
    /// Flows that may yet be looked at.
    flows: usize,
    /// Slots that may yet be looked at.
    slots: usize,
    /// Whether the walk comes to flows in TIME-WAIT.
    with_time_wait: bool,
}

impl Slice {
    /// A slice of a walk over all kinds of flows, from `place` on.
    fn of_all(place: Cursor) -> Self {
        Self {
            place: Some(place),
            flows: SLICE,
            slots: SLOTS_PER_SLICE,
            with_time_wait: true,
        }
    }

    /// The next flow and its place; `None` at the end of the slice.
    fn next<A: Application>(&mut self, engine: &Engine<A>) -> Option<(Cursor, FlowInfo)> {
        let slots = |kind| match kind {
            Kind::TimeWait if !self.with_time_wait => 0,
            kind => engine.slots(kind),
        };
        loop {
            self.place = self.place?.settled(slots);
            let place = self.place?;
            if self.flows == 0 || self.slots == 0 {
                return None;
            }
            self.slots -= 1;
            self.place = Some(Cursor {
                slot: place.slot + 1,
                ..place
            });
            if let Some(flow) = engine.flow_at(place) {
                self.flows -= 1;
                return Some((place, flow));
            }
        }
    }
}

/// A flow, as far as every kind of them has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// This side.
    pub local: SocketAddr,
    /// The peer.
    pub peer: SocketAddr,
    /// The state.
    pub state: State,
    /// The listener that accepted the connection; `None` in TIME-WAIT, too.
    pub listener: Option<ListenerId>,
}

impl FlowInfo {
    fn new(key: &FlowKey, state: State, listener: Option<ListenerId>) -> Self {
        Self {
            local: key.local(),
            peer: key.peer(),
            state,
            listener,
        }
    }
}

impl<A: Application> Engine<A> {
    /// Looks at the next flows, at most [`SLICE`] of them, from `from` on, and gives `visit` each of them with a
    /// function that tells all of it. Returns where to go on; `None` when all have been looked at.
    pub fn walk(&self, from: Cursor, mut visit: impl FnMut(&FlowInfo, &dyn Fn() -> ConnectionInfo)) -> Option<Cursor> {
        let mut slice = Slice::of_all(from);
        while let Some((place, flow)) = slice.next(self) {
            visit(&flow, &|| self.info_at(place, &flow));
        }
        slice.place
    }

    /// All flows, however many there are.
    pub(super) fn flows(&self) -> impl Iterator<Item = ConnectionInfo> + '_ {
        let mut slice = Slice {
            flows: usize::MAX,
            slots: usize::MAX,
            ..Slice::of_all(Cursor::default())
        };
        core::iter::from_fn(move || {
            let (place, flow) = slice.next(self)?;
            Some(self.info_at(place, &flow))
        })
    }

    /// Looks at the next flows, as [`Engine::walk`] does, and resets those that `select` selects, but none in
    /// TIME-WAIT: of those nothing is left to be ended. Returns how many that were, and where to go on; `None` when all
    /// have been looked at. At a flow whose RST finds no frame it stops, to be called again for the same place; without
    /// `needs_frame` that flow ends all the same, and its peer learns of it when it sends something.
    pub fn reset_selected<T: Transmit>(
        &mut self,
        now: Instant,
        from: Cursor,
        needs_frame: bool,
        select: impl Fn(&FlowInfo) -> bool,
        out: &mut T,
    ) -> (u32, Option<Cursor>) {
        let mut slice = Slice {
            with_time_wait: false,
            ..Slice::of_all(from)
        };
        let mut reset = 0;
        while let Some((place, flow)) = slice.next(self) {
            if select(&flow) {
                if !self.reset_at(now, place, needs_frame, out) {
                    return (reset, Some(place));
                }
                reset += 1;
            }
        }
        (reset, slice.place)
    }

    fn slots(&self, kind: Kind) -> u32 {
        match kind {
            Kind::HalfOpen => self.half_open.slots(),
            Kind::Connection => self.connections.slots(),
            Kind::TimeWait => self.time_wait.slots(),
        }
    }

    fn flow_at(&self, place: Cursor) -> Option<FlowInfo> {
        match place.kind {
            Kind::HalfOpen => {
                let record = self.half_open.get(place.slot)?;
                Some(FlowInfo::new(&record.key, State::SynReceived, Some(record.listener)))
            }
            Kind::Connection => {
                let tcb = &self.connections.get(place.slot)?.tcb;
                Some(FlowInfo::new(&tcb.key.get(), tcb.state, tcb.listener()))
            }
            Kind::TimeWait => {
                let record = self.time_wait.get(place.slot)?;
                Some(FlowInfo::new(&record.key.get(), State::TimeWait, None))
            }
        }
    }

    /// All of the flow at a place where there is one.
    fn info_at(&self, place: Cursor, flow: &FlowInfo) -> ConnectionInfo {
        let info = match place.kind {
            Kind::HalfOpen => {
                let record = self.half_open.get(place.slot);
                record.map(|record| self.half_open_info(place.slot, record))
            }
            Kind::Connection => {
                let connection = self.connections.get(place.slot);
                connection.map(|connection| ConnectionInfo::of_connection(connection, self.now, self.rto_bounds))
            }
            Kind::TimeWait => self.time_wait.get(place.slot).map(ConnectionInfo::of_time_wait),
        };
        info.unwrap_or_else(|| ConnectionInfo::bare(flow.local, flow.peer, flow.state, flow.listener))
    }

    /// Resets the flow at a place where there is one. False: there is no frame for the RST, and it stays.
    fn reset_at<T: Transmit>(&mut self, now: Instant, place: Cursor, needs_frame: bool, out: &mut T) -> bool {
        if place.kind == Kind::HalfOpen {
            let (sent, _) = self.reset_half_open(place.slot, out);
            if sent || !needs_frame {
                self.remove_half_open(place.slot);
            }
            return sent || !needs_frame;
        }
        self.follow_next_hop(place.slot);
        let mut context = context!(self, now, out);
        let sent = self.connections[place.slot].tcb.send_reset(&mut context);
        if sent || !needs_frame {
            self.settle(now, place.slot, Outcome::Closed(CloseReason::Aborted));
        }
        sent || !needs_frame
    }
}
