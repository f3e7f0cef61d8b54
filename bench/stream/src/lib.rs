//! Bulk transfers over the kernel's TCP, in one direction each, and a server for them.
//!
//! The client works against any HTTP server and any discard service, so that tidegate and the kernel's own TCP are
//! measured with the same one.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use tidegate_stream::transfer::{self, Until};
//!
//! # fn main() -> anyhow::Result<()> {
//! let url = "http://198.18.0.1/large".parse().map_err(anyhow::Error::msg)?;
//! let transfer = transfer::download(&url, Some(Until::Elapsed(Duration::from_secs(5))), Some("cubic"))?;
//! assert!(transfer.mbits_per_second() > 1.0);
//! # Ok(())
//! # }
//! ```

// In tests those of the standard library, whose output is captured.
#[cfg_attr(not(test), macro_use)]
extern crate tidegate_output;

pub mod serve;
pub mod socket;
pub mod transfer;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use tidegate_args::UsageError;
use tidegate_args::byte_size;
use tidegate_args::url::Url;
use tidegate_args::url::parse_target;

use self::transfer::{Transfer, Until};

/// Arguments of `tidegate-bench stream`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serve both directions over the kernel's TCP until a signal ends it: `GET /N` by N zero bytes, and a discard
    /// service.
    Serve {
        /// Where to serve downloads: ADDRESS:PORT, with IPv6 addresses in brackets.
        #[arg(long, value_name = "ADDRESS:PORT")]
        http: Vec<SocketAddr>,
        /// Where to throw away uploads.
        #[arg(long, value_name = "ADDRESS:PORT")]
        discard: Vec<SocketAddr>,
        /// Congestion control of the connections, for example cubic.
        #[arg(long)]
        congestion: Option<String>,
    },
    /// Fetch a URL by HTTP and throw it away.
    Down {
        /// URL to fetch: http://ADDRESS:PORT/PATH, with IPv6 addresses in brackets.
        #[arg(long)]
        url: Url,
        /// End after so many bytes, for example 100MB; without it, at the end of the body.
        #[arg(long, value_parser = byte_size::parse, conflicts_with = "duration")]
        bytes: Option<u64>,
        /// End after so long.
        #[arg(long, value_parser = humantime::parse_duration)]
        duration: Option<Duration>,
        /// Congestion control of this side.
        #[arg(long)]
        congestion: Option<String>,
        /// Write the result to this file as JSON, too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Send zeros to a discard service, then FIN, and wait for its FIN.
    Up {
        /// The discard service: ADDRESS:PORT, with IPv6 addresses in brackets.
        #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_target)]
        target: SocketAddr,
        /// Send so many bytes, for example 100MB.
        #[arg(long, value_parser = byte_size::parse, conflicts_with = "duration", required_unless_present = "duration")]
        bytes: Option<u64>,
        /// Send for so long; what is on its way by then still counts.
        #[arg(long, value_parser = humantime::parse_duration)]
        duration: Option<Duration>,
        /// Congestion control of this side.
        #[arg(long)]
        congestion: Option<String>,
        /// Write the result to this file as JSON, too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

/// Serves, or makes one transfer and prints what it took. Always true.
///
/// # Errors
///
/// Nothing to serve is given ([`UsageError`]), the transfer failed, or its result cannot be written.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    match &arguments.role {
        Role::Serve {
            http,
            discard,
            congestion,
        } => serve_until_ended(http, discard, congestion.as_deref())?,
        Role::Down {
            url,
            bytes,
            duration,
            congestion,
            json,
        } => {
            let until = bytes.map(Until::Bytes).or(duration.map(Until::Elapsed));
            let transfer = transfer::download(url, until, congestion.as_deref())?;
            print(&transfer, json.as_deref())?;
        }
        Role::Up {
            target,
            bytes,
            duration,
            congestion,
            json,
        } => {
            let until = bytes
                .map(Until::Bytes)
                .or(duration.map(Until::Elapsed))
                .ok_or_else(|| UsageError("give --bytes or --duration".to_owned()))?;
            let transfer = transfer::upload(*target, until, congestion.as_deref())?;
            print(&transfer, json.as_deref())?;
        }
    }
    Ok(true)
}

fn serve_until_ended(http: &[SocketAddr], discard: &[SocketAddr], congestion: Option<&str>) -> anyhow::Result<()> {
    if http.is_empty() && discard.is_empty() {
        return Err(UsageError("nothing to serve is given; use --http, --discard, or both".to_owned()).into());
    }
    for &address in http {
        serve::source(address, congestion)?;
    }
    for &address in discard {
        serve::sink(address, congestion)?;
    }
    println!("tidegate-bench stream: ready");
    loop {
        std::thread::park();
    }
}

fn print(transfer: &Transfer, json: Option<&Path>) -> anyhow::Result<()> {
    println!(
        "{} bytes in {:.3} s: {:.2} Mbit/s; longest pause {:.3} s",
        transfer.bytes,
        transfer.elapsed.as_secs_f64(),
        transfer.mbits_per_second(),
        transfer.longest_pause.as_secs_f64()
    );
    if let Some(path) = json {
        let value = json!({
            "bytes": transfer.bytes,
            "seconds": transfer.elapsed.as_secs_f64(),
            "mbits_per_second": transfer.mbits_per_second(),
            "longest_pause_seconds": transfer.longest_pause.as_secs_f64(),
        });
        std::fs::write(path, format!("{value:#}\n"))
            .with_context(|| format!("cannot write the result to {}", path.display()))?;
    }
    Ok(())
}
