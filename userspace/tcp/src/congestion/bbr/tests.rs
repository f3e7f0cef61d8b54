//! Tests of the state machine: a path is played to it round trip by round trip.

mod reordering;

use super::loss::INFINITE;
use super::*;
use crate::congestion::Delivery;
use crate::seq::SeqNumber;

const MSS: u32 = 1000;

/// The round-trip time of the path.
const RTT: Duration = Duration::from_millis(20);

/// Its bandwidth: with [`RTT`] 200 segments in flight.
const BW: u64 = 10_000_000;
const BDP: u32 = 200_000;

/// A connection and what its path does.
struct Run {
    bbr: Bbr,
    now: Instant,
    delivered: u64,
    /// For the next acknowledgments.
    rtt: Duration,
    in_flight: u32,
    app_limited: bool,
    limited: bool,
    selective: bool,
    reordering: bool,
    /// Bytes that the next acknowledgment finds lost of those sent in its round trip.
    lost: u32,
}

impl Run {
    fn new() -> Self {
        Self {
            bbr: Bbr::new(MSS),
            now: Instant::from_millis(1000),
            delivered: 0,
            rtt: RTT,
            in_flight: BDP,
            app_limited: false,
            limited: false,
            selective: true,
            reordering: false,
            lost: 0,
        }
    }

    /// A connection that has found out what the path carries, in `state`.
    fn in_state(state: State) -> Self {
        let mut run = Self::new();
        for _ in 0..5 {
            run.round(BW);
        }
        assert_eq!(
            run.bbr.state,
            State::ProbeBwCruise,
            "Drain and Down ask for no more than what is in flight"
        );
        run.until(state);
        run
    }

    fn until(&mut self, state: State) {
        for _ in 0..1000 {
            if self.bbr.state == state {
                return;
            }
            self.round(BW);
        }
        panic!("never came to {state:?}");
    }

    /// A round trip passes, at the end of which an acknowledgment tells of all that was delivered at `rate`.
    fn round(&mut self, rate: u64) {
        self.now = self.now + self.rtt;
        let bytes = amount(rate, self.rtt);
        self.acknowledge(bytes, bytes, rate);
    }

    /// An acknowledgment of `bytes`; since the newest of them was sent, `since` were delivered, at `rate`.
    fn acknowledge(&mut self, bytes: u32, since: u32, rate: u64) {
        self.delivered += u64::from(bytes);
        let acked = Acked {
            now: self.now,
            bytes,
            flight: bytes,
            limited: self.limited,
            rtt: Some(self.rtt),
            reordering: self.reordering,
            srtt: Some(self.rtt),
            snd_una: SeqNumber(self.delivered as u32),
            snd_nxt: SeqNumber(self.delivered as u32) + self.in_flight,
            delivery: Some(Delivery {
                delivered: self.delivered,
                in_flight: self.in_flight,
                selective: self.selective,
                sample: Some(RateSample {
                    rate: Some(rate),
                    delivered: since,
                    prior_delivered: self.delivered - u64::from(since),
                    app_limited: self.app_limited,
                    tx_in_flight: self.in_flight,
                    lost: core::mem::take(&mut self.lost),
                }),
            }),
        };
        self.bbr.on_ack(&acked, MSS);
    }

    /// `ranges` segments are found lost that do not follow each other, `in_flight` bytes of which were in flight.
    fn lose(&mut self, ranges: u32) {
        let context = LossContext {
            now: self.now,
            delivered: self.delivered,
            selective: self.selective,
        };
        for range in 1..=ranges {
            self.lost += MSS;
            let lost = LostSegment {
                seq: SeqNumber(self.delivered as u32) + range * 10 * MSS,
                bytes: MSS,
                tx_in_flight: self.in_flight,
                lost: self.lost,
                app_limited: self.app_limited,
            };
            self.bbr.on_lost(&lost, &context, MSS);
        }
    }

    /// Fast recovery begins with the loss of `ranges` segments.
    fn recover(&mut self, ranges: u32) {
        self.bbr.on_congestion(self.now, self.in_flight, MSS);
        self.lose(ranges);
    }

    /// A round trip in which `segments` are lost.
    fn lossy_round(&mut self, segments: u32, rate: u64) {
        self.lose(segments);
        self.round(rate);
    }

    fn longterm(&self) -> u32 {
        self.bbr.bounds.inflight_longterm
    }
}

fn amount(rate: u64, time: Duration) -> u32 {
    model::amount(rate, time) as u32
}

/// `amount` less or more one percent.
#[track_caller]
fn about(is: u64, amount: u64) {
    assert!(is.abs_diff(amount) <= amount / 100, "{is} is not about {amount}");
}

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
fn the_rate_begins_with_the_initial_window_in_a_round_trip() {
    let mut run = Run::new();
    assert_eq!(run.bbr.pacing_rate(), None);
    let acked = Acked {
        now: run.now,
        bytes: MSS,
        flight: MSS,
        limited: true,
        rtt: Some(RTT),
        reordering: false,
        srtt: Some(RTT),
        snd_una: SeqNumber(0),
        snd_nxt: SeqNumber(0),
        delivery: None,
    };
    run.bbr.on_ack(&acked, MSS);
    about(run.bbr.pacing_rate, 10 * u64::from(MSS) * 50 * 277 / 100);
    assert_eq!(run.bbr.window(), 11 * MSS);
    // A lower rate does not lower it before the path is known to be full.
    run.round(1000);
    about(run.bbr.pacing_rate, 10 * u64::from(MSS) * 50 * 277 / 100);
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
fn the_bound_never_falls_below_seven_tenths_of_what_is_wanted() {
    let mut run = Run::in_state(State::ProbeBwUp);
    run.in_flight = 10 * MSS;
    run.lose(1);
    assert_eq!(run.longterm(), BDP * 7 / 10);
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
fn after_an_idle_time_sending_goes_on_at_the_rate_of_the_path() {
    let mut run = Run::in_state(State::ProbeBwDown);
    let window = run.bbr.window();
    run.now = run.now + Duration::from_secs(60);
    run.bbr.on_idle(MSS);
    let sent = |run: &Run, flight, app_limited| Sent {
        now: run.now,
        bytes: MSS,
        flight,
        snd_nxt: SeqNumber(0),
        again: false,
        app_limited,
    };
    run.bbr.on_sent(&sent(&run, 2 * MSS, true), MSS);
    assert!(!run.bbr.idle_restart, "something was in flight");
    run.bbr.on_sent(&sent(&run, MSS, false), MSS);
    assert!(!run.bbr.idle_restart, "it was not the application that had paused");
    run.bbr.on_sent(&sent(&run, MSS, true), MSS);
    assert!(run.bbr.idle_restart);
    assert_eq!(run.bbr.window(), window);
    about(run.bbr.pacing_rate, BW * 99 / 100);
    // The queue has had its time to empty: no need for ProbeRTT.
    run.round(BW);
    assert_ne!(run.bbr.state, State::ProbeRtt);
    run.round(BW);
    assert_ne!(run.bbr.state, State::ProbeRtt);
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

#[test]
fn the_window_leaves_room_for_acknowledgments_that_come_in_bursts() {
    let mut run = Run::in_state(State::ProbeBwCruise);
    let window = run.bbr.window();
    assert_eq!(
        run.bbr.aggregation.extra_acked(),
        BDP,
        "each tells of a round trip at once"
    );
    assert_eq!(window, 3 * BDP);
    // Slower, smooth ones wear that off, and ten round trips later it is forgotten.
    for _ in 0..40 * 20 {
        run.now = run.now + RTT / 20;
        run.acknowledge(BDP / 20 * 9 / 10, BDP, BW);
    }
    let extra = run.bbr.aggregation.extra_acked();
    assert!(extra <= BDP / 10, "{extra}");
    assert!(run.bbr.window() <= 2 * BDP + BDP / 10);
}

#[test]
fn a_path_that_holds_less_than_a_segment_gets_four() {
    let mut run = Run::new();
    run.in_flight = MSS;
    for _ in 0..100 {
        run.now = run.now + RTT;
        run.acknowledge(MSS / 2, MSS / 2, 25_000);
    }
    assert!(run.bbr.full_pipe.reached);
    assert!(run.bbr.bdp() < MSS);
    let window = run.bbr.window();
    assert!((4 * MSS..=8 * MSS).contains(&window), "{window}");
    assert!(run.bbr.pacing_rate <= 25_000 * 125 / 100);
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
