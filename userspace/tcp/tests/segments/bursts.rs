//! Frames that arrive together: what comes of them is what would come of them one by one, however they are cut into
//! bursts.

use crate::common::*;
use proptest::prelude::*;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::counters::{Counter, Counters};
use tidegate_tcp::engine::{LOOKUP_GROUP, OnNoFlow, Population, Received};
use tidegate_tcp::seq::SeqNumber;
use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::{Flags, FlowKey, Options};

/// Server, the client's address, and one that cannot be answered.
#[derive(Clone, Copy)]
struct Family {
    server: &'static str,
    client: &'static str,
    unanswerable: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        server: SERVER,
        client: "198.18.0.2",
        unanswerable: "127.0.0.1",
    },
    Family {
        server: "[2001:2::1]:80",
        client: "[2001:2::2]",
        unanswerable: "[::1]",
    },
];

const ISN: SeqNumber = SeqNumber(0xffff_fff0);

/// Sends back what it reads and closes when the peer has finished.
fn echo() -> App {
    App {
        echo: true,
        close_at_end: true,
        ..App::default()
    }
}

/// Sends ten octets and closes.
fn greeter() -> App {
    App {
        close_after_greeting: true,
        ..sender(10)
    }
}

/// Clients of one engine, and the frames they sent.
struct Clients {
    family: Family,
    rig: Rig,
    frames: Vec<Vec<u8>>,
}

impl Clients {
    fn new(family: Family, app: App) -> Self {
        let client = format!("{}:40000", family.client);
        Self {
            family,
            rig: Rig::between(config(), app, family.server, &client),
            frames: Vec::new(),
        }
    }

    fn give(&mut self, frame: Vec<u8>) {
        self.rig.inject(&frame);
        self.frames.push(frame);
    }

    fn frame(&mut self, port: u16, seq: SeqNumber, ack: SeqNumber, flags: Flags, text: &[u8]) -> Vec<u8> {
        self.rig.key.local_port = port;
        self.rig.frame(seq, ack, flags, Options::default(), text)
    }

    fn segment(&mut self, port: u16, seq: SeqNumber, ack: SeqNumber, flags: Flags, text: &[u8]) {
        let frame = self.frame(port, seq, ack, flags, text);
        self.give(frame);
    }

    /// The last segment of the engine.
    fn last(&self) -> Sent {
        parse(self.rig.wire.frames.last().expect("the engine has sent something"))
    }

    /// Sends a SYN; returns what acknowledges the SYN-ACK.
    fn syn(&mut self, port: u16) -> SeqNumber {
        self.segment(port, ISN, SeqNumber(0), SYN, b"");
        self.last().seq + 1
    }

    /// Opens a connection; returns what acknowledges all the engine has sent.
    fn open(&mut self, port: u16) -> SeqNumber {
        let ack = self.syn(port);
        self.segment(port, ISN + 1, ack, ACK, b"");
        self.last().end()
    }
}

/// Everything that can happen to flows of an [`echo`], and frames that are of none.
fn echo_frames(family: Family) -> Vec<Vec<u8>> {
    let mut clients = Clients::new(family, echo());
    let ack = clients.open(40_000);
    clients.segment(40_000, ISN + 1, ack, ACK | PSH, b"hello");
    let ack = clients.last().end();
    // A gap, what fills it, and some of it again.
    clients.segment(40_000, ISN + 9, ack, ACK, b"three");
    clients.segment(40_000, ISN + 6, ack, ACK, b"two");
    let ack = clients.last().end();
    clients.segment(40_000, ISN + 6, ack, ACK, b"two");

    // Flows nobody knows.
    clients.segment(50_000, ISN, ISN, ACK, b"");
    clients.segment(50_001, ISN, ISN, ACK | FIN, b"text");
    clients.segment(50_002, ISN, ISN, RST, b"");

    // No segments, and damaged ones.
    let good = clients.frame(40_000, ISN + 14, ack, ACK, b"damaged");
    clients.give(Vec::new());
    clients.give(vec![0xff; 60]);
    clients.give(good[..40].to_vec());
    clients.give([&[2; 12][..], &[0x08, 0x06], &[0; 46]].concat());
    let mut damaged = good.clone();
    damaged[good.len() - 1] ^= 1;
    clients.give(damaged);
    clients.give([&good[..12], &[0x81, 0, 0, 7], &good[12..]].concat());
    clients.segment(40_000, ISN, ack, SYN | FIN, b"");

    // A reset in the middle, a segment that comes too late, and the next connection of the same ports.
    clients.segment(40_000, ISN + 21, ack, RST, b"");
    clients.segment(40_000, ISN + 21, ack, ACK, b"late");
    let ack = clients.open(40_000);
    clients.segment(40_000, ISN + 1, ack, ACK | PSH, b"again");
    let ack = clients.last().end();
    clients.segment(40_000, ISN + 6, ack, ACK | FIN, b"");
    let ack = clients.last().end();
    clients.segment(40_000, ISN + 7, ack, ACK, b"");
    clients.segment(40_000, ISN + 7, ack, ACK, b"");

    // Handshakes that end, or that give way to newer ones, whose places are taken at once.
    clients.syn(41_000);
    clients.segment(41_000, ISN + 1, SeqNumber(0), RST, b"");
    clients.open(41_000);
    let acks: Vec<SeqNumber> = (0..12).map(|number| clients.syn(42_000 + number)).collect();
    for (port, ack) in (42_000..).zip(acks) {
        clients.segment(port, ISN + 1, ack, ACK | PSH, b"x");
    }

    // No listener; nobody to answer.
    let listening = clients.rig.key.remote_port;
    clients.rig.key.remote_port = 81;
    clients.segment(40_000, ISN, SeqNumber(0), SYN, b"");
    clients.rig.key.remote_port = listening;
    clients.segment(0, ISN, SeqNumber(0), SYN, b"");
    let unanswerable = format!("{}:40000", clients.family.unanswerable);
    clients.rig.key = FlowKey::new(unanswerable.parse().unwrap(), clients.family.server.parse().unwrap());
    clients.segment(40_000, ISN, SeqNumber(0), SYN, b"");
    clients.frames
}

/// Connections that a [`greeter`] closes, so that they go to TIME-WAIT: more than it may hold, and again from there.
fn greeter_frames(family: Family) -> Vec<Vec<u8>> {
    let mut clients = Clients::new(family, greeter());
    for port in 43_000..43_010 {
        let ack = clients.open(port);
        clients.segment(port, ISN + 1, ack, ACK | FIN, b"");
        clients.segment(port, ISN + 1, ack, ACK | FIN, b"");
    }
    // The first has been forgotten, the last has not.
    for port in [43_000, 43_009] {
        clients.segment(port, ISN + 2, ISN, ACK, b"");
        clients.segment(port, ISN + 1, ISN, ACK | RST, b"");
        clients.segment(port, ISN + 100, SeqNumber(0), SYN, b"");
        let ack = clients.last().seq + 1;
        clients.segment(port, ISN + 101, ack, ACK, b"");
        let ack = clients.last().end();
        clients.segment(port, ISN + 101, ack, ACK | FIN, b"");
    }
    clients.frames
}

/// All that can be seen of an engine.
#[derive(Debug, PartialEq)]
struct Outcome {
    results: Vec<Received>,
    sent: Vec<Vec<u8>>,
    counters: Counters,
    received: Vec<u8>,
    closed: Vec<CloseReason>,
    population: Population,
    next_deadline: Option<Instant>,
}

/// The outcome of `frames` in bursts of this many, or one by one.
fn outcome(family: Family, app: App, frames: &[&[u8]], on_no_flow: OnNoFlow, burst: Option<usize>) -> Outcome {
    let mut rig = Rig::between(config(), app, family.server, &format!("{}:40000", family.client));
    let mut results = Vec::new();
    match burst {
        None => {
            for frame in frames {
                results.push(rig.engine.receive(rig.now, frame, on_no_flow, &mut rig.wire));
            }
        }
        Some(size) => {
            for burst in frames.chunks(size) {
                let first = results.len();
                let done = |index: usize, received: Received| {
                    assert_eq!(first + index, results.len());
                    results.push(received);
                };
                let burst = burst.iter().copied();
                rig.engine
                    .receive_burst(rig.now, burst, on_no_flow, &mut rig.wire, done);
            }
        }
    }
    rig.engine.poll(rig.now, &mut rig.wire);
    Outcome {
        results,
        sent: std::mem::take(&mut rig.wire.frames),
        counters: rig.engine.counters().clone(),
        received: std::mem::take(&mut rig.app().received),
        closed: std::mem::take(&mut rig.app().closed),
        population: rig.engine.population(),
        next_deadline: rig.engine.next_deadline(),
    }
}

fn assert_any_burst_will_do(app: fn() -> App, frames: fn(Family) -> Vec<Vec<u8>>, exercised: &[Counter]) {
    for family in FAMILIES {
        let frames = frames(family);
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        assert!(frames.len() > LOOKUP_GROUP);
        for on_no_flow in [OnNoFlow::Reject, OnNoFlow::Report] {
            let one_by_one = outcome(family, app(), &frames, on_no_flow, None);
            assert_eq!(one_by_one.results.len(), frames.len());
            if on_no_flow == OnNoFlow::Reject {
                for &counter in exercised {
                    assert_ne!(one_by_one.counters.get(counter), 0, "{counter:?}");
                }
            } else {
                assert!(one_by_one.results.contains(&NO_FLOW));
            }
            for size in 1..=frames.len() {
                let in_bursts = outcome(family, app(), &frames, on_no_flow, Some(size));
                assert_eq!(in_bursts, one_by_one, "bursts of {size}");
            }
        }
    }
}

#[test]
fn handshakes_text_resets_and_noise_in_one_burst() {
    assert_any_burst_will_do(
        echo,
        echo_frames,
        &[
            Counter::PassiveOpens,
            Counter::ResetByPeer,
            Counter::Finished,
            Counter::OutOfOrder,
            Counter::Duplicates,
            Counter::RstsOut,
            Counter::HalfOpenReset,
            Counter::HalfOpenEvicted,
            Counter::DropMalformed,
            Counter::DropChecksum,
            Counter::DropBadFlags,
            Counter::DropBadSource,
            Counter::DropNotListening,
            Counter::DropNoConnection,
        ],
    );
}

#[test]
fn connections_that_end_and_begin_anew_in_one_burst() {
    assert_any_burst_will_do(
        greeter,
        greeter_frames,
        &[
            Counter::Finished,
            Counter::TimeWaitEvicted,
            Counter::TimeWaitReused,
            Counter::DropTimeWaitRst,
        ],
    );
}

#[test]
fn a_burst_of_nothing_is_nothing() {
    let mut rig = Rig::new(config(), App::default());
    rig.engine
        .receive_burst(rig.now, [&[]; 0], OnNoFlow::Reject, &mut rig.wire, |_, _| {
            panic!("there was no frame");
        });
    assert_eq!(rig.engine.counters(), &Counters::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// In any order, and any number of times.
    #[test]
    fn any_frames_in_any_bursts(
        family in 0..FAMILIES.len(),
        greeting: bool,
        report: bool,
        size in 1..70_usize,
        choices in proptest::collection::vec(any::<prop::sample::Index>(), 1..200),
    ) {
        let family = FAMILIES[family];
        let (app, frames): (fn() -> App, _) = if greeting {
            (greeter, greeter_frames(family))
        } else {
            (echo, echo_frames(family))
        };
        let frames: Vec<&[u8]> = choices.iter().map(|choice| choice.get(&frames).as_slice()).collect();
        let on_no_flow = if report { OnNoFlow::Report } else { OnNoFlow::Reject };
        let one_by_one = outcome(family, app(), &frames, on_no_flow, None);
        let in_bursts = outcome(family, app(), &frames, on_no_flow, Some(size));
        prop_assert_eq!(in_bursts, one_by_one);
    }
}
