//! Rates per second: `9500`, `10k`, `1.2M`.

use std::ops::RangeInclusive;

use crate::number;

/// The units, powers of ten. A number alone is one, too, so that comes last.
const UNITS: [(&str, f64); 4] = [("k", 1e3), ("M", 1e6), ("G", 1e9), ("", 1.0)];

/// Parses a rate; `None` if the text is not one.
pub fn parse(text: &str) -> Option<f64> {
    number::with_unit(text, &UNITS)
}

/// Returns a parser of whole rates within `allowed`.
///
/// # Errors
///
/// The parser returns a sentence for text that is no rate, and for rates outside of `allowed`.
pub fn within(allowed: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        let (lowest, highest) = (*allowed.start(), *allowed.end());
        parse(text)
            .map(f64::round)
            .filter(|rate| (lowest as f64..=highest as f64).contains(rate))
            .map(|rate| rate as u64)
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a rate per second; write it like 9500, 10k or 1.2M, from {lowest} to {highest}"
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_with_a_unit() {
        let parse = within(1..=50_000_000);
        for (text, rate) in [
            ("1", 1),
            ("9500", 9_500),
            ("10k", 10_000),
            ("1.2M", 1_200_000),
            ("50M", 50_000_000),
        ] {
            assert_eq!(parse(text), Ok(rate), "{text}");
        }
        for text in ["", "0", "k", "-1", "1e3", "inf", "51M", "1G", "10ks", "0.4"] {
            assert!(parse(text).unwrap_err().contains("is not a rate per second"), "{text}");
        }
        assert_eq!(super::parse("2G"), Some(2e9));
    }
}
