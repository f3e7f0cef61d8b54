//! Numbers as results have them.

/// `number` with three decimals, for programs.
pub(crate) fn three_digits(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// A number of things per second as people write it: `4.21M`, `534k`, `12`.
pub(crate) fn short(number: f64) -> String {
    match number {
        number if number >= 999_500.0 => format!("{:.2}M", number / 1e6),
        number if number >= 999.5 => format!("{:.0}k", number / 1e3),
        number => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_three_decimals() {
        assert_eq!([0.987_65, 2.0, -0.000_4].map(three_digits), [0.988, 2.0, 0.0]);
    }

    #[test]
    fn numbers_are_written_short() {
        let written = [0.0, 999.0, 999.6, 100_000.0, 534_400.0, 999_600.0, 4_214_000.0].map(short);
        assert_eq!(written, ["0", "999", "1k", "100k", "534k", "1.00M", "4.21M"]);
    }
}
