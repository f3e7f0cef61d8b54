//! The kinds of floods of `tidegate-bench flood`, as the server sees them.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::bench_clients::without_program;
use crate::fixture::counters::{
    BYTES_IN, BYTES_OUT, CONNECTIONS, Counters, DROPPED_BAD_COOKIE_IN_XDP, FAST_RETRANSMITS, FRAGMENTS,
    HEADER_TIMEOUTS, PASSED_NOT_SERVED, PASSIVE_OPENS, REDIRECTS_NO_FLOW, REQUESTS, RESET_BY_PEER, SYN_COOKIES_SENT,
    WINDOW_PROBES,
};
use crate::fixture::data::{directory, write_file};
use crate::fixture::server::{Server, bench_binary};
use crate::fixture::{BOTH_FAMILIES, HTTP_PORT, Lab, Place, SERVER_V4, command, report, run};
use tidegate_random::Random;

const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Floods the HTTP service at `address` and returns the figures.
pub(crate) fn flood(address: IpAddr, kind: &str, more: &[&str]) -> Value {
    let results = directory();
    let file = results.path().join("flood.json");
    let target = SocketAddr::new(address, HTTP_PORT).to_string();
    let mut command = command(Place::Client, bench_binary());
    command.args(["flood", "--iface", "tgc0", "--target", &target, "--kind", kind]);
    command.args(more).arg("--json").arg(&file);
    run(command, RUN_LIMIT).expect_success();
    let text = std::fs::read_to_string(&file).expect("the results were written");
    let figures: Value = serde_json::from_str(&text).expect("the results are JSON");
    report(format_args!(
        "{kind} to {target}: {} frames, {}",
        figures["frames"], figures["connections"]
    ));
    figures
}

/// Connections of each flood that needs some.
const PEERS: u64 = 300;

/// Of a file that is larger than what the server sends unasked.
const FILE_SIZE: usize = 8 << 20;

/// Floods a server of two queues over both families with connections of `kind`, of which [`PEERS`] are kept for 3 s
/// each time, and returns the figures of both floods and the server's counters after them.
fn with_connections(kind: &str, rate: &str, config: &str) -> Option<([Value; 2], Counters)> {
    let lab = Lab::up(2)?;
    without_program(&lab);
    let site = directory();
    write_file(&mut Random::new(1), &site.path().join("large"), FILE_SIZE);
    let config_file = site.path().join("tidegate.toml");
    fs::write(&config_file, config).expect("writing the configuration");
    let (root, config_file) = (site.path().to_string_lossy(), config_file.to_string_lossy());
    let server = Server::start(&lab, &["--root", &root, "--config", &config_file, "--drain", "0s"]);
    let count = PEERS.to_string();
    let mut arguments = vec!["--duration", "3s", "--rate", rate];
    if kind != "connect" {
        arguments.extend(["--connections", &count]);
    }
    if !matches!(kind, "connect" | "idle") {
        arguments.extend(["--path", "/large"]);
    }
    let figures = BOTH_FAMILIES.map(|address| flood(address, kind, &arguments)["connections"].take());
    let counters = server.counters();
    server.stop().expect_redirects_received();
    Some((figures, counters))
}

/// Floods with connections of `kind`, all of which are kept but for a few whose handshakes a busy machine loses.
/// Returns the server's counters and how many there are.
fn with_kept_connections(kind: &str, rate: &str) -> Option<(Counters, u64)> {
    let (figures, counters) = with_connections(kind, rate, "")?;
    let mut kept = 0;
    for figures in figures {
        let completed = figures["completed"].as_u64().expect("a count");
        assert!((PEERS - PEERS / 10..=PEERS).contains(&completed), "{figures}");
        for (name, value) in [("kept", completed), ("reset_by_server", 0), ("ended_by_server", 0)] {
            assert_eq!(figures[name], value, "{name} of {figures}");
        }
        kept += completed;
    }
    // Those of the first flood are there, too: nobody has told the server anything.
    assert_eq!(counters.sum(CONNECTIONS), kept);
    // Nor has the kernel of the client seen anything of it, or it would have reset them.
    assert_eq!(counters.sum(RESET_BY_PEER), 0);
    Some((counters, kept))
}

/// Checks that there were as many requests as connections, but for the last of each shard, which may not be copied yet
/// to where it is printed from.
fn all_have_requested(counters: &Counters, kept: u64) {
    let requests = counters.sum(REQUESTS);
    assert!((kept - 2..=kept).contains(&requests), "{requests} requests");
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
    let served = counters.sum(DROPPED_BAD_COOKIE_IN_XDP) + counters.sum(REDIRECTS_NO_FLOW);
    let beside = counters.sum(PASSED_NOT_SERVED);
    // One address of four is the server's.
    assert!(served > sent / 8 && served < sent / 3, "{served} of {sent}");
    assert!(beside > sent / 2 && served + beside <= sent, "{beside} of {sent}");
}

#[test]
fn abandoned_connections_are_completed_and_left_to_the_server() {
    let Some((figures, counters)) = with_connections("connect", "1k", "") else {
        return;
    };
    let completed: Vec<u64> = figures
        .iter()
        .filter_map(|figures| figures["completed"].as_u64())
        .collect();
    assert!(
        completed.len() == 2 && completed.iter().all(|&completed| completed > 1_000),
        "{figures:?}"
    );
    assert!(figures.iter().all(|figures| figures["kept"] == 0), "{figures:?}");
    // A busy machine loses a few acknowledgments.
    let (completed, opened) = (completed.iter().sum::<u64>(), counters.sum(PASSIVE_OPENS));
    assert!(
        (completed - completed / 10..=completed).contains(&opened),
        "{opened} of {completed}"
    );
    assert_eq!(counters.sum(CONNECTIONS), counters.sum(PASSIVE_OPENS));
    assert_eq!(counters.sum(BYTES_IN), 0);
}

#[test]
fn idle_connections_are_kept_and_say_nothing() {
    let Some((counters, _)) = with_kept_connections("idle", "1k") else {
        return;
    };
    assert_eq!(counters.sum(BYTES_IN), 0);
}

#[test]
fn heads_trickle() {
    let Some((counters, kept)) = with_kept_connections("slow-head", "1k") else {
        return;
    };
    let octets = counters.sum(BYTES_IN);
    assert!((2 * kept..=4 * kept).contains(&octets), "{octets} octets");
    assert_eq!(counters.sum(REQUESTS), 0);
}

#[test]
fn connections_that_the_server_ends_are_replaced() {
    let config = "[http]\nheader_timeout = \"1s\"\n";
    let Some(([_, figures], counters)) = with_connections("slow-head", "1k", config) else {
        return;
    };
    let ended = figures["ended_by_server"].as_u64().expect("a count");
    assert!(ended >= PEERS, "{figures}");
    assert!(counters.sum(HEADER_TIMEOUTS) >= 2 * PEERS);
    assert!(figures["kept"].as_u64() > Some(PEERS / 2), "{figures}");
    // An end is answered with RST, so that no connection is left behind.
    let connections = counters.sum(CONNECTIONS);
    assert!(connections <= 2 * PEERS, "{connections}");
}

#[test]
fn readers_are_slow() {
    let Some((counters, kept)) = with_kept_connections("slow-read", "1k") else {
        return;
    };
    all_have_requested(&counters, kept);
    let octets = counters.sum(BYTES_OUT);
    assert!((256 * kept..800 * kept).contains(&octets), "{octets} octets");
}

#[test]
fn a_window_of_zero_is_probed() {
    let Some((counters, kept)) = with_kept_connections("zero-window", "1k") else {
        return;
    };
    all_have_requested(&counters, kept);
    let probes = counters.sum(WINDOW_PROBES);
    assert!(probes >= kept, "{probes} probes");
    assert!(counters.sum(BYTES_OUT) <= probes);
}

#[test]
fn a_window_of_zero_and_one_in_turns_takes_an_octet_at_a_time() {
    let Some((counters, kept)) = with_kept_connections("zero-one-window", "1k") else {
        return;
    };
    all_have_requested(&counters, kept);
    let octets = counters.sum(BYTES_OUT);
    assert!((kept..20 * kept).contains(&octets), "{octets} octets");
}

#[test]
fn a_tiny_mss_has_many_segments_outstanding_and_lost_in_ever_other_places() {
    let Some((counters, kept)) = with_kept_connections("tiny-mss", "5k") else {
        return;
    };
    all_have_requested(&counters, kept);
    let octets = counters.sum(BYTES_OUT);
    assert!(octets > 500 * 48 * kept, "{octets} octets");
    assert!(counters.sum(FAST_RETRANSMITS) > kept);
}
