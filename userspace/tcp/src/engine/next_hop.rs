//! Answers to where [`NextHops`] say, instead of back to where segments come from.
//!
//! Half-open connections, connections in TIME-WAIT and what belongs to no flow are looked up for each segment that is
//! sent. A connection is looked up when it is made, and before the first event after the tables have changed.

use super::Engine;
use crate::application::Application;
use crate::chunks::{Advice, Column};
use crate::connection::State;
use crate::counters::Counter;
use crate::engine::Population;
use crate::link::LinkId;
use crate::next_hops::{NextHops, NoNextHop};
use crate::wire::{FlowKey, LinkHeader, Segment};

/// The last look-up of a connection's next hop: the generation of the tables, 0 before the first look-up, and in the
/// highest bit whether they had none, so that the connection follows what it hears. Three bytes, since there is one for
/// each connection.
#[derive(Clone, Copy, Default)]
struct Lookup([u8; 3]);

impl Lookup {
    const HEARD: u32 = 1 << 23;

    /// `generation` is one of [`Lookup::generation`].
    fn new(generation: u32, is_heard: bool) -> Self {
        let bits = generation | if is_heard { Self::HEARD } else { 0 };
        let [low, middle, high, _] = bits.to_le_bytes();
        Self([low, middle, high])
    }

    #[inline]
    fn bits(self) -> u32 {
        let [low, middle, high] = self.0;
        u32::from_le_bytes([low, middle, high, 0])
    }

    /// A number for a generation of the tables that is not 0 and has room beside the highest bit: the same as for the
    /// generation 2^23 - 1 changes away.
    fn generation(tables: u32) -> u32 {
        tables % (Self::HEARD - 1) + 1
    }

    /// Whether it was of this [`Lookup::generation`].
    #[inline]
    fn is_of(self, generation: u32) -> bool {
        self.bits() & (Self::HEARD - 1) == generation
    }

    #[inline]
    fn is_heard(self) -> bool {
        self.bits() & Self::HEARD != 0
    }
}

/// The tables, and which of their states each connection goes by.
pub(super) struct NextHopTables {
    tables: Box<dyn NextHops + Send>,
    /// A [`Lookup::generation`].
    generation: u32,
    /// By the connection's slot.
    lookups: Column<Lookup>,
}

impl NextHopTables {
    /// Whether the connection's last look-up is older than the tables.
    #[inline]
    fn is_outdated(&self, slot: u32) -> bool {
        let lookup = self.lookups.get(slot);
        lookup.is_none_or(|lookup| !lookup.is_of(self.generation))
    }

    /// Whether the tables have no next hop for the connection, which goes by what it hears then.
    pub(super) fn is_heard(&self, slot: u32) -> bool {
        self.lookups.get(slot).is_some_and(|lookup| lookup.is_heard())
    }

    fn note(&mut self, slot: u32, is_heard: bool) {
        *self.lookups.entry(slot) = Lookup::new(self.generation, is_heard);
    }

    /// The slot's connection is gone; the next one has to be looked up.
    pub(super) fn forget(&mut self, slot: u32) {
        if let Some(lookup) = self.lookups.get_mut(slot) {
            *lookup = Lookup::default();
        }
    }

    /// Bytes of memory that the look-ups of connections take.
    pub(super) fn memory(&self) -> usize {
        self.lookups.memory()
    }

    /// From now on has `advice` for the memory of further connections.
    pub(super) fn set_advice(&mut self, advice: Advice) {
        self.lookups.set_advice(advice);
    }

    /// Gives back the memory of a chunk of slots, in which there are no connections.
    pub(super) fn give_back(&mut self, chunk: u32) {
        self.lookups.give_back(chunk);
    }
}

impl<A: Application> Engine<A> {
    /// From now on sends where `tables` say, and only what they have no next hop for back to where it came from.
    ///
    /// # Panics
    ///
    /// If the engine has flows already.
    pub fn set_next_hops(&mut self, tables: Box<dyn NextHops + Send>) {
        assert_eq!(self.population(), Population::default(), "there are flows");
        let mut next_hops = NextHopTables {
            generation: Lookup::generation(tables.generation()),
            tables,
            lookups: Column::default(),
        };
        next_hops.set_advice(self.advice.clone());
        self.next_hops = Some(next_hops);
    }

    /// Notes whether the tables have changed.
    #[inline]
    pub(super) fn note_next_hop_generation(&mut self) {
        if let Some(next_hops) = &mut self.next_hops {
            next_hops.generation = Lookup::generation(next_hops.tables.generation());
        }
    }

    /// Has a connection go by the tables as they are now. To be called before something happens to it.
    #[inline]
    pub(super) fn follow_next_hop(&mut self, slot: u32) {
        if self.is_next_hop_outdated(slot) {
            self.look_up_connection(slot);
        }
    }

    /// Whether the tables have changed since the connection's next hop was looked up.
    #[inline]
    pub(super) fn is_next_hop_outdated(&self, slot: u32) -> bool {
        self.next_hops.as_ref().is_some_and(|hops| hops.is_outdated(slot))
    }

    /// Has a connection go by the tables as they are now, if there is one.
    #[inline(never)]
    pub(super) fn look_up_connection(&mut self, slot: u32) {
        let Some(connection) = self.connections.get(slot) else {
            return;
        };
        let (key, link) = (connection.tcb.key.get(), connection.tcb.link);
        let mut found = self.look_up(&key);
        if let Some(header) = found.filter(|header| header != self.links.get(link)) {
            match self.links.acquire(&header) {
                Some(new) => {
                    self.links.release(link);
                    let tcb = &mut self.connections[slot].tcb;
                    tcb.link = new;
                    // A SYN that has not been sent yet has not gone another way before.
                    if tcb.state != State::SynSent || tcb.flight() > 0 {
                        self.counters.bump(Counter::NextHopChanged);
                    }
                }
                None => {
                    self.counters.bump(Counter::NextHopTableFull);
                    found = None;
                }
            }
        }
        if let Some(next_hops) = &mut self.next_hops {
            next_hops.note(slot, found.is_none());
        }
    }

    /// The header of what answers `segment`.
    pub(super) fn answer_link(&mut self, segment: &Segment<'_>) -> LinkHeader {
        self.look_up(&segment.key).unwrap_or_else(|| segment.link.reply())
    }

    /// [`Engine::answer_link`] for a record that is kept; `None` when there are too many different ones.
    pub(super) fn acquire_answer_link(&mut self, segment: &Segment<'_>) -> Option<LinkId> {
        match self.look_up(&segment.key) {
            Some(header) => self.links.acquire(&header),
            None => self.links.acquire_reply(segment.link),
        }
    }

    /// The header of what is sent for a record that has `link`.
    pub(super) fn record_link(&mut self, key: &FlowKey, link: LinkId) -> LinkHeader {
        self.look_up(key).unwrap_or_else(|| *self.links.get(link))
    }

    #[inline]
    pub(super) fn look_up(&mut self, key: &FlowKey) -> Option<LinkHeader> {
        self.next_hops.as_ref()?;
        self.look_up_in_tables(key)
    }

    #[inline(never)]
    fn look_up_in_tables(&mut self, key: &FlowKey) -> Option<LinkHeader> {
        let found = self.next_hops.as_ref()?.tables.lookup(key);
        found
            .inspect_err(|reason| {
                self.counters.bump(match reason {
                    NoNextHop::NoRoute => Counter::NextHopNoRoute,
                    NoNextHop::OtherInterface => Counter::NextHopOtherInterface,
                    NoNextHop::Unresolved => Counter::NextHopUnresolved,
                });
            })
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_is_of_one_generation() {
        assert_eq!(size_of::<Lookup>(), 3);
        for tables in [0, 1, (1 << 23) - 2, (1 << 23) - 1, 1 << 23, u32::MAX] {
            let generation = Lookup::generation(tables);
            assert!(!Lookup::default().is_of(generation), "{tables}");
            for is_heard in [false, true] {
                let lookup = Lookup::new(generation, is_heard);
                assert_eq!(lookup.is_heard(), is_heard);
                assert!(lookup.is_of(generation));
                for other in [tables.wrapping_sub(1), tables.wrapping_add(1), tables ^ 1 << 22] {
                    assert!(!lookup.is_of(Lookup::generation(other)), "{tables}, {other}");
                }
            }
        }
    }
}
