//! The phases of a run, second by second.

use std::time::Duration;

use super::world::{OK, Server, World, server};
use super::{assert_without_errors, plan, run};
use crate::body::Verify;
use crate::bypass::settings::Settings;
use crate::phase::{Phase, Ramp};
use crate::{Close, Measured, Plan, Point, Workload};

const MILLISECOND: Duration = Duration::from_millis(1);

fn find(plan: &Plan) -> Measured {
    run(plan, &Settings::new("tgc0"), server(OK)).0
}

/// The points of a phase.
fn of(measured: &Measured, phase: Phase) -> Vec<&Point> {
    measured.series.iter().filter(|point| point.phase == phase).collect()
}

fn ramped(workload: Workload) -> Plan {
    Plan {
        ramp: Ramp {
            initial: 10 * MILLISECOND,
            up: 200 * MILLISECOND,
            down: 100 * MILLISECOND,
        },
        duration: Duration::from_millis(1_500),
        ..plan(workload)
    }
}

#[test]
fn each_phase_has_its_seconds_and_only_sustain_is_in_the_figures() {
    let measured = find(&ramped(Workload::Rps { pipeline: 2 }));
    assert_without_errors(&measured);
    let phases: Vec<_> = measured
        .series
        .iter()
        .map(|point| (point.phase, point.length.as_millis()))
        .collect();
    assert_eq!(
        phases,
        [
            (Phase::Initial, 10),
            (Phase::Ramp, 200),
            (Phase::WarmUp, 20),
            (Phase::Sustain, 1_000),
            (Phase::Sustain, 500),
            (Phase::RampDown, 100)
        ]
    );
    for pair in measured.series.windows(2) {
        assert_eq!(pair[0].start + pair[0].length, pair[1].start);
    }
    let sustain = of(&measured, Phase::Sustain);
    let operations: u64 = sustain.iter().map(|point| point.operations).sum();
    let latencies: u64 = sustain
        .iter()
        .filter_map(|point| point.latency)
        .map(|latency| latency.count)
        .sum();
    assert_eq!((operations, latencies), (measured.operations, measured.latency.len()));
    assert_eq!(measured.connect.len(), 0, "all were established before");
    let before: u64 = measured
        .series
        .iter()
        .filter(|point| point.phase < Phase::Sustain)
        .map(|point| point.connects)
        .sum();
    assert_eq!(before, 4);
    assert_eq!(of(&measured, Phase::Initial)[0].operations, 0);
}

#[test]
fn connections_are_raised_and_lowered_evenly() {
    let settings = Settings::new("tgc0");
    let many = [Close::Client, Close::Server, Close::Rst].map(|close| (Workload::Cps { close }, Verify::Length));
    for (workload, verify) in many.into_iter().chain([
        (Workload::Cps { close: Close::Server }, Verify::Alike),
        (Workload::Rps { pipeline: 2 }, Verify::Length),
        (Workload::Rps { pipeline: 1 }, Verify::Length),
        (Workload::Rps { pipeline: 2 }, Verify::Alike),
        (Workload::Rps { pipeline: 1 }, Verify::Alike),
        (Workload::Latency { rate: 3_000 }, Verify::Length),
        (Workload::Latency { rate: 3_000 }, Verify::Alike),
    ]) {
        let mut plan = Plan {
            verify,
            ..ramped(workload)
        };
        if let Workload::Cps { .. } = workload {
            // A connection takes 1 s, so that all are open when the ramp-down begins, and none would end in it.
            plan.http.requests_per_connection = Some(10_000);
        }
        let mut world = World::new(&plan, &settings, server(OK));
        let measured = world.run(&plan, &settings);
        assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
        assert!(measured.operations > 0);
        let down = of(&measured, Phase::RampDown)[0];
        let case = (workload, verify);
        assert!((1.5..3.5).contains(&down.open_mean), "{case:?}: {}", down.open_mean);
        assert_eq!((down.open, down.connects), (0, 0), "{case:?}");
        if let Workload::Rps { .. } = workload {
            let up = of(&measured, Phase::Ramp)[0];
            assert!((2.0..3.0).contains(&up.open_mean), "{}", up.open_mean);
            assert_eq!(up.connects, 4);
        }
        assert_eq!((measured.open.max, measured.open.at_end), (4, 4), "{case:?}");
        // They ended by FIN.
        assert_eq!(measured.unclean_ends, 0);
    }
}

#[test]
fn a_rate_is_raised_evenly_and_kept() {
    let measured = find(&ramped(Workload::Latency { rate: 3_000 }));
    assert_without_errors(&measured);
    // Half of the rate, in the mean of 200 ms.
    let up = of(&measured, Phase::Ramp)[0];
    assert!((290..=310).contains(&up.operations), "{}", up.operations);
    let sustain = of(&measured, Phase::Sustain);
    assert!(
        (2_990..=3_010).contains(&sustain[0].operations),
        "{}",
        sustain[0].operations
    );
    assert!(
        (4_490..=4_510).contains(&measured.operations),
        "{}",
        measured.operations
    );
    // What is due between two turns waits for the next, during the ramp, too.
    assert!(up.latency.unwrap().max < 201.0, "{:?}", up.latency);
}

#[test]
fn new_connections_are_raised_and_none_is_begun_at_the_end() {
    let measured = find(&ramped(Workload::Cps { close: Close::Client }));
    assert_without_errors(&measured);
    let rate = |phase| of(&measured, phase)[0].per_second();
    let part = rate(Phase::Ramp) / rate(Phase::Sustain);
    assert!((0.5..0.75).contains(&part), "{part}");
    let down = of(&measured, Phase::RampDown)[0];
    assert!(down.connects <= 4 && down.open == 0, "{down:?}");
    assert!(measured.open.max <= 4);
}

#[test]
fn connections_that_are_held_have_phases_too() {
    let plan = Plan {
        warm_up: Duration::ZERO,
        ..plan(Workload::Hold)
    };
    let measured = find(&plan);
    assert_eq!((measured.operations, measured.errors.total()), (4, 0));
    let mut phases: Vec<_> = measured
        .series
        .iter()
        .map(|point| (point.phase, point.operations))
        .collect();
    // Some are closed, and all are answered for a while after that.
    phases.dedup_by_key(|(phase, _)| *phase);
    assert_eq!(
        phases,
        [
            (Phase::Opening, 4),
            (Phase::Sustain, 0),
            (Phase::Drain, 4),
            (Phase::RampDown, 0)
        ]
    );
    assert_eq!((measured.latency.len(), measured.connect.len()), (4, 4));
    assert_eq!((measured.open.max, measured.open.at_end), (4, 4));
}

#[test]
fn errors_are_seen_in_every_phase_and_count_in_one() {
    let plan = ramped(Workload::Rps { pipeline: 1 });
    let not_found = server("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let (measured, ..) = run(&plan, &Settings::new("tgc0"), not_found);
    let errors = |phase| of(&measured, phase).iter().map(|point| point.errors).sum::<u64>();
    assert!(errors(Phase::Ramp) > 0 && errors(Phase::WarmUp) > 0);
    assert_eq!(errors(Phase::Sustain), measured.errors.total());
}

#[test]
fn a_server_keeps_up_that_answers_the_last_after_the_end_and_one_that_falls_behind_does_not() {
    // A request takes 100 us, so the four connections carry 40,000 per second.
    for (rate, millis, keeps_up) in [(20_000, 4, true), (42_000, 50, false)] {
        let plan = Plan {
            warm_up: Duration::ZERO,
            duration: millis * MILLISECOND,
            ..plan(Workload::Latency { rate })
        };
        let measured = find(&plan);
        assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
        let due = measured.generator.starts.unwrap().due;
        assert!(measured.operations * 100 < due * 99, "{} of {due}", measured.operations);
        assert_eq!(measured.keeps_up(), keeps_up, "{} of {due}", measured.operations);
    }
}

#[test]
fn what_is_due_at_the_end_has_connections_in_the_place_of_those_that_ended() {
    // More is due than connections can carry that end with each response, so that much is left at the end.
    let plan = Plan {
        duration: Duration::from_millis(50),
        ..plan(Workload::Latency { rate: 50_000 })
    };
    let ending = Server {
        limit: Some(1),
        last_response: Some("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into()),
        ..server(OK)
    };
    let (measured, ..) = run(&plan, &Settings::new("tgc0"), ending);
    assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
    let drained = of(&measured, Phase::Drain);
    let answers: u64 = drained
        .iter()
        .filter_map(|point| point.latency)
        .map(|latency| latency.count)
        .sum();
    assert!(answers > 100, "{answers}");
}
