//! A measurement to test with.

use std::time::{Duration, Instant, SystemTime};

use tidegate_lab::machine::Memory;
use tidegate_load::{Errors, Frames, Measured, Plan, Verify, Window, Workload};
use tidegate_report::Latencies;
use tidegate_report::testing;

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
            warm_up: Duration::from_millis(1_500),
            duration: Duration::from_secs(2),
            verify: Verify::default(),
            spread: None,
            cpu: Some(1),
        },
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
            window: Some(window()),
        },
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
