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
//! | [`shard_task`] | what a shard does of its own accord: a client opens connections |
//! | [`xdp`] | the XDP program: load, settings, attach, counters |
//! | `cookies` | when SYNs are answered with cookies, and with which keys |
//! | `interface`, `capability`, `affinity` | what the machine offers |
//! | `link_watch` | whether the interface is still there, and what changes about it |
//! | `drivers` | what drivers are known to do otherwise |
//! | `port` | one queue's socket as a shard uses it; rings and frames are `tidegate_xsk`'s |
//! | `shard`, `shard_port` | the loop, and the port as it sees it |
//! | `wait` | when to spin and when to sleep |
//! | `handover` | segments that arrived on another queue than their flow's |
//! | `mailbox` | how a shard is told something, and woken |
//! | `random` | random bytes |

mod affinity;
mod capability;
mod clock;
pub mod config;
mod cookies;
mod drivers;
pub mod error;
mod handover;
mod interface;
mod link_watch;
mod mailbox;
mod port;
mod random;
pub mod report;
pub mod runtime;
mod shard;
mod shard_port;
pub mod shard_task;
mod wait;
pub mod xdp;

pub use config::{Config, CookieMode, LinkGone, Prefix, Sources, SynCookies, WaitStrategy, XdpMode, ZeroCopy};
pub use error::Error;
pub use interface::{InterfaceInfo, interface_info};
pub use report::{FrameCensus, PortCounters, QueueInfo, Report, ShardReport, SynCookieCounts, XdpCounts};
pub use runtime::{Listener, Runtime, Settings, start, start_with_tasks};
pub use shard_task::ShardTask;
pub use tidegate_xsk::Statistics as SocketStatistics;
pub use xdp::{Attached, Rejection, kernel_release, object};
