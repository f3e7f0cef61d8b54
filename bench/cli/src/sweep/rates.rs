//! The rates of a sweep: a range or a list.

use crate::steps::parse_rate;

/// Most rates of a list.
const MAX_RATES: usize = 1_000;

/// The rates that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rates {
    /// From one to another, with equal ratios.
    Range(u64, u64),
    /// Each.
    List(Vec<u64>),
}

/// Parses `1k..100k` or `1000,2k,5k`.
///
/// # Errors
///
/// A sentence.
pub(super) fn parse(text: &str) -> Result<Rates, String> {
    if let Some((first, last)) = text.split_once("..") {
        let (first, last) = (parse_rate(first)?, parse_rate(last)?);
        if first >= last {
            return Err(format!("`{text}` is not a range; the first rate is the lower one"));
        }
        return Ok(Rates::Range(first, last));
    }
    let rates = text.split(',').map(parse_rate).collect::<Result<Vec<u64>, String>>()?;
    if rates.len() > MAX_RATES {
        return Err(format!("{} rates; give at most {MAX_RATES}", rates.len()));
    }
    Ok(Rates::List(rates))
}

impl Rates {
    /// Returns the rates in ascending order, each once; `points` of a range.
    pub(super) fn points(&self, points: u32) -> Vec<u64> {
        let mut rates = match self {
            Self::List(rates) => rates.clone(),
            &Self::Range(first, last) => {
                let ratio = last as f64 / first as f64;
                (0..points)
                    .map(|index| {
                        let part = f64::from(index) / f64::from(points.saturating_sub(1).max(1));
                        (first as f64 * ratio.powf(part)).round() as u64
                    })
                    .collect()
            }
        };
        rates.sort_unstable();
        rates.dedup();
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_equal_ratios_and_both_ends() {
        let rates = parse("1k..100k").unwrap();
        assert_eq!(rates.points(3), [1_000, 10_000, 100_000]);
        assert_eq!(rates.points(2), [1_000, 100_000]);
        assert_eq!(parse("1..3").unwrap().points(50), [1, 2, 3]);
    }

    #[test]
    fn a_list_is_sorted() {
        assert_eq!(parse("5k,1000,5000").unwrap().points(8), [1_000, 5_000]);
    }

    #[test]
    fn what_is_neither_is_refused() {
        for (text, phrase) in [
            ("", "is not a rate"),
            ("2k..1k", "is not a range"),
            ("1k..1k", "is not a range"),
            ("1k..", "is not a rate"),
            ("1k,,2k", "is not a rate"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }
}
