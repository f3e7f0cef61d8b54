//! The mean that a number of rare events stands for, with 95 % confidence.
//!
//! Events that are counted follow a Poisson distribution about their mean. Its bounds are quantiles of a chi-squared
//! distribution (Garwood, 1936), here by the approximation of Wilson and Hilferty (1931), which is right to 1 %.

/// The 95th percentile of the normal distribution.
const Z: f64 = 1.644_853_626_951_472_7;

/// Returns the mean that `count` events hardly exceed by chance, an upper bound with 95 % confidence. For none it is 3,
/// by the "rule of three".
pub(super) fn upper(count: u64) -> f64 {
    match count {
        0 => -(0.05_f64.ln()),
        count => half_chi_squared(2.0 * (count as f64 + 1.0), Z),
    }
}

/// Returns the mean that `count` events hardly fall below by chance, a lower bound with 95 % confidence.
pub(super) fn lower(count: u64) -> f64 {
    match count {
        0 => 0.0,
        // Here the approximation is worst.
        1 => -(0.95_f64.ln()),
        count => half_chi_squared(2.0 * count as f64, -Z),
    }
}

/// Returns the number of operations of which `count` events show that they are less than `part` of all.
pub(super) fn needed(count: u64, part: f64) -> u64 {
    // What is computed from decimal fractions is off by the last digit.
    (upper(count) / part * (1.0 - 1e-9)).floor() as u64 + 1
}

fn half_chi_squared(degrees: f64, z: f64) -> f64 {
    let spread = 2.0 / (9.0 * degrees);
    degrees * (1.0 - spread + z * spread.sqrt()).powi(3) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The probability of at most `count` events where there are `mean` on average.
    fn at_most(count: u64, mean: f64) -> f64 {
        let mut term = (-mean).exp();
        let mut sum = term;
        for index in 1..=count {
            term *= mean / index as f64;
            sum += term;
        }
        sum
    }

    #[test]
    fn the_bounds_have_the_confidence_they_say() {
        for count in [0, 1, 2, 3, 5, 10, 50, 200] {
            let chance = at_most(count, upper(count));
            assert!((0.047..0.053).contains(&chance), "{count} or fewer: {chance}");
        }
        for count in [1, 2, 3, 5, 10, 50, 200] {
            let chance = 1.0 - at_most(count - 1, lower(count));
            assert!((0.047..0.053).contains(&chance), "{count} or more: {chance}");
        }
        assert_eq!(lower(0), 0.0);
    }

    #[test]
    fn the_rule_of_three_says_how_many_are_needed() {
        assert_eq!(needed(0, 0.01), 300);
        assert_eq!(needed(0, 0.001), 2_996);
        assert_eq!(needed(0, 0.000_01), 299_574);
        // With as many, and not with one less, the bound is below.
        for count in [0, 1, 7] {
            let needed = needed(count, 0.001);
            assert!(upper(count) / (needed as f64) < 0.001);
            assert!(upper(count) / (needed as f64 - 1.0) >= 0.001);
        }
    }
}
