//! A report to test with.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_report::Quantiles;
use tidegate_report::testing;

use super::super::cpu::{Parts, Usage};
use super::super::plan::{Case, ClientKind, Load, Shape, Target};
use super::{Results, Run};
use crate::probe::Answer;

/// `target` under `load`, by the bypass client.
pub(super) fn case(load: Load, target: Target) -> Case {
    Case::Server {
        load,
        client: ClientKind::Bypass,
        target,
    }
}

/// A run of fixed numbers but for the arguments. Each operation takes two frames, of the reflect one.
pub(super) fn run(case: Case, round: u32, per_s: f64) -> Run {
    let is_reflect = matches!(case, Case::Reflect(_));
    let parts = Parts {
        user: 1.0,
        system: 2.0,
        irq: 0.25,
        softirq: 0.75,
    };
    Run {
        case,
        round,
        per_s,
        quantiles: (!is_reflect).then_some(Quantiles {
            count: 1_000_000,
            p50: 50.0,
            p90: 80.0,
            p99: 120.0,
            p999: 400.0,
            max: 2_000.0,
        }),
        usage: Some(Usage {
            client: parts,
            server: parts,
            process: (!is_reflect).then_some([0.5, 1.5]),
        }),
        frames_per_op: Some(if is_reflect { 1.0 } else { 2.0 }),
        interface_frames_per_s: Some(2.0 * per_s),
        asked_per_s: None,
        steal: Duration::ZERO,
        errors: 0,
        errors_by_kind: BTreeMap::new(),
        first_error: None,
        time_wait: Some(Duration::from_secs(2)),
    }
}

/// Three rounds of everything, by the bypass client. The second round has the medians.
pub(super) fn report() -> Results {
    let mut report = Results::new(testing::environment());
    for (round, factor) in [(0, 0.9), (1, 1.0), (2, 1.2)] {
        for (load, target, per_s) in [
            (Load::Cps, Target::Tidegate, 120_000.0),
            (Load::Cps, Target::Nginx, 30_000.0),
            (Load::Cps, Target::ServeKernel, 48_000.0),
            (Load::Rps, Target::Tidegate, 510_000.0),
            (Load::Rps, Target::Nginx, 170_000.0),
            (Load::Rps, Target::ServeKernel, 204_000.0),
        ] {
            report.add(run(case(load, target), round, per_s * factor));
        }
        for (target, p99) in [
            (Target::Tidegate, 100.0),
            (Target::Nginx, 300.0),
            (Target::ServeKernel, 200.0),
        ] {
            let mut run = run(case(Load::Latency, target), round, 102_000.0);
            run.asked_per_s = Some(102_000);
            if let Some(quantiles) = &mut run.quantiles {
                quantiles.p99 = p99 * factor;
            }
            report.add(run);
        }
        report.add(run(Case::Reflect(Shape::Request), round, 1_200_000.0 * factor));
        report.add(run(Case::Reflect(Shape::Connection), round, 1_500_000.0 * factor));
    }
    for (target, head) in [
        (Target::Tidegate, 180),
        (Target::Nginx, 238),
        (Target::ServeKernel, 180),
    ] {
        report.set_answer(target, Answer { head, body: 128 });
    }
    report
}
