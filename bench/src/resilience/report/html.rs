//! The report as one HTML page that needs nothing but itself.

use std::fmt::Write;

use serde_json::Value;

use super::super::plan::{Family, Offered, Target};
use super::plot::{self, Line};
use super::table::{self, COLUMNS};
use super::{Report, Row};

/// Colours of the lines. They can be told apart on white, on black, and by most who do not see all colours.
const fn colour(target: Target) -> (u8, u8, u8) {
    match target {
        Target::TidegateAuto => (0, 122, 204),
        Target::TidegateNever => (86, 180, 233),
        Target::LinuxOnOverflow => (213, 94, 0),
        Target::LinuxAlways => (204, 121, 167),
    }
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tidegate: resilience under a SYN flood</title>
<style>
:root {
  color-scheme: light dark;
  --text: #1b1f24; --soft: #59636e; --page: #f6f8fa; --card: #ffffff; --line: #d8dee4; --bad: #b42318;
}
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --soft: #9198a1; --page: #0d1117; --card: #151b23; --line: #2f3742; --bad: #ff8a7a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .8rem; }
p { max-width: 75ch; }
.soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; }
.tiles, .plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.tile strong { display: block; font-size: 2rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
figure { margin: 0; color: var(--text); }
figcaption { font-weight: 600; margin-bottom: .3rem; }
svg { width: 100%; height: auto; display: block; }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; padding: 0; margin: 0 0 .8rem; }
ul.legend span { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .45em; }
.scroll { overflow-x: auto; padding: 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; }
tbody tr:last-child td { border-bottom: 0; }
tr.lost td:nth-child(5) { color: var(--bad); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
</style>
</head>
<body>
<main>
<h1>tidegate: resilience under a SYN flood</h1>
<p class="soft">SYNs from spoofed sources meet one server after the other, in one run, while clients connect and others
go on with what they have begun.</p>
"#;

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
    let mut page = HEAD.to_owned();
    tiles(&mut page, report);
    for family in report.families() {
        section(&mut page, report, family)?;
    }
    page.push_str(HOW_TO_READ);
    environment(&mut page, report);
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(page)
}

/// Both ratios, large.
fn tiles(page: &mut String, report: &Report) {
    page.push_str("<div class=\"tiles\">\n");
    for sentence in table::ratios(report) {
        if let Some((what, number)) = sentence.rsplit_once(": ") {
            // Writing to a String cannot fail.
            let _ = writeln!(
                page,
                "<div class=\"card tile\"><strong>{}</strong>{}</div>",
                escape(number),
                escape(what)
            );
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
    let lines = |value: &dyn Fn(&Row) -> Option<f64>| -> Vec<Line> {
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
    legend(page, &targets);
    let _ = writeln!(
        page,
        "<div class=\"plots\">\n<figure class=\"card\"><figcaption>Clients answered</figcaption>\n{success}</figure>\n\
         <figure class=\"card\"><figcaption>99 of 100 connected within</figcaption>\n{latency}</figure>\n</div>"
    );
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

fn legend(page: &mut String, targets: &[Target]) {
    page.push_str("<ul class=\"legend\">\n");
    for &target in targets {
        let (red, green, blue) = colour(target);
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "<li><span style=\"background:rgb({red},{green},{blue})\"></span>{}</li>",
            escape(target.name())
        );
    }
    page.push_str("</ul>\n");
}

fn rows_table(page: &mut String, rows: &[&Row]) {
    page.push_str("<div class=\"card scroll\"><table>\n<thead><tr>");
    for column in COLUMNS {
        // Writing to a String cannot fail.
        let _ = write!(page, "<th>{}</th>", escape(column));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        let class = if row.legit_ok < row.legit_tried {
            " class=\"lost\""
        } else {
            ""
        };
        let title = row
            .first_failure
            .as_ref()
            .map(|failure| format!(" title=\"first failure: {}\"", escape(failure)))
            .unwrap_or_default();
        let _ = write!(page, "<tr{class}{title}>");
        for cell in table::cells(row) {
            let _ = write!(page, "<td>{}</td>", escape(&cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
}

fn environment(page: &mut String, report: &Report) {
    page.push_str("<h2>Environment</h2>\n<dl class=\"card\">\n");
    for (name, value) in &report.environment {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "<dt>{}</dt><dd>{}</dd>",
            escape(&name.replace('_', " ")),
            escape(&text)
        );
    }
    page.push_str("</dl>\n");
}

/// `text` as it may stand in an element or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
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
        assert_eq!(page.matches("<tr class=\"lost\"").count(), 8);
        for text in [
            "IPv4",
            "IPv6",
            "<strong>5.00</strong>",
            "<strong>0.80</strong>",
            "990/1000",
            "2.40M",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(page.trim_end().ends_with("</html>"));
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = page(&report()).unwrap();
        let without_names = page.replace("http://www.w3.org/2000/svg", "");
        for text in ["http:", "https:", "url(", "<link", "<script", "@import", " src="] {
            assert!(!without_names.contains(text), "{text}");
        }
    }

    #[test]
    fn text_cannot_become_markup() {
        let page = page(&report()).unwrap();
        assert!(page.contains("6.1 &lt;script&gt;"));
        assert_eq!(escape("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
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
