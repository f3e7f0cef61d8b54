//! A measurement to test with.

use std::time::{Duration, SystemTime};

use tidegate_lab::machine::Memory;
use tidegate_load::{Errors, Frames, Measured, OpenConnections, Phase, Plan, Point, Ramp, Verify, Workload};
use tidegate_report::testing;
use tidegate_report::{Latencies, Quantiles};

use super::report::{MemoryUse, Run};

/// A run of fixed numbers without errors: 1,000 operations in 2 s that took 1 to 1,000 us each, and one connection that
/// took 250 us.
pub(super) fn run(workload: Workload) -> Run {
    let mut latency = Latencies::new();
    for micros in 1..=1_000 {
        latency.record(Duration::from_micros(micros));
    }
    let mut connect = Latencies::new();
    connect.record(Duration::from_micros(250));
    Run {
        environment: testing::environment(),
        client: "bypass",
        plan: Plan {
            url: "http://198.18.0.1:80/x".parse().expect("the URL is right"),
            workload,
            connections: 64,
            ramp: Ramp {
                up: Duration::from_secs(1),
                ..Ramp::default()
            },
            warm_up: Duration::from_millis(500),
            duration: Duration::from_secs(2),
            verify: Verify::default(),
            spread: None,
            cpu: Some(1),
        },
        profile: None,
        start: SystemTime::UNIX_EPOCH,
        measured: Measured {
            operations: 1_000,
            seconds: 2.0,
            latency,
            connect,
            announced_ends: 0,
            errors: Errors::default(),
            frames: Some(Frames {
                sent: 8_000,
                received: 7_000,
            }),
            operations_with_warm_up: 2_000,
            body: None,
            time_wait: Some(Duration::from_secs(2)),
            unclean_ends: 0,
            open: OpenConnections { max: 64, at_end: 60 },
            series: series(),
            cut_short: false,
        },
        memory: None,
    }
}

/// The second after `start` seconds: 100 operations, one error, 3 connections established, 64 open.
pub(super) fn point(phase: Phase, start: u32) -> Point {
    Point {
        phase,
        start: Duration::from_secs(start.into()),
        length: Duration::from_secs(1),
        operations: 100,
        errors: 1,
        latency: Some(Quantiles {
            count: 100,
            p50: 500.0,
            p90: 900.0,
            p99: 990.0,
            p999: 999.0,
            max: 1_000.0,
        }),
        connects: 3,
        open: 64,
        open_mean: 63.5,
        open_max: 64,
        resident: Some(5_000_000),
    }
}

fn series() -> Vec<Point> {
    let [half, second] = [500, 1_000].map(Duration::from_millis);
    vec![
        Point {
            operations: 1_000,
            latency: None,
            ..point(Phase::Ramp, 0)
        },
        Point {
            length: half,
            operations: 500,
            latency: None,
            ..point(Phase::WarmUp, 1)
        },
        Point {
            start: second + half,
            operations: 600,
            ..point(Phase::Sustain, 1)
        },
        Point {
            start: 2 * second + half,
            operations: 400,
            open: 60,
            ..point(Phase::Sustain, 2)
        },
    ]
}

/// `run` as one of another workload.
pub(super) fn with(mut run: Run, workload: Workload) -> Run {
    run.plan.workload = workload;
    run
}

/// Growth of 320,000 bytes in the process and 640,000 in the kernel.
pub(super) fn memory() -> MemoryUse {
    let before = Memory {
        resident: 1_000_000,
        kernel: 2_000_000,
        slab: 5_000_000,
    };
    MemoryUse {
        before,
        highest: Memory {
            resident: 1_320_000,
            kernel: 2_640_000,
            slab: 4_000_000,
        },
    }
}
