//! Application and driver against a server on another engine, in memory, with a clock that is turned by hand.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use tidegate_abi::siphash::Key;
use tidegate_runtime::{Driver, InterfaceInfo};
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::engine::{Engine, OnNoFlow, Population, Secrets};
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::wire::LinkHeader;

use crate::client::bypass::application::Requests;
use crate::client::bypass::driver::{ClientDriver, Outcome, Reports};
use crate::client::bypass::opener::Opener;
use crate::client::bypass::settings::Settings;
use crate::client::bypass::tuples::Share;
use crate::client::bypass::{measured, task};
use crate::client::{Close, Direction, Measured, Plan, Workload};

const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// One way on the wire takes as long, and so does a turn of either side.
const STEP: Duration = Duration::from_micros(50);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// What is sent, until it is carried over.
#[derive(Default)]
struct Wire {
    frames: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Transmit for Wire {
    fn reserve(&mut self, _: Purpose) -> Option<&mut [u8]> {
        self.buffer.resize(2048, 0);
        Some(&mut self.buffer)
    }

    fn commit(&mut self, length: usize) {
        self.frames.push(self.buffer[..length].to_vec());
    }
}

/// Answers each request with the same response, or throws away what it gets.
struct Server {
    /// Empty: it never answers.
    response: Bytes,
    /// Responses after which it closes a connection of its own accord.
    limit: Option<u32>,
    /// Whether it speaks HTTP at all.
    discards: bool,
    received: u64,
}

fn server(response: impl Into<Bytes>) -> Server {
    Server {
        response: response.into(),
        limit: None,
        discards: false,
        received: 0,
    }
}

/// What the server keeps of a connection: the bytes of an incomplete request, and how many it has answered.
type Session = (Vec<u8>, u32);

impl Application for Server {
    type Connection = Session;

    fn open<S: Stream>(&mut self, _: &mut S) -> Session {
        (Vec::new(), 0)
    }

    fn receive<S: Stream>(&mut self, (bytes, answered): &mut Session, stream: &mut S, data: &[u8]) -> usize {
        self.received += data.len() as u64;
        if self.discards {
            return data.len();
        }
        bytes.extend_from_slice(data);
        while let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let request: Vec<u8> = bytes.drain(..end + 4).collect();
            if self.limit == Some(*answered) {
                stream.close();
                break;
            }
            let mut response = self.response.clone();
            stream.send(&mut response);
            assert!(response.is_empty(), "the send buffer is large enough");
            *answered += 1;
            if self.limit == Some(*answered) || request.windows(5).any(|word| word == b"close") {
                stream.close();
                break;
            }
        }
        data.len()
    }

    fn end_of_stream<S: Stream>(&mut self, _: &mut Session, stream: &mut S) {
        stream.close();
    }

    fn writable<S: Stream>(&mut self, _: &mut Session, _: &mut S) {}

    fn timeout<S: Stream>(&mut self, _: &mut Session, _: &mut S) {}

    fn drain<S: Stream>(&mut self, _: &mut Session, _: &mut S) {}

    fn closed(&mut self, _: Session, _: CloseReason) {}
}

/// Both sides and what is on its way between them.
struct World {
    now: Instant,
    client: Engine<Requests>,
    driver: ClientDriver,
    server: Engine<Server>,
    to_server: Wire,
    to_client: Wire,
    outcome: Receiver<Outcome>,
}

impl World {
    fn new(plan: &Plan, settings: &Settings, server: Server) -> Self {
        let secrets = |seed| Secrets {
            isn: Key(seed, 1),
            table: Key(seed, 2),
        };
        let interface = InterfaceInfo {
            mac: Some(CLIENT_MAC),
            addresses: vec!["198.18.0.2".parse().unwrap(), "2001:2::2".parse().unwrap()],
            queues: 1,
        };
        let share = Share { index: 0, of: 1 };
        let target = plan.target();
        let addresses = settings.addresses(target.ip(), &interface).unwrap();
        let tuples = settings.tuples(addresses, share, plan.connections).unwrap();
        let config = settings.tcp(plan, plan.connections, tuples.len());
        let (sender, outcome) = channel();
        let reports = Reports {
            steps: Arc::default(),
            outcome: sender,
        };
        let link = LinkHeader::new(SERVER_MAC, CLIENT_MAC, target.is_ipv4());
        let task = task(plan, share);
        let mut world = Self {
            now: Instant::from_millis(1_000_000),
            client: Engine::new(config, secrets(1), Requests::new(&plan.url, task.workload)),
            driver: ClientDriver::new(task, Opener::new(target, link, tuples), reports),
            server: Engine::new(tidegate_tcp::Config::default(), secrets(2), server),
            to_server: Wire::default(),
            to_client: Wire::default(),
            outcome,
        };
        world.server.listen(target);
        world
    }

    /// One turn of both sides.
    fn step(&mut self) {
        self.now = self.now + STEP;
        let now = self.now;
        for frame in std::mem::take(&mut self.to_server.frames) {
            self.server.receive(now, &frame, OnNoFlow::Reject, &mut self.to_client);
        }
        self.server.turn(now, &mut self.to_client);
        self.now = self.now + STEP;
        let now = self.now;
        for frame in std::mem::take(&mut self.to_client.frames) {
            self.client.receive(now, &frame, OnNoFlow::Reject, &mut self.to_server);
        }
        self.client.turn(now, &mut self.to_server);
        self.driver.turn(&mut self.client, now, &mut self.to_server);
    }

    /// Runs until the driver tells what it found.
    fn run(&mut self, plan: &Plan, settings: &Settings) -> Measured {
        let limit = self.now + Duration::from_secs(30);
        loop {
            self.step();
            if let Ok(outcome) = self.outcome.try_recv() {
                return measured(plan, outcome, settings.msl);
            }
            assert!(self.now < limit, "there is no end");
        }
    }
}

fn plan(workload: Workload) -> Plan {
    Plan {
        url: "http://198.18.0.1/".parse().unwrap(),
        workload,
        connections: 4,
        warm_up: Duration::from_millis(20),
        duration: Duration::from_millis(100),
        cpu: None,
    }
}

/// What is found of `server`, and what both sides are left with.
fn run(plan: &Plan, settings: &Settings, server: Server) -> (Measured, Population, Population) {
    let mut world = World::new(plan, settings, server);
    let found = world.run(plan, settings);
    (found, world.client.population(), world.server.population())
}

fn find(workload: Workload, server: Server) -> Measured {
    run(&plan(workload), &Settings::new("tgc0"), server).0
}

fn errors(measured: &Measured) -> Vec<&'static str> {
    measured.errors.iter().map(|(kind, _)| kind).collect()
}

#[track_caller]
fn assert_without_errors(measured: &Measured) {
    assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
    assert!(measured.operations > 0);
    assert!(measured.operations_with_warm_up > measured.operations);
    let frames = measured.frames.unwrap();
    assert!(frames.sent > 0 && frames.received > 0);
}

#[test]
fn new_connections_end_as_they_should() {
    for url in ["http://198.18.0.1/", "http://[2001:2::1]/"] {
        for close in [Close::Client, Close::Server, Close::Rst] {
            let plan = Plan {
                url: url.parse().unwrap(),
                ..plan(Workload::Cps { close })
            };
            let settings = Settings::new("tgc0");
            let (found, client, server) = run(&plan, &settings, server(OK));
            assert_without_errors(&found);
            // SYN, SYN-ACK, request and response: two ways there and back.
            assert!(found.operations > 1_000, "{close:?}: {}", found.operations);
            assert_eq!(found.latency.quantile_us(0.5).round(), 200.0, "{close:?}");
            assert_eq!(found.connect.quantile_us(0.5).round(), 100.0, "{close:?}");
            assert_eq!(client.time_wait > 0, close == Close::Client);
            assert_eq!(server.time_wait > 0, close == Close::Server);
            let time_wait = (close == Close::Client).then_some(Duration::from_secs(2));
            assert_eq!(found.time_wait, time_wait);
        }
    }
}

#[test]
fn ports_in_time_wait_are_skipped_and_missed_when_there_are_no_others() {
    let mut settings = Settings::new("tgc0");
    settings.ports = 2000..=2009;
    let plan = Plan {
        warm_up: Duration::ZERO,
        ..plan(Workload::Cps { close: Close::Client })
    };
    let (found, client, _) = run(&plan, &settings, server(OK));
    assert_eq!((found.operations, client.time_wait), (10, 10));
    assert_eq!(errors(&found), ["no_port"]);

    settings.msl = Duration::from_millis(1);
    let (found, ..) = run(&plan, &settings, server(OK));
    assert!(found.operations > 20, "{}", found.operations);
}

#[test]
fn requests_follow_each_other_on_connections_that_stay_open() {
    let mut last = 0;
    for pipeline in [1, 8] {
        let (found, client, server) = run(&plan(Workload::Rps { pipeline }), &Settings::new("tgc0"), server(OK));
        assert_without_errors(&found);
        assert_eq!(found.latency.len(), found.operations);
        assert_eq!(found.latency.quantile_us(0.5).round(), 100.0);
        assert_eq!(found.connect.len(), 0, "all were opened during the warm-up");
        assert_eq!((client.connections, server.connections), (4, 4));
        assert!(found.operations > 4 * last);
        last = found.operations;
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let found = find(Workload::Latency { rate: 3_000 }, server(OK));
    assert_without_errors(&found);
    assert!((295..=305).contains(&found.operations), "{}", found.operations);
    // What is due between two turns waits for the next.
    assert!((100.0..201.0).contains(&found.latency.quantile_us(0.5)));
}

#[test]
fn what_is_due_counts_even_if_no_connection_is_free_for_it() {
    // Each of the 4 connections carries a request at a time, which takes 100 us: 40,000 a second, and more are due.
    let found = find(Workload::Latency { rate: 50_000 }, server(OK));
    assert!((3_950..=4_050).contains(&found.operations), "{}", found.operations);
    // At the end of the measurement a part was still waiting, and it was answered afterwards.
    assert_eq!(found.errors.total(), 0, "{:?}", found.errors);
    assert!(found.latency.len() >= 5_000);
    assert!(found.latency.max_us() > 25_000.0, "{}", found.latency.max_us());
}

#[test]
fn requests_without_an_answer_are_errors() {
    let found = find(Workload::Latency { rate: 3_000 }, server(""));
    assert_eq!((found.operations, found.latency.len()), (0, 0));
    // With those of the warm-up.
    let count: Vec<_> = found.errors.iter().collect();
    assert_eq!(count, [("unfinished", 360)]);
}

/// A short one: nothing limits the rate of this link.
fn bulk(direction: Direction) -> Plan {
    Plan {
        warm_up: Duration::from_millis(2),
        duration: Duration::from_millis(6),
        ..plan(Workload::Throughput { direction })
    }
}

#[test]
fn bodies_are_counted_in_bytes() {
    let mut response = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
    response.resize(response.len() + 100_000, b'x');
    let plan = bulk(Direction::Down);
    let (found, ..) = run(&plan, &Settings::new("tgc0"), server(response));
    assert_without_errors(&found);
    assert!(found.latency.len() > 0);
    let whole = found.latency.len() * 100_000;
    assert!(
        found.operations.abs_diff(whole) < 4 * 100_000,
        "{} of {whole}",
        found.operations
    );
}

#[test]
fn what_is_sent_to_a_discard_service_arrives() {
    let plan = bulk(Direction::Up);
    let settings = Settings::new("tgc0");
    let discard = Server {
        discards: true,
        ..server("")
    };
    let mut world = World::new(&plan, &settings, discard);
    let found = world.run(&plan, &settings);
    assert_without_errors(&found);
    let (sent, received) = (found.operations_with_warm_up, world.server.application().received);
    // The rest is on its way.
    assert!(received <= sent && sent - received < sent / 2, "{received} of {sent}");
}

#[test]
fn held_connections_stay_open_and_answer_at_the_end() {
    let mut settings = Settings::new("tgc0");
    settings.sources = Some("198.19.0.0/30".parse().unwrap());
    settings.ports = 1000..=1999;
    let plan = Plan {
        connections: 2_000,
        ..plan(Workload::Hold)
    };
    let (found, client, server) = run(&plan, &settings, server(OK));
    assert_eq!(found.errors.total(), 0, "{:?}", found.errors);
    assert_eq!(
        (found.operations, found.latency.len(), found.connect.len()),
        (2_000, 2_000, 2_000)
    );
    assert!((0.1..0.101).contains(&found.seconds), "{}", found.seconds);
    assert_eq!((client.connections, server.connections), (2_000, 2_000));
}

#[test]
fn held_connections_that_close_are_errors() {
    let plan = plan(Workload::Hold);
    let closes = Server {
        limit: Some(0),
        ..server(OK)
    };
    let (found, ..) = run(&plan, &Settings::new("tgc0"), closes);
    assert_eq!(found.operations, 0);
    assert_eq!(found.errors.iter().collect::<Vec<_>>(), [("closed_early", 4)]);
}

#[test]
fn errors_are_told_by_kind_and_connections_tried_again() {
    let not_found = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    for workload in [
        Workload::Cps { close: Close::Client },
        Workload::Rps { pipeline: 4 },
        Workload::Throughput {
            direction: Direction::Down,
        },
    ] {
        let found = find(workload, server(not_found));
        assert_eq!(errors(&found), ["status"], "{workload:?}");
        assert_eq!(found.operations, 0);
        // 10 ms after each other, so about 10 times on each of 4 connections.
        assert!((20..=44).contains(&found.errors.total()), "{}", found.errors.total());

        let closes = Server {
            limit: Some(0),
            ..server(OK)
        };
        let found = find(workload, closes);
        assert_eq!(errors(&found), ["closed_early"], "{workload:?}");
    }
}

#[test]
fn a_server_may_end_a_connection_when_it_has_answered_everything() {
    for workload in [Workload::Rps { pipeline: 1 }, Workload::Latency { rate: 2_000 }] {
        let polite = Server {
            limit: Some(5),
            ..server(OK)
        };
        let found = find(workload, polite);
        assert_without_errors(&found);
        assert!(found.connect.len() > 10, "{workload:?}: {}", found.connect.len());
    }
}
