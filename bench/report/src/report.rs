//! A whole report, and what becomes of it.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::page::{self, Page};
use crate::{Column, Row, table};

/// The version of the JSON. It grows when a field changes its meaning or goes; new fields come without.
pub const SCHEMA_VERSION: u32 = 1;

/// What a measurement found. `docs/report.md` describes its JSON.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What made it: the name of the subcommand.
    pub kind: &'static str,
    /// What the results depend on: the machine, versions, and what was fixed.
    pub environment: Map<String, Value>,
    /// The figures.
    pub rows: Vec<Row>,
    /// What follows from the rows, and what is of no row.
    #[serde(flatten)]
    pub more: Map<String, Value>,
    /// What the page shows.
    #[serde(skip)]
    pub page: Page,
    /// What the terminal shows.
    #[serde(skip)]
    pub text: String,
}

impl Report {
    /// Returns the report as JSON.
    pub fn json(&self) -> Value {
        let mut value = json!(self);
        value["schema_version"] = SCHEMA_VERSION.into();
        value["command"] = std::env::args().collect::<Vec<_>>().into();
        value
    }

    /// Returns the report as one HTML page that needs nothing else.
    pub fn html(&self) -> String {
        let mut value = self.json();
        value["page"] = json!(self.page);
        page::html(&value)
    }

    /// Returns the table of the rows at `indices`, as text.
    pub fn table(&self, columns: &[Column], indices: &[usize]) -> String {
        table::text(columns, indices.iter().filter_map(|&index| self.rows.get(index)))
    }

    /// Returns the indices of the rows whose fields have these texts.
    pub fn rows_with(&self, texts: &[(&str, &str)]) -> Vec<usize> {
        let has = |row: &Row| {
            texts
                .iter()
                .all(|&(name, text)| row.get(name).and_then(Value::as_str) == Some(text))
        };
        (0..self.rows.len()).filter(|&index| has(&self.rows[index])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report {
            kind: "compare",
            rows: ["tidegate", "nginx", "nginx"]
                .map(|target| Row::new().with("target", target))
                .to_vec(),
            ..Report::default()
        };
        report.more.insert("ratios".to_owned(), json!({"cps": 2.0}));
        report
    }

    #[test]
    fn json_says_what_it_is() {
        let json = report().json();
        assert_eq!((&json["schema_version"], &json["kind"]), (&json!(1), &json!("compare")));
        assert_eq!(json["rows"][1]["target"], "nginx");
        assert_eq!(json["ratios"]["cps"], 2.0);
        assert!(json["environment"].is_object() && !json["command"][0].as_str().unwrap().is_empty());
        assert_eq!(json.get("page"), None);
    }

    #[test]
    fn rows_are_found_by_their_names() {
        let report = report();
        assert_eq!(report.rows_with(&[("target", "nginx")]), [1, 2]);
        assert!(
            report
                .rows_with(&[("target", "nginx"), ("client", "kernel")])
                .is_empty()
        );
        let text = report.table(&[Column::name("target", "{target}")], &[0, 7]);
        assert_eq!(text, "target  \ntidegate\n");
    }
}
