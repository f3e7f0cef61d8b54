//! A hand-turned clock, a peer made of segments, and applications that write down what happens to them.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tidegate_abi::siphash::Key;
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{Engine, OnNoFlow, Received, Secrets};
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::wire::emit::{self, Header};
use tidegate_tcp::wire::options::Timestamps;
use tidegate_tcp::wire::{Flags, FlowKey, LinkHeader, Options, Segment};
use tidegate_tcp::{Config, State};

pub const SERVER: &str = "198.18.0.1:80";
pub const CLIENT: &str = "198.18.0.2:40000";
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub const SYN: Flags = Flags::SYN;
pub const ACK: Flags = Flags::ACK;
pub const FIN: Flags = Flags::FIN;
pub const RST: Flags = Flags::RST;
pub const PSH: Flags = Flags::PSH;

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Collects frames; refuses them when told to.
#[derive(Default)]
pub struct Wire {
    pub frames: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    pub exhausted: bool,
}

impl Transmit for Wire {
    fn reserve(&mut self, _: Purpose) -> Option<&mut [u8]> {
        if self.exhausted {
            return None;
        }
        self.buffer.resize(9100, 0xaa);
        Some(&mut self.buffer)
    }

    fn commit(&mut self, length: usize) {
        self.frames.push(self.buffer[..length].to_vec());
    }
}

/// What an application was told, and how it behaves.
#[derive(Default)]
pub struct App {
    pub opened: usize,
    pub received: Vec<u8>,
    pub ends: usize,
    pub writable: usize,
    pub timeouts: usize,
    pub closed: Vec<CloseReason>,
    /// Bytes it still wants to read; `None`: all.
    pub appetite: Option<usize>,
    /// Sends back what it reads.
    pub echo: bool,
    /// Sent when the connection opens, piece by piece as there is room.
    pub greeting: Bytes,
    /// Closes when the peer has finished.
    pub close_at_end: bool,
    /// Closes as soon as the greeting is queued.
    pub close_after_greeting: bool,
    /// Shuts down sending as soon as the greeting is queued.
    pub shutdown_after_greeting: bool,
    /// Resets when it reads this byte.
    pub abort_on: Option<u8>,
    /// Sets its timer at open.
    pub timer: Option<Duration>,
}

impl App {
    fn greet<S: Stream>(&mut self, rest: &mut Bytes, stream: &mut S) {
        stream.send(rest);
        if rest.is_empty() {
            if self.close_after_greeting {
                stream.close();
            }
            if self.shutdown_after_greeting {
                stream.shutdown();
            }
        }
    }
}

impl Application for App {
    type Connection = Bytes;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Bytes {
        self.opened += 1;
        let mut rest = self.greeting.clone();
        self.greet(&mut rest, stream);
        if self.timer.is_some() {
            stream.set_timer(self.timer);
        }
        rest
    }

    fn receive<S: Stream>(&mut self, _: &mut Bytes, stream: &mut S, data: &[u8]) -> usize {
        let mut count = data.len();
        if let Some(appetite) = &mut self.appetite {
            count = count.min(*appetite);
            *appetite -= count;
        }
        if self.echo {
            count = stream.send_copy(&data[..count]);
        }
        self.received.extend_from_slice(&data[..count]);
        if self.abort_on.is_some_and(|byte| data.contains(&byte)) {
            stream.abort();
        }
        count
    }

    fn end_of_stream<S: Stream>(&mut self, _: &mut Bytes, stream: &mut S) {
        self.ends += 1;
        if self.close_at_end {
            stream.close();
        }
    }

    fn writable<S: Stream>(&mut self, rest: &mut Bytes, stream: &mut S) {
        self.writable += 1;
        if !rest.is_empty() {
            self.greet(rest, stream);
        }
    }

    fn timeout<S: Stream>(&mut self, _: &mut Bytes, _: &mut S) {
        self.timeouts += 1;
    }

    fn drain<S: Stream>(&mut self, _: &mut Bytes, stream: &mut S) {
        stream.close();
    }

    fn closed(&mut self, _: Bytes, reason: CloseReason) {
        self.closed.push(reason);
    }
}

/// A segment the engine sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub seq: SeqNumber,
    pub ack: SeqNumber,
    pub flags: Flags,
    pub window: u16,
    pub options: Options,
    pub payload: Vec<u8>,
}

impl Sent {
    pub fn is(&self, flags: Flags) -> bool {
        self.flags == flags
    }
}

pub fn parse(frame: &[u8]) -> Sent {
    let segment = Segment::parse(frame, true).expect("the engine sent a segment that cannot be read");
    Sent {
        seq: segment.seq,
        ack: segment.ack,
        flags: segment.flags,
        window: segment.window,
        options: segment.options,
        payload: segment.payload.to_vec(),
    }
}

pub fn config() -> Config {
    Config {
        max_connections: 64,
        max_half_open: 8,
        max_time_wait: 8,
        ..Config::default()
    }
}

pub fn secrets(number: u64) -> Secrets {
    Secrets {
        isn: Key(number, 2),
        table: Key(3, number),
    }
}

/// An engine with one listener and one peer that sends what the test says.
pub struct Rig {
    pub engine: Engine<App>,
    pub now: Instant,
    pub wire: Wire,
    pub key: FlowKey,
    /// The peer's next sequence number and what it acknowledges.
    pub seq: SeqNumber,
    pub ack: SeqNumber,
    pub window: u16,
    /// The peer's timestamp clock; `None`: no timestamps.
    pub timestamp: Option<u32>,
    pub echo: u32,
}

impl Rig {
    pub fn new(config: Config, app: App) -> Self {
        Self::between(config, app, SERVER, CLIENT)
    }

    pub fn between(config: Config, app: App, server: &str, client: &str) -> Self {
        let server: SocketAddr = server.parse().unwrap();
        let mut engine = Engine::new(config, secrets(1), app);
        engine.listen(server);
        Self {
            engine,
            now: Instant::from_millis(1_000_000),
            wire: Wire::default(),
            key: FlowKey::new(client.parse().unwrap(), server),
            seq: SeqNumber(0xffff_ff00),
            ack: SeqNumber(0),
            window: 65_535,
            timestamp: None,
            echo: 0,
        }
    }

    pub fn app(&mut self) -> &mut App {
        self.engine.application_mut()
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.engine.counters().get(counter)
    }

    pub fn state(&self) -> Option<State> {
        let (local, peer) = (self.key.peer(), self.key.local());
        self.engine
            .connections()
            .find(|info| info.local == local && info.peer == peer)
            .map(|info| info.state)
    }

    /// What the engine sent since the last call.
    pub fn sent(&mut self) -> Vec<Sent> {
        self.wire.frames.drain(..).map(|frame| parse(&frame)).collect()
    }

    /// The only segment the engine sent since the last call.
    #[track_caller]
    pub fn one(&mut self) -> Sent {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    #[track_caller]
    pub fn nothing(&mut self) {
        let sent = self.sent();
        assert!(sent.is_empty(), "{sent:?}");
    }

    pub fn frame(&self, seq: SeqNumber, ack: SeqNumber, flags: Flags, options: Options, payload: &[u8]) -> Vec<u8> {
        let link = LinkHeader::new(SERVER_MAC, CLIENT_MAC, self.key.is_v4());
        let header = Header {
            seq,
            ack,
            flags,
            window: self.window,
            options,
        };
        let mut frame = vec![0; 200 + payload.len()];
        let length = emit::frame(&mut frame, &link, &self.key, &header, payload.len(), |text| {
            text.copy_from_slice(payload);
        });
        frame.truncate(length);
        frame
    }

    pub fn inject(&mut self, frame: &[u8]) -> Received {
        self.engine.receive(self.now, frame, OnNoFlow::Reject, &mut self.wire)
    }

    fn options(&self) -> Options {
        Options {
            timestamps: self.timestamp.map(|value| Timestamps { value, echo: self.echo }),
            ..Options::default()
        }
    }

    /// The peer sends a segment at `seq`, whatever its own state says.
    pub fn peer_at(&mut self, seq: SeqNumber, flags: Flags, payload: &[u8]) {
        let frame = self.frame(seq, self.ack, flags, self.options(), payload);
        self.inject(&frame);
    }

    /// The peer sends the next segment.
    pub fn peer(&mut self, flags: Flags, payload: &[u8]) {
        let seq = self.seq;
        self.seq += payload.len() as u32;
        if flags.intersects(SYN | FIN) {
            self.seq += 1;
        }
        self.peer_at(seq, flags, payload);
    }

    /// The peer's SYN with these options.
    pub fn syn(&mut self, options: Options) {
        let frame = self.frame(self.seq, SeqNumber(0), SYN, options, b"");
        self.seq += 1;
        self.inject(&frame);
    }

    /// A three-way handshake with these options; returns the SYN-ACK.
    #[track_caller]
    pub fn connect_with(&mut self, options: Options) -> Sent {
        self.timestamp = options.timestamps.map(|timestamps| timestamps.value);
        self.syn(options);
        let syn_ack = self.one();
        assert!(syn_ack.is(SYN | ACK), "{syn_ack:?}");
        assert_eq!(syn_ack.ack, self.seq);
        self.ack = syn_ack.seq + 1;
        self.echo = syn_ack.options.timestamps.map_or(0, |timestamps| timestamps.value);
        self.peer(ACK, b"");
        syn_ack
    }

    /// A handshake with MSS 1460 and nothing else.
    #[track_caller]
    pub fn connect(&mut self) -> Sent {
        self.connect_with(Options {
            mss: Some(1460),
            ..Options::default()
        })
    }

    /// The peer acknowledges everything up to the end of `sent`.
    pub fn acknowledge(&mut self, sent: &Sent) {
        self.ack = sent.seq + sent.payload.len() as u32 + u32::from(sent.flags.contains(FIN));
        self.peer(ACK, b"");
    }

    /// Lets time pass and fires what is due on the way, one deadline after the other.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.engine.next_deadline().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.engine.turn(self.now, &mut self.wire);
        }
        self.now = end;
        self.engine.turn(self.now, &mut self.wire);
    }

    /// Checks that the engine holds nothing any more.
    #[track_caller]
    pub fn assert_empty(&mut self) {
        let population = self.engine.population();
        assert_eq!(population, Default::default());
        assert_eq!(self.engine.next_deadline(), None);
        assert_eq!(self.engine.reassembly_bytes(), 0);
        let app = self.app();
        assert_eq!(app.opened, app.closed.len());
    }
}
