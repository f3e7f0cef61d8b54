//! The reports of tidegate-bench: rows of figures, for programs as JSON, for the terminal as a table, and for people as
//! one page that needs nothing but itself; and latencies as histograms, in the forms that tools for HdrHistogram read.
//!
//! A measurement makes [`Row`]s and puts them into a [`Report`]. Tables ([`Column`]) and charts ([`Section`]) name the
//! fields they show, on the terminal and on the page alike. `docs/report.md` describes the JSON.
//!
//! ```
//! use tidegate_report::{Bars, Column, Page, Report, Row, Section, Spread};
//!
//! const COLUMNS: &[Column] = &[
//!     Column::name("target", "{target}"),
//!     Column::figure("per second", "{value:short} ({value_min:short}..{value_max:short})"),
//! ];
//!
//! let row = Row::new()
//!     .with("target", "tidegate")
//!     .with_spread("value", Spread::of([500_000.0, 510_000.0, 505_000.0]));
//! let mut report = Report { kind: "compare", rows: vec![row], ..Report::default() };
//! report.text = report.table(COLUMNS, &[0]);
//! assert_eq!(report.text.lines().last(), Some("tidegate  505k (500k..510k)"));
//!
//! report.page = Page {
//!     title: "One server".to_owned(),
//!     sections: vec![
//!         Section::Bars(Bars::of_targets("Requests per second", vec![0], "value", "short")),
//!         Section::Table { columns: COLUMNS, rows: vec![0] },
//!     ],
//!     ..Page::default()
//! };
//! assert_eq!(report.json()["rows"][0]["value_max"], 510_000.0);
//! assert!(report.html().contains("One server"));
//! ```
#![forbid(unsafe_code)]

mod catalog;
pub mod columns;
pub mod command;
mod diff;
pub mod files;
pub mod format;
pub mod hgrm;
pub mod interval_log;
mod latencies;
pub mod machines;
mod merge;
pub mod objective;
mod page;
mod percentiles;
mod report;
mod row;
mod sheet;
mod spread;
mod stored;
mod table;
pub mod testing;

pub use files::ReportFiles;
pub use latencies::{Latencies, Quantiles};
pub use page::{Bar, Bars, Course, Line, Lines, Mark, Page, Scale, Section, XAxis, YAxis};
pub use percentiles::{HOW_TO_READ_PERCENTILES, percentiles};
pub use report::{Report, SCHEMA_VERSION};
pub use row::Row;
pub use spread::Spread;
pub use table::Column;

/// The name of the distribution of what requests took, in tables, charts and as the tag in logs.
pub const LATENCY: &str = "latency";

/// The name of the distribution of what it took to connect.
pub const CONNECT: &str = "connect";

/// The name of the distribution of the times until the first byte of a response.
pub const FIRST_BYTE: &str = "first_byte";

/// The name of the distribution of the times from the last byte of the last response until the server's FIN.
pub const CLOSE: &str = "close";
