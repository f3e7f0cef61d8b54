//! Many peers that send to an application that reads when it is told to. Nothing of what it reads is kept, so that what
//! memory there is in the end is the engine's.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::time::Duration;

use tidegate_abi::siphash::Key;
use tidegate_tcp::Config;
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{Engine, OnNoFlow, Secrets};
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::wire::emit::{self, Header};
use tidegate_tcp::wire::{Flags, FlowKey, LinkHeader, Options, Segment};

const SERVER: &str = "198.18.0.1:80";
const MTU: u64 = 1500;
/// Text of a full segment.
pub const FULL: usize = 1460;

/// The memory a connection may hold whatever the total is.
pub const OWN: u64 = MTU + 256;

fn octet(at: usize) -> u8 {
    (at * 31 % 251) as u8
}

/// Reads all, or all but the last few bytes, or nothing; every stream is the same.
#[derive(Default)]
pub struct Reader {
    pub reads: bool,
    /// The first connections, of which nothing is read.
    pub ignored: usize,
    /// Bytes it leaves unread.
    pub leaves: usize,
    /// Bytes there have to be before it reads.
    pub at_least: usize,
    pub ends: usize,
    /// Bytes read, by the order in which connections were opened.
    pub read: Vec<usize>,
}

impl Application for Reader {
    type Connection = usize;

    fn open<S: Stream>(&mut self, stream: &mut S) -> usize {
        stream.set_timer(Some(Duration::from_millis(100)));
        self.read.push(0);
        self.read.len() - 1
    }

    fn receive<S: Stream>(&mut self, index: &mut usize, _: &mut S, data: &[u8]) -> usize {
        let position = self.read[*index];
        for (at, &found) in data.iter().enumerate() {
            assert_eq!(
                found,
                octet(position + at),
                "octet {} of connection {index}",
                position + at
            );
        }
        if !self.reads || *index < self.ignored || data.len() < self.at_least {
            return 0;
        }
        let count = data.len().saturating_sub(self.leaves);
        self.read[*index] += count;
        count
    }

    fn end_of_stream<S: Stream>(&mut self, _: &mut usize, _: &mut S) {
        self.ends += 1;
    }

    fn writable<S: Stream>(&mut self, _: &mut usize, _: &mut S) {}

    // Afterwards it is offered what it has not read.
    fn timeout<S: Stream>(&mut self, _: &mut usize, stream: &mut S) {
        stream.set_timer(Some(Duration::from_millis(100)));
    }

    fn drain<S: Stream>(&mut self, _: &mut usize, _: &mut S) {}

    fn closed(&mut self, _: usize, _: CloseReason) {}
}

#[derive(Default)]
struct Wire {
    buffer: Vec<u8>,
    frames: Vec<Vec<u8>>,
}

impl Transmit for Wire {
    fn reserve(&mut self, _: Purpose) -> Option<&mut [u8]> {
        self.buffer.resize(2000, 0);
        Some(&mut self.buffer)
    }

    fn commit(&mut self, length: usize) {
        self.frames.push(self.buffer[..length].to_vec());
    }
}

/// A peer, with what the engine has told it.
struct Peer {
    key: FlowKey,
    /// The beginning of its stream.
    start: SeqNumber,
    ack: SeqNumber,
    /// Positions: what is acknowledged, and where the window ends.
    acknowledged: usize,
    edge: usize,
    shift: u8,
}

/// An engine whose application reads, and its peers.
pub struct Readers {
    pub engine: Engine<Reader>,
    pub config: Config,
    pub now: Instant,
    peers: Vec<Peer>,
    wire: Wire,
}

impl Readers {
    /// With as many open connections.
    pub fn new(config: Config, count: usize) -> Self {
        let secrets = Secrets {
            isn: Key(1, 2),
            table: Key(3, 4),
        };
        let mut engine = Engine::new(config.clone(), secrets, Reader::default());
        engine.listen(SERVER.parse().unwrap());
        let mut readers = Self {
            engine,
            config,
            now: Instant::from_millis(1_000_000),
            peers: Vec::new(),
            wire: Wire::default(),
        };
        for number in 0..count {
            let key = FlowKey::new(([198, 18, 0, 2], 1000 + number as u16).into(), SERVER.parse().unwrap());
            let iss = SeqNumber(u32::MAX - 500);
            readers.peers.push(Peer {
                key,
                start: iss + 1,
                ack: SeqNumber(0),
                acknowledged: 0,
                edge: 0,
                shift: 0,
            });
            let options = Options {
                mss: Some(FULL as u16),
                window_scale: Some(7),
                sack_permitted: true,
                ..Options::default()
            };
            readers.inject(number, iss, Flags::SYN, options, &[]);
            readers.inject(number, iss + 1, Flags::ACK, Options::default(), &[]);
        }
        assert_eq!(readers.engine.population().connections as usize, count);
        readers
    }

    pub fn len(&self) -> usize {
        self.peers.len()
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.engine.counters().get(counter)
    }

    pub fn app(&mut self) -> &mut Reader {
        self.engine.application_mut()
    }

    /// Position up to which the engine has acknowledged the stream of peer `index`.
    pub fn acknowledged(&self, index: usize) -> usize {
        self.peers[index].acknowledged
    }

    /// Bytes that peer `index` may send.
    pub fn window(&self, index: usize) -> usize {
        self.peers[index].edge - self.peers[index].acknowledged
    }

    /// The memory the engine may hold at any time.
    pub fn bound(&self) -> u64 {
        self.config.receive_bytes_total + self.peers.len() as u64 * OWN
    }

    #[track_caller]
    pub fn check(&self) {
        let (received, reassembly) = (self.engine.received_bytes(), self.engine.reassembly_bytes());
        assert!(received <= self.bound(), "{received} bytes of {}", self.bound());
        assert!(
            reassembly <= self.config.reassembly_bytes_total,
            "{reassembly} bytes out of order"
        );
    }

    /// Peer `index` sends what stands at `position` of its stream.
    #[track_caller]
    pub fn send(&mut self, index: usize, position: usize, length: usize, flags: Flags) {
        let text: Vec<u8> = (position..position + length).map(octet).collect();
        let seq = self.peers[index].start + position as u32;
        self.inject(index, seq, Flags::ACK | flags, Options::default(), &text);
        self.check();
    }

    /// Lets time pass: the application is offered what it has not read.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.engine.next_deadline().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.engine.poll(self.now, &mut self.wire);
            self.take_frames();
        }
        self.now = end;
    }

    /// Peer `index` sends from what is acknowledged on to `end` or the end of its window.
    #[track_caller]
    pub fn fill(&mut self, index: usize, end: usize) {
        let (mut position, edge) = (self.acknowledged(index), self.peers[index].edge);
        let mut end = end.min(edge);
        if end == edge && end > position + 2 * FULL {
            // Pairs of full segments are acknowledged at once.
            end -= (end - position) % (2 * FULL);
        }
        while position < end {
            let length = FULL.min(end - position);
            self.send(index, position, length, Flags::ACK);
            position += length;
        }
    }

    /// The application reads, and every peer sends on and again until `length` bytes of each stream, and FIN, are
    /// there.
    #[track_caller]
    pub fn finish(&mut self, length: usize) {
        *self.app() = Reader {
            reads: true,
            ignored: 0,
            leaves: 0,
            at_least: 0,
            ..std::mem::take(self.app())
        };
        let mut rounds = 0;
        while self.app().read.iter().any(|&read| read < length) {
            self.pass(Duration::from_millis(200));
            for index in 0..self.len() {
                self.fill(index, length);
            }
            rounds += 1;
            assert!(rounds < 10_000, "{:?} of {length} bytes arrive", self.app().read);
        }
        for index in 0..self.len() {
            self.send(index, length, 0, Flags::FIN);
        }
        let ends = self.app().ends;
        assert_eq!(ends, self.len());
        assert_eq!(self.engine.received_bytes(), 0);
    }

    fn inject(&mut self, index: usize, seq: SeqNumber, flags: Flags, options: Options, text: &[u8]) {
        let peer = &self.peers[index];
        let link = LinkHeader::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], true);
        let header = Header {
            seq,
            ack: peer.ack,
            flags,
            window: 65_535,
            options,
            ecn_capable: false,
        };
        let mut frame = vec![0; 200 + text.len()];
        let length = emit::frame(&mut frame, &link, &peer.key, &header, text.len(), |target| {
            target.copy_from_slice(text);
        });
        self.engine
            .receive(self.now, &frame[..length], OnNoFlow::Reject, &mut self.wire);
        self.take_frames();
    }

    /// The peers take in what the engine has sent. The right edge of a window never moves back, rounding aside.
    fn take_frames(&mut self) {
        for frame in self.wire.frames.drain(..) {
            let segment = Segment::parse(&frame, true).expect("a good segment");
            let index = usize::from(segment.key.local_port.max(segment.key.remote_port) - 1000);
            let peer = &mut self.peers[index];
            let mut shift = peer.shift;
            if segment.flags.contains(Flags::SYN) {
                peer.shift = segment.options.window_scale.unwrap_or(0);
                peer.ack = segment.seq + 1;
                shift = 0;
            }
            peer.acknowledged = (segment.ack - peer.start) as usize;
            let edge = peer.acknowledged + (usize::from(segment.window) << shift);
            // A scaled window is rounded (RFC 7323, section 2.4).
            assert!(edge + (1 << shift) > peer.edge, "from {} to {edge}", peer.edge);
            peer.edge = peer.edge.max(edge);
        }
        self.wire.frames.shrink_to(16);
    }
}

/// Windows of four connections in five grow far beyond what there is memory for, and are filled while nobody reads.
/// `look` is called after every segment. Returns how long the streams are by now.
#[track_caller]
pub fn fill_grown_windows(readers: &mut Readers, look: &mut impl FnMut(&Readers)) -> usize {
    readers.app().reads = true;
    let mut length = 0;
    while (0..readers.len()).any(|index| readers.window(index) < readers.config.receive_buffer as usize / 2) {
        length += 40 * FULL;
        for index in 0..readers.len() {
            while readers.acknowledged(index) < length {
                readers.fill(index, length);
            }
        }
        assert!(length < 100 << 20, "windows do not grow");
    }
    readers.app().reads = false;
    let grown: usize = (0..readers.len()).map(|index| readers.window(index)).sum();
    assert!(grown as u64 > 16 * readers.config.receive_bytes_total);
    for part in 0..40 {
        for index in 0..readers.len() {
            let from = length + part * 8 * FULL;
            for position in (from..from + 8 * FULL).step_by(FULL) {
                readers.send(index, position, FULL, Flags::ACK);
                look(readers);
            }
        }
    }
    length + 40 * 8 * FULL
}

/// Every second octet of windows, and then, in pieces of another size, the rest: nobody reads. Returns how long the
/// streams are by now.
#[track_caller]
pub fn hold_single_octets(readers: &mut Readers, look: &mut impl FnMut(&Readers)) -> usize {
    let length = 2000;
    for position in (1..length).step_by(2) {
        for index in 0..readers.len() {
            readers.send(index, position, 1, Flags::ACK);
            look(readers);
        }
    }
    for position in (0..length).step_by(7) {
        for index in 0..readers.len() {
            readers.send(index, position, 7.min(length - position), Flags::ACK);
            look(readers);
        }
    }
    length
}

/// Segments of any kind at any place of the windows, FIN included, while the application reads at times. Returns how
/// long the streams are by now.
#[track_caller]
pub fn send_anything(readers: &mut Readers, seed: u64, look: &mut impl FnMut(&Readers)) -> usize {
    let mut state = seed;
    let mut random = |limit: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let length = 200_000;
    for _ in 0..4000 {
        let index = random(readers.len());
        let acknowledged = readers.acknowledged(index);
        let (position, most) = match random(4) {
            0 => (acknowledged, FULL),
            1 => (acknowledged + random(60_000), FULL),
            2 => (acknowledged + random(2000), 3),
            _ => (acknowledged.saturating_sub(random(3000)), FULL),
        };
        let position = position.min(length);
        let count = (1 + random(most)).min(length - position);
        let flags = if position + count == length {
            Flags::FIN
        } else {
            Flags::ACK
        };
        readers.send(index, position, count, flags);
        look(readers);
        if random(50) == 0 {
            let app = readers.app();
            (app.reads, app.leaves, app.at_least) = (random(2) == 0, random(500), random(2000));
            readers.pass(Duration::from_millis(random(300) as u64));
        }
    }
    length
}
