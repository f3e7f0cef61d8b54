//! The clients of `tidegate-bench`, over the kernel's TCP and past it, and its flood, against the server.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::fixture::counters::{PASSIVE_OPENS, SYN_COOKIES_SENT};
use crate::fixture::data::directory;
use crate::fixture::server::{Server, bench_binary};
use crate::fixture::{BOTH_FAMILIES, HTTP_PORT, Lab, Place, SERVER_V4, command, report, run, url};

const RUN_LIMIT: Duration = Duration::from_secs(60);

/// The device of the client's namespace.
const DEVICE: &str = "tgc0";

/// Takes the program that the lab attaches off the client's device, which a client over AF_XDP needs for its own.
pub(crate) fn without_program(_lab: &Lab) {
    let mut command = command(Place::Client, "ip");
    command.args(["link", "set", "dev", DEVICE, "xdp", "off"]);
    run(command, RUN_LIMIT).expect_success();
}

/// Runs a workload and returns what was measured, as JSON.
/// A client past the kernel has a network of addresses of its own for each run, by its number: after others the server
/// may be in TIME-WAIT.
pub(crate) fn measure(workload: &[&str], client: &str, address: IpAddr, run_number: usize) -> serde_json::Value {
    let directory = directory();
    let directory: &Path = directory.path();
    let file = directory.join("results.json");
    let mut command = command(Place::Client, bench_binary());
    command
        .args(workload)
        .args(["--url", &url(address, "/"), "--client", client]);
    if client == "bypass" {
        let sources = match address {
            IpAddr::V4(_) => format!("198.19.{run_number}.0/24"),
            IpAddr::V6(_) => format!("2001:2:0:8{run_number:03x}::/120"),
        };
        command.args(["--iface", DEVICE, "--sources", &sources]);
    }
    command.arg("--json").arg(&file);
    run(command, RUN_LIMIT).expect_success();
    let text = std::fs::read_to_string(&file).expect("the results were written");
    let results: serde_json::Value = serde_json::from_str(&text).expect("the results are JSON");
    let operations = results["operations"].as_u64().unwrap_or_default();
    assert!(operations > 0, "{workload:?}, {client}, {address}: {text}");
    assert_eq!(results["error_count"], 0, "{workload:?}, {client}, {address}: {text}");
    report(format_args!(
        "{} by the {client} client, {address}: {operations}, p99 {} us",
        workload[0], results["latency_us"]["p99"]
    ));
    results
}

/// Every workload but `hold`. With fewer connections, those that carry many requests would come to the server's limit
/// of 10,000 each, and lose the ones that were under way.
const WORKLOADS: [&[&str]; 6] = [
    &["cps", "--connections", "16"],
    &["cps", "--close", "server", "--connections", "16"],
    &["cps", "--close", "rst", "--connections", "16"],
    &["rps", "--connections", "64", "--pipeline", "4"],
    &["latency", "--rate", "2000", "--connections", "16"],
    &["throughput", "--direction", "down", "--connections", "2"],
];

/// The duration of each of them.
const TIMES: &[&str] = &["--duration", "500ms", "--warm-up", "100ms"];

#[test]
fn every_workload_of_the_bypass_client_over_both_families() {
    let Some(lab) = Lab::up(1) else { return };
    without_program(&lab);
    let server = Server::start(&lab, &[]);
    for address in BOTH_FAMILIES {
        for (number, workload) in WORKLOADS.into_iter().enumerate() {
            measure(&[workload, TIMES].concat(), "bypass", address, number);
        }
    }
    let counters = server.stop();
    assert!(counters.sum(PASSIVE_OPENS) > 0);
    counters.expect_redirects_received();
}

#[test]
fn every_workload_of_the_kernel_client() {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    for workload in WORKLOADS {
        measure(&[workload, TIMES].concat(), "kernel", SERVER_V4, 0);
    }
    server.stop().expect_redirects_received();
}

#[test]
fn held_connections_all_answer() {
    const CONNECTIONS: u64 = 20_000;
    let Some(lab) = Lab::up(1) else { return };
    without_program(&lab);
    let server = Server::start(&lab, &[]);
    let count = CONNECTIONS.to_string();
    let hold = ["hold", "--connections", &count, "--duration", "1s"];
    let measured = measure(&hold, "bypass", SERVER_V4, 0);
    assert_eq!(measured["operations"], CONNECTIONS);
    server.wait_until_no_connection();
    assert!(server.stop().sum(PASSIVE_OPENS) >= CONNECTIONS);
}

#[test]
fn a_flood_is_answered_with_cookies_and_forgotten() {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &["--syn-cookies", "always"]);
    let mut sent = 0;
    let floods = BOTH_FAMILIES.map(|address| [(address, "live-frames"), (address, "af-xdp")]);
    for (address, maker) in floods.into_iter().flatten() {
        let results = directory();
        let file = results.path().join("flood.json");
        let target = std::net::SocketAddr::new(address, HTTP_PORT).to_string();
        let mut command = command(Place::Client, bench_binary());
        command.args(["flood", "--iface", DEVICE, "--target", &target, "--kind", "syn"]);
        command
            .args(["--rate", "20k", "--duration", "1s", "--maker", maker, "--json"])
            .arg(&file);
        run(command, RUN_LIMIT).expect_success();
        let text = std::fs::read_to_string(&file).expect("the results were written");
        let totals: serde_json::Value = serde_json::from_str(&text).expect("the results are JSON");
        sent += totals["frames"].as_u64().expect("frames sent");
    }
    assert!(sent > 0);
    let counters = server.stop();
    let answered = counters.sum(SYN_COOKIES_SENT);
    report(format_args!("{answered} of {sent} SYNs of four floods answered"));
    // The machine may have been busy with something else, and rings are short.
    assert!(answered > sent / 2 && answered <= sent, "{answered} of {sent}");
    assert_eq!(counters.sum(PASSIVE_OPENS), 0, "nobody was there");
}
