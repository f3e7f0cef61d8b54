//! `tidegate ctl`: the commands of the control socket, for people.

mod capture;
mod conns;
mod counters;
mod top;
mod trace;

use std::io::{self, Write as _};

use serde::Serialize;
use tidegate_control::{Client, Info, Request, State};

pub(crate) use self::capture::CaptureArguments;
pub(crate) use self::conns::{ConnsArguments, KillArguments};
pub(crate) use self::counters::CountersArguments;
pub(crate) use self::top::TopArguments;
pub(crate) use self::trace::TraceArguments;
use crate::arguments::{CtlArguments, CtlCommand};
use crate::failure::Failure;
use crate::say;

/// Has the server do what the arguments ask for, and prints its answer.
///
/// # Errors
///
/// The server cannot be reached, or refuses.
pub(crate) fn run(arguments: &CtlArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.control)?;
    match &arguments.command {
        CtlCommand::Info { json: false } => say(&info_text(&client.call(&Request::Info)?)),
        CtlCommand::Info { json: true } => say(&json(&client.call::<Info>(&Request::Info)?)?),
        CtlCommand::Drain => client.call(&Request::Drain)?,
        CtlCommand::Reopen => client.call(&Request::Reopen)?,
        CtlCommand::Reload => client.call(&Request::Reload)?,
        CtlCommand::Conns(arguments) => conns::list(&mut client, arguments)?,
        CtlCommand::Kill(arguments) => conns::kill(&mut client, arguments)?,
        CtlCommand::Counters(arguments) => counters::run(&mut client, arguments)?,
        CtlCommand::Top(arguments) => top::run(client, arguments)?,
        &CtlCommand::Cookies { mode } => client.call(&Request::Cookies { mode })?,
        CtlCommand::LogLevel { filter } => client.call(&Request::LogLevel { filter: filter.clone() })?,
        CtlCommand::Capture(arguments) => capture::run(client, arguments)?,
        CtlCommand::Trace(arguments) => trace::run(&mut client, arguments)?,
    }
    Ok(())
}

/// Writes to standard output, for as long as somebody reads.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::System {
            what: "cannot write to standard output".to_owned(),
            source: error,
        }),
        // The reader has enough.
        Err(_) => std::process::exit(0),
        Ok(()) => Ok(()),
    }
}

/// A line of JSON.
fn json(value: &impl Serialize) -> Result<String, Failure> {
    let mut line = serde_json::to_string(value).map_err(tidegate_control::Error::from)?;
    line.push('\n');
    Ok(line)
}

fn info_text(info: &Info) -> String {
    let state = match info.state {
        State::Serving => "serving",
        State::Draining => "draining",
        State::Waiting => "waiting for its interfaces",
    };
    let replaced = if info.replaced == Some(true) {
        "; another program is at the path it was started from"
    } else {
        ""
    };
    format!(
        "tidegate {}, process {}: {state} on {}{replaced}\n",
        info.version,
        info.pid,
        info.interfaces.join(" and ")
    )
}
