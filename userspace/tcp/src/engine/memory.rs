//! The memory that the tables of an engine hold.

use super::Engine;
use crate::application::Application;

/// Bytes of memory that each table of an engine holds, whether all of it is in use or not. Buffers of what is sent or
/// received are no part of it: [`Engine::send_bytes`] and [`Engine::received_bytes`] count those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableMemory {
    /// Records of connections, with what the application keeps for each.
    pub connections: usize,
    /// Timers of connections.
    pub timers: usize,
    /// Places of connections in the lists of their sources.
    pub places: usize,
    /// Generations of the next hops that connections go by.
    pub next_hops: usize,
    /// From 4-tuples to records, of all kinds.
    pub flows: usize,
    /// Sources of connections.
    pub sources: usize,
    /// Half-open connections, with their timers.
    pub half_open: usize,
    /// Records in TIME-WAIT.
    pub time_wait: usize,
}

impl TableMemory {
    /// All of it.
    pub fn total(&self) -> usize {
        // Every field by name, so that none is forgotten.
        let Self {
            connections,
            timers,
            places,
            next_hops,
            flows,
            sources,
            half_open,
            time_wait,
        } = *self;
        connections + timers + places + next_hops + flows + sources + half_open + time_wait
    }
}

impl<A: Application> Engine<A> {
    /// The memory that the tables hold.
    pub fn table_memory(&self) -> TableMemory {
        TableMemory {
            connections: self.connections.memory(),
            timers: self.connection_timers.memory(),
            places: self.sources.places_memory(),
            next_hops: self.next_hops.as_ref().map_or(0, |hops| hops.memory()),
            flows: self.table.memory(),
            sources: self.sources.memory(),
            half_open: self.half_open.memory() + self.half_open_timers.memory(),
            time_wait: self.time_wait.memory(),
        }
    }
}
