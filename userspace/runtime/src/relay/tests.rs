use core::sync::atomic::Ordering;
use core::time::Duration;
use std::thread;

use mio::{Events, Poll};
use tidegate_tcp::transmit::{Purpose, Transmit as _};

use super::*;
use crate::shard_port::ShardPort as _;

const FRAME: usize = 100;

fn pair() -> (Later, RelayPort) {
    let relay = Relay::new(FRAME).expect("memory");
    let copies = relay
        .descriptors()
        .map(|fd| fd.try_clone_to_owned().expect("a descriptor"));
    let opened = Relay::open(copies, FRAME).expect("the same memory");
    (Later::new(relay), RelayPort::new(opened))
}

/// Sends a frame of one octet.
fn send(port: &mut RelayPort, octet: u8, purpose: Purpose) -> bool {
    let Some(room) = port.reserve(purpose) else {
        return false;
    };
    assert!(room.len() >= FRAME);
    room[0] = octet;
    port.commit(1);
    true
}

#[test]
fn segments_go_one_way_and_their_answers_come_back_in_order() {
    let (mut later, mut port) = pair();
    for round in 0..2 * IN_SLOTS as usize {
        assert!(later.give(&[round as u8; FRAME], 3) && later.give(b"second", 0));
        assert!(!port.has_received(), "it was not told");
        later.publish();
        let mut batch = Vec::new();
        port.receive(&mut batch, 64);
        let memory = port.relay();
        let contents: Vec<_> = batch.iter().map(|frame| RelayPort::contents(&memory, frame)).collect();
        assert_eq!((contents[0].bytes, contents[0].device), (&[round as u8; FRAME][..], 3));
        assert_eq!((contents[1].bytes, contents[1].device), (&b"second"[..], 0));
        let second = batch.pop().expect("two");
        port.recycle(batch.pop().expect("two"));
        port.give_back(second);
        assert_eq!(later.answer(), None, "it was not told");
        port.flush();
        assert_eq!(
            [later.answer(), later.answer(), later.answer()],
            [Some(true), Some(false), None]
        );
    }
}

#[test]
fn there_is_room_for_so_many_segments_and_none_for_longer_ones() {
    let (mut later, mut port) = pair();
    assert!(!later.give(&[0; 4096], 0));
    let given = (0..2 * IN_SLOTS).filter(|_| later.give(b"x", 0)).count();
    assert_eq!(given, IN_SLOTS as usize);
    later.publish();
    let mut batch = Vec::new();
    port.receive(&mut batch, 1);
    port.recycle(batch.remove(0));
    port.flush();
    assert!(!later.give(b"x", 0), "before the answer was seen");
    assert_eq!(later.answer(), Some(true));
    assert!(later.give(b"x", 0) && !later.give(b"x", 0));
}

#[test]
fn frames_go_the_other_way_and_the_last_room_is_for_what_ends_work() {
    let (mut later, mut port) = pair();
    port.leave_by(2);
    let sent = (0..2 * OUT_SLOTS)
        .filter(|&number| send(&mut port, number as u8, Purpose::Data))
        .count();
    assert!(sent < OUT_SLOTS as usize && !port.can_send());
    let more = (0..2 * OUT_SLOTS)
        .filter(|_| send(&mut port, 0, Purpose::Control))
        .count();
    assert_eq!(sent + more, OUT_SLOTS as usize);
    assert_eq!(
        port.counters().tx_refused,
        u64::from(4 * OUT_SLOTS) - u64::from(OUT_SLOTS)
    );
    assert!(!later.is_waiting(), "it was not told");
    port.flush();
    assert!(later.is_waiting());
    let mut taken = Vec::new();
    let count = later.take_frames(10, |bytes, device| {
        taken.push((bytes.to_vec(), device));
        taken.len() < 5
    });
    assert_eq!(count, 4, "the fifth was not taken");
    assert_eq!(taken[3], (vec![3], 2));
    later.publish();
    assert!(send(&mut port, 0, Purpose::Control));
    let mut rest = 0;
    port.flush();
    while later.take_frames(10, |_, _| true) > 0 {
        rest += 1;
    }
    assert!(rest > 0 && !later.is_waiting());
}

#[test]
fn a_process_that_takes_over_from_the_later_one_goes_on_where_that_was() {
    let (mut later, mut port) = pair();
    for octet in [1, 2] {
        assert!(send(&mut port, octet, Purpose::Control));
    }
    port.flush();
    assert_eq!(later.take_frames(1, |_, _| true), 1);
    assert!(later.give(b"old", 0));
    later.publish();
    let mut next = Later::new(Arc::clone(&later.relay));
    drop(later);
    assert_eq!(next.take_frames(9, |bytes, _| bytes == [2]), 1);
    assert_eq!(next.answer(), None, "what was given before is not its");
    assert!(next.give(b"new", 0));
    next.publish();
    let mut batch = Vec::new();
    port.receive(&mut batch, 9);
    let memory = port.relay();
    assert_eq!(RelayPort::contents(&memory, &batch[1]).bytes, b"new");
    assert!(next.answer().is_none() && !next.is_waiting(), "neither is answered");
    let new = batch.pop().expect("two");
    port.give_back(batch.pop().expect("two"));
    port.flush();
    assert!(
        next.answer().is_none() && !next.is_waiting(),
        "the old one's is not its"
    );
    port.recycle(new);
    port.flush();
    assert!(next.is_waiting());
    assert_eq!([next.answer(), next.answer()], [Some(true), None]);
}

#[test]
fn segments_of_a_process_before_that_are_unanswered_take_room_yet() {
    let (mut later, mut port) = pair();
    for _ in 0..IN_SLOTS - 1 {
        assert!(later.give(b"old", 0));
    }
    later.publish();
    let mut batch = Vec::new();
    port.receive(&mut batch, 9);
    let mut next = Later::new(Arc::clone(&later.relay));
    drop(later);
    assert!(next.give(b"new", 0));
    assert!(!next.give(b"new", 0), "the first of the old ones is being read");
    port.recycle(batch.remove(0));
    port.flush();
    assert!(next.give(b"new", 0) && !next.give(b"new", 0));
}

#[test]
fn indexes_are_compared_over_their_wrap() {
    for (index, other, before) in [
        (0, 0, false),
        (0, 1, true),
        (1, 0, false),
        (u32::MAX, 0, true),
        (0, u32::MAX, false),
        (u32::MAX - 1, 511, true),
    ] {
        assert_eq!(is_before(index, other), before, "{index} {other}");
    }
}

#[test]
fn memory_of_another_size_is_no_relay() {
    let relay = Relay::new(FRAME).expect("memory");
    let copies = relay
        .descriptors()
        .map(|fd| fd.try_clone_to_owned().expect("a descriptor"));
    assert!(Relay::open(copies, 10 * FRAME).is_err());
}

#[test]
fn who_sleeps_is_woken_by_what_the_other_side_does() {
    let (mut later, mut port) = pair();
    let (woken, poll) = (Poll::new().expect("an epoll"), Poll::new().expect("an epoll"));
    let long = Duration::from_secs(3600);
    later.give(b"early", 0);
    later.publish();
    assert!(
        !port.sleep(woken.as_raw_fd(), long).expect("no sleep"),
        "something waits already"
    );
    let mut batch = Vec::new();
    port.receive(&mut batch, 1);
    let sleeper = thread::spawn(move || {
        let slept = port.sleep(woken.as_raw_fd(), long);
        (port, slept)
    });
    while later.relay.header().earlier_sleeps.0.load(Ordering::Relaxed) == 0 {
        thread::yield_now();
    }
    later.give(b"late", 0);
    later.publish();
    let (mut port, slept) = sleeper.join().expect("it has not panicked");
    assert!(!slept.expect("a sleep") && port.has_received());

    let mut relays = Relays::<()>::default();
    assert!(relays.is_empty() && relays.is_quiet());
    let exchange = Arc::new(tidegate_exchange::Exchange::with_relayed(1, 1, 1, 1));
    relays = Relays::new(vec![RelayedShard::new(Some(later), 0, exchange, 1)], &poll).expect("an epoll");
    relays.announce_sleep();
    assert!(!relays.is_waiting());
    assert!(send(&mut port, 1, Purpose::Control));
    port.flush();
    let mut poll = poll;
    poll.poll(&mut Events::with_capacity(1), Some(long)).expect("a wake-up");
    relays.end_sleep();
    assert!(relays.is_waiting());
}
