//! Rates of links as people write them: `500kbit`, `100mbit`, `1gbit`.

use std::num::NonZeroU64;

/// Units of rates, in bits per second. `bit` is the end of all others, so it comes last.
const RATE_UNITS: [(&str, u64); 4] = [
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("bit", 1),
];

/// The highest rate in bits per second.
const MAX_RATE: u64 = 100_000_000_000;

/// Parses a rate in bits per second: `100mbit`, `1gbit`. The units are powers of ten.
///
/// # Errors
///
/// A sentence, if the text is not a whole number above zero with one of the units, or above 100gbit.
pub fn parse(text: &str) -> Result<NonZeroU64, String> {
    RATE_UNITS
        .iter()
        .find_map(|&(suffix, unit)| text.strip_suffix(suffix).map(|number| (number, unit)))
        .filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|(number, unit)| number.parse::<u64>().ok()?.checked_mul(unit))
        .filter(|&rate| rate <= MAX_RATE)
        .and_then(NonZeroU64::new)
        .ok_or_else(|| format!("`{text}` is not a rate; write it like 500kbit, 100mbit or 1gbit, at most 100gbit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, rate) in [
            ("64000bit", 64_000),
            ("500kbit", 500_000),
            ("100mbit", 100_000_000),
            ("1gbit", 1_000_000_000),
            ("100gbit", MAX_RATE),
        ] {
            assert_eq!(parse(text).map(NonZeroU64::get), Ok(rate), "{text}");
        }
        for text in [
            "",
            "mbit",
            "0mbit",
            "100",
            "100Mbit",
            "1.5gbit",
            "-1bit",
            "101gbit",
            "99999999999gbit",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
