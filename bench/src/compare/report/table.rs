//! The report as a table for the terminal.

use std::fmt::Write;

use super::super::plan::ClientKind;
use super::ratios::{self, Ratio};
use super::{Report, Row, micros};
use crate::results::numbers::short;
use crate::results::spread::Spread;
use crate::results::text_table;

/// The names of the columns, for the terminal and the page.
pub(super) const COLUMNS: [&str; 13] = [
    "workload",
    "client",
    "target",
    "per second",
    "lowest..highest",
    "p50",
    "p99",
    "p99.9",
    "CPU us/op",
    "client core",
    "server core",
    "frames/s",
    "errors",
];

/// Columns of text, which begin on the left; the others are numbers.
const TEXT_COLUMNS: usize = 3;

/// The columns of `row` as text, in the order of [`COLUMNS`].
pub(super) fn cells(row: &Row<'_>) -> [String; COLUMNS.len()] {
    let per_s = row.per_s();
    let quantile = |spread: Option<Spread>| micros(spread.map(|spread| spread.median));
    let usage = row.usage();
    let time = |micros: Option<f64>| micros.map_or_else(|| "-".to_owned(), |micros| format!("{micros:.2}"));
    let frames = row.spread(super::Run::frames_per_s);
    [
        row.cell.workload_name().to_owned(),
        row.cell.client_name().to_owned(),
        row.cell.target_name().to_owned(),
        per_s.map_or_else(|| "-".to_owned(), |spread| short(spread.median)),
        per_s.map_or_else(
            || "-".to_owned(),
            |spread| format!("{}..{}", short(spread.min), short(spread.max)),
        ),
        quantile(row.quantile(|quantiles| quantiles.p50)),
        quantile(row.quantile(|quantiles| quantiles.p99)),
        quantile(row.quantile(|quantiles| quantiles.p999)),
        time(row.cpu_us().map(|spread| spread.median)),
        time(usage.map(|usage| usage.client.total())),
        time(usage.map(|usage| usage.server.total())),
        frames.map_or_else(|| "-".to_owned(), |spread| short(spread.median)),
        row.errors().to_string(),
    ]
}

/// A ratio as people write it: `3.10 (2.95..3.22)`; `-` if there is none.
pub(super) fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |Spread { median, min, max }| format!("{median:.2} ({min:.2}..{max:.2})"),
    )
}

/// The ratios of `client` as they are shown: those of the results, and the one beside them.
pub(super) fn shown(report: &Report, client: ClientKind) -> Vec<Ratio> {
    let mut ratios = ratios::all(report, client);
    ratios.push(ratios::cps_frames(report, client));
    ratios.retain(|ratio| ratio.spread.is_some());
    ratios
}

/// One table, then the ratios, then the first error of each row that has any.
pub(super) fn text(report: &Report) -> String {
    let rows = report.rows();
    let lines: Vec<_> = rows.iter().map(cells).collect();
    let mut text = text_table::text(COLUMNS, &lines, TEXT_COLUMNS);
    for client in ratios::clients(report) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\nRatios, {} client: median (lowest..highest) of the runs",
            client.name()
        );
        for Ratio { meaning, spread, .. } in shown(report, client) {
            let _ = writeln!(text, "  {meaning}: {}", ratio(spread));
        }
    }
    for row in &rows {
        if let Some(error) = row.first_error() {
            let _ = writeln!(text, "\n{}: the first error: {error}", row.cell.title());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples::report;
    use super::*;

    #[test]
    fn a_row_shows_what_was_measured() {
        let text = text(&report());
        let row = text
            .lines()
            .find(|line| line.starts_with("rps") && line.contains("tidegate"))
            .unwrap();
        for part in [
            "bypass",
            "510k",
            "459k..612k",
            "50.0us",
            "120.0us",
            "400.0us",
            "8.00",
            "4.00",
            "1.02M",
        ] {
            assert!(row.contains(part), "{part}: {row}");
        }
        assert!(row.ends_with(" 0"), "{row}");
    }

    #[test]
    fn ratios_come_with_their_spread() {
        let text = text(&report());
        assert!(
            text.contains("requests per second, tidegate to nginx: 3.00 (3.00..3.00)\n"),
            "{text}"
        );
        assert!(text.contains("Ratios, bypass client"), "{text}");
        assert!(!text.contains("Ratios, kernel client"), "{text}");
        let spread = Spread {
            median: 3.1,
            min: 2.954,
            max: 3.218,
        };
        assert_eq!(ratio(Some(spread)), "3.10 (2.95..3.22)");
        assert_eq!(ratio(None), "-");
    }

    #[test]
    fn errors_are_told() {
        let mut report = report();
        report.runs[0].errors = 7;
        report.runs[0].first_error = Some("connection reset".to_owned());
        let text = text(&report);
        assert!(
            text.contains("tidegate cps (bypass): the first error: connection reset"),
            "{text}"
        );
    }
}
