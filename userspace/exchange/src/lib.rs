//! Hand-over, mailboxes and the flow filter, which shards share: all of it bounded and without locks.
//!
//! | module | concern |
//! |---|---|
//! | [`handover`] | segments that arrived on another queue than their flow's |
//! | [`mailbox`] | how a shard is told something, and woken |
//! | [`flow_filter`] | which shard has which flow, for all shards and the XDP program |
//! | `sync` | the atomics and queues they are made of: the real ones, or loom's |
//!
//! Nothing here makes a system call, but for the waking of a shard that sleeps. With `--cfg loom` (`make test-loom`)
//! the tests in `models` run every order in which the threads of a small case may take their steps, and all that the
//! memory model allows them to see.

pub mod flow_filter;
pub mod handover;
pub mod mailbox;
mod sync;

#[cfg(all(test, loom))]
mod models;

pub use flow_filter::{FlowFilter, SharedWords};
pub use handover::{Exchange, Handover, Outcome, Served};
pub use mailbox::{Bell, Mailbox};
