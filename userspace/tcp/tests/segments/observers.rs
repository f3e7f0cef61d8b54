//! The happenings that observers are told of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

use crate::common::*;
use tidegate_tcp::engine::{Happening, Observer};
use tidegate_tcp::wire::{FlowKey, Options};

/// Sends what it is told to a receiver, and is done when that is gone.
struct Told {
    tells: Sender<(u16, Happening)>,
    is_done: Arc<AtomicBool>,
}

impl Told {
    fn new(tells: Sender<(u16, Happening)>) -> Box<Self> {
        let is_done = Arc::default();
        Box::new(Self { tells, is_done })
    }
}

impl Observer for Told {
    fn observe(&mut self, key: &FlowKey, happening: Happening) {
        if self.tells.send((key.remote_port, happening)).is_err() {
            self.is_done.store(true, Ordering::Relaxed);
        }
    }

    fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }
}

fn observed(app: App) -> (Rig, Receiver<(u16, Happening)>) {
    let mut rig = Rig::new(config(), app);
    let (told, tells) = mpsc::channel();
    rig.engine.add_observer(Told::new(told));
    (rig, tells)
}

/// The events since the last call, in words.
fn words(tells: &Receiver<(u16, Happening)>) -> Vec<String> {
    let happenings = tells.try_iter().map(|(port, happening)| {
        assert_ne!(port, 0);
        match happening {
            Happening::State { from, to } => format!("{from} -> {to}"),
            other => format!("{other:?}"),
        }
    });
    happenings.collect()
}

#[test]
fn a_connection_is_told_from_its_syn_to_the_end_of_time_wait() {
    let (mut rig, tells) = observed(App::default());
    rig.connect_actively(Options::default());
    assert_eq!(words(&tells), ["CLOSED -> SYN-SENT", "SYN-SENT -> ESTABLISHED"]);
    rig.peer(ACK, b"text changes nothing");
    assert!(words(&tells).is_empty());
    rig.on_stream(|stream| stream.close());
    assert_eq!(words(&tells), ["ESTABLISHED -> FIN-WAIT-1"]);
    rig.sent();
    rig.ack += 1;
    rig.peer(ACK, b"");
    assert_eq!(words(&tells), ["FIN-WAIT-1 -> FIN-WAIT-2"]);
    rig.peer(FIN | ACK, b"");
    assert_eq!(words(&tells), ["FIN-WAIT-2 -> TIME-WAIT"]);
    rig.pass(config().msl * 2 + ms(1000));
    assert_eq!(words(&tells), ["TIME-WAIT -> CLOSED"]);
}

#[test]
fn a_handshake_that_is_given_up_is_told() {
    let (mut rig, tells) = observed(App::default());
    rig.syn(Options::default());
    rig.sent();
    rig.pass(ms(600_000));
    assert_eq!(words(&tells), ["LISTEN -> SYN-RECEIVED", "SYN-RECEIVED -> CLOSED"]);
}

#[test]
fn a_connection_that_is_older_than_its_observer_is_told_from_where_it_is() {
    let mut rig = Rig::new(config(), App::default());
    rig.connect();
    let (told, tells) = mpsc::channel();
    rig.engine.add_observer(Told::new(told));
    rig.peer(RST | ACK, b"");
    assert_eq!(words(&tells), ["ESTABLISHED -> CLOSED"]);
}

#[test]
fn timeouts_are_told_until_nobody_listens() {
    let (mut rig, tells) = observed(sender(100));
    rig.connect();
    rig.one();
    words(&tells);
    rig.wait(ms(5000)).expect("it is sent again");
    assert_eq!(words(&tells), ["Timeout"]);
    drop(tells);
    rig.wait(ms(5000)).expect("nobody is told, and all goes on");
}

#[test]
fn an_observer_that_is_done_goes_when_another_comes_though_nothing_happens() {
    let mut rig = Rig::new(config(), App::default());
    let (told, tells) = mpsc::channel();
    let observer = Told::new(told);
    let is_done = Arc::clone(&observer.is_done);
    rig.engine.add_observer(observer);
    rig.engine.add_observer(Told::new(mpsc::channel().0));
    assert_eq!(tells.try_recv(), Err(TryRecvError::Empty), "it is there");
    is_done.store(true, Ordering::Relaxed);
    rig.engine.add_observer(Told::new(mpsc::channel().0));
    assert_eq!(tells.try_recv(), Err(TryRecvError::Disconnected));
}
