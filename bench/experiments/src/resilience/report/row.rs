//! A server under an attack as a row of the report.

use std::time::Duration;

use tidegate_report::format::three_digits;
use tidegate_report::{Column, Quantiles, Row};

use super::super::attack::Attack;
use super::super::plan::{Contender, Limit};
use super::{Measurement, Results};

/// The columns of the table of all rows.
pub(super) const COLUMNS: &[Column] = &[
    Column::name("attack", "{attack}"),
    Column::name("target", "{target}"),
    Column::figure("rate", "{rate}"),
    Column::figure("offered/s", "{offered_per_s:short}"),
    Column::figure("answered/s", "{answered_per_s:short}"),
    Column::figure("clients ok", "{legit_ok}/{legit_tried}").alert("legit_failed"),
    Column::figure("connect p50", "{connect_p50_us:us}"),
    Column::figure("p99", "{connect_p99_us:us}"),
    Column::figure("max", "{connect_max_us:us}"),
    Column::figure("first byte p99", "{first_byte_p99_us:us}"),
    Column::figure("core", "{server_core_busy:%}"),
    Column::figure("RSS", "{rss_delta_bytes:k}"),
    Column::figure("open MB/s", "{open_before_bytes_per_s:M} > {open_during_bytes_per_s:M}"),
    Column::figure("open trouble", "{open_trouble}"),
];

/// The columns of the table with one line for each target and attack.
pub(super) const SUMMARY: &[Column] = &[
    Column::name("attack", "{attack}"),
    Column::name("target", "{target}"),
    Column::figure("unnoticed/s", "{score_per_s:short}"),
    Column::figure("of bare", "{score_vs_bare:%}"),
    Column::figure("offered/s", "{offered_per_s:short}"),
    Column::figure("kept", "{attack_connections}"),
    Column::figure("taken/s", "{taken_per_s:short}"),
    Column::figure("clients ok", "{legit_ok}/{legit_tried}").alert("legit_failed"),
    Column::figure("connect p99", "{connect_p99_us:us}"),
    Column::figure("first byte", "{first_byte_p99_us:us}"),
    Column::figure("again", "{served_after_begin_us:us}"),
    Column::figure("after end", "{served_after_end_us:us}"),
    Column::figure("out/in", "{amplification:2}"),
    Column::figure("core", "{server_core_busy:%}"),
    Column::figure("RSS", "{rss_bytes:M}M"),
    Column::figure("open", "{open_kept:%}"),
];

/// Returns the row of the report. Fields that were not measured are null.
pub(super) fn row(results: &Results, row: &Measurement) -> Row {
    let damage = &row.damage;
    let per_attack = |of: &dyn Fn(Attack) -> Option<f64>| row.attack.and_then(of);
    let limit = |limit| per_attack(&|attack| results.limit(row.family, attack, limit)).map(f64::round);
    let score = |contender| per_attack(&|attack| results.score(row.family, attack, contender)).map(f64::round);
    let micros = |time: Option<Duration>| time.map(|time| time.as_micros() as u64);
    let vs_quiet = || Some(row.connect?.p99 / results.quiet_p99_us(row.family, row.target)?);
    let own_score = score(Contender::Plain(row.target));
    let mut fields = Row::new()
        .with("attack", row.attack.map_or("none", Attack::name))
        .with("target", row.target.name())
        .with("family", row.family.name())
        .with("rate", row.offered.name())
        .with("offered_per_s", row.offered_per_s.round())
        .with("answered_per_s", row.answered_per_s.round())
        .with("taken_per_s", row.taken_per_s.round())
        .with("amplification", row.amplification.map(three_digits))
        .with("syns_sent", row.syns_sent)
        .with("frames_taken", row.frames_taken)
        .with("attack_connections", row.attack_connections)
        .with("live_frames", row.live_frames)
        .with("legit_tried", row.legit_tried)
        .with("legit_ok", row.legit_ok)
        .with("legit_failed", row.legit_tried.saturating_sub(row.legit_ok))
        .with("first_failure", row.first_failure.as_deref())
        .with("connect_p99_vs_quiet", vs_quiet().map(three_digits))
        .with("served_after_begin_us", micros(row.served_after_begin))
        .with("served_after_end_us", micros(row.served_after_end))
        .with("server_core_busy", three_digits(row.server_core_busy))
        .with("steal_seconds", row.steal.as_secs_f64())
        .with("rss_bytes", row.rss_bytes)
        .with("rss_delta_bytes", row.rss_delta_bytes)
        .with("kernel_memory_delta_bytes", row.kernel_memory_delta_bytes)
        .with("open_before_bytes_per_s", row.open_before_bytes_per_s.round())
        .with("open_during_bytes_per_s", row.open_during_bytes_per_s.round())
        .with("open_kept", row.open_kept().map(three_digits))
        .with("open_broken", damage.broken)
        .with("open_stalled", damage.stalled)
        .with("open_bytes_lost", damage.lost)
        .with("open_bytes_wrong", damage.wrong)
        .with("open_trouble", trouble(row))
        .with("limit_xdp_tx_per_s", limit(Limit::Transmit))
        .with("limit_xdp_drop_per_s", limit(Limit::Drop))
        .with("score_per_s", own_score)
        .with("bare_score_per_s", score(Contender::Filtered))
        .with(
            "score_vs_bare",
            own_score
                .zip(score(Contender::Filtered))
                .map(|(own, bare)| three_digits(own / bare)),
        );
    for (name, quantiles) in [("connect", row.connect), ("first_byte", row.first_byte)] {
        let micros = |value: fn(Quantiles) -> f64| quantiles.map(value).map(|micros| micros.round() as u64);
        fields = fields
            .with(&format!("{name}_p50_us"), micros(|quantiles| quantiles.p50))
            .with(&format!("{name}_p90_us"), micros(|quantiles| quantiles.p90))
            .with(&format!("{name}_p99_us"), micros(|quantiles| quantiles.p99))
            .with(&format!("{name}_max_us"), micros(|quantiles| quantiles.max));
    }
    fields
}

/// Returns the damage to the open connections, as a phrase.
fn trouble(row: &Measurement) -> String {
    let damage = &row.damage;
    let parts: Vec<String> = [
        (damage.broken, "broken"),
        (damage.stalled, "stalled"),
        (damage.lost, "B lost"),
        (damage.wrong, "B wrong"),
    ]
    .into_iter()
    .filter(|&(count, _)| count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::report;
    use super::*;

    #[test]
    fn trouble_of_open_connections_is_told() {
        let mut results = report();
        results.rows[0].damage.broken = 2;
        results.rows[0].damage.wrong = 7;
        assert_eq!(trouble(&results.rows[0]), "2 broken, 7 B wrong");
    }
}
