//! The page of a comparison.

use tidegate_report::{Bar, Bars, Page, Report, Section};

use super::super::plan::{ClientKind, Load};
use super::ratios::{self, Ratio};
use super::row::COLUMNS;
use super::{Results, first_errors};

const HOW_TO_READ: &[&str] = &[
    "All servers send the same file from memory, and are asked by the same client with the same octets. They take \
     sessions: each round starts and stops one after the other, and a ratio is that of two runs of the same round. Bars \
     are medians; the line over a bar's end goes from the lowest to the highest run.",
    "**cps** is connections per second, one request each; the environment says who closed them. **rps** is requests \
     per second on connections that stay open, one under way on each. **latency** is measured at half of what \
     serve-kernel reaches under rps, from when a request was due. **reflect** is two loops that send frames as long as \
     these to and fro over AF_XDP, without any protocol: no server on AF_XDP can do more there.",
    "**CPU us/op** is processor time for each connection, request or frame: all of both cores, the client's included. \
     Who waits by spinning is never idle, so a core of tidegate, and that of the bypass client, counts as busy \
     throughout. Where the soft interrupts of a device run depends on who sends: without threaded NAPI, what a server \
     receives is handled on the client's core.",
];

/// Returns the page of `report`, which is that of `results`.
pub(super) fn page(results: &Results, report: &Report) -> Page {
    let mut sections = Vec::new();
    for client in ratios::clients(results) {
        sections.push(Section::Heading(format!("{} client", client.name())));
        sections.push(Section::Tiles(
            ratios::shown(results, client).into_iter().map(tile).collect(),
        ));
        for (load, title) in [
            (Load::Cps, "Connections per second"),
            (Load::Rps, "Requests per second"),
        ] {
            sections.extend(throughput(report, load, client, title));
        }
        sections.extend(latency(report, client));
    }
    sections.extend(ceiling(report));
    sections.push(Section::Heading("All figures".to_owned()));
    sections.push(Section::Table {
        columns: COLUMNS,
        rows: (0..report.rows.len()).collect(),
    });
    let errors: Vec<(String, String)> = first_errors(results)
        .map(|(title, error)| (title, error.to_owned()))
        .collect();
    if !errors.is_empty() {
        sections.push(Section::Heading("The first error of each".to_owned()));
        sections.push(Section::Facts(errors));
    }
    sections.push(Section::HowToRead(HOW_TO_READ));
    Page {
        title: "tidegate: comparison".to_owned(),
        introduction:
            "tidegate, nginx and the same application on the kernel's TCP, under the same client, in turn on \
                       the same core."
                .to_owned(),
        sections,
    }
}

fn tile(Ratio { meaning, spread, .. }: Ratio) -> (String, String) {
    spread.map_or_else(
        || ("-".to_owned(), meaning.to_owned()),
        |spread| {
            let what = format!("{meaning}; {:.2} to {:.2}", spread.min, spread.max);
            (format!("{:.2}", spread.median), what)
        },
    )
}

fn of_load(report: &Report, load: Load, client: ClientKind) -> Vec<usize> {
    report.rows_with(&[("workload", load.name()), ("client", client.name())])
}

/// Returns the charts of the rate of a load and of its cost: two bars for each server, its own core and the client's.
fn throughput(report: &Report, load: Load, client: ClientKind, title: &str) -> Vec<Section> {
    let rows = of_load(report, load, client);
    if rows.is_empty() {
        return Vec::new();
    }
    let mut sections = vec![Section::Bars(Bars::of_targets(title, rows.clone(), "value", "short"))];
    if rows
        .iter()
        .any(|&row| report.rows[row].get("cpu_us_per_op_by_core").is_some())
    {
        sections.push(Section::Bars(Bars {
            title: format!("CPU time of one, in microseconds, by core ({})", load.name()),
            rows,
            bars: vec![
                Bar {
                    label: "{target}",
                    series: "{target}",
                    values: vec![
                        "cpu_us_per_op_by_core.server.user",
                        "cpu_us_per_op_by_core.server.system",
                        "cpu_us_per_op_by_core.server.irq+cpu_us_per_op_by_core.server.softirq",
                    ],
                },
                Bar {
                    label: "its client",
                    series: "{target}",
                    values: vec![
                        "cpu_us_per_op_by_core.client.user",
                        "cpu_us_per_op_by_core.client.system",
                        "cpu_us_per_op_by_core.client.irq+cpu_us_per_op_by_core.client.softirq",
                    ],
                },
            ],
            pieces: Some(vec!["user", "system", "interrupts, mostly soft ones (NAPI)"]),
            format: "2",
        }));
    }
    sections
}

fn latency(report: &Report, client: ClientKind) -> Vec<Section> {
    let rows = of_load(report, Load::Latency, client);
    let Some(asked) = rows.first().and_then(|&row| report.rows[row].number("asked_per_s")) else {
        return Vec::new();
    };
    let mut sections = vec![Section::Text(format!(
        "Latency at {asked:.0} requests per second, from when each was due:"
    ))];
    sections.extend(
        [
            ("Half of all requests within", "p50_us"),
            ("99 of 100 within", "p99_us"),
            ("999 of 1000 within", "p999_us"),
        ]
        .map(|(title, path)| Section::Bars(Bars::of_targets(title, rows.clone(), path, "us"))),
    );
    sections
}

/// Returns the chart of tidegate's frames beside those of the bare reflect.
fn ceiling(report: &Report) -> Vec<Section> {
    let reflect = |workload| report.rows_with(&[("workload", workload), ("client", "af-xdp")]);
    let tidegate = |load: Load| {
        let client = ClientKind::Bypass.name();
        report.rows_with(&[("workload", load.name()), ("client", client), ("target", "tidegate")])
    };
    let (requests, connections) = (reflect("reflect"), reflect("reflect-connection"));
    if requests.is_empty() && connections.is_empty() {
        return Vec::new();
    }
    let rows = [requests, tidegate(Load::Rps), connections, tidegate(Load::Cps)].concat();
    let bar = Bar {
        label: "{target}, {workload}",
        series: "{target}",
        values: vec!["frames_per_second"],
    };
    vec![
        Section::Heading("How far from the limit".to_owned()),
        Section::Bars(Bars {
            title: "Frames per second, received and sent, beside a bare AF_XDP reflect".to_owned(),
            rows,
            bars: vec![bar],
            pieces: None,
            format: "short",
        }),
    ]
}

#[cfg(test)]
mod tests {
    use tidegate_report::testing::assert_report;

    use super::super::samples::{report, run};
    use super::*;
    use crate::compare::plan::{Case, Target};

    /// The titles and rows of the charts.
    fn charts(page: &Page) -> Vec<(&str, &[usize])> {
        let sections = page.sections.iter();
        let charts = sections.filter_map(|section| match section {
            Section::Bars(bars) => Some((&bars.title[..], &bars.rows[..])),
            _ => None,
        });
        charts.collect()
    }

    #[test]
    fn the_page_has_a_chart_for_each_question() {
        let report = report().report();
        assert_report("compare", &report);
        let charts = charts(&report.page);
        // Rate and cost of cps and rps, three quantiles, and the limit.
        assert_eq!(charts.len(), 4 + 3 + 1);
        assert_eq!(charts[0], ("Connections per second", &[0, 1, 2][..]));
        assert_eq!(charts[7].1, [9, 3, 10, 0]);
        let tiles = report.page.sections.iter().find_map(|section| match section {
            Section::Tiles(tiles) => Some(tiles.iter().map(|(number, _)| &number[..]).collect::<Vec<_>>()),
            _ => None,
        });
        assert_eq!(tiles.unwrap(), ["4.00", "2.50", "3.00", "2.50", "0.50", "0.85", "0.16"]);
        let html = report.html();
        for text in ["102000 requests per second", "How to read this", "All figures"] {
            assert!(html.contains(text), "{text}");
        }
    }

    #[test]
    fn the_first_errors_are_on_the_page() {
        let mut results = report();
        results.runs[0].errors = 1;
        results.runs[0].first_error = Some("\"<b>\"".to_owned());
        let report = results.report();
        let expected = ("tidegate cps (bypass)".to_owned(), "\"<b>\"".to_owned());
        let is_told = |section: &Section| matches!(section, Section::Facts(facts) if facts[..] == [expected.clone()]);
        assert!(report.page.sections.iter().any(is_told));
        assert_report("compare-with-errors", &report);
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let mut results = Results::default();
        let case = Case::Server {
            load: Load::Rps,
            client: ClientKind::Kernel,
            target: Target::Nginx,
        };
        results.add(run(case, 0, 1_000.0));
        let report = results.report();
        assert_eq!(charts(&report.page).len(), 2);
        let html = report.html();
        assert!(html.contains("kernel client") && !html.contains("How far from the limit"));
    }
}
