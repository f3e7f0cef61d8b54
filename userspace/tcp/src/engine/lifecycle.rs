//! The end of connections: TIME-WAIT and removal.

use core::hint::black_box;

use super::receive::LOOKUP_GROUP;
use super::{EVENTS_PER_TURN, Engine};
use crate::application::{Application, CloseReason};
use crate::connection::{Connection, State};
use crate::counters::Counter;
use crate::flow_table::FlowSlot;
use crate::time::Instant;
use crate::time_wait::TimeWait;

impl<A: Application> Engine<A> {
    /// Takes a connection out of the table and tells its application.
    pub(super) fn remove_connection(&mut self, slot: u32, reason: CloseReason) {
        let Some(connection) = self.connections.get(slot) else {
            return;
        };
        let (key, state) = (connection.tcb.key.get(), connection.tcb.settled);
        self.table.remove(self.table.hash(&key), FlowSlot::Connection(slot));
        self.flow_ends(&key);
        self.tell_of(&key, state, State::Closed);
        let connection = &self.connections[slot];
        self.links.release(connection.tcb.link);
        // What a peer that vanished was like says nothing of how it will be.
        if reason != CloseReason::TimedOut {
            self.common.learn_path(&connection.tcb, self.now);
        }
        self.forget(slot, reason);
    }

    /// Forgets all of a connection but its place in the table, its link header and what it has learned of its path.
    fn forget(&mut self, slot: u32, reason: CloseReason) {
        self.connection_timers.cancel(slot);
        // What is of use is taken out where it is; the rest need not be moved.
        let connection = &mut self.connections[slot];
        connection.tcb.discount(&mut self.totals);
        self.send_states.put(&mut connection.tcb.sending);
        self.counters.bump(match reason {
            CloseReason::Finished => Counter::Finished,
            CloseReason::ResetByPeer => Counter::ResetByPeer,
            CloseReason::Aborted => Counter::Aborted,
            CloseReason::TimedOut => Counter::TimedOut,
            CloseReason::Evicted => Counter::Evicted,
        });
        self.sources.close(slot);
        if let Some(next_hops) = &mut self.next_hops {
            next_hops.forget(slot);
        }
        let application = connection.application.take();
        self.connections.remove(slot);
        if let Some(state) = application {
            self.application.closed(state, reason);
        }
    }

    /// Whether memory of tables is to be looked at that may go back.
    #[inline]
    pub(super) fn has_memory_to_give_back(&self) -> bool {
        self.connections.has_emptied() || self.half_open.has_emptied() || self.time_wait.has_emptied()
    }

    /// Gives back the memory of what was needed for more than a few records and has none any more: of each table a
    /// chunk, the next in the next call.
    #[cold]
    pub(super) fn give_back_memory(&mut self) {
        if let Some(chunk) = self.connections.give_back() {
            self.connection_timers.give_back(chunk);
            self.sources.give_back(chunk);
            if let Some(next_hops) = &mut self.next_hops {
                next_hops.give_back(chunk);
            }
            if self.connections.is_empty() {
                self.sources.give_back_sources();
                self.send_states.give_back();
            }
        }
        if let Some(chunk) = self.half_open.give_back() {
            self.half_open_timers.give_back(chunk);
        }
        self.time_wait.give_back();
    }

    /// Both FINs are acknowledged and this side's was first: a small record stays for 2MSL.
    pub(super) fn enter_time_wait(&mut self, now: Instant, slot: u32) {
        let Some(Connection { tcb, .. }) = self.connections.get_mut(slot) else {
            return;
        };
        self.common.learn_path(tcb, self.now);
        let hash = self.table.hash_compact(&tcb.key);
        // The connection's hold on its link header becomes the record's.
        let record = TimeWait::new(tcb, hash, now, self.common.config.msl);
        if self.time_wait.len() >= self.common.config.max_time_wait
            && let Some(oldest) = self.time_wait.oldest()
        {
            self.remove_time_wait(oldest);
            self.counters.bump(Counter::TimeWaitEvicted);
        }
        let record = self.time_wait.insert(record);
        self.table
            .replace(hash, FlowSlot::Connection(slot), FlowSlot::TimeWait(record));
        self.forget(slot, CloseReason::Finished);
    }

    /// Forgets records of which 2MSL are over, at most [`EVENTS_PER_TURN`]. They are of connections that nobody has
    /// looked at for long, so, as with [`Engine::receive_burst`], what is needed is read for a group of them at once.
    pub(super) fn expire_time_wait(&mut self, now: Instant) {
        for _ in 0..EVENTS_PER_TURN / LOOKUP_GROUP {
            let mut expired = [0; LOOKUP_GROUP];
            let (mut count, mut touched) = (0, 0);
            let mut next = self.time_wait.oldest();
            while let Some(slot) = next
                && count < LOOKUP_GROUP
                && let Some(record) = self.time_wait.get(slot)
                && record.expires_at() <= now
            {
                touched ^= self.table.prefetch(record.hash);
                expired[count] = slot;
                count += 1;
                next = self.time_wait.next(slot);
            }
            black_box(touched);
            for &slot in &expired[..count] {
                self.remove_time_wait(slot);
            }
            if count < LOOKUP_GROUP {
                return;
            }
        }
    }

    pub(super) fn remove_time_wait(&mut self, slot: u32) {
        let Some(record) = self.time_wait.remove(slot) else {
            return;
        };
        debug_assert_eq!(record.hash, self.table.hash_compact(&record.key));
        self.table.remove(record.hash, FlowSlot::TimeWait(slot));
        if self.is_watched() {
            let key = record.key.get();
            self.flow_ends(&key);
            self.tell_of(&key, State::TimeWait, State::Closed);
        }
        self.links.release(record.link);
    }
}
