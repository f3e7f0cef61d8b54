//! The progress of a flood, shown while it runs.

use std::time::{Duration, Instant};

use crate::peers::Connections;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where there is no terminal to draw a bar on.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks at the rate that a bar shows.
const BAR_INTERVAL: Duration = Duration::from_millis(500);

/// A bar on the terminal, or a line a second on standard error where that is none.
pub(crate) struct Progress {
    bar: ProgressBar,
    start: Instant,
    /// The time at which the rate was last taken, and the number of frames then.
    last: (Instant, u64),
}

impl Progress {
    /// Begins to show a flood that goes on for `duration`.
    ///
    /// # Errors
    ///
    /// The bar's template is wrong.
    pub(crate) fn new(duration: Duration) -> anyhow::Result<Self> {
        // Durations are at most ten minutes.
        let length = duration.as_millis() as u64;
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{bar:30} {msg}")?);
        let start = Instant::now();
        Ok(Self {
            bar,
            start,
            last: (start, 0),
        })
    }

    /// Shows how it is with `sent` frames, and with the connections if there are any.
    pub(crate) fn show(&mut self, sent: u64, connections: Option<Connections>) {
        let lines = self.bar.is_hidden();
        self.bar.set_position(self.start.elapsed().as_millis() as u64);
        let since = self.last.0.elapsed();
        let interval = if lines { LINE_INTERVAL } else { BAR_INTERVAL };
        if since < interval {
            return;
        }
        let rate = sent.saturating_sub(self.last.1) as f64 / since.as_secs_f64();
        let text = text(self.start.elapsed(), sent, rate, connections);
        if lines {
            eprintln!("{text}");
        } else {
            self.bar.set_message(text);
        }
        self.last = (Instant::now(), sent);
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

fn text(elapsed: Duration, sent: u64, rate: f64, connections: Option<Connections>) -> String {
    let text = format!("{:.1} s, {sent} frames, {rate:.0} frames/s", elapsed.as_secs_f64());
    match connections {
        Some(Connections { completed, kept, .. }) => format!("{text}, {completed} connections, {kept} kept"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_long_how_many_and_how_fast() {
        assert_eq!(
            text(Duration::from_millis(1500), 1200, 799.6, None),
            "1.5 s, 1200 frames, 800 frames/s"
        );
        let connections = Connections {
            completed: 7,
            kept: 5,
            ..Connections::default()
        };
        assert_eq!(
            text(Duration::from_secs(1), 10, 10.0, Some(connections)),
            "1.0 s, 10 frames, 10 frames/s, 7 connections, 5 kept"
        );
    }

    #[test]
    fn the_bars_template_is_right() {
        let mut progress = Progress::new(Duration::from_secs(5)).unwrap();
        progress.show(1, None);
        progress.finish();
    }
}
