//! A flood of segments or connections from made-up sources, to see what a server does with it.
//!
//! It is for benchmarks between machines, or namespaces, that belong together: targets and sources outside of the
//! ranges reserved for that are refused ([`ranges`]), and no flood goes on for more than ten minutes. The kernel makes
//! the frames (`live_frames`); where it cannot, they are made here and sent through an AF_XDP socket (`af_xdp`).
//!
//! Some kinds need connections: `peers` opens and misuses them.
//!
//! A [`Plan`] says what is sent, a [`Generator`] sends it, a [`Sink`] counts what comes back and a [`Bare`] program
//! shows what the machine could do with it at best. [`run`] is the whole of it as `tidegate-bench flood`.
//!
//! ```
//! use tidegate_flood::{Kind, Plan, Rate};
//!
//! let mut plan = Plan {
//!     sources: Some("198.19.4.0/24".parse().unwrap()),
//!     rate: Rate::Pps(100_000),
//!     ..Plan::new("tgc0", "198.18.0.1:80".parse().unwrap(), Kind::Syn)
//! };
//! plan.check().unwrap();
//! plan.target = "192.0.2.1:80".parse().unwrap();
//! assert!(plan.check().is_err(), "not an address for benchmarks");
//! ```

// In tests those of the standard library, whose output is captured.
#[cfg_attr(not(test), macro_use)]
extern crate tidegate_output;

mod af_xdp;
mod attached;
mod command;
mod generator;
pub mod interface;
mod live_frames;
pub mod neighbour;
pub mod object;
mod peers;
mod plan;
mod progress;
pub mod ranges;
mod rate;
mod sink;
pub mod socket;
mod template;

pub use command::{Arguments, run};
pub use generator::{Generator, Totals};
pub use peers::Connections;
pub use plan::{Kind, MAX_CONNECTIONS, MAX_DURATION, Maker, Plan};
pub use ranges::Prefix;
pub use rate::Rate;
pub use sink::{Bare, Sink, SinkCounts};
