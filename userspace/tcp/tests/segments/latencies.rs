//! The histograms of round-trip and accept times.

use crate::common::cookie::*;
use crate::common::*;
use tidegate_tcp::wire::Options;

/// Durations a histogram has counted: how many, and their sum in milliseconds.
fn counted(histogram: &tidegate_tcp::histogram::Histogram) -> (u64, u64) {
    (histogram.count(), histogram.sum_micros() / 1000)
}

#[test]
fn the_handshake_and_what_is_acknowledged_later_are_measured() {
    let mut rig = Rig::new(config(), sender(100));
    rig.syn(Options::default());
    rig.ack = rig.one().seq + 1;
    rig.pass(ms(30));
    rig.peer(ACK, b"");
    let latencies = rig.engine.latencies();
    assert_eq!(counted(&latencies.accept), (1, 30));
    assert_eq!(counted(&latencies.rtt), (1, 30));
    let text = rig.one();
    rig.pass(ms(50));
    rig.acknowledge(&text);
    assert_eq!(counted(&rig.engine.latencies().rtt), (2, 80));
    assert_eq!(counted(&rig.engine.latencies().accept), (1, 30));
}

#[test]
fn a_syn_ack_that_is_sent_again_counts_for_the_accept_time_and_not_for_the_round_trip() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    rig.ack = rig.one().seq + 1;
    rig.pass(ms(1010));
    rig.one();
    rig.peer(ACK, b"");
    assert_eq!(counted(&rig.engine.latencies().accept), (1, 1010));
    assert_eq!(counted(&rig.engine.latencies().rtt), (0, 0));
}

#[test]
fn a_connection_by_a_cookie_has_no_accept_time() {
    let mut rig = rig(config(), App::default());
    answered_at(&mut rig, EPOCH, CLOCK, Options::default(), false);
    rig.peer(ACK, b"");
    assert_eq!(rig.engine.population().connections, 1);
    assert_eq!(counted(&rig.engine.latencies().accept), (0, 0));
}
