//! Progress of a run: a bar on a terminal, else a line for each case.

use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

/// The interval at which the bar's clock moves.
const TICK: Duration = Duration::from_secs(1);

/// Shows on standard error how far the run is.
pub(crate) struct Progress {
    bar: ProgressBar,
    cases: usize,
    done: usize,
}

impl Progress {
    /// Nothing of `cases` is done yet.
    ///
    /// # Errors
    ///
    /// The bar's template is wrong.
    pub(crate) fn new(cases: usize) -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {msg}")
            .context("the progress bar's template is wrong")?;
        let bar = ProgressBar::new(cases as u64).with_style(style);
        bar.enable_steady_tick(TICK);
        Ok(Self { bar, cases, done: 0 })
    }

    /// Says what is measured now.
    pub(crate) fn begin(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Says what was found.
    pub(crate) fn done(&mut self, found: &str) {
        self.done += 1;
        if self.bar.is_hidden() {
            eprintln!("{}/{}: {found}", self.done, self.cases);
        } else {
            self.bar.println(found);
            self.bar.inc(1);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_right() {
        let mut progress = Progress::new(2).unwrap();
        progress.begin("one");
        progress.done("one is done");
        assert_eq!(progress.done, 1);
    }
}
