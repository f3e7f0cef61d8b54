//! Two queues, two shards: both work, and flows that change queues lose nothing.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use tidegate_random::Random;

use crate::fixture::client::{bench_echo, connect_echo, exchange_with_half_close, round_trip};
use crate::fixture::counters::{ABORTED, HANDED_IN, PASSIVE_OPENS, REDIRECTS, RESET_BY_PEER, RX_FRAMES, TIMED_OUT};
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, Lab, Place, in_namespace, report, start};

const QUEUES: [u32; 2] = [0, 1];

/// The server's address for client number `client`: both families in turn.
fn family(client: usize) -> IpAddr {
    BOTH_FAMILIES[client % BOTH_FAMILIES.len()]
}

#[test]
fn both_queues_carry_traffic_and_their_counters_add_up() {
    const CONNECTIONS: usize = 200;
    let Some(lab) = Lab::up(2) else { return };
    let server = Server::start(&lab, &["--queues", "2"]);
    let data = Random::new(2).bytes(50_000);
    in_namespace(Place::Client, || {
        for client in 0..CONNECTIONS {
            let stream = connect_echo(family(client));
            let received = exchange_with_half_close(&stream, &data, Duration::ZERO)
                .unwrap_or_else(|error| panic!("connection {client}: {error}"));
            assert!(received == data, "connection {client}: the echo differs");
        }
    });
    server.wait_until_no_connection();
    let counters = server.stop();
    let redirected = counters.expect_redirects_received();
    for queue in QUEUES {
        for name in [REDIRECTS, RX_FRAMES, PASSIVE_OPENS] {
            let value = counters.get(name, queue);
            assert!(value > 0, "{name} is zero on queue {queue}");
            report(format_args!("queue {queue}: {name} {value}"));
        }
    }
    assert_eq!(counters.queues(RX_FRAMES), QUEUES.into_iter().collect());
    assert_eq!(
        counters.sum(PASSIVE_OPENS),
        CONNECTIONS as u64,
        "connections accepted on both queues together"
    );
    report(format_args!(
        "{CONNECTIONS} connections, {redirected} frames over two queues"
    ));
}

#[test]
fn xps_in_mid_run_loses_no_connection_and_no_byte() {
    const CLIENTS: usize = 24;
    const ROUNDS: usize = 300;
    const BLOCK: usize = 1200;
    const BULK_CONNECTIONS: u32 = 4;
    const LIMIT: Duration = Duration::from_secs(60);
    let Some(lab) = Lab::up(2) else { return };
    let server = Server::start(&lab, &["--queues", "2"]);
    let bulk = start(bench_echo(BOTH_FAMILIES[0], 20_000_000, BULK_CONNECTIONS, 9));
    let rounds = AtomicUsize::new(0);

    // Linux moves a flow to another queue only while nothing of it is in flight, hence the pauses.
    let slow_client = |client: usize| {
        let stream = connect_echo(family(client));
        let mut random = Random::new(client as u64);
        for round in 0..ROUNDS {
            let block = random.bytes(BLOCK);
            let received =
                round_trip(&stream, &block).unwrap_or_else(|error| panic!("client {client}, round {round}: {error}"));
            assert!(received == block, "client {client}, round {round}: the echo differs");
            rounds.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
        }
        let rest = exchange_with_half_close(&stream, b"", Duration::ZERO)
            .unwrap_or_else(|error| panic!("client {client}, at its end: {error}"));
        assert!(rest.is_empty(), "client {client}: more came back than was sent");
    };
    let wait_for_rounds = |wanted: usize, clients: &ScopedJoinHandle<'_, ()>| {
        let deadline = Instant::now() + LIMIT;
        // Clients that have ended early panicked, and the scope passes that on.
        while rounds.load(Ordering::Relaxed) < wanted && !clients.is_finished() {
            assert!(Instant::now() < deadline, "the clients did not reach {wanted} rounds");
            std::thread::sleep(Duration::from_millis(10));
        }
    };

    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            in_namespace(Place::Client, || {
                std::thread::scope(|inside| {
                    for client in 0..CLIENTS {
                        let slow_client = &slow_client;
                        inside.spawn(move || slow_client(client));
                    }
                });
            });
        });
        wait_for_rounds(CLIENTS * ROUNDS / 4, &clients);
        lab.xps(true);
        wait_for_rounds(CLIENTS * ROUNDS * 3 / 4, &clients);
        lab.xps(false);
    });
    bulk.wait(LIMIT)
        .unwrap_or_else(|problem| panic!("the bulk echo beside them: {problem}"))
        .expect_success();

    server.wait_until_no_connection();
    let counters = server.stop();
    counters.expect_redirects_received();
    counters.expect_frames_whole();
    assert_eq!(
        counters.sum(PASSIVE_OPENS),
        CLIENTS as u64 + u64::from(BULK_CONNECTIONS),
        "connections accepted"
    );
    for name in [RESET_BY_PEER, ABORTED, TIMED_OUT] {
        assert_eq!(counters.sum(name), 0, "{name}: connections that did not end in order");
    }
    let handed = counters.sum(HANDED_IN);
    assert!(
        handed > 0,
        "no segment changed queues: XPS moved no flow, the test showed nothing"
    );
    report(format_args!(
        "XPS on and off in mid-run: {CLIENTS} slow echoes and a bulk one equal, \
         {handed} segments handed over"
    ));
}
