//! The columns of reports whose tables are no list of names and figures, for their writers and for `report show`.

use crate::{Column, diff};

/// Those of `search`: a row is a step.
pub const SEARCH: &[Column] = &[
    Column::name("step", "{purpose}"),
    Column::figure("offered/s", "{offered_per_second}"),
    Column::figure("done/s", "{value:0}"),
    Column::figure("seconds", "{seconds:1}"),
    Column::figure("p50", "{latency_us.p50:us}"),
    Column::figure("p99", "{latency_us.p99:us}"),
    Column::figure("p99.9", "{latency_us.p999:us}"),
    Column::figure("errors", "{error_count}").alert("error_count"),
    Column::figure("client busy", "{client_busy:%}"),
    Column::name("objectives", "{outcome}"),
    Column::name("why", "{why}"),
];

/// Those of `sweep`: a row is a step.
pub const SWEEP: &[Column] = &[
    Column::name("server", "{target}"),
    Column::figure("offered/s", "{offered_per_second}"),
    Column::figure("done/s", "{value:0}"),
    Column::figure("p50", "{latency_us.p50:us}"),
    Column::figure("p90", "{latency_us.p90:us}"),
    Column::figure("p99", "{latency_us.p99:us}"),
    Column::figure("p99.9", "{latency_us.p999:us}"),
    Column::figure("max", "{latency_us.max:us}"),
    Column::figure("errors", "{error_count}").alert("error_count"),
    Column::figure("client busy", "{client_busy:%}"),
    Column::name("limit", "{limit}").alert("limited_by_client"),
    Column::name("knee", "{knee}"),
];

/// Returns the columns of reports of the kind `kind`; `None` if it has none of its own.
pub(crate) fn of(kind: &str) -> Option<&'static [Column]> {
    match kind {
        diff::KIND => Some(diff::COLUMNS),
        "search" => Some(SEARCH),
        "sweep" => Some(SWEEP),
        _ => None,
    }
}
