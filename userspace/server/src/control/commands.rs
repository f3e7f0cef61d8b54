//! The commands. One is a variant of [`Request`], a line of [`run`] and a function here or in a file of its own, and
//! for people a sub-command of `tidegate ctl` (`ctl.rs`).

use std::io;
use std::process;

use serde::Serialize;
use tidegate_control::{CookieMode, Info, Request};

use super::counters::Counted;
use super::{Client, capture, connections, top, trace};
use crate::executable;
use crate::log;
use crate::main_loop::MainLoop;
use crate::reload::reload;
use crate::service_manager;

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
        Request::Reload => client.ask(reload),
        Request::Reopen => client.ask(|main| main.access_log.reopen().map_err(|failure| failure.to_string())),
        Request::Conns { filter, sort, limit } => client.answer(connections::list(client, &filter, sort, limit)),
        Request::Kill { filter, all } => client.answer(connections::kill(client, &filter, all)),
        Request::Counters => client.answer(Counted::read(client).map(Counted::into_counters)),
        Request::Top { interval_ms } => top::run(client, interval_ms),
        Request::Cookies { mode } => client.ask(move |main| set_cookies(main, mode)),
        Request::LogLevel { filter } => client.answer(log::set_filter(&filter)),
        Request::Capture {
            filter,
            snaplen,
            count,
            duration_ms,
        } => {
            let limits = capture::Limits::new(count, duration_ms);
            capture::run(client, &filter, snaplen, &limits)
        }
        Request::Trace { peer, duration_ms } => {
            let limits = capture::Limits::new(None, duration_ms);
            trace::run(client, &peer, &limits)
        }
    }
}

fn set_cookies(main: &mut MainLoop<'_>, mode: CookieMode) -> Result<(), String> {
    let Some(serving) = &mut main.serving else {
        return Err("the interfaces are gone, and waited for; try again when they are back".to_owned());
    };
    let mode = match mode {
        CookieMode::On => tidegate_runtime::CookieMode::Always,
        CookieMode::Off => tidegate_runtime::CookieMode::Never,
        CookieMode::Auto => tidegate_runtime::CookieMode::Auto,
    };
    serving.runtime.set_cookie_mode(mode).map_err(|error| error.to_string())
}

impl Client<'_> {
    /// Replies with what the main loop answers.
    fn ask<T: Serialize + Send + 'static>(
        &self,
        call: impl FnOnce(&mut MainLoop<'_>) -> Result<T, String> + Send + 'static,
    ) -> io::Result<()> {
        self.answer(self.caller.call(call).unwrap_or_else(|error| Err(error.to_string())))
    }
}

fn info(main: &MainLoop<'_>) -> Info {
    Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: process::id(),
        interfaces: main.settings.interfaces.clone(),
        state: main.state(),
        replaced: Some(executable::is_replaced()),
        watchdog_usec: service_manager::watchdog_limit().map(|limit| limit.as_micros() as u64),
    }
}
