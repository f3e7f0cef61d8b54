//! Answers by the kernel's routes: two routers beside the client, and a host behind both of them.
//!
//!     far 198.19.0.2 -- a -- 198.18.0.11 --+-- tgc0 | tgs0 198.18.0.1
//!                    -- b -- 198.18.0.12 --+
//!
//! Frames of the far host come by router a. The routers' devices are on the client's (macvlan), each with its own
//! Ethernet address.

use std::process::Command;
use std::time::{Duration, Instant};

use tidegate_random::Random;

use crate::fixture::counters::PASSIVE_OPENS;
use crate::fixture::data::{directory, sha256_of_file, write_file};
use crate::fixture::server::Server;
use crate::fixture::{
    BOTH_FAMILIES, Lab, NAMESPACES, Place, SERVER_DEVICE, SERVER_V4, command, ip, report, run, start, url,
};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const CLIENT_DEVICE: &str = "tgc0";
const FAR: &str = "198.19.0.2";
const BEHIND: &str = "198.19.0.0/16";
const ROUTERS: [(&str, &str, &str); 2] = [
    ("a", "198.18.0.11", "02:54:47:00:00:0a"),
    ("b", "198.18.0.12", "02:54:47:00:00:0b"),
];
const VIA_A: &str = "198.18.0.11";
const VIA_B: &str = "198.18.0.12";

/// Frames that are not a router's part of a transfer: of resolving addresses, and of what was on its way.
const FEW: u64 = 50;

const CHANGED: &str = "tcp_next_hop_changed";
const NO_ROUTE: &str = "tcp_next_hop_no_route";
const UNRESOLVED: &str = "tcp_next_hop_unresolved";

fn namespace(name: &str) -> String {
    format!("{}-{name}", NAMESPACES.name())
}

fn succeed(arguments: &str) -> String {
    let mut words = arguments.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    run(command, COMMAND_LIMIT).expect_success().stdout
}

/// The two routers and the far host. Dropping it removes them.
struct Routers;

impl Routers {
    fn up(_lab: &Lab) -> Self {
        let routers = Self;
        Self::remove();
        let (client, far) = (NAMESPACES.namespace(Place::Client), namespace("far"));
        succeed(&format!("ip netns add {far}"));
        succeed(&format!("ip -n {far} link set lo up"));
        succeed(&format!("ip -n {far} address add {FAR}/32 dev lo"));
        for (number, (name, address, mac)) in (1..).zip(ROUTERS) {
            let router = namespace(name);
            succeed(&format!("ip netns add {router}"));
            let on_client = format!("link add link {CLIENT_DEVICE} name near address {mac} netns {router}");
            succeed(&format!("ip -n {client} {on_client} type macvlan mode bridge"));
            succeed(&format!("ip -n {router} address add {address}/24 dev near"));
            succeed(&format!("ip -n {router} link set near up"));
            succeed(&format!(
                "ip -n {router} link add away type veth peer name to-{name} netns {far}"
            ));
            succeed(&format!("ip -n {router} address add 198.18.{number}.1/30 dev away"));
            succeed(&format!("ip -n {router} link set away up"));
            succeed(&format!("ip -n {far} address add 198.18.{number}.2/30 dev to-{name}"));
            succeed(&format!("ip -n {far} link set to-{name} up"));
            succeed(&format!("ip -n {router} route add {FAR} via 198.18.{number}.2"));
            let mut forward = Command::new("ip");
            forward.args(["netns", "exec", &router, "sh", "-c"]);
            forward.arg("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter");
            run(forward, COMMAND_LIMIT).expect_success();
        }
        succeed(&format!("ip -n {far} route add 198.18.0.0/24 via 198.18.1.1 src {FAR}"));
        routers
    }

    fn remove() {
        for name in ["a", "b", "far"] {
            let mut command = Command::new("ip");
            command.args(["netns", "delete", &namespace(name)]);
            // It is there after a test that was killed, or at the end.
            run(command, COMMAND_LIMIT);
        }
    }

    /// Frames that have come to each router from the server's side.
    fn frames(&self) -> [u64; 2] {
        ROUTERS.map(|(name, ..)| {
            let file = "/sys/class/net/near/statistics/rx_packets";
            let text = succeed(&format!("ip netns exec {} cat {file}", namespace(name)));
            text.trim().parse().expect("a number")
        })
    }

    /// Waits until at least `count` more frames have come to the router with this index, after a change at `since`.
    fn wait_for(&self, router: usize, count: u64, since: Instant) {
        let wanted = self.frames()[router] + count;
        while self.frames()[router] < wanted {
            assert!(
                since.elapsed() < Duration::from_secs(10),
                "nothing goes by router {router}"
            );
        }
        report(format_args!(
            "{count} frames by router {} within {:?}",
            ROUTERS[router].0,
            since.elapsed()
        ));
    }

    /// curl on the far host.
    fn curl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &namespace("far"),
            "curl",
            "-q",
            "--silent",
            "--show-error",
            "--fail",
        ]);
        command.args(["--noproxy", "*", "--max-time", "50"]).args(arguments);
        command
    }
}

impl Drop for Routers {
    fn drop(&mut self) {
        Self::remove();
    }
}

/// Has the server's kernel resolve a router's address.
fn resolve(router: &str) {
    let mut ping = command(Place::Server, "ping");
    ping.args(["-c", "1", "-W", "5", router]);
    run(ping, COMMAND_LIMIT).expect_success();
}

fn at_server(arguments: &str) {
    let words: Vec<&str> = arguments.split(' ').collect();
    ip(Place::Server, &words).expect_success();
}

#[test]
fn requests_come_by_one_router_and_answers_go_by_the_other() {
    const SIZE: usize = 10_000_000;
    let Some(lab) = Lab::up(1) else { return };
    let routers = Routers::up(&lab);
    at_server(&format!("route add {BEHIND} via {VIA_B}"));
    [VIA_A, VIA_B].into_iter().for_each(resolve);
    let root = directory();
    let expected = write_file(&mut Random::new(16), &root.path().join("large"), SIZE);
    let root_argument = root.path().to_string_lossy();
    let server = Server::start(&lab, &["--root", &root_argument, "--next-hop", "kernel"]);
    let received = root.path().join("received");
    let fetch = || {
        let output = received.to_string_lossy();
        run(
            routers.curl(&["--output", &output, &url(SERVER_V4, "/large")]),
            COMMAND_LIMIT,
        )
        .expect_success();
        assert_eq!(sha256_of_file(&received), expected);
    };

    let before = routers.frames();
    fetch();
    let after = routers.frames();
    let [by_a, by_b] = [after[0] - before[0], after[1] - before[1]];
    report(format_args!("{by_a} frames by router a, {by_b} by router b"));
    assert!(by_a < FEW && by_b > SIZE as u64 / 1500, "{by_a} by a, {by_b} by b");

    // Both ways of one route, each connection by one of them.
    at_server(&format!(
        "route replace {BEHIND} nexthop via {VIA_A} nexthop via {VIA_B}"
    ));
    let before = routers.frames();
    for _ in 0..16 {
        run(
            routers.curl(&["--output", "/dev/null", &url(SERVER_V4, "/large"), "--range", "0-99999"]),
            COMMAND_LIMIT,
        )
        .expect_success();
    }
    let after = routers.frames();
    let [by_a, by_b] = [after[0] - before[0], after[1] - before[1]];
    report(format_args!("{by_a} frames by router a, {by_b} by router b"));
    assert!(by_a > 60 && by_b > 60, "{by_a} by a, {by_b} by b");

    let counters = server.wait_until_no_connection();
    counters.expect_frames_whole();
    assert_eq!(counters.sum(PASSIVE_OPENS), 17);
    assert_eq!(counters.sum("tcp_aborted") + counters.sum("tcp_reset_by_peer"), 0);
    server.stop();
}

#[test]
fn an_open_transfer_follows_the_gateways_address_and_the_route() {
    const SIZE: usize = 60_000_000;
    let Some(lab) = Lab::up(1) else { return };
    let routers = Routers::up(&lab);
    at_server(&format!("route add {BEHIND} via {VIA_B}"));
    [VIA_A, VIA_B].into_iter().for_each(resolve);
    let root = directory();
    let expected = write_file(&mut Random::new(17), &root.path().join("large"), SIZE);
    let root_argument = root.path().to_string_lossy();
    let server = Server::start(&lab, &["--root", &root_argument, "--next-hop", "kernel"]);
    let received = root.path().join("received");
    let output = received.to_string_lossy();
    let transfer = start(routers.curl(&["--limit-rate", "15M", "--output", &output, &url(SERVER_V4, "/large")]));
    routers.wait_for(1, 500, Instant::now());

    let [(_, _, mac_a), (_, _, mac_b)] = ROUTERS;
    for (change, router) in [
        // The gateway's address is another router's now, and its own again.
        (
            format!("neighbour replace {VIA_B} lladdr {mac_a} dev {SERVER_DEVICE} nud permanent"),
            0,
        ),
        (
            format!("neighbour replace {VIA_B} lladdr {mac_b} dev {SERVER_DEVICE} nud permanent"),
            1,
        ),
        (format!("route replace {BEHIND} via {VIA_A}"), 0),
        (format!("route add 198.19.0.0/24 via {VIA_B}"), 1),
        (format!("route delete 198.19.0.0/24 via {VIA_B}"), 0),
    ] {
        at_server(&change);
        routers.wait_for(router, 500, Instant::now());
        // What was on its way has arrived; from here on none goes by the other.
        let other = routers.frames()[1 - router];
        routers.wait_for(router, 500, Instant::now());
        let late = routers.frames()[1 - router] - other;
        assert!(late < FEW, "{late} frames go by the other router after {change:?}");
    }
    transfer.wait(COMMAND_LIMIT).expect("it ends").expect_success();
    assert_eq!(sha256_of_file(&received), expected);
    let counters = server.wait_until_no_connection();
    counters.expect_frames_whole();
    assert!(counters.sum(CHANGED) >= 5, "{} changes", counters.sum(CHANGED));
    assert_eq!(counters.sum(PASSIVE_OPENS), 1);
    server.stop();
}

#[test]
fn without_a_next_hop_answers_go_back_and_neighbours_are_resolved() {
    let Some(lab) = Lab::up(1) else { return };
    let routers = Routers::up(&lab);
    let server = Server::start(&lab, &["--next-hop", "kernel"]);
    // No route to the far host.
    let far = || run(routers.curl(&[&url(SERVER_V4, "/")]), COMMAND_LIMIT).expect_success();
    let before = routers.frames();
    far();
    let counters = server.counters();
    assert!(counters.sum(NO_ROUTE) > 0);
    assert!(routers.frames()[0] > before[0], "they went back by router a");

    // A gateway of which nothing is known is resolved, and then used.
    at_server("neighbour flush all");
    at_server(&format!("route add {BEHIND} via {VIA_B}"));
    far();
    let began = Instant::now();
    loop {
        let before = routers.frames();
        far();
        let after = routers.frames();
        if after[1] > before[1] && after[0] == before[0] {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{before:?}, then {after:?}");
    }
    assert!(server.counters().sum(UNRESOLVED) > 0);

    // On the link, over both families.
    at_server("neighbour flush all");
    for address in BOTH_FAMILIES {
        let mut curl = crate::fixture::client::curl();
        curl.arg(url(address, "/"));
        run(curl, COMMAND_LIMIT).expect_success();
    }
    server.wait_until_no_connection();
    server.stop();
}
