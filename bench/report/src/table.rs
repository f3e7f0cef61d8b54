//! The table for the terminal.

use serde::Serialize;

use crate::Row;
use crate::sheet::Sheet;

/// A column of the table, on the terminal and on the page.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Column {
    title: &'static str,
    /// A template (see [`format`](crate::format)).
    text: &'static str,
    is_name: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<&'static str>,
}

impl Column {
    /// Returns a column of names, which begin on the left.
    pub const fn name(title: &'static str, template: &'static str) -> Self {
        Self {
            title,
            text: template,
            is_name: true,
            alert: None,
        }
    }

    /// Returns a column of figures, which end on the right.
    pub const fn figure(title: &'static str, template: &'static str) -> Self {
        Self {
            is_name: false,
            ..Self::name(title, template)
        }
    }

    /// Has the page show a cell in red if the field `path` is neither null nor zero.
    pub const fn alert(self, path: &'static str) -> Self {
        Self {
            alert: Some(path),
            ..self
        }
    }
}

/// Returns `rows` in `columns`.
pub(crate) fn sheet<'a>(columns: &[Column], rows: impl IntoIterator<Item = &'a Row>) -> Sheet {
    let cells = |row: &Row| columns.iter().map(|column| row.fill(column.text)).collect();
    Sheet {
        columns: columns
            .iter()
            .map(|column| (column.title.to_owned(), column.is_name))
            .collect(),
        lines: rows.into_iter().map(cells).collect(),
    }
}

/// Returns the titles of `columns`, and a line for each of `rows`, in columns that are two spaces apart and as wide as
/// their widest cell. Each line ends with a line break.
pub(crate) fn text<'a>(columns: &[Column], rows: impl IntoIterator<Item = &'a Row>) -> String {
    sheet(columns, rows).text()
}

#[cfg(test)]
mod tests {
    use super::*;

    const P99: Column = Column::figure("p99", "{p99_us:us}");
    const TARGET: Column = Column::name("target", "{target}");

    fn rows() -> [Row; 2] {
        [
            Row::new()
                .with("target", "nginx")
                .with("rate", "max")
                .with("p99_us", 4_210.0),
            Row::new()
                .with("target", "serve-kernel")
                .with("rate", "0")
                .with("p99_us", None::<f64>),
        ]
    }

    #[test]
    fn names_begin_on_the_left_and_figures_end_on_the_right() {
        let expected = "\
target        rate    p99
nginx         max   4.2ms
serve-kernel  0         -
";
        assert_eq!(text(&[TARGET, Column::name("rate", "{rate}"), P99], &rows()), expected);
        let expected = "\
target        rate    p99
nginx          max  4.2ms
serve-kernel     0      -
";
        assert_eq!(
            text(&[TARGET, Column::figure("rate", "{rate}"), P99], &rows()),
            expected
        );
    }

    #[test]
    fn the_lines_of_a_table_have_one_width() {
        let row = Row::new().with("target", "a name with a µ").with("p99_us", 1.5);
        for rate in [Column::name("rate", "{rate}"), Column::figure("rate", "{rate}")] {
            let text = text(&[rate, TARGET, P99], rows().iter().chain([&row]));
            let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
            assert_eq!(widths, [28; 4], "{text}");
        }
    }

    #[test]
    fn without_rows_there_are_only_the_titles() {
        assert_eq!(text(&[TARGET, P99], &[]), "target  p99\n");
    }
}
