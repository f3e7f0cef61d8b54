//! The verdict on a figure.

use super::matching::Presence;
use super::statistics::{ALPHA, Change, Samples};
use crate::catalog::Better;

/// The verdict of the runs on a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It became better, and that is more than chance.
    Better,
    /// It became worse, and that is more than chance.
    Worse,
    /// It did not change by the threshold, and that is more than chance.
    Same,
    /// Neither.
    NotShown,
}

impl Verdict {
    /// Its name in the JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::NotShown => "not shown",
        }
    }
}

/// A verdict with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// Why nothing is shown.
    pub(super) reason: Option<&'static str>,
    /// It became worse by the threshold or more.
    pub(super) is_regression: bool,
}

impl Finding {
    /// Returns what `samples` and their change show, one of `count` figures. `p` is corrected for them.
    pub(super) fn of(
        samples: &Samples,
        presence: Presence,
        change: Option<Change>,
        p: Option<f64>,
        count: usize,
        better: Better,
        threshold: f64,
    ) -> Self {
        let not_shown = |reason| Self {
            verdict: Verdict::NotShown,
            reason: Some(reason),
            is_regression: false,
        };
        match presence {
            Presence::OnlyOld => return not_shown("missing in the new runs"),
            Presence::OnlyNew => return not_shown("only the new runs have it"),
            Presence::Both => {}
        }
        let (Some(change), Some(p)) = (change, p) else {
            return not_shown("no pair has it in both runs");
        };
        let (low, high) = (change.low.number(), change.high.number());
        // The correction may ask for more runs than a single figure.
        if samples.least_p(count) > ALPHA {
            return not_shown("too few runs");
        }
        if p <= ALPHA && (low > 0.0 || high < 0.0) {
            let is_better = (low > 0.0) == (better == Better::Higher);
            return Self {
                verdict: if is_better { Verdict::Better } else { Verdict::Worse },
                reason: None,
                is_regression: !is_better && change.change.reaches(threshold),
            };
        }
        if !change.low.reaches(threshold) && !change.high.reaches(threshold) {
            return Self {
                verdict: Verdict::Same,
                reason: None,
                is_regression: false,
            };
        }
        if samples.least_p_of_differences(count) * count as f64 > ALPHA {
            return not_shown("too few runs");
        }
        not_shown("interval too wide")
    }

    /// Returns the verdict for tables.
    pub(super) fn text(&self) -> String {
        match (self.reason, self.is_regression) {
            (Some(reason), _) => format!("{}: {reason}", self.verdict.name()),
            (None, true) => format!("{}: regression", self.verdict.name()),
            (None, false) => self.verdict.name().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::statistics::Amount;
    use super::*;

    fn change(low: f64, middle: f64, high: f64) -> Option<Change> {
        Some(Change {
            old: 100.0,
            new: 100.0 * (1.0 + middle),
            change: Amount::Part(middle),
            low: Amount::Part(low),
            high: Amount::Part(high),
            p: 0.0,
        })
    }

    fn finding(ends: [f64; 3], p: f64, better: Better) -> String {
        let samples = Samples::Pairs(vec![(1.0, 2.0); 20]);
        Finding::of(
            &samples,
            Presence::Both,
            change(ends[0], ends[1], ends[2]),
            Some(p),
            10,
            better,
            0.05,
        )
        .text()
    }

    #[test]
    fn a_verdict_needs_an_interval_and_a_probability() {
        for (ends, p, higher, lower) in [
            ([-0.12, -0.10, -0.08], 0.009, "worse: regression", "better"),
            ([0.08, 0.10, 0.12], 0.009, "better", "worse: regression"),
            // Certain, and less than the threshold.
            ([-0.03, -0.02, -0.01], 0.009, "worse", "better"),
            ([-0.03, -0.02, -0.01], 0.02, "same", "same"),
            ([-0.04, 0.0, 0.04], 1.0, "same", "same"),
            (
                [-0.12, -0.10, -0.08],
                0.02,
                "not shown: interval too wide",
                "not shown: interval too wide",
            ),
            (
                [-0.20, -0.10, 0.01],
                0.009,
                "not shown: interval too wide",
                "not shown: interval too wide",
            ),
        ] {
            assert_eq!(finding(ends, p, Better::Higher), higher, "{ends:?} {p}");
            assert_eq!(finding(ends, p, Better::Lower), lower, "{ends:?} {p}");
        }
    }

    #[test]
    fn too_few_runs_show_nothing_whatever_they_found() {
        let found = |runs, ends: [f64; 3], p, count| {
            let samples = Samples::Pairs(vec![(1.0, 2.0); runs]);
            Finding::of(
                &samples,
                Presence::Both,
                change(ends[0], ends[1], ends[2]),
                Some(p),
                count,
                Better::Higher,
                0.05,
            )
            .text()
        };
        assert_eq!(found(1, [0.0; 3], 1.0, 1), "not shown: too few runs");
        assert_eq!(found(7, [-0.1; 3], 0.016, 1), "not shown: too few runs");
        assert_eq!(found(8, [-0.1; 3], 0.008, 1), "worse: regression");
        // With ten figures a p of 1 in 128 is not small enough, however large the change.
        assert_eq!(found(8, [-0.1; 3], 0.08, 10), "not shown: too few runs");
        assert_eq!(found(8, [0.0; 3], 1.0, 10), "same");
        let equal = Samples::Pairs([[(1.0, 1.0); 8], [(1.0, 2.0); 8]].concat());
        let finding = Finding::of(
            &equal,
            Presence::Both,
            change(-0.1, 0.0, 0.1),
            Some(0.08),
            10,
            Better::Higher,
            0.05,
        );
        assert_eq!(finding.text(), "not shown: too few runs");
        for (samples, presence, reason) in [
            (
                Samples::Sets(vec![1.0], vec![]),
                Presence::OnlyOld,
                "missing in the new runs",
            ),
            (
                Samples::Sets(vec![], vec![1.0]),
                Presence::OnlyNew,
                "only the new runs have it",
            ),
            (Samples::Pairs(vec![]), Presence::Both, "no pair has it in both runs"),
        ] {
            let nothing = Finding::of(&samples, presence, None, None, 1, Better::Lower, 0.05);
            assert_eq!(nothing.text(), format!("not shown: {reason}"));
        }
    }
}
