//! A server takes the interface over from one that runs, and clients notice nothing: `--take-over`.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::fixture::client::{connect_echo, round_trip};
use crate::fixture::counters::PASSIVE_OPENS;
use crate::fixture::data::directory;
use crate::fixture::server::{Server, default_arguments, serve_command};
use crate::fixture::{BOTH_FAMILIES, Lab, Place, in_namespace, report};

/// Connections of each family that are held over all take-overs.
const HELD: usize = 10;

/// Clients that connect all the time.
const CLIENTS: usize = 8;

/// Segments given to servers before.
const RELAYED: &str = "afxdp_relay_out";
const SENT_FOR_OTHERS: &str = "afxdp_relay_in";

fn start<'lab>(lab: &'lab Lab, socket: &Path) -> Server<'lab> {
    Server::start(lab, &["--take-over", socket.to_str().expect("a path in UTF-8")])
}

/// Waits until the server says that another has taken over.
fn wait_until_taken_over(server: &Server<'_>) {
    server.wait_for_line("tidegate: taken over");
}

fn hold() -> Vec<TcpStream> {
    in_namespace(Place::Client, || {
        let addresses = (0..HELD).flat_map(|_| BOTH_FAMILIES);
        addresses.map(connect_echo).collect()
    })
}

/// Sends over each of `connections` and reads it back.
fn expect_echo(connections: &[TcpStream], what: &str) {
    for stream in connections {
        let data = [7; 4000];
        let back = round_trip(stream, &data).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(back, data, "{what}");
    }
}

/// Connects, exchanges a little and closes, until `stop`. Returns the number of connections; any failure is a panic.
fn connect_until(stop: &AtomicBool) -> u64 {
    let mut connections = 0;
    while !stop.load(Ordering::Relaxed) {
        let stream = connect_echo(BOTH_FAMILIES[connections as usize % 2]);
        round_trip(&stream, b"request").unwrap_or_else(|error| panic!("connection {connections} failed: {error}"));
        connections += 1;
    }
    connections
}

/// Runs `work` while clients connect all the time.
fn under_load<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let stop = AtomicBool::new(false);
    let connections = AtomicU64::new(0);
    let result = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (stop, connections) = (&stop, &connections);
            scope.spawn(move || {
                let made = in_namespace(Place::Client, || connect_until(stop));
                connections.fetch_add(made, Ordering::Relaxed);
            });
        }
        let result = work();
        // The last of them have their time, too.
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        result
    });
    report(format_args!("{} connections, none failed", connections.into_inner()));
    result
}

#[test]
fn two_restarts_in_a_row_lose_no_connection_and_refuse_none() {
    let Some(lab) = Lab::up(2) else { return };
    let directory = directory();
    let socket = directory.path().join("take-over");
    let first = start(&lab, &socket);
    let mut held = vec![hold()];
    let mut servers = vec![first];
    under_load(|| {
        for _ in 0..2 {
            servers.push(start(&lab, &socket));
            wait_until_taken_over(&servers[servers.len() - 2]);
            for connections in &held {
                expect_echo(connections, "a connection of a server before");
            }
            held.push(hold());
        }
    });
    let last = servers.pop().expect("three servers");
    let counters = last.counters();
    assert!(counters.sum(RELAYED) > 0 && counters.sum(SENT_FOR_OTHERS) > 0);
    assert!(counters.sum(PASSIVE_OPENS) >= 2 * HELD as u64);
    // Those before end by themselves with their last connections, and the others go on.
    for server in servers {
        expect_echo(&held[0], "a connection of a server that is left");
        drop(held.remove(0));
        let finished = server.wait_for_end();
        assert!(finished.status.success(), "{}", finished.stderr);
    }
    expect_echo(&held[0], "a connection of the last server");
    drop(held);
    last.wait_until_no_connection();
    last.stop().expect_frames_whole();
}

#[test]
fn a_killed_server_takes_its_own_connections_with_it_and_no_others() {
    let Some(lab) = Lab::up(2) else { return };
    let directory = directory();
    let socket = directory.path().join("take-over");
    let first = start(&lab, &socket);
    let lost = hold();
    let second = start(&lab, &socket);
    wait_until_taken_over(&first);
    let kept = hold();
    expect_echo(&lost, "a connection of the first");
    first.kill();
    second.wait_for_log("has ended", 1);
    for stream in &lost {
        let error = round_trip(stream, b"anybody?").expect_err("nobody has it");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    expect_echo(&kept, "a connection of the second");
    expect_echo(&hold(), "a new connection");
    drop(kept);
    second.wait_until_no_connection();
    second.stop().expect_frames_whole();
}

#[test]
fn a_server_that_fails_to_take_over_leaves_the_one_before_as_it_was() {
    let Some(lab) = Lab::up(2) else { return };
    let directory = directory();
    let socket = directory.path().join("take-over");
    let server = start(&lab, &socket);
    let held = hold();
    // Nobody has reserved huge pages: it finds that out when the other has closed its sockets.
    let config = directory.path().join("tidegate.toml");
    std::fs::write(&config, "[afxdp]\nhuge_pages = true\n").expect("a file");
    let arguments = default_arguments(&[
        "--take-over",
        socket.to_str().expect("a path in UTF-8"),
        "--config",
        config.to_str().expect("a path in UTF-8"),
    ]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    under_load(|| {
        let problem = Server::try_start(&lab, serve_command(&arguments)).err();
        let problem = problem.expect("there are no huge pages");
        assert!(problem.contains("huge"), "{problem}");
        server.wait_for_log("has failed", 1);
        expect_echo(&held, "a connection from before");
    });
    // Another can take over yet.
    let next = start(&lab, &socket);
    wait_until_taken_over(&server);
    expect_echo(&held, "a connection of the first");
    drop(held);
    assert!(server.wait_for_end().status.success());
    next.wait_until_no_connection();
    let counters = next.stop();
    counters.expect_frames_whole();
}
