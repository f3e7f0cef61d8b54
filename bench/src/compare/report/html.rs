//! The report as one HTML page that needs nothing but itself.

use std::fmt::Write;

use super::super::cpu::{Parts, Usage};
use super::super::plan::{Cell, ClientKind, Load, Shape, Target};
use super::plot::{self, Bar};
use super::ratios::{self, Ratio};
use super::table::{self, COLUMNS};
use super::{Report, Row, Run, micros};
use crate::results::numbers::short;
use crate::results::page::{self, Colour, escape, figure};

/// Colours of bars. They can be told apart on white, on black, and by most who do not see all colours.
const fn colour(cell: Cell) -> Colour {
    match cell {
        Cell::Server {
            target: Target::Tidegate,
            ..
        } => (0, 122, 204),
        Cell::Server {
            target: Target::Nginx, ..
        } => (0, 158, 115),
        Cell::Server {
            target: Target::ServeKernel,
            ..
        } => (213, 94, 0),
        Cell::Reflect(_) => (128, 128, 128),
    }
}

/// The parts of processor time: their names and colours.
const PARTS: [(Colour, &str); 3] = [
    ((86, 180, 233), "user"),
    ((230, 159, 0), "system"),
    ((204, 121, 167), "interrupts, mostly soft ones (NAPI)"),
];

const HOW_TO_READ: &str = r#"<h2>How to read this</h2>
<div class="card">
<p>All servers send the same file from memory, and are asked by the same client with the same octets. They take turns:
each round starts and stops one after the other, and a ratio is that of two runs of the same round. Bars are medians; the
line over a bar's end goes from the lowest to the highest run.</p>
<p><b>cps</b> is connections per second, one request each; the environment says who closed them. <b>rps</b> is requests per second on
connections that stay open, one under way on each. <b>latency</b> is measured at half of what serve-kernel reaches under
rps, from when a request was due. <b>reflect</b> is two loops that send frames as long as these to and fro over AF_XDP,
without any protocol: no server on AF_XDP can do more there.</p>
<p><b>CPU us/op</b> is processor time for each connection, request or frame: all of both cores, the client's included.
Who waits by spinning is never idle, so a core of tidegate, and that of the bypass client, counts as busy throughout.
Where the soft interrupts of a device run depends on who sends: without threaded NAPI, what a server receives is handled
on the client's core.</p>
</div>
"#;

/// The whole page.
///
/// # Errors
///
/// A plot cannot be drawn.
pub(super) fn page(report: &Report) -> anyhow::Result<String> {
    let mut page = page::begin(
        "tidegate: comparison",
        "tidegate, nginx and the same application on the kernel's TCP, under the same client, in turn on the same core.",
    );
    let rows = report.rows();
    for client in ratios::clients(report) {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "<h2>{} client</h2>", client.name());
        tiles(&mut page, report, client);
        throughput(&mut page, &rows, client)?;
        latency(&mut page, &rows, client)?;
    }
    ceiling(&mut page, &rows)?;
    page.push_str("<h2>All figures</h2>\n");
    rows_table(&mut page, &rows);
    page.push_str(HOW_TO_READ);
    page::environment(&mut page, &report.environment);
    page.push_str(page::END);
    Ok(page)
}

fn tiles(page: &mut String, report: &Report, client: ClientKind) {
    page.push_str("<div class=\"tiles small\">\n");
    for Ratio { meaning, spread, .. } in table::shown(report, client) {
        let Some(spread) = spread else { continue };
        let what = format!("{meaning}; {:.2} to {:.2}", spread.min, spread.max);
        page::tile(page, &format!("{:.2}", spread.median), &what);
    }
    page.push_str("</div>\n");
}

/// What servers reach, and what it costs, for each load that goes as fast as it can.
fn throughput(page: &mut String, rows: &[Row<'_>], client: ClientKind) -> anyhow::Result<()> {
    let mut plots = String::new();
    for (load, title) in [
        (Load::Cps, "Connections per second"),
        (Load::Rps, "Requests per second"),
    ] {
        let rows = of_load(rows, load, client);
        if rows.is_empty() {
            continue;
        }
        figure(&mut plots, title, &plot::bars(&rate_bars(&rows))?);
        let costs = cost_bars(&rows);
        if !costs.is_empty() {
            let title = format!("CPU time of one, in microseconds, by core ({})", load.name());
            figure(&mut plots, &title, &plot::bars(&costs)?);
        }
    }
    if !plots.is_empty() {
        page::legend(page, PARTS);
        // Writing to a String cannot fail.
        let _ = writeln!(page, "<div class=\"plots\">\n{plots}</div>");
    }
    Ok(())
}

/// A quantile of the latency of a run, if latency was measured.
type Quantile = fn(&Run) -> Option<f64>;

fn latency(page: &mut String, rows: &[Row<'_>], client: ClientKind) -> anyhow::Result<()> {
    let rows = of_load(rows, Load::Latency, client);
    let Some(asked) = rows.first().and_then(|row| row.runs.first()?.asked_per_s) else {
        return Ok(());
    };
    let mut plots = String::new();
    let quantiles: [(&str, Quantile); 3] = [
        ("Half of all requests within", |run| Some(run.quantiles?.p50)),
        ("99 of 100 within", |run| Some(run.quantiles?.p99)),
        ("999 of 1000 within", |run| Some(run.quantiles?.p999)),
    ];
    for (title, quantile) in quantiles {
        let bar = |row: &&Row<'_>| {
            let spread = row.spread(quantile)?;
            Some(Bar {
                name: row.cell.target_name().to_owned(),
                pieces: vec![(colour(row.cell), spread.median)],
                spread: Some(spread),
                value: micros(Some(spread.median)),
            })
        };
        let bars: Vec<Bar> = rows.iter().filter_map(bar).collect();
        figure(&mut plots, title, &plot::bars(&bars)?);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(
        page,
        "<p>Latency at {asked} requests per second, from when each was due:</p>\n<div class=\"plots\">\n{plots}</div>"
    );
    Ok(())
}

/// tidegate's frames beside those of the bare reflect.
fn ceiling(page: &mut String, rows: &[Row<'_>]) -> anyhow::Result<()> {
    if !rows.iter().any(|row| matches!(row.cell, Cell::Reflect(_))) {
        return Ok(());
    }
    let tidegate = |load| Cell::Server {
        load,
        client: ClientKind::Bypass,
        target: Target::Tidegate,
    };
    let bars: Vec<Bar> = [
        (Cell::Reflect(Shape::Request), "reflect of requests"),
        (tidegate(Load::Rps), "tidegate rps"),
        (Cell::Reflect(Shape::Connection), "reflect of connections"),
        (tidegate(Load::Cps), "tidegate cps"),
    ]
    .into_iter()
    .filter_map(|(cell, name)| {
        let spread = rows.iter().find(|row| row.cell == cell)?.spread(Run::frames_per_s)?;
        Some(Bar {
            name: name.to_owned(),
            pieces: vec![(colour(cell), spread.median)],
            spread: Some(spread),
            value: short(spread.median),
        })
    })
    .collect();
    page.push_str("<h2>How far from the limit</h2>\n<div class=\"plots alone\">\n");
    figure(
        page,
        "Frames per second, received and sent, beside a bare AF_XDP reflect",
        &plot::bars(&bars)?,
    );
    page.push_str("</div>\n");
    Ok(())
}

fn of_load<'r, 'a>(rows: &'r [Row<'a>], load: Load, client: ClientKind) -> Vec<&'r Row<'a>> {
    let is_asked_for = |row: &&Row<'_>| match row.cell {
        Cell::Server {
            load: of_row,
            client: by,
            ..
        } => of_row == load && by == client,
        Cell::Reflect(_) => false,
    };
    rows.iter().filter(is_asked_for).collect()
}

fn rate_bars(rows: &[&Row<'_>]) -> Vec<Bar> {
    let bar = |row: &&Row<'_>| {
        let spread = row.per_s()?;
        Some(Bar {
            name: row.cell.target_name().to_owned(),
            pieces: vec![(colour(row.cell), spread.median)],
            spread: Some(spread),
            value: short(spread.median),
        })
    };
    rows.iter().filter_map(bar).collect()
}

/// Two bars for each server: its own core and the client's.
fn cost_bars(rows: &[&Row<'_>]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for row in rows {
        let Some(Usage { client, server, .. }) = row.usage() else {
            continue;
        };
        bars.push(cost_bar(row.cell.target_name().to_owned(), server));
        bars.push(cost_bar("its client".to_owned(), client));
    }
    bars
}

fn cost_bar(name: String, parts: Parts) -> Bar {
    let values = [parts.user, parts.system, parts.irq + parts.softirq];
    Bar {
        name,
        pieces: PARTS
            .iter()
            .zip(values)
            .map(|(&(colour, _), value)| (colour, value))
            .collect(),
        spread: None,
        value: format!("{:.2}", parts.total()),
    }
}

fn rows_table(page: &mut String, rows: &[Row<'_>]) {
    page::begin_table(page, &COLUMNS);
    for row in rows {
        let title = row
            .first_error()
            .map(|error| format!(" class=\"bad\" title=\"first error: {}\"", escape(error)))
            .unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(page, "<tr{title}>");
        for cell in table::cells(row) {
            let _ = write!(page, "<td>{}</td>", escape(&cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str(page::END_OF_TABLE);
}

#[cfg(test)]
mod tests {
    use super::super::samples::{report, run};
    use super::*;
    use crate::results::page::{assert_loads_nothing, assert_whole_with};

    #[test]
    fn the_page_has_a_plot_for_each_question() {
        let page = page(&report()).unwrap();
        // Rate and cost of cps and rps, three quantiles, and the limit.
        assert_eq!(page.matches("<svg").count(), 4 + 3 + 1);
        assert_eq!(page.matches("<tr>").count(), 1 + 11);
        assert_whole_with(
            &page,
            &[
                "<strong>3.00</strong>",
                "<strong>0.85</strong>",
                "510k",
                "its client",
                "102000 requests per second",
                "reflect of connections",
                "How to read this",
            ],
        );
    }

    #[test]
    fn the_page_loads_nothing_and_text_cannot_become_markup() {
        let mut report = report();
        report.runs[0].first_error = Some("\"<b>\"".to_owned());
        let page = page(&report).unwrap();
        assert_loads_nothing(&page);
        assert!(page.contains("6.1 &lt;script&gt;"));
        assert!(page.contains("title=\"first error: &quot;&lt;b&gt;&quot;\""));
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let mut report = Report::default();
        let cell = Cell::Server {
            load: Load::Rps,
            client: ClientKind::Kernel,
            target: Target::Nginx,
        };
        report.add(run(cell, 0, 1_000.0));
        let page = page(&report).unwrap();
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("<h2>kernel client</h2>"));
        assert!(!page.contains("How far from the limit"));
    }
}
