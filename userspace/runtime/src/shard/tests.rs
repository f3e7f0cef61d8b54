//! Shards on ports of memory: the loop, hand-over, draining and the census, without a device, a kernel or a thread.

mod memory_port;
mod take_over;

use std::net::SocketAddr;
use std::rc::Rc;

use crossbeam::channel;
use tidegate_abi::siphash::Key;
use tidegate_tcp::State;
use tidegate_tcp::application::{CloseReason, Stream};
use tidegate_tcp::engine::{ConnectionId, SLICE, Secrets};
use tidegate_tcp::sources::SourceLimits;
use tidegate_tcp::transmit::{Purpose, Transmit};
use tidegate_tcp::wire::LinkHeader;
use tidegate_xsk::Unsent;

use super::*;
use crate::inspection::{ConnectionFilter, Shards};
use crate::mailbox::{ApplicationChange, waker};
use memory_port::{MemoryFrame, MemoryPort, Wire};

const SERVER: &str = "198.18.0.1:80";
const CLIENT: &str = "198.18.0.2:40000";

/// Frames of each port.
const FRAMES: u32 = 64;

/// Both ends of a connection: keeps what it receives, and closes after its peer or when the server drains.
#[derive(Default)]
struct End {
    /// Whether it also sends that back.
    echoes: bool,
    received: Vec<u8>,
    /// Reasons for which connections were closed.
    closed: Vec<CloseReason>,
    /// The octets received when it was last asked to publish.
    published: Vec<u8>,
}

impl Application for End {
    type Connection = ();

    fn open<S: Stream>(&mut self, _: &mut S) {}

    fn receive<S: Stream>(&mut self, (): &mut (), stream: &mut S, data: &[u8]) -> usize {
        let taken = if self.echoes {
            stream.send_copy(data)
        } else {
            data.len()
        };
        self.received.extend_from_slice(&data[..taken]);
        taken
    }

    fn end_of_stream<S: Stream>(&mut self, (): &mut (), stream: &mut S) {
        stream.close();
    }

    fn writable<S: Stream>(&mut self, (): &mut (), _: &mut S) {}

    fn timeout<S: Stream>(&mut self, (): &mut (), _: &mut S) {}

    fn drain<S: Stream>(&mut self, (): &mut (), stream: &mut S) {
        stream.close();
    }

    fn publish(&mut self) {
        self.published.clone_from(&self.received);
    }

    fn closed(&mut self, (): (), reason: CloseReason) {
        self.closed.push(reason);
    }
}

/// The frames a client has sent.
#[derive(Default)]
struct Sent {
    frames: Vec<Vec<u8>>,
    reserved: Vec<u8>,
}

impl Transmit for Sent {
    fn reserve(&mut self, _: Purpose) -> Option<&mut [u8]> {
        self.reserved.resize(2048, 0);
        Some(&mut self.reserved)
    }

    fn commit(&mut self, length: usize) {
        self.frames.push(self.reserved[..length].to_vec());
    }
}

fn secrets(seed: u64) -> Secrets {
    Secrets {
        isn: Key(seed, 1),
        table: Key(seed, 2),
    }
}

/// A server of several shards, and one client.
struct Rig {
    now: Instant,
    shards: Vec<Shard<End, (), MemoryPort>>,
    exchange: Arc<Exchange<MemoryFrame>>,
    /// By shard.
    wires: Vec<Rc<Wire>>,
    client: Engine<End>,
    sent: Sent,
    /// The queue that the client's frames arrive on.
    queue: usize,
}

impl Rig {
    fn new(shards: u16) -> Self {
        Self::with_relayed(shards, 0)
    }

    /// The same with room for `relayed` shards of another process.
    fn with_relayed(shards: u16, relayed: u16) -> Self {
        let tcp = tidegate_tcp::Config::default();
        let config = Config::default();
        let mut polls = Vec::new();
        let mut mailboxes = Vec::new();
        for _ in 0..shards {
            let poll = Poll::new().expect("an epoll");
            mailboxes.push(Mailbox::new(waker(&poll, BELL).expect("a waker")));
            polls.push(poll);
        }
        let shared = Shared {
            memory: Arc::new(()),
            exchange: Arc::new(Exchange::with_relayed(shards, relayed, 16, FRAMES as usize)),
            mailboxes: mailboxes.into(),
        };
        let exchange = Arc::clone(&shared.exchange);
        let wires: Vec<Rc<Wire>> = (0..shards).map(|_| Rc::default()).collect();
        let made = polls.into_iter().zip(&wires).zip(0..);
        let shards = made.map(|((poll, wire), index)| {
            let application = End {
                echoes: true,
                ..End::default()
            };
            let mut engine = Engine::new(tcp.clone(), secrets(u64::from(index)), application);
            engine.listen(SERVER.parse().expect("an address"));
            let parts = Parts {
                engine,
                task: (),
                port: MemoryPort::new(FRAMES, Rc::clone(wire)),
                poll,
                alarm: None,
            };
            Shard::new(index, parts, shared.clone(), &config)
        });
        Self {
            now: Instant::from_micros(1_000_000),
            shards: shards.collect(),
            exchange,
            wires: wires.clone(),
            client: Engine::new(tcp, secrets(99), End::default()),
            sent: Sent::default(),
            queue: 0,
        }
    }

    /// Sends a SYN from `port`.
    fn connect(&mut self, port: u16) -> ConnectionId {
        let mut local: SocketAddr = CLIENT.parse().expect("an address");
        local.set_port(port);
        let link = LinkHeader::new([2; 6], [4; 6], true);
        let remote = SERVER.parse().expect("an address");
        let id = self.client.connect(self.now, local, remote, &link, &mut self.sent);
        id.expect("a connection")
    }

    fn send(&mut self, id: ConnectionId, data: &[u8]) {
        let sent = self
            .client
            .with_connection(self.now, id, &mut self.sent, |_, _, stream| stream.send_copy(data));
        assert_eq!(sent, Some(data.len()));
    }

    /// Puts what the client has sent on the wire.
    fn carry_to_server(&mut self) {
        let mut to_shard = self.wires[self.queue].to_shard.borrow_mut();
        to_shard.extend(self.sent.frames.drain(..));
    }

    /// Lets everybody work until nobody has anything to do.
    fn settle(&mut self) {
        let mut idle_turns = 0;
        while idle_turns < 2 {
            let mut worked = !self.sent.frames.is_empty();
            self.carry_to_server();
            for (shard, wire) in self.shards.iter_mut().zip(&self.wires) {
                worked |= shard.turn(self.now);
                for frame in wire.from_shard.take() {
                    worked = true;
                    let _ = self.client.receive(self.now, &frame, OnNoFlow::Reject, &mut self.sent);
                }
            }
            idle_turns = if worked { 0 } else { idle_turns + 1 };
        }
    }

    /// A shard's report, whose census is whole.
    fn report(&self, shard: usize) -> ShardReport {
        let report = self.shards[shard].report();
        assert!(report.frames.is_whole(), "{:?}", report.frames);
        report
    }

    fn command(&mut self, shard: usize, command: Command) {
        let exit = self.shards[shard].handle_command(command, self.now);
        assert!(
            exit.is_none(),
            "it goes on after all others than `Stop`, `Release` and `Port`"
        );
    }

    /// Whether every frame of every shard is free or waits to be received into.
    fn all_frames_are_home(&self) -> bool {
        (0..self.shards.len()).all(|shard| {
            let frames = self.report(shard).frames;
            frames.pool + frames.fill == FRAMES && frames.foreign == 0
        })
    }
}

#[test]
fn a_connection_is_accepted_and_served() {
    let mut rig = Rig::new(1);
    let id = rig.connect(40_000);
    rig.settle();
    assert_eq!(rig.report(0).population.connections, 1);
    rig.send(id, b"hello");
    rig.settle();
    assert_eq!(rig.client.application().received, b"hello");
    assert!(rig.all_frames_are_home());
    let counters = rig.report(0).port;
    // SYN, ACK and text; the acknowledgment of the answer is delayed.
    assert_eq!(counters.rx_frames, 3);
    assert_eq!(counters.tx_frames, 2, "SYN-ACK, and text with ACK");
    assert!(counters.rx_bytes > 3 * 54 && counters.tx_bytes > 2 * 54);
    assert_eq!(counters.handover_out + counters.handover_in, 0);
}

#[test]
fn the_application_publishes_for_a_report() {
    let mut rig = Rig::new(1);
    let id = rig.connect(40_000);
    rig.settle();
    rig.send(id, b"hello");
    rig.settle();
    assert!(rig.shards[0].engine.application().published.is_empty());
    let (reply, answer) = crossbeam::channel::bounded(1);
    rig.command(0, Command::Report(reply));
    assert_eq!(rig.shards[0].engine.application().published, b"hello");
    let report = answer.try_recv().expect("a report");
    assert_eq!(report.latencies.accept.count(), 1);
}

#[test]
fn a_flow_that_moved_is_served_by_its_shard_and_its_frames_go_home() {
    let mut rig = Rig::new(3);
    let id = rig.connect(40_000);
    rig.settle();
    rig.queue = 2;
    rig.wires[2].device.set(3);
    rig.send(id, b"from elsewhere");
    rig.carry_to_server();
    // The receiving shard asks the next one, which is the owner; the frame is the visitor's until it is home.
    rig.shards[2].turn(rig.now);
    assert_eq!(rig.report(2).frames.handed_over, 1);
    assert_eq!(rig.report(0).frames.foreign, 1);
    rig.settle();
    assert_eq!(rig.client.application().received, b"from elsewhere");
    assert_eq!(rig.wires[0].left_by.get(), 3, "by the device it arrived from");
    assert!(rig.all_frames_are_home());
    let [owner, bystander, visited] = [0, 1, 2].map(|shard| rig.report(shard));
    assert_eq!(owner.population.connections, 1);
    assert_eq!(visited.population.connections, 0);
    assert_eq!((visited.port.handover_out, visited.port.handover_returned), (1, 1));
    assert_eq!((owner.port.handover_in, owner.port.handover_passed_on), (1, 0));
    assert_eq!(bystander.port.handover_in + bystander.port.handover_passed_on, 0);
}

#[test]
fn what_nobody_knows_comes_home_and_is_reset_there() {
    let mut rig = Rig::new(2);
    let id = rig.connect(40_000);
    rig.settle();
    rig.send(id, b"late");
    let stray = rig.sent.frames.pop().expect("a segment");
    rig.command(0, Command::Abort);
    rig.settle();
    assert_eq!(rig.client.application().closed, [CloseReason::ResetByPeer]);
    rig.wires[1].to_shard.borrow_mut().push_back(stray);
    rig.shards[1].turn(rig.now);
    rig.shards[0].turn(rig.now);
    assert!(
        rig.wires[1].from_shard.borrow().is_empty(),
        "shard 0 might have known it"
    );
    rig.settle();
    let [asked, asking] = [0, 1].map(|shard| rig.report(shard).port);
    assert_eq!(
        (asking.handover_out, asking.handover_returned, asking.handover_unowned),
        (1, 1, 1)
    );
    assert_eq!((asked.handover_in, asking.tx_frames), (0, 1), "RST");
    assert!(rig.all_frames_are_home());
}

#[test]
fn a_full_queue_drops_the_segment_and_keeps_the_frame() {
    let mut rig = Rig::new(2);
    let id = rig.connect(40_000);
    rig.settle();
    rig.queue = 1;
    let length = 20;
    for _ in 0..length {
        rig.send(id, b"x");
    }
    // Only the first is sent before it is acknowledged (Nagle), so it comes many times.
    let frame = rig.sent.frames.remove(0);
    let mut to_shard = rig.wires[1].to_shard.borrow_mut();
    to_shard.extend(core::iter::repeat_n(frame, length));
    drop(to_shard);
    rig.shards[1].turn(rig.now);
    let report = rig.report(1);
    assert_eq!((report.frames.handed_over, report.port.handover_full), (16, 4));
    rig.settle();
    assert_eq!(rig.client.application().received, [b'x'; 20]);
    assert!(rig.all_frames_are_home());
}

#[test]
fn a_shard_that_refuses_syns_completes_handshakes() {
    let mut rig = Rig::new(1);
    rig.settle();
    let id = rig.connect(40_000);
    // The SYN arrives before the command, and the acknowledgment after it.
    rig.carry_to_server();
    rig.shards[0].turn(rig.now);
    rig.command(0, Command::RefuseSyns);
    rig.settle();
    rig.connect(40_001);
    rig.settle();
    let report = rig.report(0);
    assert_eq!((report.population.connections, report.population.half_open), (1, 0));
    rig.send(id, b"served");
    rig.settle();
    assert_eq!(rig.client.application().received, b"served");
}

#[test]
fn other_listeners_are_served_from_then_on_and_connections_of_those_before_go_on() {
    let mut rig = Rig::new(1);
    let id = rig.connect(40_000);
    rig.settle();
    let (taken, is_taken) = channel::bounded(1);
    let configuration = Configuration {
        tcp: tidegate_tcp::Config::default(),
        source_limits: SourceLimits::default(),
        keepalive: vec![tidegate_tcp::Config::default().keepalive(); 3],
        congestion: vec![None; 3],
        addresses: vec![("198.18.0.1:81".parse().expect("an address"), ListenerId(2))].into(),
    };
    let configuration = Arc::new(configuration);
    rig.command(0, Command::Configure { configuration, taken });
    is_taken.try_recv().expect("it says so");
    assert_eq!(rig.shards[0].engine.listener_count(), 3);
    rig.send(id, b"goes on");
    rig.settle();
    assert_eq!(rig.client.application().received, b"goes on");
    rig.connect(40_001);
    rig.settle();
    let population = rig.report(0).population;
    assert_eq!((population.connections, population.half_open), (1, 0));
}

#[test]
fn an_application_is_changed_once_and_gives_back_what_it_does_not_need() {
    let mut rig = Rig::new(1);
    let change = ApplicationChange::new(Box::new(|application| {
        let end = application.downcast_mut::<End>().expect("the shard's");
        end.received.push(7);
        Box::new("not needed")
    }));
    for expected in [Some("not needed"), None] {
        let (taken, is_taken) = channel::bounded(1);
        let change = change.clone();
        rig.command(0, Command::Application { change, taken });
        let back = is_taken.try_recv().expect("it says so");
        assert_eq!(back.downcast_ref::<&str>().copied(), expected);
        assert_eq!(rig.shards[0].engine.application().received, [7]);
    }
}

#[test]
fn draining_ends_connections_and_admits_no_more() {
    let mut rig = Rig::new(1);
    let id = rig.connect(40_000);
    rig.settle();
    rig.send(id, b"last words");
    rig.settle();
    rig.command(0, Command::Drain);
    rig.settle();
    assert_eq!(rig.client.application().received, b"last words");
    assert_eq!(rig.client.application().closed, [CloseReason::Finished]);
    assert_eq!(rig.shards[0].engine.application().closed, [CloseReason::Finished]);
    let report = rig.report(0);
    assert_eq!((report.population.connections, report.sweeping), (0, false));
    let frames = report.port.tx_frames;
    rig.connect(40_001);
    rig.settle();
    let report = rig.report(0);
    assert_eq!((report.population.half_open, report.port.tx_frames), (0, frames));
    assert!(rig.all_frames_are_home());
}

#[test]
fn what_the_kernel_does_not_take_leaves_later_and_nothing_is_lost() {
    let mut rig = Rig::new(1);
    let id = rig.connect(40_000);
    rig.settle();
    let data: Vec<u8> = (0..15_000_u32).map(|number| number as u8).collect();
    rig.wires[0].is_busy.set(true);
    rig.send(id, &data);
    rig.settle();
    let report = rig.report(0);
    assert!(report.frames.tx > 0 && rig.client.application().received.is_empty());
    assert_eq!(rig.shards[0].port.unsent(), Unsent::Busy);
    rig.wires[0].is_busy.set(false);
    // Retransmissions of both sides make up for what was lost on the way.
    for _ in 0..100 {
        rig.settle();
        rig.now = rig.now + Duration::from_millis(200);
        rig.client.poll(rig.now, &mut rig.sent);
    }
    assert!(rig.client.application().received == data);
    assert!(rig.all_frames_are_home());
}

#[test]
fn the_loop_answers_commands_between_turns_and_ends_when_told() {
    let mut rig = Rig::new(1);
    rig.connect(40_000);
    rig.carry_to_server();
    let mut shard = rig.shards.remove(0);
    let (reply, answer) = channel::bounded(1);
    let mailboxes = Arc::clone(&shard.mailboxes);
    for command in [Command::Report(reply), Command::Stop] {
        assert!(mailboxes[0].send(command).is_ok());
    }
    assert!(matches!(shard.run(), Ok(Exit::Stop)));
    let last = shard.report();
    let earlier = answer.try_recv().expect("an answer");
    for report in [earlier, last] {
        assert_eq!((report.port.rx_frames, report.population.half_open), (1, 1));
        assert!(report.frames.is_whole());
    }
    assert_eq!(rig.wires[0].from_shard.borrow().len(), 1, "SYN-ACK");
}

/// Runs `ask` in a thread of its own while the shards turn, and returns what it finds.
fn ask<R: Send>(rig: &mut Rig, ask: impl FnOnce(Shards) -> R + Send) -> R {
    let shards = Shards::new(&rig.shards[0].mailboxes, &Arc::default());
    std::thread::scope(|scope| {
        let asking = scope.spawn(move || ask(shards));
        while !asking.is_finished() {
            for index in 0..rig.shards.len() {
                let now = rig.now;
                let shard = &mut rig.shards[index];
                shard.turn(now);
                if let Some(command) = shard.command() {
                    assert!(shard.handle_command(command, now).is_none());
                }
            }
        }
        asking.join().expect("an answer")
    })
}

#[test]
fn other_threads_list_count_and_reset_the_connections_of_all_shards() {
    let mut rig = Rig::new(2);
    for port in 0..150 {
        rig.queue = usize::from(port % 3 == 0);
        rig.connect(40_000 + port);
        rig.settle();
    }
    let (slices, listed) = ask(&mut rig, |shards| {
        let mut walk = shards.walk(ConnectionFilter::default());
        let mut slices = Vec::new();
        while let Some(slice) = walk.next_slice(true).expect("the shards answer") {
            slices.push((slice.shard, slice.states.total(), slice.connections.len() as u64));
        }
        let filter = ConnectionFilter {
            states: vec![State::TimeWait],
            ..ConnectionFilter::default()
        };
        let counted = shards
            .walk(filter)
            .next_slice(false)
            .expect("an answer")
            .expect("a slice");
        (slices, counted.connections.len() as u64 + counted.states.total())
    });
    assert_eq!(slices, [(0, 100, 100), (1, 50, 50)]);
    assert_eq!(listed, 0, "none is in TIME-WAIT");

    let filter = ConnectionFilter {
        peer: Some("198.18.0.0/30".parse().expect("a prefix")),
        ..ConnectionFilter::default()
    };
    assert_eq!(ask(&mut rig, |shards| shards.reset(filter)).expect("an answer"), 150);
    rig.settle();
    assert_eq!(rig.client.application().closed, vec![CloseReason::ResetByPeer; 150]);
    assert!(rig.all_frames_are_home());
}

#[test]
fn a_walk_leaves_a_shard_time_for_others_after_each_slice_but_the_last() {
    let mut rig = Rig::new(1);
    for port in 0..SLICE as u16 + 1 {
        rig.connect(40_000 + port);
        rig.settle();
    }
    let rests = ask(&mut rig, |shards| {
        let mut walk = shards.walk(ConnectionFilter::default());
        let mut rests = Vec::new();
        loop {
            let not_before = walk.not_before;
            let Some(slice) = walk.next_slice(true).expect("the shards answer") else {
                return rests;
            };
            assert!(std::time::Instant::now() >= not_before, "it did not wait");
            rests.push((slice.states.total(), walk.not_before > not_before));
        }
    });
    assert_eq!(rests, [(SLICE as u64, true), (1, false)]);
}

#[test]
fn connections_end_though_no_rst_can_leave() {
    let mut rig = Rig::new(1);
    for port in 0..100 {
        rig.connect(40_000 + port);
        rig.settle();
    }
    rig.wires[0].is_busy.set(true);
    let reset = ask(&mut rig, |shards| shards.reset(ConnectionFilter::default()));
    assert_eq!(reset.expect("an answer"), 100);
    assert_eq!(rig.report(0).population.connections, 0);
}

#[test]
fn a_shard_that_does_not_answer_is_named() {
    let rig = Rig::new(1);
    let shards = Shards::new(&rig.shards[0].mailboxes, &Arc::default());
    let error = shards.walk(ConnectionFilter::default()).next_slice(false).unwrap_err();
    assert!(
        error.to_string().contains("queue 0") && error.to_string().contains("1s"),
        "{error}"
    );
}

#[test]
fn a_tap_is_shown_what_is_received_and_sent_until_nobody_takes_it() {
    let mut rig = Rig::new(1);
    let filter: tidegate_capture::Filter = "portrange 40001-40002".parse().expect("a filter");
    let (tap, mut source) = tidegate_capture::tap(filter.into(), 60, 1000);
    let (taken, is_taken) = channel::bounded(1);
    rig.wires[0].device.set(2);
    rig.command(
        0,
        Command::Tap {
            tap: Box::new(tap),
            tracer: None,
            taken,
        },
    );
    is_taken.try_recv().expect("it is taken at once");
    for port in [40_000, 40_001] {
        rig.connect(port);
        rig.settle();
    }
    let mut seen = Vec::new();
    while let Some((record, octets)) = source.take(|record, octets| (record, octets.concat())) {
        let segment = tidegate_capture::Packet::of(&octets)
            .and_then(|packet| packet.tcp())
            .expect("TCP");
        assert_eq!(
            (record.device, record.captured, octets.len()),
            (2, record.length.min(60), record.captured as usize)
        );
        // But for ECN's bits.
        seen.push((record.direction, segment.flags & 0x3f));
    }
    let (received, sent) = (tidegate_capture::Direction::Received, tidegate_capture::Direction::Sent);
    assert_eq!(seen, [(received, 0x02), (sent, 0x12), (received, 0x10)]);
    let counters = rig.report(0).port;
    assert_eq!((counters.captured, counters.capture_lost), (3, 0));
    drop(source);
    rig.connect(40_002);
    rig.settle();
    assert_eq!(rig.report(0).port.captured, 4, "one finds out that nobody takes it");
    assert!(rig.shards[0].port.taps_are_gone());
}

#[test]
fn a_tap_that_is_full_loses_frames_and_the_shard_serves_on() {
    let mut rig = Rig::new(1);
    let (tap, source) = tidegate_capture::tap(Arc::default(), usize::MAX, 100);
    let (taken, _is_taken) = channel::bounded(1);
    rig.command(
        0,
        Command::Tap {
            tap: Box::new(tap),
            tracer: None,
            taken,
        },
    );
    let id = rig.connect(40_000);
    rig.settle();
    rig.send(id, b"served");
    rig.settle();
    assert_eq!(rig.client.application().received, b"served");
    let counters = rig.report(0).port;
    // Of SYN, SYN-ACK, ACK, text and its answer.
    assert_eq!((counters.captured, counters.capture_lost, source.lost()), (1, 4, 4));
}
