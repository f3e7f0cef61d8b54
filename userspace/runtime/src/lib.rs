//! Runs tidegate's TCP engine on AF_XDP.
//!
//! [`start`] checks the interface, loads and attaches the XDP program, binds one AF_XDP socket to each queue and starts
//! one thread (a *shard*) per socket. A shard owns everything it works with: its socket, its UMEM, its engine and its
//! application. What crosses between shards crosses through bounded lock-free queues.
//!
//! ```no_run
//! use tidegate_runtime::{Balancers, Config, Error, Listener, Settings, Sources, SynCookies};
//! use tidegate_tcp::application::{Application, CloseReason, Stream};
//!
//! /// Closes every connection at once.
//! struct Refusal;
//!
//! impl Application for Refusal {
//!     type Connection = ();
//!     fn open<S: Stream>(&mut self, stream: &mut S) {
//!         stream.close();
//!     }
//!     fn receive<S: Stream>(&mut self, (): &mut (), _: &mut S, data: &[u8]) -> usize {
//!         data.len()
//!     }
//!     fn end_of_stream<S: Stream>(&mut self, (): &mut (), _: &mut S) {}
//!     fn writable<S: Stream>(&mut self, (): &mut (), _: &mut S) {}
//!     fn timeout<S: Stream>(&mut self, (): &mut (), _: &mut S) {}
//!     fn drain<S: Stream>(&mut self, (): &mut (), _: &mut S) {}
//!     fn closed(&mut self, (): (), _: CloseReason) {}
//! }
//!
//! # fn main() -> Result<(), Error> {
//! let settings = Settings {
//!     interfaces: &["eth1".to_owned()],
//!     afxdp: &Config::default(),
//!     tcp: &tidegate_tcp::Config::default(),
//!     syn_cookies: &SynCookies::default(),
//!     sources: &Sources::default(),
//!     balancers: &Balancers::default(),
//!     listeners: &[Listener {
//!         address: ([192, 0, 2, 1], 80).into(),
//!         keepalive: None,
//!         congestion: None,
//!     }],
//!     remotes: &[],
//!     opened: || Ok(()),
//! };
//! let runtime = tidegate_runtime::start(&settings, |_queue| Refusal)?;
//! let report = runtime.stop()?;
//! println!("{} shards served", report.shards.len());
//! # Ok(())
//! # }
//! ```
//!
//! | module | concern |
//! |---|---|
//! | [`config`], [`error`], [`report`] | what comes in, what goes wrong, what goes out |
//! | [`runtime`] | start and stop |
//! | [`inspection`] | what other threads ask about connections |
//! | [`shard_task`] | what a shard does of its own accord: a client opens connections |
//! | [`xdp`] | the XDP program: load, settings, attach, counters |
//! | `cookies` | when SYNs are answered with cookies, and with which keys |
//! | `interface`, `capability`, `affinity`, `machine` | what the machine offers |
//! | [`doctor`] | all that is checked before an interface is served, as sentences |
//! | `devices` | the devices below interfaces: slaves of bonds |
//! | `listeners` | the addresses of the interface that are served, as they come and go |
//! | `link_watch`, `links` | whether the interface is still there, and what changes about it; and of several devices |
//! | `netlink` | what the kernel tells of links, addresses, routes and neighbours, unread |
//! | `next_hop` | the kernel's routes and neighbours, for what is sent by them |
//! | `drivers` | what drivers are known to do otherwise |
//! | `driver_counters` | what drivers count as lost |
//! | `watchdog` | a device that delivers nothing any more |
//! | `port` | one queue's sockets, one a device, as a shard uses them; rings and frames are `tidegate_xsk`'s |
//! | `routes` | the devices that frames leave by |
//! | `shard`, `shard_port` | the loop, and the port as it sees it |
//! | `huge_pages` | huge pages for the tables of engines |
//! | [`capture`], `taps`, `trace` | copies of what is received and sent, on their way to a capture's writer |
//! | `wait` | when to spin and when to sleep |
//! | `mailbox` | what a shard is told; how, and what else crosses between shards, is `tidegate_exchange`'s |
//! | `take_over`, `relay` | how a process takes the devices over from another, and what passes between the two then |
//! | `random` | random bytes |

mod affinity;
mod capability;
pub mod capture;
mod clock;
pub mod config;
mod cookies;
mod devices;
pub mod doctor;
mod driver_counters;
mod drivers;
pub mod error;
mod huge_pages;
pub mod inspection;
mod interface;
mod link_watch;
mod links;
mod listeners;
mod machine;
mod mailbox;
mod netlink;
mod next_hop;
mod port;
mod random;
mod relay;
pub mod report;
mod routes;
pub mod runtime;
mod shard;
mod shard_port;
pub mod shard_task;
mod take_over;
mod taps;
mod trace;
mod wait;
mod watchdog;
pub mod xdp;

pub use capture::{Capture, CaptureSettings, Captured, Shown};
pub use config::{
    Attach, Balancers, Config, CookieMode, LinkGone, NextHop, Prefix, Sources, SynCookies, WaitStrategy, XdpMode,
    ZeroCopy,
};
pub use error::Error;
pub use inspection::{ConnectionFilter, Shards, Slice, StateCounts, Walk};
pub use interface::{InterfaceInfo, interface_info};
pub use next_hop::resolve_next_hop;
pub use report::{
    DeviceCounts, FrameCensus, NextHopCounts, PortCounters, QueueInfo, Report, ShardReport, SynCookieCounts, XdpCounts,
};
pub use runtime::{Listener, Reload, Runtime, Settings, start, start_with_tasks};
pub use shard_task::ShardTask;
pub use tidegate_tcp::engine::Happening;
pub use tidegate_xsk::Statistics as SocketStatistics;
pub use trace::Happened;
pub use xdp::{Attached, PresentProgram, Rejection, errno, kernel_release, object, present_programs};
