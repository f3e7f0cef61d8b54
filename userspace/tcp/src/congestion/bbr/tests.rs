//! Tests of the state machine: a path is played to it round trip by round trip.

mod loss;
mod probe_bw;
mod probe_rtt;
mod reordering;
mod startup;

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
