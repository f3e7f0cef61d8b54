//! A measurement to test with.

use std::time::{Duration, Instant, SystemTime};

use tidegate_lab::machine::Memory;
use tidegate_load::{
    Arrival, Errors, Frames, Generator, HttpOptions, Measured, OpenConnections, Phase, Plan, Point, Ramp, Statuses,
    Verify, Window, Workload,
};
use tidegate_report::testing;
use tidegate_report::{Latencies, Quantiles};

use super::conditions::Conditions;
use super::run::{MemoryUse, Run};

/// A run of fixed numbers without errors, with a client that is idle 70 % of the time: 1,000 operations in 2 s that
/// took 1 to 1,000 us each, and one connection that took 250 us and a first byte after 100 us.
pub(crate) fn run(workload: Workload) -> Run {
    let mut latency = Latencies::new();
    for micros in 1..=1_000 {
        latency.record(Duration::from_micros(micros));
    }
    let mut connect = Latencies::new();
    connect.record(Duration::from_micros(250));
    let mut first_byte = Latencies::new();
    first_byte.record(Duration::from_micros(100));
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
            arrival: Arrival::Constant,
            cpu: Some(1),
            http: HttpOptions::default(),
        },
        profile: None,
        start: SystemTime::UNIX_EPOCH,
        measured: Measured {
            operations: 1_000,
            seconds: 2.0,
            latency,
            connect,
            first_byte,
            close: Latencies::new(),
            statuses: Statuses::default(),
            first_location: None,
            announced_ends: 0,
            errors: Errors::default(),
            frames: Some(Frames {
                sent: 8_000,
                received: 7_000,
            }),
            operations_with_warm_up: 2_000,
            body: None,
            time_wait: Some(Duration::from_secs(2)),
            generator: Generator {
                busy: 0.25,
                waited: 0.05,
                ..Generator::default()
            },
            window: Some(window()),
            unclean_ends: 0,
            open: OpenConnections { max: 64, at_end: 60 },
            series: series(),
            cut_short: false,
        },
        conditions: Conditions::default(),
        memory: None,
        server_cpu: None,
    }
}

/// 2 s in which the client's threads had 0.5 s of processor time.
fn window() -> Window {
    let begin = Instant::now();
    Window {
        begin,
        end: begin + Duration::from_secs(2),
        client_cpu: Duration::from_millis(500),
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
