//! A hand-turned clock, a peer made of segments, and applications that write down what happens to them.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod cookie;
pub mod hostile;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tidegate_abi::siphash::Key;
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{ConnectionId, ConnectionInfo, Engine, OnNoFlow, Received, Secrets};
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::wire::emit::{self, Header};
use tidegate_tcp::wire::options::Timestamps;
use tidegate_tcp::wire::{Flags, FlowKey, Frame, LinkHeader, Options, Segment, checksum};
use tidegate_tcp::{Config, State};

/// Any other shard may know the flow.
pub const NO_FLOW: Received = Received::NoFlow {
    others: u64::MAX,
    then: 0,
};

pub const SERVER: &str = "198.18.0.1:80";
pub const CLIENT: &str = "198.18.0.2:40000";
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub const SYN: Flags = Flags::SYN;
pub const ACK: Flags = Flags::ACK;
pub const FIN: Flags = Flags::FIN;
pub const RST: Flags = Flags::RST;
pub const PSH: Flags = Flags::PSH;
pub const URG: Flags = Flags::URG;
pub const ECE: Flags = Flags::ECE;
pub const CWR: Flags = Flags::CWR;

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The text that an application sends in tests that compare it with what arrived: every byte depends on its position.
pub fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 % 251) as u8).collect::<Vec<u8>>().into()
}

/// An application that sends `length` bytes of [`pattern`] when the connection opens.
pub fn sender(length: usize) -> App {
    App {
        greeting: pattern(length),
        ..App::default()
    }
}

/// The options of a present-day client's SYN, without timestamps.
pub fn with_sack() -> Options {
    Options {
        mss: Some(1460),
        sack_permitted: true,
        ..Options::default()
    }
}

/// MSS 1460 and timestamps that start at `value`.
pub fn with_timestamps(value: u32) -> Options {
    Options {
        mss: Some(1460),
        timestamps: Some(Timestamps { value, echo: 0 }),
        ..Options::default()
    }
}

/// Puts the right checksums into an untagged frame of `key` that was changed after it had been made.
pub fn seal(frame: &mut [u8], key: &FlowKey) {
    let packet = &mut frame[14..];
    let header_length = if key.is_v4() { 20 } else { 40 };
    if key.is_v4() {
        packet[10..12].fill(0);
        let sum = checksum::ipv4_header(&packet[..header_length]);
        packet[10..12].copy_from_slice(&sum);
    }
    let segment = &mut packet[header_length..];
    segment[16..18].fill(0);
    let sum = checksum::tcp(&key.local, &key.remote, segment);
    segment[16..18].copy_from_slice(&sum.to_ne_bytes());
}

/// Collects frames; refuses them when told to.
#[derive(Default)]
pub struct Wire {
    pub frames: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    pub exhausted: bool,
    /// Refuses frames for this purpose.
    pub refused: Option<Purpose>,
    /// The device the last frame left by.
    pub device: u8,
    /// The device that has no frames.
    pub down: Option<u8>,
}

impl Transmit for Wire {
    fn leave_by(&mut self, device: u8) {
        self.device = device;
    }

    fn reserve(&mut self, purpose: Purpose) -> Option<&mut [u8]> {
        if self.exhausted || self.refused == Some(purpose) || self.down == Some(self.device) {
            return None;
        }
        self.buffer.resize(9100, 0xaa);
        Some(&mut self.buffer)
    }

    fn commit(&mut self, length: usize) {
        self.frames.push(self.buffer[..length].to_vec());
    }
}

/// A record of what an application was told, and its behaviour.
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
    /// The bytes of the greeting written at a time; 0: as much as there is room for.
    pub piece: usize,
    /// Closes when the peer has finished.
    pub close_at_end: bool,
    /// Closes as soon as the greeting is queued.
    pub close_after_greeting: bool,
    /// Closes when there is room to send and nothing left of the greeting.
    pub close_when_writable: bool,
    /// Shuts down sending as soon as the greeting is queued.
    pub shutdown_after_greeting: bool,
    /// Resets when it reads this byte.
    pub abort_on: Option<u8>,
    /// Takes whatever it reads for a complete request.
    pub serves: bool,
    /// Sets its timer at open.
    pub timer: Option<Duration>,
    /// Sets it anew whenever it ran out.
    pub timer_again: bool,
    /// Everything it was told, in order, with the time and a length.
    pub log: Vec<(&'static str, Instant, usize)>,
}

impl App {
    fn greet<S: Stream + ?Sized>(&mut self, rest: &mut Bytes, stream: &mut S) {
        if self.piece == 0 {
            stream.send(rest);
        } else {
            while !rest.is_empty() {
                let mut piece = rest.slice(..self.piece.min(rest.len()));
                let sent = stream.send(&mut piece);
                rest.advance(sent);
                if !piece.is_empty() {
                    break;
                }
            }
        }
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

impl App {
    /// One that sends back what it reads.
    pub fn echo() -> Self {
        Self {
            echo: true,
            ..Self::default()
        }
    }
}

impl Application for App {
    type Connection = Bytes;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Bytes {
        self.opened += 1;
        self.log.push(("open", stream.now(), 0));
        let mut rest = self.greeting.clone();
        self.greet(&mut rest, stream);
        if self.timer.is_some() {
            stream.set_timer(self.timer);
        }
        rest
    }

    fn receive<S: Stream>(&mut self, _: &mut Bytes, stream: &mut S, data: &[u8]) -> usize {
        self.log.push(("receive", stream.now(), data.len()));
        let mut count = data.len();
        if let Some(appetite) = &mut self.appetite {
            count = count.min(*appetite);
            *appetite -= count;
        }
        if self.echo {
            count = stream.send_copy(&data[..count]);
        }
        self.received.extend_from_slice(&data[..count]);
        if self.serves {
            stream.mark_served();
        }
        if self.abort_on.is_some_and(|byte| data.contains(&byte)) {
            stream.abort();
        }
        count
    }

    fn end_of_stream<S: Stream>(&mut self, _: &mut Bytes, stream: &mut S) {
        self.ends += 1;
        self.log.push(("end", stream.now(), 0));
        if self.close_at_end {
            stream.close();
        }
    }

    fn writable<S: Stream>(&mut self, rest: &mut Bytes, stream: &mut S) {
        self.writable += 1;
        self.log.push(("writable", stream.now(), 0));
        if !rest.is_empty() {
            self.greet(rest, stream);
        } else if self.close_when_writable {
            stream.close();
        }
    }

    fn timeout<S: Stream>(&mut self, _: &mut Bytes, stream: &mut S) {
        self.log.push(("timeout", stream.now(), 0));
        self.timeouts += 1;
        if self.timer_again {
            stream.set_timer(self.timer);
        }
    }

    fn drain<S: Stream>(&mut self, _: &mut Bytes, stream: &mut S) {
        stream.close();
    }

    fn closed(&mut self, _: Bytes, reason: CloseReason) {
        self.closed.push(reason);
    }
}

/// A segment the engine sent.
#[derive(Clone, Debug, PartialEq)]
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

    /// The sequence number after the segment.
    pub fn end(&self) -> SeqNumber {
        self.seq + self.payload.len() as u32 + u32::from(self.flags.contains(SYN)) + u32::from(self.flags.contains(FIN))
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
    /// The connection, if the engine opened it.
    pub id: Option<ConnectionId>,
}

impl Rig {
    pub fn new(config: Config, app: App) -> Self {
        Self::between(config, app, SERVER, CLIENT)
    }

    pub fn with_secrets(config: Config, app: App, secrets: Secrets) -> Self {
        let mut rig = Self::new(config.clone(), App::default());
        rig.engine = Engine::new(config, secrets, app);
        rig.engine.listen(rig.key.peer());
        rig
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
            id: None,
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

    /// The connection's line of the listing.
    #[track_caller]
    pub fn info(&self) -> ConnectionInfo {
        let (local, peer) = (self.key.peer(), self.key.local());
        self.engine
            .connections()
            .find(|info| info.local == local && info.peer == peer)
            .expect("the connection is not listed")
    }

    /// The segments the engine sent since the last call.
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
            ecn_capable: false,
        };
        let mut frame = vec![0; 200 + payload.len()];
        let length = emit::frame(&mut frame, &link, &self.key, &header, payload.len(), |text| {
            text.copy_from_slice(payload);
        });
        frame.truncate(length);
        frame
    }

    pub fn inject(&mut self, frame: &[u8]) -> Received {
        self.inject_from(0, frame)
    }

    /// A frame arrives from a device.
    pub fn inject_from(&mut self, device: u8, frame: &[u8]) -> Received {
        let frame = Frame { bytes: frame, device };
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

    /// The engine opens the connection; returns its SYN.
    #[track_caller]
    pub fn active_open(&mut self) -> Sent {
        let link = LinkHeader::new(CLIENT_MAC, SERVER_MAC, self.key.is_v4());
        let (local, remote) = (self.key.peer(), self.key.local());
        let id = self.engine.connect(self.now, local, remote, &link, &mut self.wire);
        self.id = Some(id.expect("the connection cannot be opened"));
        let syn = self.one();
        self.ack = syn.seq + 1;
        syn
    }

    /// The engine opens the connection and the peer completes the handshake with these options.
    #[track_caller]
    pub fn connect_actively(&mut self, options: Options) {
        let syn = self.active_open();
        self.echo = syn.options.timestamps.map_or(0, |timestamps| timestamps.value);
        self.timestamp = options.timestamps.map(|timestamps| timestamps.value);
        let syn_ack = self.frame(self.seq, self.ack, SYN | ACK, options, b"");
        self.seq += 1;
        self.inject(&syn_ack);
        assert_eq!(self.state(), Some(State::Established));
    }

    /// Runs `action` on the stream of a connection the engine opened.
    #[track_caller]
    pub fn on_stream(&mut self, action: impl FnOnce(&mut dyn Stream)) {
        let id = self.id.expect("the engine did not open the connection");
        self.engine
            .with_connection(self.now, id, &mut self.wire, |_, _, stream| action(stream))
            .expect("the connection is not open");
    }

    /// Has the application send `text` on a connection the engine opened, what there is no room for when there is.
    #[track_caller]
    pub fn write(&mut self, text: Bytes) {
        let id = self.id.expect("the engine did not open the connection");
        self.engine
            .with_connection(self.now, id, &mut self.wire, |app, rest, stream| {
                *rest = text;
                app.greet(rest, stream);
            })
            .expect("the connection is not open");
    }

    /// The peer acknowledges up to `ack` and reports these SACK blocks.
    pub fn selective(&mut self, ack: SeqNumber, blocks: &[(SeqNumber, SeqNumber)]) {
        self.ack = ack;
        let mut options = self.options();
        options.set_sack_blocks(blocks.iter().copied());
        let frame = self.frame(self.seq, ack, ACK, options, b"");
        self.inject(&frame);
    }

    /// Takes what the engine sent into the peer's stream where it is next, without acknowledging it.
    pub fn take(&mut self, sent: &[Sent], text: &mut Vec<u8>) {
        for segment in sent {
            if segment.seq == self.ack {
                text.extend_from_slice(&segment.payload);
                self.ack = segment.end();
            }
        }
    }

    /// Reads and acknowledges what the engine sends until it sends no more; returns the text.
    pub fn read_all(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        loop {
            let sent = self.sent();
            if sent.iter().all(|segment| segment.end() == segment.seq) {
                return text;
            }
            self.take(&sent, &mut text);
            self.peer(ACK, b"");
            self.engine.poll(self.now, &mut self.wire);
        }
    }

    /// Like [`Rig::read_all`], for what was lost: lets time pass until the peer has `length` bytes of text.
    #[track_caller]
    pub fn read_in_time(&mut self, length: usize) -> Vec<u8> {
        let mut text = self.read_all();
        let limit = self.now + Duration::from_secs(100);
        while text.len() < length {
            assert!(self.now < limit, "only {} of {length} bytes came", text.len());
            self.pass(ms(100));
            text.append(&mut self.read_all());
        }
        text
    }

    /// Lets time pass until the engine sends something, at most `limit`; returns how long that took.
    pub fn wait(&mut self, limit: Duration) -> Option<Duration> {
        let start = self.now;
        let end = start + limit;
        while let Some(next) = self.engine.next_deadline().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.engine.poll(self.now, &mut self.wire);
            if !self.wire.frames.is_empty() {
                return Some(self.now.since(start));
            }
        }
        self.now = end;
        None
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
            self.engine.poll(self.now, &mut self.wire);
        }
        self.now = end;
        self.engine.poll(self.now, &mut self.wire);
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
