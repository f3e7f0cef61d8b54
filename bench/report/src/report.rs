//! The report: JSON, page and text.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::page::{self, Page};
use crate::sheet::Sheet;
use crate::{Column, Row, table};

/// The version of the JSON. A field that changes its meaning or goes raises it; a new field does not.
pub const SCHEMA_VERSION: u32 = 1;

/// The results of a measurement. `docs/report.md` describes its JSON.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The name of the subcommand that made it.
    pub kind: &'static str,
    /// The facts the results depend on: machine, versions, settings.
    pub environment: Map<String, Value>,
    /// The figures.
    pub rows: Vec<Row>,
    /// Further fields at the top of the JSON, such as ratios.
    #[serde(flatten)]
    pub more: Map<String, Value>,
    /// The content of the page.
    #[serde(skip)]
    pub page: Page,
    /// The text for the terminal.
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

    /// Returns all fields of the rows as comma-separated values, names with dots between them as titles.
    pub fn csv(&self) -> String {
        Sheet::of_all_fields(self.kind, &self.rows).csv()
    }

    /// Returns the names and main figures of the rows as a table of Markdown.
    pub fn markdown(&self) -> String {
        Sheet::of(self.kind, &self.rows).markdown()
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
    use crate::{Bars, Course, Line, Lines, Mark, Scale, Section, Spread, XAxis, YAxis, testing};

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

    /// A report of every section, with names that are longer than a phone is wide.
    fn long_names() -> Report {
        const COLUMNS: &[Column] = &[
            Column::name("target", "{target}"),
            Column::figure("per second", "{value:short}"),
            Column::figure("from..to", "{value_min:0}..{value_max:0}"),
            Column::figure("trouble", "{first_error}").alert("first_error"),
        ];
        let name = "a-server-whose-name-is-longer-than-a-telephone-is-wide and then goes on";
        let targets = [name, "short", "</script><b>"];
        let row = |target| {
            Row::new()
                .with("target", target)
                .with_spread("value", Spread::of([999_600.0, 2.0, 5e6]))
                .with("first_error", "2 broken, 7 B wrong")
        };
        let line = |name: &str| Line {
            name: name.to_owned(),
            points: vec![(0.0, 99.0), (1.0, 1.0), (2.0, 50.0)],
        };
        let names = ["0", "500k", "max"].map(str::to_owned).to_vec();
        let x = XAxis {
            title: "offered SYN/s",
            names: Some(names),
            scale: None,
        };
        let chart = |scale| Lines {
            title: name.to_owned(),
            x: x.clone(),
            y: YAxis { title: "part", scale },
            lines: targets.map(line).to_vec(),
            marks: Vec::new(),
        };
        let mut by_number = chart(Scale::Micros);
        (by_number.x.names, by_number.x.scale) = (None, Some(Scale::Number));
        for line in &mut by_number.lines {
            line.points = vec![(900.0, 90.0), (4_000.0, 120.0), (160_000.0, 8_000.0)];
        }
        by_number.marks = vec![Mark {
            at: (4_000.0, 120.0),
            text: "<b>knee".to_owned(),
        }];
        let facts = vec![
            (name.to_owned(), name.repeat(3)),
            ("two\nlines".to_owned(), "<i>\n".to_owned()),
        ];
        let mut report = Report {
            kind: "compare",
            environment: testing::environment(),
            rows: targets.map(row).to_vec(),
            ..Report::default()
        };
        report
            .environment
            .insert("nginx_configuration".to_owned(), name.repeat(2).into());
        let rows = vec![0, 1, 2];
        report.text = report.table(COLUMNS, &rows);
        report.page = Page {
            title: name.to_owned(),
            introduction: name.to_owned(),
            sections: vec![
                Section::Heading(name.to_owned()),
                Section::Tiles(vec![
                    (name.to_owned(), name.to_owned()),
                    ("1".to_owned(), "<b>".to_owned()),
                ]),
                Section::Bars(Bars::of_targets(name, rows.clone(), "value", "short")),
                Section::Lines(chart(Scale::Percent)),
                Section::Lines(chart(Scale::Micros)),
                Section::Lines(by_number),
                Section::Course(Course {
                    title: name.to_owned(),
                    y: "operations/s",
                    scale: Scale::Count,
                    marks: vec![(0.0, name.to_owned()), (1.5, "sustain".to_owned())],
                    lines: targets.map(line).to_vec(),
                }),
                Section::Text(format!("**{name}** and {name}")),
                Section::Alert(name.to_owned()),
                Section::Table { columns: COLUMNS, rows },
                Section::Facts(facts),
                Section::HowToRead(&["**bold** and plain", "<p>"]),
            ],
        };
        report
    }

    #[test]
    fn every_section_has_its_place_on_the_page() {
        let report = long_names();
        testing::assert_report("long-names", &report);
        let html = report.html();
        for section in &report.page.sections {
            let kind = json!(section).as_object().unwrap().keys().next().unwrap().clone();
            // The script has a function, or an entry, of that name.
            let drawn = [format!("  {kind}: ("), format!("function {kind}(")];
            assert!(drawn.iter().any(|text| html.contains(text)), "{kind}");
        }
        let Section::Table { columns, .. } = &report.page.sections[9] else {
            panic!("{:?}", report.page.sections[9]);
        };
        let titles: Vec<Value> = json!(columns)
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["title"].clone())
            .collect();
        assert_eq!(titles, ["target", "per second", "from..to", "trouble"]);
    }
}
