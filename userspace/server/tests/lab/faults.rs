//! Faults from outside: a killed server, a link that goes down, a stop in mid-transfer, wrong
//! arguments.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tidegate_random::Random;

use crate::fixture::client::{bench_load, connect, curl_to};
use crate::fixture::data::{directory, sha256_of_file, write_file};
use crate::fixture::server::{Server, default_arguments, serve_command};
use crate::fixture::{HTTP_PORT, Lab, Place, SERVER_DEVICE, SERVER_V4, in_namespace, report, run, start, url};

const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Fetches the built-in page into `scratch`.
fn fetch_page(scratch: &Path) {
    let page = scratch.join("page");
    run(curl_to(&url(SERVER_V4, "/"), &page), COMMAND_LIMIT).expect_success();
}

/// Waits until `path` has at least `length` bytes.
fn wait_for_length(path: &Path, length: u64) {
    let deadline = Instant::now() + COMMAND_LIMIT;
    while std::fs::metadata(path).map_or(0, |metadata| metadata.len()) < length {
        assert!(Instant::now() < deadline, "{} stays short", path.display());
        std::thread::sleep(POLL);
    }
}

#[test]
fn kill_9_under_load_leaves_no_program_and_a_new_start_serves() {
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let mut server = Server::start(&lab, &[]);
    assert!(lab.xdp_attached(), "`ip -d link` shows the program of a running server");
    let load = start(bench_load(&url(SERVER_V4, "/"), 50, 4));
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        server.ended().is_none(),
        "the server ended by itself: {}",
        server.describe()
    );

    let killed = Instant::now();
    server.kill();
    while lab.xdp_attached() {
        assert!(
            killed.elapsed() < Duration::from_secs(1),
            "an XDP program is attached a second after kill -9"
        );
        std::thread::sleep(POLL);
    }
    let gone = killed.elapsed();

    let restarted = Instant::now();
    let server = Server::start(&lab, &[]);
    fetch_page(scratch.path());
    report(format_args!(
        "kill -9 under load: no program after {gone:.1?}, serving again after {:.1?}",
        restarted.elapsed()
    ));
    // It is not known how the load generator judges a server that was killed.
    drop(load);
    server.stop();
    assert!(!lab.xdp_attached(), "a program is attached after an orderly stop");
}

#[test]
fn a_transfer_survives_its_link_going_down_and_up() {
    const SIZE: usize = 40_000_000;
    const DOWN: Duration = Duration::from_millis(1500);
    let Some(lab) = Lab::up(1) else { return };
    let root = directory();
    let expected = write_file(&mut Random::new(3), &root.path().join("file"), SIZE);
    let root_argument = root.path().to_string_lossy();
    let mut server = Server::start(&lab, &["--root", &root_argument]);
    let received = root.path().join("received");
    let mut command = curl_to(&url(SERVER_V4, "/file"), &received);
    command.args(["--limit-rate", "15M"]);
    let transfer = start(command);
    wait_for_length(&received, 4_000_000);
    lab.set_server_link(false);
    std::thread::sleep(DOWN);
    let length = std::fs::metadata(&received).map_or(0, |metadata| metadata.len());
    assert!(length < SIZE as u64, "the transfer was over before the link came back");
    lab.set_server_link(true);
    let up = Instant::now();
    transfer
        .wait(COMMAND_LIMIT)
        .unwrap_or_else(|problem| panic!("the transfer did not resume: {problem}"))
        .expect_success();
    assert_eq!(sha256_of_file(&received), expected);
    assert!(server.ended().is_none(), "the server ended: {}", server.describe());
    report(format_args!(
        "link down for {DOWN:?} in mid-transfer: {SIZE} bytes equal, {:.1?} after it came back",
        up.elapsed()
    ));
    server.stop();
}

#[test]
fn sigterm_finishes_what_is_open_and_closes_what_is_idle() {
    const SIZE: usize = 24_000_000;
    let Some(lab) = Lab::up(1) else { return };
    let root = directory();
    let expected = write_file(&mut Random::new(5), &root.path().join("file"), SIZE);
    let root_argument = root.path().to_string_lossy();
    let server = Server::start(&lab, &["--root", &root_argument, "--drain", "12s"]);
    let http = SocketAddr::new(SERVER_V4, HTTP_PORT);
    let mut idle = in_namespace(Place::Client, || connect(http));
    let received = root.path().join("received");
    let mut command = curl_to(&url(SERVER_V4, "/file"), &received);
    command.args(["--limit-rate", "8M"]);
    let transfer = start(command);
    wait_for_length(&received, 1_000_000);

    let stopping = server.begin_stop();
    let asked = Instant::now();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest)
        .unwrap_or_else(|error| panic!("the idle connection was not closed in order: {error}"));
    assert_eq!(rest, b"", "bytes on a connection that asked for nothing");
    let idle_closed = asked.elapsed();
    drop(idle);
    transfer
        .wait(COMMAND_LIMIT)
        .unwrap_or_else(|problem| panic!("the transfer was not finished: {problem}"))
        .expect_success();
    assert_eq!(sha256_of_file(&received), expected);
    stopping.finish();
    report(format_args!(
        "SIGTERM: idle connection closed after {idle_closed:.1?}, transfer of {SIZE} bytes \
         finished and exit 0 after {:.1?}",
        asked.elapsed()
    ));
    assert!(!lab.xdp_attached(), "a program is attached after the stop");
}

#[test]
fn a_stop_without_draining_resets_every_connection_before_the_server_ends() {
    // More than the engine resets in a few calls.
    const CONNECTIONS: u64 = 800;
    let Some(lab) = Lab::up(2) else { return };
    let server = Server::start(&lab, &["--drain", "0s"]);
    let http = SocketAddr::new(SERVER_V4, HTTP_PORT);
    let mut streams: Vec<_> = in_namespace(Place::Client, || (0..CONNECTIONS).map(|_| connect(http)).collect());
    for stream in &mut streams {
        // Within a head, where draining does not end it.
        stream.write_all(b"GET / HT").expect("room for a few bytes");
    }
    let deadline = Instant::now() + COMMAND_LIMIT;
    while server.counters().sum("tcp_bytes_in") < CONNECTIONS * 8 {
        assert!(Instant::now() < deadline, "not all requests arrive");
        std::thread::sleep(POLL);
    }
    let counters = server.stop();
    assert_eq!(counters.sum("tcp_aborted"), CONNECTIONS);
    for (number, mut stream) in streams.into_iter().enumerate() {
        let error = stream.read(&mut [0; 8]).expect_err("no text");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "connection {number}: {error}");
    }
    assert!(!lab.xdp_attached(), "a program is attached after the stop");
}

/// Runs `tidegate serve` with `arguments`, which must end with `code` and a message that holds
/// `fragment`.
fn expect_refusal(arguments: &[&str], code: i32, fragment: &str) {
    let finished = run(serve_command(arguments), COMMAND_LIMIT);
    let message = finished.stderr.to_lowercase();
    assert!(
        finished.status.code() == Some(code) && message.contains(fragment),
        "exit code {code} and {fragment:?} were expected of {}",
        finished.describe()
    );
    report(format_args!(
        "exit {code}: {}",
        finished.stderr.lines().next().unwrap_or_default()
    ));
}

#[test]
fn a_second_server_on_the_interface_is_refused_and_the_first_serves_on() {
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let server = Server::start(&lab, &[]);
    let arguments = default_arguments(&[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    expect_refusal(&arguments, 1, "already attached");
    fetch_page(scratch.path());
    server.stop();
}

#[test]
fn wrong_arguments_are_refused_with_a_sentence_and_leave_no_program() {
    const HTTP: &str = "http=198.18.0.1:80";
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let config = scratch.path().join("tidegate.toml");
    std::fs::write(&config, "no_such_key = 1\n")
        .unwrap_or_else(|error| panic!("writing {}: {error}", config.display()));
    let config: &str = &config.to_string_lossy();

    let serve = ["--iface", SERVER_DEVICE, "--listen", HTTP];
    let with = |extra: &[&'static str]| [&serve[..], extra].concat();
    expect_refusal(&["--iface", "nosuch0", "--listen", HTTP], 1, "nosuch0");
    expect_refusal(&["--iface", SERVER_DEVICE, "--listen", "http=198.18.0.1:0"], 2, "port");
    expect_refusal(
        &["--iface", SERVER_DEVICE, "--listen", "http=198.18.0.99:80"],
        1,
        "198.18.0.99",
    );
    expect_refusal(&with(&["--queues", "9"]), 1, "queue");
    expect_refusal(&with(&["--xdp-mode", "warp"]), 2, "warp");
    expect_refusal(&[&serve[..], &["--config", config][..]].concat(), 2, "no_such_key");
    lab.set_server_link(false);
    expect_refusal(&with(&[]), 1, "down");
    assert!(!lab.xdp_attached(), "a refused start left a program attached");
}
