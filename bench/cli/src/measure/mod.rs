//! The subcommands that measure: `cps`, `rps`, `latency`, `throughput` and `hold`. They differ in a few arguments only
//! ([`commands`]); what all have is in [`options`], and of the client of choice in [`bypass`]. A [`measurement`] leads
//! to a [`run`], which has a [`row`] of figures and a [`summary`].

mod bypass;
mod commands;
pub(crate) mod conditions;
mod http;
mod job;
mod live;
mod measurement;
mod open_loop;
mod options;
mod rfc9411;
mod row;
mod run;
#[cfg(test)]
pub(crate) mod samples;
mod series;
mod server_cpu;
mod server_memory;
mod summary;
#[cfg(test)]
mod tests;

pub(crate) use self::commands::{CheckedLoad, Cps, Hold, Latency, MAX_RATE, Rps, Throughput};
pub(crate) use self::job::Job;
pub(crate) use self::open_loop::OpenLoop;
pub(crate) use self::options::ClientOptions;
pub(crate) use self::row::with_limit;
