//! `ProbeRTT`.

use super::*;

#[test]
fn after_five_seconds_without_a_shorter_round_trip_one_is_looked_for() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    run.rtt = RTT + Duration::from_millis(5);
    let began = run.bbr.min_rtt.probe_stamp;
    run.until(State::ProbeRtt);
    let waited = run.now.since(began);
    assert!((5_000..5_100).contains(&waited.as_millis()), "{waited:?}");
    assert!(
        run.bbr.window() <= BDP / 2 + MSS,
        "half of what fills the path: {}",
        run.bbr.window()
    );
    // Until no more than that is in flight, it does not begin.
    for _ in 0..20 {
        run.round(BW);
    }
    assert_eq!(run.bbr.state, State::ProbeRtt);
    run.in_flight = BDP / 2;
    let began = run.now;
    while run.bbr.state == State::ProbeRtt {
        run.round(BW / 2);
    }
    let lasted = run.now.since(began);
    assert!((200..300).contains(&lasted.as_millis()), "{lasted:?}");
    assert_eq!(run.bbr.state, State::ProbeBwCruise);
    assert_eq!(run.bbr.max_bw.get(), BW, "the rate was low on purpose");
    assert!(run.bbr.window() >= 2 * BDP, "it fills the path again");
    assert_eq!(run.bbr.min_rtt.get(), Some(RTT), "ten seconds have not passed");
    run.in_flight = BDP;
    for _ in 0..220 {
        run.round(BW);
    }
    assert_eq!(run.bbr.min_rtt.get(), Some(run.rtt));
}

#[test]
fn an_idle_time_may_end_probe_rtt() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    run.rtt = RTT + Duration::from_millis(5);
    run.until(State::ProbeRtt);
    let window = run.bbr.prior_cwnd;
    run.in_flight = 0;
    run.round(BW / 2);
    run.now = run.now + Duration::from_secs(1);
    let sent = Sent {
        now: run.now,
        bytes: MSS,
        flight: MSS,
        snd_nxt: SeqNumber(0),
        again: false,
        app_limited: true,
    };
    run.bbr.on_sent(&sent, MSS);
    assert_eq!((run.bbr.state, run.bbr.window()), (State::ProbeBwCruise, window));
}
