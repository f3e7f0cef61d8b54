//! Shares and rates as people write them.

use std::num::NonZeroU64;

/// A probability, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Share(f64);

impl Share {
    /// Never.
    pub(super) const NONE: Self = Self(0.0);

    /// Whether it is zero: never.
    pub(super) fn is_zero(self) -> bool {
        self == Self::NONE
    }

    /// Whether it contains `fraction`, which is from 0 up to and without 1.
    pub(super) fn contains(self, fraction: f64) -> bool {
        fraction < self.0
    }
}

/// Parses a percentage: `0.5%`, `25%`. The sign is required, so that nobody takes 0.5 for a half.
///
/// # Errors
///
/// A sentence when the text is not a number from 0 to 100 with a percent sign.
pub(super) fn parse_share(text: &str) -> Result<Share, String> {
    text.strip_suffix('%')
        .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
        .and_then(|number| number.parse::<f64>().ok())
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| Share(percent / 100.0))
        .ok_or_else(|| format!("`{text}` is not a percentage from 0% to 100%; write it like 0.5%"))
}

/// Units of rates, in bits per second. `bit` is the end of all others, so it comes last.
const RATE_UNITS: [(&str, u64); 4] = [
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("bit", 1),
];

/// The highest rate in bits per second.
const HIGHEST_RATE: u64 = 100_000_000_000;

/// Parses a rate in bits per second: `100mbit`, `1gbit`. The units are powers of ten.
///
/// # Errors
///
/// A sentence when the text is not a whole number above zero with one of the units, or above 100gbit.
pub(super) fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    RATE_UNITS
        .iter()
        .find_map(|&(suffix, unit)| text.strip_suffix(suffix).map(|number| (number, unit)))
        .filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|(number, unit)| number.parse::<u64>().ok()?.checked_mul(unit))
        .filter(|&rate| rate <= HIGHEST_RATE)
        .and_then(NonZeroU64::new)
        .ok_or_else(|| format!("`{text}` is not a rate; write it like 500kbit, 100mbit or 1gbit, at most 100gbit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        for (text, share) in [("0%", 0.0), ("0.5%", 0.005), ("25%", 0.25), ("100%", 1.0)] {
            assert_eq!(parse_share(text), Ok(Share(share)), "{text}");
        }
        for text in ["", "%", "1", "0.5", "-1%", "101%", "1e1%", "NaN%", "inf%", "1 %", "."] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_contains_as_much_as_it_says() {
        let contained = |share: Share| (0..1000).filter(|&n| share.contains(f64::from(n) / 1000.0)).count();
        assert_eq!(contained(Share::NONE), 0);
        assert_eq!(contained(Share(0.25)), 250);
        assert_eq!(contained(Share(1.0)), 1000);
    }

    #[test]
    fn rates() {
        for (text, rate) in [
            ("64000bit", 64_000),
            ("500kbit", 500_000),
            ("100mbit", 100_000_000),
            ("1gbit", 1_000_000_000),
            ("100gbit", HIGHEST_RATE),
        ] {
            assert_eq!(parse_rate(text).map(NonZeroU64::get), Ok(rate), "{text}");
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
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }
}
