//! The report as JSON.

use serde_json::{Value, json};

use super::super::latency::Quantiles;
use super::{Report, Row};
use crate::results::numbers::three_digits;

/// One object: `environment`, `rows`, `limits` and `ratios`. What was not measured is null.
pub(super) fn value(report: &Report) -> Value {
    let limits = report.first_limits();
    let ratios = report.ratios();
    json!({
        "environment": report.environment,
        "rows": report.rows.iter().map(|row| row_value(report, row)).collect::<Vec<_>>(),
        "limits": {
            "xdp_tx_per_s": limits.transmit.map(f64::round),
            "xdp_drop_per_s": limits.drop.map(f64::round),
        },
        "ratios": {
            "answered_max_vs_linux": ratios.answered_max_vs_linux.map(three_digits),
            "answered_max_vs_xdp_tx": ratios.answered_max_vs_xdp_tx.map(three_digits),
        },
    })
}

fn row_value(report: &Report, row: &Row) -> Value {
    let limits = report.limits(row.family);
    let connect = |quantile: fn(Quantiles) -> u64| row.connect.map(quantile);
    let first_byte = |quantile: fn(Quantiles) -> u64| row.first_byte.map(quantile);
    json!({
        "target": row.target.name(),
        "family": row.family.name(),
        "rate": row.offered.name(),
        "offered_per_s": row.offered_per_s.round(),
        "answered_per_s": row.answered_per_s.round(),
        "syns_sent": row.syns_sent,
        "frames_taken": row.frames_taken,
        "live_frames": row.live_frames,
        "legit_tried": row.legit_tried,
        "legit_ok": row.legit_ok,
        "first_failure": row.first_failure,
        "connect_p50_us": connect(|quantiles| quantiles.p50),
        "connect_p90_us": connect(|quantiles| quantiles.p90),
        "connect_p99_us": connect(|quantiles| quantiles.p99),
        "connect_max_us": connect(|quantiles| quantiles.max),
        "first_byte_p50_us": first_byte(|quantiles| quantiles.p50),
        "first_byte_p90_us": first_byte(|quantiles| quantiles.p90),
        "first_byte_p99_us": first_byte(|quantiles| quantiles.p99),
        "first_byte_max_us": first_byte(|quantiles| quantiles.max),
        "server_core_busy": three_digits(row.server_core_busy),
        "rss_delta_bytes": row.rss_delta_bytes,
        "kernel_memory_delta_bytes": row.kernel_memory_delta_bytes,
        "open_before_bytes_per_s": row.open_before_bytes_per_s.round(),
        "open_during_bytes_per_s": row.open_during_bytes_per_s.round(),
        "open_kept": row.open_kept().map(three_digits),
        "open_broken": row.open_toll.broken,
        "open_stalled": row.open_toll.stalled,
        "open_bytes_lost": row.open_toll.lost,
        "open_bytes_wrong": row.open_toll.wrong,
        "limit_xdp_tx_per_s": limits.transmit.map(f64::round),
        "limit_xdp_drop_per_s": limits.drop.map(f64::round),
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::report;
    use super::*;
    use crate::results::testing::keys;

    #[test]
    fn the_keys_are_those_that_others_read() {
        let value = value(&report());
        assert_eq!(keys(&value), ["environment", "limits", "ratios", "rows"]);
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
        let value = value(&report());
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
        let value = value(&report());
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
        let nothing = super::value(&Report::default());
        assert_eq!(nothing["limits"]["xdp_tx_per_s"], Value::Null);
        assert_eq!(nothing["ratios"]["answered_max_vs_linux"], Value::Null);
    }
}
