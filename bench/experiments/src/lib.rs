//! Experiments with several servers in the lab of `scripts/lab.sh`, all under the same load:
//!
//! - [`compare`] measures tidegate, nginx and the same application on the kernel's TCP under the clients of
//!   `tidegate-load`;
//! - [`resilience`] measures tidegate, nginx and the kernel's TCP under attack;
//! - [`goodput`] measures tidegate and the kernel's TCP over bad links;
//! - [`fairness`] measures the shares that their flows have of one queue.
//!
//! Each has the `Arguments` of its sub-command of `tidegate-bench`, and a `run` that prints a table, writes the files
//! it is asked for, and returns whether everything was measured.
//!
//! ```no_run
//! use clap::Parser;
//!
//! #[derive(Parser)]
//! struct Program {
//!     #[command(flatten)]
//!     goodput: tidegate_experiments::goodput::Arguments,
//! }
//!
//! let program = Program::parse_from(["goodput", "--quick", "--only", "loss 1%"]);
//! assert!(tidegate_experiments::goodput::run(&program.goodput).is_ok());
//! ```
#![forbid(unsafe_code)]

// In tests those of the standard library, whose output is captured.
#[cfg_attr(not(test), macro_use)]
extern crate tidegate_output;

pub mod compare;
pub mod fairness;
pub mod goodput;
mod nginx;
mod probe;
mod progress;
pub mod resilience;
mod setup;
mod transfers;
