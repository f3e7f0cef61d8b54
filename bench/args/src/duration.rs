//! Durations within limits: `5s`, `1500ms`.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The shortest duration, for a lower limit that excludes only zero.
pub const ABOVE_ZERO: Duration = Duration::from_nanos(1);

/// Returns a parser of durations like `5s` or `1500ms`.
///
/// # Errors
///
/// The parser returns a sentence for text that is no duration, and for durations outside of `allowed`.
pub fn within(
    allowed: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        if !allowed.contains(&duration) {
            let lowest = match *allowed.start() {
                ABOVE_ZERO => "above zero".to_owned(),
                lowest => format!("at least {}", text_of(lowest)),
            };
            return Err(format!("it must be {lowest} and at most {}", text_of(*allowed.end())));
        }
        Ok(duration)
    }
}

/// Whole seconds as such, without minutes or hours.
fn text_of(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        return format!("{} s", duration.as_secs());
    }
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(1);
    const MAX: Duration = Duration::from_secs(60);

    #[test]
    fn durations_have_limits() {
        let parse = within(MIN..=MAX);
        for (text, duration) in [("1ms", MIN), ("60s", MAX), ("1m", MAX)] {
            assert_eq!(parse(text), Ok(duration), "{text}");
        }
        let error = parse("61s").unwrap_err();
        assert_eq!(error, "it must be at least 1ms and at most 60 s");
        for text in ["0s", "61s", "x", "", "5", "-1s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn zero_is_allowed_only_where_the_limit_is_zero() {
        assert_eq!(within(Duration::ZERO..=MAX)("0s"), Ok(Duration::ZERO));
        let parse = within(ABOVE_ZERO..=MAX);
        assert_eq!(parse("1ns"), Ok(ABOVE_ZERO));
        let error = parse("0s").unwrap_err();
        assert_eq!(error, "it must be above zero and at most 60 s");
    }
}
