//! Rows as text in columns: aligned for the terminal, as Markdown, and as comma-separated values.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value};

use crate::format::printable;
use crate::{Row, catalog, columns, table};

/// A table of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sheet {
    /// The titles, and whether the cells below begin on the left.
    pub(crate) columns: Vec<(String, bool)>,
    /// The lines, with a cell for each column.
    pub(crate) lines: Vec<Vec<String>>,
}

impl Sheet {
    /// Returns the table of a report of the kind `kind`: its own columns, or its names and figures but those that no
    /// row has. Of a kind that is not known there are all fields.
    pub(crate) fn of(kind: &str, rows: &[Row]) -> Self {
        if let Some(columns) = columns::of(kind) {
            return table::sheet(columns, rows);
        }
        let Some(kind) = catalog::kind(kind) else {
            return Self::of_all_fields("", rows);
        };
        let names = kind.names.iter().map(|&name| (name, name, "", true));
        let figures = kind
            .figures
            .iter()
            .map(|figure| (figure.title, figure.path, figure.format, false));
        let mut sheet = Self {
            lines: vec![Vec::new(); rows.len()],
            ..Self::default()
        };
        for (title, path, format, is_name) in names.chain(figures) {
            if rows.iter().all(|row| row.get(path).is_none()) {
                continue;
            }
            sheet.columns.push((title.to_owned(), is_name));
            let template = format!("{{{path}:{format}}}");
            for (line, row) in sheet.lines.iter_mut().zip(rows) {
                line.push(row.fill(&template));
            }
        }
        sheet
    }

    /// Returns all fields of `rows` with all their digits, names with dots between them as titles: first the names of
    /// the kind `kind`, then the others in the order of the alphabet. Texts of the same figures are left out.
    pub(crate) fn of_all_fields(kind: &str, rows: &[Row]) -> Self {
        let (mut paths, mut nulls) = (BTreeSet::new(), BTreeSet::new());
        for row in rows {
            collect_paths("", row.fields(), &mut paths, &mut nulls);
        }
        // What no row has keeps its column, so that all reports of a kind have the same ones.
        let is_object = |path: &str| paths.iter().any(|deeper| deeper.starts_with(&format!("{path}.")));
        nulls.retain(|path| !is_object(path));
        paths.extend(nulls);
        paths.retain(|path| !path.ends_with("_text"));
        let names = catalog::kind(kind).map_or(&[][..], |kind| kind.names);
        let first = names
            .iter()
            .map(|&name| name.to_owned())
            .filter(|name| paths.contains(name));
        let rest = paths.iter().filter(|path| !names.contains(&path.as_str())).cloned();
        let paths: Vec<String> = first.chain(rest).collect();
        let cell = |row: &Row, path: &str| match row.get(path) {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        Self {
            lines: rows
                .iter()
                .map(|row| paths.iter().map(|path| cell(row, path)).collect())
                .collect(),
            columns: paths.into_iter().map(|path| (path, true)).collect(),
        }
    }

    /// Returns the titles and the lines in columns that are two spaces apart and as wide as their widest cell. Each
    /// line ends with a line break. A cell is one line, and controls no terminal.
    pub(crate) fn text(&self) -> String {
        let in_one_line = |text: &String| printable(text).replace('\n', " ");
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| in_one_line(title)).collect();
        let cells: Vec<Vec<String>> = self
            .lines
            .iter()
            .map(|line| line.iter().map(in_one_line).collect())
            .collect();
        let lines = || std::iter::once(&titles).chain(&cells);
        let width = |index: usize| lines().map(|line| line[index].chars().count()).max();
        let widths: Vec<usize> = (0..titles.len()).filter_map(width).collect();
        let mut text = String::new();
        for line in lines() {
            for (index, ((cell, (_, is_name)), &width)) in line.iter().zip(&self.columns).zip(&widths).enumerate() {
                let gap = if index == 0 { "" } else { "  " };
                // Writing to a String cannot fail.
                let _ = if *is_name {
                    write!(text, "{gap}{cell:<width$}")
                } else {
                    write!(text, "{gap}{cell:>width$}")
                };
            }
            text.push('\n');
        }
        text
    }

    /// Returns it as a table of Markdown (GitHub's).
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.columns.iter().map(|(title, _)| escaped(title)).collect());
        let rule = |&(_, is_name): &(String, bool)| if is_name { "---" } else { "---:" }.to_owned();
        text += &line(self.columns.iter().map(rule).collect());
        for cells in &self.lines {
            text += &line(cells.iter().map(|cell| escaped(cell)).collect());
        }
        text
    }

    /// Returns it as comma-separated values (RFC 4180, but with the line breaks of Unix).
    pub(crate) fn csv(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = &String>| {
            cells.map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\n"
        };
        let mut text = line(&mut self.columns.iter().map(|(title, _)| title));
        for cells in &self.lines {
            text += &line(&mut cells.iter());
        }
        text
    }
}

/// Collects the paths of all values of `fields` that are no objects, and those of the values that are null.
fn collect_paths(
    prefix: &str,
    fields: &Map<String, Value>,
    paths: &mut BTreeSet<String>,
    nulls: &mut BTreeSet<String>,
) {
    for (name, value) in fields {
        let path = format!("{prefix}{name}");
        match value {
            Value::Object(fields) => collect_paths(&format!("{path}."), fields, paths, nulls),
            Value::Null => _ = nulls.insert(path),
            _ => _ = paths.insert(path),
        }
    }
}

/// Returns a cell that cannot end its column or its line.
fn escaped(cell: &str) -> String {
    cell.replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace(['\r', '\n'], " ")
}

/// Returns a value in quotes if it needs them.
fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows() -> Vec<Row> {
        let row = |target: &str, value: f64, p99: Option<f64>| {
            Row::new()
                .with("workload", "rps")
                .with("target", target)
                .with("value", value)
                .with("latency_us", json!(p99.map(|p99| json!({"p99": p99}))))
                .with("runs", vec![1, 2])
                .with("cpu", None::<u32>)
        };
        vec![row("a \"b\", c", 534_400.0, Some(87.23)), row("d|e\nf", 12.5, None)]
    }

    #[test]
    fn markdown_has_the_names_and_figures_that_there_are() {
        let expected = "\
| workload | target | per second | p99 |
| --- | --- | ---: | ---: |
| rps | a \"b\", c | 534k | 87.2us |
| rps | d\\|e f | 12 | - |
";
        assert_eq!(Sheet::of("rps", &rows()).markdown(), expected);
    }

    #[test]
    fn a_cell_is_one_line_of_plain_text() {
        let rows = [Row::new().with("tag", "a\nb\u{1b}[2J"), Row::new().with("tag", "c")];
        assert_eq!(
            Sheet::of("merge", &rows).text(),
            "tag         \na b\\u{1b}[2J\nc           \n"
        );
    }

    #[test]
    fn values_have_all_fields_and_all_digits() {
        let expected = "\
workload,target,cpu,latency_us.p99,runs,value
rps,\"a \"\"b\"\", c\",,87.23,\"[1,2]\",534400.0
rps,\"d|e\nf\",,,\"[1,2]\",12.5
";
        assert_eq!(Sheet::of_all_fields("rps", &rows()).csv(), expected);
    }

    #[test]
    fn steps_have_the_table_of_their_report() {
        let rows = [Row::new()
            .with("purpose", "verify")
            .with("target", "nginx")
            .with("offered_per_second", 1_000)
            .with("why", "p99<1ms: not met")];
        let text = Sheet::of("search", &rows).text();
        assert!(text.starts_with("step    offered/s  done/s"), "{text}");
        assert!(text.trim_end().ends_with("p99<1ms: not met"), "{text}");
        let text = Sheet::of("sweep", &rows).text();
        assert!(text.starts_with("server  offered/s  done/s"), "{text}");
    }

    #[test]
    fn a_kind_that_is_not_known_shows_all_fields() {
        let text = Sheet::of("another", &rows()[..1]).text();
        assert_eq!(text.lines().next().unwrap().split_whitespace().count(), 6, "{text}");
        assert!(text.contains("534400"), "{text}");
        assert_eq!(Sheet::of("rps", &[]).text(), "\n");
    }
}
