//! The statistics of a comparison: the change of a figure, how sure it is, and what chance alone would do.
//!
//! Nothing is assumed of how the runs of a figure are distributed, because they have outliers: the change is one of
//! medians, its interval comes from resampling the runs (bootstrap), and the probability that chance alone makes such a
//! change from permuting them. Both draw from a fixed seed, so the same runs have the same verdict everywhere.

use tidegate_random::Random;

/// The chance that a comparison calls a figure better or worse that is neither, at most: one in a hundred comparisons,
/// however many figures they have.
pub(super) const ALPHA: f64 = 0.01;

/// The chance that an interval misses the change.
const MISS: f64 = 0.05;

/// Samples that are drawn for an interval.
const RESAMPLES: usize = 3_999;

/// Pairs of which all choices of signs are counted, at most: two halves with 2^16 sums each.
const MAX_COUNTED_PAIRS: usize = 32;

/// Additions to count the ways to deal ranks out to two sets, at most: some 40 and 40 runs.
const MAX_ADDITIONS: usize = 1 << 25;

/// Permutations that are tried for a probability where there are too many to count them, at least. It cannot become
/// smaller than their inverse.
const MIN_PERMUTATIONS: u32 = 19_999;

/// The same, at most, so that a figure takes a bounded time: some 0.1 s for 40 runs. With more than 10,000 figures, and
/// so many runs that they are not counted, even the smallest probability is too large for [`ALPHA`].
const MAX_PERMUTATIONS: u32 = 999_999;

/// Permutations with a greater difference that are enough to know that chance makes it.
const ENOUGH: u32 = 200;

/// The size of a difference that does not count any more, in median sizes.
const OUTLIER: f64 = 3.5;

/// The seed of both.
const SEED: u64 = 0x7469_6465_6761_7465;

/// The value that stands for several runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Centre {
    /// Half of the runs are below: what most figures need, as runs have outliers.
    Median,
    /// The mean, for counts that are mostly zero.
    Mean,
}

/// The runs of one figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Samples {
    /// Of each pair, the old and the new run were made one after the other.
    Pairs(Vec<(f64, f64)>),
    /// The runs have nothing to do with each other.
    Sets(Vec<f64>, Vec<f64>),
}

/// The result of comparing one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    /// The centre of the old runs.
    pub(super) old: f64,
    /// The centre of the new runs.
    pub(super) new: f64,
    /// The change and the ends of its interval.
    pub(super) change: Amount,
    /// The lower end.
    pub(super) low: Amount,
    /// The upper end.
    pub(super) high: Amount,
    /// The probability that chance alone makes such a difference.
    pub(super) p: f64,
}

/// A change: in parts of the old value, or in the figure's own unit where the old value is zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Amount {
    /// Parts of the old value: 0.1 for a tenth more.
    Part(f64),
    /// The figure's own unit.
    Absolute(f64),
}

impl Amount {
    /// Returns the number, whose sign is that of the change.
    pub(super) fn number(self) -> f64 {
        match self {
            Self::Part(number) | Self::Absolute(number) => number,
        }
    }

    /// Returns the part of the old value; `None` where that is zero.
    pub(super) fn part(self) -> Option<f64> {
        match self {
            Self::Part(part) => Some(part),
            Self::Absolute(_) => None,
        }
    }

    /// Returns whether the change is at least `threshold`, a part of the old value. From zero, every change is.
    pub(super) fn reaches(self, threshold: f64) -> bool {
        match self {
            Self::Part(part) => part.abs() >= threshold,
            Self::Absolute(number) => number != 0.0,
        }
    }
}

impl Samples {
    /// Returns the numbers of old and of new runs.
    pub(super) fn counts(&self) -> (usize, usize) {
        match self {
            Self::Pairs(pairs) => (pairs.len(), pairs.len()),
            Self::Sets(old, new) => (old.len(), new.len()),
        }
    }

    /// Returns whether there is something to compare.
    pub(super) fn are_on_both_sides(&self) -> bool {
        let (old, new) = self.counts();
        old > 0 && new > 0
    }

    /// Returns the smallest probability that so many runs can have for one of `count` figures. One that is not small
    /// enough says that there are too few, whatever they found.
    pub(super) fn least_p(&self, count: usize) -> f64 {
        match self {
            Self::Pairs(pairs) => least_of_signs(pairs.len(), count),
            // All of one set below all of the other.
            Self::Sets(old, new) => {
                let (all, fewer) = (old.len() + new.len(), old.len().min(new.len()));
                let least = 2.0 / choices(all, fewer);
                least_found(least, are_ranks_counted(all, fewer), count)
            }
        }
    }

    /// The same of the pairs that have a difference, as the others say nothing against chance.
    pub(super) fn least_p_of_differences(&self, count: usize) -> f64 {
        match self {
            Self::Pairs(pairs) => least_of_signs(pairs.iter().filter(|(old, new)| old != new).count(), count),
            Self::Sets(..) => self.least_p(count),
        }
    }

    /// Returns the change, one of `count` figures; `None` without runs on both sides.
    pub(super) fn compare(&self, centre: Centre, count: usize) -> Option<Change> {
        let (old_runs, new_runs) = match self {
            Self::Pairs(pairs) => pairs.iter().copied().unzip(),
            Self::Sets(old, new) => (old.clone(), new.clone()),
        };
        let mut workspace = Vec::new();
        let old = center(centre, old_runs.iter().copied(), &mut workspace)?;
        let new = center(centre, new_runs.iter().copied(), &mut workspace)?;
        // Ratios need values above zero; a mean is one of differences.
        let by_ratio = centre == Centre::Median && old_runs.iter().chain(&new_runs).all(|&value| value > 0.0);
        let amount = |change: f64| match (by_ratio, old > 0.0) {
            (true, _) => Amount::Part(change),
            (false, true) => Amount::Part(change / old),
            (false, false) => Amount::Absolute(change),
        };
        let differ = |old: f64, new: f64| if by_ratio { new / old - 1.0 } else { new - old };
        let (change, resampled) = match self {
            Self::Pairs(pairs) => {
                let changes: Vec<f64> = pairs.iter().map(|&(old, new)| differ(old, new)).collect();
                let change = center(centre, changes.iter().copied(), &mut workspace)?;
                (change, resample_pairs(centre, &changes))
            }
            Self::Sets(old_runs, new_runs) => (differ(old, new), resample_sets(centre, old_runs, new_runs, differ)),
        };
        let (low, high) = interval(resampled);
        let p = match self {
            Self::Pairs(pairs) => {
                let logarithm = |&(old, new): &(f64, f64)| if by_ratio { (new / old).ln() } else { new - old };
                signs(&pairs.iter().map(logarithm).collect::<Vec<_>>(), permutations(count))
            }
            Self::Sets(old_runs, new_runs) => rank_sum(old_runs, new_runs, permutations(count)),
        };
        Some(Change {
            old,
            new,
            change: amount(change),
            low: amount(low),
            high: amount(high),
            p,
        })
    }
}

/// Corrects probabilities for their number (Holm, 1979): each is what it would take to call all of its size and smaller
/// no chance. It holds however the figures depend on each other, as those of one run do.
pub(super) fn holm(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&one, &other| probabilities[one].total_cmp(&probabilities[other]));
    let mut corrected = vec![1.0; probabilities.len()];
    let mut highest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        let left = (probabilities.len() - rank) as f64;
        highest = highest.max(probabilities[index] * left).min(1.0);
        corrected[index] = highest;
    }
    corrected
}

/// The permutations for each of `count` figures. All of them can be shown to differ, as the smallest probability is a
/// quarter of what the correction leaves of [`ALPHA`].
fn permutations(count: usize) -> u32 {
    let wanted = (4.0 * count as f64 / ALPHA) as u32;
    wanted.clamp(MIN_PERMUTATIONS, MAX_PERMUTATIONS)
}

/// The probability that all of `pairs` differences have the same sign, as it is found for one of `count` figures.
fn least_of_signs(pairs: usize, count: usize) -> f64 {
    let least = 2.0 * 0.5_f64.powf(pairs as f64);
    least_found(least, pairs <= MAX_COUNTED_PAIRS, count)
}

/// The smallest probability that is found for one of `count` figures, where the smallest there is is `least`.
fn least_found(least: f64, is_counted: bool, count: usize) -> f64 {
    let least = if is_counted {
        least
    } else {
        least.max(1.0 / f64::from(permutations(count) + 1))
    };
    least.min(1.0)
}

/// Whether all ways to choose the ranks of `fewer` of `all` runs are counted.
fn are_ranks_counted(all: usize, fewer: usize) -> bool {
    [all, fewer, highest_sum(all, fewer)]
        .into_iter()
        .try_fold(1, usize::checked_mul)
        .is_some_and(|additions| additions <= MAX_ADDITIONS)
}

/// A bound of the sum of `fewer` ranks of `all`, in halves.
fn highest_sum(all: usize, fewer: usize) -> usize {
    2 * all * fewer
}

/// The number of ways to choose `part` of `all`.
fn choices(all: usize, part: usize) -> f64 {
    (0..part)
        .map(|taken| (all - taken) as f64 / (taken + 1) as f64)
        .product()
}

/// Returns the centre of `values`; `None` if there are none. `workspace` saves an allocation.
fn center(centre: Centre, values: impl IntoIterator<Item = f64>, workspace: &mut Vec<f64>) -> Option<f64> {
    workspace.clear();
    workspace.extend(values);
    let count = workspace.len();
    if count == 0 {
        return None;
    }
    if centre == Centre::Mean {
        return Some(workspace.iter().sum::<f64>() / count as f64);
    }
    let (below, &mut upper, _) = workspace.select_nth_unstable_by(count / 2, f64::total_cmp);
    if count % 2 == 1 {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(f64::midpoint(lower, upper))
}

/// Returns the centres of samples of `changes`, drawn with replacement.
fn resample_pairs(centre: Centre, changes: &[f64]) -> Vec<f64> {
    let mut random = Random::new(SEED);
    let mut workspace = Vec::with_capacity(changes.len());
    let mut one = || center(centre, draw(&mut random, changes), &mut workspace);
    (0..RESAMPLES).filter_map(|_| one()).collect()
}

/// Returns what the centres of samples of both sets differ by, drawn with replacement.
fn resample_sets(centre: Centre, old: &[f64], new: &[f64], differ: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let mut random = Random::new(SEED);
    let mut workspace = Vec::with_capacity(old.len().max(new.len()));
    let mut one = || {
        let old = center(centre, draw(&mut random, old), &mut workspace)?;
        let new = center(centre, draw(&mut random, new), &mut workspace)?;
        Some(differ(old, new))
    };
    (0..RESAMPLES).filter_map(|_| one()).collect()
}

/// Draws as many of `values` as there are, with replacement.
fn draw<'a>(random: &'a mut Random, values: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    let count = values.len() as u64;
    (0..count).map(move |_| values[random.below(count) as usize])
}

/// Returns the ends between which all but [`MISS`] of `values` lie.
fn interval(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let index = ((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1));
        values.get(index).copied().unwrap_or(f64::NAN)
    };
    (at(MISS / 2.0), at(1.0 - MISS / 2.0))
}

/// Returns the rank of each of `values` among them; equal ones share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&one, &other| values[one].total_cmp(&values[other]));
    let mut ranks = vec![0.0; values.len()];
    for equal in order.chunk_by(|&one, &other| values[one] == values[other]) {
        // The places before them are known by how many have a rank; each run of equal values takes the next ones.
        let first = order.partition_point(|&index| values[index].total_cmp(&values[equal[0]]).is_lt());
        let mean = first as f64 + (equal.len() + 1) as f64 / 2.0;
        for &index in equal {
            ranks[index] = mean;
        }
    }
    ranks
}

/// The probability of differences as one-sided as these, whichever side, if the sign of each were chance. Outliers are
/// not to outweigh the others, so a difference counts for less the larger it is (Tukey's biweight); the limit follows
/// from the sizes, which do not depend on the signs. Differences of zero say nothing.
fn signs(differences: &[f64], permutations: u32) -> f64 {
    let differences = || differences.iter().copied().filter(|&difference| difference != 0.0);
    let sizes = differences().map(f64::abs);
    let limit = OUTLIER * center(Centre::Median, sizes.clone(), &mut Vec::new()).unwrap_or_default();
    let sizes: Vec<f64> = sizes
        .map(|size| size * (1.0 - (size / limit).powi(2)).max(0.0).powi(2))
        .collect();
    let found: f64 = sizes
        .iter()
        .zip(differences())
        .map(|(size, difference)| size.copysign(difference))
        .sum();
    if sizes.len() <= MAX_COUNTED_PAIRS {
        return count_signs(&sizes, found.abs());
    }
    by_chance(found.abs(), permutations, |random| {
        let mut word = 0;
        let signed = sizes.iter().enumerate().map(|(index, &size)| {
            if index % 64 == 0 {
                word = random.word();
            }
            let sign = (word >> (index % 64)) & 1;
            if sign == 0 { size } else { -size }
        });
        signed.sum::<f64>().abs()
    })
}

/// The probability that two sets are as far apart as these, whichever is above, if it were chance which set a value is
/// in (Wilcoxon's rank sum, Mann and Whitney).
fn rank_sum(old: &[f64], new: &[f64], permutations: u32) -> f64 {
    let all: Vec<f64> = old.iter().chain(new).copied().collect();
    let mut ranks = ranks(&all);
    let expected = old.len() as f64 * (all.len() + 1) as f64 / 2.0;
    let distance = |ranks: &[f64]| (ranks[..old.len()].iter().sum::<f64>() - expected).abs();
    let found = distance(&ranks);
    let fewer = old.len().min(new.len());
    if are_ranks_counted(all.len(), fewer) {
        return count_ranks(&ranks, fewer, found);
    }
    by_chance(found, permutations, |random| {
        // The first places of a shuffle (Fisher and Yates) are enough.
        for index in 0..old.len() {
            let other = index + random.below((ranks.len() - index) as u64) as usize;
            ranks.swap(index, other);
        }
        distance(&ranks)
    })
}

/// The part of all choices of signs for `sizes` whose sum is at least `found` from zero: each sum of one half of them
/// meets those of the other half that are enough with it (Horowitz and Sahni, 1974).
fn count_signs(sizes: &[f64], found: f64) -> f64 {
    let least = as_much_as(found);
    if least <= 0.0 {
        return 1.0;
    }
    let sums = |sizes: &[f64]| {
        let mut sums = vec![0.0];
        for size in sizes {
            sums = sums.iter().flat_map(|sum| [sum - size, sum + size]).collect();
        }
        sums.sort_by(f64::total_cmp);
        sums
    };
    let (one, other) = sizes.split_at(sizes.len() / 2);
    let (one, other) = (sums(one), sums(other));
    let (mut reached, mut first) = (0.0, other.len());
    for sum in &one {
        while first > 0 && sum + other[first - 1] >= least {
            first -= 1;
        }
        reached += (other.len() - first) as f64;
    }
    // As many are as far below zero.
    2.0 * reached / (one.len() as f64 * other.len() as f64)
}

/// The part of all choices of `fewer` of `ranks` whose sum is at least `found` from what is expected.
///
/// As far as one set is from that on one side is the other one on the other, so it is enough to look at the smaller
/// one.
fn count_ranks(ranks: &[f64], fewer: usize, found: f64) -> f64 {
    // Where equal values share their ranks, there are halves.
    let halves = |rank: f64| (2.0 * rank) as usize;
    let width = highest_sum(ranks.len(), fewer) + 1;
    // The ways to have so many ranks of those so far with this sum.
    let mut ways = vec![0.0; (fewer + 1) * width];
    ways[0] = 1.0;
    for &rank in ranks {
        let rank = halves(rank);
        for part in (0..fewer).rev() {
            let (less, more) = ways.split_at_mut((part + 1) * width);
            let less = &less[part * width..];
            for (more, less) in more[rank..width].iter_mut().zip(less) {
                *more += less;
            }
        }
    }
    let ways = &ways[fewer * width..];
    let expected = fewer as f64 * (ranks.len() + 1) as f64 / 2.0;
    let least = as_much_as(found);
    let is_as_far = |&(sum, _): &(usize, &f64)| (sum as f64 / 2.0 - expected).abs() >= least;
    let reached: f64 = ways.iter().enumerate().filter(is_as_far).map(|(_, ways)| ways).sum();
    reached / ways.iter().sum::<f64>()
}

/// The least statistic that counts for as much as `found`: sums of the same numbers in another order may differ in the
/// last digit.
fn as_much_as(found: f64) -> f64 {
    found * (1.0 - 1e-9)
}

/// The part of so many `permutations`, the found one among them, whose statistic is at least `found`. It is enough to
/// know a large part roughly, so the search ends with the [`ENOUGH`]th (Besag and Clifford, 1991).
fn by_chance(found: f64, permutations: u32, mut permuted: impl FnMut(&mut Random) -> f64) -> f64 {
    let mut random = Random::new(SEED);
    let least = as_much_as(found);
    let mut reached = 0;
    for tried in 1..=permutations {
        reached += u32::from(permuted(&mut random) >= least);
        if reached == ENOUGH {
            return f64::from(reached) / f64::from(tried);
        }
    }
    f64::from(reached + 1) / f64::from(permutations + 1)
}

#[cfg(test)]
#[path = "statistics_tests.rs"]
mod tests;
