//! Numbers and templates as text. The script of the page (`page.html`) has the same rules for its tables.
//!
//! A template is text with fields of a row in braces: `{legit_ok}/{legit_tried}`. A colon and a format may follow the
//! name of a field; dots lead into objects: `{latency_us.p50:1}`.
//!
//! | format | a number becomes | for instance |
//! |---|---|---|
//! | none | all its digits | `1012` |
//! | `0`, `1`, `2` | that many decimals | `2.00` |
//! | `short` | thousands or millions | `4.21M`, `534k`, `12` |
//! | `us` | microseconds, milliseconds or seconds, from microseconds | `87.2us`, `4.2ms`, `1.03s` |
//! | `M` | millions, with one decimal | `25.0` |
//! | `%` | percent, from a part of one | `99%` |
//! | `k` | units of 1,024 with their sign, from bytes | `+12k` |
//!
//! A field that is missing or null is `-`; a template all of whose fields are is `-` as a whole.

use serde_json::{Map, Value};

/// Returns `number` with three decimals, for JSON.
pub fn three_digits(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// Returns text of another program or machine as it may be printed: what could control a terminal is escaped, lines are
/// kept.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\'' | '"' | '\\' => printable.push(character),
            _ => printable.extend(character.escape_debug()),
        }
    }
    printable
}

/// Returns a number of things as people write it: `4.21M`, `534k`, `12`.
pub fn short(number: f64) -> String {
    match number {
        number if number >= 999_500.0 => format!("{:.2}M", number / 1e6),
        number if number >= 999.5 => format!("{:.0}k", number / 1e3),
        number => format!("{number:.0}"),
    }
}

/// Returns microseconds as people write them: `87.2us`, `4.2ms`, `1.03s`.
pub fn micros(micros: f64) -> String {
    match micros {
        micros if micros < 999.95 => format!("{}us", format!("{micros:.1}").trim_end_matches(".0")),
        micros if micros < 999_950.0 => format!("{:.1}ms", micros / 1e3),
        micros => format!("{:.2}s", micros / 1e6),
    }
}

/// Returns the value at `path`, names with dots between them; `None` if it is not there or null.
pub(crate) fn at<'a>(fields: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut names = path.split('.');
    let mut value = fields.get(names.next()?)?;
    for name in names {
        value = value.get(name)?;
    }
    (!value.is_null()).then_some(value)
}

/// Fills `template` with `fields`.
pub(crate) fn fill(template: &str, fields: &Map<String, Value>) -> String {
    let mut text = String::new();
    let (mut found, mut missing) = (false, false);
    let mut rest = template;
    while let Some((before, (field, after))) = rest
        .split_once('{')
        .and_then(|(before, from)| Some((before, from.split_once('}')?)))
    {
        text.push_str(before);
        let (path, format) = field.split_once(':').unwrap_or((field, ""));
        match at(fields, path) {
            Some(value) => {
                found = true;
                text.push_str(&one(value, format));
            }
            None => {
                missing = true;
                text.push('-');
            }
        }
        rest = after;
    }
    if missing && !found {
        return "-".to_owned();
    }
    text + rest
}

pub(crate) fn one(value: &Value, format: &str) -> String {
    let number = match value {
        Value::String(text) => return text.clone(),
        Value::Array(values) => {
            let texts: Vec<String> = values.iter().map(|value| one(value, format)).collect();
            return texts.join(", ");
        }
        other => other.as_f64(),
    };
    match (number, format) {
        (Some(number), "short") => short(number),
        (Some(number), "us") => micros(number),
        (Some(number), "M") => format!("{:.1}", number / 1e6),
        (Some(number), "%") => format!("{:.0}%", number * 100.0),
        (Some(number), "k") => format!("{:+.0}k", number / 1024.0),
        (Some(number), decimals) if !decimals.is_empty() => {
            let decimals = decimals.parse().unwrap_or_default();
            format!("{number:.decimals$}")
        }
        (Some(number), _) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_get_three_decimals() {
        assert_eq!([0.987_65, 2.0, -0.000_4].map(three_digits), [0.988, 2.0, 0.0]);
    }

    #[test]
    fn text_of_others_does_not_control_the_terminal() {
        let text = "`x`: \"it's\" C:\\ \u{fc}\nnext\u{1b}[2J\r\u{9b}1m\u{202e}";
        assert_eq!(
            printable(text),
            "`x`: \"it's\" C:\\ \u{fc}\nnext\\u{1b}[2J\\r\\u{9b}1m\\u{202e}"
        );
    }

    #[test]
    fn numbers_are_written_short() {
        let written = [0.0, 999.0, 999.6, 100_000.0, 534_400.0, 999_600.0, 4_214_000.0].map(short);
        assert_eq!(written, ["0", "999", "1k", "100k", "534k", "1.00M", "4.21M"]);
    }

    #[test]
    fn microseconds_are_written_short() {
        let written = [87.23, 120.0, 4_210.0, 1_030_000.0].map(micros);
        assert_eq!(written, ["87.2us", "120us", "4.2ms", "1.03s"]);
    }

    #[test]
    fn templates_are_filled_by_format() {
        let fields = json!({
            "name": "a server",
            "ok": 990,
            "tried": 1000.0,
            "rate": 534_400.0,
            "latency_us": {"p50": 87.23},
            "share": 0.988,
            "bytes": -4_096,
            "runs": [1.0, 2.5],
            "nothing": null,
            "on": true,
        });
        let fields = fields.as_object().unwrap();
        for (template, text) in [
            ("{name}", "a server"),
            ("{ok}/{tried}", "990/1000"),
            ("{rate:short}", "534k"),
            ("{rate:M} MB/s", "0.5 MB/s"),
            ("{latency_us.p50:us}", "87.2us"),
            ("{latency_us.p50:2}", "87.23"),
            ("{share:%}", "99%"),
            ("{bytes:k}", "-4k"),
            ("{runs:1}", "1.0, 2.5"),
            ("{runs}", "1, 2.5"),
            ("{on}", "true"),
            ("{nothing:short}", "-"),
            ("{nothing:short}..{missing.p50:short}", "-"),
            ("{nothing} of {ok}", "- of 990"),
            ("plain {", "plain {"),
        ] {
            assert_eq!(fill(template, fields), text, "{template}");
        }
    }

    #[test]
    fn paths_lead_into_objects_and_end_at_nothing() {
        let fields = json!({"a": {"b": {"c": 1}}, "n": null});
        let fields = fields.as_object().unwrap();
        assert_eq!(at(fields, "a.b.c"), Some(&json!(1)));
        for path in ["a.x.c", "a.b.c.d", "n", "n.a", ""] {
            assert_eq!(at(fields, path), None, "{path}");
        }
    }
}
