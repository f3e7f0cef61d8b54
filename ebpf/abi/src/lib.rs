//! What tidegate's XDP program and its userspace share.
//!
//! Both sides are compiled from this crate, so a map cannot have two layouts. It is `no_std` and allocates nothing.
#![no_std]
#![cfg_attr(not(feature = "userspace"), forbid(unsafe_code))]

pub mod counter;
pub mod listener;
pub mod siphash;

pub use counter::XdpCounter;
pub use listener::ListenerKey;

/// Receive queues the maps have room for; a device with more is refused with a message.
pub const MAX_QUEUES: u32 = 64;

/// Listeners (address and port) the XDP program can serve at once.
pub const MAX_LISTENERS: u32 = 1024;

/// Name of the program that steers, as it is found in the object.
pub const PROGRAM_STEER: &str = "tidegate";

/// Name of the map of [`ListenerKey`]s whose flows are steered (`HashMap<ListenerKey, u32>`; the value is unused).
pub const MAP_LISTENERS: &str = "LISTENERS";

/// Name of the map from receive queue to AF_XDP socket (`XskMap`, [`MAX_QUEUES`] entries).
pub const MAP_XSKS: &str = "XSKS";

/// Name of the counters (`PerCpuArray<u64>`; see [`XdpCounter::index`]).
pub const MAP_COUNTERS: &str = "COUNTERS";
