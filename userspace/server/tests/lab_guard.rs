//! The lab itself: it comes and goes without leftovers, and its readers read what they should.

mod lab;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use lab::counters::{Counters, PASSIVE_OPENS, REDIRECTS};
use lab::data::{file_size, sha256};
use lab::server::{Server, cpu_ticks};
use lab::{Lab, Namespace, report, snmp_value};
use tidegate_random::Random;

#[test]
fn the_lab_leaves_nothing_behind_even_after_a_panic() {
    let Some(lab) = Lab::up(1) else { return };
    lab.script(&["up", "--queues", "1"]);
    assert!(Namespace::Server.exists() && Namespace::Client.exists());
    lab.script(&["down"]);
    lab.script(&["down"]);
    assert!(!Namespace::Server.exists() && !Namespace::Client.exists());
    drop(lab);

    let server_pid = AtomicU32::new(0);
    let outcome = std::panic::catch_unwind(|| {
        let lab = Lab::up(1).expect("it came up before");
        let server = Server::start(&lab, &[]);
        server_pid.store(server.pid(), Ordering::Relaxed);
        assert_eq!(server.pid(), 0, "on purpose");
    });
    assert!(outcome.is_err());
    assert!(!Namespace::Server.exists() && !Namespace::Client.exists());
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
fn proc_files_are_read_by_field() {
    let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoMin InSegs OutSegs\nTcp: 200 41 42\n";
    assert_eq!(snmp_value(snmp, "Tcp:", "InSegs"), Some(41));
    assert_eq!(snmp_value(snmp, "Tcp:", "Missing"), None);
    let stat = "7 (a (b) c) S 1 7 7 0 -1 0 10 0 0 0 30 12 0 0 20 0 3 0";
    assert_eq!(cpu_ticks(stat), Some(42));
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
