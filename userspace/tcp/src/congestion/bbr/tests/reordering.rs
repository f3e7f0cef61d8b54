//! Paths whose segments overtake each other.

use super::*;

/// The shortest of the round trips that are played.
const FASTEST: Duration = Duration::from_micros(200);

impl Run {
    /// A round trip of [`RTT`], in 20 acknowledgments. One of ten is of a segment that was sent just before.
    fn overtaking_round(&mut self, rate: u64) {
        let (each, bytes) = (RTT / 20, amount(rate, RTT));
        for number in 0..20 {
            self.now = self.now + each;
            let (rtt, since) = if number % 10 == 9 {
                (FASTEST, bytes / 20)
            } else {
                (RTT, bytes)
            };
            self.rtt = rtt;
            self.acknowledge(bytes / 20, since, rate);
        }
        self.rtt = RTT;
    }
}

#[test]
fn the_segment_that_overtakes_most_does_not_make_the_path_short() {
    for reordering in [false, true] {
        let mut run = Run::in_state(State::ProbeBwCruise);
        run.reordering = reordering;
        for _ in 0..100 {
            run.overtaking_round(BW);
        }
        let min_rtt = run.bbr.min_rtt.get().unwrap();
        if reordering {
            assert!((RTT * 8 / 10..RTT).contains(&min_rtt), "{min_rtt:?}");
            assert!(run.bbr.window() > BDP, "{}", run.bbr.window());
        } else {
            assert_eq!(min_rtt, FASTEST);
        }
    }
}

#[test]
fn what_was_measured_before_the_first_reordering_is_replaced() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    run.rtt = FASTEST;
    run.round(BW);
    assert_eq!(run.bbr.min_rtt.get(), Some(FASTEST));
    run.reordering = true;
    run.rtt = RTT;
    run.round(BW);
    assert_eq!(
        run.bbr.min_rtt.get(),
        Some(RTT),
        "the smoothed one, until there is a mean"
    );
    run.rtt = 2 * RTT;
    for _ in 0..64 {
        run.round(BW);
    }
    let min_rtt = run.bbr.min_rtt.get().unwrap();
    assert!(min_rtt > RTT * 19 / 10, "the mean, although it is longer: {min_rtt:?}");
}

#[test]
fn a_path_that_reorders_no_more_is_as_short_as_its_shortest_round_trip() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    run.reordering = true;
    for _ in 0..100 {
        run.overtaking_round(BW);
    }
    let mean = run.bbr.min_rtt.get().unwrap();
    run.reordering = false;
    run.rtt = mean - Duration::from_micros(10);
    run.round(BW);
    assert_eq!(run.bbr.min_rtt.get(), Some(run.rtt), "by a single measurement");
    // And as a new one when it reorders again.
    run.reordering = true;
    run.rtt = 2 * RTT;
    run.round(BW);
    assert_eq!(run.bbr.min_rtt.get(), Some(2 * RTT));
}

#[test]
fn no_round_trip_is_shorter_than_those_of_the_path() {
    for (reordering, rounds) in [(false, 2..=4), (true, 1..=1)] {
        let mut run = Run::in_state(State::ProbeBwCruise);
        run.reordering = reordering;
        for _ in 0..10 {
            run.overtaking_round(BW);
        }
        let before = run.bbr.rounds.count;
        for _ in 0..10 {
            run.overtaking_round(BW);
        }
        let counted = (run.bbr.rounds.count - before) / 10;
        assert!(rounds.contains(&counted), "{counted} with reordering: {reordering}");
    }
}

/// A connection on a path that reorders, whose last round trip began longer than one ago.
fn late_in_a_round_trip() -> Run {
    let mut run = Run::in_state(State::ProbeBwCruise);
    run.reordering = true;
    for _ in 0..10 {
        run.overtaking_round(BW);
    }
    run.now = run.now + RTT * 2;
    run
}

/// The acknowledgment of a segment that was sent just before.
fn overtaking(run: &mut Run) {
    run.now = run.now + FASTEST;
    run.rtt = FASTEST;
    run.acknowledge(MSS, MSS, BW);
    run.rtt = RTT;
}

#[test]
fn a_round_trip_that_a_change_of_state_begins_is_not_over_with_the_first_that_overtakes() {
    let mut run = late_in_a_round_trip();
    run.bbr.start_probe_bw_refill(run.now);
    for _ in 0..20 {
        overtaking(&mut run);
        assert_eq!(run.bbr.state, State::ProbeBwRefill);
    }
    run.round(BW);
    assert_eq!(run.bbr.state, State::ProbeBwUp, "one round trip later");
}

#[test]
fn a_round_trip_that_a_loss_begins_is_not_over_with_the_first_that_overtakes() {
    let mut run = late_in_a_round_trip();
    run.lose(1);
    for _ in 0..20 {
        overtaking(&mut run);
        assert_eq!(run.bbr.bounds, Bounds::NONE);
    }
    run.round(BW);
    assert_ne!(run.bbr.bounds, Bounds::NONE, "one round trip later");
}

#[test]
fn a_probe_of_the_round_trip_needs_few_acknowledgments() {
    let longer = 2 * RTT;
    let mut run = Run::in_state(State::ProbeBwCruise);
    run.reordering = true;
    run.rtt = longer;
    run.until(State::ProbeRtt);
    assert_eq!(run.bbr.min_rtt.get(), Some(longer), "there has been a mean");
    run.rtt = RTT;
    run.in_flight = 4 * MSS;
    run.round(BW);
    for _ in 0..10 {
        assert_eq!(run.bbr.state, State::ProbeRtt);
        run.round(BW);
    }
    run.round(BW);
    assert_eq!(run.bbr.state, State::ProbeBwCruise);
    assert_eq!(
        run.bbr.min_rtt.get(),
        Some(RTT),
        "nothing from before the probe is in the mean"
    );
}

#[test]
fn the_first_mean_may_be_that_of_a_probe() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    run.rtt = 2 * RTT;
    run.until(State::ProbeRtt);
    run.reordering = true;
    run.in_flight = 4 * MSS;
    run.round(BW);
    assert_eq!(run.bbr.min_rtt.get(), Some(2 * RTT), "the smoothed one");
    run.rtt = 4 * RTT;
    while run.bbr.state == State::ProbeRtt {
        run.round(BW);
    }
    assert_eq!(run.bbr.min_rtt.get(), Some(4 * RTT), "although it is longer");
}
