//! The lab that `scripts/lab.sh up` makes, for the measurements and the tests that run in it: a server and a client in
//! network namespaces of their own, joined by a veth pair, or by two with a namespace in the middle.
//!
//! - [`Lab`] runs commands and threads in one of its namespaces, a [`Place`]; [`Family`] has the addresses of its ends;
//! - [`Process`] is a child whose output is collected and which ends with its guard; [`Children`] are ended by SIGINT
//!   and SIGTERM too;
//! - [`Terminal`] is a program that draws on a terminal;
//! - [`arrangement`] says which core does what, and prepares devices and routes for measurements;
//! - [`machine`] and [`environment`] read processor time, memory and facts of the machine from `/proc`.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use tidegate_lab::{Family, Lab, Place, Process};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::find_direct("tg")?;
//! let mut server = Process::start(lab.command(Place::Server, "target/release/tidegate"))?;
//! server.wait_until_ready("tidegate: ready", Duration::from_secs(20))?;
//! let answer = lab.inside(Place::Client, || Ok(std::net::TcpStream::connect((Family::V4.server(), 80))?))?;
//! # drop(answer);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

#[cfg_attr(not(test), macro_use)]
extern crate tidegate_output;

pub mod arrangement;
mod children;
pub mod environment;
mod family;
pub mod machine;
mod namespaces;
mod process;
mod terminal;

pub use arrangement::Cores;
pub use children::{Child, Children};
pub use family::Family;
pub use namespaces::{Lab, Place};
pub use process::{Finished, Lines, Process};
pub use terminal::{Drawn, Terminal};
