//! The flows that the engines of a server tell each other, and the program that steers segments to them.

use crate::wire::FlowKey;

/// The flows of all engines of a server, as one of them sees it. Shards are numbered from 0 to 63.
pub trait SharedFlows {
    /// This engine has a record of the flow from now on: half-open, a connection, or TIME-WAIT. It is called before the
    /// first SYN or SYN-ACK leaves, and once for each flow until its [`SharedFlows::end`].
    fn begin(&self, key: &FlowKey);

    /// This engine has no record of the flow any more.
    fn end(&self, key: &FlowKey);

    /// The shards of other engines that may have a record of the flow, a bit each (1 << shard). Without doubt only that
    /// the rest have none.
    fn others(&self, key: &FlowKey) -> u64;

    /// The shard that is to have the connection of a handshake whose cookie was found genuine on the way here, if
    /// anybody chose one.
    fn handshake_owner(&self, key: &FlowKey) -> Option<u16>;
}
