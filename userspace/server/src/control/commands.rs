//! The commands. One is a variant of [`Request`], a line of [`run`] and a function here or in a file of its own, and
//! for people a sub-command of `tidegate ctl` (`ctl.rs`).

use std::io;
use std::process;

use serde::Serialize;
use tidegate_control::{Info, Reply, Request, State};

use super::Client;
use crate::drain::Drain;
use crate::main_loop::MainLoop;

/// Does what `request` asks for, and replies.
///
/// # Errors
///
/// The client cannot be replied to.
pub(super) fn run(client: &Client<'_>, request: Request) -> io::Result<()> {
    match request {
        Request::Info => client.ask(|main| Ok(info(main))),
        Request::Drain => client.ask(|main| {
            main.drain.ask();
            Ok(())
        }),
    }
}

impl Client<'_> {
    /// Replies with what the main loop answers.
    fn ask<T: Serialize + Send + 'static>(
        &self,
        call: impl FnOnce(&mut MainLoop<'_>) -> Result<T, String> + Send + 'static,
    ) -> io::Result<()> {
        let answer = self.caller.call(call).unwrap_or_else(|error| Err(error.to_string()));
        self.reply(&match answer {
            Ok(value) => Reply::Ok(serde_json::to_value(value)?),
            Err(sentence) => Reply::Error(sentence),
        })
    }
}

fn info(main: &MainLoop<'_>) -> Info {
    Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: process::id(),
        interfaces: main.settings.interfaces.clone(),
        state: match (&main.serving, &main.drain) {
            (None, _) => State::Waiting,
            (Some(_), Drain::Off) => State::Serving,
            (Some(_), _) => State::Draining,
        },
    }
}
