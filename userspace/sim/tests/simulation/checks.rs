//! The checks of the simulation fail where they have to.

use std::time::Duration;

use tidegate_impair::Chance;
use tidegate_sim::check::{self, Report};
use tidegate_sim::impairment::Outage;
use tidegate_sim::scenario::Scenario;
use tidegate_sim::script::Ending;
use tidegate_sim::side::Side;
use tidegate_sim::simulation::Simulation;

fn scenario() -> Scenario {
    Scenario::clean(1, false, 50_000, 20_000)
}

fn outage(from: Duration) -> Outage {
    Outage {
        from,
        until: Duration::MAX,
    }
}

#[track_caller]
fn problem(scenario: &Scenario) -> String {
    match check::run(scenario, None) {
        Ok(report) => panic!("nothing was noticed: {report:?}"),
        Err(failure) => {
            let text = failure.to_string();
            assert!(text.contains("--seed 1 --trace"), "{text}");
            failure.problem
        }
    }
}

#[track_caller]
fn report(scenario: &Scenario) -> Report {
    check::run(scenario, None).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn nothing_is_wrong_with_a_perfect_link() {
    let report = report(&scenario());
    assert_eq!(report.bytes, 70_000);
    assert_eq!(report.link.dropped(), 0);
    assert_eq!(report.link.offered, report.segments);
    assert!(!report.aborted && !report.stalled);
}

#[test]
fn bytes_changed_behind_the_checksums_are_noticed() {
    let mut scenario = scenario();
    scenario.to_server.tamper = Chance::permille(1000);
    assert!(problem(&scenario).starts_with("server: received a wrong byte at "));
    let mut scenario = self::scenario();
    scenario.to_client.tamper = Chance::permille(1000);
    assert!(problem(&scenario).starts_with("client: received a wrong byte at "));
}

#[test]
fn missing_and_surplus_bytes_are_noticed() {
    let mut scenario = scenario();
    scenario.server.plan.data = scenario.server.plan.data.slice(..19_999);
    assert_eq!(
        problem(&scenario),
        "client: received 19999 of 20000 bytes, then the connection ended: Finished"
    );
    let mut scenario = self::scenario();
    scenario.client.plan.expected = scenario.client.plan.expected.slice(..19_999);
    assert_eq!(problem(&scenario), "client: received a wrong byte at 19999 of 19999");
}

#[test]
fn a_connection_that_cannot_open_is_noticed() {
    let mut scenario = scenario();
    scenario.to_server.outages.push(outage(Duration::ZERO));
    assert_eq!(problem(&scenario), "client: never reached ESTABLISHED");
}

#[test]
fn a_connection_that_dies_is_noticed() {
    for direction in 0..2 {
        let mut scenario = scenario();
        let dies = outage(Duration::from_millis(25));
        if direction == 0 {
            scenario.to_server.outages.push(dies);
        } else {
            scenario.to_client.outages.push(dies);
        }
        let problem = problem(&scenario);
        assert!(problem.contains(", then the connection ended: "), "{problem}");
    }
}

#[test]
fn a_planned_abort_is_no_failure_and_tells_the_peer() {
    for after in [0, 1000, 30_000, 70_000] {
        let mut scenario = scenario();
        scenario.server.plan.abort_after = Some(after);
        assert!(report(&scenario).aborted, "after {after}");
        let mut simulation = Simulation::new(&scenario, None).unwrap();
        simulation.run().unwrap();
        let ending = |side| simulation.host(side).script().ending();
        assert_eq!(ending(Side::Server), Some(Ending::Aborted), "after {after}");
        assert_eq!(ending(Side::Client), Some(Ending::Reset), "after {after}");
    }
}

#[test]
fn a_run_without_an_end_is_noticed() {
    let mut scenario = scenario();
    // Ten bytes an hour.
    scenario.client.plan.write_size = 10;
    scenario.client.plan.write_interval = Duration::from_secs(3600);
    assert!(problem(&scenario).starts_with("no end after "));
}
