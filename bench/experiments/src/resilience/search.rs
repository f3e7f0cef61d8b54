//! The search for the highest rate of an attack that a server stands.

use super::plan::Offered;

/// The times that a rate is tried at the end, each with another seed. A server stands it if it does most of them.
const SEEDS: u64 = 3;

/// The number of lower rates that are tried when one is not stood at the end.
const RETREATS: u32 = 2;

/// The next lower rate, in the one before.
const RETREAT: f64 = 0.8;

/// The result of one try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Probe {
    /// The rate that was really offered, per second.
    pub(super) per_s: f64,
    /// Whether the server stood it.
    pub(super) is_stood: bool,
}

/// The number of tries of a search with `steps` steps, at most.
pub(super) const fn max_probes(steps: u32) -> u32 {
    1 + steps + SEEDS as u32 * (1 + RETREATS)
}

/// Searches for the highest rate at which `probe`, given a rate and a number for the seed, is stood: the highest of all
/// first, then `steps` times the geometric middle of what is left above `lowest`. What is found is tried with three
/// seeds, and gives way to lower rates until two of them are stood. Returns the median of the rates offered there;
/// `None` if `lowest` is not stood either, or not even something near what was found.
///
/// # Errors
///
/// Those of `probe`.
pub(super) fn highest(
    steps: u32,
    lowest: u64,
    mut probe: impl FnMut(Offered, u64) -> anyhow::Result<Probe>,
) -> anyhow::Result<Option<f64>> {
    let lowest = lowest as f64;
    let top = probe(Offered::Max, 0)?;
    let mut candidate = if top.is_stood {
        Offered::Max
    } else {
        let (mut low, mut high) = (lowest, top.per_s.max(lowest));
        for _ in 0..steps {
            let middle = (low * high).sqrt();
            if probe(rate(middle), 0)?.is_stood {
                low = middle;
            } else {
                high = middle;
            }
        }
        rate(low)
    };
    for _ in 0..=RETREATS {
        if let Some(per_s) = confirm(candidate, &mut probe)? {
            return Ok(Some(per_s));
        }
        let tried = match candidate {
            Offered::Pps(rate) => rate as f64,
            Offered::Max | Offered::Nothing => top.per_s,
        };
        if tried <= lowest {
            break;
        }
        candidate = rate((tried * RETREAT).max(lowest));
    }
    Ok(None)
}

/// Tries `candidate` with each seed, until it is known whether most are stood.
fn confirm(
    candidate: Offered,
    probe: &mut impl FnMut(Offered, u64) -> anyhow::Result<Probe>,
) -> anyhow::Result<Option<f64>> {
    let mut stood = Vec::new();
    for seed in 0..SEEDS {
        let found = probe(candidate, seed)?;
        if found.is_stood {
            stood.push(found.per_s);
        }
        if (seed + 1 - stood.len() as u64) * 2 > SEEDS {
            return Ok(None);
        }
    }
    stood.sort_by(f64::total_cmp);
    Ok(stood.get(stood.len() / 2).copied())
}

/// A rate per second, which is above zero.
fn rate(per_s: f64) -> Offered {
    Offered::Pps((per_s as u64).max(1))
}

#[cfg(test)]
mod tests {
    use tidegate_random::Random;

    use super::*;

    const LOWEST: u64 = 10_000;
    const TOP: f64 = 5_000_000.0;
    const STEPS: u32 = 6;

    /// Searches with a server that stands a rate if `stands` says so, and a generator that makes [`TOP`] at most.
    /// Returns what was found, and the number of tries.
    fn search(mut stands: impl FnMut(f64) -> bool) -> (Option<f64>, u32) {
        let mut probes = 0;
        let found = highest(STEPS, LOWEST, |offered, _| {
            probes += 1;
            let per_s = match offered {
                Offered::Pps(rate) => (rate as f64).min(TOP),
                Offered::Max | Offered::Nothing => TOP,
            };
            Ok(Probe {
                per_s,
                is_stood: stands(per_s),
            })
        });
        (found.unwrap(), probes)
    }

    #[test]
    fn every_knee_is_found_to_within_a_step_and_never_above() {
        // The factor between the ends, halved as often as there are steps.
        let precision = (TOP / LOWEST as f64).powf(1.0 / f64::from(1 << STEPS));
        for knee in (1..100).map(|percent| LOWEST as f64 * (TOP / LOWEST as f64).powf(f64::from(percent) / 100.0)) {
            let (found, probes) = search(|rate| rate <= knee);
            let found = found.unwrap_or_else(|| panic!("{knee}"));
            // Rates are whole numbers.
            assert!(
                found <= knee && found * precision >= knee - precision,
                "{found} for {knee}"
            );
            assert_eq!(probes, 1 + STEPS + 3);
        }
    }

    #[test]
    fn what_stands_everything_has_the_highest_rate_and_what_stands_nothing_none() {
        assert_eq!(search(|_| true), (Some(TOP), 4));
        let (found, probes) = search(|_| false);
        // The lowest is tried twice, since two of three decide.
        assert_eq!((found, probes), (None, 1 + STEPS + 2));
    }

    #[test]
    fn luck_does_not_last_three_seeds() {
        // Everything below 100,000 is stood; above, the first try of each rate is by luck.
        let mut seen = Vec::new();
        let (found, probes) = search(|rate| {
            let is_new = !seen.contains(&(rate as u64));
            seen.push(rate as u64);
            rate <= 100_000.0 || (is_new && rate < 115_000.0)
        });
        let found = found.unwrap();
        assert!((75_000.0..=100_000.0).contains(&found), "{found}");
        assert!(probes <= max_probes(STEPS), "{probes}");
    }

    #[test]
    fn no_noise_takes_it_beyond_its_tries() {
        let mut random = Random::new(1);
        for round in 0..500 {
            let knee = 1_000_000.0;
            let (found, probes) = search(|rate| {
                // The nearer to the knee, the more it is by chance.
                let noise = f64::from(random.word() as u32 % 1_000) / 1_000.0 - 0.5;
                rate * (1.0 + noise) <= knee
            });
            assert!(probes <= max_probes(STEPS), "{probes}");
            if let Some(found) = found {
                assert!(found <= 2.0 * knee && found >= knee / 4.0, "{found} in round {round}");
            }
        }
    }

    #[test]
    fn an_error_ends_it() {
        let result = highest(STEPS, LOWEST, |_, _| anyhow::bail!("the server has ended"));
        assert!(result.unwrap_err().to_string().contains("ended"));
    }
}
