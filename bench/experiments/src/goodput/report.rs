//! The results of a run.

use serde_json::{Map, Value};
use tidegate_report::format::three_digits;
use tidegate_report::{Bar, Bars, Column, Page, Report, Row, Section, Spread};

/// The columns of the table.
const COLUMNS: &[Column] = &[
    Column::name("link", "{link}"),
    Column::name("direction", "{direction}"),
    Column::figure("tidegate", "{tidegate:2} ({tidegate_min:2}-{tidegate_max:2})"),
    Column::figure("Linux", "{linux:2} ({linux_min:2}-{linux_max:2})"),
    Column::figure("ratio", "{ratio:2}"),
];

const HOW_TO_READ: &[&str] = &[
    "A Linux client is on one side of the link, tidegate and a server on the kernel's TCP are on the other. The same \
     client measures both in turn, and each transfer has the link for itself. The links of one run lose the same \
     frames for both servers. Bars are medians; the line over a bar's end goes from the lowest to the highest run.",
    "**ratio** is tidegate's median in that of Linux: above 1, tidegate is faster. **server to client** is a download, \
     **client to server** an upload; the other end is Linux in both.",
];

/// The direction of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The server under test sends, a Linux client receives.
    Down,
    /// A Linux client sends, the server under test receives.
    Up,
}

impl Direction {
    /// Both, in the order they are measured.
    pub(super) const BOTH: [Self; 2] = [Self::Down, Self::Up];

    /// Returns its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Down => "server to client",
            Self::Up => "client to server",
        }
    }
}

/// The goodput of both servers over one kind of link in one direction, in Mbit/s, a value for each run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transfers {
    /// The kind of link.
    pub(super) condition: String,
    /// The direction of the data.
    pub(super) direction: Direction,
    /// The seed of the link of each run.
    pub(super) seeds: Vec<u64>,
    /// Between tidegate and Linux.
    pub(super) tidegate: Vec<f64>,
    /// Between Linux and Linux.
    pub(super) linux: Vec<f64>,
}

impl Transfers {
    /// Returns tidegate's median as a part of Linux's; `None` if one of them was not measured.
    fn ratio(&self) -> Option<f64> {
        Some(spread(&self.tidegate)?.median / spread(&self.linux)?.median)
    }

    fn row(&self) -> Row {
        Row::new()
            .with("link", self.condition.as_str())
            .with("direction", self.direction.name())
            .with("seeds", self.seeds.as_slice())
            .with("tidegate_mbits_per_second", self.tidegate.as_slice())
            .with("linux_mbits_per_second", self.linux.as_slice())
            .with_spread("tidegate", spread(&self.tidegate))
            .with_spread("linux", spread(&self.linux))
            .with("ratio", self.ratio().map(three_digits))
    }
}

fn spread(values: &[f64]) -> Option<Spread> {
    Spread::of(values.iter().copied())
}

/// Returns the report of `rows`. `setting` is a sentence that says how they were measured.
pub(super) fn report(environment: Map<String, Value>, setting: String, rows: &[Transfers]) -> Report {
    let mut report = Report {
        kind: "goodput",
        environment,
        rows: rows.iter().map(Transfers::row).collect(),
        ..Report::default()
    };
    let all: Vec<usize> = (0..report.rows.len()).collect();
    report.text = format!("{setting}\n{}", report.table(COLUMNS, &all));
    let mut sections: Vec<Section> = Direction::BOTH
        .iter()
        .filter_map(|direction| chart(&report, *direction))
        .collect();
    sections.extend([
        Section::Heading("All figures".to_owned()),
        Section::Table {
            columns: COLUMNS,
            rows: all,
        },
        Section::HowToRead(HOW_TO_READ),
    ]);
    report.page = Page {
        title: "tidegate: goodput over impaired links".to_owned(),
        introduction: setting,
        sections,
    };
    report
}

fn chart(report: &Report, direction: Direction) -> Option<Section> {
    let rows = report.rows_with(&[("direction", direction.name())]);
    let bar = |label, series, path| Bar {
        label,
        series,
        values: vec![path],
    };
    (!rows.is_empty()).then(|| {
        Section::Bars(Bars {
            title: format!("Mbit/s, {}", direction.name()),
            rows,
            bars: vec![
                bar("{link}: tidegate", "tidegate", "tidegate"),
                bar("Linux", "Linux", "linux"),
            ],
            pieces: None,
            format: "2",
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_report::testing;

    use super::*;

    fn row(tidegate: &[f64], linux: &[f64]) -> Transfers {
        Transfers {
            condition: "loss 1%".to_owned(),
            direction: Direction::Up,
            seeds: (5..).take(tidegate.len().max(linux.len())).collect(),
            tidegate: tidegate.to_vec(),
            linux: linux.to_vec(),
        }
    }

    fn report(rows: &[Transfers]) -> Report {
        super::report(testing::environment(), "Goodput in Mbit/s".to_owned(), rows)
    }

    #[test]
    fn a_row_shows_medians_spread_and_ratio() {
        let text = report(&[row(&[8.0, 10.0, 9.0], &[10.0, 10.0, 12.0])]).text;
        assert!(text.starts_with("Goodput in Mbit/s\n"), "{text}");
        assert!(text.contains("loss 1%"), "{text}");
        assert!(text.contains("client to server"), "{text}");
        assert!(text.contains("9.00 (8.00-10.00)"), "{text}");
        assert!(text.contains("10.00 (10.00-12.00)"), "{text}");
        assert!(text.trim_end().ends_with("0.90"), "{text}");
    }

    #[test]
    fn every_run_is_told_with_its_seed() {
        let report = report(&[row(&[8.0, 10.0], &[10.0, 20.0])]);
        let told = report.json();
        assert_eq!(told["rows"][0]["seeds"], json!([5, 6]));
        assert_eq!(told["rows"][0]["tidegate_mbits_per_second"], json!([8.0, 10.0]));
        assert_eq!(told["rows"][0]["linux_mbits_per_second"], json!([10.0, 20.0]));
        testing::assert_report("goodput", &report);
    }

    #[test]
    fn each_direction_that_was_measured_has_a_chart() {
        let report = report(&[row(&[8.0], &[10.0])]);
        let titles: Vec<&str> = report
            .page
            .sections
            .iter()
            .filter_map(|section| match section {
                Section::Bars(bars) => Some(&bars.title[..]),
                _ => None,
            })
            .collect();
        assert_eq!(titles, ["Mbit/s, client to server"]);
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let row = row(&[], &[1.0]);
        assert_eq!(row.ratio(), None);
        let report = report(&[row]);
        assert!(report.text.trim_end().ends_with('-'));
        assert_eq!(report.json()["rows"][0]["ratio"], Value::Null);
    }
}
