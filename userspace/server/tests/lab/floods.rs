//! The kinds of floods of `tidegate-bench flood`, as the server sees them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::fixture::counters::{DROPPED_BAD_COOKIE, FRAGMENTS, PASSED_NOT_SERVED, SYN_COOKIES_SENT};
use crate::fixture::data::directory;
use crate::fixture::server::{Server, bench_binary};
use crate::fixture::{BOTH_FAMILIES, HTTP_PORT, Lab, Place, SERVER_V4, command, report, run};

const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Floods the HTTP service at `address` and returns the figures.
fn flood(address: IpAddr, kind: &str, more: &[&str]) -> Value {
    let results = directory();
    let file = results.path().join("flood.json");
    let target = SocketAddr::new(address, HTTP_PORT).to_string();
    let mut command = command(Place::Client, bench_binary());
    command.args(["flood", "--iface", "tgc0", "--target", &target, "--kind", kind]);
    command.args(more).arg("--json").arg(&file);
    run(command, RUN_LIMIT).expect_success();
    let text = std::fs::read_to_string(&file).expect("the results were written");
    report(format_args!("{kind} to {target}: {text}"));
    serde_json::from_str(&text).expect("the results are JSON")
}

/// Sends frames of `kind` over both families, which are all counted as `counter`, but for what a busy machine loses.
fn is_counted_as(kind: &str, more: &[&str], counter: &str) {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &["--syn-cookies", "always"]);
    let mut sent = 0;
    for address in BOTH_FAMILIES {
        let times = ["--rate", "20k", "--duration", "1s"];
        let figures = flood(address, kind, &[&times, more].concat());
        sent += figures["frames"].as_u64().expect("frames sent");
    }
    let counted = server.stop().sum(counter);
    assert!(counted > sent / 2 && counted <= sent, "{counter}: {counted} of {sent}");
}

#[test]
fn syns_with_text_are_syns() {
    is_counted_as("syn-data", &[], SYN_COOKIES_SENT);
}

#[test]
fn fragments_are_fragments() {
    is_counted_as("fragment", &[], FRAGMENTS);
}

#[test]
fn a_carpet_covers_its_prefix_and_what_is_served_in_it() {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &["--syn-cookies", "always"]);
    let carpet = ["--targets", "198.18.0.0/30", "--rate", "20k", "--duration", "1s"];
    let sent = flood(SERVER_V4, "ack", &carpet)["frames"]
        .as_u64()
        .expect("frames sent");
    let counters = server.stop();
    let (served, beside) = (counters.sum(DROPPED_BAD_COOKIE), counters.sum(PASSED_NOT_SERVED));
    // One address of four is the server's.
    assert!(served > sent / 8 && served < sent / 3, "{served} of {sent}");
    assert!(beside > sent / 2 && served + beside <= sent, "{beside} of {sent}");
}
