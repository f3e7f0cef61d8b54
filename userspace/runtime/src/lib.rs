//! Runs tidegate's TCP engine on AF_XDP.
//!
//! [`start`] checks the interface, loads and attaches the XDP program, binds one AF_XDP socket to each queue and starts
//! one thread (a *shard*) per socket. A shard owns everything it works with: its socket, its UMEM, its engine and its
//! application. What crosses between shards crosses through bounded lock-free queues.
//!
//! | module | concern |
//! |---|---|
//! | [`config`], [`error`], [`report`] | what comes in, what goes wrong, what goes out |
//! | [`runtime`] | start and stop |
//! | [`xdp`] | the XDP program: load, attach, counters |
//! | `interface`, `capability`, `affinity` | what the machine offers |
//! | `port` | UMEM and rings; the only module that knows xsk-rs |
//! | `frame` | whose frame is it |
//! | `socket_options` | socket options and wake-ups xsk-rs does not have |
//! | `shard` | the loop |
//! | `wait` | when to spin and when to sleep |
//! | `handover` | segments that arrived on another queue than their flow's |
//! | `mailbox` | how a shard is told something, and woken |

mod affinity;
mod capability;
mod clock;
pub mod config;
pub mod error;
mod frame;
mod handover;
mod interface;
mod mailbox;
mod port;
pub mod report;
pub mod runtime;
mod shard;
mod socket_options;
mod wait;
pub mod xdp;

pub use config::{Config, WaitStrategy, XdpMode, ZeroCopy};
pub use error::Error;
pub use report::{FrameCensus, PortCounters, QueueInfo, Report, ShardReport, SocketStatistics, XdpCounts};
pub use runtime::{Listener, Runtime, start};
pub use xdp::{Attached, object};
