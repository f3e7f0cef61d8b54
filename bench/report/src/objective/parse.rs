//! Objectives as people write them.

use std::fmt;
use std::str::FromStr;

use tidegate_args::{number, percent, rate};

use super::{Comparison, Distribution, Metric, Objective, Objectives};
use crate::{CONNECT, LATENCY};

/// The comparisons, longer ones before those that they begin with.
const COMPARISONS: [(&str, Comparison); 4] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Below),
    (">", Comparison::Above),
];

/// Units of time, in nanoseconds. `s` is the end of all others, so it comes last.
const TIME_UNITS: [(&str, f64); 5] = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];

/// Text that is no objective: a sentence that says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

impl FromStr for Objectives {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Objective {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let refused = |why: String| ParseError(format!("`{text}`: {why}"));
        let Some((metric, comparison, value)) = split(text) else {
            return Err(refused(
                "not a condition; write it like p99<1ms, connect.p99.9<=500us, errors<0.01% or rate>=10k".to_owned(),
            ));
        };
        let metric = parse_metric(metric).map_err(refused)?;
        let limit = match metric {
            Metric::Percentile(..) | Metric::Max(_) => parse_time(value),
            Metric::Errors => parse_share(value, comparison),
            Metric::Rate => parse_rate(value),
        };
        Ok(Self {
            metric,
            comparison,
            limit: limit.map_err(refused)?,
            text: text.to_owned(),
        })
    }
}

/// Splits at the comparison.
fn split(text: &str) -> Option<(&str, Comparison, &str)> {
    let at = text.find(['<', '>'])?;
    let (sign, comparison) = COMPARISONS.into_iter().find(|(sign, _)| text[at..].starts_with(sign))?;
    Some((text[..at].trim(), comparison, text[at + sign.len()..].trim()))
}

fn parse_metric(text: &str) -> Result<Metric, String> {
    match text {
        "errors" => return Ok(Metric::Errors),
        "rate" => return Ok(Metric::Rate),
        _ => {}
    }
    let of = |distribution| {
        let name = match distribution {
            Distribution::Latency => LATENCY,
            Distribution::Connect => CONNECT,
        };
        text.strip_prefix(name)?
            .strip_prefix('.')
            .map(|rest| (distribution, rest))
    };
    let (distribution, figure) = of(Distribution::Latency)
        .or_else(|| of(Distribution::Connect))
        .unwrap_or((Distribution::Latency, text));
    if figure == "max" {
        return Ok(Metric::Max(distribution));
    }
    let Some(percent) = figure.strip_prefix('p').and_then(number::parse) else {
        return Err(format!(
            "no figure has the name `{text}`; there are errors, rate, and of {LATENCY} and {CONNECT} percentiles like \
             {CONNECT}.p99.9, and max"
        ));
    };
    if percent <= 0.0 || percent >= 100.0 {
        return Err(format!(
            "{figure} is no percentile; they are above 0 and below 100, and max is the longest"
        ));
    }
    Ok(Metric::Percentile(distribution, percent / 100.0))
}

fn parse_time(text: &str) -> Result<f64, String> {
    number::with_unit(text, &TIME_UNITS)
        .ok_or_else(|| format!("`{text}` is not a time; write it like 250us, 1.5ms or 2s"))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    rate::parse(text).ok_or_else(|| format!("`{text}` is not a number per second; write it like 9500, 10k or 1.2M"))
}

fn parse_share(text: &str, comparison: Comparison) -> Result<f64, String> {
    let Some(share) = percent::parse(text).filter(|&share| share <= 1.0) else {
        return Err(format!(
            "`{text}` is not a share of all operations; write it like 0.001%, at most 100%"
        ));
    };
    if share == 0.0 && comparison != Comparison::Above {
        return Err(
            "no run can show that there is never an error; give the share that is allowed, such as errors<0.001%"
                .to_owned(),
        );
    }
    Ok(share)
}
