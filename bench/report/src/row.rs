//! The one kind of row that every report is made of.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Spread;
use crate::format::{at, fill, three_digits};

/// One result: names that identify it, and figures. `docs/report.md` lists all fields.
///
/// A field that could not be measured is null, so that the rows of one report have the same fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Row {
    fields: Map<String, Value>,
}

impl Row {
    /// Returns a row without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a field. `None` is null.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Sets a figure of several runs: `name` is their median, `name_min` the lowest and `name_max` the highest, with
    /// three decimals.
    #[must_use]
    pub fn with_spread(self, name: &str, spread: Option<Spread>) -> Self {
        let of = |value: fn(Spread) -> f64| spread.map(value).map(three_digits);
        self.with(name, of(|spread| spread.median))
            .with(&format!("{name}_min"), of(|spread| spread.min))
            .with(&format!("{name}_max"), of(|spread| spread.max))
    }

    /// Sets a figure of several runs to its median, with three decimals.
    #[must_use]
    pub fn with_median(self, name: &str, spread: Option<Spread>) -> Self {
        self.with(name, spread.map(|spread| three_digits(spread.median)))
    }

    /// Returns the value at `path`, names with dots between them; `None` if it is not there or null.
    pub fn get(&self, path: &str) -> Option<&Value> {
        at(&self.fields, path)
    }

    /// Returns the number at `path`.
    pub fn number(&self, path: &str) -> Option<f64> {
        self.get(path)?.as_f64()
    }

    /// Returns `template` with the fields of this row in it (see [`format`](crate::format)).
    pub fn fill(&self, template: &str) -> String {
        fill(template, &self.fields)
    }

    /// Returns the fields by name.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }
}

impl From<Map<String, Value>> for Row {
    fn from(fields: Map<String, Value>) -> Self {
        Self { fields }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_figure_of_several_runs_has_its_median_and_its_ends() {
        let row = Row::new()
            .with("target", "nginx")
            .with_spread("p99_us", Spread::of([3.000_4, 1.0, 2.0]))
            .with_spread("p50_us", None)
            .with_median("max_us", Spread::of([5.0]));
        let expected = json!({
            "target": "nginx",
            "p99_us": 2.0,
            "p99_us_min": 1.0,
            "p99_us_max": 3.0,
            "p50_us": null,
            "p50_us_min": null,
            "p50_us_max": null,
            "max_us": 5.0,
        });
        assert_eq!(serde_json::to_value(&row).unwrap(), expected);
        assert_eq!(row.fill("{target} {p99_us_min:1}..{p99_us_max:1}"), "nginx 1.0..3.0");
        assert_eq!((row.number("p99_us"), row.get("p50_us")), (Some(2.0), None));
    }
}
