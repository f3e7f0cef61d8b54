//! Attacks of others on a connection.

use tidegate_sim::scenario::Scenario;
use tidegate_sim::script::Ending;
use tidegate_sim::segment::{Draft, RST};
use tidegate_sim::side::Side;
use tidegate_sim::simulation::Simulation;
use tidegate_sim::{attack, out_of_order};

#[test]
fn blind_injections_close_nothing_and_insert_nothing() {
    let mut seen = 0;
    let report = attack::blind(200_000, 1, |tries| seen += tries).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!((report.tries, seen), (200_000, 200_000));
    assert!(report.bytes > 0);
}

#[test]
fn who_sees_the_sequence_numbers_needs_one_segment() {
    let scenario = Scenario::clean(1, false, 100, 100_000);
    let mut simulation = Simulation::new(&scenario, None).unwrap();
    let (client, server) = scenario.ends();
    let mut harmed = false;
    while simulation.step().unwrap() {
        let script = simulation.host(Side::Server).script();
        // All that the client had to send has arrived, so the next number is known.
        if harmed || !script.is_open() || !script.peer_ended() {
            continue;
        }
        let rst = Draft {
            from: client,
            to: server,
            seq: simulation.sent(Side::Client).furthest().unwrap(),
            ack: 0,
            flags: RST,
            window: 0,
            options: &[],
            text: &[],
        };
        simulation.inject(Side::Server, &rst.frame());
        harmed = true;
    }
    assert!(harmed);
    assert_eq!(simulation.host(Side::Server).script().ending(), Some(Ending::Reset));
}

#[test]
fn every_second_byte_of_a_large_window_is_held_within_the_limit() {
    for limit in [16 << 10, 1 << 20] {
        let report = out_of_order::every_second_byte(1 << 20, limit).unwrap();
        assert_eq!(report.segments, 1 << 19);
        assert!(report.held > 0 && report.held <= report.limit, "{report:?}");
    }
}
