//! Well-known load generators see no error.

use std::time::Duration;

use crate::fixture::counters::{PASSIVE_OPENS, TIMED_OUT};
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, Lab, Place, SERVER_V4, command, report, run, url};

const RUN_LIMIT: Duration = Duration::from_secs(60);

/// The number after `label` on the line that begins with it.
fn number_after(label: &str, text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

fn wrk(lab: &Lab, address: std::net::IpAddr, seconds: u32) {
    let server = Server::start(lab, &[]);
    let mut command = command(Place::Client, "wrk");
    command.args(["-t1", "-c200", &format!("-d{seconds}s"), &url(address, "/")]);
    let output = run(command, RUN_LIMIT).expect_success().stdout;
    // wrk prints these lines only where there is something to say.
    for problem in ["Socket errors", "Non-2xx"] {
        assert!(!output.contains(problem), "wrk saw {problem}:\n{output}");
    }
    let summary = output
        .lines()
        .find(|line| line.contains(" requests in "))
        .unwrap_or_else(|| panic!("wrk printed no summary:\n{output}"));
    let requests = number_after("", summary).unwrap_or_default();
    assert!(requests > 0, "wrk made no request:\n{output}");
    report(format_args!("wrk, 200 connections, {address}: {}", summary.trim()));
    server.wait_until_no_connection();
    let counters = server.stop();
    assert!(counters.sum(PASSIVE_OPENS) >= 200, "connections the server accepted");
    assert_eq!(counters.sum(TIMED_OUT), 0, "connections the server gave up");
    counters.expect_redirects_received();
}

#[test]
fn wrk_with_200_connections_sees_no_error() {
    let Some(lab) = Lab::up(1) else { return };
    let [v4, v6] = BOTH_FAMILIES;
    wrk(&lab, v4, 5);
    wrk(&lab, v6, 2);
}

fn ab(lab: &Lab, keep_alive: bool) {
    const REQUESTS: u64 = 20_000;
    let server = Server::start(lab, &[]);
    let mut command = command(Place::Client, "ab");
    command.args(["-q", "-n", &REQUESTS.to_string(), "-c", "50"]);
    if keep_alive {
        command.arg("-k");
    }
    command.arg(url(SERVER_V4, "/"));
    let output = run(command, RUN_LIMIT).expect_success().stdout;
    let number = |label| number_after(label, &output);
    assert_eq!(number("Complete requests:"), Some(REQUESTS), "{output}");
    assert_eq!(number("Failed requests:"), Some(0), "{output}");
    assert_eq!(number("Non-2xx responses:"), None, "{output}");
    let reused = number("Keep-Alive requests:").unwrap_or_default();
    server.wait_until_no_connection();
    let counters = server.stop();
    let accepted = counters.sum(PASSIVE_OPENS);
    if keep_alive {
        assert!(reused > 0, "no connection was kept alive:\n{output}");
        assert!(accepted < REQUESTS, "{accepted} connections for {REQUESTS} requests");
    } else {
        assert!(accepted >= REQUESTS, "{accepted} connections for {REQUESTS} requests");
    }
    counters.expect_redirects_received();
    report(format_args!(
        "ab, {REQUESTS} requests, 50 at once, {}: 0 failed, {accepted} connections",
        if keep_alive {
            "keep-alive"
        } else {
            "one connection each"
        }
    ));
}

#[test]
fn ab_without_keep_alive_fails_no_request() {
    let Some(lab) = Lab::up(1) else { return };
    ab(&lab, false);
}

#[test]
fn ab_with_keep_alive_fails_no_request() {
    let Some(lab) = Lab::up(1) else { return };
    ab(&lab, true);
}
