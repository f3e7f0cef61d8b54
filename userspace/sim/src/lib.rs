//! A deterministic simulation of tidegate's TCP engine.
//!
//! Two hosts exchange streams over an impaired link; one runs the engine, the other the engine or smoltcp, an
//! independent implementation. Everything about a run follows from its seed ([`scenario::Scenario::generate`]), so a
//! seed that fails does so every time. After a run both streams must have arrived whole, nothing may be left of the
//! connection, and the engine must have kept within the windows that it was offered ([`check::judge`]).
//! [`batch::Batch`] runs many seeds; [`trace::Trace`] shows one segment by segment.
//!
//! ```
//! use tidegate_sim::batch::Batch;
//!
//! let summary = Batch { start: 0, seeds: 3, control: None, jobs: 1 }.run(&|_| {});
//! assert_eq!((summary.runs, summary.failures.len()), (3, 0));
//! ```
#![forbid(unsafe_code)]

pub mod attack;
pub mod batch;
pub mod check;
pub mod engine_host;
pub mod forge;
mod generate;
pub mod goodput;
pub mod host;
pub mod icmp;
pub mod impairment;
pub mod link;
pub mod middlebox;
pub mod out_of_order;
pub mod scenario;
pub mod script;
pub mod segment;
pub mod side;
pub mod simulation;
pub mod smoltcp_host;
pub mod trace;
mod windows;
