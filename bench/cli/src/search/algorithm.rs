//! The search for the highest rate that meets objectives, by steps that something else makes.

use tidegate_report::objective::Outcome;

/// The number of lower rates that are verified when what was found does not hold up.
const RETREATS: u32 = 5;

/// The number of times that the search is resumed above a rate that failed by chance.
const MAX_RESUMPTIONS: u32 = 2;

/// The ratio of a rate to the one before, as long as none fails. Near one that failed by chance, strides are shorter.
const MAX_STRIDE: f64 = 2.0;

/// The bounds of a search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    /// The first rate, and the lowest.
    pub(super) from: u64,
    /// The highest rate.
    pub(super) to: u64,
    /// The part by which what is found may be too low.
    pub(super) precision: f64,
}

/// The purpose of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To find a rate that is too high.
    Bracket,
    /// To find the middle between one that is and one that is not.
    Bisect,
    /// To see whether the lowest rate that failed still does.
    Confirm,
    /// To see whether what was found holds up for longer.
    Verify,
}

/// The judgement on one step, with what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged<C> {
    pub(super) outcome: Outcome,
    pub(super) comment: C,
}

/// The outcome of a search.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found<C> {
    /// The highest rate that held up, and whether it is shown to meet the objectives; `None` if there is none.
    pub(super) rate: Option<(u64, Outcome)>,
    /// The lowest rate above it that failed, with the comment on its last step; `None` if [`Range::to`] holds up.
    pub(super) above: Option<(u64, C)>,
}

impl Purpose {
    /// The name in the results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bracket => "bracket",
            Self::Bisect => "bisect",
            Self::Confirm => "confirm",
            Self::Verify => "verify",
        }
    }
}

/// Searches by `probe`, which is told a rate, the purpose, and whether it is the repetition of a step that failed.
///
/// The rate is doubled from the lowest one until it fails, then the middle between one that held up and one that failed
/// is taken, on a logarithmic scale, until they are as near as the precision. A step that fails is repeated once, and
/// what is too short to show anything counts as if it held up. The lowest rate that failed is tried once more at the
/// end; if it does not fail then, the search goes on above it. What is found is verified; if it fails then, lower rates
/// are, by strides that become longer.
///
/// # Errors
///
/// Those of `probe`.
pub(super) fn search<C: Clone>(
    range: Range,
    mut probe: impl FnMut(u64, Purpose, bool) -> anyhow::Result<Judged<C>>,
) -> anyhow::Result<Found<C>> {
    let mut attempt = |rate, purpose| {
        let first = probe(rate, purpose, false)?;
        if first.outcome == Outcome::NotMet {
            probe(rate, purpose, true)
        } else {
            Ok::<_, anyhow::Error>(first)
        }
    };
    let (mut low, mut above) = (None, None);
    let higher = |rate: u64, stride: f64| ((rate as f64 * stride) as u64).max(rate + 1).min(range.to);
    let (mut rate, mut stride) = (range.from, MAX_STRIDE);
    for resumptions in 0.. {
        loop {
            let judged = attempt(rate, Purpose::Bracket)?;
            if judged.outcome == Outcome::NotMet {
                above = Some((rate, judged.comment));
                break;
            }
            low = Some(rate);
            if rate >= range.to {
                break;
            }
            rate = higher(rate, stride);
            stride = (stride * stride).min(MAX_STRIDE);
        }
        while let (Some(held), Some((high, _))) = (low, &above)
            && *high as f64 > held as f64 * (1.0 + range.precision)
            && high - held > 1
        {
            let middle = ((held as f64 * *high as f64).sqrt().round() as u64).clamp(held + 1, high - 1);
            let judged = attempt(middle, Purpose::Bisect)?;
            if judged.outcome == Outcome::NotMet {
                above = Some((middle, judged.comment));
            } else {
                low = Some(middle);
            }
        }
        let Some((high, _)) = above else {
            break;
        };
        if resumptions == MAX_RESUMPTIONS || attempt(high, Purpose::Confirm)?.outcome == Outcome::NotMet {
            break;
        }
        // It failed by chance.
        (low, above) = (Some(high), None);
        if high >= range.to {
            break;
        }
        stride = 1.0 + range.precision;
        rate = higher(high, stride);
    }
    let Some(mut low) = low else {
        return Ok(Found { rate: None, above });
    };
    let mut factor = 1.0 + range.precision;
    for _ in 0..=RETREATS {
        let judged = attempt(low, Purpose::Verify)?;
        if judged.outcome != Outcome::NotMet {
            return Ok(Found {
                rate: Some((low, judged.outcome)),
                above,
            });
        }
        above = Some((low, judged.comment));
        if low <= range.from {
            break;
        }
        low = ((low as f64 / factor) as u64).clamp(range.from, low - 1);
        factor *= factor;
    }
    Ok(Found { rate: None, above })
}

#[cfg(test)]
mod tests {
    use tidegate_random::Random;

    use super::*;

    const PRECISION: f64 = 0.02;

    fn range(from: u64, to: u64) -> Range {
        Range {
            from,
            to,
            precision: PRECISION,
        }
    }

    /// Searches a server of which `outcome` says how it does at a rate. Returns what was found, and every step.
    fn steps(
        range: Range,
        mut outcome: impl FnMut(u64, Purpose) -> Outcome,
    ) -> (Found<u64>, Vec<(u64, Purpose, bool)>) {
        let mut steps = Vec::new();
        let found = search(range, |rate, purpose, is_repeated| {
            steps.push((rate, purpose, is_repeated));
            Ok(Judged {
                outcome: outcome(rate, purpose),
                comment: rate,
            })
        });
        (found.unwrap(), steps)
    }

    fn up_to(limit: u64) -> impl Fn(u64, Purpose) -> Outcome {
        move |rate, _| if rate <= limit { Outcome::Met } else { Outcome::NotMet }
    }

    #[test]
    fn every_limit_is_found_to_the_precision_and_never_above() {
        for limit in [100, 101, 199, 200, 5_000, 12_345, 700_000, 49_999_999] {
            let (found, steps) = steps(range(100, 50_000_000), up_to(limit));
            let (rate, outcome) = found.rate.unwrap();
            assert_eq!(outcome, Outcome::Met);
            let high = found.above.unwrap().0;
            assert!(rate <= limit && limit < high, "{rate} {limit} {high}");
            let is_precise = high as f64 <= rate as f64 * (1.0 + PRECISION) || high == rate + 1;
            assert!(is_precise, "{rate} {limit} {high}");
            assert!(steps.len() < 45, "{} for {limit}", steps.len());
            assert_eq!(steps.last(), Some(&(rate, Purpose::Verify, false)));
        }
    }

    #[test]
    fn what_fails_is_tried_again_and_what_holds_up_is_not() {
        let (_, steps) = steps(range(100, 1_000_000), up_to(5_000));
        for (index, &(rate, purpose, is_repeated)) in steps.iter().enumerate() {
            let next = steps.get(index + 1);
            let is_followed = next == Some(&(rate, purpose, true));
            assert_eq!(is_followed, rate > 5_000 && !is_repeated, "{rate}");
        }
    }

    #[test]
    fn one_failure_by_chance_changes_nothing() {
        for unlucky in 0..20 {
            let mut count = 0;
            let (found, _) = steps(range(100, 1_000_000), |rate, _| {
                count += 1;
                if count == unlucky + 1 {
                    Outcome::NotMet
                } else {
                    up_to(5_000)(rate, Purpose::Bracket)
                }
            });
            let (rate, _) = found.rate.unwrap();
            // A failure that would have been one anyway is tried again, too.
            assert!((4_900..=5_000).contains(&rate), "{rate} with failure {unlucky}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_the_ends() {
        let (found, all) = steps(range(100, 1_000), up_to(10_000));
        assert_eq!((found.rate, found.above), (Some((1_000, Outcome::Met)), None));
        assert_eq!(all.last(), Some(&(1_000, Purpose::Verify, false)));
        let (found, all) = steps(range(100, 1_000), up_to(99));
        assert_eq!((found.rate, found.above), (None, Some((100, 100))));
        assert_eq!(all.len(), 4);
        let (found, _) = steps(range(7, 7), up_to(7));
        assert_eq!(found.rate, Some((7, Outcome::Met)));
    }

    #[test]
    fn what_was_not_shown_is_never_met() {
        // Steps are too short; the verification may be long enough.
        for (verified, expected) in [(Outcome::Met, Outcome::Met), (Outcome::NotShown, Outcome::NotShown)] {
            let (found, _) = steps(range(100, 100_000), |rate, purpose| match purpose {
                _ if rate > 5_000 => Outcome::NotMet,
                Purpose::Verify => verified,
                _ => Outcome::NotShown,
            });
            let (rate, outcome) = found.rate.unwrap();
            assert!((4_900..=5_000).contains(&rate));
            assert_eq!(outcome, expected);
        }
    }

    #[test]
    fn what_does_not_hold_up_for_longer_gives_way() {
        let (found, all) = steps(range(100, 100_000), |rate, purpose| {
            up_to(if purpose == Purpose::Verify { 4_000 } else { 5_000 })(rate, purpose)
        });
        let (rate, _) = found.rate.unwrap();
        assert!((3_500..=4_000).contains(&rate), "{rate}");
        let above = found.above.unwrap().0;
        assert!((4_001..=5_000).contains(&above), "{above}");
        assert!(all.len() < 40);
        // And if nothing holds up, there is an end.
        let (found, all) = steps(range(100, 100_000), |rate, purpose| match purpose {
            Purpose::Verify => Outcome::NotMet,
            purpose => up_to(5_000)(rate, purpose),
        });
        assert_eq!(found.rate, None);
        assert!(all.len() < 50);
    }

    #[test]
    fn noise_does_not_lead_it_astray() {
        // The 99th percentile of a server with an M/M/1 queue, as a step of `rate` for so many seconds would see it.
        const LIMIT: f64 = 10_000.0;
        const OBJECTIVE: f64 = 0.005;
        let expected = LIMIT - 100.0_f64.ln() / OBJECTIVE;
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let (found, _) = steps(range(100, 1_000_000), |rate, purpose| {
                let rate = rate as f64;
                if rate >= LIMIT {
                    return Outcome::NotMet;
                }
                let p99 = 100.0_f64.ln() / (LIMIT - rate);
                let spread = if purpose == Purpose::Verify { 0.05 } else { 0.1 };
                let noise = 1.0 + spread * (2.0 * random.fraction() - 1.0);
                // Once in a while the machine does something else.
                let hiccup = if random.permille(30) { 10.0 } else { 1.0 };
                if p99 * noise * hiccup < OBJECTIVE {
                    Outcome::Met
                } else {
                    Outcome::NotMet
                }
            });
            let (rate, _) = found.rate.unwrap();
            assert!(
                (rate as f64 / expected - 1.0).abs() < 0.05,
                "{rate} for {expected}, seed {seed}"
            );
        }
    }

    #[test]
    fn an_error_ends_it() {
        let result = search::<()>(range(1, 2), |_, _, _| anyhow::bail!("no route"));
        assert_eq!(result.unwrap_err().to_string(), "no route");
    }
}
