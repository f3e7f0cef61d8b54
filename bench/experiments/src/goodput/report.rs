//! The results of a run.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value};
use tidegate_report::format::three_digits;
use tidegate_report::{Bar, Bars, Column, Page, Report, Row, Section, Spread};

use super::condition::Condition;
use crate::transfers::{CUBIC, Direction};

/// The columns of the table.
const COLUMNS: &[Column] = &[
    Column::name("link", "{link}"),
    Column::name("direction", "{direction}"),
    Column::name("control", "{control}"),
    Column::figure("tidegate", "{tidegate:2} ({tidegate_min:2}-{tidegate_max:2})"),
    Column::figure("Linux", "{linux:2} ({linux_min:2}-{linux_max:2})"),
    Column::figure("ratio", "{ratio:2}"),
    Column::figure("multiple of CUBIC: tidegate", "{tidegate_vs_cubic:2}"),
    Column::figure("Linux", "{linux_vs_cubic:2}"),
];

/// The columns of the second table.
const MORE_COLUMNS: &[Column] = &[
    Column::name("link", "{link}"),
    Column::name("direction", "{direction}"),
    Column::name("control", "{control}"),
    Column::figure("Mbit/s", "{link_mbits_per_second}"),
    Column::figure("ms each way", "{link_delay_ms}"),
    Column::figure("queue", "{link_queue_frames}"),
    Column::figure("sent again, %: tidegate", "{tidegate_percent_again:2}"),
    Column::figure("Linux", "{linux_percent_again:2}"),
    Column::figure("ms queued: tidegate", "{tidegate_queue_wait_ms:1}"),
    Column::figure("Linux", "{linux_queue_wait_ms:1}"),
    Column::figure("CPU s/GB: tidegate", "{tidegate_cpu_s_per_gb:2}"),
    Column::figure("relay lost", "{link_overruns}").alert("link_overruns"),
];

const HOW_TO_READ: &[&str] = &[
    "A Linux client is on one side of the link, tidegate and a server on the kernel's TCP are on the other. The same \
     client measures both in turn, and each transfer has the link for itself. The links of one run lose the same \
     frames for both servers. Bars are medians; the line over a bar's end goes from the lowest to the highest run.",
    "**ratio** is tidegate's median in that of Linux: above 1, tidegate is faster. **multiple of CUBIC** is the median of a \
     congestion control in that of CUBIC with the same server over the same link. **server to client** is a download, \
     **client to server** an upload, whose sender is the Linux client with both servers: **control** is always that of \
     the sender. Linux's bbr is version 1 in mainline kernels.",
    "**sent again** is the part of all segments of the sender that carried what had been sent before. **ms queued** is \
     the mean time that a frame with data waited for the rate of the link. **CPU s/GB** is the processor time of \
     tidegate's process, user mode and kernel, for each GB (10^9 bytes) of payload, where a run moved 20 MB or more; \
     soft interrupts are not in it, in which the work of the kernel's TCP is done, so there is no such figure of Linux. \
     A strategy that looks at empty rings before it sleeps (`adaptive`) uses more than one that does not (`poll`).",
    "**relay lost** counts frames that the relay in the middle lost because this machine was too slow: figures of such \
     a row are those of the machine.",
];

/// A run shorter than this uses too few ticks of processor time, which are 10 ms.
const MIN_BYTES_FOR_CPU: u64 = 20_000_000;

/// One transfer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Payload.
    pub(super) mbits_per_second: f64,
    /// The same in bytes.
    pub(super) bytes: u64,
    /// The longest time in which nothing moved.
    pub(super) longest_pause: Duration,
    /// Segments of the sender that were sent again, in percent of all.
    pub(super) percent_again: Option<f64>,
    /// The mean time a frame with data waited for the rate of the link.
    pub(super) queue_wait: Option<Duration>,
    /// Processor time of tidegate's process; `None` for Linux.
    pub(super) processor_time: Option<Duration>,
    /// Frames that the relay lost because the machine was too slow.
    pub(super) overruns: u64,
}

impl Figures {
    fn cpu_s_per_gb(&self) -> Option<f64> {
        let time = self.processor_time.filter(|_| self.bytes >= MIN_BYTES_FOR_CPU)?;
        Some(time.as_secs_f64() / (self.bytes as f64 / 1e9))
    }
}

/// The transfers of both servers over one kind of link in one direction with one congestion control.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transfers {
    /// The kind of link.
    pub(super) condition: Condition,
    /// The direction of the data.
    pub(super) direction: Direction,
    /// The congestion control of the sender.
    pub(super) control: String,
    /// Mbit/s of a plain flow of Linux over the link without its rate, where that was measured.
    pub(super) link_carries: Option<f64>,
    /// The seed of the link of each run.
    pub(super) seeds: Vec<u64>,
    /// Between tidegate and Linux, a value for each run.
    pub(super) tidegate: Vec<Figures>,
    /// Between Linux and Linux.
    pub(super) linux: Vec<Figures>,
}

impl Transfers {
    /// Returns tidegate's median as a part of Linux's; `None` if one of them was not measured.
    fn ratio(&self) -> Option<f64> {
        quotient(&self.tidegate, &self.linux)
    }

    /// Returns those with CUBIC over the same link in the same direction, unless these are they.
    fn with_cubic<'a>(&self, all: &'a [Self]) -> Option<&'a Self> {
        all.iter().filter(|_| self.control != CUBIC).find(|other| {
            other.condition == self.condition && other.direction == self.direction && other.control == CUBIC
        })
    }

    fn row(&self, all: &[Self]) -> Row {
        let cubic = self.with_cubic(all);
        let in_cubics = |of: fn(&Self) -> &[Figures]| quotient(of(self), of(cubic?)).map(three_digits);
        let link = self.condition.link;
        let overruns: u64 = self.tidegate.iter().chain(&self.linux).map(|run| run.overruns).sum();
        Row::new()
            .with("link", self.condition.name)
            .with("link_mbits_per_second", link.mbits_per_second())
            .with("link_delay_ms", three_digits(link.delay.as_secs_f64() * 1e3))
            .with("link_queue_frames", link.queue)
            .with("link_carries_mbits_per_second", self.link_carries.map(three_digits))
            .with("link_overruns", overruns)
            .with("direction", self.direction.name())
            .with("control", self.control.as_str())
            .with("seeds", self.seeds.as_slice())
            .with("tidegate_mbits_per_second", rates(&self.tidegate))
            .with("linux_mbits_per_second", rates(&self.linux))
            .with_spread("tidegate", spread(&self.tidegate))
            .with_spread("linux", spread(&self.linux))
            .with("ratio", self.ratio().map(three_digits))
            .with("tidegate_vs_cubic", in_cubics(|transfers| &transfers.tidegate))
            .with("linux_vs_cubic", in_cubics(|transfers| &transfers.linux))
            .with_median(
                "tidegate_percent_again",
                median_of(&self.tidegate, |run| run.percent_again),
            )
            .with_median("linux_percent_again", median_of(&self.linux, |run| run.percent_again))
            .with_median("tidegate_queue_wait_ms", median_of(&self.tidegate, queue_wait_ms))
            .with_median("linux_queue_wait_ms", median_of(&self.linux, queue_wait_ms))
            .with_median(
                "tidegate_cpu_s_per_gb",
                median_of(&self.tidegate, Figures::cpu_s_per_gb),
            )
    }
}

fn queue_wait_ms(run: &Figures) -> Option<f64> {
    run.queue_wait.map(|wait| wait.as_secs_f64() * 1e3)
}

fn median_of(runs: &[Figures], value: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
    Spread::of(runs.iter().filter_map(value))
}

fn rates(runs: &[Figures]) -> Vec<f64> {
    runs.iter().map(|run| run.mbits_per_second).collect()
}

fn spread(runs: &[Figures]) -> Option<Spread> {
    Spread::of(rates(runs))
}

/// The median of `runs` in that of `others`; `None` if one of them was not measured.
fn quotient(runs: &[Figures], others: &[Figures]) -> Option<f64> {
    Some(spread(runs)?.median / spread(others)?.median)
}

/// Returns the report of `rows`. `setting` is a sentence that says how they were measured.
pub(super) fn report(environment: Map<String, Value>, setting: String, rows: &[Transfers]) -> Report {
    let mut report = Report {
        kind: "goodput",
        environment,
        rows: rows.iter().map(|row| row.row(rows)).collect(),
        ..Report::default()
    };
    let all: Vec<usize> = (0..report.rows.len()).collect();
    let carried = carried(rows);
    report.text = format!(
        "{setting}\n{}\n{}",
        report.table(COLUMNS, &all),
        report.table(MORE_COLUMNS, &all)
    );
    for line in &carried {
        // Writing to a String cannot fail.
        let _ = writeln!(report.text, "{line}");
    }
    let mut sections: Vec<Section> = charts(&report, rows);
    sections.extend([
        Section::Heading("All figures".to_owned()),
        Section::Table {
            columns: COLUMNS,
            rows: all.clone(),
        },
        Section::Table {
            columns: MORE_COLUMNS,
            rows: all,
        },
    ]);
    sections.extend(carried.into_iter().map(Section::Text));
    sections.push(Section::HowToRead(HOW_TO_READ));
    report.page = Page {
        title: "tidegate: goodput over impaired links".to_owned(),
        introduction: setting,
        sections,
    };
    report
}

/// Returns a sentence for each link that this machine may be too slow for.
fn carried(rows: &[Transfers]) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    for row in rows {
        let (Some(carries), Some(rate)) = (row.link_carries, row.condition.link.mbits_per_second()) else {
            continue;
        };
        let judgement = if carries > rate {
            "more than its rate"
        } else {
            "LESS than its rate: its figures are those of the relay"
        };
        let sentence = format!(
            "{}: without its rate the relay carries {carries:.0} Mbit/s of a plain flow of Linux here, {judgement}.",
            row.condition.name
        );
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    sentences
}

/// Returns a chart for each direction and congestion control.
fn charts(report: &Report, rows: &[Transfers]) -> Vec<Section> {
    let mut kinds: Vec<(Direction, &str)> = Vec::new();
    for row in rows {
        let kind = (row.direction, row.control.as_str());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let bar = |label, series, path| Bar {
        label,
        series,
        values: vec![path],
    };
    let chart = |(direction, control): (Direction, &str)| {
        Section::Bars(Bars {
            title: format!("Mbit/s, {}, {control}", direction.name()),
            rows: report.rows_with(&[("direction", direction.name()), ("control", control)]),
            bars: vec![
                bar("{link}: tidegate", "tidegate", "tidegate"),
                bar("Linux", "Linux", "linux"),
            ],
            pieces: None,
            format: "2",
        })
    };
    kinds.into_iter().map(chart).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_report::testing;

    use super::super::condition::named;
    use super::*;

    fn figures(rates: &[f64]) -> Vec<Figures> {
        rates
            .iter()
            .map(|&mbits_per_second| Figures {
                mbits_per_second,
                bytes: 50_000_000,
                percent_again: Some(mbits_per_second / 10.0),
                queue_wait: Some(Duration::from_micros(1_500)),
                processor_time: Some(Duration::from_millis(100)),
                ..Figures::default()
            })
            .collect()
    }

    fn row(control: &str, tidegate: &[f64], linux: &[f64]) -> Transfers {
        Transfers {
            condition: *named("loss 1%")[0],
            direction: Direction::Down,
            control: control.to_owned(),
            link_carries: None,
            seeds: (5..).take(tidegate.len().max(linux.len())).collect(),
            tidegate: figures(tidegate),
            linux: figures(linux),
        }
    }

    fn report(rows: &[Transfers]) -> Report {
        super::report(testing::environment(), "Goodput in Mbit/s".to_owned(), rows)
    }

    #[test]
    fn a_row_shows_medians_spread_and_ratio() {
        let text = report(&[row("cubic", &[8.0, 10.0, 9.0], &[10.0, 10.0, 12.0])]).text;
        assert!(text.starts_with("Goodput in Mbit/s\n"), "{text}");
        for part in [
            "loss 1%",
            "server to client",
            "9.00 (8.00-10.00)",
            "10.00 (10.00-12.00)",
            "0.90",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn every_run_is_told_with_its_seed() {
        let report = report(&[row("cubic", &[8.0, 10.0], &[10.0, 20.0])]);
        let told = report.json();
        assert_eq!(told["rows"][0]["seeds"], json!([5, 6]));
        assert_eq!(told["rows"][0]["tidegate_mbits_per_second"], json!([8.0, 10.0]));
        assert_eq!(told["rows"][0]["linux_mbits_per_second"], json!([10.0, 20.0]));
        testing::assert_report("goodput", &report);
    }

    #[test]
    fn another_control_is_told_in_cubics_figure_over_the_same_link() {
        let mut other = row("cubic", &[1.0], &[1.0]);
        other.condition = *named("loss 3%")[0];
        let mut upload = row("cubic", &[2.0], &[2.0]);
        upload.direction = Direction::Up;
        let rows = [
            other,
            upload,
            row("bbr", &[80.0], &[60.0]),
            row("cubic", &[8.0], &[10.0]),
        ];
        let told = report(&rows).json();
        assert_eq!(told["rows"][2]["tidegate_vs_cubic"], json!(10.0));
        assert_eq!(told["rows"][2]["linux_vs_cubic"], json!(6.0));
        assert_eq!(told["rows"][3]["tidegate_vs_cubic"], Value::Null);
        let alone = report(&rows[2..3]).json();
        assert_eq!(alone["rows"][0]["linux_vs_cubic"], Value::Null);
    }

    #[test]
    fn what_else_was_counted_is_in_the_row() {
        let mut row = row("cubic", &[8.0, 10.0], &[20.0]);
        row.tidegate[0].overruns = 2;
        row.linux[0].overruns = 3;
        // Too short to tell the processor time.
        row.tidegate[1].bytes = MIN_BYTES_FOR_CPU - 1;
        row.tidegate[1].processor_time = Some(Duration::from_secs(1));
        row.linux[0].processor_time = None;
        let told = &report(&[row]).json()["rows"][0];
        assert_eq!(told["tidegate_percent_again"], json!(0.9));
        assert_eq!(told["linux_percent_again"], json!(2.0));
        assert_eq!(told["tidegate_queue_wait_ms"], json!(1.5));
        assert_eq!(told["tidegate_cpu_s_per_gb"], json!(2.0));
        assert_eq!(told["link_overruns"], json!(5));
        assert_eq!(
            (&told["link_delay_ms"], &told["link_queue_frames"]),
            (&json!(10.0), &json!(250))
        );
    }

    #[test]
    fn a_link_that_the_machine_is_too_slow_for_is_told() {
        let mut rows = [row("cubic", &[8.0], &[10.0]), row("bbr", &[8.0], &[10.0])];
        assert!(!report(&rows).text.contains("carries"));
        for (carries, phrase) in [(99.0, "carries 99 Mbit/s"), (120.0, "more than its rate")] {
            for row in &mut rows {
                row.link_carries = Some(carries);
            }
            let text = report(&rows).text;
            assert_eq!(text.matches(phrase).count(), 1, "{text}");
            assert_eq!(text.contains("LESS"), carries < 100.0, "{text}");
        }
    }

    #[test]
    fn each_direction_and_control_that_was_measured_has_a_chart() {
        let report = report(&[row("cubic", &[8.0], &[10.0]), row("bbr", &[8.0], &[10.0])]);
        let titles: Vec<&str> = report
            .page
            .sections
            .iter()
            .filter_map(|section| match section {
                Section::Bars(bars) => Some(&bars.title[..]),
                _ => None,
            })
            .collect();
        assert_eq!(
            titles,
            ["Mbit/s, server to client, cubic", "Mbit/s, server to client, bbr"]
        );
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let row = row("cubic", &[], &[1.0]);
        assert_eq!(row.ratio(), None);
        let report = report(&[row]);
        assert_eq!(report.json()["rows"][0]["ratio"], Value::Null);
        assert_eq!(report.json()["rows"][0]["tidegate_cpu_s_per_gb"], Value::Null);
    }
}
