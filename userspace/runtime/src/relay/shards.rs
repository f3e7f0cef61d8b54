//! Shards of earlier processes, as the shard that has their queue sees them: they are visited as those of this process
//! are, by relays.

use core::mem;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use tidegate_exchange::handover::Visit;
use tidegate_exchange::{Exchange, Handover};
use tidegate_tcp::transmit::Purpose;

use super::Later;
use crate::report::PortCounters;
use crate::shard_port::ShardPort;

/// Relays' bells among the events of a shard's poll; which of them rang is not asked.
const RELAY_BELL: Token = Token(1);

/// One shard of an earlier process.
pub(crate) struct RelayedShard<S> {
    /// `None`: its process is no more.
    later: Option<Later>,
    /// The number of its process's first shard in the flow filter.
    first: u16,
    handover: Handover<S>,
    /// Segments it was given and has not answered, in their order.
    pending: VecDeque<Visit<S>>,
}

impl<S> RelayedShard<S> {
    /// Shard `number` of `exchange`; without `later` one of a process that is no more.
    pub(crate) fn new(later: Option<Later>, first: u16, exchange: Arc<Exchange<S>>, number: u16) -> Self {
        Self {
            later,
            first,
            handover: Handover::new(exchange, number),
            pending: VecDeque::new(),
        }
    }
}

impl<S> Drop for RelayedShard<S> {
    fn drop(&mut self) {
        // As in an exchange: the memory of the frames goes, too.
        self.pending.drain(..).for_each(mem::forget);
    }
}

/// Those that have the number of one shard of this process.
pub(crate) struct Relays<S> {
    shards: Vec<RelayedShard<S>>,
}

impl<S> Default for Relays<S> {
    fn default() -> Self {
        Self { shards: Vec::new() }
    }
}

impl<S> Relays<S> {
    /// Has their bells wake `poll`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn new(shards: Vec<RelayedShard<S>>, poll: &Poll) -> io::Result<Self> {
        for later in shards.iter().filter_map(|shard| shard.later.as_ref()) {
            let bell = later.bell().as_raw_fd();
            poll.registry()
                .register(&mut SourceFd(&bell), RELAY_BELL, Interest::READABLE)?;
        }
        Ok(Self { shards })
    }

    /// Has their bells wake `poll` no more. An epoll forgets a descriptor by itself only when no process has a copy of
    /// it, and those of bells are shared.
    pub(crate) fn leave(&self, poll: &Poll) {
        self.laters().for_each(|later| deregister(later, poll));
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Does what there is to do, for up to `burst` frames of each. Returns whether there was anything.
    pub(crate) fn turn<P: ShardPort<Frame = S>>(
        &mut self,
        port: &mut P,
        memory: &P::Memory,
        burst: usize,
        counters: &mut PortCounters,
    ) -> bool {
        let mut worked = false;
        for shard in &mut self.shards {
            worked |= shard.turn(port, memory, burst, counters);
        }
        worked
    }

    /// The shards to wake for what was sent to them, one bit each.
    pub(crate) fn take_to_wake(&mut self) -> u64 {
        let shards = self.shards.iter_mut();
        shards.fold(0, |all, shard| all | shard.handover.take_to_wake())
    }

    /// Whether [`Relays::turn`] has something to do.
    pub(crate) fn is_waiting(&self) -> bool {
        self.shards.iter().any(|shard| {
            let has_room = shard.later.as_ref().is_none_or(Later::has_room);
            shard.handover.is_waiting() && has_room || shard.later.as_ref().is_some_and(Later::is_waiting)
        })
    }

    /// Whether no segment waits for an answer.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut shards = self.shards.iter();
        shards.all(|shard| shard.pending.is_empty() && !shard.handover.is_waiting())
    }

    /// Has the bells ring from now on.
    pub(crate) fn announce_sleep(&self) {
        self.laters().for_each(Later::announce_sleep);
    }

    /// And from now on not.
    pub(crate) fn end_sleep(&self) {
        self.laters().for_each(Later::end_sleep);
    }

    /// The process whose first shard has number `first` in the flow filter is no more.
    pub(crate) fn forget(&mut self, first: u16, poll: &Poll, counters: &mut PortCounters) {
        for shard in self.shards.iter_mut().filter(|shard| shard.first == first) {
            counters.relay_lost += shard.pending.len() as u64;
            if let Some(later) = shard.later.take() {
                deregister(&later, poll);
            }
        }
    }

    fn laters(&self) -> impl Iterator<Item = &Later> {
        self.shards.iter().filter_map(|shard| shard.later.as_ref())
    }
}

fn deregister(later: &Later, poll: &Poll) {
    // It fails only where the bell is not registered.
    let _ = poll.registry().deregister(&mut SourceFd(&later.bell().as_raw_fd()));
}

impl<S> RelayedShard<S> {
    fn turn<P: ShardPort<Frame = S>>(
        &mut self,
        port: &mut P,
        memory: &P::Memory,
        burst: usize,
        counters: &mut PortCounters,
    ) -> bool {
        let Some(later) = &mut self.later else {
            return self.turn_without(burst);
        };
        let mut worked = false;
        while let Some(taken) = later.answer() {
            let Some(visit) = self.pending.pop_front() else { break };
            self.handover.finish(visit, taken);
            worked = true;
        }
        let taken = later.take_frames(burst, |bytes, device| {
            port.leave_by(device);
            let Some(buffer) = port.reserve(Purpose::Control) else {
                return false;
            };
            match buffer.get_mut(..bytes.len()) {
                Some(buffer) => {
                    buffer.copy_from_slice(bytes);
                    port.commit(bytes.len());
                    counters.relay_in += 1;
                }
                // It would be so at the next try, too, and those behind it would wait.
                None => {
                    port.commit(0);
                    counters.relay_too_long += 1;
                }
            }
            true
        });
        worked |= taken > 0;
        while later.has_room() {
            let Some(visit) = self.handover.take() else { break };
            worked = true;
            let frame = P::contents(memory, visit.segment());
            if later.give(frame.bytes, frame.device) {
                counters.relay_out += 1;
                self.pending.push_back(visit);
            } else {
                // Longer than any that the link has.
                self.handover.finish(visit, false);
            }
        }
        later.publish();
        worked
    }

    /// Nobody is there who would know a flow.
    fn turn_without(&mut self, burst: usize) -> bool {
        let mut worked = false;
        for _ in 0..burst {
            let Some(visit) = self.pending.pop_front().or_else(|| self.handover.take()) else {
                break;
            };
            self.handover.finish(visit, false);
            worked = true;
        }
        worked
    }
}
