//! Losses, marks and timeouts, and what becomes of the bounds that they set.

use super::*;

#[test]
fn the_bound_never_falls_below_seven_tenths_of_what_is_wanted() {
    let mut run = Run::in_state(State::ProbeBwUp);
    run.in_flight = 10 * MSS;
    run.lose(1);
    assert_eq!(run.longterm(), BDP * 7 / 10);
}

#[test]
fn a_lossy_round_trip_between_probes_slows_down_to_what_was_delivered() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    let window = run.bbr.window();
    run.bbr.on_congestion(run.now, BDP, MSS);
    run.lossy_round(1, BW * 9 / 10);
    assert_eq!(run.bbr.bw, BW, "as much was delivered before");
    run.lossy_round(1, BW * 9 / 10);
    assert_eq!(run.bbr.bounds.bw_shortterm, BW * 9 / 10);
    assert_eq!(run.bbr.bw, BW * 9 / 10);
    assert_eq!(run.bbr.bounds.inflight_shortterm, window * 7 / 10 * 7 / 10);
    assert_eq!(run.bbr.window(), window * 7 / 10 * 7 / 10);
    about(run.bbr.pacing_rate, BW * 9 / 10 * 99 / 100);
    // Never by more than three tenths.
    run.lossy_round(1, BW / 10);
    run.lossy_round(1, BW / 10);
    about(run.bbr.bounds.bw_shortterm, BW * 9 / 10 * 7 / 10);
    // Refill forgets it.
    run.until(State::ProbeBwRefill);
    assert_eq!(run.bbr.bounds.bw_shortterm, u64::MAX);
    assert_eq!(run.bbr.bounds.inflight_shortterm, INFINITE);
    run.round(BW);
    assert_eq!(run.bbr.bw, BW);
}

#[test]
fn with_a_higher_threshold_only_losses_beyond_it_count() {
    let with = |state, threshold| {
        let mut run = Run::in_state(state);
        let config = Config {
            bbr_loss_threshold: threshold,
            ..Config::default()
        };
        run.bbr.configure(&config);
        run
    };
    for (threshold, lost, slows) in [(2, 1, true), (10, 20, false), (10, 21, true), (100, 190, false)] {
        let mut run = with(State::ProbeBwCruise, threshold);
        run.bbr.on_congestion(run.now, BDP, MSS);
        run.lossy_round(lost, BW * 9 / 10);
        run.lossy_round(lost, BW * 9 / 10);
        assert_eq!(run.bbr.bw < BW, slows, "{lost} of 200 segments at {threshold} %");
        let mut run = with(State::ProbeBwUp, threshold);
        run.lose(lost);
        let too_high = lost * 100 > 200 * u32::from(threshold);
        assert_eq!(
            run.bbr.state == State::ProbeBwDown,
            too_high,
            "{lost} of 200 segments at {threshold} %"
        );
    }
    let mut run = with(State::ProbeBwUp, 100);
    run.selective = false;
    run.lose(1);
    assert_eq!(run.bbr.state, State::ProbeBwUp);
}

#[test]
fn marks_count_as_congestion() {
    let mut run = Run::new();
    run.round(BW);
    run.bbr.on_mark(run.now, BDP, MSS);
    assert!(run.bbr.full_pipe.reached);
    run.round(BW);
    assert_ne!(run.bbr.state, State::Startup);
    assert_eq!(run.longterm(), BDP);

    let mut run = Run::in_state(State::ProbeBwUp);
    run.bbr.on_mark(run.now, BDP, MSS);
    assert_eq!((run.bbr.state, run.longterm()), (State::ProbeBwDown, BDP));

    let mut run = Run::in_state(State::ProbeBwCruise);
    run.bbr.loss_threshold = 100;
    for _ in 0..2 {
        run.bbr.on_mark(run.now, BDP, MSS);
        run.round(BW * 8 / 10);
    }
    assert_eq!(run.bbr.bw, BW * 8 / 10, "whatever is tolerated of losses");
}

#[test]
fn bounds_of_a_spurious_recovery_are_taken_back() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    run.bbr.on_congestion(run.now, BDP, MSS);
    run.lossy_round(1, BW / 2);
    run.lossy_round(1, BW / 2);
    assert!(run.bbr.bw < BW);
    run.bbr.undo(run.now);
    run.round(BW);
    assert_eq!((run.bbr.bw, run.bbr.bounds), (BW, Bounds::NONE));
}

#[test]
fn a_timeout_leaves_one_segment_and_its_recovery_restores_the_window() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    let window = run.bbr.window();
    run.bbr.on_timeout(run.now, BDP, false, MSS);
    assert_eq!(run.bbr.window(), MSS);
    run.bbr.on_timeout(run.now, BDP, true, MSS);
    run.in_flight = MSS;
    run.acknowledge(MSS, MSS, BW / 100);
    assert_eq!(run.bbr.window(), 4 * MSS);
    run.bbr.on_recovered(MSS);
    assert_eq!(run.bbr.window(), window);
}
