//! Progress of a measurement, shown while it runs, and the wish to end it.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::phase::Phase;
use crate::series::Snapshot;

/// Between two looks at the rate that is shown.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

/// The label, the bar, and the rate after it.
const TEMPLATE: &str = "{prefix} {bar:30} {msg}";

/// The present state of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tick {
    /// The time since the beginning.
    pub elapsed: Duration,
    /// The phase.
    pub phase: Phase,
    /// The rate since the last tick, in `unit`.
    pub per_second: f64,
    /// The unit of operations.
    pub unit: &'static str,
    /// Connections with something to do.
    pub open: u32,
}

/// Something that shows a run.
pub trait View: Send {
    /// Shows the present state. Called about 10 times a second, on a thread that is not the client's.
    fn tick(&mut self, tick: &Tick);

    /// Shows a second that has passed.
    fn second(&mut self, snapshot: &Snapshot<'_>);

    /// Takes itself away: the run is over, or has failed.
    fn finish(&mut self);
}

/// The display of a run while it lasts: a bar on the terminal, and nothing where standard error is none; or a [`View`].
#[derive(Clone, Debug)]
pub struct Progress {
    shown: Shown,
    stop: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Shown {
    Bar(ProgressBar),
    View(Arc<Mutex<dyn View>>),
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bar(_) => "Bar",
            Self::View(_) => "View",
        })
    }
}

impl Progress {
    /// Begins to show what is called `label` and takes `total`, with the time before anything is counted.
    pub fn new(label: &str, total: Duration) -> Self {
        let bar = ProgressBar::with_draw_target(Some(millis(total)), ProgressDrawTarget::stderr());
        bar.set_style(style());
        bar.set_prefix(label.to_owned());
        Self::shown(Shown::Bar(bar))
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self::shown(Shown::Bar(ProgressBar::hidden()))
    }

    /// Has `view` show it.
    pub fn on(view: impl View + 'static) -> Self {
        Self::shown(Shown::View(Arc::new(Mutex::new(view))))
    }

    fn shown(shown: Shown) -> Self {
        Self {
            shown,
            stop: Arc::default(),
        }
    }

    /// Has the run end early when `stop` is set, with what was measured until then.
    #[must_use]
    pub fn stopped_by(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..self }
    }

    pub(crate) fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Shows the present state.
    pub(crate) fn tick(&self, tick: &Tick) {
        match &self.shown {
            Shown::Bar(bar) if bar.is_hidden() => {}
            Shown::Bar(bar) => {
                bar.set_message(text(tick.elapsed, tick.per_second, tick.unit));
                bar.set_position(millis(tick.elapsed));
            }
            Shown::View(view) => view.lock().unwrap_or_else(PoisonError::into_inner).tick(tick),
        }
    }

    /// Shows a second that has passed.
    pub(crate) fn second(&self, snapshot: &Snapshot<'_>) {
        if let Shown::View(view) = &self.shown {
            view.lock().unwrap_or_else(PoisonError::into_inner).second(snapshot);
        }
    }

    /// Takes the bar, or the view, away.
    pub fn finish(&self) {
        match &self.shown {
            Shown::Bar(bar) => bar.finish_and_clear(),
            Shown::View(view) => view.lock().unwrap_or_else(PoisonError::into_inner).finish(),
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(TEMPLATE).expect("the template is a constant that a test has parsed")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn text(elapsed: Duration, per_second: f64, unit: &str) -> String {
    let (number, prefix) = match per_second {
        rate if rate >= 1e9 => (rate / 1e9, "G "),
        rate if rate >= 1e6 => (rate / 1e6, "M "),
        rate if rate >= 1e3 => (rate / 1e3, "k "),
        rate => (rate, ""),
    };
    format!("{:.1} s, {number:.1} {prefix}{unit}/s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_how_long_and_how_fast() {
        for (rate, expected) in [
            (0.0, "1.5 s, 0.0 requests/s"),
            (999.0, "1.5 s, 999.0 requests/s"),
            (170_460.0, "1.5 s, 170.5 k requests/s"),
            (2_500_000.0, "1.5 s, 2.5 M requests/s"),
            (1.26e9, "1.5 s, 1.3 G requests/s"),
        ] {
            assert_eq!(text(Duration::from_millis(1_500), rate, "requests"), expected);
        }
    }

    #[test]
    fn the_template_is_right() {
        style();
        let progress = Progress::new("cps", Duration::from_secs(1));
        progress.tick(&tick(Duration::from_secs(2), 1.0));
        progress.finish();
    }

    #[test]
    fn a_hidden_one_takes_everything() {
        let progress = Progress::hidden();
        progress.tick(&tick(Duration::MAX, f64::INFINITY));
        progress.finish();
    }

    fn tick(elapsed: Duration, per_second: f64) -> Tick {
        Tick {
            elapsed,
            phase: Phase::Sustain,
            per_second,
            unit: "bytes",
            open: 1,
        }
    }
}
