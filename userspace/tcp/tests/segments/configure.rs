//! Other settings for an engine that runs.

use std::time::Duration;

use crate::common::*;
use tidegate_tcp::State;
use tidegate_tcp::config::Config;
use tidegate_tcp::counters::Counter;
use tidegate_tcp::sources::SourceLimits;
use tidegate_tcp::wire::FlowKey;

#[test]
fn a_connection_goes_on_by_the_new_timeouts() {
    let mut rig = Rig::new(config(), App::echo());
    rig.connect();
    rig.engine.set_config(Config {
        user_timeout: Duration::from_secs(5),
        ..config()
    });
    // Never acknowledged; the default is two minutes.
    rig.peer(ACK, b"echoed");
    rig.sent();
    for _ in 0..60 {
        rig.pass(ms(100));
    }
    assert_eq!(rig.state(), None);
    assert_eq!(rig.count(Counter::TimedOut), 1);
}

#[test]
fn what_tables_were_made_by_and_options_negotiated_by_stays() {
    let before = config();
    let mut rig = Rig::new(before.clone(), App::default());
    rig.engine.set_config(Config {
        mtu: 9000,
        outer_headers: 20,
        max_connections: 7,
        max_half_open: 7,
        max_time_wait: 7,
        receive_buffer: 1 << 20,
        receive_buffer_initial: 4096,
        ecn: !before.ecn,
        nagle: !before.nagle,
        ..before.clone()
    });
    let expected = Config {
        nagle: !before.nagle,
        ..before
    };
    assert_eq!(*rig.engine.config(), expected);
}

#[test]
fn a_new_rate_of_resets_counts_at_once() {
    let mut rig = Rig::new(config(), App::default());
    rig.engine.set_config(Config {
        rst_rate: 0,
        ..config()
    });
    rig.peer(ACK, b"");
    rig.nothing();
    rig.engine.set_config(config());
    rig.peer(ACK, b"");
    assert!(rig.one().flags.contains(RST));
}

#[test]
fn sources_with_more_than_a_new_limit_keep_what_they_have_and_get_no_more() {
    let mut rig = Rig::new(config(), App::default());
    let connect = |rig: &mut Rig, port: u16| {
        rig.key = FlowKey::new(format!("198.18.0.2:{port}").parse().unwrap(), rig.key.peer());
        rig.syn(with_sack());
        if let Some(syn_ack) = rig.sent().first() {
            rig.ack = syn_ack.seq + 1;
        }
        rig.peer(ACK, b"");
        rig.sent();
        rig.state() == Some(State::Established)
    };
    assert!(connect(&mut rig, 1) && connect(&mut rig, 2));
    rig.engine.change_source_limits(SourceLimits {
        max_connections: 1,
        // What a source is stays.
        prefix_v4: 0,
        ..SourceLimits::default()
    });
    assert!(!connect(&mut rig, 3));
    assert_eq!(rig.engine.population().connections, 2);
    assert_eq!(rig.count(Counter::DropSourceConnections), 1);
}
