//! The maximum work of one call, however much there is to do: frames that arrive meanwhile wait for no more than that.

use std::collections::BTreeSet;

use crate::common::*;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::EVENTS_PER_TURN;
use tidegate_tcp::wire::{Options, Segment};

const CONNECTIONS: u16 = 1000;

/// Timers and connections that have more to send may each cause as many frames, and the last of them a burst of its
/// own.
const FRAMES_PER_CALL: usize = 2 * (256 + 64);

fn many() -> Config {
    Config {
        max_connections: 2000,
        max_half_open: 2000,
        max_time_wait: 2000,
        ..config()
    }
}

/// An engine with as many open connections, their ports from 1 on, and nothing sent that was not looked at.
fn with_connections(config: Config, app: App) -> Rig {
    let mut rig = Rig::new(config, app);
    for port in 1..=CONNECTIONS {
        rig.key.local_port = port;
        rig.syn(with_sack());
        let syn_ack = parse(&rig.wire.frames[0]);
        rig.ack = syn_ack.seq + 1;
        rig.peer(ACK, b"");
        rig.wire.frames.clear();
        rig.seq = rig.seq - 1;
    }
    rig
}

/// Ports of the peers that the frames are for; the engine has sent nothing else afterwards.
fn peers_of_frames(rig: &mut Rig) -> Vec<u16> {
    let frames = rig.wire.frames.drain(..);
    frames
        .map(|frame| Segment::parse(&frame, true).expect("a good segment").key.local_port)
        .collect()
}

/// Calls `turn` as often as it is due now, and returns what `work` grew by in each call.
fn turns(rig: &mut Rig, work: impl Fn(&mut Rig) -> usize) -> Vec<usize> {
    let mut all = Vec::new();
    while rig.engine.next_deadline().is_some_and(|next| next <= rig.now) || rig.engine.wants_frames() {
        let before = (work(rig), rig.wire.frames.len());
        rig.engine.poll(rig.now, &mut rig.wire);
        all.push(work(rig) - before.0);
        let frames = rig.wire.frames.len() - before.1;
        assert!(frames <= FRAMES_PER_CALL, "{frames} frames in one call");
        assert!(all.len() < 10_000, "it never comes to rest");
    }
    all
}

#[track_caller]
fn assert_sliced(slices: &[usize], total: usize) {
    assert!(slices.iter().all(|&slice| slice <= EVENTS_PER_TURN), "{slices:?}");
    assert_eq!(slices.iter().sum::<usize>(), total, "{slices:?}");
}

#[test]
fn draining_tells_a_bounded_number_of_connections_per_call_and_misses_none() {
    let mut rig = with_connections(many(), App::default());
    let seq = rig.seq + 1;
    rig.key.local_port = CONNECTIONS + 1;
    rig.syn(with_sack());
    let syn_ack = rig.one();
    rig.engine.drain(rig.now, &mut rig.wire);
    assert!(rig.engine.is_sweeping());
    let mut told = rig.wire.frames.len();
    assert!(told <= EVENTS_PER_TURN, "{told} in the first call");
    assert!(
        rig.engine.next_deadline().is_some_and(|next| next <= rig.now),
        "it has to go on at once"
    );

    // Half-open ones come first; another connection is served, and one is reset by its peer, before the rest is told.
    assert!(parse(&rig.wire.frames[0]).is(RST | ACK));
    assert_eq!(parse(&rig.wire.frames[0]).seq, syn_ack.seq + 1);
    rig.key.local_port = CONNECTIONS;
    let frame = rig.frame(seq, rig.ack, ACK, Options::default(), b"served meanwhile");
    rig.inject(&frame);
    assert_eq!(rig.app().received, b"served meanwhile");
    rig.key.local_port = CONNECTIONS - 1;
    rig.peer_at(seq, RST, b"");
    assert_eq!(rig.count(Counter::ResetByPeer), 1);
    rig.syn(with_sack());
    assert_eq!(rig.count(Counter::DropDraining), 1);

    while rig.engine.is_sweeping() {
        let before = rig.wire.frames.len();
        rig.engine.poll(rig.now, &mut rig.wire);
        told = rig.wire.frames.len() - before;
        assert!(told <= EVENTS_PER_TURN, "{told} in one call");
    }
    let peers: BTreeSet<u16> = peers_of_frames(&mut rig).into_iter().collect();
    assert_eq!(
        peers.len(),
        usize::from(CONNECTIONS),
        "each but the one that was reset, and the half-open one"
    );
    assert!(!peers.contains(&(CONNECTIONS - 1)));
}

fn refused_while_sweeping(begin: impl Fn(&mut Rig)) {
    let mut rig = Rig::new(many(), App::default());
    let last = EVENTS_PER_TURN as u16 + 10;
    for port in 1..=last {
        rig.key.local_port = port;
        rig.syn(with_sack());
    }
    let syn_ack = rig.sent().pop().expect("a SYN-ACK");
    begin(&mut rig);
    assert!(rig.engine.is_sweeping());
    rig.wire.frames.clear();
    rig.ack = syn_ack.seq + 1;
    rig.peer(ACK, b"");
    assert!(rig.one().is(RST | ACK));
    assert_eq!(rig.count(Counter::DropDraining), 1);
    assert_eq!(rig.engine.population().connections, 0);
    rig.engine.poll(rig.now, &mut rig.wire);
    assert!(!rig.engine.is_sweeping());
    rig.assert_empty();
}

#[test]
fn a_handshake_that_ends_while_a_sweep_is_under_way_is_refused() {
    refused_while_sweeping(|rig| rig.engine.drain(rig.now, &mut rig.wire));
    refused_while_sweeping(|rig| rig.engine.abort_all(rig.now, &mut rig.wire));
}

#[test]
fn aborting_resets_a_bounded_number_per_call_and_every_reset_leaves() {
    let mut rig = with_connections(many(), App::default());
    rig.engine.abort_all(rig.now, &mut rig.wire);
    assert!(rig.wire.frames.len() <= EVENTS_PER_TURN);
    rig.key.local_port = 2000;
    rig.syn(with_sack());
    assert_eq!(rig.count(Counter::DropDraining), 1, "it would be missed");
    let first = rig.app().closed.len();
    let slices = turns(&mut rig, |rig| rig.app().closed.len());
    assert_sliced(&slices, usize::from(CONNECTIONS) - first);
    let peers = peers_of_frames(&mut rig);
    assert!(
        peers
            .iter()
            .copied()
            .collect::<BTreeSet<u16>>()
            .into_iter()
            .eq(1..=CONNECTIONS)
    );
    assert_eq!(peers.len(), usize::from(CONNECTIONS));
    rig.assert_empty();
    // It was not a drain.
    rig.connect();
    assert_eq!(rig.engine.population().connections, 1);
}

#[test]
fn resets_wait_for_frames_but_not_for_ever() {
    let mut rig = with_connections(many(), App::default());
    rig.wire.exhausted = true;
    rig.engine.abort_all(rig.now, &mut rig.wire);
    assert!(rig.engine.is_sweeping() && rig.engine.wants_frames());
    assert!(
        rig.engine.next_deadline().is_some_and(|next| next > rig.now),
        "nobody spins for a frame"
    );
    assert_eq!(rig.app().closed.len(), 0);
    rig.wire.exhausted = false;
    for _ in 0..3 {
        rig.engine.poll(rig.now, &mut rig.wire);
    }
    assert_eq!(rig.wire.frames.len(), 3 * EVENTS_PER_TURN);
    // The link goes down for good.
    rig.wire.exhausted = true;
    rig.engine.poll(rig.now, &mut rig.wire);
    assert_eq!(rig.app().closed.len(), 3 * EVENTS_PER_TURN);
    rig.pass(ms(1000));
    assert_eq!(rig.app().closed.len(), usize::from(CONNECTIONS));
    rig.assert_empty();
}

#[test]
fn timers_of_applications_that_are_due_at_once_fire_in_slices_and_each_once() {
    let app = App {
        timer: Some(ms(5000)),
        ..App::default()
    };
    let mut rig = with_connections(many(), app);
    // Along the way no call files more of them again than that either, which the unit test of the wheel counts.
    rig.now = rig.now + ms(5000);
    let slices = turns(&mut rig, |rig| rig.app().timeouts);
    assert_sliced(&slices, usize::from(CONNECTIONS));
}

#[test]
fn a_timer_that_is_set_to_zero_again_and_again_keeps_no_other_waiting() {
    let app = App {
        timer: Some(ms(0)),
        timer_again: true,
        ..App::default()
    };
    let mut rig = with_connections(many(), app);
    for round in 1..=3 {
        rig.now = rig.now + ms(1);
        let before = rig.app().timeouts;
        let slices = turns(&mut rig, |rig| rig.app().timeouts);
        assert_sliced(&slices, usize::from(CONNECTIONS));
        assert_eq!(rig.app().timeouts - before, usize::from(CONNECTIONS), "round {round}");
    }
}

#[test]
fn what_is_due_after_the_clock_stood_still_is_done_in_slices() {
    let keepalive = Config {
        keepalive_idle: ms(60_000),
        keepalive_interval: ms(60_000),
        ..many()
    };
    let mut rig = with_connections(keepalive, App::default());
    rig.now = rig.now + ms(90_000);
    let slices = turns(&mut rig, |rig| rig.count(Counter::KeepaliveProbes) as usize);
    assert_sliced(&slices, usize::from(CONNECTIONS));

    let mut rig = with_connections(many(), sender(20_000));
    // Tail loss probes come first.
    rig.now = rig.now + ms(10_000);
    let slices = turns(&mut rig, |rig| rig.count(Counter::TailProbes) as usize);
    assert_sliced(&slices, usize::from(CONNECTIONS));
    rig.now = rig.now + ms(10_000);
    let slices = turns(&mut rig, |rig| rig.count(Counter::Timeouts) as usize);
    assert_sliced(&slices, usize::from(CONNECTIONS));
}

#[test]
fn half_open_connections_that_time_out_together_are_handled_in_slices() {
    let mut rig = Rig::new(many(), App::default());
    for port in 1..=CONNECTIONS {
        rig.key.local_port = port;
        rig.syn(with_sack());
    }
    // The first time-out is by the order of the records, the second by the wheel.
    for wait in [1100, 2100] {
        rig.now = rig.now + ms(wait);
        let slices = turns(&mut rig, |rig| rig.count(Counter::SynAckRetransmits) as usize);
        assert_sliced(&slices, usize::from(CONNECTIONS));
    }
}

#[test]
fn time_wait_records_that_expire_together_are_forgotten_in_slices() {
    let app = App {
        close_after_greeting: true,
        ..sender(10)
    };
    let mut rig = with_connections(many(), app);
    for port in 1..=CONNECTIONS {
        rig.key.local_port = port;
        rig.peer_at(rig.seq + 1, ACK, b"");
    }
    assert_eq!(rig.engine.population().time_wait, 0);
    let ack = rig.ack;
    for port in 1..=CONNECTIONS {
        rig.key.local_port = port;
        // Each has an initial sequence number of its own: the listing does not tell it, a challenge ACK does.
        rig.ack = ack;
        rig.wire.frames.clear();
        rig.peer_at(rig.seq + 1, SYN, b"");
        rig.ack = rig.sent().pop().expect("a challenge ACK").seq;
        rig.peer_at(rig.seq + 1, ACK | FIN, b"");
    }
    assert_eq!(rig.engine.population().time_wait, u32::from(CONNECTIONS));
    rig.wire.frames.clear();
    rig.now = rig.now + ms(61_000);
    let forgotten = |rig: &mut Rig| usize::from(CONNECTIONS) - rig.engine.population().time_wait as usize;
    let slices = turns(&mut rig, forgotten);
    assert_sliced(&slices, usize::from(CONNECTIONS));
    rig.assert_empty();
}

#[test]
fn connections_that_found_no_frame_have_their_turn_one_after_the_other() {
    let mut rig = Rig::new(many(), sender(14_600));
    rig.wire.refused = Some(tidegate_tcp::transmit::Purpose::Data);
    for port in 1..=200 {
        rig.key.local_port = port;
        rig.connect_with(with_sack());
        rig.wire.frames.clear();
    }
    rig.wire.refused = None;
    assert!(rig.engine.wants_frames());
    let mut served = Vec::new();
    while rig.engine.wants_frames() {
        rig.engine.poll(rig.now, &mut rig.wire);
        assert!(rig.wire.frames.len() <= 256 + 64, "{} frames", rig.wire.frames.len());
        served.extend(peers_of_frames(&mut rig));
        assert!(served.len() <= 2000);
    }
    served.dedup();
    assert!(
        served.into_iter().eq(1..=200),
        "in their order, each with all it may send"
    );
}
