//! The engine in memory: a server on one core, fed by clients whose own cost is not part of any figure.
//!
//! A [`Driver`] prepares a burst of frames from templates, takes the time of the server's work on it, and reads the
//! answers. What the server is can be exchanged: [`EngineServer`] is the engine with the HTTP service,
//! [`SmoltcpServer`] smoltcp with the same responses. A [`Pair`] has an engine at both ends and takes the time of
//! each.
//!
//! Nothing here reaches the kernel: no socket, no device, and time is a parameter that advances by [`BURST_TIME`] a
//! burst.
#![deny(unsafe_code)]

mod addresses;
mod cost;
#[expect(unsafe_code, reason = "an allocator cannot be written without it")]
mod count_allocations;
mod driver;
mod frames;
mod getter;
mod pair;
mod server;
mod smoltcp_server;
mod template;
mod template_client;

pub use addresses::{CLIENTS, SERVER};
pub use cost::Cost;
pub use count_allocations::{CountingAllocator, allocations, held_bytes};
pub use driver::{BURST_TIME, Driver, START, served_response};
pub use frames::{BURST, Burst, Frames};
pub use getter::Getter;
pub use pair::{Pair, SplitCost};
pub use server::{EngineServer, Page, Server, deliver};
pub use smoltcp_server::SmoltcpServer;
pub use template_client::{Answers, Step, TemplateClient};

/// Whether the figures that take gigabytes and minutes are wanted too: `TIDEGATE_BENCH_LARGE=1` in the environment.
pub fn is_large_run() -> bool {
    std::env::var_os("TIDEGATE_BENCH_LARGE").is_some_and(|value| value == "1")
}
