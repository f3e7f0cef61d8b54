//! Numbers as people write them: `250`, `1.5`, with a unit behind.

/// Parses digits with a point among them at most. (`f64` also parses `inf`, `nan`, `1e9` and signs.)
pub fn parse(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_plain { text.parse().ok() } else { None }
}

/// Parses a number with the first of `units` that the text ends with, and returns it in the unit that has the factor 1.
/// A unit that is the end of others has to be behind them; spaces may be between the number and its unit.
///
/// ```
/// use tidegate_args::number::with_unit;
///
/// assert_eq!(with_unit("1.5 ms", &[("ms", 1e3), ("s", 1e6)]), Some(1_500.0));
/// assert_eq!(with_unit("1.5", &[("ms", 1e3), ("s", 1e6)]), None);
/// ```
pub fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    units
        .iter()
        .find_map(|&(suffix, unit)| Some(parse(text.strip_suffix(suffix)?.trim_end())? * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_with_a_point() {
        assert_eq!((parse("12"), parse("0.25")), (Some(12.0), Some(0.25)));
        for text in ["", ".", "-1", "+1", "1e3", "inf", "NaN", "1.2.3", " 1", "1_000"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
