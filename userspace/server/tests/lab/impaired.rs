//! Megabytes both ways at once through a link that is bad in every way.
//!
//! `TIDEGATE_IMPAIRED_MB` is the size of each transfer in megabytes (default 2), `TIDEGATE_IMPAIRED_SEEDS` the number
//! of links to try with each congestion control, each with its own random numbers (default 1),
//! `TIDEGATE_IMPAIRED_FIRST_SEED` the seed of the first (default 1), `TIDEGATE_IMPAIRED_CONTROL` the congestion
//! controls, separated by commas (default all). `make impaired` runs 50 MB over 20 links with each.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tidegate_random::Random;
use tidegate_tcp::congestion::Algorithm;

use crate::fixture::client::ClientTcp;
use crate::fixture::counters::{ABORTED, RESET_BY_PEER, TIMED_OUT};
use crate::fixture::data::{directory, sha256};
use crate::fixture::link::{DIRECTIONS, Link};
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, ECHO_PORT, Lab, Place, in_namespace, report, socket};

const LINK: [&str; 10] = [
    "--delay",
    "10ms",
    "--loss",
    "5%",
    "--reorder",
    "5%",
    "--duplicate",
    "2%",
    "--corrupt",
    "1%",
];

/// The number in the environment variable `name`, which is at least 1.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) if number > 0 => number,
            _ => panic!("{name} is {text:?}; it has to be a number above 0"),
        },
        Err(_) => default,
    }
}

/// The congestion controls to try.
fn controls() -> Vec<Algorithm> {
    let text = std::env::var("TIDEGATE_IMPAIRED_CONTROL").unwrap_or_default();
    if text.is_empty() {
        return Algorithm::ALL.to_vec();
    }
    let parse = |name: &str| {
        name.parse()
            .unwrap_or_else(|error| panic!("TIDEGATE_IMPAIRED_CONTROL: {error}"))
    };
    text.split(',').map(parse).collect()
}

/// Sends `data` to the echo service and receives it at the same time. A connection that stands still for 10 s fails.
fn echo(address: IpAddr, data: &[u8], expected: &str, control: Algorithm, seed: u64) -> Duration {
    let started = Instant::now();
    let received = ClientTcp::default().echo(address, data).unwrap_or_else(|error| {
        panic!(
            "{control}, seed {seed}, {address}, after {:.1?}: {error}",
            started.elapsed()
        )
    });
    assert_eq!(
        received.len(),
        data.len(),
        "{control}, seed {seed}: length of what {address} echoed"
    );
    assert_eq!(
        sha256(&received),
        expected,
        "{control}, seed {seed}: what {address} echoed differs"
    );
    started.elapsed()
}

#[test]
fn megabytes_both_ways_at_once_through_loss_reordering_duplication_and_corruption() {
    let size = setting("TIDEGATE_IMPAIRED_MB", 2) * 1_000_000;
    let controls = controls();
    let Some(lab) = Lab::up_middle(1) else { return };
    let size = usize::try_from(size).expect("the size fits the address space");
    let data = Random::new(50).bytes(size);
    for control in controls {
        echo_over_links(&lab, control, &data);
    }
}

/// Echoes `data` from a server with `control` over one link after the other.
fn echo_over_links(lab: &Lab, control: Algorithm, data: &[u8]) {
    let seeds = setting("TIDEGATE_IMPAIRED_SEEDS", 1);
    let first = setting("TIDEGATE_IMPAIRED_FIRST_SEED", 1);
    let expected = sha256(data);
    let directory = directory();
    let config = directory.path().join("tidegate.toml");
    std::fs::write(&config, format!("[tcp]\ncongestion = \"{control}\"\n")).expect("the file can be written");
    let server = Server::start(lab, &["--config", &config.to_string_lossy()]);
    for seed in first..first + seeds {
        let text = seed.to_string();
        let link = Link::start(lab, &[&LINK[..], &["--seed", text.as_str()]].concat());
        // The families side by side: each has the link's delay and loss, and neither its rate, to itself.
        let expected = expected.as_str();
        let took = in_namespace(Place::Client, move || {
            std::thread::scope(move |scope| {
                BOTH_FAMILIES
                    .map(move |address| scope.spawn(move || echo(address, data, expected, control, seed)))
                    .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        });
        server.wait_until_no_connection();
        let counters = link.stop();
        counters.expect_balance();
        for direction in DIRECTIONS {
            for name in ["lost", "reordered", "duplicated", "corrupted"] {
                assert!(
                    counters.get(name, direction) > 0,
                    "seed {seed}: no frame was {name} ({direction})"
                );
            }
        }
        report(format_args!(
            "{control}, seed {seed}: {} bytes both ways equal, IPv4 in {:.1?}, IPv6 in {:.1?}; {} frames, {} lost",
            data.len(),
            took[0],
            took[1],
            counters.sum("received"),
            counters.sum("lost")
        ));
    }
    let counters = server.stop();
    counters.expect_redirects_received();
    counters.expect_frames_whole();
    for name in [RESET_BY_PEER, ABORTED, TIMED_OUT] {
        assert_eq!(
            counters.sum(name),
            0,
            "{control}, {name}: connections that did not end in order"
        );
    }
}

#[test]
fn the_link_does_what_it_is_asked_for() {
    const SIZE: usize = 20_000;
    let Some(lab) = Lab::up_middle(1) else { return };
    let server = Server::start(&lab, &[]);
    let data = Random::new(51).bytes(SIZE);

    // A round trip takes the delay of both directions at least: one for the handshake, one for the data.
    let link = Link::start(&lab, &["--delay", "20ms", "--rate", "10mbit"]);
    let started = Instant::now();
    in_namespace(Place::Client, || {
        let received = ClientTcp::default().echo(BOTH_FAMILIES[0], &data).expect("a good link");
        assert!(received == data);
    });
    assert!(
        started.elapsed() >= Duration::from_millis(80),
        "{:?}",
        started.elapsed()
    );
    server.wait_until_no_connection();
    let running = link.counters();
    assert!(running.sum("sent") > 0);
    let counters = link.stop();
    counters.expect_balance();
    for name in ["lost", "reordered", "duplicated", "corrupted"] {
        assert_eq!(counters.sum(name), 0, "{name}");
    }

    // Nothing but what resolves addresses passes, and only in the direction that is left alone.
    let link = Link::start(&lab, &["--loss", "100%", "--direction", "ba"]);
    let refused = in_namespace(Place::Client, || {
        let address = SocketAddr::new(BOTH_FAMILIES[0], ECHO_PORT);
        socket::connect(address, Duration::from_secs(2)).is_err()
    });
    assert!(refused, "a connection over a link that loses every answer");
    let counters = link.stop();
    assert_eq!(counters.get("lost", crate::fixture::link::TO_SERVER), 0);
    assert!(
        counters.get("lost", crate::fixture::link::TO_CLIENT) > 0,
        "{counters:?}"
    );
    server.stop();
}
