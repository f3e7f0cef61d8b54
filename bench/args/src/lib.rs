//! The values that command lines of the benchmark's programs take, and what those programs share beside them.
//!
//! - [`byte_size`], [`bit_rate`], [`rate`], [`percent`] and [`duration`] parse amounts, rates, parts and times, for
//!   clap's `value_parser`;
//! - [`url::Url`] and [`url::parse_target`] name a server without resolving anything, [`url::UnresolvedUrl`] takes
//!   names, too;
//! - [`request::Request`] is what is asked of it;
//! - [`UsageError`] marks an error as a wrong command line, which ends the program with exit code 2;
//! - [`signals::Signals`] makes SIGINT, SIGTERM and SIGUSR1 something to poll.
//!
//! ```
//! use std::time::Duration;
//!
//! let parse = tidegate_args::duration::within(Duration::ZERO..=Duration::from_secs(60));
//! assert_eq!(parse("1500ms"), Ok(Duration::from_millis(1500)));
//! assert_eq!(parse("61s").unwrap_err(), "it must be at least 0 s and at most 60 s");
//! assert_eq!(tidegate_args::byte_size::parse("64KiB"), Ok(65_536));
//! ```
#![forbid(unsafe_code)]

pub mod bit_rate;
pub mod byte_size;
pub mod duration;
pub mod number;
pub mod percent;
pub mod rate;
pub mod request;
pub mod signals;
pub mod url;
mod usage;

pub use usage::UsageError;
