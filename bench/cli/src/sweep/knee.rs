//! The knee of a curve of latency: the rate from which it rises steeply.

/// The number of points that a curve with a knee has at least.
const MIN_POINTS: usize = 4;

/// The ratio of the last latency to the first below which a curve has no knee: it is flat.
const MIN_RISE: f64 = 2.0;

/// Returns the index of the knee of a curve of latency against rate, whose points come by rate: the one farthest below
/// the straight line between the first and the last, all in logarithms (Satopää et al., "Finding a Kneedle in a
/// Haystack", 2011). `None` if there are fewer than [`MIN_POINTS`], if the curve ends less than [`MIN_RISE`] times as
/// high as it begins, if the first point has no rate or latency, or if no point is below that line.
pub(super) fn knee(points: &[(f64, f64)]) -> Option<usize> {
    let (&(first, low), &(last, high)) = (points.first()?, points.last()?);
    let is_curve = points.len() >= MIN_POINTS && first > 0.0 && low > 0.0 && last > first && high >= low * MIN_RISE;
    if !is_curve {
        return None;
    }
    let part = |value: f64, from: f64, to: f64| (value / from).ln() / (to / from).ln();
    let below = |&(rate, latency): &(f64, f64)| part(rate, first, last) - part(latency.max(low * 1e-3), low, high);
    let (index, distance) = points
        .iter()
        .map(below)
        .enumerate()
        .max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    (distance > 0.0).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knee_of_a_queue_is_where_it_begins_to_fill() {
        // The 99th percentile of an M/M/1 queue with 100,000 a second.
        let points: Vec<(f64, f64)> = (0..20)
            .map(|index| 1_000.0 * 1.27_f64.powi(index))
            .map(|rate| (rate, if rate < 99_000.0 { 4.6e6 / (1e5 - rate) } else { 1e6 }))
            .collect();
        let rate = points[knee(&points).unwrap()].0;
        assert!((30_000.0..60_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_step_has_its_knee_before_it() {
        let points = [(1e3, 100.0), (2e3, 101.0), (4e3, 99.0), (8e3, 110.0), (16e3, 50_000.0)];
        assert_eq!(knee(&points), Some(3));
    }

    #[test]
    fn flat_short_and_strange_curves_have_none() {
        assert_eq!(knee(&[]), None);
        assert_eq!(knee(&[(1e3, 1.0), (2e3, 1.0), (4e3, 100.0)]), None);
        let flat: Vec<(f64, f64)> = (1..10).map(|rate| (f64::from(rate), 100.0 + f64::from(rate))).collect();
        assert_eq!(knee(&flat), None);
        // It rises at once and no more.
        assert_eq!(knee(&[(1e3, 1.0), (2e3, 90.0), (4e3, 95.0), (8e3, 100.0)]), None);
        assert_eq!(knee(&[(0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]), None);
    }
}
