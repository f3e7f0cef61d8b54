//! The addresses of listeners, which come and go.

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::application::ListenerId;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::engine::Engine;
use tidegate_tcp::wire::Options;

#[test]
fn only_addresses_that_are_set_are_served_and_what_is_open_goes_on() {
    let mut rig = Rig::new(config(), App::echo());
    rig.engine = Engine::new(config(), secrets(1), App::echo());
    let first = rig.engine.add_listener();
    let second = rig.engine.add_listener();
    assert_eq!([first, second], [ListenerId(0), ListenerId(1)]);
    rig.syn(Options::default());
    rig.nothing();
    assert_eq!(rig.count(Counter::DropNotListening), 1);

    // Several addresses of one listener.
    let (served, other) = (rig.key.peer(), "198.18.0.77:80".parse().unwrap());
    rig.engine.set_addresses(&[(other, second), (served, second)]);
    rig.connect();
    assert_eq!(rig.info().listener, Some(second));
    let listening = |rig: &Rig| {
        let all = rig.engine.connections().filter(|info| info.state == State::Listen);
        all.map(|info| (info.local, info.listener)).collect::<Vec<_>>()
    };
    assert_eq!(listening(&rig), [(other, Some(second)), (served, Some(second))]);

    // The connection goes on without its address, and nothing new comes to it.
    rig.engine.set_addresses(&[(other, first)]);
    assert_eq!(listening(&rig), [(other, Some(first))]);
    rig.peer(ACK, b"hello");
    assert_eq!(rig.one().payload, b"hello");
    rig.key.local_port += 1;
    rig.syn(Options::default());
    rig.nothing();
    assert_eq!(rig.count(Counter::DropNotListening), 2);

    // And again.
    rig.engine.set_addresses(&[(served, first)]);
    rig.connect();
    assert_eq!(rig.info().listener, Some(first));
}
