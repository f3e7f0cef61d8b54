//! Admission of finished handshakes: the limits of their source, and which connection gives way when the table is full.

use core::time::Duration;

use super::{Engine, context};
use crate::application::{Application, CloseReason};
use crate::connection::{Context, Service};
use crate::counters::Counter;
use crate::sources::SourceId;
use crate::time::Instant;
use crate::transmit::Transmit;
use crate::wire::{FlowKey, Segment};

/// The time a client has for its first request before its place is the first to be taken, and after which a connection
/// on which nothing arrives counts as idle: a retransmission or two.
const MIN_IDLE: Duration = Duration::from_secs(3);

/// Connections of a list that are looked at for the one that gives way.
const MAX_VISITED: usize = 8;

impl<A: Application> Engine<A> {
    /// Admits a finished handshake, for which there is room then.
    ///
    /// # Errors
    ///
    /// The counter of the limit that speaks against it.
    pub(super) fn admit<T: Transmit>(&mut self, now: Instant, key: &FlowKey, out: &mut T) -> Result<SourceId, Counter> {
        let source = self.sources.check(now, &key.remote)?;
        if self.connections.len() >= self.common.config.max_connections {
            let victim = self.find_victim(now, source).ok_or(Counter::DropConnectionsFull)?;
            self.evict(now, victim, out);
        }
        self.sources.charge(now, source);
        Ok(source)
    }

    /// [`Engine::admit`] of a handshake that `segment` finished and nothing else is kept of; answers it if it is beyond
    /// the limits of its source.
    pub(super) fn admit_cookie<T: Transmit>(
        &mut self,
        now: Instant,
        segment: &Segment<'_>,
        out: &mut T,
    ) -> Option<SourceId> {
        let admitted = self.admit(now, &segment.key, out);
        if let Err(reason) = admitted {
            self.counters.bump(reason);
            if reason != Counter::DropConnectionsFull {
                self.reset(now, segment, out);
            }
        }
        admitted.ok()
    }

    /// Ends a half-open connection that was acknowledged and is not admitted.
    pub(super) fn refuse_half_open<T: Transmit>(&mut self, slot: u32, reason: Counter, out: &mut T) {
        self.counters.bump(reason);
        self.reset_half_open(slot, out);
        self.remove_half_open(slot);
    }

    /// The peer of a connection has made its first complete request.
    #[inline(never)]
    pub(super) fn list_served(&mut self, slot: u32) {
        self.connections[slot].tcb.service = Service::Listed;
        self.sources.serve(slot);
    }

    /// The connection that gives way to a new one of `source`: the oldest without a complete request that has had
    /// [`MIN_IDLE`] for that and is sending none; else the longest idle of the source that holds most; else, if those
    /// are all without a request, one without a request of a source that holds many. What is in use, or might soon be,
    /// gives way only if its source has more than that of the new one, which is counted in.
    fn find_victim(&mut self, now: Instant, source: SourceId) -> Option<u32> {
        let own = self.sources.held_by(source) + 1;
        let fullest = match self.quiet_waiting(now) {
            Ok(slot) => return Some(slot),
            Err(fullest) => fullest,
        };
        let largest = self.sources.largest()?;
        let has_more = self.sources.held_by(largest) > own;
        match self.longest_idle(largest) {
            Some((slot, last_received)) => (has_more || last_received + MIN_IDLE <= now).then_some(slot),
            None => fullest.filter(|&(_, held)| held > own).map(|(slot, _)| slot),
        }
    }

    /// A connection without a complete request that has had [`MIN_IDLE`] for that and is sending none: of the
    /// [`MAX_VISITED`] that were looked at longest ago, at first the oldest.
    ///
    /// # Errors
    ///
    /// There is none; the one of them whose source holds most, and how many that are.
    fn quiet_waiting(&mut self, now: Instant) -> Result<u32, Option<(u32, u32)>> {
        let mut fullest: Option<(u32, u32)> = None;
        let mut first = None;
        for _ in 0..MAX_VISITED {
            let Some(slot) = self.sources.look_at_waiting().filter(|&slot| first != Some(slot)) else {
                break;
            };
            first.get_or_insert(slot);
            self.counters.bump(Counter::EvictionVisited);
            if self.connections[slot].tcb.quiet_for(now) >= MIN_IDLE {
                return Ok(slot);
            }
            let held = self.sources.held_beside(slot);
            if fullest.is_none_or(|(_, most)| held > most) {
                fullest = Some((slot, held));
            }
        }
        Err(fullest)
    }

    /// Of the connections of a source whose peer has made a complete request, the one that nothing has arrived on for
    /// longest, and since when: of the [`MAX_VISITED`] that were looked at longest ago.
    fn longest_idle(&mut self, source: SourceId) -> Option<(u32, Instant)> {
        let first = self.sources.look_at_served(source)?;
        let last_received = |slot: u32| self.connections[slot].tcb.last_received;
        let mut longest = (first, last_received(first));
        let mut visited = 1;
        while visited < MAX_VISITED
            && let Some(slot) = self.sources.look_at_served(source).filter(|&slot| slot != first)
        {
            visited += 1;
            if last_received(slot) < longest.1 {
                longest = (slot, last_received(slot));
            }
        }
        self.counters.add(Counter::EvictionVisited, visited as u64);
        Some(longest)
    }

    fn evict<T: Transmit>(&mut self, now: Instant, slot: u32, out: &mut T) {
        self.follow_next_hop(slot);
        let mut context = context!(self, now, out);
        let tcb = &mut self.connections[slot].tcb;
        tcb.send_reset(&mut context);
        if tcb.service == Service::Listed {
            self.counters.bump(Counter::EvictedIdle);
        }
        self.remove_connection(slot, CloseReason::Evicted);
    }
}
