//! `tidegate ctl top`: the terminal, and what ends it. `model` reckons the rates, `view` draws them.

mod model;
mod view;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGTERM};
use tidegate_control::{Client, Error, Info, Request, Top};

use self::model::Model;
use crate::failure::Failure;

/// The longest that a key, a signal or a reply waits.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Arguments of `tidegate ctl top`.
#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// The time between two looks, 100ms to 1m
    #[arg(long, value_name = "INTERVAL", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
}

/// Shows what the server does, until q, Ctrl-C, SIGTERM, or the server goes away.
///
/// # Errors
///
/// There is no terminal, or the server cannot be reached any more, or refuses.
pub(super) fn run(mut client: Client, arguments: &TopArguments) -> Result<(), Failure> {
    let on_terminal = |source: io::Error| Failure::System {
        what: "cannot use the terminal".to_owned(),
        source,
    };
    if !io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "`top` needs a terminal; `tidegate ctl counters --watch` does without".to_owned(),
        ));
    }
    let info = client.call(&Request::Info)?;
    let interval_ms = u64::try_from(arguments.interval.as_millis()).unwrap_or(u64::MAX);
    let first: Top = client.call(&Request::Top { interval_ms })?;
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).map_err(on_terminal)?;
    }
    let replies = read(client).map_err(on_terminal)?;
    // Also restores the terminal before a panic is told of.
    let mut terminal = ratatui::try_init().map_err(on_terminal)?;
    let shown = show(&mut terminal, &replies, Model::new(info, first, Instant::now()), &ended);
    let restored = ratatui::try_restore();
    if let Some(error) = shown.map_err(on_terminal)? {
        return Err(error.into());
    }
    restored.map_err(on_terminal)
}

/// Reads the replies in a thread of its own: a terminal and a socket cannot be waited for together.
fn read(mut client: Client) -> io::Result<Receiver<Result<Top, Error>>> {
    let (replies, read) = mpsc::sync_channel(1);
    thread::Builder::new().name("replies".to_owned()).spawn(move || {
        loop {
            let reply = client.reply();
            let failed = reply.is_err();
            if replies.send(reply).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(read)
}

/// Draws whenever there is something new. Returns what is wrong with the server, if that is what ended it.
fn show(
    terminal: &mut DefaultTerminal,
    replies: &Receiver<Result<Top, Error>>,
    mut model: Model,
    ended: &AtomicBool,
) -> io::Result<Option<Error>> {
    let mut is_new = true;
    while !ended.load(Ordering::Relaxed) {
        if is_new {
            terminal.draw(|frame| view::draw(frame, &model))?;
        }
        is_new = event::poll(POLL_INTERVAL)?;
        if is_new && is_quit(&event::read()?) {
            return Ok(None);
        }
        match replies.try_recv() {
            Ok(Ok(top)) => {
                model.update(top, Instant::now());
                is_new = true;
            }
            Ok(Err(error)) => return Ok(Some(error)),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(None),
        }
    }
    Ok(None)
}

fn is_quit(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind != KeyEventKind::Release && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// The state of a server, for headings.
fn heading(info: &Info) -> String {
    format!(
        "tidegate {}  process {}  {}",
        info.version,
        info.pid,
        info.interfaces.join(" ")
    )
}
