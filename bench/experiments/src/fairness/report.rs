//! The results of a run.

use serde_json::{Map, Value};
use tidegate_report::format::three_digits;
use tidegate_report::{Bar, Bars, Column, Page, Report, Row, Section, Spread};

use super::plan::Pair;

/// The columns of the table.
const COLUMNS: &[Column] = &[
    Column::figure("flows", "{flows}"),
    Column::name("first", "{first}"),
    Column::name("second", "{second}"),
    Column::figure(
        "share of the first",
        "{first_share:2} ({first_share_min:2}-{first_share_max:2})",
    ),
    Column::figure(
        "of the second",
        "{second_share:2} ({second_share_min:2}-{second_share_max:2})",
    ),
    Column::figure("in that beside Linux", "{second_share_vs_linux:2}"),
    Column::figure("Jain's index", "{jain:3} ({jain_min:3}-{jain_max:3})"),
    Column::figure("Mbit/s", "{total_mbits_per_second:1}"),
    Column::figure("relay lost", "{link_overruns}").alert("link_overruns"),
];

const HOW_TO_READ: &[&str] = &[
    "The flows are downloads to one Linux client through the same queue. Half of them are of the first sender, half of \
     the second, and all begin at the same time and are counted from then on. A **share** is what all flows of a sender \
     got of what all flows got: 0.50 is an equal one.",
    "**in that beside Linux** is the share of the second in the one that the same Linux flows have where Linux is in \
     tidegate's place, with the same congestion control and the same number of flows: 1 is what it would have without \
     tidegate, and below 0.8 tidegate takes more from others than Linux does. Congestion controls differ in what they \
     leave to each other, whoever implements them.",
    "**Jain's index** is the square of the sum of all flows' rates in their number times the sum of the squares: 1 if \
     all are equal, 1 in the number of flows if one has everything. **relay lost** counts frames that the relay in the middle lost because this machine was too slow: \
     such a row is no result. Linux's bbr is version 1 in mainline kernels.",
];

/// The runs of one pair with one number of flows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shared {
    pub(super) pair: Pair,
    /// The number of flows.
    pub(super) flows: u32,
    /// The Mbit/s of each flow of each run. Flows of the first sender have even places.
    runs: Vec<Vec<f64>>,
    /// Frames that the relay lost in all runs because the machine was too slow.
    overruns: u64,
}

impl Shared {
    pub(super) fn new(pair: Pair, flows: u32) -> Self {
        Self {
            pair,
            flows,
            runs: Vec::new(),
            overruns: 0,
        }
    }

    /// Adds a run. Returns it in words.
    pub(super) fn add(&mut self, rates: Vec<f64>, overruns: u64) -> String {
        let words = format!(
            "shares {:.2} and {:.2} of {:.1} Mbit/s, Jain's index {:.3}",
            1.0 - second_share(&rates),
            second_share(&rates),
            rates.iter().sum::<f64>(),
            jain(&rates)
        );
        self.runs.push(rates);
        self.overruns += overruns;
        words
    }

    fn spread(&self, value: impl Fn(&[f64]) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().map(|rates| value(rates)))
    }

    /// Returns the share of the second sender in the one it has where Linux is in the place of tidegate.
    fn second_share_vs_linux(&self, all: &[Self]) -> Option<f64> {
        let wanted = self.pair.baseline()?;
        let baseline = all
            .iter()
            .find(|other| other.flows == self.flows && other.pair.is_like(&wanted))?;
        let share = if baseline.pair == wanted {
            baseline.spread(second_share)
        } else {
            baseline.spread(|rates| 1.0 - second_share(rates))
        };
        Some(self.spread(second_share)?.median / share?.median)
    }

    fn row(&self, all: &[Self]) -> Row {
        Row::new()
            .with("flows", self.flows)
            .with("first", self.pair.first.name())
            .with("second", self.pair.second.name())
            .with("pair", format!("{}, {} flows", self.pair.name(), self.flows))
            .with("flow_mbits_per_second", self.runs.clone())
            .with_spread("first_share", self.spread(|rates| 1.0 - second_share(rates)))
            .with_spread("second_share", self.spread(second_share))
            .with(
                "second_share_vs_linux",
                self.second_share_vs_linux(all).map(three_digits),
            )
            .with_spread("jain", self.spread(jain))
            .with_spread("total_mbits_per_second", self.spread(|rates| rates.iter().sum()))
            .with("link_overruns", self.overruns)
    }
}

/// The part of all that the second sender's flows got, those at odd places.
fn second_share(rates: &[f64]) -> f64 {
    rates.iter().skip(1).step_by(2).sum::<f64>() / rates.iter().sum::<f64>()
}

/// Jain's fairness index.
fn jain(rates: &[f64]) -> f64 {
    let sum: f64 = rates.iter().sum();
    let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
    sum * sum / (rates.len() as f64 * squares)
}

/// Returns the report of `shared`. `setting` is a sentence that says how they were measured.
pub(super) fn report(environment: Map<String, Value>, setting: String, shared: &[Shared]) -> Report {
    let mut report = Report {
        kind: "fairness",
        environment,
        rows: shared.iter().map(|one| one.row(shared)).collect(),
        ..Report::default()
    };
    let all: Vec<usize> = (0..report.rows.len()).collect();
    report.text = format!("{setting}\n{}", report.table(COLUMNS, &all));
    let bars = Bars {
        title: "Shares of the first and of the second sender".to_owned(),
        rows: all.clone(),
        bars: vec![Bar {
            label: "{pair}",
            series: "{first}",
            values: vec!["first_share", "second_share"],
        }],
        pieces: Some(vec!["first", "second"]),
        format: "2",
    };
    report.page = Page {
        title: "tidegate: shares of one queue".to_owned(),
        introduction: setting,
        sections: vec![
            Section::Bars(bars),
            Section::Heading("All figures".to_owned()),
            Section::Table {
                columns: COLUMNS,
                rows: all,
            },
            Section::HowToRead(HOW_TO_READ),
        ],
    };
    report
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_report::testing;

    use super::super::plan::pairs;
    use super::*;

    /// The runs of all pairs of two controls, in which the second sender has `share` of 100 Mbit/s.
    fn shared(flows: u32, share: impl Fn(&str) -> f64) -> Vec<Shared> {
        pairs(&["cubic".to_owned(), "bbr".to_owned()], "")
            .into_iter()
            .map(|pair| {
                let second = share(&pair.name());
                let each = 200.0 / f64::from(flows);
                let rates = [(1.0 - second) * each, second * each];
                let mut shared = Shared::new(pair, flows);
                shared.add(rates.into_iter().cycle().take(flows as usize).collect(), 0);
                shared
            })
            .collect()
    }

    fn report(shared: &[Shared]) -> Report {
        super::report(testing::environment(), "Shares of one queue".to_owned(), shared)
    }

    fn field(report: &Report, first: &str, second: &str, name: &str) -> Value {
        let rows = report.rows_with(&[("first", first), ("second", second)]);
        report.json()["rows"][rows[0]][name].clone()
    }

    #[test]
    fn shares_are_those_of_all_flows_of_a_sender() {
        assert_eq!(second_share(&[60.0, 40.0]), 0.4);
        assert_eq!(second_share(&[10.0, 40.0, 10.0, 20.0]), 0.75);
    }

    #[test]
    fn jains_index_is_one_if_all_are_equal_and_least_if_one_has_all() {
        assert_eq!(jain(&[5.0; 8]), 1.0);
        assert_eq!(jain(&[1.0, 0.0, 0.0, 0.0]), 0.25);
        assert_eq!(jain(&[3.0, 1.0]), 0.8);
    }

    #[test]
    fn the_share_beside_tidegate_is_told_in_that_beside_linux() {
        let report = report(&shared(2, |pair| match pair {
            "tidegate/bbr and Linux/cubic" => 0.2,
            "tidegate/cubic and Linux/bbr" => 0.3,
            // The same for both orders: cubic has 0.4, bbr 0.6.
            "Linux/cubic and Linux/bbr" => 0.6,
            _ => 0.5,
        }));
        let vs_linux = |first, second| field(&report, first, second, "second_share_vs_linux");
        assert_eq!(vs_linux("tidegate/bbr", "Linux/cubic"), json!(0.5));
        assert_eq!(vs_linux("tidegate/cubic", "Linux/bbr"), json!(0.5));
        assert_eq!(vs_linux("tidegate/cubic", "Linux/cubic"), json!(1.0));
        assert_eq!(vs_linux("Linux/cubic", "Linux/bbr"), Value::Null);
        assert_eq!(vs_linux("tidegate/bbr", "tidegate/bbr"), Value::Null);
    }

    #[test]
    fn a_share_is_compared_with_that_among_as_many_flows() {
        let mut all = shared(2, |_| 0.5);
        all.extend(shared(8, |pair| if pair.starts_with("tidegate") { 0.1 } else { 0.4 }));
        let told = report(&all).json();
        assert_eq!(told["rows"][0]["second_share_vs_linux"], json!(1.0));
        assert_eq!(told["rows"][9]["second_share_vs_linux"], json!(0.25));
        assert_eq!(told["rows"][9]["flow_mbits_per_second"][0].as_array().unwrap().len(), 8);
    }

    #[test]
    fn medians_and_ends_are_those_of_the_runs() {
        let pair = pairs(&["cubic".to_owned()], "").remove(0);
        let mut one = Shared::new(pair, 2);
        assert_eq!(
            one.add(vec![80.0, 20.0], 1),
            "shares 0.80 and 0.20 of 100.0 Mbit/s, Jain's index 0.735"
        );
        one.add(vec![50.0, 50.0], 0);
        one.add(vec![60.0, 40.0], 2);
        let report = report(&[one]);
        assert_eq!(
            field(&report, "tidegate/cubic", "Linux/cubic", "second_share"),
            json!(0.4)
        );
        assert_eq!(
            field(&report, "tidegate/cubic", "Linux/cubic", "first_share_max"),
            json!(0.8)
        );
        assert_eq!(
            field(&report, "tidegate/cubic", "Linux/cubic", "link_overruns"),
            json!(3)
        );
        let without = field(&report, "tidegate/cubic", "Linux/cubic", "second_share_vs_linux");
        assert_eq!(without, Value::Null, "nothing to compare with");
        assert!(report.text.contains("0.40 (0.20-0.50)"), "{}", report.text);
    }

    #[test]
    fn the_report_is_one_as_the_document_says() {
        testing::assert_report("fairness", &report(&shared(8, |_| 0.5)));
    }
}
