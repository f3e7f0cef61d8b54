//! A server takes the interface over from one that runs, and clients notice nothing: `--take-over`.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fixture::client::{connect_echo, round_trip};
use crate::fixture::counters::PASSIVE_OPENS;
use crate::fixture::data::directory;
use crate::fixture::server::{Server, default_arguments, serve_command};
use crate::fixture::{
    BOTH_FAMILIES, ECHO_PORT, HTTP_PORT, Lab, Place, SERVER_DEVICE, SERVER_V4, SERVER_V6, in_namespace, report, socket,
};

/// Connections of each family that are held over all take-overs.
const HELD: usize = 10;

/// Clients that connect all the time.
const CLIENTS: usize = 8;

/// Segments given to servers before.
const RELAYED: &str = "afxdp_relay_out";
const SENT_FOR_OTHERS: &str = "afxdp_relay_in";

/// The time after which a SYN was not answered.
const NO_ANSWER: Duration = Duration::from_millis(300);

/// Several checks of a server.
const SOME_CHECKS: Duration = Duration::from_secs(1);

const LIMIT: Duration = Duration::from_secs(10);

fn start<'lab>(lab: &'lab Lab, socket: &Path) -> Server<'lab> {
    start_with(lab, socket, &[])
}

fn start_with<'lab>(lab: &'lab Lab, socket: &Path, extra: &[&str]) -> Server<'lab> {
    let arguments = ["--take-over", text(socket)];
    Server::start(lab, &[&arguments, extra].concat())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Starts a server that fails to take over, by a configuration with `more`. Nobody has reserved huge pages, which it
/// finds out when the other has closed its sockets.
fn fail_to_take_over(lab: &Lab, socket: &Path, more: &str) {
    let config = socket.with_file_name("failing.toml");
    fs::write(&config, format!("[afxdp]\nhuge_pages = true\n{more}")).expect("a file");
    let arguments = default_arguments(&["--take-over", text(socket), "--config", text(&config)]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let problem = Server::try_start(lab, serve_command(&arguments)).err();
    let problem = problem.expect("there are no huge pages");
    assert!(problem.contains("huge"), "{problem}");
}

/// Connects, or finds that nobody answers or that it is refused.
fn try_connect(address: SocketAddr) -> io::Result<TcpStream> {
    in_namespace(Place::Client, || socket::connect(address, NO_ANSWER))
}

/// Whether a process has a link of an XDP program.
fn has_link(server: &Server<'_>) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", server.pid())).expect("it runs");
    descriptors.flatten().any(|descriptor| {
        let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
        text.contains("link_type:\txdp")
    })
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
    let mut servers = vec![start(&lab, &socket)];
    let mut held = vec![hold()];
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

/// The program goes on naming the shard that is to have the connection of a cookie as long as the connection lasts,
/// and shards of all servers have the same numbers.
#[test]
fn connections_made_by_cookies_are_those_of_the_server_that_made_them() {
    let Some(lab) = Lab::up(2) else { return };
    let directory = directory();
    let socket = directory.path().join("take-over");
    let always = ["--syn-cookies", "always"];
    let first = start_with(&lab, &socket, &always);
    let mut held = vec![hold()];
    fail_to_take_over(&lab, &socket, "");
    first.wait_for_log("has failed", 1);
    expect_echo(&held[0], "a connection from before a failure");
    held.push(hold());
    let second = start_with(&lab, &socket, &always);
    wait_until_taken_over(&first);
    for connections in &held {
        expect_echo(connections, "a connection of the first");
    }
    let of_the_second = hold();
    drop(held);
    assert!(first.wait_for_end().status.success());
    expect_echo(&of_the_second, "a connection of the second");
    drop(of_the_second);
    second.wait_until_no_connection();
    second.stop().expect_frames_whole();
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
    under_load(|| {
        fail_to_take_over(&lab, &socket, "");
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

#[test]
fn a_server_that_took_over_goes_on_as_it_was_when_others_with_other_settings_fail_to() {
    let Some(lab) = Lab::up(2) else { return };
    let directory = directory();
    let socket = directory.path().join("take-over");
    let first = start(&lab, &socket);
    let mut held = vec![hold()];
    let second = start(&lab, &socket);
    wait_until_taken_over(&first);
    held.push(hold());
    under_load(|| {
        for failures in 1..=2 {
            let deny_all = "[sources]\ndeny = [\"0.0.0.0/0\", \"::/0\"]\n[syn_cookies]\nmode = \"always\"\n";
            fail_to_take_over(&lab, &socket, deny_all);
            second.wait_for_log("has failed", failures);
            for connections in &held {
                expect_echo(connections, "a connection from before");
            }
        }
    });
    let third = start(&lab, &socket);
    wait_until_taken_over(&second);
    held.push(hold());
    for (server, connections) in [first, second].into_iter().zip(held.drain(..2)) {
        expect_echo(&connections, "a connection of a server before");
        drop(connections);
        assert!(server.wait_for_end().status.success());
    }
    expect_echo(&held[0], "a connection of the third");
    drop(held);
    third.wait_until_no_connection();
    third.stop().expect_frames_whole();
}

#[test]
fn rules_by_source_are_those_of_the_server_that_serves() {
    let Some(lab) = Lab::up(2) else { return };
    let directory = directory();
    let socket = directory.path().join("take-over");
    let mut before: Option<Server<'_>> = None;
    for (denied, extra) in [
        (Some(SERVER_V4), &["--deny", "198.18.0.0/15"][..]),
        (Some(SERVER_V6), &["--deny", "2001:2::/48"]),
        (None, &[]),
    ] {
        let server = start_with(&lab, &socket, extra);
        before.iter().for_each(wait_until_taken_over);
        for address in BOTH_FAMILIES {
            match try_connect(SocketAddr::new(address, ECHO_PORT)) {
                Ok(stream) => {
                    assert_ne!(denied, Some(address), "it is denied");
                    assert_eq!(round_trip(&stream, b"served").expect("an echo"), b"served");
                }
                Err(error) => {
                    assert_eq!(denied, Some(address), "{error}");
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                }
            }
        }
        before = Some(server);
    }
    before.expect("three servers").stop();
}

#[test]
fn listeners_that_a_reload_or_a_restart_takes_away_are_the_kernels_when_the_servers_before_have_ended() {
    let Some(lab) = Lab::up(2) else { return };
    let directory = directory();
    let socket = directory.path().join("take-over");
    let config = directory.path().join("tidegate.toml");
    let write = |ports: &[u16]| {
        let listen = ports
            .iter()
            .flat_map(|&port| BOTH_FAMILIES.map(|address| format!("\"echo={}\"", SocketAddr::new(address, port))));
        let listen: Vec<String> = listen.collect();
        fs::write(&config, format!("listen = [{}]\n", listen.join(", "))).expect("a file");
    };
    write(&[ECHO_PORT, ECHO_PORT + 1]);
    let first = start(&lab, &socket);
    let held = hold();
    let arguments = [
        "--iface",
        SERVER_DEVICE,
        "--take-over",
        text(&socket),
        "--config",
        text(&config),
    ];
    let second = Server::run(&lab, serve_command(&arguments));
    wait_until_taken_over(&first);
    write(&[ECHO_PORT + 1]);
    second.signal(Signal::SIGHUP);
    second.wait_for_line("tidegate: reloaded");
    thread::sleep(SOME_CHECKS);
    // The second never listened for HTTP.
    let gone = [ECHO_PORT, HTTP_PORT].map(|port| BOTH_FAMILIES.map(|address| SocketAddr::new(address, port)));
    for &address in gone.as_flattened() {
        let error = try_connect(address).expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{address}: {error}");
    }
    expect_echo(&held, "a connection to an address that the later server does not serve");
    drop(held);
    assert!(first.wait_for_end().status.success());
    let deadline = Instant::now() + LIMIT;
    for &address in gone.as_flattened() {
        while try_connect(address).map_err(|error| error.kind()).err() != Some(ErrorKind::ConnectionRefused) {
            assert!(
                Instant::now() < deadline,
                "the kernel does not refuse: {}",
                second.describe()
            );
        }
    }
    second.stop();
}

#[test]
fn a_server_that_has_taken_over_serves_without_a_control_socket_if_that_cannot_be() {
    let Some(lab) = Lab::up(2) else { return };
    let directory = directory();
    let socket = directory.path().join("take-over");
    let control = directory.path().join("control");
    fs::write(&control, "no socket").expect("a file");
    let first = start(&lab, &socket);
    let held = hold();
    assert!(has_link(&first));
    let second = start_with(&lab, &socket, &["--control", text(&control)]);
    wait_until_taken_over(&first);
    second.wait_for_log("serves without it", 1);
    assert!(!has_link(&first), "the program could not be attached anew");
    assert!(has_link(&second) && lab.xdp_attached());
    expect_echo(&held, "a connection of the first");
    expect_echo(&hold(), "a connection of the second");
    drop(held);
    assert!(first.wait_for_end().status.success());
    second.stop();
}
