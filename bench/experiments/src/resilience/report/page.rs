//! The page of a resilience test.

use tidegate_lab::Family;
use tidegate_report::{Bar, Bars, Line, Lines, Page, Report, Row, Scale, Section, XAxis, YAxis};

use super::super::attack::Attack;
use super::super::plan::{Offered, Target};
use super::Results;
use super::row::{COLUMNS, SUMMARY};

/// The rate that stands for an attack, if it was measured.
const USUAL: Offered = Offered::Pps(1_000_000);

const HOW_TO_READ: &[&str] = &[
    "Each row is one server under one attack; the first table has one for each server and attack. The servers take turns \
     within each rate, and each time another one is the first. **offered/s** is what the generator sent, or the \
     connections it began, **kept** those it had in the end, **taken/s** the frames that the server's device took in, \
     with those of the clients, **answered/s** the SYN-ACKs that came back to the addresses of the attack, **out/in** \
     the octets that went to these for each taken in. What a bare XDP program sends back or drops, with the same \
     generator and the same cores, is the most any server could do there.",
    "**unnoticed/s** is the highest rate at which 99.9 % of the clients are served and 99 % connect within three times \
     what it takes without an attack, or 2 ms if that is more: found by bisection, and stood with two of three seeds. \
     **of bare** is that in the same figure of a bare program before the same server, which drops the attack by its \
     addresses and leaves the rest to it: what the ring loses there, no program can save.",
    "**clients ok** counts the clients that connected, asked and got the whole answer in time; they send their SYN \
     again as often as the kernel's TCP does. Latencies are from a client's first SYN, of the clients that got that \
     far, so read them beside the share of those that did; **first byte** is that of 99 of 100. **again** is the time \
     from the begin of the attack until ten clients in a row, one after the other, are served within 0.1 s each, \
     **after end** the same from its end. **core** is how busy the server's core was, **RSS** the server's resident \
     memory in megabytes, or what it grew by during the attack, with all clients in it. **open MB/s** is the throughput \
     of connections that were open before, first without the attack and then during it, **open** the second in the \
     first; their rate is bounded (see the environment), and they compare every byte.",
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
        title: "tidegate: resilience under attack".to_owned(),
        introduction:
            "Attacks meet one server after the other, in one run, while clients connect and others go on with \
                       what they have begun."
                .to_owned(),
        sections,
    }
}

fn of_family(results: &Results, report: &Report, family: Family) -> Vec<Section> {
    let mut sections = vec![
        Section::Heading(family.title().to_owned()),
        Section::Table {
            columns: SUMMARY,
            rows: summary(report, family),
        },
    ];
    sections.extend(scores(report, family));
    let sentences = results.limits_text(family);
    if !sentences.is_empty() {
        sections.push(Section::Text(format!("{}.", sentences.join(". "))));
    }
    for attack in results.attacks() {
        sections.extend(charts(results, report, family, attack));
    }
    let rows = report.rows_with(&[("family", family.name())]);
    let failures: Vec<(String, String)> = rows
        .iter()
        .filter_map(|&row| {
            let row = &report.rows[row];
            row.get("first_failure")?;
            Some((row.fill("{attack}, {target}, {rate}/s"), row.fill("{first_failure}")))
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

/// One row for each target and attack: that of the usual rate, else that of the highest.
pub(super) fn summary(report: &Report, family: Family) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    for row in report.rows_with(&[("family", family.name())]) {
        let key = |row: usize| [report.rows[row].get("attack"), report.rows[row].get("target")];
        match chosen.iter_mut().find(|other| key(**other) == key(row)) {
            // Rows are in the order of their rates.
            Some(other) if report.rows[*other].fill("{rate}") != USUAL.name() => *other = row,
            Some(_) => {}
            None => chosen.push(row),
        }
    }
    chosen
}

/// The scores of tidegate as bars, each beside that of the bare filter.
fn scores(report: &Report, family: Family) -> Option<Section> {
    let mut rows = summary(report, family);
    rows.retain(|&row| {
        let row = &report.rows[row];
        row.fill("{target}") == Target::TidegateAuto.name() && row.get("bare_score_per_s").is_some()
    });
    let bar = |label, series, value| Bar {
        label,
        series,
        values: vec![value],
    };
    (!rows.is_empty()).then(|| {
        Section::Bars(Bars {
            title: "The highest rate that clients do not notice".to_owned(),
            rows,
            bars: vec![
                bar("{attack}, tidegate", "tidegate", "score_per_s"),
                bar("{attack}, bare filter", "bare filter before it", "bare_score_per_s"),
            ],
            pieces: None,
            format: "short",
        })
    })
}

/// The pair of charts of an attack that was measured at several rates.
fn charts(results: &Results, report: &Report, family: Family, attack: Attack) -> Vec<Section> {
    let mut rates: Vec<Offered> = results
        .rows
        .iter()
        .filter(|row| row.family == family && row.attack.is_none_or(|other| other == attack))
        .map(|row| row.offered)
        .collect();
    rates.sort_unstable();
    rates.dedup();
    // Without an attack, and two more.
    if rates.len() < 3 {
        return Vec::new();
    }
    let names: Vec<String> = rates.iter().map(|rate| rate.name()).collect();
    let chart = |title: &str, y: YAxis, value: &dyn Fn(&Row) -> Option<f64>| {
        let lines = Target::ALL
            .iter()
            .filter_map(|target| line(report, [family.name(), attack.name(), target.name()], &names, value))
            .collect();
        Section::Lines(Lines {
            title: format!("{title}: {}", attack.name()),
            x: XAxis {
                title: "offered/s",
                names: Some(names.clone()),
                scale: None,
            },
            y,
            lines,
            marks: Vec::new(),
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
    vec![
        chart("Clients answered", answered, &|row| {
            let tried = row.number("legit_tried")?;
            Some(row.number("legit_ok")? / tried.max(1.0) * 100.0)
        }),
        chart("99 of 100 connected within", connect, &|row| {
            row.number("connect_p99_us")
        }),
    ]
}

/// Returns the line of a target: the index of each rate and the value; `None` if the target did not meet the attack.
fn line(
    report: &Report,
    [family, attack, target]: [&str; 3],
    rates: &[String],
    value: &dyn Fn(&Row) -> Option<f64>,
) -> Option<Line> {
    let of_target = [("family", family), ("target", target)];
    if report
        .rows_with(&[of_target[0], of_target[1], ("attack", attack)])
        .is_empty()
    {
        return None;
    }
    let mut points = Vec::new();
    for (index, rate) in rates.iter().enumerate() {
        let rows = [attack, "none"]
            .map(|attack| report.rows_with(&[of_target[0], of_target[1], ("attack", attack), ("rate", rate)]));
        if let Some(value) = rows.iter().flatten().next().and_then(|&row| value(&report.rows[row])) {
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
    fn the_page_has_a_line_for_each_target_and_attack() {
        let report = report().report();
        assert_report("resilience", &report);
        let rows = |section: &Section| match section {
            Section::Table { rows, .. } => Some(rows.len()),
            _ => None,
        };
        let tables: Vec<usize> = report.page.sections.iter().filter_map(rows).collect();
        // Without an attack two, of SYNs two, of ACKs one; then all rows.
        assert_eq!(tables, [5, 6, 4, 4]);
        let usual = &report.rows[summary(&report, Family::V4)[4]];
        assert_eq!(usual.fill("{attack} {rate}"), "ack 1M");
        let count = |is: fn(&Section) -> bool| report.page.sections.iter().filter(|section| is(section)).count();
        // Only ACKs were measured at two rates.
        assert_eq!(count(|section| matches!(section, Section::Lines(_))), 2);
        assert_eq!(
            count(|section| matches!(section, Section::Bars(bars) if bars.rows.len() == 1)),
            1
        );
        let Section::Tiles(tiles) = &report.page.sections[0] else {
            panic!("{:?}", report.page.sections[0]);
        };
        assert_eq!((&tiles[0].0[..], &tiles[1].0[..]), ("5.00", "0.80"));
        let html = report.html();
        for text in [
            "IPv4, syn: a bare XDP program sends back 3.00M/s",
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
            10
        );
    }

    #[test]
    fn lines_have_no_point_where_nothing_was_measured() {
        let report = report().report();
        let rates = ["0", "7", "max"].map(str::to_owned);
        let p99 = |row: &Row| row.number("connect_p99_us");
        let line = |target: Target| line(&report, ["ipv4", "syn", target.name()], &rates, &p99);
        assert_eq!(
            line(Target::TidegateAuto).unwrap().points,
            [(0.0, 1_200.0), (2.0, 1_200.0)]
        );
        assert_eq!(line(Target::LinuxOnOverflow).unwrap().points, [(0.0, 1_200.0)]);
        assert_eq!(line(Target::LinuxAlways), None);
    }
}
