//! A plan and its results to test with.

use std::time::Duration;

use tidegate_report::Latencies;

use crate::{
    Arrival, Errors, Generator, HttpOptions, Measured, OpenConnections, Plan, Ramp, Statuses, Verify, Workload,
};

/// A plan that nothing is done by.
pub(crate) fn plan(workload: Workload) -> Plan {
    Plan {
        url: "http://198.18.0.1/".parse().expect("the URL is right"),
        workload,
        connections: 3,
        ramp: Ramp::default(),
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(1),
        verify: Verify::Length,
        spread: None,
        arrival: Arrival::Constant,
        cpu: None,
        http: HttpOptions::default(),
    }
}

/// `operations` in a second, without anything else.
pub(crate) fn measured(operations: u64) -> Measured {
    Measured {
        operations,
        seconds: 1.0,
        latency: Latencies::new(),
        connect: Latencies::new(),
        first_byte: Latencies::new(),
        close: Latencies::new(),
        statuses: Statuses::default(),
        first_location: None,
        announced_ends: 0,
        errors: Errors::default(),
        frames: None,
        operations_with_warm_up: operations,
        body: None,
        time_wait: None,
        generator: Generator::default(),
        window: None,
        unclean_ends: 0,
        open: OpenConnections::default(),
        series: Vec::new(),
        cut_short: false,
    }
}
