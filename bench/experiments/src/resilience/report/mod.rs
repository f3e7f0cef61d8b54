//! The results of a run: rows, limits, scores and ratios.

mod page;
mod ratios;
mod row;

use std::fmt::Write;
use std::time::Duration;

use tidegate_lab::Family;

use serde_json::{Map, Value, json};
use tidegate_report::format::{short, three_digits};
use tidegate_report::{Quantiles, Report, Spread};

use super::attack::Attack;
use super::background_load::Damage;
use super::plan::{Contender, Limit, Offered, Target};

/// One server under one attack.
#[derive(Clone, Debug)]
pub(super) struct Measurement {
    /// The server.
    pub(super) target: Target,
    /// The IP version.
    pub(super) family: Family,
    /// The attack; `None` if there was none.
    pub(super) attack: Option<Attack>,
    /// Its rate, as it was asked for.
    pub(super) offered: Offered,
    /// Packets per second that were sent.
    pub(super) offered_per_s: f64,
    /// SYN-ACKs per second that came back for them.
    pub(super) answered_per_s: f64,
    /// Frames per second that the server's device took in, those of the clients included.
    pub(super) taken_per_s: f64,
    /// Octets that went to the addresses of the attack, for each that the server's device took in; `None` without an
    /// attack.
    pub(super) amplification: Option<f64>,
    /// Packets of the whole attack.
    pub(super) syns_sent: u64,
    /// Frames that the server's device took from the client's meanwhile, those of the clients included; the others
    /// found its queue full. `None` without an attack, or if the device does not say.
    pub(super) frames_taken: Option<u64>,
    /// Connections that the attack kept at its end; `None` if it needs none.
    pub(super) attack_connections: Option<u64>,
    /// Whether the kernel made the frames of the attack, else they came through an AF_XDP socket. `None` without one.
    pub(super) live_frames: Option<bool>,
    /// Clients that began.
    pub(super) legit_tried: u32,
    /// Clients that were answered completely and in time.
    pub(super) legit_ok: u32,
    /// From the first SYN until the connection, in microseconds, of the connections that came about.
    pub(super) connect: Option<Quantiles>,
    /// The connect p99 of the clients that did not wait for a hypervisor, in microseconds.
    pub(super) undisturbed_p99_us: Option<f64>,
    /// The time that a hypervisor took away from one of the processors during the window.
    pub(super) steal: Duration,
    /// From the first SYN until the end of the response, which is a single segment, in microseconds, of those that got
    /// one.
    pub(super) first_byte: Option<Quantiles>,
    /// The reason why the first client failed.
    pub(super) first_failure: Option<String>,
    /// From the begin of the attack until new clients were served; `None` if there was no attack, or they were not
    /// during the window either.
    pub(super) served_after_begin: Option<Duration>,
    /// From its end until new clients were served; `None` if there was no attack, or they were not in time.
    pub(super) served_after_end: Option<Duration>,
    /// The part of the time in which the server's core was busy, 0 to 1.
    pub(super) server_core_busy: f64,
    /// The server's resident memory at the end, in bytes.
    pub(super) rss_bytes: u64,
    /// Its growth, in bytes.
    pub(super) rss_delta_bytes: i64,
    /// The growth of the kernel's unreclaimable memory, in bytes.
    pub(super) kernel_memory_delta_bytes: i64,
    /// Throughput of the open connections before the attack, in bytes per second.
    pub(super) open_before_bytes_per_s: f64,
    /// Their throughput during the attack.
    pub(super) open_during_bytes_per_s: f64,
    /// The damage to them.
    pub(super) damage: Damage,
}

/// One try of the search for a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Try {
    /// The rate that was really offered, per second.
    pub(super) offered_per_s: f64,
    /// Clients that were answered completely and in time.
    pub(super) legit_ok: u64,
    /// 99 of 100 connected within, in microseconds; `None` if nobody did.
    pub(super) connect_p99_us: Option<f64>,
    /// The time that a hypervisor took away from one of the processors meanwhile.
    pub(super) steal: Duration,
    /// Whether that is next to nothing to them, but for those that waited for the hypervisor.
    pub(super) is_stood: bool,
}

/// The highest rate of an attack that a server stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Score {
    /// The server.
    pub(super) contender: Contender,
    /// The IP version.
    pub(super) family: Family,
    /// The attack.
    pub(super) attack: Attack,
    /// The rate, in packets per second; `None` if it does not stand the lowest.
    pub(super) per_s: Option<f64>,
    /// The tries of the search, in their order.
    pub(super) tries: Vec<Try>,
}

/// The rate of a bare XDP program.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound {
    family: Family,
    attack: Attack,
    limit: Limit,
    per_s: f64,
}

/// The results of a whole run.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    environment: Map<String, Value>,
    /// Of what was measured several times, the one that answered the median.
    rows: Vec<Measurement>,
    /// All rows at the highest rate, in the order they were measured.
    at_max: Vec<Measurement>,
    /// All results of bare XDP programs, in the same order.
    bounds: Vec<Bound>,
    scores: Vec<Score>,
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
            let key = |row: &Measurement| (row.family, row.attack, row.target);
            let is_same = |other: &Measurement| key(other) == key(&row);
            self.rows
                .retain(|other| other.offered != Offered::Max || !is_same(other));
            self.at_max.push(row.clone());
            let mut same: Vec<&Measurement> = self.at_max.iter().filter(|&other| is_same(other)).collect();
            let figure = |row: &Measurement| match row.attack {
                Some(Attack::SYN) => row.answered_per_s,
                _ => row.taken_per_s,
            };
            same.sort_by(|one, other| figure(one).total_cmp(&figure(other)));
            row = same[same.len() / 2].clone();
        }
        self.rows.push(row);
        // They are measured in another order each time.
        self.rows
            .sort_by_key(|row| (row.family, row.attack, row.offered, row.target));
    }

    /// Adds the limit that a bare XDP program reached, in packets per second.
    pub(super) fn add_limit(&mut self, family: Family, attack: Attack, limit: Limit, per_s: f64) {
        self.bounds.push(Bound {
            family,
            attack,
            limit,
            per_s,
        });
    }

    /// Adds a score.
    pub(super) fn add_score(&mut self, score: Score) {
        self.scores.push(score);
        self.scores
            .sort_by_key(|score| (score.family, score.attack, score.contender));
    }

    /// Adds a line to the environment.
    pub(super) fn add_environment(&mut self, name: &str, value: impl Into<Value>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// Returns the connect p99 of `target` without an attack, in microseconds, of the clients that did not wait for a
    /// hypervisor.
    pub(super) fn quiet_p99_us(&self, family: Family, target: Target) -> Option<f64> {
        let is_quiet = |row: &&Measurement| row.family == family && row.target == target && row.attack.is_none();
        self.rows.iter().find(is_quiet)?.undisturbed_p99_us
    }

    /// Returns the IP versions that were measured.
    fn families(&self) -> Vec<Family> {
        let measured = |family: &Family| self.rows.iter().any(|row| row.family == *family);
        [Family::V4, Family::V6].into_iter().filter(measured).collect()
    }

    /// Returns the attacks that were measured.
    fn attacks(&self) -> Vec<Attack> {
        let mut attacks: Vec<Attack> = self.rows.iter().filter_map(|row| row.attack).collect();
        attacks.sort_unstable();
        attacks.dedup();
        attacks
    }

    /// Returns the median of the rates that a bare XDP program reached.
    fn limit(&self, family: Family, attack: Attack, limit: Limit) -> Option<f64> {
        Spread::of(self.bounds_of(family, attack, limit)).map(|spread| spread.median)
    }

    /// The rates that a bare XDP program reached, in the order of the rounds.
    fn bounds_of(&self, family: Family, attack: Attack, limit: Limit) -> Vec<f64> {
        let same = |bound: &&Bound| (bound.family, bound.attack, bound.limit) == (family, attack, limit);
        self.bounds.iter().filter(same).map(|bound| bound.per_s).collect()
    }

    /// The limits of SYNs that stand for all: those of IPv4 if that was measured.
    fn first_limit(&self, limit: Limit) -> Option<f64> {
        let of = |family| self.limit(family, Attack::SYN, limit);
        of(Family::V4).or_else(|| of(Family::V6))
    }

    /// Returns the rate of a score; `None` if it was not searched for, or nothing was stood.
    fn score(&self, family: Family, attack: Attack, contender: Contender) -> Option<f64> {
        let same = |score: &&Score| (score.family, score.attack, score.contender) == (family, attack, contender);
        self.scores.iter().find(same)?.per_s
    }
}

impl Results {
    /// Returns the report.
    pub(super) fn report(&self) -> Report {
        let ratios = self.ratios();
        let mut report = Report {
            kind: "resilience",
            environment: self.environment.clone(),
            rows: self.rows.iter().map(|row| row::row(self, row)).collect(),
            ..Report::default()
        };
        let limits = json!({
            "xdp_tx_per_s": self.first_limit(Limit::Transmit).map(f64::round),
            "xdp_drop_per_s": self.first_limit(Limit::Drop).map(f64::round),
        });
        let ratios = json!({
            "answered_max_vs_linux": ratios.answered_max_vs_linux.map(three_digits),
            "answered_max_vs_xdp_tx": ratios.answered_max_vs_xdp_tx.map(three_digits),
            "taken_max_vs_xdp_drop": ratios.taken_max_vs_xdp_drop.map(three_digits),
            "score_vs_bare": ratios.score_vs_bare.map(three_digits),
        });
        let one_try = |one: &Try| {
            json!({
                "offered_per_s": one.offered_per_s.round(),
                "legit_ok": one.legit_ok,
                "connect_p99_us": one.connect_p99_us.map(f64::round),
                "steal_seconds": one.steal.as_secs_f64(),
                "is_stood": one.is_stood,
            })
        };
        let scores = self.scores.iter().map(|score| {
            json!({
                "attack": score.attack.name(),
                "family": score.family.name(),
                "target": score.contender.name(),
                "score_per_s": score.per_s.map(f64::round),
                "tries": score.tries.iter().map(one_try).collect::<Vec<_>>(),
            })
        });
        report.more.insert("scores".to_owned(), scores.collect());
        report.more.insert("limits".to_owned(), limits);
        report.more.insert("ratios".to_owned(), ratios);
        report.text = self.text(&report);
        report.page = page::page(self, &report);
        report
    }

    /// Returns two tables for each IP version, then limits, scores and ratios.
    fn text(&self, report: &Report) -> String {
        let mut text = String::new();
        for family in self.families() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", family.title());
            text.push_str(&report.table(row::SUMMARY, &page::summary(report, family)));
            text.push('\n');
            let rows = report.rows_with(&[("family", family.name())]);
            text.push_str(&report.table(row::COLUMNS, &rows));
            for line in self.limits_text(family).into_iter().chain(self.scores_text(family)) {
                let _ = writeln!(text, "{line}");
            }
            text.push('\n');
        }
        for (what, number) in self.ratio_texts() {
            let _ = writeln!(text, "{what}: {number}");
        }
        text
    }

    /// Returns the limits of one IP version as a sentence for each attack that they were measured with.
    fn limits_text(&self, family: Family) -> Vec<String> {
        let title = family.title();
        let of_attack = |attack: Attack| {
            let transmit = self.limit(family, attack, Limit::Transmit).map(short);
            let drop = self.limit(family, attack, Limit::Drop).map(short);
            let name = attack.name();
            match (transmit, drop) {
                (Some(transmit), Some(drop)) => Some(format!(
                    "{title}, {name}: a bare XDP program sends back {transmit}/s, and drops {drop}/s"
                )),
                (Some(transmit), None) => Some(format!("{title}, {name}: a bare XDP program sends back {transmit}/s")),
                (None, Some(drop)) => Some(format!("{title}, {name}: a bare XDP program drops {drop}/s")),
                (None, None) => None,
            }
        };
        self.attacks().into_iter().filter_map(of_attack).collect()
    }

    /// Returns the scores of one IP version as a sentence for each attack.
    fn scores_text(&self, family: Family) -> Vec<String> {
        let of_attack = |attack: Attack| {
            let same = self
                .scores
                .iter()
                .filter(|score| (score.family, score.attack) == (family, attack));
            let parts: Vec<String> = same
                .map(|score| {
                    let rate = score
                        .per_s
                        .map_or_else(|| "nothing".to_owned(), |rate| format!("{}/s", short(rate)));
                    format!("{} {rate}", score.contender.name())
                })
                .collect();
            (!parts.is_empty()).then(|| {
                format!(
                    "{}, {}: clients do not notice {}",
                    family.title(),
                    attack.name(),
                    parts.join(", ")
                )
            })
        };
        self.attacks().into_iter().filter_map(of_attack).collect()
    }
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
    fn rows_are_ordered_however_they_come() {
        let mut report = Results::default();
        report.add_row(row(Target::LinuxAlways, Family::V6, Offered::Nothing, 0.0));
        report.add_row(row(Target::TidegateAuto, Family::V4, Offered::Max, 0.0));
        report.add_row(row(Target::LinuxAlways, Family::V4, Offered::Pps(100), 0.0));
        report.add_row(row(Target::TidegateAuto, Family::V4, Offered::Pps(100), 0.0));
        let syn = Some(Attack::SYN);
        let order: Vec<_> = report
            .rows
            .iter()
            .map(|row| (row.family, row.attack, row.offered, row.target))
            .collect();
        assert_eq!(
            order,
            [
                (Family::V4, syn, Offered::Pps(100), Target::TidegateAuto),
                (Family::V4, syn, Offered::Pps(100), Target::LinuxAlways),
                (Family::V4, syn, Offered::Max, Target::TidegateAuto),
                (Family::V6, None, Offered::Nothing, Target::LinuxAlways),
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
            .find(|line| line.starts_with("syn") && line.contains("tidegate auto") && line.contains("max"))
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
    fn every_family_has_its_table_and_only_what_was_measured_is_shown() {
        let text = report().report().text;
        assert_eq!(text.matches("unnoticed/s").count(), 2);
        assert_eq!(text.matches("first byte p99").count(), 2);
        assert!(
            text.contains("IPv4, syn: a bare XDP program sends back 3.00M/s, and drops 8.00M/s\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "IPv4, ack: clients do not notice tidegate auto 3.00M/s, nginx nothing, bare filter 4.00M/s\n"
            ),
            "{text}"
        );
        assert!(!text.contains("IPv6, syn: a bare"), "{text}");
        assert!(text.contains("tcp_syncookies=1: 5.00\n"), "{text}");
        assert!(text.contains("XDP_TX: 0.80\n"), "{text}");
        assert!(text.contains("worst attack: 0.60\n"), "{text}");
        assert!(text.contains("worst attack: 0.75\n"), "{text}");
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
                "schema_version",
                "scores"
            ]
        );
        assert_eq!(keys(&value["limits"]), ["xdp_drop_per_s", "xdp_tx_per_s"]);
        assert_eq!(
            keys(&value["ratios"]),
            [
                "answered_max_vs_linux",
                "answered_max_vs_xdp_tx",
                "score_vs_bare",
                "taken_max_vs_xdp_drop"
            ]
        );
        let rows = value["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 10);
        for row in rows {
            assert_eq!(
                keys(row),
                [
                    "amplification",
                    "answered_per_s",
                    "attack",
                    "attack_connections",
                    "bare_score_per_s",
                    "connect_max_us",
                    "connect_p50_us",
                    "connect_p90_us",
                    "connect_p99_us",
                    "connect_p99_vs_quiet",
                    "family",
                    "first_byte_max_us",
                    "first_byte_p50_us",
                    "first_byte_p90_us",
                    "first_byte_p99_us",
                    "first_failure",
                    "frames_taken",
                    "kernel_memory_delta_bytes",
                    "legit_failed",
                    "legit_ok",
                    "legit_tried",
                    "limit_xdp_drop_per_s",
                    "limit_xdp_tx_per_s",
                    "live_frames",
                    "offered_per_s",
                    "open_before_bytes_per_s",
                    "open_broken",
                    "open_bytes_lost",
                    "open_bytes_wrong",
                    "open_during_bytes_per_s",
                    "open_kept",
                    "open_stalled",
                    "open_trouble",
                    "rate",
                    "rss_bytes",
                    "rss_delta_bytes",
                    "score_per_s",
                    "score_vs_bare",
                    "served_after_begin_us",
                    "served_after_end_us",
                    "server_core_busy",
                    "steal_seconds",
                    "syns_sent",
                    "taken_per_s",
                    "target"
                ]
            );
        }
        for score in value["scores"].as_array().unwrap() {
            assert_eq!(keys(score), ["attack", "family", "score_per_s", "target", "tries"]);
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
        assert_eq!(row["steal_seconds"], 0.02);
        assert_eq!(row["rss_delta_bytes"], -4_096);
        assert_eq!((&row["attack"], &row["rss_bytes"]), (&json!("syn"), &json!(64_000_000)));
        assert_eq!(row["taken_per_s"], 3_000_000.0);
        assert_eq!(row["amplification"], 0.912);
        assert_eq!(row["served_after_begin_us"], 12_345);
        // That of the row without an attack is the same.
        assert_eq!(row["connect_p99_vs_quiet"], 1.0);
        let ack = &value["rows"][4];
        assert_eq!((&ack["attack"], &ack["rate"]), (&json!("ack"), &json!("1M")));
        assert_eq!(ack["score_per_s"], 3_000_000.0);
        assert_eq!(ack["bare_score_per_s"], 4_000_000.0);
        assert_eq!(
            (&ack["score_vs_bare"], &ack["limit_xdp_drop_per_s"]),
            (&json!(0.75), &json!(5_000_000.0))
        );
        assert_eq!(value["rows"][0]["attack"], "none");
        let score = &value["scores"][0];
        assert_eq!(
            (&score["attack"], &score["target"]),
            (&json!("ack"), &json!("tidegate auto"))
        );
        assert_eq!(
            (&score["score_per_s"], &score["tries"][0]["legit_ok"]),
            (&json!(3_000_000.0), &json!(999))
        );
        assert_eq!(value["scores"][1]["score_per_s"], Value::Null);
        assert_eq!(value["limits"]["xdp_tx_per_s"], 3_000_000.0);
        assert_eq!(value["limits"]["xdp_drop_per_s"], 8_000_000.0);
        assert_eq!(value["ratios"]["answered_max_vs_linux"], 5.0);
        assert_eq!(value["ratios"]["answered_max_vs_xdp_tx"], 0.8);
        assert_eq!(value["environment"]["kernel"], "6.1 <script>");
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let value = report().report().json();
        let last = &value["rows"][9];
        assert_eq!(last["target"], "linux tcp_syncookies=1");
        assert_eq!(last["legit_ok"], 0);
        for key in [
            "connect_p50_us",
            "connect_p99_us",
            "first_byte_p99_us",
            "limit_xdp_tx_per_s",
            "served_after_end_us",
            "score_per_s",
            "connect_p99_vs_quiet",
        ] {
            assert_eq!(last[key], Value::Null, "{key}");
        }
        let nothing = Results::default().report().json();
        assert_eq!(nothing["limits"]["xdp_tx_per_s"], Value::Null);
        assert_eq!(nothing["ratios"]["answered_max_vs_linux"], Value::Null);
    }
}
