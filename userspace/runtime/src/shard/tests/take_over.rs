//! A shard of another process takes the wire over, and the one before goes on by a relay.

use std::rc::Rc;
use std::sync::Arc;

use crossbeam::channel;
use tidegate_exchange::{Exchange, Handover};
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::engine::OnNoFlow;
use tidegate_tcp::time::Instant;
use tidegate_tcp::transmit::{Purpose, Transmit as _};

use super::{End, FRAMES, MemoryPort, Rig, ShardPort as _};
use crate::mailbox::Command;
use crate::relay::{Later, Relay, RelayPort, RelayedShard};
use crate::shard::{Exit, Shard};
use crate::take_over::{Release, Rest};

/// Octets of the longest frame.
const FRAME: usize = 1600;

/// The rig, whose shard is that of the later process, and the shard before.
struct Pair {
    rig: Rig,
    earlier: Shard<End, (), RelayPort>,
    relay: Arc<Relay>,
}

/// Has a shard go on by `relay`.
fn release(mut shard: Shard<End, (), MemoryPort>, relay: &Arc<Relay>, now: Instant) -> Shard<End, (), RelayPort> {
    let (released, _is_released) = channel::bounded(1);
    let release = Release::new(RelayPort::new(Arc::clone(relay)), &Rest::new(1), released);
    let exit = shard.handle_command(Command::Release(Box::new(release)), now);
    let Some(Exit::Release(release)) = exit else {
        panic!("it keeps its port");
    };
    assert_eq!(shard.report().frames.handed_over, 0);
    let memory = release.port.relay();
    let alone = Handover::new(Arc::new(Exchange::new(1, 1, 1)), 0);
    shard.with_port(release.port, memory, alone)
}

impl Pair {
    /// Another shard takes over from that of `rig`.
    fn new(rig: Rig) -> Self {
        Self::with_frames(rig, FRAME)
    }

    /// The same, by a relay for frames of up to `max_frame` octets.
    fn with_frames(mut rig: Rig, max_frame: usize) -> Self {
        let relay = Relay::new(max_frame).expect("memory");
        let earlier = release(rig.shards.remove(0), &relay, rig.now);
        let mut later = Rig::with_relayed(1, 1);
        let mut shard: Shard<End, (), MemoryPort> = later.shards.remove(0);
        let relayed = RelayedShard::new(Some(Later::new(Arc::clone(&relay))), 0, Arc::clone(&later.exchange), 1);
        shard.relay(vec![relayed]).expect("an epoll");
        // What the shard before has sent last is with the client already, or comes first.
        for frame in rig.wires[0].from_shard.take() {
            let _ = rig.client.receive(rig.now, &frame, OnNoFlow::Reject, &mut rig.sent);
        }
        rig.shards.push(shard);
        rig.wires = later.wires.iter().map(Rc::clone).collect();
        Self { rig, earlier, relay }
    }

    /// The shard releases its port for a process that fails, and gets it back. `is_there`: the process before lives.
    fn fail_to_take_over(&mut self, is_there: bool) {
        let shard = self.rig.shards.remove(0);
        let shard = release(shard, &Relay::new(FRAME).expect("memory"), self.rig.now);
        let exchange = Arc::new(Exchange::with_relayed(1, 1, 16, FRAMES as usize));
        let port = MemoryPort::new(FRAMES, Rc::clone(&self.rig.wires[0]));
        let mut shard = shard.with_port(port, Arc::new(()), Handover::new(Arc::clone(&exchange), 0));
        let later = is_there.then(|| Later::new(Arc::clone(&self.relay)));
        shard
            .relay(vec![RelayedShard::new(later, 0, exchange, 1)])
            .expect("its bell is not known any more");
        self.rig.shards.push(shard);
    }

    /// Lets everybody work until nobody has anything to do.
    fn settle(&mut self) {
        for _ in 0..8 {
            self.rig.settle();
            self.earlier.turn(self.rig.now);
            self.earlier.port.flush();
        }
    }
}

#[test]
fn the_shard_before_keeps_its_connections_and_the_later_one_accepts_new_ones() {
    let mut rig = Rig::new(1);
    let kept = rig.connect(40_000);
    rig.settle();
    rig.send(kept, b"before ");
    rig.settle();
    let mut pair = Pair::new(rig);
    pair.rig.wires[0].device.set(3);
    pair.rig.send(kept, b"after ");
    pair.settle();
    assert_eq!(pair.rig.client.application().received, b"before after ");
    assert_eq!(pair.rig.wires[0].left_by.get(), 3, "by the device it arrived from");
    let new = pair.rig.connect(40_001);
    pair.settle();
    pair.rig.send(new, b"new");
    pair.settle();
    assert_eq!(pair.rig.client.application().received, b"before after new");
    assert_eq!(pair.earlier.report().population.connections, 1);
    let later = pair.rig.report(0);
    assert_eq!(later.population.connections, 1);
    assert!(later.port.relay_out > 0 && later.port.relay_in > 0, "{:?}", later.port);
    assert_eq!(later.port.handover_out, later.port.handover_returned);
    assert!(pair.rig.all_frames_are_home());
    let before = pair.earlier.report().port;
    assert!(before.rx_frames > later.port.relay_out, "counters go on: {before:?}");
}

#[test]
fn what_the_shard_before_does_not_know_is_answered_by_the_later_one() {
    let mut rig = Rig::new(1);
    let id = rig.connect(40_000);
    rig.settle();
    rig.send(id, b"late");
    let stray = rig.sent.frames.pop().expect("a segment");
    let mut pair = Pair::new(rig);
    pair.earlier.handle_command(Command::Abort, pair.rig.now);
    pair.settle();
    assert_eq!(pair.rig.client.application().closed, [CloseReason::ResetByPeer]);
    let sent = pair.rig.report(0).port.tx_frames;
    pair.rig.wires[0].to_shard.borrow_mut().push_back(stray);
    pair.settle();
    let later = pair.rig.report(0).port;
    assert_eq!((later.relay_out, later.handover_unowned), (1, 1));
    assert_eq!(later.tx_frames, sent + 1, "RST");
    assert!(pair.rig.all_frames_are_home());
}

#[test]
fn when_the_process_before_has_ended_its_connections_are_reset_and_its_frames_come_home() {
    let mut rig = Rig::new(1);
    let id = rig.connect(40_000);
    rig.settle();
    let mut pair = Pair::new(rig);
    pair.rig.send(id, b"anybody?");
    // It does not answer.
    pair.rig.settle();
    assert_eq!(pair.rig.report(0).frames.handed_over, 1);
    pair.rig.command(0, Command::Forget(7));
    pair.rig.settle();
    assert_eq!(pair.rig.report(0).frames.handed_over, 1, "another process");
    pair.rig.command(0, Command::Forget(0));
    pair.rig.settle();
    assert_eq!(pair.rig.client.application().closed, [CloseReason::ResetByPeer]);
    assert_eq!(pair.rig.report(0).port.relay_lost, 1);
    assert!(pair.rig.all_frames_are_home());
    assert_eq!(FRAMES, pair.rig.report(0).frames.total);
}

#[test]
fn a_shard_that_gets_its_port_back_relays_to_the_process_before_as_it_did() {
    let mut rig = Rig::new(1);
    let kept = rig.connect(40_000);
    rig.settle();
    let mut pair = Pair::new(rig);
    let own = pair.rig.connect(40_001);
    pair.settle();
    for round in [&b"one "[..], b"two "] {
        pair.fail_to_take_over(true);
        for id in [kept, own] {
            pair.rig.send(id, round);
            pair.settle();
        }
    }
    assert_eq!(pair.rig.client.application().received, b"one one two two ");
    assert!(pair.rig.client.application().closed.is_empty());
    assert!(pair.rig.all_frames_are_home());
}

#[test]
fn segments_for_a_process_that_is_gone_come_home_also_when_the_port_came_back_after_its_end() {
    let mut rig = Rig::new(1);
    let id = rig.connect(40_000);
    rig.settle();
    let mut pair = Pair::new(rig);
    pair.rig.command(0, Command::Forget(0));
    pair.fail_to_take_over(false);
    pair.rig.send(id, b"anybody?");
    pair.rig.settle();
    assert_eq!(pair.rig.client.application().closed, [CloseReason::ResetByPeer]);
    assert!(pair.rig.all_frames_are_home());
}

#[test]
fn a_frame_that_is_too_long_for_the_later_process_is_dropped_and_those_behind_it_are_sent() {
    let mut rig = Rig::new(1);
    let id = rig.connect(40_000);
    rig.settle();
    let mut pair = Pair::with_frames(rig, 4000);
    let room = pair.earlier.port.reserve(Purpose::Control).expect("room");
    room[..3000].fill(1);
    pair.earlier.port.commit(3000);
    pair.rig.send(id, b"behind it");
    pair.settle();
    assert_eq!(pair.rig.client.application().received, b"behind it");
    assert_eq!(pair.rig.report(0).port.relay_too_long, 1);
    assert!(pair.rig.all_frames_are_home());
}
