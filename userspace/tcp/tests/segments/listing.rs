//! The listing of connections: the counts of each, the timer that is next, and the walk over all of them in slices.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::common::*;
use tidegate_tcp::application::CloseReason;
use tidegate_tcp::engine::{Cursor, FlowInfo, Population, SLICE, Timer};
use tidegate_tcp::wire::{FlowKey, Options};
use tidegate_tcp::{Config, State};

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 18, 0, 2], port))
}

/// The rig's peer is that of `port` from now on.
fn change_peer(rig: &mut Rig, port: u16) {
    rig.key = FlowKey::new(client(port), SERVER.parse().unwrap());
}

/// Open connections of ports from 1 on, and one of port 30,000.
fn many(open: u16) -> Rig {
    let config = Config {
        max_connections: 2000,
        ..config()
    };
    let mut rig = Rig::new(config, App::default());
    for port in (1..=open).chain([30_000]) {
        change_peer(&mut rig, port);
        rig.connect();
    }
    rig
}

/// The peers that a walk finds, slice by slice. `between` is called after each slice.
fn walk(rig: &mut Rig, mut between: impl FnMut(&mut Rig, usize)) -> Vec<FlowInfo> {
    let mut found = Vec::new();
    let mut next = Some(Cursor::default());
    let mut slices = 0;
    while let Some(from) = next {
        let before = found.len();
        next = rig.engine.walk(from, |flow, info| {
            let info = info();
            assert_eq!((info.local, info.peer, info.state), (flow.local, flow.peer, flow.state));
            found.push(*flow);
        });
        assert!(found.len() - before <= SLICE);
        slices += 1;
        assert!(slices < 1000, "the walk does not end");
        between(rig, slices);
    }
    found
}

#[test]
fn bytes_and_retransmissions_of_a_connection_are_told() {
    let mut rig = Rig::new(config(), sender(4000));
    rig.connect_with(with_sack());
    rig.peer(ACK, b"GET / ");
    let transfer = rig.info().transfer.expect("it is open");
    assert_eq!(
        (transfer.bytes_sent, transfer.bytes_acked, transfer.bytes_received),
        (4000, 0, 6)
    );
    assert_eq!((transfer.in_flight, transfer.send_window), (4000, 65_535));
    assert_eq!((transfer.retransmitted_segments, transfer.ssthresh), (0, None));
    // Nothing is acknowledged: what was last is sent again as a probe, then the first by the retransmission timer.
    rig.sent();
    rig.pass(ms(1500));
    let again: u64 = rig.sent().iter().map(|segment| segment.payload.len() as u64).sum();
    assert!(again >= 1460, "{again} bytes");
    let info = rig.info();
    let transfer = info.transfer.expect("it is open");
    assert_eq!(transfer.bytes_sent, 4000 + again);
    assert_eq!(transfer.retransmitted_bytes, again);
    assert!(transfer.retransmitted_segments >= 1);
    assert!(transfer.backoffs >= 1);
    assert!(transfer.ssthresh.is_some());
    assert_eq!(info.timer.map(|(timer, _)| timer), Some(Timer::Retransmit));
    rig.ack += 4000;
    rig.peer(ACK, b"");
    rig.pass(ms(60_000));
    let transfer = rig.info().transfer.expect("it is open");
    assert_eq!((transfer.bytes_acked, transfer.in_flight), (4000, 0));
    assert_eq!(transfer.retransmitted_bytes, again);
    assert_eq!((transfer.age.as_secs(), transfer.idle.as_secs()), (61, 60));
}

#[test]
fn the_timer_that_is_next_is_told_with_its_time() {
    let mut rig = Rig::new(config(), App::default());
    rig.syn(Options::default());
    let (timer, at) = rig.info().timer.expect("the SYN-ACK is timed");
    assert_eq!((timer, at.since(rig.now)), (Timer::Retransmit, ms(1000)));
    rig.pass(ms(1000));
    let (timer, at) = rig.info().timer.expect("and again");
    assert_eq!((timer, at.since(rig.now)), (Timer::Retransmit, ms(2000)));

    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let (timer, at) = rig.info().timer.expect("keepalive runs");
    assert_eq!(
        (timer, at.since(rig.now)),
        (Timer::Keepalive, config().keepalive().idle)
    );

    rig.engine.drain(rig.now, &mut rig.wire);
    let fin = rig.one();
    rig.acknowledge(&fin);
    assert_eq!(rig.info().timer.map(|(timer, _)| timer), Some(Timer::FinWait2));
    rig.peer(ACK | FIN, b"");
    let (timer, at) = rig.info().timer.expect("TIME-WAIT ends");
    assert_eq!((timer, at.since(rig.now)), (Timer::TimeWait, 2 * config().msl));
}

#[test]
fn a_window_that_is_closed_is_told_by_its_timer() {
    let mut rig = Rig::new(config(), sender(4000));
    rig.window = 0;
    rig.connect();
    assert_eq!(rig.info().timer.map(|(timer, _)| timer), Some(Timer::Persist));
}

#[test]
fn a_walk_finds_every_flow_in_slices() {
    let mut rig = many(1000);
    change_peer(&mut rig, 20_000);
    rig.syn(Options::default());
    rig.sent();
    let found = walk(&mut rig, |_, _| {});
    let peers: BTreeSet<u16> = found.iter().map(|flow| flow.peer.port()).collect();
    assert_eq!((found.len(), peers.len()), (1002, 1002));
    let half_open = found.iter().find(|flow| flow.state == State::SynReceived);
    assert_eq!(half_open.map(|flow| flow.peer), Some(client(20_000)));
    assert_eq!(
        found.iter().filter(|flow| flow.state == State::Established).count(),
        1001
    );
}

#[test]
fn a_walk_finds_what_stays_though_others_come_and_go_meanwhile() {
    let mut rig = many(1000);
    let mut port = 5000;
    let found = walk(&mut rig, |rig, slices| {
        // One of the first goes, one of the last does, and another comes.
        for gone in [slices as u16, 1001 - slices as u16] {
            change_peer(rig, gone);
            let frame = rig.frame(rig.seq, rig.ack, RST, Options::default(), b"");
            rig.inject(&frame);
        }
        port += 1;
        change_peer(rig, port);
        rig.sent();
        rig.connect();
    });
    let peers: BTreeSet<u16> = found.iter().map(|flow| flow.peer.port()).collect();
    assert!((10..=990).all(|port| peers.contains(&port)));
    assert_eq!(peers.len(), found.len(), "nothing is found twice that stays what it is");
}

#[test]
fn those_that_are_selected_are_reset_and_no_others() {
    let mut rig = many(600);
    rig.sent();
    let select = |flow: &FlowInfo| flow.peer.port().is_multiple_of(3);
    let (mut reset, mut next, mut slices) = (0, Some(Cursor::default()), 0);
    while let Some(from) = next {
        let (count, then) = rig.engine.reset_selected(rig.now, from, true, select, &mut rig.wire);
        assert!(count as usize <= SLICE);
        (reset, next) = (reset + count, then);
        slices += 1;
    }
    // 200 of them, and port 30,000.
    assert_eq!((reset, slices), (201, 601_usize.div_ceil(SLICE)));
    let sent = rig.sent();
    assert_eq!(sent.len(), 201);
    assert!(sent.iter().all(|segment| segment.flags.contains(RST)));
    assert_eq!(rig.app().closed, vec![CloseReason::Aborted; 201]);
    assert!(walk(&mut rig, |_, _| {}).iter().all(|flow| !select(flow)));
    assert_eq!(rig.engine.population().connections, 400);
}

#[test]
fn a_reset_waits_for_a_frame_unless_told_otherwise() {
    let mut rig = many(3);
    rig.wire.exhausted = true;
    let all = |_: &FlowInfo| true;
    let (reset, next) = rig
        .engine
        .reset_selected(rig.now, Cursor::default(), true, all, &mut rig.wire);
    let place = next.expect("nothing was done");
    assert_eq!((reset, rig.engine.population().connections), (0, 4));
    let (reset, next) = rig.engine.reset_selected(rig.now, place, false, all, &mut rig.wire);
    assert_eq!((reset, next), (4, None));
    assert_eq!(rig.engine.population(), Population::default());
}

#[test]
fn half_open_connections_are_reset_and_those_in_time_wait_are_left() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    rig.engine.drain(rig.now, &mut rig.wire);
    let fin = rig.one();
    rig.acknowledge(&fin);
    rig.peer(ACK | FIN, b"");
    assert_eq!(rig.state(), Some(State::TimeWait));

    let mut other = Rig::new(config(), App::default());
    other.syn(Options::default());
    other.sent();
    for (rig, reset) in [(&mut rig, 0), (&mut other, 1)] {
        rig.sent();
        let selected = rig
            .engine
            .reset_selected(rig.now, Cursor::default(), true, |_| true, &mut rig.wire);
        assert_eq!(selected, (reset, None));
        assert_eq!(rig.sent().len(), reset as usize);
    }
    assert_eq!(rig.state(), Some(State::TimeWait));
    assert_eq!(other.state(), None);
}
