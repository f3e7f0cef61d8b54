//! Medians, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::results::spread::Spread;

/// Which way the data goes.
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

    /// What it is in words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Down => "server to client",
            Self::Up => "client to server",
        }
    }
}

/// The goodput of both servers over one kind of link in one direction, in Mbit/s, a value for each run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// What the link does.
    pub(super) condition: String,
    /// Which way the data goes.
    pub(super) direction: Direction,
    /// Of the links, a value for each run.
    pub(super) seeds: Vec<u64>,
    /// Between tidegate and Linux.
    pub(super) tidegate: Vec<f64>,
    /// Between Linux and Linux.
    pub(super) linux: Vec<f64>,
}

impl Row {
    /// tidegate's median as a part of Linux's; `None` if one of them was not measured.
    pub(super) fn ratio(&self) -> Option<f64> {
        Some(spread(&self.tidegate)?.median / spread(&self.linux)?.median)
    }
}

fn spread(values: &[f64]) -> Option<Spread> {
    Spread::of(values.iter().copied())
}

/// The rows as a table: medians with the lowest and the highest run, and tidegate's part of Linux's.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16} {:<17} {:>22} {:>22} {:>6}\n",
        "link", "direction", "tidegate", "Linux", "ratio"
    );
    for row in rows {
        let ratio = row
            .ratio()
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<16} {:<17} {:>22} {:>22} {ratio:>6}",
            row.condition,
            row.direction.name(),
            spread_text(&row.tidegate),
            spread_text(&row.linux)
        );
    }
    text
}

fn spread_text(values: &[f64]) -> String {
    spread(values).map_or_else(
        || "-".to_owned(),
        |Spread { median, min, max }| format!("{median:.2} ({min:.2}-{max:.2})"),
    )
}

/// The rows with every run.
pub(super) fn json(rows: &[Row]) -> Value {
    rows.iter()
        .map(|row| {
            json!({
                "link": row.condition,
                "direction": row.direction.name(),
                "seeds": row.seeds,
                "tidegate_mbits_per_second": row.tidegate,
                "linux_mbits_per_second": row.linux,
                "ratio": row.ratio(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tidegate: &[f64], linux: &[f64]) -> Row {
        Row {
            condition: "loss 1%".to_owned(),
            direction: Direction::Up,
            seeds: (5..).take(tidegate.len().max(linux.len())).collect(),
            tidegate: tidegate.to_vec(),
            linux: linux.to_vec(),
        }
    }

    #[test]
    fn a_row_shows_medians_spread_and_ratio() {
        let text = text(&[row(&[8.0, 10.0, 9.0], &[10.0, 10.0, 12.0])]);
        assert!(text.contains("loss 1%"), "{text}");
        assert!(text.contains("client to server"), "{text}");
        assert!(text.contains("9.00 (8.00-10.00)"), "{text}");
        assert!(text.contains("10.00 (10.00-12.00)"), "{text}");
        assert!(text.trim_end().ends_with("0.90"), "{text}");
    }

    #[test]
    fn every_run_is_told_with_its_seed() {
        let told = json(&[row(&[8.0, 10.0], &[10.0, 20.0])]);
        assert_eq!(told[0]["seeds"], json!([5, 6]));
        assert_eq!(told[0]["tidegate_mbits_per_second"], json!([8.0, 10.0]));
        assert_eq!(told[0]["linux_mbits_per_second"], json!([10.0, 20.0]));
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let row = row(&[], &[1.0]);
        assert_eq!(row.ratio(), None);
        assert!(text(std::slice::from_ref(&row)).trim_end().ends_with('-'));
        assert_eq!(json(&[row])[0]["ratio"], Value::Null);
    }
}
