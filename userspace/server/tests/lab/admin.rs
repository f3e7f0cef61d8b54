//! The admin listener of a running server: a scrape has the counters of SIGUSR1, and readiness ends with draining.

use std::collections::HashMap;
use std::time::Duration;

use crate::fixture::client::{connect_echo, curl_to, round_trip};
use crate::fixture::counters::{Counters, FINISHED, PASSIVE_OPENS, REDIRECTS, REQUESTS};
use crate::fixture::data::directory;
use crate::fixture::server::Server;
use crate::fixture::{Lab, Place, SERVER_V4, SERVER_V6, command, in_namespace, run, url};

const ADMIN: &str = "127.0.0.1:9464";
const LIMIT: Duration = Duration::from_secs(10);

/// Status and body of a path, fetched on the server's side.
fn fetch(path: &str) -> (String, String) {
    let mut curl = command(Place::Server, "curl");
    curl.args(["-sS", "-m", "8", "-w", "\n%{http_code}"]);
    curl.arg(format!("http://{ADMIN}{path}"));
    let output = run(curl, LIMIT).expect_success().stdout;
    let (body, status) = output.trim_end().rsplit_once('\n').expect("a status");
    (status.to_owned(), body.trim_end().to_owned())
}

/// The samples of `/metrics`: name with labels, and value.
fn scrape() -> HashMap<String, f64> {
    let (status, text) = fetch("/metrics");
    assert_eq!(status, "200", "{text}");
    assert!(text.ends_with("# EOF"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (sample, value) = line.rsplit_once(' ').expect(line);
            (sample.to_owned(), value.parse().expect(line))
        })
        .collect()
}

fn expect_equal(scrape: &HashMap<String, f64>, counters: &Counters) {
    for queue in 0..2 {
        for (metric, counter) in [
            (
                format!("tidegate_tcp_passive_opens_total{{shard=\"{queue}\"}}"),
                PASSIVE_OPENS,
            ),
            (format!("tidegate_tcp_finished_total{{shard=\"{queue}\"}}"), FINISHED),
            (format!("tidegate_http_requests_total{{shard=\"{queue}\"}}"), REQUESTS),
            (
                format!("tidegate_xdp_frames_total{{queue=\"{queue}\",verdict=\"redirect\"}}"),
                REDIRECTS,
            ),
        ] {
            assert_eq!(
                scrape.get(&metric),
                Some(&(counters.get(counter, queue) as f64)),
                "{metric}"
            );
        }
    }
}

#[test]
fn a_scrape_has_the_counters_of_sigusr1_and_readiness_ends_with_draining() {
    let Some(lab) = Lab::up(2) else { return };
    let server = Server::start(&lab, &["--admin", ADMIN]);
    assert_eq!(fetch("/healthz"), ("200".to_owned(), "ok".to_owned()));
    assert_eq!(fetch("/readyz"), ("200".to_owned(), "ok".to_owned()));
    let received = directory();
    for address in [SERVER_V4, SERVER_V6] {
        let page = received.path().join("page");
        run(curl_to(&url(address, "/"), &page), LIMIT).expect_success();
    }
    server.wait_until_no_connection();
    // What is in the kernel's and the clients' hands may still come, so both are taken until they agree.
    let mut scraped = scrape();
    let counters = (0..20)
        .find_map(|_| {
            let before = server.counters();
            std::thread::sleep(Duration::from_millis(110));
            scraped = scrape();
            (before.sum(REDIRECTS) == server.counters().sum(REDIRECTS)).then_some(before)
        })
        .expect("counters that stand still");
    expect_equal(&scraped, &counters);
    assert_eq!(counters.sum(REQUESTS), 2);
    let shards = |name: &str| -> f64 {
        (0..2)
            .map(|queue| scraped[&format!("{name}{{shard=\"{queue}\"}}")])
            .sum()
    };
    assert_eq!(shards("tidegate_tcp_accept_seconds_count"), 2.0);
    assert!(shards("tidegate_tcp_rtt_seconds_count") >= 2.0);
    assert_eq!(shards("tidegate_http_response_seconds_count"), 2.0);
    assert!(shards("tidegate_shard_cpu_seconds_total") > 0.0);
    assert_eq!(fetch("/").0, "200");

    // Open connections keep it draining.
    let stream = in_namespace(Place::Client, || connect_echo(SERVER_V4));
    round_trip(&stream, b"hello").expect("an echo");
    let stopping = server.begin_stop();
    stopping.wait_until_draining();
    assert_eq!(fetch("/readyz").0, "503");
    assert_eq!(fetch("/healthz").0, "200");
    drop(stream);
    stopping.finish();
}
