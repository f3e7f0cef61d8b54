//! The cycle of `ProbeBW`.

use super::*;

#[test]
fn the_cycle_goes_down_cruises_refills_and_probes() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    about(run.bbr.pacing_rate, BW * 99 / 100);
    let began = run.bbr.rounds.count;
    run.until(State::ProbeBwRefill);
    // 63 round trips are less than two seconds.
    let rounds = run.bbr.rounds.count - began;
    assert!((60..=63).contains(&rounds), "{rounds}");
    about(run.bbr.pacing_rate, BW * 99 / 100);
    run.round(BW);
    assert_eq!(run.bbr.state, State::ProbeBwUp, "one round trip later");
    about(run.bbr.pacing_rate, BW * 125 / 100);
    // Each acknowledgment tells of a round trip at once, for which there is room.
    assert_eq!(run.bbr.window(), 9 * BDP / 4 + BDP + 2 * MSS);
    for _ in 0..3 {
        assert_eq!(run.bbr.state, State::ProbeBwUp);
        run.in_flight = 5 * BDP / 4;
        run.round(BW);
    }
    assert_eq!(run.bbr.state, State::ProbeBwDown, "three round trips brought nothing");
    about(run.bbr.pacing_rate, BW * 90 / 100);
    run.round(BW);
    assert_eq!(run.bbr.state, State::ProbeBwDown, "there is a queue");
    run.in_flight = BDP;
    run.round(BW);
    assert_eq!(run.bbr.state, State::ProbeBwCruise);
}

#[test]
fn on_a_long_path_it_probes_after_two_to_three_seconds() {
    let mut run = Run::in_state(State::ProbeBwDown);
    run.rtt = Duration::from_millis(200);
    run.in_flight = 10 * BDP;
    let began = run.now;
    run.until(State::ProbeBwRefill);
    let waited = run.now.since(began);
    assert!((2_000..=3_200).contains(&waited.as_millis()), "{waited:?}");
}

#[test]
fn a_path_that_carries_more_is_found_by_probing() {
    let mut run = Run::in_state(State::ProbeBwUp);
    let mut rate = BW;
    while rate < 10 * BW {
        rate = rate * 5 / 4;
        run.round(rate);
        assert_eq!((run.bbr.state, run.bbr.bw), (State::ProbeBwUp, rate));
    }
}

#[test]
fn a_path_that_carries_less_is_believed_after_two_cycles() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    run.in_flight = BDP / 10;
    for _ in 0..2 {
        while run.bbr.state != State::ProbeBwUp {
            run.round(BW / 10);
            assert_eq!(run.bbr.max_bw.get(), BW);
        }
        while run.bbr.state != State::ProbeBwCruise {
            run.round(BW / 10);
        }
    }
    assert_eq!(run.bbr.max_bw.get(), BW / 10);
}

#[test]
fn too_much_loss_while_probing_ends_it_and_bounds_what_is_in_flight() {
    let mut run = Run::in_state(State::ProbeBwUp);
    run.in_flight = 3 * BDP / 2;
    run.recover(6);
    assert_eq!(run.bbr.state, State::ProbeBwUp, "6 of 300 are 2 %");
    run.lose(1);
    assert_eq!(run.bbr.state, State::ProbeBwDown);
    // 299 segments were in flight before, of which 2 % are not yet 6.
    assert_eq!(run.longterm(), 299 * MSS);
    run.bbr.on_recovered(MSS);
    run.lost = 0;
    run.in_flight = BDP;
    run.until(State::ProbeBwCruise);
    run.round(BW);
    assert_eq!(
        run.bbr.window(),
        299 * MSS - 299 * MSS * 15 / 100,
        "with room for others"
    );
    // The next probe stops where this one lost.
    run.until(State::ProbeBwUp);
    run.in_flight = 299 * MSS;
    run.round(BW);
    assert_eq!(run.bbr.state, State::ProbeBwDown);
    // Nothing was lost, so the one after that follows at once, and goes on.
    run.round(BW);
    assert_eq!(run.bbr.state, State::ProbeBwRefill);
    run.round(BW);
    run.round(BW);
    assert_eq!(run.bbr.state, State::ProbeBwUp);
}

#[test]
fn losses_of_an_application_that_sends_little_end_the_probe_but_set_no_bound() {
    let mut run = Run::in_state(State::ProbeBwUp);
    run.app_limited = true;
    run.in_flight = 10 * MSS;
    run.lose(1);
    assert_eq!((run.bbr.state, run.longterm()), (State::ProbeBwDown, INFINITE));
}

#[test]
fn probing_raises_the_bound_by_twice_as_much_each_round() {
    let mut run = Run::in_state(State::ProbeBwUp);
    run.bbr.bounds.inflight_longterm = BDP;
    run.limited = true;
    run.in_flight = BDP;
    run.round(BW);
    let mut raised = Vec::new();
    for _ in 0..5 {
        let before = run.longterm();
        for _ in 0..50 {
            run.now = run.now + RTT / 50;
            run.in_flight = run.longterm();
            run.acknowledge(BDP / 50, BDP, BW);
        }
        assert_eq!(
            run.bbr.state,
            State::ProbeBwUp,
            "the bound is what keeps the rate from growing"
        );
        raised.push((run.longterm() - before) / MSS);
    }
    for pair in raised[1..].windows(2) {
        let ratio = f64::from(pair[1]) / f64::from(pair[0]);
        assert!((1.5..=2.5).contains(&ratio), "{raised:?}");
    }
}

#[test]
fn a_probe_that_losses_ended_begins_again_if_nothing_was_lost() {
    let mut run = Run::in_state(State::ProbeBwUp);
    let window = run.bbr.window();
    run.recover(10);
    assert_eq!(run.bbr.state, State::ProbeBwDown);
    assert_ne!(run.longterm(), INFINITE);
    run.lost = 0;
    run.round(BW);
    run.bbr.undo(run.now);
    assert_eq!((run.bbr.state, run.longterm()), (State::ProbeBwRefill, INFINITE));
    assert_eq!(run.bbr.window(), window);
}

#[test]
fn flows_do_not_probe_at_the_same_time() {
    let mut waits = std::collections::BTreeSet::new();
    for offset in 0..20 {
        let mut run = Run::new();
        run.now = Instant::from_micros(1_000_000 + offset);
        for _ in 0..5 {
            run.round(BW);
        }
        waits.insert(format!("{:?}", run.bbr.cycle));
    }
    assert!(waits.len() >= 15, "{waits:?}");
}
