//! A server on another engine, and the wire to it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use tidegate_abi::siphash::Key;
use tidegate_runtime::{InterfaceInfo, ShardTask as _};
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::engine::{ConnectionId, Engine, OnNoFlow, Secrets};
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::wire::LinkHeader;

use crate::application::Requests;
use crate::bypass::connector::Dialer;
use crate::bypass::settings::Settings;
use crate::bypass::tuples::{Share, Steering};
use crate::bypass::{ShardDriver, task};
use crate::driver::{Driver, Outcome};
use crate::monitor::Monitor;
use crate::progress::Progress;
use crate::{Measured, Plan, measured};

const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// One way on the wire takes as long, and so does a turn of either side.
const STEP: Duration = Duration::from_micros(50);

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Frames that were sent, until they are carried over.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) frames: Vec<Vec<u8>>,
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
pub(crate) struct Server {
    /// Empty: it never answers.
    pub(crate) response: Bytes,
    /// Responses after which it closes a connection of its own accord.
    pub(crate) limit: Option<u32>,
    /// The response in place of the last of them.
    pub(crate) last_response: Option<Bytes>,
    /// Whether it speaks HTTP at all.
    pub(crate) discards: bool,
    /// Connections, from the first on, that get no answers.
    pub(crate) silent: u32,
    pub(crate) received: u64,
}

pub(crate) fn server(response: impl Into<Bytes>) -> Server {
    Server {
        response: response.into(),
        limit: None,
        last_response: None,
        discards: false,
        silent: 0,
        received: 0,
    }
}

/// The server's state of a connection.
pub(crate) struct Session {
    /// Of requests that are incomplete, or wait for the response before theirs to be sent.
    bytes: Vec<u8>,
    /// Of the response being sent.
    rest: Bytes,
    answered: u32,
    silent: bool,
    /// The connection ends with the response being sent.
    closes: bool,
}

impl Server {
    /// Sends what there is room for.
    fn answer<S: Stream>(&self, session: &mut Session, stream: &mut S) {
        loop {
            stream.send(&mut session.rest);
            if !session.rest.is_empty() {
                return;
            }
            if session.closes {
                stream.close();
                return;
            }
            let Some(end) = session.bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
                return;
            };
            let request: Vec<u8> = session.bytes.drain(..end + 4).collect();
            if self.limit == Some(session.answered) {
                session.closes = true;
                continue;
            }
            session.answered += 1;
            session.rest = match &self.last_response {
                Some(last) if self.limit == Some(session.answered) => last.clone(),
                _ => self.response.clone(),
            };
            session.closes = self.limit == Some(session.answered) || request.windows(5).any(|word| word == b"close");
        }
    }
}

impl Application for Server {
    type Connection = Session;

    fn open<S: Stream>(&mut self, _: &mut S) -> Session {
        let silent = self.silent > 0;
        self.silent -= u32::from(silent);
        Session {
            bytes: Vec::new(),
            rest: Bytes::new(),
            answered: 0,
            silent,
            closes: false,
        }
    }

    fn receive<S: Stream>(&mut self, session: &mut Session, stream: &mut S, data: &[u8]) -> usize {
        self.received += data.len() as u64;
        if self.discards || session.silent {
            return data.len();
        }
        session.bytes.extend_from_slice(data);
        self.answer(session, stream);
        data.len()
    }

    fn end_of_stream<S: Stream>(&mut self, _: &mut Session, stream: &mut S) {
        stream.close();
    }

    fn writable<S: Stream>(&mut self, session: &mut Session, stream: &mut S) {
        self.answer(session, stream);
    }

    fn timeout<S: Stream>(&mut self, _: &mut Session, _: &mut S) {}

    fn drain<S: Stream>(&mut self, _: &mut Session, _: &mut S) {}

    fn closed(&mut self, _: Session, _: CloseReason) {}
}

/// The client's interface.
pub(crate) fn interface() -> InterfaceInfo {
    InterfaceInfo {
        mac: Some(CLIENT_MAC),
        addresses: vec!["198.18.0.2".parse().unwrap(), "2001:2::2".parse().unwrap()],
        queues: 1,
        rx_queues: 1,
    }
}

/// Both sides and what is on its way between them.
pub(crate) struct World {
    now: Instant,
    pub(crate) client: Engine<Requests<ConnectionId>>,
    pub(crate) driver: ShardDriver,
    pub(crate) server: Engine<Server>,
    pub(crate) to_server: Wire,
    pub(crate) to_client: Wire,
    outcome: Receiver<Outcome>,
    monitor: Option<Monitor>,
    /// The client's port whose frames do not reach the server.
    pub(crate) cut_off: Option<u16>,
}

impl World {
    pub(crate) fn new(plan: &Plan, settings: &Settings, server: Server) -> Self {
        Self::of_shard(plan, settings, server, Share { index: 0, of: 1 }, None)
    }

    /// One shard of several, whose answers arrive as `steering` says.
    pub(crate) fn of_shard(
        plan: &Plan,
        settings: &Settings,
        server: Server,
        share: Share,
        steering: Option<&Arc<Steering>>,
    ) -> Self {
        let secrets = |seed| Secrets {
            isn: Key(seed, 1),
            table: Key(seed, 2),
        };
        let target = plan.target();
        let addresses = settings.addresses(target.ip(), &interface()).unwrap();
        let tuples = settings
            .tuples(addresses, share, task(plan, share).connections, steering)
            .unwrap();
        let config = settings.tcp(plan, plan.connections, tuples.len());
        let (sender, outcome) = channel();
        let link = LinkHeader::new(SERVER_MAC, CLIENT_MAC, target.is_ipv4());
        let task = task(plan, share);
        let (monitor, mut recorders) = Monitor::new(plan, &Progress::hidden(), 1);
        let mut world = Self {
            now: Instant::from_millis(1_000_000),
            client: Engine::new(config, secrets(1), Requests::new(plan, &task)),
            driver: ShardDriver {
                driver: Driver::new(task, recorders.remove(0)),
                dialer: Dialer::new(target, link, tuples),
                outcome: sender,
            },
            server: Engine::new(tidegate_tcp::Config::default(), secrets(2), server),
            to_server: Wire::default(),
            to_client: Wire::default(),
            outcome,
            monitor: Some(monitor),
            cut_off: None,
        };
        world.server.listen(target);
        world
    }

    /// One turn of both sides.
    pub(crate) fn step(&mut self) {
        self.step_server();
        self.now = self.now + STEP;
        let now = self.now;
        for frame in std::mem::take(&mut self.to_client.frames) {
            self.client.receive(now, &frame, OnNoFlow::Reject, &mut self.to_server);
        }
        self.client.poll(now, &mut self.to_server);
        self.driver.turn(&mut self.client, now, &mut self.to_server);
    }

    pub(crate) fn step_server(&mut self) {
        self.now = self.now + STEP;
        let now = self.now;
        for frame in std::mem::take(&mut self.to_server.frames) {
            if self.cut_off.is_none_or(|port| source_port(&frame) != port) {
                self.server.receive(now, &frame, OnNoFlow::Reject, &mut self.to_client);
            }
        }
        self.server.poll(now, &mut self.to_client);
    }

    /// Runs until the driver tells what it found.
    pub(crate) fn run(&mut self, plan: &Plan, settings: &Settings) -> Measured {
        let limit = self.now + Duration::from_secs(30);
        loop {
            self.step();
            if let Ok(outcome) = self.outcome.try_recv() {
                let monitor = self.monitor.take().expect("it runs once");
                return measured(plan, outcome, monitor.finish(), 2 * settings.msl);
            }
            assert!(self.now < limit, "there is no end");
        }
    }
}

/// The source port of a TCP segment in IPv4 without options.
pub(crate) fn source_port(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[34], frame[35]])
}
