//! The lab itself: it comes and goes without leftovers, and its readers read what they should.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use tidegate_random::Random;

use crate::fixture::counters::{Counters, PASSIVE_OPENS, REDIRECTS};
use crate::fixture::data::{file_size, sha256};
use crate::fixture::server::Server;
use crate::fixture::{Lab, NAMESPACES, Place, report};

#[test]
fn the_lab_leaves_nothing_behind_even_after_a_panic() {
    let Some(lab) = Lab::up(1) else { return };
    lab.script(&["up", "--queues", "1"]);
    assert!(NAMESPACES.exists(Place::Server) && NAMESPACES.exists(Place::Client));
    lab.script(&["down"]);
    lab.script(&["down"]);
    assert!(!NAMESPACES.exists(Place::Server) && !NAMESPACES.exists(Place::Client));
    drop(lab);

    let server_pid = AtomicU32::new(0);
    let outcome = std::panic::catch_unwind(|| {
        let lab = Lab::up(1).expect("it came up before");
        let server = Server::start(&lab, &[]);
        server_pid.store(server.pid(), Ordering::Relaxed);
        assert_eq!(server.pid(), 0, "on purpose");
    });
    assert!(outcome.is_err());
    assert!(!NAMESPACES.exists(Place::Server) && !NAMESPACES.exists(Place::Client));
    let process = format!("/proc/{}", server_pid.into_inner());
    assert_ne!(process, "/proc/0", "the panic came before the server served");
    assert!(!Path::new(&process).exists(), "the server outlived its lab");
    report("the lab came up and went down twice, and went with a panic");
}

#[test]
fn counters_are_read_from_their_lines() {
    let counters = Counters::parse(&[
        "tidegate: ready",
        "xdp_redirect{queue=\"0\"} 123",
        "xdp_redirect{queue=\"1\"} 4",
        "tcp_passive_opens{queue=\"0\"} 7",
        "afxdp_rx_frames{queue=\"zero\"} 1",
        "a line with {braces} 5",
    ]);
    assert_eq!(counters.get(REDIRECTS, 1), 4);
    assert_eq!(counters.sum(REDIRECTS), 127);
    assert_eq!(counters.sum(PASSIVE_OPENS), 7);
    assert_eq!(counters.queues("afxdp_rx_frames").len(), 0);
    assert!(Counters::parse(&["tidegate: ready"]).is_empty());
}

#[test]
#[should_panic(expected = "no tcp_passive_opens")]
fn a_counter_that_is_not_printed_is_not_zero() {
    Counters::parse(&["xdp_redirect{queue=\"0\"} 123"]).sum(PASSIVE_OPENS);
}

#[test]
fn test_data_differs_by_seed_and_files_have_all_sizes() {
    assert_ne!(sha256(&Random::new(1).bytes(100)), sha256(&Random::new(2).bytes(100)));
    let mut random = Random::new(3);
    let sizes: Vec<usize> = (0..1000).map(|_| file_size(&mut random)).collect();
    assert!(sizes.iter().all(|size| (1..=1_000_000).contains(size)));
    assert!(sizes.iter().any(|&size| size < 10) && sizes.iter().any(|&size| size > 100_000));
    assert_eq!(
        sha256(b"abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}
