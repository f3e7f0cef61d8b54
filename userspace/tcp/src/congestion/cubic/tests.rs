use super::*;
use crate::seq::SeqNumber;

const MSS: u32 = 1000;

/// A sender that fills its window over a path with a fixed round-trip time, and its clock.
struct Flow {
    cubic: Cubic,
    now: Instant,
    rtt: Duration,
    snd_una: SeqNumber,
}

impl Flow {
    fn new(rtt_ms: u64) -> Self {
        Self {
            cubic: Cubic::new(MSS),
            now: Instant::from_millis(1000),
            rtt: Duration::from_millis(rtt_ms),
            snd_una: SeqNumber(0),
        }
    }

    /// A flow that lost a segment at a window of `segments`.
    fn after_loss(rtt_ms: u64, segments: u32) -> Self {
        let mut flow = Self::new(rtt_ms);
        flow.cubic.set_window(segments * MSS);
        flow.lose();
        flow
    }

    fn lose(&mut self) {
        self.cubic.on_congestion(self.now, self.cubic.window(), MSS);
        self.cubic.on_recovered(MSS);
    }

    fn segments(&self) -> f64 {
        f64::from(self.cubic.window()) / f64::from(MSS)
    }

    fn ack(&mut self, now: Instant, limited: bool, snd_nxt: SeqNumber) {
        self.snd_una += MSS;
        let acked = Acked {
            now,
            bytes: MSS,
            flight: self.cubic.window(),
            limited,
            rtt: Some(self.rtt),
            reordering: false,
            srtt: Some(self.rtt),
            snd_una: self.snd_una,
            snd_nxt,
            delivery: None,
        };
        self.cubic.on_ack(&acked, MSS);
    }

    /// A window is acknowledged, segment by segment, spread over a round trip.
    fn round(&mut self) {
        let segments = self.cubic.window() / MSS;
        let snd_nxt = self.snd_una + segments * MSS;
        for segment in 1..=segments {
            self.ack(self.now + self.rtt * segment / segments, true, snd_nxt);
        }
        self.now = self.now + self.rtt;
    }

    fn rounds(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.round();
        }
    }

    /// A segment a round trip is sent and acknowledged, for that many round trips.
    fn trickle(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.now = self.now + self.rtt;
            let snd_nxt = self.snd_una + MSS;
            self.ack(self.now, false, snd_nxt);
        }
    }
}

#[track_caller]
fn assert_close(actual: f64, expected: f64, tolerance: f64) {
    assert!(
        (actual - expected).abs() <= expected * tolerance,
        "{actual} is not within {tolerance} of {expected}"
    );
}

#[test]
fn slow_start_is_paced_after_its_first_round_and_avoidance_is_not() {
    let two_windows = |flow: &Flow| Some(2 * u64::from(flow.cubic.window()) * 10 / 1024 * 1024);
    let mut flow = Flow::new(100);
    assert_eq!(flow.cubic.pacing_rate(), None);
    flow.ack(flow.now, true, flow.snd_una + 2 * MSS);
    assert_eq!(flow.cubic.pacing_rate(), None);
    flow.rounds(2);
    assert_eq!(flow.cubic.pacing_rate(), two_windows(&flow));
    flow.cubic.on_idle(MSS);
    assert_eq!(flow.cubic.pacing_rate(), None);
    flow.rounds(3);
    assert_eq!(flow.cubic.pacing_rate(), two_windows(&flow));
    // Slow start again, up to the threshold.
    flow.cubic.on_timeout(flow.now, flow.cubic.window(), false, MSS);
    assert_eq!(flow.cubic.pacing_rate(), None);
    while flow.segments() < 20.0 {
        flow.round();
    }
    assert!(flow.cubic.window() < flow.cubic.ssthresh());
    assert_eq!(flow.cubic.pacing_rate(), two_windows(&flow));
    flow.cubic.on_congestion(flow.now, flow.cubic.window(), MSS);
    assert_eq!(flow.cubic.pacing_rate(), None);
    flow.cubic.on_recovered(MSS);
    flow.round();
    assert_eq!(flow.cubic.pacing_rate(), None);
}

#[test]
fn a_short_path_is_not_paced() {
    let mut flow = Flow::new(1);
    flow.rounds(5);
    assert!(flow.cubic.window() < flow.cubic.ssthresh());
    assert_eq!(flow.cubic.pacing_rate(), None);
}

#[test]
fn slow_start_doubles_every_round() {
    let mut flow = Flow::new(50);
    for expected in [10, 20, 40, 80] {
        assert_eq!(flow.cubic.window(), expected * MSS);
        flow.round();
    }
}

#[test]
fn a_longer_round_trip_time_ends_the_first_slow_start_without_loss() {
    let mut flow = Flow::new(50);
    flow.rounds(2);
    flow.rtt = Duration::from_millis(60);
    let mut rounds = 0;
    while flow.cubic.ssthresh() == INITIAL_SSTHRESH {
        flow.round();
        rounds += 1;
        assert!(rounds <= 5, "conservative slow start lasts five rounds");
    }
    assert_eq!(rounds, 5);
    let window = flow.cubic.window();
    assert_eq!(flow.cubic.ssthresh(), window);

    flow.round();
    let variables = flow.cubic.current;
    assert!(variables.epoch && variables.k == 0.0);
    assert_eq!((variables.w_max, variables.cwnd_prior), (window, window));
    let growth = flow.cubic.window() - window;
    assert!(
        (MSS / 2..2 * MSS).contains(&growth),
        "congestion avoidance added {growth}"
    );
}

#[test]
fn congestion_leaves_seven_tenths() {
    let mut flow = Flow::new(100);
    flow.cubic.set_window(100 * MSS);
    flow.cubic.on_congestion(flow.now, 150 * MSS, MSS);
    assert_eq!(flow.cubic.window(), 100 * MSS, "left to proportional rate reduction");
    assert_close(f64::from(flow.cubic.ssthresh()), f64::from(70 * MSS), 1e-4);
    assert_eq!(flow.cubic.current.w_max, 100 * MSS);
    flow.cubic.set_window(20 * MSS);
    flow.cubic.on_recovered(MSS);
    assert_eq!(flow.cubic.window(), flow.cubic.ssthresh());
}

#[test]
fn congestion_with_little_in_flight_is_answered_from_the_flight() {
    let mut flow = Flow::new(100);
    flow.cubic.set_window(100 * MSS);
    flow.cubic.on_congestion(flow.now, 20 * MSS, MSS);
    assert_close(f64::from(flow.cubic.ssthresh()), f64::from(14 * MSS), 1e-3);
    flow.cubic.on_congestion(flow.now, MSS, MSS);
    assert_eq!(flow.cubic.ssthresh(), 2 * MSS, "never below two segments");
}

#[test]
fn the_window_follows_the_cubic_function() {
    let mut flow = Flow::after_loss(100, 1000);
    // K is the cube root of (W_max - cwnd_epoch) / C: 750 seconds cubed.
    let k = 9.0856;
    for second in 1..=15 {
        flow.rounds(10);
        let from_k = f64::from(second) - k;
        assert_close(flow.segments(), 1000.0 + 0.4 * from_k * from_k * from_k, 1e-3);
    }
    assert_close(f64::from(flow.cubic.current.k), k, 1e-4);
}

#[test]
fn a_round_trip_enlarges_the_window_by_half_at_most() {
    let mut flow = Flow::after_loss(100, 1000);
    flow.round();
    let before = flow.segments();
    flow.cubic.current.elapsed = 100_000_000;
    flow.round();
    assert_close(flow.segments(), 1.5 * before, 2e-3);
}

#[test]
fn fast_convergence_gives_way_when_the_window_was_not_regained() {
    let mut flow = Flow::after_loss(100, 100);
    flow.lose();
    assert_close(f64::from(flow.cubic.current.w_max), f64::from(70 * MSS) * 0.85, 1e-4);
    assert_close(flow.segments(), 49.0, 1e-3);

    let mut flow = Flow::after_loss(100, 100);
    flow.cubic.set_window(101 * MSS);
    flow.lose();
    assert_eq!(flow.cubic.current.w_max, 101 * MSS);
}

#[test]
fn a_short_path_is_filled_as_fast_as_by_reno() {
    // With a round trip of 1 ms the cubic function has hardly begun to grow.
    let mut flow = Flow::after_loss(1, 20);
    flow.rounds(10);
    assert_close(flow.segments(), 14.0 + 10.0 * ALPHA, 0.02);
    // Beyond the window of the loss: a segment per round trip.
    flow.rounds(4);
    let before = flow.segments();
    flow.rounds(10);
    assert_close(flow.segments() - before, 10.0, 0.05);
}

#[test]
fn a_timeout_leaves_one_segment_and_lowers_the_threshold_once() {
    let mut flow = Flow::new(100);
    flow.cubic.set_window(100 * MSS);
    flow.cubic.on_timeout(flow.now, 100 * MSS, false, MSS);
    let ssthresh = flow.cubic.ssthresh();
    assert_close(f64::from(ssthresh), f64::from(70 * MSS), 1e-4);
    flow.cubic.on_timeout(flow.now, MSS, true, MSS);
    assert_eq!((flow.cubic.window(), flow.cubic.ssthresh()), (MSS, ssthresh));
    flow.cubic.on_recovered(MSS);
    assert_eq!(flow.cubic.window(), MSS, "there is no fast recovery to end");

    for expected in [2, 4, 8, 16, 32, 64] {
        flow.round();
        assert_eq!(flow.cubic.window(), expected * MSS);
    }
    flow.round();
    let variables = flow.cubic.current;
    assert_eq!(
        (variables.w_max, variables.k),
        (ssthresh, 0.0),
        "the plateau is where congestion avoidance began"
    );
    flow.rounds(43);
    let t = f64::from(flow.cubic.current.elapsed) / 1e6;
    assert_close(flow.segments(), 70.0 + 0.4 * t * t * t, 5e-3);
}

#[test]
fn a_timeout_in_recovery_is_answered_from_the_threshold() {
    let mut flow = Flow::new(100);
    flow.cubic.set_window(100 * MSS);
    flow.cubic.on_congestion(flow.now, 100 * MSS, MSS);
    flow.cubic.set_window(3 * MSS);
    flow.cubic.on_timeout(flow.now, 100 * MSS, false, MSS);
    assert_close(f64::from(flow.cubic.ssthresh()), f64::from(49 * MSS), 1e-3);
}

#[test]
fn time_limited_by_the_application_does_not_count() {
    let mut steady = Flow::after_loss(100, 1000);
    let mut paused = Flow::after_loss(100, 1000);
    steady.rounds(30);
    paused.rounds(30);
    let before = paused.cubic.window();
    paused.trickle(50);
    assert_eq!(paused.cubic.window(), before);
    steady.rounds(10);
    paused.rounds(10);
    assert_close(paused.segments(), steady.segments(), 1e-3);
}

#[test]
fn a_pause_too_short_to_restart_does_not_count() {
    let mut steady = Flow::after_loss(100, 1000);
    let mut paused = Flow::after_loss(100, 1000);
    steady.rounds(30);
    paused.rounds(30);
    paused.now = paused.now + Duration::from_secs(5);
    steady.round();
    paused.round();
    // At most the round trip before the first acknowledgment may be counted twice.
    assert_close(paused.segments(), steady.segments(), 0.01);
}

#[test]
fn idle_restarts_with_the_initial_window_and_remembers_the_old_one() {
    let mut flow = Flow::after_loss(100, 100);
    flow.round();
    flow.cubic.set_window(200 * MSS);
    flow.cubic.on_idle(MSS);
    assert_eq!((flow.cubic.window(), flow.cubic.ssthresh()), (10 * MSS, 150 * MSS));
    flow.cubic.undo(flow.now);
    assert_eq!(
        flow.cubic.window(),
        10 * MSS,
        "what was before the idle time cannot come back"
    );
    for expected in [20, 40, 80, 150] {
        flow.round();
        assert!((expected * MSS..=(expected + 1) * MSS).contains(&flow.cubic.window()));
    }
    assert!(flow.cubic.current.epoch);

    let mut flow = Flow::after_loss(100, 10);
    let before = flow.cubic.window();
    flow.cubic.on_idle(MSS);
    assert_eq!(flow.cubic.window(), before, "a smaller window stays");
}

#[test]
fn undo_restores_every_variable() {
    let mut flow = Flow::after_loss(100, 1000);
    flow.rounds(30);
    let before = flow.cubic.current;
    assert!(before.epoch && before.elapsed > 0);

    flow.cubic.on_congestion(flow.now, flow.cubic.window(), MSS);
    flow.cubic.set_window(700 * MSS);
    flow.cubic.undo(flow.now);
    assert_eq!(flow.cubic.current, before);
    flow.cubic.on_recovered(MSS);
    assert_eq!(flow.cubic.current, before, "the recovery is over already");

    flow.cubic.on_timeout(flow.now, flow.cubic.window(), false, MSS);
    flow.cubic.on_timeout(flow.now, flow.cubic.window(), true, MSS);
    flow.cubic.undo(flow.now);
    assert_eq!(flow.cubic.current, before);

    flow.cubic.set_window(5 * MSS);
    flow.cubic.undo(flow.now);
    assert_eq!(flow.cubic.window(), 5 * MSS, "nothing is left to undo");
}

#[test]
fn undo_long_after_keeps_the_larger_window() {
    let mut flow = Flow::after_loss(100, 100);
    let ssthresh = flow.cubic.ssthresh();
    flow.cubic.set_window(120 * MSS);
    flow.cubic.undo(flow.now);
    assert_eq!((flow.cubic.window(), flow.cubic.ssthresh()), (120 * MSS, ssthresh));
}

#[test]
fn undo_in_the_first_slow_start_continues_it() {
    let mut flow = Flow::new(50);
    flow.rounds(2);
    flow.lose();
    flow.rounds(3);
    flow.cubic.undo(flow.now);
    assert_eq!(
        (flow.cubic.window(), flow.cubic.ssthresh()),
        (40 * MSS, INITIAL_SSTHRESH)
    );
    flow.round();
    assert_eq!(flow.cubic.window(), 80 * MSS);
}

#[test]
fn windows_grow_to_the_limit_and_not_beyond() {
    let mut cubic = Cubic::new(MSS);
    let mut acked = Acked {
        now: Instant::from_millis(1000),
        bytes: MAX_WINDOW,
        flight: MAX_WINDOW,
        limited: true,
        rtt: None,
        reordering: false,
        srtt: None,
        snd_una: SeqNumber(0),
        snd_nxt: SeqNumber(0),
        delivery: None,
    };
    cubic.set_window(MAX_WINDOW - MSS);
    cubic.on_ack(&acked, MSS);
    assert_eq!(cubic.window(), MAX_WINDOW);
    cubic.on_congestion(acked.now, MAX_WINDOW, MSS);
    cubic.on_recovered(MSS);
    for _ in 0..10_000 {
        acked.now = acked.now + Duration::from_secs(1);
        cubic.on_ack(&acked, MSS);
    }
    assert_eq!(cubic.window(), MAX_WINDOW);
}

#[test]
fn a_connection_pays_less_than_two_cache_lines() {
    assert!(size_of::<Cubic>() < 128, "{} bytes", size_of::<Cubic>());
}

#[test]
fn a_threshold_that_is_remembered_ends_the_first_slow_start() {
    for (recalled, ssthresh) in [(3, 10), (25, 25)] {
        let mut flow = Flow::new(50);
        flow.cubic.recall_ssthresh(recalled * MSS);
        assert_eq!((flow.cubic.window(), flow.cubic.ssthresh()), (10 * MSS, ssthresh * MSS));
        flow.rounds(4);
        let window = flow.cubic.window();
        assert!((ssthresh * MSS..2 * ssthresh * MSS).contains(&window), "{window}");
    }
}
