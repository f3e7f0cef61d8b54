//! Probabilities without floating point, so that a seed means the same on every machine.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use tidegate_random::Random;

/// The denominator of percentages that are parsed.
const BILLION: u64 = 1_000_000_000;

/// A probability, from 0 to 1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Chance {
    parts: u64,
    of: u64,
}

impl Chance {
    /// Never.
    pub const NEVER: Self = Self { parts: 0, of: 1 };

    /// Returns `parts` in a thousand.
    pub const fn permille(parts: u32) -> Self {
        Self {
            parts: parts as u64,
            of: 1000,
        }
    }

    /// Returns whether it is zero.
    pub fn is_never(self) -> bool {
        self.parts == 0
    }

    /// Draws whether it happens. Nothing is drawn for what never happens.
    pub fn happens(self, random: &mut Random) -> bool {
        self.parts > 0 && random.below(self.of) < self.parts
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::NEVER
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", 100.0 * self.parts as f64 / self.of as f64)
    }
}

impl FromStr for Chance {
    type Err = String;

    /// Parses a percentage: `0.5%`, `25%`. The sign is required, so that nobody takes 0.5 for a half.
    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_suffix('%')
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
            .and_then(|number| number.parse::<f64>().ok())
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(|percent| Self {
                parts: (percent / 100.0 * BILLION as f64 + 0.5) as u64,
                of: BILLION,
            })
            .ok_or_else(|| format!("`{text}` is not a percentage from 0% to 100%; write it like 0.5%"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        for (text, parts) in [("0%", 0), ("0.5%", 5_000_000), ("25%", 250_000_000), ("100%", BILLION)] {
            assert_eq!(text.parse(), Ok(Chance { parts, of: BILLION }), "{text}");
        }
        for text in ["", "%", "1", "0.5", "-1%", "101%", "1e1%", "NaN%", "inf%", "1 %", "."] {
            assert!(text.parse::<Chance>().is_err(), "{text}");
        }
        assert_eq!(format!("{:?}", Chance::permille(5)), "0.5%");
    }

    #[test]
    fn a_chance_is_taken_as_often_as_it_says() {
        let taken = |chance: Chance| {
            let mut random = Random::new(1);
            (0..10_000).filter(|_| chance.happens(&mut random)).count()
        };
        assert_eq!(taken(Chance::NEVER), 0);
        assert_eq!(taken(Chance::permille(1000)), 10_000);
        assert_eq!(taken("100%".parse().unwrap()), 10_000);
        for chance in [Chance::permille(250), "25%".parse().unwrap()] {
            assert!((2400..2600).contains(&taken(chance)), "{chance:?}");
        }
    }
}
