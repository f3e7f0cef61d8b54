//! Runs that are ended before their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::{hello, plan, silence};
use crate::phase::{Phase, Ramp};
use crate::{Client, KernelClient, Measured, Plan, Progress, Snapshot, Tick, View, Workload};

const LONG: Duration = Duration::from_secs(600);

/// Has the run end in `phase`: at once, or after a second of it.
struct Stopper {
    phase: Phase,
    after_a_second: bool,
    stop: Arc<AtomicBool>,
    finished: Arc<AtomicU32>,
}

impl View for Stopper {
    fn tick(&mut self, tick: &Tick) {
        if tick.phase == self.phase && !self.after_a_second {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn second(&mut self, snapshot: &Snapshot<'_>) {
        let last = snapshot.series.last().map(|point| point.phase);
        if last == Some(self.phase) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn finish(&mut self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }
}

fn run_until(phase: Phase, after_a_second: bool, plan: &Plan) -> Measured {
    let (stop, finished) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
    let view = Stopper {
        phase,
        after_a_second,
        stop: Arc::clone(&stop),
        finished: Arc::clone(&finished),
    };
    let progress = Progress::on(view).stopped_by(stop);
    let measured = KernelClient::new().run(plan, &progress).unwrap();
    assert_eq!(
        finished.load(Ordering::Relaxed),
        1,
        "the view is taken away before results are told"
    );
    measured
}

#[test]
fn what_was_measured_until_then_is_told() {
    let address = hello();
    for workload in [Workload::Rps { pipeline: 1 }, Workload::Latency { rate: 500 }] {
        let plan = Plan {
            duration: LONG,
            ..plan(address, workload)
        };
        let measured = run_until(Phase::Sustain, true, &plan);
        assert!(measured.cut_short, "{workload:?}");
        assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
        assert!(
            measured.operations > 0 && (1.0..60.0).contains(&measured.seconds),
            "{}",
            measured.seconds
        );
        assert!(measured.latency.len() >= measured.operations);
    }
}

#[test]
fn before_the_measurement_there_is_nothing_to_tell_and_no_error() {
    let address = hello();
    for (phase, ramp, warm_up) in [
        (
            Phase::Initial,
            Ramp {
                initial: LONG,
                ..Ramp::default()
            },
            LONG,
        ),
        (
            Phase::Ramp,
            Ramp {
                up: LONG,
                ..Ramp::default()
            },
            LONG,
        ),
        (Phase::WarmUp, Ramp::default(), LONG),
    ] {
        let plan = Plan {
            ramp,
            warm_up,
            ..plan(address, Workload::Rps { pipeline: 1 })
        };
        let measured = run_until(phase, false, &plan);
        assert!(measured.cut_short, "{phase:?}");
        assert_eq!(
            (measured.operations, measured.seconds, measured.errors.total()),
            (0, 0.0, 0),
            "{phase:?}"
        );
    }
}

#[test]
fn connections_that_are_held_are_asked_at_once() {
    let plan = Plan {
        duration: LONG,
        ..plan(hello(), Workload::Hold)
    };
    let measured = run_until(Phase::Sustain, false, &plan);
    assert!(measured.cut_short);
    assert_eq!((measured.operations, measured.errors.total()), (3, 0));
}

#[test]
fn a_ramp_down_may_be_left_out() {
    let plan = Plan {
        ramp: Ramp {
            down: LONG,
            ..Ramp::default()
        },
        ..plan(hello(), Workload::Rps { pipeline: 1 })
    };
    let measured = run_until(Phase::RampDown, false, &plan);
    assert!(!measured.cut_short, "all was measured");
    assert!(measured.operations > 0);
}

#[test]
fn a_server_that_says_nothing_is_no_hindrance() {
    let plan = Plan {
        duration: LONG,
        ..plan(silence(), Workload::Rps { pipeline: 1 })
    };
    let measured = run_until(Phase::Sustain, true, &plan);
    assert!(measured.cut_short);
    assert_eq!(measured.errors.iter().collect::<Vec<_>>(), [("unfinished", 3)]);
}
