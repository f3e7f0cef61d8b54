//! BBR over a path that is played by hand (draft-ietf-ccwg-bbr): the rate it finds, and what it does with it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::congestion::{Algorithm, PathModel};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::Options;

const MSS: usize = 1000;

/// The path delivers a segment each millisecond, after [`RTT`].
const BANDWIDTH: u64 = 1_000_000;

const RTT: Duration = Duration::from_millis(20);

/// A connection and its path, whose queue has no end.
struct Path {
    rig: Rig,
    /// Segments on their way, and when each is acknowledged.
    queue: VecDeque<(Instant, Sent)>,
    /// When the bottleneck is idle.
    idle_from: Instant,
    /// Every how manieth segment is lost; 0: none.
    loses: u32,
    passed: u32,
    /// What has arrived out of order.
    arrived: Vec<Sent>,
    largest_burst: usize,
}

impl Path {
    fn new(app: App) -> Self {
        Self::to_peer(app, true)
    }

    /// To a peer that does SACK, or does not.
    fn to_peer(app: App, sack_permitted: bool) -> Self {
        let config = Config {
            congestion: Algorithm::BBR,
            ..config()
        };
        let mut rig = Rig::new(config, app);
        rig.window = u16::MAX;
        let options = Options {
            mss: Some(MSS as u16),
            sack_permitted,
            window_scale: Some(7),
            ..Options::default()
        };
        // Opened by this side, so that a test can write to it.
        rig.connect_actively(options);
        Self {
            idle_from: rig.now,
            rig,
            queue: VecDeque::new(),
            loses: 0,
            passed: 0,
            arrived: Vec::new(),
            largest_burst: 0,
        }
    }

    /// Time passes, and the path does its work each millisecond.
    fn run(&mut self, millis: u32) {
        for _ in 0..millis {
            self.take();
            self.rig.pass(ms(1));
            while let Some((at, segment)) = self.queue.front().cloned()
                && at <= self.rig.now
            {
                self.queue.pop_front();
                self.deliver(segment);
                self.take();
            }
        }
    }

    /// Takes what was sent onto the path.
    fn take(&mut self) {
        let mut sent = self.rig.sent();
        sent.retain(|segment| !segment.payload.is_empty());
        self.largest_burst = self.largest_burst.max(sent.len());
        for segment in sent {
            self.passed += 1;
            if self.loses > 0 && self.passed.is_multiple_of(self.loses) {
                continue;
            }
            self.idle_from = self.idle_from.max(self.rig.now) + ms(1);
            self.queue.push_back((self.idle_from + RTT - ms(1), segment));
        }
    }

    fn deliver(&mut self, segment: Sent) {
        self.arrived.push(segment);
        let mut ack = self.rig.ack;
        loop {
            let before = ack;
            for segment in &self.arrived {
                if segment.seq.at_or_before(ack) {
                    ack = ack.max(segment.end());
                }
            }
            if ack == before {
                break;
            }
        }
        self.rig.ack = ack;
        self.arrived.retain(|segment| segment.end().after(ack));
        let newest = self.arrived.last().map(|segment| (segment.seq, segment.end()));
        let blocks: Vec<_> = newest.into_iter().collect();
        self.rig.selective(ack, &blocks);
    }

    fn model(&self) -> PathModel {
        let transfer = self.rig.info().transfer.expect("it is open");
        transfer.model.expect("it has a model")
    }

    fn in_flight(&self) -> usize {
        self.rig.info().transfer.expect("it is open").in_flight as usize
    }

    /// More than it can send in the time of a test.
    fn saturate(&mut self, seconds: u32) {
        for _ in 0..seconds * 10 {
            let queued = self.rig.info().unacknowledged;
            if queued < 200 * MSS {
                self.rig.write(pattern(200 * MSS));
            }
            self.run(100);
        }
    }
}

/// `is` is within `percent` of `value`.
#[track_caller]
fn about(is: u64, value: u64, percent: u64) {
    assert!(is.abs_diff(value) * 100 <= value * percent, "{is} is not about {value}");
}

#[test]
fn the_rate_of_the_path_is_found_and_kept_to() {
    let mut path = Path::new(App::default());
    path.saturate(4);
    let model = path.model();
    about(model.bandwidth, BANDWIDTH, 5);
    assert_eq!(model.min_rtt, Some(RTT));
    // 20 segments fill the path; there are no more than twice as many, and rarely fewer.
    let mut flights = Vec::new();
    path.largest_burst = 0;
    for _ in 0..20 {
        path.saturate(1);
        flights.push(path.in_flight() / MSS);
    }
    flights.sort_unstable();
    assert!((15..=30).contains(&flights[10]), "{flights:?}");
    assert!(flights[19] <= 60, "{flights:?}");
    assert!(path.largest_burst <= 5, "{} segments at once", path.largest_burst);
    assert_eq!(path.rig.count(Counter::FastRetransmits), 0);
}

#[test]
fn an_application_that_sends_little_is_not_taken_for_a_slow_path() {
    let mut path = Path::new(App::default());
    path.saturate(3);
    path.run(500);
    assert_eq!(path.in_flight(), 0);
    for _ in 0..80 {
        path.rig.write(pattern(2 * MSS));
        path.run(50);
    }
    about(path.model().bandwidth, BANDWIDTH, 5);
    // It goes on at that rate, and not with a burst of the window.
    path.largest_burst = 0;
    path.rig.write(pattern(40 * MSS));
    path.run(100);
    assert!(path.largest_burst <= 6, "{} segments at once", path.largest_burst);
    assert_eq!(path.in_flight(), 0, "all of it has left and arrived");
}

#[test]
fn a_few_losses_do_not_slow_it_down() {
    let mut path = Path::new(App::default());
    path.saturate(3);
    path.loses = 200;
    let before = path.rig.info().transfer.unwrap().bytes_acked;
    path.saturate(10);
    let rate = (path.rig.info().transfer.unwrap().bytes_acked - before) / 10;
    assert!(rate * 100 >= BANDWIDTH * 85, "{rate} bytes per second");
    assert!(path.rig.count(Counter::FastRetransmits) >= 40);
    assert_eq!(path.rig.count(Counter::Timeouts), 0);
}

#[test]
fn a_retransmission_timeout_leaves_one_segment_and_is_recovered_from() {
    let mut path = Path::new(App::default());
    path.saturate(3);
    path.loses = 1;
    path.run(2000);
    assert!(path.rig.count(Counter::Timeouts) > 0);
    path.loses = 0;
    path.run(3000);
    let before = path.rig.info().transfer.unwrap().bytes_acked;
    path.saturate(5);
    let rate = (path.rig.info().transfer.unwrap().bytes_acked - before) / 5;
    assert!(rate * 100 >= BANDWIDTH * 80, "{rate} bytes per second");
}

/// For three seconds the peer acknowledges each segment in ten parts, with this many duplicates before each of them.
fn acknowledge_in_parts(path: &mut Path, duplicates: usize) {
    for _ in 0..3000 {
        path.take();
        path.rig.pass(ms(1));
        while let Some((at, segment)) = path.queue.front().cloned()
            && at <= path.rig.now
        {
            path.queue.pop_front();
            for part in 1..=10 {
                for _ in 0..duplicates {
                    path.rig.peer(ACK, b"");
                }
                path.rig.ack = segment.seq + part * MSS as u32 / 10;
                path.rig.peer(ACK, b"");
            }
        }
        if path.rig.info().unacknowledged < 200 * MSS {
            path.rig.write(pattern(200 * MSS));
        }
    }
}

#[test]
fn divided_acknowledgments_make_the_path_no_faster() {
    let mut path = Path::new(App::default());
    path.saturate(3);
    acknowledge_in_parts(&mut path, 0);
    about(path.model().bandwidth, BANDWIDTH, 5);
}

#[test]
fn duplicates_without_sack_make_the_path_no_faster() {
    let mut path = Path::to_peer(App::default(), false);
    path.saturate(3);
    about(path.model().bandwidth, BANDWIDTH, 5);
    // Too few for a loss.
    acknowledge_in_parts(&mut path, 2);
    assert_eq!(path.rig.count(Counter::FastRetransmits), 0);
    about(path.model().bandwidth, BANDWIDTH, 5);
}

#[test]
fn a_syn_that_is_lost_does_not_count() {
    let config = Config {
        congestion: Algorithm::BBR,
        ..config()
    };
    let mut rig = Rig::new(config, App::default());
    rig.active_open();
    rig.pass(ms(1500));
    assert_eq!(rig.sent().len(), 1, "the SYN, once more");
    rig.pass(ms(2500));
    assert_eq!(rig.count(Counter::Timeouts), 2);
}
