//! The flow filter: segments of no flow stay in the XDP program, and those of clients do not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_random::Random;

use crate::fixture::client::{ClientTcp, connect_echo, exchange_with_half_close, round_trip};
use crate::fixture::counters::{
    COOKIE_CONNECTIONS, Counters, DROPPED_BAD_COOKIE, DROPPED_BAD_COOKIE_IN_XDP, DROPPED_NO_CONNECTION,
    DROPPED_NO_FLOW, HANDED_OUT, PASSIVE_OPENS, REDIRECTS, REDIRECTS_COOKIE, REDIRECTS_NO_FLOW, RSTS_OUT, RX_FRAMES,
};
use crate::fixture::data::directory;
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, ECHO_PORT, Lab, Place, in_namespace, report};
use crate::floods::flood;

/// Echoes over new connections, of both families in turn, until `ended`. Returns how many there were.
fn echo_until(ended: &AtomicBool) -> u64 {
    let mut served = 0;
    while !ended.load(Ordering::Relaxed) {
        let address = BOTH_FAMILIES[served as usize % BOTH_FAMILIES.len()];
        let stream = connect_echo(address);
        let received = exchange_with_half_close(&stream, b"echo", Duration::ZERO)
            .unwrap_or_else(|error| panic!("echo {served} at {address}: {error}"));
        assert_eq!(received, b"echo");
        served += 1;
    }
    served
}

/// The figures of floods of ACKs over both families, one after the other, while clients echo.
struct Flooded {
    /// ACKs of no flow.
    strays: u64,
    /// Connections of clients meanwhile.
    served: u64,
    counters: Counters,
}

fn flooded(config: &str) -> Option<Flooded> {
    let lab = Lab::up(2)?;
    let scratch = directory();
    let file = scratch.path().join("tidegate.toml");
    std::fs::write(&file, config).expect("writing the configuration");
    let server = Server::start(&lab, &["--queues", "2", "--config", &file.to_string_lossy()]);
    let ended = AtomicBool::new(false);
    let (strays, served) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| in_namespace(Place::Client, || echo_until(&ended)));
        let strays = BOTH_FAMILIES
            .into_iter()
            .map(|address| flood(address, "ack", &["--rate", "20k", "--duration", "2s"]))
            .map(|figures| figures["frames"].as_u64().expect("frames sent"))
            .sum();
        ended.store(true, Ordering::Relaxed);
        (strays, clients.join().expect("every client is served"))
    });
    server.wait_until_no_connection();
    let counters = server.stop();
    counters.expect_redirects_received();
    counters.expect_frames_whole();
    assert_eq!(counters.sum(PASSIVE_OPENS), served);
    assert!(served >= 20, "{served} connections beside {strays} ACKs");
    report(format_args!("{strays} ACKs of no flow, {served} connections meanwhile"));
    Some(Flooded {
        strays,
        served,
        counters,
    })
}

#[test]
fn a_flood_of_strays_stays_in_xdp_and_clients_are_served() {
    let Some(Flooded {
        strays,
        served,
        counters,
    }) = flooded("")
    else {
        return;
    };
    let (dropped, passed) = (counters.sum(DROPPED_NO_FLOW), counters.sum(REDIRECTS_NO_FLOW));
    // A busy machine loses some.
    assert!(dropped > strays / 2, "{dropped} dropped of {strays}");
    assert!(dropped + passed <= strays, "{dropped} and {passed} of {strays}");
    assert!(passed > 0 && counters.sum(RSTS_OUT) > 0, "none was answered");
    assert!(counters.sum(RSTS_OUT) <= passed);
    let handed_out = counters.sum(HANDED_OUT);
    assert!(
        handed_out <= served,
        "{handed_out} segments visited another shard, with {served} connections"
    );
    report(format_args!(
        "{dropped} dropped, {passed} given to the shards, {handed_out} handed over"
    ));
}

#[test]
fn without_the_filter_strays_reach_the_shards() {
    let Some(Flooded { strays, counters, .. }) = flooded("[afxdp]\nflow_filter = false\n") else {
        return;
    };
    for name in [DROPPED_NO_FLOW, DROPPED_BAD_COOKIE_IN_XDP, REDIRECTS_NO_FLOW] {
        assert_eq!(counters.sum(name), 0, "{name}");
    }
    let redirected = counters.sum(REDIRECTS);
    assert!(redirected > strays / 2, "{redirected} of {strays}");
    let reached = counters.sum(DROPPED_NO_CONNECTION) + counters.sum(RSTS_OUT);
    // What was sent again, on a busy machine, may be acknowledged once more when its connection has ended.
    let sent_again: u64 = ["tcp_rto_retransmits", "tcp_fast_retransmits", "tcp_syn_ack_retransmits"]
        .into_iter()
        .map(|name| counters.sum(name))
        .sum();
    assert!(
        reached > strays / 4 && reached <= strays + sent_again,
        "{reached} of {strays} reached an engine, of {} frames, with {sent_again} segments sent again",
        counters.sum(RX_FRAMES)
    );
}

#[test]
fn what_follows_a_cookie_in_one_burst_is_not_lost() {
    /// Connections of each family.
    const CONNECTIONS: u64 = 50;
    /// Less than ten full segments, which is what a client may send at once.
    const BURST: usize = 14_000;
    const SEGMENTS: u64 = 10;
    let Some(lab) = Lab::up(2) else { return };
    let server = Server::start(&lab, &["--queues", "2", "--syn-cookies", "always"]);
    let data = Random::new(15).bytes(BURST);
    // Half of them acknowledge the SYN-ACK with the first of the segments, so that nothing is there before the rest.
    for acknowledges_with_text in [false, true] {
        let tcp = ClientTcp {
            acknowledges_with_text,
            ..ClientTcp::default()
        };
        in_namespace(Place::Client, || {
            for number in 0..CONNECTIONS {
                for address in BOTH_FAMILIES {
                    let stream = tcp.connect(SocketAddr::new(address, ECHO_PORT));
                    let received = round_trip(&stream, &data)
                        .unwrap_or_else(|error| panic!("connection {number} to {address}: {error}"));
                    assert!(received == data, "connection {number} to {address}: the echo differs");
                }
            }
        });
    }
    server.wait_until_no_connection();
    let counters = server.stop();
    counters.expect_redirects_received();
    let opened = 4 * CONNECTIONS;
    assert_eq!(counters.sum(COOKIE_CONNECTIONS), opened);
    assert!(counters.sum(REDIRECTS_COOKIE) >= opened);
    let strays = [REDIRECTS_NO_FLOW, DROPPED_NO_FLOW, DROPPED_BAD_COOKIE_IN_XDP].map(|name| counters.sum(name));
    let stray: u64 = strays.iter().sum();
    // Two handshakes may share a slot: then what follows one of them in its burst is stray.
    assert!(stray < 2 * SEGMENTS, "{stray} segments were stray: {strays:?}");
    assert_eq!(counters.sum(RSTS_OUT), 0, "connections reset");
    assert_eq!(
        counters.sum(DROPPED_BAD_COOKIE),
        0,
        "acknowledgments refused by a shard"
    );
    report(format_args!(
        "{opened} bursts after a cookie, {stray} segments stray, {} found the cookie genuine",
        counters.sum(REDIRECTS_COOKIE)
    ));
}
