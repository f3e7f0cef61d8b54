//! SYN cookies and what is done by source, with Linux clients.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tidegate_random::Random;

use crate::fixture::client::{connect_echo, curl_to, exchange_with_half_close, round_trip};
use crate::fixture::counters::{
    COOKIE_CONNECTIONS, COOKIES_ACTIVE, COOKIES_STRONG, COOKIES_TURNED_OFF, COOKIES_TURNED_ON, Counters,
    DROPPED_BAD_COOKIE, DROPPED_BAD_COOKIE_IN_XDP, DROPPED_SOURCE_DENIED, DROPPED_SYN_RATE, PASSIVE_OPENS,
    REDIRECTS_NO_FLOW, SYN_COOKIES_SENT, SYNS_IN,
};
use crate::fixture::data::directory;
use crate::fixture::server::{Server, default_arguments, serve_command};
use crate::fixture::{
    BOTH_FAMILIES, ECHO_PORT, Lab, Place, SERVER_V4, SERVER_V6, in_namespace, report, run, socket, url,
};
use crate::floods::flood;

const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// Writes `content` to the file `name` in `directory`, readable by its owner alone, and returns its path.
fn private_file(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
    set_mode(&path, 0o600);
    path.to_string_lossy().into_owned()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .unwrap_or_else(|error| panic!("chmod {mode:o} {}: {error}", path.display()));
}

/// Connects to the echo listener at `address`, from the client's namespace, giving up after `limit`.
fn try_connect(address: IpAddr, limit: Duration) -> io::Result<TcpStream> {
    let target = SocketAddr::new(address, ECHO_PORT);
    in_namespace(Place::Client, || socket::connect(target, limit))
}

/// One echo of a few bytes over a connection of its own.
fn echo_once(address: IpAddr) {
    let stream = connect_echo(address);
    let received = round_trip(&stream, b"cookie").unwrap_or_else(|error| panic!("an echo at {address}: {error}"));
    assert_eq!(received, b"cookie");
}

/// Fails the test if an acknowledgment was refused.
#[track_caller]
fn expect_none_refused(counters: &Counters) {
    for name in [DROPPED_BAD_COOKIE, DROPPED_BAD_COOKIE_IN_XDP, REDIRECTS_NO_FLOW] {
        assert_eq!(counters.sum(name), 0, "{name}: acknowledgments refused");
    }
}

#[test]
fn always_makes_every_connection_from_a_cookie() {
    const ECHOES: u64 = 20;
    let Some(lab) = Lab::up(2) else { return };
    let scratch = directory();
    let server = Server::start(&lab, &["--queues", "2", "--syn-cookies", "always"]);
    let data = Random::new(31).bytes(100_000);
    for address in BOTH_FAMILIES {
        let page = scratch.path().join("page");
        run(curl_to(&url(address, "/"), &page), COMMAND_LIMIT).expect_success();
        in_namespace(Place::Client, || {
            for number in 0..ECHOES {
                let stream = connect_echo(address);
                let received = exchange_with_half_close(&stream, &data, Duration::ZERO)
                    .unwrap_or_else(|error| panic!("echo {number} at {address}: {error}"));
                assert!(received == data, "echo {number} at {address} differs");
            }
        });
    }
    let counters = server.wait_until_no_connection();
    assert_eq!(counters.sum(COOKIES_ACTIVE), 2, "queues with cookies");
    let counters = server.stop();
    let opened = counters.sum(PASSIVE_OPENS);
    assert_eq!(opened, 2 * (ECHOES + 1), "connections");
    assert_eq!(counters.sum(COOKIE_CONNECTIONS), opened, "all of them from cookies");
    assert!(counters.sum(SYN_COOKIES_SENT) >= opened);
    assert_eq!(counters.sum(SYNS_IN), 0, "SYNs that reached an engine");
    expect_none_refused(&counters);
    assert_eq!(counters.sum(COOKIES_TURNED_ON), 2, "turned on once for each queue");
    assert_eq!(
        counters.sum(COOKIES_TURNED_OFF),
        2,
        "and off once, when the server stopped"
    );
    counters.expect_redirects_received();
    counters.expect_frames_whole();
    report(format_args!(
        "{opened} connections from {} cookies",
        counters.sum(SYN_COOKIES_SENT)
    ));
}

#[test]
fn never_makes_none() {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &["--syn-cookies", "never"]);
    in_namespace(Place::Client, || BOTH_FAMILIES.into_iter().for_each(echo_once));
    server.wait_until_no_connection();
    let counters = server.stop();
    assert_eq!(counters.sum(PASSIVE_OPENS), 2);
    for name in [SYN_COOKIES_SENT, COOKIE_CONNECTIONS, COOKIES_TURNED_ON, COOKIES_ACTIVE] {
        assert_eq!(counters.sum(name), 0, "{name}");
    }
}

#[test]
fn auto_turns_them_on_while_many_syns_come_and_loses_no_connection_at_either_edge() {
    const CLIENTS: usize = 4;
    const CONNECTIONS: usize = 1000;
    const OFF_LIMIT: Duration = Duration::from_secs(20);
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    // 200 per second are two within the 10 ms a rate is taken over, which one connection alone never makes.
    let settings = "[syn_cookies]\non_syn_rate = 200\noff_after = \"1s\"\n";
    let config = private_file(scratch.path(), "tidegate.toml", settings);
    let server = Server::start(&lab, &["--config", &config]);

    in_namespace(Place::Client, || echo_once(SERVER_V4));
    let quiet = server.counters();
    assert_eq!(quiet.sum(COOKIE_CONNECTIONS), 0, "a single connection needs no cookie");
    assert_eq!(quiet.sum(COOKIES_TURNED_ON), 0);

    in_namespace(Place::Client, || {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || (0..CONNECTIONS).for_each(|_| echo_once(BOTH_FAMILIES[client % 2])));
            }
        });
    });
    let busy = server.counters();
    assert!(busy.sum(COOKIES_TURNED_ON) >= 1, "no edge: {}", server.describe());
    let from_cookies = busy.sum(COOKIE_CONNECTIONS);
    assert!(from_cookies > 0, "no connection was made from a cookie");
    assert_eq!(busy.sum(PASSIVE_OPENS), 1 + (CLIENTS * CONNECTIONS) as u64);
    expect_none_refused(&busy);

    let stopped = Instant::now();
    while server.counters().sum(COOKIES_ACTIVE) > 0 {
        assert!(
            stopped.elapsed() < OFF_LIMIT,
            "cookies are on {OFF_LIMIT:?} after the last SYN"
        );
    }
    in_namespace(Place::Client, || echo_once(SERVER_V6));
    server.wait_until_no_connection();
    let counters = server.stop();
    assert_eq!(
        counters.sum(COOKIES_TURNED_ON),
        counters.sum(COOKIES_TURNED_OFF),
        "every edge has its other"
    );
    assert_eq!(
        counters.sum(COOKIE_CONNECTIONS),
        from_cookies,
        "the last connection needed none"
    );
    report(format_args!(
        "{from_cookies} of {} connections from cookies, turned on {} times",
        CLIENTS * CONNECTIONS,
        counters.sum(COOKIES_TURNED_ON)
    ));
}

#[test]
fn bad_cookies_make_strong_ones_and_clients_are_served_with_timestamps_and_without() {
    const ECHOES: usize = 50;
    const LIMIT: Duration = Duration::from_secs(20);
    let Some(lab) = Lab::up(2) else { return };
    let scratch = directory();
    let settings = "[syn_cookies]\nmode = \"always\"\noff_after = \"1s\"\n";
    let config = private_file(scratch.path(), "tidegate.toml", settings);
    let server = Server::start(&lab, &["--queues", "2", "--config", &config]);
    let echo = || {
        in_namespace(Place::Client, || {
            (0..ECHOES).for_each(|number| echo_once(BOTH_FAMILIES[number % 2]))
        })
    };
    echo();
    assert_eq!(server.counters().sum(COOKIES_STRONG), 0, "nobody guesses yet");
    let data = Random::new(41).bytes(200_000);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(SERVER_V4, "ack", &["--rate", "20k", "--duration", "6s"]));
        let deadline = Instant::now() + LIMIT;
        while server.counters().sum(COOKIES_STRONG) < 2 {
            assert!(Instant::now() < deadline, "cookies are still the usual ones");
        }
        // Until no others are accepted.
        std::thread::sleep(Duration::from_millis(1500));
        for timestamps in ["1", "0"] {
            lab.sysctl(Place::Client, "net.ipv4.tcp_timestamps", timestamps);
            echo();
            in_namespace(Place::Client, || {
                for address in BOTH_FAMILIES {
                    let received = exchange_with_half_close(&connect_echo(address), &data, Duration::ZERO)
                        .unwrap_or_else(|error| panic!("timestamps {timestamps}, {address}: {error}"));
                    assert!(received == data, "timestamps {timestamps}, {address}: the echo differs");
                }
            });
        }
        assert_eq!(
            server.counters().sum(COOKIES_STRONG),
            2,
            "on both queues, by the same flood"
        );
    });
    let ended = Instant::now();
    while server.counters().sum(COOKIES_STRONG) > 0 {
        assert!(
            ended.elapsed() < LIMIT,
            "cookies are strong {LIMIT:?} after the last guess"
        );
    }
    echo();
    server.wait_until_no_connection();
    let counters = server.stop();
    assert_eq!(counters.sum(COOKIE_CONNECTIONS), (4 * ECHOES + 4) as u64);
    assert!(counters.sum(DROPPED_BAD_COOKIE_IN_XDP) > 1000);
}

/// A client whose SYN one server has answered with a cookie. That server is then killed; it leaves no trace but the
/// cookie that the client's first data will acknowledge.
fn connect_to_a_server_that_is_killed(lab: &Lab, key_file: &str, config: &str, address: IpAddr) -> TcpStream {
    let server = Server::start(
        lab,
        &[
            "--syn-cookies",
            "always",
            "--cookie-key-file",
            key_file,
            "--config",
            config,
        ],
    );
    let stream = in_namespace(Place::Client, || connect_echo(address));
    assert!(server.counters().sum(SYN_COOKIES_SENT) > 0, "the SYN had no cookie");
    server.kill();
    stream
}

#[test]
fn a_cookie_of_one_host_is_accepted_by_another_with_the_same_key_file_and_by_no_other() {
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let key = private_file(scratch.path(), "cookie.key", "00112233445566778899aabbccddeeff\n");
    let other_key = private_file(scratch.path(), "other.key", "00112233445566778899aabbccddee00\n");
    // However long the second server takes to start, it is in the same epoch or the next.
    let config = private_file(scratch.path(), "tidegate.toml", "[syn_cookies]\nrotate = \"1h\"\n");

    for address in BOTH_FAMILIES {
        let stream = connect_to_a_server_that_is_killed(&lab, &key, &config, address);
        // Its own cookies are off: a host that is not under attack helps one that is.
        let second = Server::start(&lab, &["--cookie-key-file", &key, "--config", &config]);
        let received = round_trip(&stream, b"taken over").unwrap_or_else(|error| panic!("at {address}: {error}"));
        assert_eq!(received, b"taken over");
        drop(stream);
        let counters = second.wait_until_no_connection();
        assert_eq!(
            counters.sum(COOKIE_CONNECTIONS),
            1,
            "{address}: connections from cookies"
        );
        assert_eq!(counters.sum(PASSIVE_OPENS), 1, "{address}: connections");
        assert_eq!(counters.sum(SYNS_IN), 0, "{address}: the second server saw a SYN");
        second.stop();
        report(format_args!(
            "{address}: SYN answered by one server, connection accepted by another"
        ));
    }

    let stream = connect_to_a_server_that_is_killed(&lab, &key, &config, SERVER_V4);
    let stranger = Server::start(&lab, &["--cookie-key-file", &other_key, "--config", &config]);
    let error = round_trip(&stream, b"refused").expect_err("a cookie made with another key");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    let counters = stranger.stop();
    assert_eq!(counters.sum(PASSIVE_OPENS), 0, "connections");
    assert!(counters.sum(DROPPED_BAD_COOKIE) >= 1);
}

#[test]
fn a_key_file_that_is_no_secret_or_no_key_is_refused() {
    const KEY: &str = "00112233445566778899aabbccddeeff";
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let path = scratch.path().join("cookie.key");
    for (content, mode, phrase) in [
        (KEY, 0o644, "chmod 600"),
        (KEY, 0o660, "chmod 600"),
        (&KEY[1..], 0o600, "32 hexadecimal digits"),
    ] {
        let file = private_file(scratch.path(), "cookie.key", content);
        set_mode(&path, mode);
        let arguments = default_arguments(&["--cookie-key-file", &file]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let finished = run(serve_command(&arguments), COMMAND_LIMIT);
        assert!(
            finished.status.code() == Some(2) && finished.stderr.contains(phrase),
            "exit code 2 and {phrase:?} were expected of {}",
            finished.describe()
        );
        let printed = [finished.stdout, finished.stderr].concat();
        assert!(!printed.contains(content), "the key is printed");
    }
    assert!(!lab.xdp_attached(), "a refused start left a program attached");
}

#[test]
fn a_denied_source_gets_no_answer_and_the_longest_prefix_decides() {
    const NO_ANSWER: Duration = Duration::from_millis(500);
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &["--deny", "198.18.0.2"]);
    let error = try_connect(SERVER_V4, NO_ANSWER).expect_err("the client is denied");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    in_namespace(Place::Client, || echo_once(SERVER_V6));
    let counters = server.stop();
    assert!(counters.sum(DROPPED_SOURCE_DENIED) >= 1);
    assert_eq!(counters.sum(PASSIVE_OPENS), 1, "only IPv6 was served");

    let server = Server::start(
        &lab,
        &[
            "--deny",
            "0.0.0.0/0",
            "--deny",
            "::/0",
            "--allow",
            "198.18.0.0/24",
            "--allow",
            "2001:2::/64",
        ],
    );
    in_namespace(Place::Client, || BOTH_FAMILIES.into_iter().for_each(echo_once));
    let counters = server.stop();
    assert_eq!(counters.sum(DROPPED_SOURCE_DENIED), 0);
    assert_eq!(counters.sum(PASSIVE_OPENS), 2);
}

#[test]
fn a_source_with_too_many_syns_is_held_back_and_no_other() {
    const ATTEMPTS: u64 = 20;
    const BURST: u64 = 3;
    let Some(lab) = Lab::up(1) else { return };
    let scratch = directory();
    let settings = format!("[sources]\nsyn_rate = 1\nsyn_burst = {BURST}\n");
    let config = private_file(scratch.path(), "tidegate.toml", &settings);
    let server = Server::start(&lab, &["--config", &config]);
    // Too short for the client to send its SYN again.
    let limit = Duration::from_millis(100);
    let connected = (0..ATTEMPTS).filter(|_| try_connect(SERVER_V4, limit).is_ok()).count() as u64;
    assert!(
        (BURST..ATTEMPTS).contains(&connected),
        "{connected} of {ATTEMPTS} attempts connected; {BURST} may at once, and one per second"
    );
    in_namespace(Place::Client, || echo_once(SERVER_V6));
    let counters = server.stop();
    assert!(counters.sum(DROPPED_SYN_RATE) >= ATTEMPTS - connected);
    report(format_args!(
        "{connected} of {ATTEMPTS} connections at once, {} SYNs dropped",
        counters.sum(DROPPED_SYN_RATE)
    ));
}
