//! Reading in advance what a burst or the timers will need.
//!
//! With millions of connections nearly every one of them comes from memory. What is read for many at once depends on
//! nothing of each other, so the processor waits for all of it together.

use core::hint::black_box;

use super::Engine;
use super::receive::LOOKUP_GROUP;
use crate::application::Application;
use crate::connection::Connection;
use crate::flow_table::FlowSlot;
use crate::time::Instant;

/// Connections that may all be in the processor's caches, so that it is not worth it to read more of them in advance
/// than most segments need.
pub(super) const FEW_CONNECTIONS: u32 = 1 << 14;

const CACHE_LINE: usize = 64;

/// Cache lines of each frame that are read in advance: the headers, and the text of a request or a short response.
/// Where there is more, the processor sees by itself that it goes on.
const TOUCHED_LINES: usize = 4;

/// Reads an octet of the first cache lines of a frame. The result means nothing.
#[inline]
pub(super) fn touch(frame: &[u8]) -> u8 {
    let mut sum = 0;
    for line in 0..TOUCHED_LINES {
        sum ^= frame.get(line * CACHE_LINE).copied().unwrap_or(0);
    }
    sum
}

impl<A: Application> Engine<A> {
    /// Reads what a segment for this record will need, a word of every cache line. The result means nothing.
    #[inline]
    pub(super) fn prefetch(&self, place: FlowSlot) -> u32 {
        match place {
            FlowSlot::Connection(slot) => {
                let timer = u32::from(self.connection_timers.is_armed(slot));
                self.connections
                    .get(slot)
                    .map_or(timer, |connection| timer ^ connection.touch())
            }
            FlowSlot::HalfOpen(slot) => self
                .half_open
                .get(slot)
                .map_or(0, |record| record.key.remote_port.into()),
            FlowSlot::TimeWait(slot) => self.time_wait.get(slot).map_or(0, |record| record.snd_nxt.0),
        }
    }

    /// Reads what [`Engine::prefetch`] does not: what moves when the timer does, and whether the next hop is known.
    #[inline(never)]
    pub(super) fn prefetch_beside(&self, slot: u32) -> u32 {
        let next_hops = self.next_hops.as_ref();
        let next_hop = next_hops.is_some_and(|hops| hops.is_heard(slot));
        self.connection_timers.touch_neighbours(slot) ^ u32::from(next_hop)
    }

    /// Reads the connections whose timers fire next, at which nobody has looked for long. Returns their number.
    #[cold]
    #[inline(never)]
    pub(super) fn prefetch_due(&self, now: Instant) -> usize {
        let mut due = [0; LOOKUP_GROUP];
        let count = self.connection_timers.peek(now, &mut due);
        black_box(due[..count].iter().fold(0, |sum, &slot| {
            sum ^ self.connections.get(slot).map_or(0, Connection::touch)
        }));
        count
    }
}
