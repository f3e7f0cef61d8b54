//! The report as a table for the terminal.

use std::fmt::Write;

use tidegate_lab::Family;

use super::{Limits, Report, Row, duration, ratio};
use crate::results::numbers::short;
use crate::results::text_table;

/// The column that says how many clients were answered.
pub(super) const CLIENTS: &str = "clients ok";

/// The names of the columns, for the terminal and the page.
pub(super) const COLUMNS: [&str; 13] = [
    "target",
    "rate",
    "offered/s",
    "answered/s",
    CLIENTS,
    "connect p50",
    "p99",
    "max",
    "first byte p99",
    "core",
    "RSS",
    "open MB/s",
    "open trouble",
];

/// Columns of text, which begin on the left; the others end on the right.
const TEXT_COLUMNS: usize = 1;

/// The columns of `row` as text, in the order of [`COLUMNS`].
pub(super) fn cells(row: &Row) -> [String; COLUMNS.len()] {
    [
        row.target.name().to_owned(),
        row.offered.name(),
        short(row.offered_per_s),
        short(row.answered_per_s),
        format!("{}/{}", row.legit_ok, row.legit_tried),
        duration(row.connect.map(|quantiles| quantiles.p50)),
        duration(row.connect.map(|quantiles| quantiles.p99)),
        duration(row.connect.map(|quantiles| quantiles.max)),
        duration(row.first_byte.map(|quantiles| quantiles.p99)),
        format!("{:.0}%", row.server_core_busy * 100.0),
        format!("{:+.0}k", row.rss_delta_bytes as f64 / 1024.0),
        format!(
            "{:.1} > {:.1}",
            row.open_before_bytes_per_s / 1e6,
            row.open_during_bytes_per_s / 1e6
        ),
        trouble(row),
    ]
}

/// What happened to the open connections, as a phrase.
fn trouble(row: &Row) -> String {
    let toll = &row.open_toll;
    let parts: Vec<String> = [
        (toll.broken, "broken"),
        (toll.stalled, "stalled"),
        (toll.lost, "B lost"),
        (toll.wrong, "B wrong"),
    ]
    .into_iter()
    .filter(|&(count, _)| count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

/// The limits of one IP version as a sentence; `None` if they were not measured.
pub(super) fn limits(family: Family, limits: Limits) -> Option<String> {
    if limits == Limits::default() {
        return None;
    }
    let text = |limit: Option<f64>| limit.map_or_else(|| "-".to_owned(), short);
    Some(format!(
        "{}: a bare XDP program sends back {} SYN/s, and drops {} SYN/s",
        family.title(),
        text(limits.transmit),
        text(limits.drop)
    ))
}

/// Both ratios as sentences.
pub(super) fn ratios(report: &Report) -> [String; 2] {
    let ratios = report.ratios();
    [
        format!(
            "SYNs answered at the highest rate, tidegate auto to linux tcp_syncookies=1: {}",
            ratio(ratios.answered_max_vs_linux)
        ),
        format!(
            "SYNs answered at the highest rate, tidegate auto to bare XDP_TX: {}",
            ratio(ratios.answered_max_vs_xdp_tx)
        ),
    ]
}

/// One table for each IP version, then limits and ratios.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for family in report.families() {
        let rows: Vec<_> = report
            .rows
            .iter()
            .filter(|row| row.family == family)
            .map(cells)
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", family.title());
        text.push_str(&text_table::text(COLUMNS, &rows, TEXT_COLUMNS));
        if let Some(limits) = limits(family, report.limits(family)) {
            let _ = writeln!(text, "{limits}");
        }
        text.push('\n');
    }
    for line in ratios(report) {
        let _ = writeln!(text, "{line}");
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
            .find(|line| line.starts_with("tidegate auto") && line.contains("max"))
            .unwrap();
        for part in [
            "4.00M",
            "2.40M",
            "990/1000",
            "50us",
            "1.2ms",
            "2.00s",
            "2.3ms",
            "99%",
            "-4k",
            "25.0 > 18.8",
        ] {
            assert!(row.contains(part), "{part}: {row}");
        }
        assert!(row.ends_with("none"), "{row}");
    }

    #[test]
    fn every_family_has_its_table_and_only_measured_limits_are_shown() {
        let text = text(&report());
        assert_eq!(text.matches("first byte p99").count(), 2);
        assert!(
            text.contains("IPv4: a bare XDP program sends back 3.00M SYN/s, and drops 8.00M SYN/s"),
            "{text}"
        );
        assert!(!text.contains("IPv6: a bare"), "{text}");
        assert!(text.contains("tcp_syncookies=1: 5.00\n"), "{text}");
        assert!(text.contains("XDP_TX: 0.80\n"), "{text}");
    }

    #[test]
    fn trouble_of_open_connections_is_told() {
        let mut report = report();
        report.rows[0].open_toll.broken = 2;
        report.rows[0].open_toll.wrong = 7;
        assert_eq!(trouble(&report.rows[0]), "2 broken, 7 B wrong");
    }
}
