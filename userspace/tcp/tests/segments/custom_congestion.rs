//! A congestion control from outside of the crate: it is told what happens, and its window and rate are kept to.

use std::sync::Mutex;
use std::time::Duration;

use crate::common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::congestion::{
    Acked, Algorithm, CongestionControl, Delivery, INITIAL_SSTHRESH, LossContext, LostSegment, Round, Sent as SentText,
};
use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::Options;

const MSS: u32 = 1000;

/// Segments in flight.
const WINDOW: u32 = 6;

/// Everything the controllers of one test were told. Tests run side by side, so each has a record of its own.
#[derive(Debug)]
struct Record {
    sent: Mutex<Vec<SentText>>,
    rounds: Mutex<u32>,
}

impl Record {
    const fn new() -> Self {
        Self {
            sent: Mutex::new(Vec::new()),
            rounds: Mutex::new(0),
        }
    }
}

/// Keeps the same window whatever happens, except that a timeout leaves one segment until the next acknowledgment.
#[derive(Debug)]
struct Fixed {
    record: &'static Record,
    rate: Option<u64>,
    round: Round,
    /// Segments in flight.
    segments: u32,
    window: u32,
}

impl Fixed {
    fn new(record: &'static Record, rate: Option<u64>) -> Self {
        Self {
            record,
            rate,
            round: Round::new(),
            segments: WINDOW,
            window: 0,
        }
    }

    fn start(record: &'static Record, rate: Option<u64>, mss: u32) -> Box<dyn CongestionControl> {
        Box::new(Self {
            window: WINDOW * mss,
            ..Self::new(record, rate)
        })
    }
}

impl CongestionControl for Fixed {
    fn window(&self) -> u32 {
        self.window
    }

    fn ssthresh(&self) -> u32 {
        INITIAL_SSTHRESH
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.rate
    }

    fn set_window(&mut self, cwnd: u32) {
        self.window = cwnd;
    }

    fn on_sent(&mut self, sent: &SentText, _mss: u32) {
        self.record.sent.lock().unwrap().push(*sent);
    }

    fn on_ack(&mut self, acked: &Acked, mss: u32) {
        *self.record.rounds.lock().unwrap() += u32::from(self.round.on_ack(acked));
        self.window = self.segments * mss;
    }

    fn on_congestion(&mut self, _now: Instant, _flight: u32, _mss: u32) {}

    fn on_timeout(&mut self, _now: Instant, _flight: u32, _repeated: bool, mss: u32) {
        self.window = mss;
    }

    fn on_recovered(&mut self, mss: u32) {
        self.window = self.segments * mss;
    }

    fn on_idle(&mut self, _mss: u32) {}

    fn undo(&mut self, _now: Instant) {}
}

fn connected(congestion: Algorithm) -> Rig {
    let config = Config { congestion, ..config() };
    let mut rig = Rig::new(config, sender(200_000));
    rig.connect_with(Options {
        mss: Some(MSS as u16),
        ..Options::default()
    });
    rig
}

/// What a controller that asks for rate samples was told.
#[derive(Debug)]
struct Samples {
    acked: Mutex<Vec<(u32, Delivery)>>,
    lost: Mutex<Vec<(LostSegment, LossContext)>>,
}

impl Samples {
    const fn new() -> Self {
        Self {
            acked: Mutex::new(Vec::new()),
            lost: Mutex::new(Vec::new()),
        }
    }

    fn last(&self) -> Delivery {
        self.acked.lock().unwrap().last().expect("an acknowledgment").1
    }
}

/// Keeps its window through recoveries, and asks for rate samples.
#[derive(Debug)]
struct Sampling(&'static Samples, u32);

impl CongestionControl for Sampling {
    fn window(&self) -> u32 {
        self.1
    }

    fn ssthresh(&self) -> u32 {
        INITIAL_SSTHRESH
    }

    fn wants_rate_samples(&self) -> bool {
        true
    }

    fn drives_recovery(&self) -> bool {
        true
    }

    fn set_window(&mut self, _cwnd: u32) {
        panic!("it drives recovery itself");
    }

    fn on_ack(&mut self, acked: &Acked, _mss: u32) {
        if let Some(delivery) = acked.delivery {
            self.0.acked.lock().unwrap().push((acked.bytes, delivery));
        }
    }

    fn on_lost(&mut self, lost: &LostSegment, context: &LossContext, _mss: u32) {
        self.0.lost.lock().unwrap().push((*lost, *context));
    }

    fn on_congestion(&mut self, _now: Instant, _flight: u32, _mss: u32) {}

    fn on_timeout(&mut self, _now: Instant, _flight: u32, _repeated: bool, _mss: u32) {}

    fn on_recovered(&mut self, _mss: u32) {}

    fn on_idle(&mut self, _mss: u32) {}

    fn undo(&mut self, _now: Instant) {}
}

/// Shorter than a tail loss probe waits.
const ROUND_TRIP: Duration = Duration::from_millis(8);

/// A connection whose controller, with a window of 20 segments, has just begun; its first flight of 10 took
/// [`ROUND_TRIP`].
fn sampled(congestion: Algorithm, length: usize) -> (Rig, Vec<Sent>) {
    let config = Config { congestion, ..config() };
    let mut rig = Rig::new(config, App::default());
    rig.connect_actively(Options {
        mss: Some(MSS as u16),
        sack_permitted: true,
        ..Options::default()
    });
    rig.sent();
    rig.write(pattern(length));
    let first = rig.sent();
    assert_eq!(first.len(), 10);
    rig.pass(ROUND_TRIP);
    rig.acknowledge(&first[9]);
    let flight = rig.sent();
    (rig, flight)
}

#[test]
fn an_acknowledgment_tells_the_rate_at_which_the_path_delivers() {
    static SAMPLES: Samples = Samples::new();
    const SAMPLING: Algorithm = Algorithm::new("sampling", |mss| Box::new(Sampling(&SAMPLES, 20 * mss)));
    let (mut rig, flight) = sampled(SAMPLING, 200_000);
    assert_eq!(flight.len(), 20);
    rig.pass(ROUND_TRIP);
    // Two segments every 2 ms: a segment each millisecond.
    for (index, segment) in flight.iter().enumerate().skip(1).step_by(2) {
        rig.acknowledge(segment);
        let delivered = index as u32 + 1;
        let delivery = SAMPLES.last();
        let sample = delivery.sample.expect("a segment was delivered");
        assert_eq!(
            delivery.delivered,
            u64::from(delivered * MSS),
            "the first flight was not counted"
        );
        assert_eq!((sample.delivered, sample.prior_delivered), (delivered * MSS, 0));
        assert_eq!(sample.tx_in_flight, delivered * MSS, "when it was sent");
        let elapsed = 8 + 2 * (u64::from(delivered) / 2 - 1);
        assert_eq!(sample.rate, Some(u64::from(delivered * MSS) * 1000 / elapsed));
        assert!(!sample.app_limited);
        assert_eq!(sample.lost, 0);
        assert_eq!(delivery.in_flight, 18 * MSS, "before the next two leave");
        rig.pass(ms(2));
    }
    // What was sent since, two by two, is acknowledged at once, which makes the path no faster than it was sent: 20
    // segments in the 26 ms since the flight before.
    let sent = rig.sent();
    rig.acknowledge(&sent[sent.len() - 1]);
    let sample = SAMPLES.last().sample.unwrap();
    assert_eq!(sample.rate, Some(20 * u64::from(MSS) * 1000 / 26));
}

#[test]
fn what_follows_a_pause_of_the_application_is_marked_as_limited_by_it() {
    static SAMPLES: Samples = Samples::new();
    const SAMPLING: Algorithm = Algorithm::new("sampling", |mss| Box::new(Sampling(&SAMPLES, 20 * mss)));
    let (mut rig, flight) = sampled(SAMPLING, 25_000);
    assert_eq!(flight.len(), 15, "all that is left");
    rig.pass(ROUND_TRIP);
    rig.acknowledge(&flight[7]);
    assert!(!SAMPLES.last().sample.unwrap().app_limited, "it was sent before");
    rig.write(pattern(5_000));
    let after = rig.sent();
    assert_eq!(after.len(), 5);
    rig.pass(ROUND_TRIP);
    rig.acknowledge(&flight[14]);
    assert!(!SAMPLES.last().sample.unwrap().app_limited, "it was sent before");
    rig.acknowledge(&after[0]);
    assert!(SAMPLES.last().sample.unwrap().app_limited);
}

#[test]
fn each_loss_is_told_and_acknowledgments_are_during_recovery() {
    static SAMPLES: Samples = Samples::new();
    const SAMPLING: Algorithm = Algorithm::new("sampling", |mss| Box::new(Sampling(&SAMPLES, 20 * mss)));
    let (mut rig, flight) = sampled(SAMPLING, 200_000);
    rig.pass(ROUND_TRIP);
    // The third and the fifth are lost.
    rig.acknowledge(&flight[1]);
    rig.sent();
    let una = flight[2].seq;
    let told = SAMPLES.acked.lock().unwrap().len();
    rig.selective(una, &[(flight[3].seq, flight[3].end())]);
    rig.selective(
        una,
        &[(flight[5].seq, flight[8].end()), (flight[3].seq, flight[3].end())],
    );
    let lost = SAMPLES.lost.lock().unwrap().clone();
    let seen: Vec<_> = lost
        .iter()
        .map(|(lost, _)| (lost.seq, lost.bytes, lost.tx_in_flight, lost.lost))
        .collect();
    assert_eq!(
        seen,
        [
            (flight[2].seq, MSS, 3 * MSS, MSS),
            (flight[4].seq, MSS, 5 * MSS, 2 * MSS)
        ]
    );
    let context = lost[0].1;
    assert_eq!(
        (context.now, context.delivered, context.selective),
        (rig.now, u64::from(7 * MSS), true)
    );
    let mut again = rig.sent();
    again.retain(|segment| segment.seq.before(flight[8].seq));
    let again: Vec<_> = again.iter().map(|segment| segment.seq).collect();
    assert_eq!(again, [flight[2].seq, flight[4].seq]);
    // Both acknowledgments delivered something, and were told of.
    assert_eq!(SAMPLES.acked.lock().unwrap().len(), told + 2);
    let sample = SAMPLES.last().sample.unwrap();
    assert_eq!((sample.lost, sample.tx_in_flight), (2 * MSS, 9 * MSS));
    // What is sent again is delivered from then on.
    rig.pass(ROUND_TRIP);
    rig.ack = flight[19].end();
    rig.peer(ACK, b"");
    let sample = SAMPLES.last().sample.unwrap();
    assert_eq!((sample.lost, sample.prior_delivered), (0, u64::from(7 * MSS)));
}

#[test]
fn window_and_rounds_are_those_of_the_controller() {
    static RECORD: Record = Record::new();
    const FIXED: Algorithm = Algorithm::new("fixed", |mss| Fixed::start(&RECORD, None, mss));
    let mut rig = connected(FIXED);
    // The initial window limits sending, and with its acknowledgment the controller begins.
    let first = rig.sent();
    assert_eq!(first.len(), 10);
    rig.acknowledge(&first[9]);
    for round in 1..=5 {
        let sent = rig.sent();
        assert_eq!(sent.len() as u32, WINDOW, "round {round}");
        rig.acknowledge(sent.last().unwrap());
        // And the one that the first acknowledgment ended.
        assert_eq!(*RECORD.rounds.lock().unwrap(), round + 1);
    }
    let told = RECORD.sent.lock().unwrap();
    assert_eq!(told.len() as u32, 6 * WINDOW);
    for (index, segment) in told.iter().enumerate() {
        assert_eq!((segment.bytes, segment.again), (MSS, false));
        assert_eq!(segment.flight, (index as u32 % WINDOW + 1) * MSS);
        assert_eq!(segment.now, rig.now);
    }
    assert_eq!(
        told.last().map(|segment| segment.snd_nxt),
        rig.sent().last().map(Sent::end)
    );
}

#[test]
fn a_segment_that_is_sent_again_is_told_as_such() {
    static RECORD: Record = Record::new();
    const FIXED: Algorithm = Algorithm::new("fixed", |mss| Fixed::start(&RECORD, None, mss));
    let mut rig = connected(FIXED);
    let first = rig.sent();
    rig.acknowledge(&first[9]);
    let lost = rig.sent();
    rig.wait(ms(3000)).expect("a retransmission timeout");
    let again = rig.sent();
    assert_eq!(again[0].seq, lost[0].seq);
    let told = RECORD.sent.lock().unwrap();
    let repeated: Vec<_> = told.iter().filter(|segment| segment.again).collect();
    assert_eq!(repeated.len(), again.len());
    assert_eq!(repeated[0].bytes, MSS);
}

#[test]
fn text_leaves_at_the_pacing_rate() {
    static RECORD: Record = Record::new();
    // A segment every 5 ms.
    const SLOW: Algorithm = Algorithm::new("slow", |mss| Fixed::start(&RECORD, Some(200 * 1000), mss));
    let mut rig = connected(SLOW);
    let first = rig.sent();
    rig.acknowledge(&first[9]);
    let start = rig.now;
    let mut left = 0;
    for _ in 0..100 {
        let sent = rig.sent();
        assert!(sent.len() <= 2, "{} segments at once", sent.len());
        left += sent.len() as u32;
        if let Some(last) = sent.last() {
            rig.acknowledge(last);
        }
        rig.pass(ms(1));
    }
    let elapsed = rig.now.since(start);
    assert_eq!(elapsed, ms(100));
    assert!((19..=21).contains(&left), "{left} segments in {elapsed:?}");
}

#[test]
fn a_high_rate_is_kept_to_by_what_a_millisecond_lets_go() {
    static RECORD: Record = Record::new();
    // Four segments every millisecond.
    const FAST: Algorithm = Algorithm::new("fast", |mss| Fixed::start(&RECORD, Some(4 * 1000 * 1000), mss));
    let mut rig = connected(FAST);
    let first = rig.sent();
    rig.acknowledge(&first[9]);
    let mut left = 0;
    for _ in 0..20 {
        for segment in rig.sent() {
            left += 1;
            rig.acknowledge(&segment);
        }
        rig.pass(Duration::from_millis(1));
    }
    assert!((76..=88).contains(&left), "{left} segments in 20 ms");
}

#[test]
fn parts_of_a_microsecond_add_up() {
    static RECORD: Record = Record::new();
    // A segment every 1.5 microseconds, and a window that would hold ten milliseconds' worth.
    const SEGMENTS: u32 = 6_667;
    const PARTS: Algorithm = Algorithm::new("parts", |mss| {
        Box::new(Fixed {
            segments: SEGMENTS,
            window: SEGMENTS * mss,
            ..Fixed::new(&RECORD, Some(u64::from(MSS) * 2_000_000 / 3))
        })
    });
    let config = Config {
        congestion: PARTS,
        send_buffer: 1 << 24,
        max_outstanding_segments: 1 << 14,
        ..config()
    };
    let mut rig = Rig::new(config, sender(20_000_000));
    rig.window = u16::MAX;
    rig.connect_with(Options {
        mss: Some(MSS as u16),
        window_scale: Some(10),
        ..Options::default()
    });
    let first = rig.sent();
    rig.acknowledge(&first[9]);
    let mut left = 0;
    for _ in 0..6 {
        let mut sent = rig.sent();
        // A turn sends no more than it has to.
        while let Some(last) = sent.last() {
            left += sent.len();
            rig.acknowledge(last);
            sent = rig.sent();
        }
        rig.pass(ms(1));
    }
    // At the beginning two milliseconds' worth leave at once.
    assert!((4_000..=5_400).contains(&left), "{left} segments in 6 ms");
}
