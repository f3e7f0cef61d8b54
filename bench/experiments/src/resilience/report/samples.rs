//! A report to test with.

use tidegate_lab::Family;
use tidegate_report::Quantiles;
use tidegate_report::testing;

use std::time::Duration;

use super::super::attack::Attack;
use super::super::background_load::Damage;
use super::super::plan::{Contender, Limit, Offered, Target};
use super::{Measurement, Results, Score, Try};

/// A row of fixed numbers but for the arguments; of SYNs, if there are any.
pub(super) fn row(target: Target, family: Family, offered: Offered, answered_per_s: f64) -> Measurement {
    Measurement {
        target,
        family,
        attack: (offered != Offered::Nothing).then_some(Attack::SYN),
        offered,
        offered_per_s: 4_000_000.4,
        answered_per_s,
        taken_per_s: 3_000_000.4,
        amplification: Some(0.912_3),
        syns_sent: 16_000_000,
        frames_taken: Some(12_000_000),
        live_frames: Some(true),
        attack_connections: None,
        legit_tried: 1_000,
        legit_ok: 990,
        connect: Some(Quantiles {
            count: 990,
            p50: 50.0,
            p90: 90.0,
            p99: 1_200.0,
            p999: 1_500.0,
            max: 2_000_000.0,
        }),
        undisturbed_p99_us: Some(1_200.0),
        steal: Duration::from_millis(20),
        first_byte: Some(Quantiles {
            count: 990,
            p50: 150.0,
            p90: 190.0,
            p99: 2_300.0,
            p999: 2_500.0,
            max: 3_000_000.0,
        }),
        first_failure: Some("no connection within 10 s".to_owned()),
        served_after_begin: Some(Duration::from_micros(12_345)),
        served_after_end: None,
        server_core_busy: 0.987_65,
        rss_bytes: 64_000_000,
        rss_delta_bytes: -4_096,
        kernel_memory_delta_bytes: 8_192,
        open_before_bytes_per_s: 25_000_000.0,
        open_during_bytes_per_s: 18_750_000.0,
        damage: Damage::default(),
    }
}

/// Rows of both families, with limits and scores of IPv4 only.
pub(super) fn report() -> Results {
    let mut report = Results::new(testing::environment());
    for (family, tidegate, linux) in [
        (Family::V4, 2_400_000.0, 400_000.0),
        (Family::V6, 1_800_000.0, 360_000.0),
    ] {
        report.add_row(row(Target::TidegateAuto, family, Offered::Nothing, 0.0));
        report.add_row(row(Target::TidegateAuto, family, Offered::Max, tidegate));
        report.add_row(row(Target::LinuxOnOverflow, family, Offered::Nothing, 0.0));
        let mut last = row(Target::LinuxOnOverflow, family, Offered::Max, linux);
        last.connect = None;
        last.first_byte = None;
        last.legit_ok = 0;
        report.add_row(last);
    }
    for offered in [Offered::Pps(1_000_000), Offered::Max] {
        report.add_row(Measurement {
            attack: Some(Attack::ACK),
            ..row(Target::TidegateAuto, Family::V4, offered, 0.0)
        });
    }
    report.add_limit(Family::V4, Attack::SYN, Limit::Transmit, 3_000_000.0);
    report.add_limit(Family::V4, Attack::SYN, Limit::Drop, 8_000_000.0);
    report.add_limit(Family::V4, Attack::ACK, Limit::Drop, 5_000_000.0);
    for (contender, per_s) in [
        (Contender::Filtered, Some(4_000_000.0)),
        (Contender::Plain(Target::TidegateAuto), Some(3_000_000.0)),
        (Contender::Plain(Target::Nginx), None),
    ] {
        report.add_score(Score {
            contender,
            family: Family::V4,
            attack: Attack::ACK,
            per_s,
            tries: vec![Try {
                offered_per_s: 3_000_000.0,
                legit_ok: 999,
                connect_p99_us: Some(1_900.0),
                steal: Duration::ZERO,
                is_stood: true,
            }],
        });
    }
    report
}
