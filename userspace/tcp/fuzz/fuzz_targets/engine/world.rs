//! Engine, peers and clock together.

use std::time::Duration;

use tidegate_abi::siphash::Key;
use tidegate_tcp::State;
use tidegate_tcp::config::Config;
use tidegate_tcp::congestion::Algorithm;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::{Engine, OnNoFlow, Population, Secrets};
use tidegate_tcp::recovery::LossDetection;
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::wire::{Flags, Segment};

use crate::application::App;
use crate::input::{Behaviour, Input, MAX_STEPS, Place, Settings, Step, Supply};
use crate::peer::{LISTENERS, MAX_LINK_HEADER, MTU, PEERS, Peer};

/// Turns of the engine while time passes; more means that it never comes to rest.
const MAX_TURNS: usize = 100_000;

fn config(settings: Settings) -> Config {
    Config {
        max_connections: 3,
        max_half_open: 2,
        max_time_wait: 2,
        receive_buffer: settings.receive_buffer.bytes(),
        send_buffer: settings.send_buffer.bytes(),
        reassembly_bytes: 8 << 10,
        reassembly_ranges: 8,
        max_outstanding_segments: 64,
        reassembly_bytes_total: 12 << 10,
        nagle: settings.nagle,
        ecn: settings.ecn,
        loss_detection: if settings.rack {
            LossDetection::Rack
        } else {
            LossDetection::Sack
        },
        congestion: match settings.congestion & 3 {
            0 => Algorithm::RENO,
            1 => Algorithm::CUBIC,
            _ => Algorithm::BBR,
        },
        bbr_loss_threshold: if settings.congestion & 3 == 3 { 100 } else { 5 },
        user_timeout: Duration::from_secs(20),
        msl: Duration::from_secs(1),
        fin_wait_2: Duration::from_secs(5),
        keepalive_idle: Duration::from_secs(10),
        keepalive_interval: Duration::from_secs(1),
        keepalive_probes: 3,
        ..Config::default()
    }
}

/// Collects what the engine sends.
struct Wire {
    frames: Vec<Vec<u8>>,
    buffer: [u8; MAX_LINK_HEADER + MTU],
    supply: Supply,
    /// A SYN or SYN-ACK found no frame.
    handshake_refused: bool,
    committed: u64,
}

impl Transmit for Wire {
    fn reserve(&mut self, purpose: Purpose) -> Option<&mut [u8]> {
        let refused = match self.supply {
            Supply::All => false,
            Supply::NoneForHandshakes => purpose == Purpose::Handshake,
            Supply::NoneForText => purpose != Purpose::Control,
            Supply::None => true,
        };
        if refused {
            self.handshake_refused |= purpose == Purpose::Handshake;
            return None;
        }
        Some(&mut self.buffer)
    }

    fn commit(&mut self, length: usize) {
        self.committed += 1;
        self.frames.push(self.buffer[..length].to_vec());
    }
}

struct World {
    engine: Engine<App>,
    config: Config,
    wire: Wire,
    now: Instant,
    peers: Vec<Peer>,
    injected: u64,
}

/// Runs an input to its end, and then until nothing is left.
pub fn run(input: Input) {
    let mut world = World::new(input.settings, input.behaviour);
    for &step in input.steps.iter().take(MAX_STEPS) {
        world.step(step);
        world.check();
    }
    world.finish();
}

impl World {
    fn new(settings: Settings, behaviour: Behaviour) -> Self {
        let config = config(settings);
        let secrets = Secrets {
            isn: Key(1, 2),
            table: Key(3, 4),
        };
        let application = App {
            behaviour,
            ..App::default()
        };
        let mut engine = Engine::new(config.clone(), secrets, application);
        for listener in LISTENERS {
            engine.listen(listener.parse().expect("an address"));
        }
        Self {
            engine,
            config,
            wire: Wire {
                frames: Vec::new(),
                buffer: [0xaa; MAX_LINK_HEADER + MTU],
                supply: Supply::All,
                handshake_refused: false,
                committed: 0,
            },
            // A little before the 32 bits of a microsecond clock wrap.
            now: Instant::from_micros((1 << 32) - 3_000_000),
            peers: (0..PEERS).map(Peer::new).collect(),
            injected: 0,
        }
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Open { who, offer } => {
                let peer = &mut self.peers[who.index()];
                let seq = peer.new_start(Place::Next);
                let Some((start, syn)) = peer.syn(seq, false, offer, now) else {
                    return;
                };
                self.start(who.index(), start);
                if self.inject(who.index(), &syn) {
                    let third = self.peers[who.index()].text(0, false, now);
                    self.inject(who.index(), &third);
                }
            }
            Step::Syn { who, offer, seq } => {
                let peer = &mut self.peers[who.index()];
                let seq = peer.new_start(seq);
                if let Some((start, syn)) = peer.syn(seq, false, offer, now) {
                    self.start(who.index(), start);
                    self.inject(who.index(), &syn);
                }
            }
            Step::Connect { who } => {
                let peer = &self.peers[who.index()];
                let (local, remote) = (peer.engine(), peer.address());
                let Some(link) = peer.way_back() else { return };
                let made = self.engine.connect(now, local, remote, &link, &mut self.wire);
                if made.is_ok() {
                    self.take_frames(Some(who.index()));
                }
            }
            Step::Accept { who, offer } => {
                let peer = &mut self.peers[who.index()];
                if !peer.knows_engine() {
                    return;
                }
                let seq = peer.new_start(Place::Next);
                if let Some((start, syn_ack)) = peer.syn(seq, true, offer, now) {
                    self.start(who.index(), start);
                    self.inject(who.index(), &syn_ack);
                }
            }
            Step::Text { who, length, fin } => {
                let frame = self.peers[who.index()].text(length, fin, now);
                self.inject(who.index(), &frame);
            }
            Step::Acknowledge { who, window } => {
                let frame = self.peers[who.index()].acknowledgment(window, now);
                self.inject(who.index(), &frame);
            }
            Step::Segment { who, segment } => {
                let (start, frame) = self.peers[who.index()].forged(segment, now);
                if let Some(start) = start {
                    self.start(who.index(), start);
                }
                self.inject(who.index(), &frame);
            }
            Step::TooBig { who, mtu, seq } => {
                if let Some(frame) = self.peers[who.index()].too_big(mtu, seq) {
                    self.inject(who.index(), &frame);
                }
            }
            Step::Pass(span) => self.pass(span.duration()),
            Step::Jump(span) => {
                self.now = now + span.duration();
                self.turn();
            }
            Step::Frames(supply) => {
                self.wire.supply = supply;
                self.turn();
            }
            Step::Behave(behaviour) => self.engine.application_mut().behaviour = behaviour,
            Step::Drain => {
                self.engine.drain(now, &mut self.wire);
                self.take_frames(None);
            }
            Step::AbortAll => {
                self.engine.abort_all(now, &mut self.wire);
                self.take_frames(None);
                // Without frames it waits for some.
                assert!(
                    self.engine.is_sweeping() || self.engine.population().connections == 0,
                    "not all were aborted"
                );
            }
        }
    }

    /// The application may be given a stream of this peer that starts there.
    fn start(&mut self, index: usize, start: SeqNumber) {
        let address = self.peers[index].address();
        let starts = &mut self.engine.application_mut().starts;
        if !starts.contains(&(address, start)) {
            starts.push((address, start));
        }
    }

    /// Gives the engine a frame; returns whether a SYN-ACK came back.
    fn inject(&mut self, index: usize, frame: &[u8]) -> bool {
        self.injected += 1;
        let reset = Segment::parse(frame, false).is_ok_and(|segment| segment.flags.contains(Flags::RST));
        self.engine.receive(self.now, frame, OnNoFlow::Reject, &mut self.wire);
        let answers = self.take_frames(Some(index));
        assert!(
            !reset || !answers.iter().any(|flags| flags.contains(Flags::RST)),
            "a reset was answered with a reset"
        );
        answers.iter().any(|flags| flags.contains(Flags::SYN | Flags::ACK))
    }

    fn turn(&mut self) {
        self.engine.poll(self.now, &mut self.wire);
        self.take_frames(None);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns = 0;
        while let Some(next) = self.engine.next_deadline().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.turn();
            turns += 1;
            assert!(turns < MAX_TURNS, "the engine does not come to rest");
        }
        self.now = end;
        self.turn();
    }

    /// Gives the peers what the engine has sent; returns the flags of each segment. `cause`: the peer whose doing it
    /// is.
    fn take_frames(&mut self, cause: Option<usize>) -> Vec<Flags> {
        if std::mem::take(&mut self.wire.handshake_refused)
            && let Some(index) = cause
        {
            self.peers[index].blind = true;
        }
        let frames = std::mem::take(&mut self.wire.frames);
        let queued = &self.engine.application().queued;
        let mut all = Vec::new();
        for frame in &frames {
            let segment = Segment::parse(frame, true).expect("a segment that cannot be read");
            let peer = self.peers.iter_mut().find(|peer| peer.is_addressed_by(&segment));
            let peer = peer.expect("a segment for nobody");
            peer.receive(&segment, frame, queued);
            all.push(segment.flags);
        }
        all
    }

    /// Checks what holds at any time.
    fn check(&self) {
        let (engine, config) = (&self.engine, &self.config);
        let population = engine.population();
        assert!(population.connections <= config.max_connections);
        assert!(population.half_open <= config.max_half_open);
        assert!(population.time_wait <= config.max_time_wait);
        let held = engine.reassembly_bytes();
        assert!(held <= config.reassembly_bytes_total, "{held} bytes out of order");
        assert!(held <= u64::from(population.connections) * u64::from(config.reassembly_bytes));
        assert_eq!(engine.counters().get(Counter::FramesIn), self.injected);
        assert_eq!(engine.counters().get(Counter::FramesOut), self.wire.committed);

        let (mut listed, mut known) = (0, 0);
        for info in engine.connections() {
            assert!(info.unread <= config.receive_buffer as usize, "{info:?}");
            assert!(info.unacknowledged <= config.send_buffer as usize, "{info:?}");
            match info.state {
                State::Listen => continue,
                State::SynSent | State::SynReceived => {}
                // Still there only for an application that has not read everything.
                State::TimeWait | State::Closed if info.unread > 0 => known += 1,
                State::TimeWait => {}
                State::Closed => panic!("a closed connection is listed: {info:?}"),
                _ => known += 1,
            }
            listed += 1;
        }
        assert_eq!(
            listed,
            population.connections + population.half_open + population.time_wait
        );
        let application = engine.application();
        assert_eq!(application.opened - application.closed, known);
    }

    /// Everybody falls silent: everything the engine holds has to come back by itself.
    fn finish(&mut self) {
        self.wire.supply = Supply::All;
        self.engine.application_mut().behaviour = Behaviour::default();
        self.turn();
        self.pass(Duration::from_secs(24 * 3600));
        self.check();
        assert_eq!(self.engine.population(), Population::default());
        assert_eq!(self.engine.reassembly_bytes(), 0);
        assert_eq!(self.engine.next_deadline(), None);
        assert!(!self.engine.wants_frames());
    }
}
