//! The report as one HTML page that needs nothing but itself.

use std::fmt::Write;

use tidegate_lab::Family;

use super::super::plan::{Offered, Target};
use super::plot;
use super::table::{self, CLIENTS, COLUMNS};
use super::{Report, Row};
use crate::results::chart::Line;
use crate::results::page::{self, Colour, escape};

/// Colours of the lines. They can be told apart on white, on black, and by most who do not see all colours.
const fn colour(target: Target) -> Colour {
    match target {
        Target::TidegateAuto => (0, 122, 204),
        Target::TidegateNever => (86, 180, 233),
        Target::LinuxOnOverflow => (213, 94, 0),
        Target::LinuxAlways => (204, 121, 167),
    }
}

const TITLE: &str = "tidegate: resilience under a SYN flood";

const INTRODUCTION: &str = "SYNs from spoofed sources meet one server after the other, in one run, while clients \
                            connect and others go on with what they have begun.";

const HOW_TO_READ: &str = r#"<h2>How to read this</h2>
<div class="card">
<p>Each row is one server under one flood. The servers take turns within each rate, and each time another one is the
first. <b>offered/s</b> is what the generator sent, <b>answered/s</b> the SYN-ACKs that came back to the spoofed
sources. What a bare XDP program sends back or drops, with the same generator and the same cores, is the most any
server could do there.</p>
<p><b>clients ok</b> counts the clients that connected, asked and got the whole answer in time; they send their SYN
again as often as the kernel's TCP does. Latencies are from a client's first SYN, of the clients that got that far, so
read them beside the share of those that did. <b>core</b> is how busy the server's core was, <b>RSS</b> what the
server's resident memory grew by during the flood, with all clients in it. <b>open MB/s</b> is the throughput of
connections that were open before, first without the flood and then during it; their rate is bounded (see the
environment), and they compare every byte.</p>
<p>The plots have one step for each rate, so the distance between two of them means nothing. A line has no point where
no client connected.</p>
</div>
"#;

/// The whole page.
///
/// # Errors
///
/// A plot cannot be drawn.
pub(super) fn page(report: &Report) -> anyhow::Result<String> {
    let mut page = page::begin(TITLE, INTRODUCTION);
    tiles(&mut page, report);
    for family in report.families() {
        section(&mut page, report, family)?;
    }
    page.push_str(HOW_TO_READ);
    page::environment(&mut page, &report.environment);
    page.push_str(page::END);
    Ok(page)
}

/// Both ratios, large.
fn tiles(page: &mut String, report: &Report) {
    page.push_str("<div class=\"tiles\">\n");
    for sentence in table::ratios(report) {
        if let Some((what, number)) = sentence.rsplit_once(": ") {
            page::tile(page, number, what);
        }
    }
    page.push_str("</div>\n");
}

fn section(page: &mut String, report: &Report, family: Family) -> anyhow::Result<()> {
    let rows: Vec<&Row> = report.rows.iter().filter(|row| row.family == family).collect();
    let mut rates: Vec<Offered> = rows.iter().map(|row| row.offered).collect();
    rates.sort_unstable();
    rates.dedup();
    let names: Vec<String> = rates.iter().map(|rate| rate.name()).collect();
    let targets: Vec<Target> = Target::ALL
        .into_iter()
        .filter(|&target| rows.iter().any(|row| row.target == target))
        .collect();
    let lines = |value: &dyn Fn(&Row) -> Option<f64>| -> Vec<Line<i32>> {
        let line = |&target: &Target| Line {
            colour: colour(target),
            points: points(&rows, &rates, target, value),
        };
        targets.iter().map(line).collect()
    };
    let success = plot::success(&names, &lines(&|row| Some(row.success() * 100.0)))?;
    let latency = plot::latency(&names, &lines(&|row| Some(row.connect?.p99 as f64)))?;

    let title = family.title();
    // Writing to a String cannot fail.
    let _ = writeln!(page, "<h2>{title}</h2>");
    page::legend(page, targets.iter().map(|&target| (colour(target), target.name())));
    page.push_str("<div class=\"plots\">\n");
    page::figure(page, "Clients answered", &success);
    page::figure(page, "99 of 100 connected within", &latency);
    page.push_str("</div>\n");
    if let Some(limits) = table::limits(family, report.limits(family)) {
        let _ = writeln!(page, "<p>{}.</p>", escape(&limits));
    }
    rows_table(page, &rows);
    Ok(())
}

/// The points of one line: the index of the rate and the value.
fn points(rows: &[&Row], rates: &[Offered], target: Target, value: &dyn Fn(&Row) -> Option<f64>) -> Vec<(i32, f64)> {
    (0..)
        .zip(rates)
        .filter_map(|(index, &rate)| {
            let row = rows.iter().find(|row| row.target == target && row.offered == rate)?;
            Some((index, value(row)?))
        })
        .collect()
}

fn rows_table(page: &mut String, rows: &[&Row]) {
    page::begin_table(page, &COLUMNS);
    for row in rows {
        let title = row
            .first_failure
            .as_ref()
            .map(|failure| format!(" title=\"first failure: {}\"", escape(failure)))
            .unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(page, "<tr{title}>");
        for (column, cell) in COLUMNS.into_iter().zip(table::cells(row)) {
            let is_bad = column == CLIENTS && row.legit_ok < row.legit_tried;
            let class = if is_bad { " class=\"bad\"" } else { "" };
            let _ = write!(page, "<td{class}>{}</td>", escape(&cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str(page::END_OF_TABLE);
}

#[cfg(test)]
mod tests {
    use super::super::samples::report;
    use super::*;

    #[test]
    fn the_page_has_a_pair_of_plots_and_a_table_for_each_family() {
        let page = page(&report()).unwrap();
        assert_eq!(page.matches("<svg").count(), 4);
        assert_eq!(page.matches("<table>").count(), 2);
        assert_eq!(page.matches("<td class=\"bad\"").count(), 8);
        page::assert_whole_with(
            &page,
            &[
                "IPv4",
                "IPv6",
                "<strong>5.00</strong>",
                "<strong>0.80</strong>",
                "990/1000",
                "2.40M",
            ],
        );
    }

    #[test]
    fn the_page_loads_nothing() {
        page::assert_loads_nothing(&page(&report()).unwrap());
    }

    #[test]
    fn text_cannot_become_markup() {
        let page = page(&report()).unwrap();
        assert!(page.contains("6.1 &lt;script&gt;"));
    }

    #[test]
    fn lines_have_no_point_where_nothing_was_measured() {
        let report = report();
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.family == Family::V4).collect();
        let rates = [Offered::Nothing, Offered::Pps(7), Offered::Max];
        let p99 = |row: &Row| Some(row.connect?.p99 as f64);
        let with = points(&rows, &rates, Target::TidegateAuto, &p99);
        assert_eq!(with, [(0, 1_200.0), (2, 1_200.0)]);
        let without = points(&rows, &rates, Target::LinuxOnOverflow, &p99);
        assert_eq!(without, [(0, 1_200.0)]);
    }
}
