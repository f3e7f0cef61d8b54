//! Addresses that come and go while the server runs, and listeners on all of them.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::fixture::client::{connect, curl, round_trip};
use crate::fixture::counters::{PASSED_NOT_SERVED, PASSIVE_OPENS};
use crate::fixture::server::Server;
use crate::fixture::{ECHO_PORT, Lab, Place, SERVER_DEVICE, in_namespace, ip, run, socket, url};

const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// More than Linux delays an acknowledgment (`TCP_DELACK_MAX`, 200 ms).
const DELAYED_ACK: Duration = Duration::from_millis(250);

fn address(action: &str, address: &str) {
    let arguments = ["address", action, address, "dev", SERVER_DEVICE];
    // An IPv6 address is usable at once.
    let more: &[&str] = if action == "add" && address.contains(':') {
        &["nodad"]
    } else {
        &[]
    };
    ip(Place::Server, &[&arguments[..], more].concat()).expect_success();
}

fn echo_connection(address: &str) -> TcpStream {
    let address = SocketAddr::new(address.parse().expect("an address"), ECHO_PORT);
    in_namespace(Place::Client, || connect(address))
}

/// Fetches the built-in page from `address`.
fn fetch(address: &str) {
    let mut command = curl();
    command.arg(url(address.parse().expect("an address"), "/"));
    run(command, COMMAND_LIMIT).expect_success();
}

#[test]
fn a_listener_on_all_addresses_follows_those_that_come_and_go() {
    let Some(lab) = Lab::up(2) else { return };
    let all = [
        "--listen",
        "http=0.0.0.0:80",
        "--listen",
        "http=[::]:80",
        "--listen",
        "echo=0.0.0.0:7",
    ];
    let server = Server::start(&lab, &all);
    for (added, prefix) in [("198.18.0.9", "32"), ("2001:2::9", "64")] {
        address("add", &format!("{added}/{prefix}"));
        let served = SocketAddr::new(added.parse().expect("an address"), 80);
        server.wait_for_log(&format!("{served} is served from now on"), 1);
        fetch(added);
    }
    let opened = server.counters().sum(PASSIVE_OPENS);
    assert_eq!(opened, 2, "the kernel answered, or somebody else");

    // A connection to it outlives its address.
    let connection = echo_connection("198.18.0.9");
    assert_eq!(round_trip(&connection, b"before").expect("an echo"), b"before");
    // The delayed acknowledgment of the echo: while the kernel has the address again and the server has not heard of
    // that, the kernel would answer it with a RST.
    thread::sleep(DELAYED_ACK);
    address("delete", "198.18.0.9/32");
    server.wait_for_log("198.18.0.9:7 is not served any more", 1);
    let passed = server.counters().sum(PASSED_NOT_SERVED);
    let refused = in_namespace(Place::Client, || {
        let address = SocketAddr::from(([198, 18, 0, 9], ECHO_PORT));
        socket::connect(address, Duration::from_millis(300))
    });
    assert!(refused.is_err(), "somebody answered");
    assert!(server.counters().sum(PASSED_NOT_SERVED) > passed, "the SYN was taken");
    address("add", "198.18.0.9/32");
    server.wait_for_log("198.18.0.9:7 is served from now on", 2);
    assert_eq!(round_trip(&connection, b"after").expect("an echo"), b"after");
    // The others were served all the time.
    fetch("198.18.0.1");
    drop(connection);
    server.wait_until_no_connection().expect_frames_whole();
    server.stop();
}

#[test]
fn a_listener_whose_address_is_lost_is_warned_of_and_served_again() {
    let Some(lab) = Lab::up(1) else { return };
    address("add", "198.18.0.8/32");
    let server = Server::start(&lab, &["--listen", "http=198.18.0.8:80"]);
    fetch("198.18.0.8");
    address("delete", "198.18.0.8/32");
    server.wait_for_log(
        "198.18.0.8:80 is not served any more, since the interface has lost the address; it is served again",
        1,
    );
    address("add", "198.18.0.8/32");
    server.wait_for_log("198.18.0.8:80 is served from now on", 1);
    fetch("198.18.0.8");
    assert_eq!(server.counters().sum(PASSIVE_OPENS), 2);
    server.stop();
}
