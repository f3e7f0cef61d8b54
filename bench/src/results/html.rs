//! The results of a run, or of several that were merged, as one HTML page that needs nothing but itself.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::Run;
use super::facts::facts;
use super::merge::{self, Merged};
use super::page::{self, Colour, escape};
use super::plot::{self, COLOURS};
use crate::client::Workload;

const HOW_TO_READ: &str = r#"<h2>How to read this</h2>
<div class="card">
<p>The plot shows which part of all latencies is at most how long. Each step to the right leaves a tenth of what was
left before, so rare delays have as much room as common ones; each step up is ten times as long. A flat line is a
server that treats all alike. A line ends at the longest of all that were counted.</p>
<p>A latency is counted from the beginning of a request until its last byte; of <b>cps</b> from the SYN; of
<b>latency</b> from when the request was due, so that a server that stands still for a second is seen as slow by all
who would have come in that second. <b>connect</b> is from the SYN until the connection is established.</p>
</div>
"#;

/// The page of `run`.
///
/// # Errors
///
/// The plot cannot be drawn.
pub(super) fn of_run(run: &Run) -> anyhow::Result<String> {
    let title = format!("tidegate-bench {}: {}", run.workload(), run.target());
    let facts = facts(run);
    let introduction = facts
        .iter()
        .find_map(|(name, phrase)| (*name == "workload").then_some(phrase.as_str()));
    let mut page = page::begin(&title, introduction.unwrap_or_default());
    page.push_str("<div class=\"tiles small\">\n");
    let errors = run.measured.errors.total();
    for (number, what) in tiles(run) {
        page::tile(&mut page, &number, &what);
    }
    page::tile(&mut page, &errors.to_string(), "errors");
    page.push_str("</div>\n");
    plot(&mut page, &run.distributions())?;
    page.push_str("<h2>Results</h2>\n");
    page::list(&mut page, facts.iter().map(|(name, phrase)| (*name, phrase.as_str())));
    page.push_str(HOW_TO_READ);
    page::environment(&mut page, &run.environment);
    page.push_str(page::END);
    Ok(page)
}

/// The numbers a reader looks for first, and what they are.
fn tiles(run: &Run) -> Vec<(String, String)> {
    let mut tiles = vec![match run.plan.workload {
        Workload::Throughput { .. } => (format!("{:.3}", run.value() * 8.0 / 1e9), "Gbit/s".to_owned()),
        _ => (format!("{:.0}", run.value()), run.unit().to_owned()),
    }];
    let latency = &run.measured.latency;
    if latency.len() > 0 {
        for (quantile, name) in [(0.5, "p50"), (0.99, "p99")] {
            tiles.push((
                format!("{:.1} us", latency.quantile_us(quantile)),
                format!("{name} latency"),
            ));
        }
    }
    tiles
}

/// The page of runs that were merged from `files`.
///
/// # Errors
///
/// The plot cannot be drawn.
pub(super) fn of_merged(merged: &Merged, files: &[String]) -> anyhow::Result<String> {
    let mut page = page::begin(
        "tidegate-bench: merged latencies",
        &format!("The interval logs of {} files, put together by tag.", files.len()),
    );
    let distributions: Vec<(&str, &Histogram<u64>)> = merged.histograms().collect();
    plot(&mut page, &distributions)?;
    let cells = |tag: &str, row: [&str; merge::COLUMNS.len()]| -> String {
        row.iter()
            .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)))
            .collect()
    };
    page.push_str("<h2>Results</h2>\n<div class=\"card scroll\"><table>\n");
    // Writing to a String cannot fail.
    let _ = writeln!(page, "<thead><tr>{}</tr></thead><tbody>", cells("th", merge::COLUMNS));
    for row in merged.rows() {
        let _ = writeln!(page, "<tr>{}</tr>", cells("td", row.each_ref().map(String::as_str)));
    }
    page.push_str("</tbody></table></div>\n");
    page.push_str(HOW_TO_READ);
    page.push_str("<h2>Files</h2>\n<ul class=\"card\">\n");
    for file in files {
        let _ = writeln!(page, "<li>{}</li>", escape(file));
    }
    page.push_str("</ul>\n");
    page.push_str(page::END);
    Ok(page)
}

/// One plot with a line for each distribution that has values, and which is which.
fn plot(page: &mut String, distributions: &[(&str, &Histogram<u64>)]) -> anyhow::Result<()> {
    let shown: Vec<(Colour, &str, &Histogram<u64>)> = COLOURS
        .into_iter()
        .cycle()
        .zip(distributions.iter().filter(|(_, histogram)| !histogram.is_empty()))
        .map(|(colour, &(name, histogram))| (colour, name, histogram))
        .collect();
    if shown.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = shown
        .iter()
        .map(|&(colour, _, histogram)| plot::line(histogram, colour))
        .collect();
    let svg = plot::percentiles(&lines)?;
    page.push_str("<h2>Latency by percentile</h2>\n");
    page::legend(page, shown.iter().map(|&(colour, name, _)| (colour, name)));
    // Writing to a String cannot fail.
    let _ = writeln!(page, "<figure class=\"card\">\n{svg}</figure>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples::run;
    use super::*;
    use crate::client::Direction;
    use crate::client::errors::Kind;
    use crate::client::latency::Latencies;

    #[test]
    fn the_page_has_the_numbers_a_plot_and_the_environment() {
        let mut run = run(Workload::Rps { pipeline: 1 });
        run.measured.errors.add(Kind::Reset, "reset <by> peer");
        let page = of_run(&run).unwrap();
        page::assert_loads_nothing(&page);
        assert_eq!(page.matches("<svg").count(), 1);
        page::assert_whole_with(
            &page,
            &[
                "<strong>500</strong>requests/s",
                "<strong>1</strong>errors",
                "p99 latency",
                "</span>latency</li>",
                "</span>connect</li>",
                "reset &lt;by&gt; peer",
                "<dt>kernel</dt><dd>6.1 &lt;script&gt;</dd>",
                "http://198.18.0.1:80/x",
            ],
        );
    }

    #[test]
    fn what_has_no_values_is_not_plotted() {
        let mut run = run(Workload::Throughput {
            direction: Direction::Up,
        });
        run.measured.connect = Latencies::new();
        let page = of_run(&run).unwrap();
        assert!(page.contains("</span>latency</li>") && !page.contains("</span>connect</li>"));
        run.measured.latency = Latencies::new();
        let page = of_run(&run).unwrap();
        assert!(!page.contains("<svg") && page.contains("Gbit/s") && !page.contains("p99 latency"));
    }

    #[test]
    fn merged_runs_have_a_line_and_a_row_for_each_tag() {
        let run = run(Workload::Hold);
        let log = String::from_utf8(run.log().unwrap()).unwrap();
        let mut merged = Merged::default();
        merged.add(&log).unwrap();
        let page = of_merged(&merged, &["<one>.hlog".to_owned()]).unwrap();
        page::assert_loads_nothing(&page);
        assert_eq!(page.matches("<svg").count(), 1);
        assert_eq!(page.matches("<tr>").count(), 3);
        assert_eq!(page.matches("<thead>").count(), 1);
        page::assert_whole_with(&page, &["</span>connect</li>", "<td>latency</td>", "&lt;one&gt;.hlog"]);
    }
}
