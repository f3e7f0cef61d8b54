//! Progress of a measurement, shown while it runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two looks at the rate that is shown.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

/// The label, the bar, and the rate after it.
const TEMPLATE: &str = "{prefix} {bar:30} {msg}";

/// A bar on the terminal; nothing where standard error is none.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Begins to show what is called `label` and takes `total`, with the time before anything is counted.
    pub fn new(label: &str, total: Duration) -> Self {
        let bar = ProgressBar::with_draw_target(Some(millis(total)), ProgressDrawTarget::stderr());
        bar.set_style(style());
        bar.set_prefix(label.to_owned());
        Self(bar)
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Shows that `elapsed` of the time has gone and how many `unit` there are in a second at the moment. Meant to be
    /// called about 10 times a second.
    pub fn update(&self, elapsed: Duration, per_second: f64, unit: &str) {
        if self.0.is_hidden() {
            return;
        }
        self.0.set_message(text(elapsed, per_second, unit));
        self.0.set_position(millis(elapsed));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Shows the rate of the moment, [`INTERVAL`] after the last.
pub(crate) struct Meter<'a> {
    progress: &'a Progress,
    unit: &'static str,
    /// The time at which the rate was last shown, and the number of steps then.
    last: (Duration, u64),
}

impl<'a> Meter<'a> {
    /// Shows `unit` in a second.
    pub(crate) fn new(progress: &'a Progress, unit: &'static str) -> Self {
        Self {
            progress,
            unit,
            last: (Duration::ZERO, 0),
        }
    }

    /// Shows the rate, if it is time, when `elapsed` has gone and `steps` were made in all.
    pub(crate) fn look(&mut self, elapsed: Duration, steps: u64) {
        let interval = elapsed.saturating_sub(self.last.0);
        if interval >= INTERVAL {
            let rate = steps.saturating_sub(self.last.1) as f64 / interval.as_secs_f64();
            self.progress.update(elapsed, rate, self.unit);
            self.last = (elapsed, steps);
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
        progress.update(Duration::from_secs(2), 1.0, "connections");
        progress.finish();
    }

    #[test]
    fn a_hidden_one_takes_everything() {
        let progress = Progress::hidden();
        progress.update(Duration::MAX, f64::INFINITY, "bytes");
        progress.finish();
    }
}
