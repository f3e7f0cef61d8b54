//! Work of a shard's own accord, besides answering what arrives: a client's shard opens connections.

use tidegate_tcp::application::Application;
use tidegate_tcp::engine::Engine;
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::Transmit;

/// Works on a shard's engine from within the shard's loop.
pub trait ShardTask<A: Application>: Send {
    /// Called in every turn of the loop, when what arrived has been processed and before frames are given to the
    /// kernel. It must not block.
    ///
    /// Returns when it wants to be called again at the latest, which bounds the shard's sleep (to whole milliseconds);
    /// `None`: whenever something happens.
    fn turn<T: Transmit>(&mut self, engine: &mut Engine<A>, now: Instant, out: &mut T) -> Option<Instant>;

    /// A frame of one of this shard's flows, beginning at its Ethernet header, arrived on the queue of another shard,
    /// which handed it over. A client does better to open its connections from ports whose segments arrive where they
    /// belong.
    fn arrived_elsewhere(&mut self, _frame: &[u8]) {}
}

/// A server's shard does nothing of its own accord.
impl<A: Application> ShardTask<A> for () {
    #[inline]
    fn turn<T: Transmit>(&mut self, _: &mut Engine<A>, _: Instant, _: &mut T) -> Option<Instant> {
        None
    }
}
