//! Frames that arrive: read, looked up, and given to what they are for.
//!
//! A burst is taken in groups. What the segments of a group will need first, their frames' headers, their buckets of
//! the flow table and their connections, is read for all of them before any is processed ([`super::prefetch`]): waiting
//! for one after the other would cost more than all the rest.

use core::hint::black_box;

use super::prefetch::{FEW_CONNECTIONS, touch};
use super::{Engine, OnNoFlow, Received};
use crate::application::Application;
use crate::counters::Counter;
use crate::flow_table::{Candidate, FlowHash, FlowSlot};
use crate::time::Instant;
use crate::transmit::Transmit;
use crate::wire::address::is_answerable;
use crate::wire::{Flags, FlowKey, Frame, ParseError, Segment};

/// Frames that are looked up together: enough to keep the processor's load buffers busy, and few enough that what was
/// read for the last is still in the first-level cache when its turn comes.
pub const LOOKUP_GROUP: usize = 32;

/// The hash of a segment's flow, and where its record was when the segment's group was looked up. It may have moved
/// since: segments of the same flow may have come before.
type Lookup = (FlowHash, Candidate);

/// A segment and the hash of its flow.
pub(super) type Hashed<'a, 'f> = (&'a Segment<'f>, FlowHash);

/// Room for the frames of a group and the records that are found for them, made once for all groups of a burst.
struct Group<'a> {
    found: [Lookup; LOOKUP_GROUP],
    /// Each frame is read into it.
    segment: Segment<'a>,
}

impl Group<'_> {
    fn new() -> Self {
        Self {
            found: [Lookup::default(); LOOKUP_GROUP],
            segment: Segment::blank(),
        }
    }
}

impl<A: Application> Engine<A> {
    /// Processes a frame.
    pub fn receive<'a, T: Transmit>(
        &mut self,
        now: Instant,
        frame: impl Into<Frame<'a>>,
        on_no_flow: OnNoFlow,
        out: &mut T,
    ) -> Received {
        let mut received = Received::Done;
        self.note_next_hop_generation();
        let done = |_, fate| received = fate;
        self.receive_group(now, &[frame.into()], &mut Group::new(), on_no_flow, out, done);
        received
    }

    /// Processes frames that arrived together, each as [`Engine::receive`] does and in their order, for less than they
    /// cost one by one. `done` is told what became of each, by its index among `frames`.
    pub fn receive_burst<'a, T: Transmit>(
        &mut self,
        now: Instant,
        frames: impl IntoIterator<Item: Into<Frame<'a>>>,
        on_no_flow: OnNoFlow,
        out: &mut T,
        mut done: impl FnMut(usize, Received),
    ) {
        self.note_next_hop_generation();
        let mut frames = frames.into_iter();
        let mut first = 0;
        let mut together = [Frame::from(&[]); LOOKUP_GROUP];
        let mut group = Group::new();
        loop {
            let mut count = 0;
            for (place, frame) in together.iter_mut().zip(frames.by_ref()) {
                *place = frame.into();
                count += 1;
            }
            if count == 0 {
                return;
            }
            self.receive_group(
                now,
                &together[..count],
                &mut group,
                on_no_flow,
                out,
                |index, received| {
                    done(first + index, received);
                },
            );
            if count < LOOKUP_GROUP {
                return;
            }
            first += count;
        }
    }

    /// Processes at most [`LOOKUP_GROUP`] frames.
    #[inline]
    fn receive_group<'a, T: Transmit>(
        &mut self,
        now: Instant,
        frames: &[Frame<'a>],
        group: &mut Group<'a>,
        on_no_flow: OnNoFlow,
        out: &mut T,
        mut done: impl FnMut(usize, Received),
    ) {
        black_box(frames.iter().fold(0_u8, |sum, frame| sum ^ touch(frame.bytes)));
        let Group { found, segment } = group;
        let found = &mut found[..frames.len()];
        let mut touched = 0;
        for (frame, (hash, _)) in frames.iter().zip(&mut *found) {
            *hash = self.table.hash_of_frame(frame.bytes);
            touched ^= self.table.prefetch(*hash);
        }
        black_box(touched);
        for (hash, place) in &mut *found {
            *place = self.table.candidate(*hash);
        }
        black_box(found.iter().fold(0_u32, |sum, &(_, place)| match place.get() {
            Some(place) => sum ^ self.prefetch(place),
            None => sum,
        }));
        if self.connections.len() > FEW_CONNECTIONS {
            black_box(found.iter().fold(0_u32, |sum, &(_, place)| match place.get() {
                Some(FlowSlot::Connection(slot)) => sum ^ self.prefetch_beside(slot),
                _ => sum,
            }));
        }
        for (index, (frame, found)) in frames.iter().zip(found).enumerate() {
            let received = self.process(now, *frame, *found, segment, on_no_flow, out);
            done(index, received);
        }
    }

    /// Processes a frame whose flow was looked up. `segment` is where it is read into.
    #[inline(always)]
    fn process<'a, T: Transmit>(
        &mut self,
        now: Instant,
        frame: Frame<'a>,
        found: Lookup,
        segment: &mut Segment<'a>,
        on_no_flow: OnNoFlow,
        out: &mut T,
    ) -> Received {
        self.counters.bump(Counter::FramesIn);
        self.now = now;
        if let Err(error) = segment.read(frame.bytes, self.common.config.verify_checksums) {
            return self.unreadable(now, frame.bytes, error, on_no_flow, out);
        }
        segment.link.device = frame.device;
        if !is_answerable(&segment.key.remote) || segment.key.remote_port == 0 {
            self.counters.bump(Counter::DropBadSource);
            return Received::Done;
        }
        if segment.flags.contains(Flags::SYN) && segment.flags.intersects(Flags::FIN | Flags::RST) {
            self.counters.bump(Counter::DropBadFlags);
            return Received::Done;
        }
        let (hash, candidate) = found;
        let mut place = candidate.get();
        loop {
            // Of most segments it is where it was found.
            if let Some(FlowSlot::Connection(slot)) = place
                && self.connection_receives(now, slot, segment, out)
            {
                return Received::Done;
            }
            place = self.find_otherwise(&segment.key, hash, place);
            if !matches!(place, Some(FlowSlot::Connection(_))) {
                return self.dispatch(now, (segment, hash), frame, place, on_no_flow, out);
            }
        }
    }

    /// A frame that is no good segment.
    #[cold]
    fn unreadable<T: Transmit>(
        &mut self,
        now: Instant,
        frame: &[u8],
        error: ParseError,
        on_no_flow: OnNoFlow,
        out: &mut T,
    ) -> Received {
        match error {
            ParseError::Malformed => self.too_big(now, frame, on_no_flow, out),
            ParseError::Checksum => {
                self.counters.bump(Counter::DropChecksum);
                Received::Done
            }
            ParseError::SourceRoute => {
                self.counters.bump(Counter::DropSourceRoute);
                Received::Done
            }
        }
    }

    /// Gives a segment that is of no connection, and the frame that brought it, to what it is for.
    #[inline(never)]
    fn dispatch<T: Transmit>(
        &mut self,
        now: Instant,
        hashed: Hashed<'_, '_>,
        frame: Frame<'_>,
        place: Option<FlowSlot>,
        on_no_flow: OnNoFlow,
        out: &mut T,
    ) -> Received {
        match place {
            Some(FlowSlot::HalfOpen(slot)) => self.half_open_receives(now, slot, hashed, on_no_flow, out),
            Some(FlowSlot::TimeWait(slot)) => self.time_wait_receives(now, slot, hashed, on_no_flow, out),
            Some(FlowSlot::Connection(_)) | None => {
                let received = self.closed_receives(now, hashed, on_no_flow, out);
                self.keep_early(now, &hashed.0.key, frame);
                received
            }
        }
    }

    /// The record of a flow, which may still be where it was found. No two records are of one flow.
    #[inline]
    fn find_otherwise(&self, key: &FlowKey, hash: FlowHash, place: Option<FlowSlot>) -> Option<FlowSlot> {
        debug_assert_eq!(hash, self.table.hash(key));
        place
            .filter(|&place| self.is_at(place, key))
            .or_else(|| self.table.find_hashed(hash, |place| self.is_at(place, key)))
    }

    /// Whether there is a connection at `slot`, and it is of the flow `key`.
    #[inline]
    pub(super) fn is_connection(&self, slot: u32, key: &FlowKey) -> bool {
        let connection = self.connections.get(slot);
        connection.is_some_and(|connection| connection.tcb.key.is(key))
    }

    /// The record of a flow.
    #[inline]
    pub(super) fn find(&self, key: &FlowKey) -> Option<FlowSlot> {
        self.table.find(key, |place| self.is_at(place, key))
    }

    /// Whether the record at `place` is of the flow `key`.
    #[inline]
    fn is_at(&self, place: FlowSlot, key: &FlowKey) -> bool {
        match place {
            FlowSlot::Connection(slot) => self.is_connection(slot, key),
            FlowSlot::HalfOpen(slot) => self.half_open.get(slot).is_some_and(|found| found.key == *key),
            FlowSlot::TimeWait(slot) => self.time_wait.get(slot).is_some_and(|found| found.key.is(key)),
        }
    }
}
