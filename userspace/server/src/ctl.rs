//! `tidegate ctl`: the commands of the control socket, for people.

use tidegate_control::{Client, Info, Request, State};

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
    match arguments.command {
        CtlCommand::Info => say(&info_text(&client.call(&Request::Info)?)),
        CtlCommand::Drain => client.call(&Request::Drain)?,
    }
    Ok(())
}

fn info_text(info: &Info) -> String {
    let state = match info.state {
        State::Serving => "serving",
        State::Draining => "draining",
        State::Waiting => "waiting for its interfaces",
    };
    format!(
        "tidegate {}, process {}: {state} on {}\n",
        info.version,
        info.pid,
        info.interfaces.join(" and ")
    )
}
