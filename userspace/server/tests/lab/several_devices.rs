//! Several interfaces in one server: each is served, one that goes leaves the others, and flows move between them.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpNoDelay;
use tidegate_random::Random;

use crate::fixture::client::{connect, connect_echo, exchange_with_half_close, round_trip};
use crate::fixture::counters::{HANDED_IN, PASSIVE_OPENS, RESET_BY_PEER, TIMED_OUT};
use crate::fixture::server::Server;
use crate::fixture::{ECHO_PORT, Lab, Place, SERVER_DEVICE, SERVER_V4, command, in_namespace, ip, report, run};

const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// The second veth pair.
const SECOND_SERVER_DEVICE: &str = "tgs1";
const SECOND_CLIENT_DEVICE: &str = "tgc1";
const SECOND_V4: &str = "198.18.1.1";
const SECOND_V6: &str = "2001:2:0:1::1";

fn run_ip(place: Place, arguments: &str) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    ip(place, &arguments).expect_success();
}

/// Joins the namespaces by another veth pair.
fn join_again(queues: u32) {
    let peer = crate::fixture::NAMESPACES.namespace(Place::Client);
    run_ip(
        Place::Server,
        &format!(
            "link add {SECOND_SERVER_DEVICE} numrxqueues {queues} numtxqueues {queues} type veth \
             peer name {SECOND_CLIENT_DEVICE} netns {peer} numrxqueues {queues} numtxqueues {queues}"
        ),
    );
    let ends = [
        (Place::Server, SECOND_SERVER_DEVICE, SECOND_V4, SECOND_V6),
        (Place::Client, SECOND_CLIENT_DEVICE, "198.18.1.2", "2001:2:0:1::2"),
    ];
    for (place, device, v4, v6) in ends {
        let mut ethtool = command(place, "ethtool");
        ethtool.args(["-K", device, "tx", "off", "tso", "off", "gso", "off"]);
        run(ethtool, COMMAND_LIMIT).expect_success();
        run_ip(place, &format!("address add {v4}/24 dev {device}"));
        run_ip(place, &format!("address add {v6}/64 dev {device} nodad"));
        run_ip(place, &format!("link set dev {device} up"));
    }
}

/// Starts a server on both devices, with the default listeners and echo on the second device's addresses.
fn start(lab: &Lab) -> Server<'_> {
    let second = [
        format!("echo={SECOND_V4}:{ECHO_PORT}"),
        format!("echo=[{SECOND_V6}]:{ECHO_PORT}"),
    ];
    Server::start(
        lab,
        &[
            "--iface",
            SECOND_SERVER_DEVICE,
            "--listen",
            &second[0],
            "--listen",
            &second[1],
        ],
    )
}

/// Frames that a device of the server has received.
fn frames_received(device: &str) -> u64 {
    let shown = ip(Place::Server, &["-s", "-o", "link", "show", "dev", device]).expect_success();
    let mut parts = shown
        .stdout
        .split('\\')
        .skip_while(|part| !part.trim_start().starts_with("RX:"));
    let numbers = parts.nth(1).unwrap_or_default();
    let packets = numbers.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    packets.unwrap_or_else(|| panic!("no statistics: {}", shown.describe()))
}

/// Sends what the client has for the lab's address by the first or the second pair.
fn route(second: bool) {
    let by = if second { "via 198.18.1.1 dev tgc1" } else { "dev tgc0" };
    run_ip(
        Place::Client,
        &format!("route replace {SERVER_V4}/32 {by} src 198.18.0.2"),
    );
}

#[test]
fn two_interfaces_are_served_and_one_that_is_deleted_leaves_the_other() {
    let Some(lab) = Lab::up(2) else { return };
    join_again(2);
    let server = start(&lab);
    let second: [IpAddr; 2] = [SECOND_V4, SECOND_V6].map(|address| address.parse().expect("an address"));
    let addresses = [SERVER_V4, crate::fixture::SERVER_V6, second[0], second[1]];
    let data = Random::new(3).bytes(30_000);
    let mut streams: Vec<_> = addresses
        .iter()
        .map(|&address| {
            let stream = in_namespace(Place::Client, || connect_echo(address));
            let received = round_trip(&stream, &data).unwrap_or_else(|error| panic!("{address}: {error}"));
            assert!(received == data, "{address}: the echo differs");
            stream
        })
        .collect();
    assert!(frames_received(SECOND_SERVER_DEVICE) > 20, "the test showed nothing");

    // With text of the server's under way by it.
    run_ip(Place::Client, &format!("link set dev {SECOND_CLIENT_DEVICE} down"));
    server.wait_for_log(&format!("interface {SECOND_SERVER_DEVICE} has lost its carrier"), 1);
    run_ip(Place::Server, &format!("link delete dev {SECOND_SERVER_DEVICE}"));
    server.wait_for_log(
        &format!("interface {SECOND_SERVER_DEVICE} is gone; the others are served on"),
        1,
    );
    for stream in &streams[..2] {
        let received = round_trip(stream, &data).expect("what is left is served on");
        assert!(received == data, "the echo differs");
    }
    let more = in_namespace(Place::Client, || connect_echo(SERVER_V4));
    let received = exchange_with_half_close(&more, &data, Duration::ZERO).expect("a new connection");
    assert!(received == data, "the echo of a new connection differs");
    streams.truncate(2);
    drop((streams, more));
    let counters = server.counters();
    counters.expect_frames_whole();
    assert_eq!(counters.sum(PASSIVE_OPENS), 5);

    // Of the last one there is no other.
    run_ip(Place::Server, &format!("link delete dev {SERVER_DEVICE}"));
    let finished = server.wait_for_end();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.describe());
    assert!(
        finished.stderr.contains("interface tgs0 is gone"),
        "{}",
        finished.describe()
    );
    assert!(
        finished
            .stdout
            .contains(&format!("frames, devices {SERVER_DEVICE} {SECOND_SERVER_DEVICE}")),
        "{}",
        finished.describe()
    );
}

#[test]
fn flows_that_move_from_one_interface_to_the_other_and_back_lose_no_byte() {
    const CLIENTS: usize = 8;
    const MOVES: usize = 20;
    let Some(lab) = Lab::up(2) else { return };
    join_again(2);
    lab.sysctl(Place::Client, "net.ipv4.conf.all.rp_filter", "0");
    lab.sysctl(Place::Client, "net.ipv4.conf.tgc0.rp_filter", "0");
    lab.sysctl(Place::Client, "net.ipv4.conf.tgc1.rp_filter", "0");
    let server = start(&lab);
    route(false);
    let exchanges = in_namespace(Place::Client, || {
        std::thread::scope(|scope| {
            let deadline = Instant::now() + Duration::from_secs(4);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn(move || {
                        let stream = connect(SocketAddr::new(SERVER_V4, ECHO_PORT));
                        setsockopt(&stream.as_fd(), TcpNoDelay, &true).expect("an option");
                        let mut random = Random::new(client as u64);
                        let mut exchanges = 0;
                        while Instant::now() < deadline {
                            let block = random.bytes(10_000);
                            let received = round_trip(&stream, &block)
                                .unwrap_or_else(|error| panic!("client {client}, exchange {exchanges}: {error}"));
                            assert!(
                                received == block,
                                "client {client}, exchange {exchanges}: the echo differs"
                            );
                            exchanges += 1;
                        }
                        exchanges
                    })
                })
                .collect();
            for turn in 0..MOVES {
                std::thread::sleep(Duration::from_millis(150));
                route(turn % 2 == 0);
            }
            // And with the first one down for good, without which nothing of them arrives.
            route(true);
            lab.set_server_link(false);
            clients
                .into_iter()
                .map(|client| client.join().expect("an echo"))
                .sum::<usize>()
        })
    });
    server.wait_until_no_connection();
    let (first, second) = (frames_received(SERVER_DEVICE), frames_received(SECOND_SERVER_DEVICE));
    assert!(
        first > 100 && second > 100,
        "{first} and {second} frames: the test showed nothing"
    );
    let counters = server.stop();
    counters.expect_frames_whole();
    assert_eq!(counters.sum(PASSIVE_OPENS), CLIENTS as u64, "connections accepted");
    for name in [RESET_BY_PEER, TIMED_OUT] {
        assert_eq!(counters.sum(name), 0, "{name}: connections that did not end in order");
    }
    report(format_args!(
        "{exchanges} exchanges of {CLIENTS} connections, {first} frames by one interface and {second} by the other, \
         {} handed over",
        counters.sum(HANDED_IN)
    ));
}
