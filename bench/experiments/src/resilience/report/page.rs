//! The page of a resilience test.

use tidegate_lab::Family;
use tidegate_report::{Line, Lines, Page, Report, Row, Scale, Section, XAxis, YAxis};

use super::super::plan::{Offered, Target};
use super::row::COLUMNS;
use super::{Results, limits_text};

const HOW_TO_READ: &[&str] = &[
    "Each row is one server under one flood. The servers take turns within each rate, and each time another one is the \
     first. **offered/s** is what the generator sent, **answered/s** the SYN-ACKs that came back to the spoofed \
     sources. What a bare XDP program sends back or drops, with the same generator and the same cores, is the most any \
     server could do there.",
    "**clients ok** counts the clients that connected, asked and got the whole answer in time; they send their SYN \
     again as often as the kernel's TCP does. Latencies are from a client's first SYN, of the clients that got that \
     far, so read them beside the share of those that did. **core** is how busy the server's core was, **RSS** what \
     the server's resident memory grew by during the flood, with all clients in it. **open MB/s** is the throughput of \
     connections that were open before, first without the flood and then during it; their rate is bounded (see the \
     environment), and they compare every byte.",
    "The charts have one step for each rate, so the distance between two of them means nothing. A line has no point \
     where no client connected.",
];

/// Returns the page of `report`, which is that of `results`.
pub(super) fn page(results: &Results, report: &Report) -> Page {
    let tiles = results.ratio_texts().map(|(what, number)| (number, what.to_owned()));
    let mut sections = vec![Section::Tiles(tiles.into())];
    for family in results.families() {
        sections.extend(of_family(results, report, family));
    }
    sections.push(Section::HowToRead(HOW_TO_READ));
    Page {
        title: "tidegate: resilience under a SYN flood".to_owned(),
        introduction:
            "SYNs from spoofed sources meet one server after the other, in one run, while clients connect and \
                       others go on with what they have begun."
                .to_owned(),
        sections,
    }
}

fn of_family(results: &Results, report: &Report, family: Family) -> Vec<Section> {
    let rows = report.rows_with(&[("family", family.name())]);
    let mut rates: Vec<Offered> = results
        .rows
        .iter()
        .filter(|row| row.family == family)
        .map(|row| row.offered)
        .collect();
    rates.sort_unstable();
    rates.dedup();
    let names: Vec<String> = rates.iter().map(|rate| rate.name()).collect();
    let chart = |title: &str, y: YAxis, value: &dyn Fn(&Row) -> Option<f64>| {
        let lines = Target::ALL
            .iter()
            .filter_map(|target| line(report, family, target.name(), &names, value))
            .collect();
        Section::Lines(Lines {
            title: title.to_owned(),
            x: XAxis {
                title: "offered SYN/s",
                names: Some(names.clone()),
            },
            y,
            lines,
        })
    };
    let answered = YAxis {
        title: "clients answered",
        scale: Scale::Percent,
    };
    let connect = YAxis {
        title: "connect p99",
        scale: Scale::Micros,
    };
    let mut sections = vec![
        Section::Heading(family.title().to_owned()),
        chart("Clients answered", answered, &|row| {
            let tried = row.number("legit_tried")?;
            Some(row.number("legit_ok")? / tried.max(1.0) * 100.0)
        }),
        chart("99 of 100 connected within", connect, &|row| {
            row.number("connect_p99_us")
        }),
    ];
    if let Some(limits) = limits_text(family, results.limits(family)) {
        sections.push(Section::Text(format!("{limits}.")));
    }
    let failures: Vec<(String, String)> = rows
        .iter()
        .filter_map(|&row| {
            let row = &report.rows[row];
            row.get("first_failure")?;
            Some((row.fill("{target}, {rate} SYN/s"), row.fill("{first_failure}")))
        })
        .collect();
    sections.push(Section::Table { columns: COLUMNS, rows });
    if !failures.is_empty() {
        sections.push(Section::Text(format!(
            "The first client of each that failed, {}:",
            family.title()
        )));
        sections.push(Section::Facts(failures));
    }
    sections
}

/// Returns the line of a target: the index of each rate and the value; `None` if the target was not measured.
fn line(
    report: &Report,
    family: Family,
    target: &str,
    rates: &[String],
    value: &dyn Fn(&Row) -> Option<f64>,
) -> Option<Line> {
    let of_target = [("family", family.name()), ("target", target)];
    if report.rows_with(&of_target).is_empty() {
        return None;
    }
    let mut points = Vec::new();
    for (index, rate) in rates.iter().enumerate() {
        let rows = report.rows_with(&[of_target[0], of_target[1], ("rate", rate)]);
        if let Some(value) = rows.first().and_then(|&row| value(&report.rows[row])) {
            points.push((index as f64, value));
        }
    }
    Some(Line {
        name: target.to_owned(),
        points,
    })
}

#[cfg(test)]
mod tests {
    use tidegate_report::testing::assert_report;

    use super::super::samples::report;
    use super::*;

    #[test]
    fn the_page_has_a_pair_of_charts_and_a_table_for_each_family() {
        let report = report().report();
        assert_report("resilience", &report);
        let count = |is: fn(&Section) -> bool| report.page.sections.iter().filter(|section| is(section)).count();
        assert_eq!(count(|section| matches!(section, Section::Lines(_))), 4);
        assert_eq!(
            count(|section| matches!(section, Section::Table { rows, .. } if rows.len() == 4)),
            2
        );
        let Section::Tiles(tiles) = &report.page.sections[0] else {
            panic!("{:?}", report.page.sections[0]);
        };
        assert_eq!((&tiles[0].0[..], &tiles[1].0[..]), ("5.00", "0.80"));
        let html = report.html();
        for text in [
            "IPv4: a bare XDP program sends back 3.00M SYN/s",
            "no connection within 10 s",
        ] {
            assert!(html.contains(text), "{text}");
        }
        assert_eq!(
            report
                .rows
                .iter()
                .filter(|row| row.number("legit_failed") > Some(0.0))
                .count(),
            8
        );
    }

    #[test]
    fn lines_have_no_point_where_nothing_was_measured() {
        let report = report().report();
        let rates = ["0", "7", "max"].map(str::to_owned);
        let p99 = |row: &Row| row.number("connect_p99_us");
        let line = |target: Target| line(&report, Family::V4, target.name(), &rates, &p99);
        assert_eq!(
            line(Target::TidegateAuto).unwrap().points,
            [(0.0, 1_200.0), (2.0, 1_200.0)]
        );
        assert_eq!(line(Target::LinuxOnOverflow).unwrap().points, [(0.0, 1_200.0)]);
        assert_eq!(line(Target::LinuxAlways), None);
    }
}
