//! The results of a run: rows, limits and ratios.

mod page;
mod row;

use std::fmt::Write;
use tidegate_lab::Family;

use serde_json::{Map, Value, json};
use tidegate_report::format::{short, three_digits};
use tidegate_report::{Quantiles, Report, Spread};

use super::background_load::Damage;
use super::plan::{Limit, Offered, Target};

/// One server under one flood.
#[derive(Clone, Debug)]
pub(super) struct Measurement {
    /// The server.
    pub(super) target: Target,
    /// The IP version.
    pub(super) family: Family,
    /// The flood that was asked for.
    pub(super) offered: Offered,
    /// SYNs per second that were sent.
    pub(super) offered_per_s: f64,
    /// SYN-ACKs per second that came back for them.
    pub(super) answered_per_s: f64,
    /// SYNs of the whole flood.
    pub(super) syns_sent: u64,
    /// Frames that the server's device took from the client's meanwhile, those of the clients included; the others
    /// found its queue full. `None` without a flood, or if the device does not say.
    pub(super) frames_taken: Option<u64>,
    /// Whether the kernel made the frames of the flood, else they came through an AF_XDP socket. `None` without a
    /// flood.
    pub(super) live_frames: Option<bool>,
    /// Clients that began.
    pub(super) legit_tried: u32,
    /// Clients that were answered completely and in time.
    pub(super) legit_ok: u32,
    /// From the first SYN until the connection, in microseconds, of the connections that came about.
    pub(super) connect: Option<Quantiles>,
    /// From the first SYN until the end of the response, which is a single segment, in microseconds, of those that got
    /// one.
    pub(super) first_byte: Option<Quantiles>,
    /// The reason why the first client failed.
    pub(super) first_failure: Option<String>,
    /// The part of the time in which the server's core was busy, 0 to 1.
    pub(super) server_core_busy: f64,
    /// The growth of the server's resident memory, in bytes.
    pub(super) rss_delta_bytes: i64,
    /// The growth of the kernel's unreclaimable memory, in bytes.
    pub(super) kernel_memory_delta_bytes: i64,
    /// Throughput of the open connections before the flood, in bytes per second.
    pub(super) open_before_bytes_per_s: f64,
    /// Their throughput during the flood.
    pub(super) open_during_bytes_per_s: f64,
    /// The damage to them.
    pub(super) damage: Damage,
}

/// The rates of bare XDP programs, in SYNs per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Limits {
    transmit: Option<f64>,
    drop: Option<f64>,
}

/// The results of a whole run.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    environment: Map<String, Value>,
    /// Of what was measured several times, the one that answered the median.
    rows: Vec<Measurement>,
    limits: [Limits; 2],
    /// All rows at the highest rate, in the order they were measured.
    at_max: Vec<Measurement>,
    /// All results of the bare XDP program that sends back.
    transmitted: Vec<(Family, f64)>,
}

/// The ratios of the results; `None` if not measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratios {
    /// SYNs that tidegate answers at the highest rate, in those that Linux answers with `tcp_syncookies` = 1.
    pub(super) answered_max_vs_linux: Option<f64>,
    /// SYNs that tidegate answers at the highest rate, in those that a bare XDP program sends back.
    pub(super) answered_max_vs_xdp_tx: Option<f64>,
}

impl Results {
    /// Returns results without rows. `environment` says what they depend on.
    pub(super) fn new(environment: Map<String, Value>) -> Self {
        Self {
            environment,
            ..Self::default()
        }
    }

    /// Adds a row.
    pub(super) fn add_row(&mut self, row: Measurement) {
        let mut row = row;
        if row.offered == Offered::Max {
            let is_same = |other: &Measurement| other.family == row.family && other.target == row.target;
            self.rows
                .retain(|other| other.offered != Offered::Max || !is_same(other));
            self.at_max.push(row.clone());
            let mut same: Vec<&Measurement> = self.at_max.iter().filter(|&other| is_same(other)).collect();
            same.sort_by(|one, other| one.answered_per_s.total_cmp(&other.answered_per_s));
            row = same[same.len() / 2].clone();
        }
        self.rows.push(row);
        // They are measured in another order each time.
        self.rows.sort_by_key(|row| (row.family, row.offered, row.target));
    }

    /// Adds the limit that a bare XDP program reached, in SYNs per second.
    pub(super) fn add_limit(&mut self, family: Family, limit: Limit, per_second: f64) {
        let limits = &mut self.limits[family as usize];
        match limit {
            Limit::Transmit => {
                self.transmitted.push((family, per_second));
                let all = self.transmitted.iter().filter(|(other, _)| *other == family);
                limits.transmit = Spread::of(all.map(|&(_, per_second)| per_second)).map(|spread| spread.median);
            }
            Limit::Drop => limits.drop = Some(per_second),
        }
    }

    /// Adds a line to the environment.
    pub(super) fn add_environment(&mut self, name: &str, value: impl Into<Value>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// Returns the IP versions that were measured.
    fn families(&self) -> Vec<Family> {
        let measured = |family: &Family| self.rows.iter().any(|row| row.family == *family);
        [Family::V4, Family::V6].into_iter().filter(measured).collect()
    }

    fn limits(&self, family: Family) -> Limits {
        self.limits[family as usize]
    }

    /// The limits of the results: those of IPv4 if that was measured.
    fn first_limits(&self) -> Limits {
        let found = self.limits.iter().find(|&&limits| limits != Limits::default());
        found.copied().unwrap_or_default()
    }

    /// Both ratios: the median of those of the rounds, and with both IP versions that of the worse one.
    fn ratios(&self) -> Ratios {
        let lowest = |others: &dyn Fn(Family) -> Vec<f64>| {
            self.families()
                .into_iter()
                .filter_map(|family| {
                    let ours = self.answered_at_max(family, Target::TidegateAuto);
                    let rounds = ours.into_iter().zip(others(family));
                    let ratios = rounds
                        .filter(|&(_, other)| other > 0.0)
                        .map(|(ours, other)| ours / other);
                    Spread::of(ratios).map(|spread| spread.median)
                })
                .min_by(f64::total_cmp)
        };
        Ratios {
            answered_max_vs_linux: lowest(&|family| self.answered_at_max(family, Target::LinuxOnOverflow)),
            answered_max_vs_xdp_tx: lowest(&|family| self.transmitted(family)),
        }
    }

    /// SYNs per second that were answered at the highest rate, in the order of the rounds.
    fn answered_at_max(&self, family: Family, target: Target) -> Vec<f64> {
        let same = |row: &&Measurement| row.family == family && row.target == target;
        self.at_max.iter().filter(same).map(|row| row.answered_per_s).collect()
    }

    /// SYNs per second that the bare XDP program sent back, in the same order.
    fn transmitted(&self, family: Family) -> Vec<f64> {
        let same = self.transmitted.iter().filter(|(other, _)| *other == family);
        same.map(|&(_, per_second)| per_second).collect()
    }
}

impl Results {
    /// Returns the report.
    pub(super) fn report(&self) -> Report {
        let (limits, ratios) = (self.first_limits(), self.ratios());
        let mut report = Report {
            kind: "resilience",
            environment: self.environment.clone(),
            rows: self.rows.iter().map(|row| row::row(self, row)).collect(),
            ..Report::default()
        };
        let limits = json!({
            "xdp_tx_per_s": limits.transmit.map(f64::round),
            "xdp_drop_per_s": limits.drop.map(f64::round),
        });
        let ratios = json!({
            "answered_max_vs_linux": ratios.answered_max_vs_linux.map(three_digits),
            "answered_max_vs_xdp_tx": ratios.answered_max_vs_xdp_tx.map(three_digits),
        });
        report.more.insert("limits".to_owned(), limits);
        report.more.insert("ratios".to_owned(), ratios);
        report.text = self.text(&report);
        report.page = page::page(self, &report);
        report
    }

    /// Returns one table for each IP version, then limits and ratios.
    fn text(&self, report: &Report) -> String {
        let mut text = String::new();
        for family in self.families() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", family.title());
            let rows = report.rows_with(&[("family", family.name())]);
            text.push_str(&report.table(row::COLUMNS, &rows));
            if let Some(limits) = limits_text(family, self.limits(family)) {
                let _ = writeln!(text, "{limits}");
            }
            text.push('\n');
        }
        for (what, number) in self.ratio_texts() {
            let _ = writeln!(text, "{what}: {number}");
        }
        text
    }

    /// Returns what both ratios are, and the ratios.
    fn ratio_texts(&self) -> [(&'static str, String); 2] {
        let ratios = self.ratios();
        let text = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        [
            (
                "SYNs answered at the highest rate, tidegate auto to linux tcp_syncookies=1",
                text(ratios.answered_max_vs_linux),
            ),
            (
                "SYNs answered at the highest rate, tidegate auto to bare XDP_TX",
                text(ratios.answered_max_vs_xdp_tx),
            ),
        ]
    }
}

/// Returns the limits of one IP version as a sentence; `None` if they were not measured.
fn limits_text(family: Family, limits: Limits) -> Option<String> {
    if limits == Limits::default() {
        return None;
    }
    let text = |limit: Option<f64>| limit.map_or_else(|| "-".to_owned(), short);
    Some(format!(
        "{}: a bare XDP program sends back {} SYN/s, and drops {} SYN/s",
        family.title(),
        text(limits.transmit),
        text(limits.drop)
    ))
}

impl Measurement {
    /// Returns the part of the open connections' throughput that is left; `None` if there was none.
    fn open_kept(&self) -> Option<f64> {
        (self.open_before_bytes_per_s > 0.0).then(|| self.open_during_bytes_per_s / self.open_before_bytes_per_s)
    }
}

#[cfg(test)]
mod samples;

#[cfg(test)]
mod tests {
    use tidegate_report::testing::keys;

    use super::samples::{report, row};
    use super::*;

    #[test]
    fn ratios_are_those_of_the_highest_rate_and_the_worse_family() {
        let ratios = report().ratios();
        // 2.4M to 0.4M with IPv4, 1.8M to 0.36M with IPv6.
        assert_eq!(ratios.answered_max_vs_linux, Some(5.0));
        // 2.4M of 3M; that of IPv6 was not measured.
        assert_eq!(ratios.answered_max_vs_xdp_tx, Some(0.8));
    }

    #[test]
    fn of_several_rounds_the_median_counts() {
        let mut report = Results::default();
        // The machine is slow in the second round, and tidegate alone in the third.
        for (tidegate, linux, bare) in [(2.0e6, 0.4e6, 4.0e6), (1.0e6, 0.2e6, 2.0e6), (1.0e6, 0.4e6, 4.0e6)] {
            report.add_row(row(Target::TidegateAuto, Family::V4, Offered::Max, tidegate));
            report.add_row(row(Target::LinuxOnOverflow, Family::V4, Offered::Max, linux));
            report.add_limit(Family::V4, Limit::Transmit, bare);
        }
        let ratios = report.ratios();
        assert_eq!(ratios.answered_max_vs_linux, Some(5.0));
        assert_eq!(ratios.answered_max_vs_xdp_tx, Some(0.5));
        let answered: Vec<f64> = report.rows.iter().map(|row| row.answered_per_s).collect();
        assert_eq!(answered, [1.0e6, 0.4e6]);
        assert_eq!(report.limits(Family::V4).transmit, Some(4.0e6));
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let mut report = Results::default();
        let nothing = Ratios {
            answered_max_vs_linux: None,
            answered_max_vs_xdp_tx: None,
        };
        assert_eq!(report.ratios(), nothing);
        report.add_row(row(Target::TidegateAuto, Family::V4, Offered::Max, 1e6));
        report.add_row(row(Target::LinuxOnOverflow, Family::V4, Offered::Max, 0.0));
        assert_eq!(report.ratios(), nothing);
        report.add_limit(Family::V4, Limit::Transmit, 0.0);
        assert_eq!(report.ratios(), nothing);
    }

    #[test]
    fn rows_are_ordered_however_they_come() {
        let mut report = Results::default();
        report.add_row(row(Target::LinuxAlways, Family::V6, Offered::Nothing, 0.0));
        report.add_row(row(Target::TidegateAuto, Family::V4, Offered::Max, 0.0));
        report.add_row(row(Target::LinuxAlways, Family::V4, Offered::Pps(100), 0.0));
        report.add_row(row(Target::TidegateAuto, Family::V4, Offered::Pps(100), 0.0));
        let order: Vec<_> = report
            .rows
            .iter()
            .map(|row| (row.family, row.offered, row.target))
            .collect();
        assert_eq!(
            order,
            [
                (Family::V4, Offered::Pps(100), Target::TidegateAuto),
                (Family::V4, Offered::Pps(100), Target::LinuxAlways),
                (Family::V4, Offered::Max, Target::TidegateAuto),
                (Family::V6, Offered::Nothing, Target::LinuxAlways),
            ]
        );
        assert_eq!(report.families(), [Family::V4, Family::V6]);
    }

    #[test]
    fn without_throughput_before_there_is_no_part_of_it() {
        let mut row = row(Target::TidegateAuto, Family::V4, Offered::Nothing, 0.0);
        assert_eq!(row.open_kept(), Some(0.75));
        row.open_before_bytes_per_s = 0.0;
        assert_eq!(row.open_kept(), None);
    }

    #[test]
    fn a_row_shows_what_was_measured() {
        let text = report().report().text;
        let row = text
            .lines()
            .find(|line| line.starts_with("tidegate auto") && line.contains("max"))
            .unwrap();
        for part in [
            "4.00M",
            "2.40M",
            "990/1000",
            "50us",
            "1.2ms",
            "2.00s",
            "2.3ms",
            "99%",
            "-4k",
            "25.0 > 18.8",
        ] {
            assert!(row.contains(part), "{part}: {row}");
        }
        assert!(row.ends_with("none"), "{row}");
    }

    #[test]
    fn every_family_has_its_table_and_only_measured_limits_are_shown() {
        let text = report().report().text;
        assert_eq!(text.matches("first byte p99").count(), 2);
        assert!(
            text.contains("IPv4: a bare XDP program sends back 3.00M SYN/s, and drops 8.00M SYN/s"),
            "{text}"
        );
        assert!(!text.contains("IPv6: a bare"), "{text}");
        assert!(text.contains("tcp_syncookies=1: 5.00\n"), "{text}");
        assert!(text.contains("XDP_TX: 0.80\n"), "{text}");
    }

    #[test]
    fn the_keys_are_those_that_others_read() {
        let value = report().report().json();
        assert_eq!(
            keys(&value),
            [
                "command",
                "environment",
                "kind",
                "limits",
                "ratios",
                "rows",
                "schema_version"
            ]
        );
        assert_eq!(keys(&value["limits"]), ["xdp_drop_per_s", "xdp_tx_per_s"]);
        assert_eq!(
            keys(&value["ratios"]),
            ["answered_max_vs_linux", "answered_max_vs_xdp_tx"]
        );
        let rows = value["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 8);
        for row in rows {
            for key in [
                "target",
                "family",
                "offered_per_s",
                "answered_per_s",
                "legit_tried",
                "legit_ok",
                "connect_p50_us",
                "connect_p99_us",
                "first_byte_p99_us",
                "server_core_busy",
                "rss_delta_bytes",
            ] {
                assert!(row.get(key).is_some(), "{key}");
            }
        }
    }

    #[test]
    fn the_values_are_those_of_the_rows() {
        let value = report().report().json();
        let row = &value["rows"][2];
        assert_eq!(row["target"], "tidegate auto");
        assert_eq!(row["family"], "ipv4");
        assert_eq!(row["rate"], "max");
        assert_eq!(row["offered_per_s"], 4_000_000.0);
        assert_eq!(row["answered_per_s"], 2_400_000.0);
        assert_eq!((&row["legit_tried"], &row["legit_ok"]), (&json!(1_000), &json!(990)));
        assert_eq!(row["connect_p50_us"], 50);
        assert_eq!(row["connect_p99_us"], 1_200);
        assert_eq!(row["first_byte_p99_us"], 2_300);
        assert_eq!(row["server_core_busy"], 0.988);
        assert_eq!(row["rss_delta_bytes"], -4_096);
        assert_eq!(value["limits"]["xdp_tx_per_s"], 3_000_000.0);
        assert_eq!(value["limits"]["xdp_drop_per_s"], 8_000_000.0);
        assert_eq!(value["ratios"]["answered_max_vs_linux"], 5.0);
        assert_eq!(value["ratios"]["answered_max_vs_xdp_tx"], 0.8);
        assert_eq!(value["environment"]["kernel"], "6.1 <script>");
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let value = report().report().json();
        let last = &value["rows"][7];
        assert_eq!(last["target"], "linux tcp_syncookies=1");
        assert_eq!(last["legit_ok"], 0);
        for key in [
            "connect_p50_us",
            "connect_p99_us",
            "first_byte_p99_us",
            "limit_xdp_tx_per_s",
        ] {
            assert_eq!(last[key], Value::Null, "{key}");
        }
        let nothing = Results::default().report().json();
        assert_eq!(nothing["limits"]["xdp_tx_per_s"], Value::Null);
        assert_eq!(nothing["ratios"]["answered_max_vs_linux"], Value::Null);
    }
}
