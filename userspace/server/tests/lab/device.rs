//! Events of the interface while the server runs: deleted and made anew, moved, renamed, set down, changed.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fixture::client::{connect, connect_echo, curl_to, round_trip};
use crate::fixture::counters::{BYTES_IN, Counters, PASSIVE_OPENS};
use crate::fixture::data::directory;
use crate::fixture::server::{Server, serve_command};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::TcpMaxSeg;

use crate::fixture::{
    Finished, HTTP_PORT, Lab, NAMESPACES, Place, SERVER_DEVICE, SERVER_V4, command, in_namespace, ip, report, run,
    socket, url,
};

const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const CLIENT_DEVICE: &str = "tgc0";

/// Left to the kernel because no AF_XDP socket is on the queue.
const PASSED_NO_SOCKET: &str = "xdp_pass_no_socket";

/// Runs `ip link` on the server's side, which must succeed.
fn ip_link(arguments: &[&str]) {
    ip(Place::Server, &[&["link"], arguments].concat()).expect_success();
}

/// Gives both ends `queues` queues, which were fewer if `more`. With XDP a veth device has to receive on as many as its
/// peer sends on, at any time.
fn set_queues(queues: &str, more: bool) {
    for direction in if more { ["rx", "tx"] } else { ["tx", "rx"] } {
        for (place, device) in [(Place::Server, SERVER_DEVICE), (Place::Client, CLIENT_DEVICE)] {
            let mut ethtool = command(place, "ethtool");
            ethtool.args(["-L", device, direction, queues]);
            run(ethtool, COMMAND_LIMIT).expect_success();
        }
    }
}

/// Fetches the built-in page.
fn fetch_page(scratch: &Path) {
    run(curl_to(&url(SERVER_V4, "/"), &scratch.join("page")), COMMAND_LIMIT).expect_success();
}

/// Fails the test unless `finished` is the end of a server whose interface is gone.
fn expect_gone(finished: &Finished) {
    assert_eq!(finished.status.code(), Some(1), "{}", finished.describe());
    assert!(
        finished.stderr.contains("interface tgs0 is gone"),
        "{}",
        finished.describe()
    );
    let lines: Vec<&str> = finished.stdout.lines().collect();
    let counters = Counters::parse(&lines);
    assert_eq!(
        counters.sum(PASSIVE_OPENS),
        1,
        "the counters at the end: {}",
        finished.describe()
    );
}

#[test]
fn a_server_whose_interface_is_deleted_ends_with_an_error() {
    let Some(lab) = Lab::up(2) else { return };
    let scratch = directory();
    let server = Server::start(&lab, &[]);
    fetch_page(scratch.path());
    ip_link(&["delete", "dev", SERVER_DEVICE]);
    expect_gone(&server.wait_for_end());
}

#[test]
fn a_server_whose_interface_is_deleted_while_it_drains_waits_no_longer_and_ends_with_an_error() {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &["--drain", "300s"]);
    let http = SocketAddr::new(SERVER_V4, HTTP_PORT);
    let mut request = in_namespace(Place::Client, || connect(http));
    // Within a head, where draining does not end it.
    let begun = b"GET / HT";
    request.write_all(begun).expect("room for a few bytes");
    // A server that drains takes no more handshakes, and closes a connection on which nothing is asked.
    server.wait_for_counter(BYTES_IN, begun.len() as u64);
    let stopping = server.begin_stop();
    stopping.wait_until_draining();
    ip_link(&["delete", "dev", SERVER_DEVICE]);
    expect_gone(&stopping.wait_for_end());
}

#[test]
fn a_server_whose_interface_moves_to_another_namespace_ends_and_leaves_no_program_on_it() {
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let server = Server::start(&lab, &[]);
    fetch_page(scratch.path());
    ip_link(&[
        "set",
        "dev",
        SERVER_DEVICE,
        "netns",
        &NAMESPACES.namespace(Place::Client),
    ]);
    expect_gone(&server.wait_for_end());
    let shown = ip(Place::Client, &["-d", "link", "show", "dev", SERVER_DEVICE]).expect_success();
    assert!(!shown.stdout.contains("xdp"), "{}", shown.describe());
}

#[test]
fn a_server_that_is_to_wait_serves_again_on_an_interface_of_the_same_name() {
    let Some(lab) = Lab::up(2) else { return };
    let scratch = directory();
    let config = scratch.path().join("tidegate.toml");
    std::fs::write(&config, "[afxdp]\nlink_gone = \"wait\"\n").expect("a file");
    let server = Server::start(&lab, &["--config", &config.to_string_lossy()]);
    fetch_page(scratch.path());
    // With fewer queues, more, and none of its own connections left.
    for (times, queues) in [(1, "1"), (2, "2")] {
        ip_link(&["delete", "dev", SERVER_DEVICE]);
        server.wait_for_log("waiting until tgs0 can be served again", times);
        assert_eq!(server.counters().sum(PASSIVE_OPENS), times as u64, "while it waits");
        lab.script(&["remake", "--queues", queues]);
        server.wait_until_ready_again(times + 1);
        fetch_page(scratch.path());
    }
    assert!(lab.xdp_attached(), "no program on the new interface");
    let counters = server.wait_until_no_connection();
    counters.expect_frames_whole();
    assert_eq!(counters.sum(PASSIVE_OPENS), 3, "counted since the start");
    assert_eq!(counters.sum("http_requests"), 3, "counted since the start");

    // And it can be stopped while it waits.
    ip_link(&["delete", "dev", SERVER_DEVICE]);
    server.wait_for_log("waiting until tgs0 can be served again", 3);
    assert_eq!(server.stop().sum(PASSIVE_OPENS), 3);
}

#[test]
fn an_interface_that_comes_back_unusable_is_said_once_and_served_when_it_can_be() {
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let config = scratch.path().join("tidegate.toml");
    std::fs::write(&config, "[afxdp]\nlink_gone = \"wait\"\n").expect("a file");
    let server = Server::start(&lab, &["--config", &config.to_string_lossy()]);
    ip_link(&["delete", "dev", SERVER_DEVICE]);
    server.wait_for_log("waiting until tgs0 can be served again", 1);
    // There, but down; then up, but without the addresses.
    ip_link(&["add", SERVER_DEVICE, "type", "veth", "peer", "name", "tgs8"]);
    ip_link(&["set", "dev", SERVER_DEVICE, "addrgenmode", "none"]);
    server.wait_for_log("tgs0 is back, but cannot be served yet: interface tgs0 is down", 1);
    ip_link(&["set", "dev", SERVER_DEVICE, "up"]);
    server.wait_for_log("is not on interface tgs0", 1);
    // Some tries later.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(server.logged("interface tgs0 is down"), 1);
    assert_eq!(server.logged("is not on interface tgs0"), 1);
    ip_link(&["delete", "dev", SERVER_DEVICE]);
    lab.script(&["remake", "--queues", "1"]);
    server.wait_until_ready_again(2);
    fetch_page(scratch.path());
    server.stop();
}

#[test]
fn a_link_that_is_renamed_set_down_or_without_carrier_is_served_on_and_said() {
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let server = Server::start(&lab, &[]);
    let echo = in_namespace(Place::Client, || connect_echo(SERVER_V4));
    let exchange = |what: &str| {
        let block = what.as_bytes();
        let received = round_trip(&echo, block).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(received, block, "{what}");
    };
    exchange("before");

    lab.set_server_link(false);
    server.wait_for_log("interface tgs0 was set down", 1);
    ip_link(&["set", "dev", SERVER_DEVICE, "name", "tgs9"]);
    server.wait_for_log("interface tgs0 is called tgs9", 1);
    ip_link(&["set", "dev", "tgs9", "up"]);
    server.wait_for_log("interface tgs9 is up again", 1);
    exchange("under another name");

    ip(Place::Client, &["link", "set", "dev", CLIENT_DEVICE, "down"]).expect_success();
    server.wait_for_log("interface tgs9 has lost its carrier", 1);
    ip(Place::Client, &["link", "set", "dev", CLIENT_DEVICE, "up"]).expect_success();
    server.wait_for_log("interface tgs9 has a carrier again", 1);
    exchange("with a carrier again");

    // A program that is attached by a link is taken off by its owner only.
    let refused = ip(Place::Server, &["link", "set", "dev", "tgs9", "xdp", "off"]);
    assert!(!refused.status.success(), "{}", refused.describe());
    fetch_page(scratch.path());
    exchange("with its program");
    server.stop();
}

#[test]
fn a_carrier_that_comes_after_the_start_is_waited_for_and_said() {
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    ip(Place::Client, &["link", "set", "dev", CLIENT_DEVICE, "down"]).expect_success();
    let server = Server::start(&lab, &[]);
    server.wait_for_log("interface tgs0 has no carrier yet", 1);
    ip(Place::Client, &["link", "set", "dev", CLIENT_DEVICE, "up"]).expect_success();
    server.wait_for_log("interface tgs0 has a carrier now", 1);
    fetch_page(scratch.path());
    server.stop();
    let server = Server::start(&lab, &[]);
    fetch_page(scratch.path());
    assert_eq!(server.logged("carrier"), 0, "it was there: {}", server.describe());
    server.stop();
}

#[test]
fn frames_the_driver_counts_as_dropped_are_reported_by_its_own_names() {
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let ended = |arguments: &[&str], visit: &dyn Fn()| {
        let server = Server::start(&lab, arguments);
        visit();
        server.begin_stop().wait_for_end().stdout
    };
    let text = ended(&[], &|| fetch_page(scratch.path()));
    assert!(text.contains("\ndevice_reattached 0\n"), "{text}");
    assert!(!text.contains("\ndriver_"), "nothing was lost: {text}");
    // veth counts what the XDP program drops.
    let text = ended(&["--deny", "198.18.0.2"], &|| {
        let http = SocketAddr::new(SERVER_V4, HTTP_PORT);
        let limit = Duration::from_millis(500);
        let refused = in_namespace(Place::Client, || socket::connect(http, limit));
        assert!(refused.is_err(), "the client is denied");
    });
    let dropped = text
        .lines()
        .find_map(|line| line.strip_prefix("driver_rx_queue_0_xdp_drops "));
    let dropped: u64 = dropped.and_then(|count| count.parse().ok()).unwrap_or_default();
    assert!(dropped >= 1, "{text}");
}

#[test]
fn answers_that_the_other_end_of_a_veth_does_not_take_are_warned_of() {
    let Some(lab) = Lab::up(1) else { return };
    ip(Place::Client, &["link", "set", "dev", CLIENT_DEVICE, "xdp", "off"]).expect_success();
    let server = Server::start(&lab, &["--syn-cookies", "always"]);
    let http = SocketAddr::new(SERVER_V4, HTTP_PORT);
    let lost = "SYN-ACKs with cookies that the XDP program sent from tgs0, so that no connection is made by them";
    let begun = Instant::now();
    while server.logged(lost) == 0 {
        let refused = in_namespace(Place::Client, || socket::connect(http, Duration::from_millis(200)));
        assert!(refused.is_err(), "a veth that takes nothing by XDP took it");
        assert!(begun.elapsed() < COMMAND_LIMIT, "no warning: {}", server.describe());
    }
    server.stop();
}

#[test]
fn queues_added_during_the_run_are_warned_of_and_counted() {
    let Some(lab) = Lab::up(2) else { return };
    let scratch = directory();
    set_queues("1", false);
    let server = Server::start(&lab, &[]);
    fetch_page(scratch.path());
    assert_eq!(server.counters().queues(PASSED_NO_SOCKET).len(), 1);
    set_queues("2", true);
    server.wait_for_log("has 2 receive queues now, 1 before, and 1 are served", 1);
    server.wait_for_log("ethtool -L tgs0 combined 1", 1);
    // veth runs the program on queues that come later only after this.
    lab.set_server_link(false);
    lab.set_server_link(true);
    // Of so many connections some arrive on queue 1, where the kernel refuses them.
    let refused = in_namespace(Place::Client, || {
        let http = SocketAddr::new(SERVER_V4, HTTP_PORT);
        (0..32)
            .filter(|_| socket::connect(http, COMMAND_LIMIT).is_err())
            .count()
    });
    assert!(refused > 0, "all of them arrived on queue 0: the test showed nothing");
    let counters = server.counters();
    let passed = counters.get(PASSED_NO_SOCKET, 1);
    assert!(
        passed >= refused as u64,
        "{refused} connections refused, {passed} segments counted"
    );
    report(format_args!(
        "a queue more: {refused} of 32 connections refused, {passed} segments counted"
    ));
    // Also when it is taken away again.
    set_queues("1", false);
    server.wait_for_log("has 1 receive queues now, 2 before", 1);
    assert_eq!(server.stop().get(PASSED_NO_SOCKET, 1), passed);
}

#[test]
fn an_mtu_that_changes_during_the_run_is_warned_of() {
    let Some(lab) = Lab::up(1) else { return };
    // SYNs are answered by the engine, and by the XDP program.
    for cookies in ["never", "always"] {
        change_mtu(&lab, cookies);
    }
}

fn change_mtu(lab: &Lab, cookies: &str) {
    let server = Server::start(lab, &["--syn-cookies", cookies]);
    ip_link(&["set", "dev", SERVER_DEVICE, "mtu", "3000"]);
    server.wait_for_log(
        "has an MTU of 3000 now, 1500 before, and the frames take one of at most 1770",
        1,
    );
    server.wait_for_log("ip link set dev tgs0 mtu 1770", 1);
    ip_link(&["set", "dev", SERVER_DEVICE, "mtu", "1300"]);
    server.wait_for_log("has an MTU of 1300 now, 3000 before: new connections keep to it", 1);
    // The client's MSS is the server's, less the room for timestamps. The shards are told right after the log.
    std::thread::sleep(Duration::from_millis(500));
    let echo = in_namespace(Place::Client, || connect_echo(SERVER_V4));
    let mss = getsockopt(&echo, TcpMaxSeg).expect("the MSS of a connection");
    assert_eq!(mss, 1300 - 40 - 12, "with SYN cookies {cookies}");
    ip_link(&["set", "dev", SERVER_DEVICE, "mtu", "1500"]);
    server.wait_for_log("has an MTU of 1500 now, 1300 before", 1);
    server.stop();
}

#[test]
fn frames_are_as_large_as_the_mtu_needs_them() {
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    for (place, device) in [(Place::Server, SERVER_DEVICE), (Place::Client, CLIENT_DEVICE)] {
        ip(place, &["link", "set", "dev", device, "mtu", "3498"]).expect_success();
    }
    let server = Server::start(&lab, &[]);
    fetch_page(scratch.path());
    let echo = in_namespace(Place::Client, || connect_echo(SERVER_V4));
    let block = vec![b'x'; 30_000];
    let received = round_trip(&echo, &block).unwrap_or_else(|error| panic!("long segments: {error}"));
    assert!(received == block, "the echo differs");
    server.stop().expect_redirects_received();
}

#[test]
fn an_interface_without_ethernet_headers_is_refused() {
    let Some(_lab) = Lab::up(1) else { return };
    ip(Place::Server, &["tuntap", "add", "dev", "tgtun0", "mode", "tun"]).expect_success();
    ip(Place::Server, &["address", "add", "198.18.1.1/24", "dev", "tgtun0"]).expect_success();
    ip_link(&["set", "dev", "tgtun0", "up"]);
    let finished = run(
        serve_command(&["--iface", "tgtun0", "--listen", "http=198.18.1.1:80"]),
        COMMAND_LIMIT,
    );
    assert_eq!(finished.status.code(), Some(1), "{}", finished.describe());
    assert!(
        finished.stderr.contains("interface tgtun0 is not Ethernet"),
        "{}",
        finished.describe()
    );
}
