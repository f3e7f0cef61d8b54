//! tidegate's TCP: a complete implementation of RFC 9293 without I/O, clock or threads.
//!
//! An [`Engine`] is one shard: it owns flows, timers and an [`Application`]. Frames and time come in as parameters, so the
//! same engine runs on AF_XDP, in a simulator and under a fuzzer.
#![forbid(unsafe_code)]

pub mod application;
pub mod config;
pub mod congestion;
mod connection;
pub mod counters;
pub mod engine;
mod fifo_slab;
mod flow_table;
mod half_open;
mod isn;
pub mod known_flows;
mod link;
mod rate_limit;
mod reassembly;
pub mod recovery;
mod send_queue;
pub mod seq;
pub mod time;
mod time_wait;
pub mod timer_wheel;
pub mod transmit;
pub mod wire;

pub use application::{Application, Stream};
pub use config::Config;
pub use connection::State;
#[cfg(debug_assertions)]
#[doc(hidden)]
pub use connection::prediction::without_prediction;
pub use engine::Engine;
