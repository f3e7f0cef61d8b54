//! Linux clients of all kinds through a link that loses, delays, reorders, doubles and changes a few frames.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use tidegate_random::Random;

use crate::fixture::client::{ClientTcp, curl_to};
use crate::fixture::data::{directory, sha256_of_file, write_file};
use crate::fixture::link::{DIRECTIONS, Link};
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, Lab, Place, in_namespace, report, run, url};

/// Bad enough for each kind of recovery to happen, and quick.
const LINK: [&str; 10] = [
    "--delay",
    "2ms",
    "--loss",
    "0.5%",
    "--reorder",
    "1%",
    "--duplicate",
    "0.5%",
    "--corrupt",
    "0.5%",
];

const FILE: &str = "/file";

/// Bytes of each transfer in each direction.
const SIZE: usize = 300_000;

/// Bytes of each transfer where segments are small.
const SMALL_SIZE: usize = 100_000;

const CURL_LIMIT: Duration = Duration::from_secs(30);

/// The files transferred, in a directory the server serves.
struct Data {
    root: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Data {
    fn new(seed: u64, size: usize) -> Self {
        let root = directory();
        let bytes = Random::new(seed).bytes(size);
        let path = root.path().join(FILE.trim_start_matches('/'));
        std::fs::write(&path, &bytes).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        Self { root, bytes }
    }

    fn root(&self) -> &Path {
        self.root.path()
    }
}

/// A server and a link, and how many bytes were uploaded to the one through the other.
struct Side<'lab> {
    server: Server<'lab>,
    link: Link<'lab>,
    uploaded: u64,
}

impl<'lab> Side<'lab> {
    fn start(lab: &'lab Lab, data: &Data) -> Self {
        Self {
            server: Server::start(lab, &["--root", &data.root().to_string_lossy()]),
            link: Link::start(lab, &LINK),
            uploaded: 0,
        }
    }

    /// Transfers `data` down, up, and both ways at once, over both families.
    fn transfer(&mut self, tcp: ClientTcp, data: &Data, what: &str) {
        let started = Instant::now();
        in_namespace(Place::Client, || {
            for address in BOTH_FAMILIES {
                let received = tcp
                    .download(address, FILE)
                    .unwrap_or_else(|error| panic!("{what}: a download from {address}: {error}"));
                assert!(received == data.bytes, "{what}: what {address} sent differs");
                tcp.upload(address, &data.bytes)
                    .unwrap_or_else(|error| panic!("{what}: an upload to {address}: {error}"));
                let received = tcp
                    .echo(address, &data.bytes)
                    .unwrap_or_else(|error| panic!("{what}: an echo by {address}: {error}"));
                assert!(received == data.bytes, "{what}: what {address} echoed differs");
            }
        });
        self.uploaded += (BOTH_FAMILIES.len() * data.bytes.len()) as u64;
        report(format_args!(
            "{what}: down, up and echo of {} bytes over both families equal, {:.1?}",
            data.bytes.len(),
            started.elapsed()
        ));
    }

    /// Ends both, and holds them to account for every byte and frame.
    fn finish(self) {
        self.server.wait_until_no_connection();
        let link = self.link.stop();
        link.expect_balance();
        for direction in DIRECTIONS {
            for name in ["lost", "reordered", "duplicated", "corrupted"] {
                assert!(link.get(name, direction) > 0, "no frame was {name} ({direction})");
            }
        }
        report(format_args!(
            "the link: {} frames, {} lost, {} reordered, {} duplicated, {} corrupted",
            link.sum("received"),
            link.sum("lost"),
            link.sum("reordered"),
            link.sum("duplicated"),
            link.sum("corrupted")
        ));
        let counters = self.server.stop();
        counters.expect_redirects_received();
        counters.expect_frames_whole();
        assert_eq!(
            counters.sum("discard_bytes"),
            self.uploaded,
            "bytes the discard service saw"
        );
    }
}

#[test]
fn clients_without_timestamps_sack_or_window_scaling() {
    const OPTIONS: [&str; 3] = ["tcp_timestamps", "tcp_sack", "tcp_window_scaling"];
    let Some(lab) = Lab::up_middle(1) else { return };
    let data = Data::new(30, SIZE);
    let mut side = Side::start(&lab, &data);
    let mut cases: Vec<(String, Vec<&str>)> = vec![("all options".to_owned(), Vec::new())];
    cases.extend(OPTIONS.map(|option| (format!("without {option}"), vec![option])));
    cases.push(("without any of them".to_owned(), OPTIONS.to_vec()));
    for (what, off) in cases {
        let switch = |value| {
            for option in &off {
                lab.sysctl(Place::Client, &format!("net.ipv4.{option}"), value);
            }
        };
        switch("0");
        side.transfer(ClientTcp::default(), &data, &what);
        switch("1");
    }
    side.finish();
}

#[test]
fn clients_with_segments_from_88_to_1460_bytes() {
    let Some(lab) = Lab::up_middle(1) else { return };
    let data = Data::new(31, SMALL_SIZE);
    let mut side = Side::start(&lab, &data);
    for mss in [88, 216, 536, 1220, 1460] {
        let tcp = ClientTcp {
            mss: Some(mss),
            ..ClientTcp::default()
        };
        side.transfer(tcp, &data, &format!("MSS {mss}"));
    }
    side.finish();
}

#[test]
fn clients_with_each_congestion_control() {
    const WANTED: [&str; 3] = ["cubic", "bbr", "reno"];
    let Some(lab) = Lab::up_middle(1) else { return };
    let path = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let available = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {path}: {error}"));
    let available: BTreeSet<&str> = available.split_whitespace().collect();
    let data = Data::new(32, SIZE);
    let mut side = Side::start(&lab, &data);
    for congestion in WANTED {
        if !available.contains(congestion) {
            report(format_args!(
                "SKIPPED: this kernel has no {congestion}; `modprobe tcp_{congestion}` may load it"
            ));
            continue;
        }
        let tcp = ClientTcp {
            congestion: Some(congestion),
            ..ClientTcp::default()
        };
        side.transfer(tcp, &data, &format!("congestion control {congestion}"));
    }
    side.finish();
}

#[test]
fn curl_through_the_link_and_both_queues() {
    let Some(lab) = Lab::up_middle(2) else { return };
    let root = directory();
    let expected = write_file(&mut Random::new(33), &root.path().join("file"), 1_000_000);
    let server = Server::start(&lab, &["--queues", "2", "--root", &root.path().to_string_lossy()]);
    let link = Link::start(&lab, &LINK);
    for address in BOTH_FAMILIES {
        let received = root.path().join("received");
        run(curl_to(&url(address, FILE), &received), CURL_LIMIT).expect_success();
        assert_eq!(sha256_of_file(&received), expected, "what {address} sent differs");
    }
    server.wait_until_no_connection();
    link.stop().expect_balance();
    let counters = server.stop();
    counters.expect_redirects_received();
    counters.expect_frames_whole();
}
