//! Startup and Drain.

use super::*;

#[test]
fn startup_doubles_the_rate_until_three_rounds_bring_no_more() {
    let mut run = Run::new();
    let mut rate = 1_000_000;
    for _ in 0..4 {
        run.round(rate);
        assert_eq!(run.bbr.state, State::Startup);
        assert_eq!(run.bbr.bw, rate);
        about(run.bbr.pacing_rate, rate * 277 / 100);
        rate *= 2;
    }
    run.in_flight = 2 * BDP;
    // The last growth was to 8 MB/s; a tenth more is none.
    for _ in 0..2 {
        run.round(8_800_000);
        assert_eq!(run.bbr.state, State::Startup);
    }
    assert_eq!(run.bbr.ssthresh(), INITIAL_SSTHRESH);
    run.round(8_800_000);
    assert_eq!(run.bbr.state, State::Drain);
    assert!(run.bbr.full_pipe.reached);
    assert_ne!(run.bbr.ssthresh(), INITIAL_SSTHRESH);
    about(run.bbr.pacing_rate, 8_800_000 / 2);
}

#[test]
fn growth_that_the_first_acknowledgment_of_a_round_trip_does_not_show_keeps_startup_going() {
    for grows in [true, false] {
        let mut run = Run::new();
        let mut rate = 1_000_000;
        for _ in 0..6 {
            // The first acknowledgment of each round trip measures next to nothing.
            run.now = run.now + RTT;
            let bytes = amount(rate, RTT);
            run.acknowledge(bytes, bytes, 900_000);
            run.acknowledge(MSS, bytes, rate);
            rate = if grows { rate * 3 / 2 } else { rate };
        }
        assert_eq!(run.bbr.full_pipe.reached, !grows, "{:?}", run.bbr.full_pipe);
    }
}

#[test]
fn startup_lasts_as_long_as_the_application_limits_the_rate() {
    let mut run = Run::new();
    run.round(BW);
    run.app_limited = true;
    for _ in 0..100 {
        run.round(BW / 2);
    }
    assert_eq!(run.bbr.state, State::Startup);
    assert_eq!(run.bbr.max_bw.get(), BW, "the application's rate is not the path's");
    run.round(2 * BW);
    assert_eq!(run.bbr.max_bw.get(), 2 * BW, "but the path carries as much as that");
}

#[test]
fn startup_ends_when_too_much_is_lost_in_several_places() {
    for (ranges, in_flight, ends) in [
        // More than 2 % of 200 segments.
        (6, BDP, true),
        (5, BDP, false),
        // Less than 2 % of 400.
        (7, 2 * BDP, false),
    ] {
        let mut run = Run::new();
        run.app_limited = true;
        run.round(BW);
        run.in_flight = in_flight;
        run.recover(ranges);
        let lost = core::mem::take(&mut run.lost);
        run.acknowledge(MSS, BDP, BW);
        assert_eq!(run.bbr.state, State::Startup, "the round trip is not over");
        run.lost = lost;
        run.round(BW);
        assert_eq!(run.bbr.state != State::Startup, ends, "{ranges} of {in_flight}");
        if ends {
            assert!(run.bbr.full_pipe.now && run.bbr.full_pipe.reached);
            assert_eq!(run.longterm(), BDP);
        } else {
            assert_eq!(run.longterm(), INFINITE);
        }
    }
}

#[test]
fn without_sack_one_loss_ends_startup() {
    let mut run = Run::new();
    run.selective = false;
    run.round(BW);
    run.recover(1);
    run.round(BW);
    assert_ne!(run.bbr.state, State::Startup);
}

#[test]
fn drain_ends_when_the_queue_is_gone() {
    let mut run = Run::new();
    run.in_flight = 2 * BDP;
    for _ in 0..4 {
        run.round(BW);
    }
    assert_eq!(run.bbr.state, State::Drain);
    run.in_flight = BDP + MSS;
    run.round(BW);
    assert_eq!(run.bbr.state, State::Drain);
    run.in_flight = BDP;
    run.round(BW);
    assert_eq!(run.bbr.state, State::ProbeBwCruise, "Down has nothing left to do");
}

#[test]
fn drain_ends_after_three_rounds_whatever_is_in_flight() {
    let mut run = Run::new();
    run.in_flight = 2 * BDP;
    for _ in 0..4 + 3 {
        run.round(BW);
    }
    assert_eq!(run.bbr.state, State::Drain);
    run.round(BW);
    assert_eq!(run.bbr.state, State::ProbeBwDown);
}

#[test]
fn startup_goes_on_after_it_was_interrupted_by_probe_rtt() {
    let mut run = Run::new();
    run.app_limited = true;
    run.round(BW);
    run.rtt = 2 * RTT;
    run.until(State::ProbeRtt);
    run.in_flight = 0;
    run.until(State::Startup);
    assert!(!run.bbr.full_pipe.reached);
    about(run.bbr.pacing_rate, BW * 277 / 100);
}

#[test]
fn a_startup_that_losses_ended_goes_on_if_nothing_was_lost() {
    let mut run = Run::new();
    run.round(BW);
    run.recover(6);
    let lost = core::mem::take(&mut run.lost);
    run.acknowledge(MSS, BDP, BW);
    run.lost = lost;
    run.round(BW);
    assert_ne!(run.bbr.state, State::Startup);
    run.bbr.undo(run.now);
    assert_eq!((run.bbr.state, run.longterm()), (State::Startup, INFINITE));
    assert!(!run.bbr.full_pipe.reached);
}
