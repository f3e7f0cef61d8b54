//! Parts of a whole in percent: `5%`, `0.001%`.

use std::ops::RangeInclusive;

use crate::number;

/// Parses a number of percent as a part of one; `None` if the text is not one. The sign is required, so that nobody
/// takes 0.5 for a half.
pub fn parse(text: &str) -> Option<f64> {
    number::with_unit(text, &[("%", 1.0)]).map(|percent| percent / 100.0)
}

/// Returns a parser of percentages within `allowed`, which are numbers of percent. It returns parts of one.
///
/// # Errors
///
/// The parser returns a sentence for text that is no percentage, and for those outside of `allowed`.
pub fn within(allowed: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        let (lowest, highest) = (allowed.start() / 100.0, allowed.end() / 100.0);
        parse(text)
            .filter(|part| (lowest..=highest).contains(part))
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a percentage from {}% to {}%; write it like 5%",
                    allowed.start(),
                    allowed.end()
                )
            })
    }
}

/// Returns a part of one as a number of percent without its sign: at most six decimals, as many as it has.
///
/// ```
/// // As f64, 0.07 * 100.0 is 7.000000000000001.
/// assert_eq!(tidegate_args::percent::number(0.07), "7");
/// assert_eq!(tidegate_args::percent::number(0.000_01), "0.001");
/// ```
pub fn number(part: f64) -> String {
    ((part * 1e8).round() / 1e6).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_their_sign_and_their_limits() {
        let parse = within(0.1..=50.0);
        for (text, part) in [("2%", 0.02), ("0.1%", 0.001), ("50%", 0.5), ("7 %", 0.07)] {
            assert_eq!(parse(text), Ok(part), "{text}");
        }
        assert_eq!(
            parse("51%").unwrap_err(),
            "`51%` is not a percentage from 0.1% to 50%; write it like 5%"
        );
        for text in ["2", "0%", "nan%", "%", "-1%", "", "1e1%", "+2%"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_read_is_written_again() {
        for tenths in 0..=1_000 {
            let percent = (f64::from(tenths) / 10.0).to_string();
            let part = parse(&format!("{percent}%")).unwrap();
            assert_eq!(number(part), percent);
        }
    }
}
