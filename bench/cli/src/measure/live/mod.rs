//! The live view of a run: the terminal, and what ends the run early. `model` has the figures, `view` draws them.

mod model;
mod view;

use std::io::{self, IsTerminal, Stderr, stderr, stdin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::layout::Rect;
use ratatui::prelude::CrosstermBackend;
use ratatui::{Terminal, TerminalOptions, Viewport};
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tidegate_args::UsageError;
use tidegate_load::{Plan, Progress, Snapshot, Tick, View};

use self::model::Model;
use super::run::workload_name;

/// The smallest screen that is used without being asked for.
const MIN_SIZE: (u16, u16) = (60, 16);

/// Exit code of a process that SIGINT has ended, as shells state it.
const INTERRUPTED: i32 = 130;

/// When there is a live view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Live {
    /// If standard input and standard error are a terminal of 60 columns and 16 lines or more, in the foreground.
    Auto,
    /// On a terminal of any size; without one it is an error.
    Always,
    /// Not at all: a line tells how far the run is.
    Never,
}

/// Returns what shows a run of `plan` by `client`, and ends it at SIGINT, SIGTERM or SIGHUP. A second signal ends the
/// process.
///
/// # Errors
///
/// A view is asked for and there is no terminal (a usage error), or signals cannot be handled.
pub(super) fn progress(live: Live, plan: &Plan, client: &str) -> anyhow::Result<Progress> {
    let stop = stop_flag()?;
    let shows = match live {
        Live::Never => false,
        Live::Auto => is_usable(),
        Live::Always if stderr().is_terminal() && stdin().is_terminal() => true,
        Live::Always => {
            let text = "--live always needs a terminal as standard input and standard error";
            return Err(UsageError(text.to_owned()).into());
        }
    };
    let progress = if shows {
        Progress::on(Screen {
            terminal: None,
            model: Model::new(plan, client),
            stop: Arc::clone(&stop),
        })
    } else {
        Progress::new(workload_name(plan.workload), plan.total())
    };
    Ok(progress.stopped_by(stop))
}

/// Whether there is a terminal that is large enough, can be drawn on, and is this process's at present: one in the
/// background would be stopped.
fn is_usable() -> bool {
    let (stdin, stderr) = (stdin(), stderr());
    stdin.is_terminal()
        && stderr.is_terminal()
        && std::env::var_os("TERM").is_some_and(|name| name != "dumb")
        && tcgetpgrp(&stderr).is_ok_and(|foreground| foreground == getpgrp())
        && size().is_ok_and(|size| size.width >= MIN_SIZE.0 && size.height >= MIN_SIZE.1)
}

/// The flag that signals set.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::<AtomicBool>::default();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the first signal finds the flag unset.
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .context("cannot handle signals")?;
    }
    Ok(Arc::clone(FLAG.get_or_init(|| flag)))
}

fn size() -> io::Result<Rect> {
    let size = tcgetwinsize(stderr())?;
    Ok(Rect::new(0, 0, size.ws_col, size.ws_row))
}

/// The terminal behind standard error, while it is drawn on.
struct Screen {
    /// From the first tick on, so that what is said before can be read.
    terminal: Option<Terminal<CrosstermBackend<Stderr>>>,
    model: Model,
    stop: Arc<AtomicBool>,
}

impl Screen {
    fn open() -> io::Result<Terminal<CrosstermBackend<Stderr>>> {
        enable_raw_mode()?;
        execute!(stderr(), EnterAlternateScreen)?;
        // The terminal's own idea of its size is that of standard output.
        let viewport = Viewport::Fixed(size()?);
        let mut terminal = Terminal::with_options(CrosstermBackend::new(stderr()), TerminalOptions { viewport })?;
        terminal.hide_cursor()?;
        Ok(terminal)
    }

    fn draw(&mut self) -> io::Result<()> {
        if self.terminal.is_none() {
            self.terminal = Some(Self::open().inspect_err(|_| close())?);
        }
        let Some(terminal) = &mut self.terminal else {
            return Ok(());
        };
        while event::poll(Duration::ZERO)? {
            if is_quit(&event::read()?) && self.stop.swap(true, Ordering::Relaxed) {
                // It was asked for before, and is not awaited.
                close();
                std::process::exit(INTERRUPTED);
            }
        }
        let size = size()?;
        if terminal.get_frame().area() != size {
            terminal.resize(size)?;
        }
        self.model.is_ending = self.stop.load(Ordering::Relaxed);
        terminal.draw(|frame| view::draw(frame, &self.model))?;
        Ok(())
    }
}

/// Gives the terminal back, as far as it is there.
fn close() {
    let _ = execute!(stderr(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

impl View for Screen {
    fn tick(&mut self, tick: &Tick) {
        self.model.tick(tick);
        // A run goes on when its terminal is gone, until SIGHUP.
        let _ = self.draw();
    }

    fn second(&mut self, snapshot: &Snapshot<'_>) {
        self.model.second(snapshot);
    }

    fn finish(&mut self) {
        if self.terminal.take().is_some() {
            close();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.finish();
    }
}

fn is_quit(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind != KeyEventKind::Release && (is_interrupt || key.code == KeyCode::Char('q'))
}
