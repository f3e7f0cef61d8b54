//! Flows whose segments arrive on queues at random, in both directions, with two queues and with four.
//!
//! Between the two ends is the relay of `tidegate-bench link`. A socket of its kind has no queue of its own: every
//! frame leaves by one of those that XPS allows at that moment, which is another few every two milliseconds.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use tidegate_random::Random;

use crate::bench_clients::{measure, without_program};
use crate::fixture::client::{connect_echo, exchange_with_half_close, round_trip};
use crate::fixture::counters::{ABORTED, COOKIE_CONNECTIONS, HANDED_ON, PASSIVE_OPENS, RESET_BY_PEER, TIMED_OUT};
use crate::fixture::link::Link;
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, Lab, Place, Process, command, in_namespace, report, start};

/// Makes the relay's frames change queues: each of `$queues` queues of both its devices is given all CPUs or none, as a
/// coin falls. Where all have none, the kernel spreads flows by their hash. Reading from where nothing comes is how a
/// shell waits without another process.
const MOVE_FLOWS: &str = r#"
exec 3<> <(:)
cpus=$(nproc)
all=$(printf '%x' $(((1 << (cpus < 32 ? cpus : 32)) - 1)))
echo moving
while :; do
    for device in tgm0 tgm1; do
        for ((queue = 0; queue < queues; queue++)); do
            echo $((RANDOM & 1 ? all : 0)) >"/sys/class/net/$device/queues/tx-$queue/xps_cpus"
        done
    done
    read -rt 0.002 -u 3
done
"#;

/// Flows change queues until this is dropped. It cannot outlive its lab.
struct Moving<'lab> {
    _process: Process,
    _lab: PhantomData<&'lab Lab>,
}

impl<'lab> Moving<'lab> {
    fn start(_lab: &'lab Lab, queues: u32) -> Self {
        let mut command = command(Place::Middle, "bash");
        command.args(["-c", MOVE_FLOWS]).env("queues", queues.to_string());
        let mut process = start(command);
        process
            .wait_until_ready("moving", Duration::from_secs(10))
            .unwrap_or_else(|problem| panic!("{problem:#}"));
        Self {
            _process: process,
            _lab: PhantomData,
        }
    }
}

/// Acknowledgments of handshakes that may come when their connections have ended, on a machine that lets a queue wait
/// for long.
const MAX_OPENED_AGAIN: u64 = 3;

/// The server's address for client number `client`: both families in turn.
fn family(client: usize) -> IpAddr {
    BOTH_FAMILIES[client % BOTH_FAMILIES.len()]
}

/// Echoes over short connections, over long ones in many rounds, and of much at once, beside each other. Returns the
/// number of connections.
fn echo() -> u64 {
    const SHORT: usize = 4;
    const CONNECTIONS: usize = 60;
    const LONG: usize = 8;
    const ROUNDS: usize = 100;
    const BULK: usize = 2;
    const BULK_BYTES: usize = 4_000_000;
    let exchange = |client: usize, data: &[u8]| {
        let received = exchange_with_half_close(&connect_echo(family(client)), data, Duration::ZERO)
            .unwrap_or_else(|error| panic!("client {client}: {error}"));
        assert!(received == data, "client {client}: the echo differs");
    };
    let rounds = |client: usize, mut random: Random| {
        let stream = connect_echo(family(client));
        for round in 0..ROUNDS {
            let block = random.bytes(1 + (round * 97) % 5_000);
            let received =
                round_trip(&stream, &block).unwrap_or_else(|error| panic!("client {client}, round {round}: {error}"));
            assert!(received == block, "client {client}, round {round}: the echo differs");
        }
    };
    thread::scope(|scope| {
        for client in 0..SHORT {
            scope.spawn(move || {
                let data = Random::new(client as u64).bytes(9_000);
                for number in 0..CONNECTIONS {
                    exchange(client + number, &data[..number * 150]);
                }
            });
        }
        for client in 0..LONG {
            scope.spawn(move || rounds(client, Random::new(100 + client as u64)));
        }
        for client in 0..BULK {
            scope.spawn(move || exchange(client, &Random::new(200 + client as u64).bytes(BULK_BYTES)));
        }
    });
    (SHORT * CONNECTIONS + LONG + BULK) as u64
}

#[test]
fn flows_that_change_queues_at_random_lose_no_connection_and_no_byte() {
    for queues in [2, 4] {
        let Some(lab) = Lab::up_middle(queues) else { return };
        let _link = Link::start(&lab, &[]);
        let _moving = Moving::start(&lab, queues);
        for cookies in ["never", "always"] {
            let server = Server::start(&lab, &["--queues", &queues.to_string(), "--syn-cookies", cookies]);
            let connections = in_namespace(Place::Client, echo);
            let most = if cookies == "always" { MAX_OPENED_AGAIN } else { 0 };
            server.wait_until_nobody_is_connected(connections, most);
            let counters = server.stop();
            counters.expect_redirects_received();
            counters.expect_frames_whole();
            let handed = counters.expect_handovers_returned();
            let opened = counters.sum(PASSIVE_OPENS);
            assert!(
                (connections..=connections + most).contains(&opened),
                "{opened} of {connections}: {queues} queues, cookies {cookies}"
            );
            let by_cookie = if cookies == "always" { opened } else { 0 };
            assert_eq!(counters.sum(COOKIE_CONNECTIONS), by_cookie, "{queues} queues");
            // An ACK that the last one overtook is of no connection, and answered by a RST that nobody minds.
            for (name, most) in [(RESET_BY_PEER, 0), (ABORTED, opened - connections), (TIMED_OUT, 0)] {
                let count = counters.sum(name);
                assert!(count <= most, "{name}: {count}, {queues} queues, cookies {cookies}");
            }
            assert!(
                handed > 1_000,
                "{handed} segments handed over: flows stayed on their queues"
            );
            report(format_args!(
                "{queues} queues, cookies {cookies}: {connections} connections echoed, {handed} segments handed over, \
                 {} of them on to a third shard",
                counters.sum(HANDED_ON)
            ));
        }
    }
}

/// On the client's side too, segments arrive on queues at random.
#[test]
fn the_bypass_client_has_no_errors_while_its_flows_change_queues_at_random() {
    for (number, queues) in [2, 4].into_iter().enumerate() {
        let Some(lab) = Lab::up_middle(queues) else { return };
        without_program(&lab);
        let _link = Link::start(&lab, &[]);
        let _moving = Moving::start(&lab, queues);
        let server = Server::start(&lab, &["--queues", &queues.to_string()]);
        let workloads: [&[&str]; 3] = [
            &["cps", "--connections", "16"],
            &["rps", "--connections", "32"],
            &["throughput", "--direction", "down", "--connections", "4"],
        ];
        for workload in workloads {
            let times = ["--duration", "500ms", "--warm-up", "100ms"];
            measure(&[workload, &times].concat(), "bypass", family(number), number);
        }
        let counters = server.stop();
        counters.expect_redirects_received();
        counters.expect_frames_whole();
        let handed = counters.expect_handovers_returned();
        assert!(
            handed > 100,
            "{handed} segments handed over: flows stayed on their queues"
        );
        report(format_args!(
            "{queues} queues at both ends: {handed} segments handed over at the server"
        ));
    }
}
