//! `tidegate ctl trace`.

use std::time::Duration;

use clap::Args;
use tidegate_capture::Peer;
use tidegate_capture::peer::NoPeer;
use tidegate_control::{Client, Request};

use super::print;
use crate::failure::Failure;

/// Arguments of `tidegate ctl trace`.
#[derive(Debug, Args)]
pub(crate) struct TraceArguments {
    /// An address, a prefix such as 198.18.0.0/24, or ADDRESS:PORT
    #[arg(value_name = "PEER", value_parser = peer)]
    peer: String,
    /// End after this time; without it, with Ctrl-C
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

/// A peer, as it was given.
fn peer(text: &str) -> Result<String, NoPeer> {
    text.parse::<Peer>().map(|_| text.to_owned())
}

/// Prints line by line what the server tells.
///
/// # Errors
///
/// The server refuses or breaks the connection.
pub(super) fn run(client: &mut Client, arguments: &TraceArguments) -> Result<(), Failure> {
    client.call::<()>(&Request::Trace {
        peer: arguments.peer.clone(),
        duration_ms: arguments.duration.map(|duration| duration.as_millis() as u64),
    })?;
    while let Some(mut line) = client.reply::<Option<String>>()? {
        line.push('\n');
        print(&line)?;
    }
    Ok(())
}
