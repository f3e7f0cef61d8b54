//! Files that are open at the same time, and what is served when there can be no more of them.

use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tidegate_tcp::application::{Application, CloseReason};
use tidegate_tcp::time::Instant;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;
use crate::http::{Connection, Counter};

/// Connections of one service that read what fits into their send buffers, and no more.
struct SlowReaders {
    http: Http,
    now: Instant,
    readers: Vec<(Connection, MockStream)>,
}

impl SlowReaders {
    /// The status of the response to a GET request for `target` on a new connection.
    fn get(&mut self, target: &str) -> u16 {
        self.ask(&get_request(target, ""))
    }

    /// The status of the response to `request` on a new connection.
    fn ask(&mut self, request: &[u8]) -> u16 {
        let mut stream = MockStream::new(2000);
        stream.now = self.now;
        let mut connection = self.http.open(&mut stream);
        self.http.receive(&mut connection, &mut stream, request);
        let status = std::str::from_utf8(&stream.sent()[9..12]).unwrap().parse().unwrap();
        self.readers.push((connection, stream));
        status
    }
}

fn slow_readers(site: &Site) -> SlowReaders {
    SlowReaders {
        http: Http::new(site.config.clone()).unwrap(),
        now: Instant::from_millis(1000),
        readers: Vec::new(),
    }
}

/// Descriptors of this process that lead to files of the site.
fn descriptors(site: &Site) -> usize {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|file| file.starts_with(site.path("")) && !file.ends_with("www"))
        .count()
}

#[test]
fn readers_of_one_file_share_its_descriptor() {
    let site = Site::new(|config| config.cache_file_limit = 1000);
    let mut slow = slow_readers(&site);
    for _ in 0..100 {
        assert_eq!(slow.get("/large.bin"), 200);
    }
    assert_eq!(descriptors(&site), 1);
    slow.readers.truncate(1);
    assert_eq!(descriptors(&site), 1);
    slow.readers.clear();
    assert_eq!(descriptors(&site), 0);
}

/// Content that is sent but not cached would be in memory as often as it is asked for.
#[test]
fn a_file_that_fits_only_without_what_describes_it_is_sent_from_the_disk() {
    for (fits, files) in [(true, 0), (false, 1)] {
        let mut site = Site::new(|config| {
            config.cache_bytes = LARGE + if fits { 10_000 } else { 100 };
            config.cache_file_limit = LARGE;
        });
        let mut slow = slow_readers(&site);
        for _ in 0..10 {
            assert_eq!(slow.get("/large.bin"), 200);
            assert_eq!(descriptors(&site), files);
        }
        assert_eq!(site.get("/large.bin").body, pattern(LARGE));
    }
}

#[test]
fn files_that_left_the_cache_are_forgotten_when_the_connections_close_that_were_sent_them() {
    const CACHE: usize = 2_000_000;
    const LENGTH: usize = 5000;
    let site = Site::new(|config| {
        config.cache_bytes = CACHE;
        config.cache_file_limit = CACHE;
    });
    fs::write(site.path("most.bin"), pattern(CACHE - LENGTH)).unwrap();
    let mut slow = slow_readers(&site);
    // Every file is in memory, until those that left the cache are as large as it.
    let mut files = 0;
    while descriptors(&site) == 0 {
        fs::write(site.path(&format!("{files}.bin")), pattern(LENGTH)).unwrap();
        assert_eq!(slow.get(&format!("/{files}.bin")), 200);
        files += 1;
    }
    assert!(files > CACHE / LENGTH, "{files} files");
    for (connection, _) in slow.readers.drain(..) {
        slow.http.closed(connection, CloseReason::Aborted);
    }
    assert_eq!(slow.get("/most.bin"), 200);
    assert_eq!(
        descriptors(&site),
        0,
        "nothing is left of them, so there is memory for it"
    );
}

#[test]
fn one_file_too_many_is_answered_with_503_and_the_others_are_served() {
    let site = Site::new(|config| {
        config.cache_file_limit = 1000;
        config.max_open_files = 3;
    });
    for number in 0..4 {
        fs::write(site.path(&format!("{number}.bin")), pattern(LARGE)).unwrap();
    }
    let mut slow = slow_readers(&site);
    for number in 0..3 {
        assert_eq!(slow.get(&format!("/{number}.bin")), 200);
    }
    for _ in 0..10 {
        assert_eq!(slow.get("/3.bin"), 503);
    }
    assert_eq!(slow.http.counters().get(Counter::FilesExhausted), 10);
    assert_eq!(slow.http.counters().get(Counter::Responses5xx), 10);
    assert_eq!(descriptors(&site), 3);
    assert_eq!(slow.get("/0.bin"), 200);
    assert_eq!(slow.get("/hello.txt"), 200);
    slow.readers.remove(1);
    assert_eq!(slow.get("/3.bin"), 200);
}

#[test]
fn what_needs_no_content_is_answered_though_no_more_files_may_be_open() {
    let mut site = Site::new(|config| {
        config.cache_bytes = 0;
        config.max_open_files = 1;
    });
    fs::write(site.path("other.bin"), pattern(LARGE)).unwrap();
    let head = site.head("/other.bin", "");
    let length = LARGE.to_string();
    assert_eq!(
        (head.status, head.field("Content-Length")),
        (200, Some(length.as_str()))
    );
    let modified = format!("If-Modified-Since: {}\r\n", head.field("Last-Modified").unwrap());
    let mut slow = slow_readers(&site);
    assert_eq!(slow.get("/large.bin"), 200);
    for _ in 0..2 {
        let head = b"HEAD /other.bin HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(slow.ask(head), 200);
        for (fields, status) in [
            ("If-None-Match: *\r\n", 304),
            (modified.as_str(), 304),
            ("If-Match: \"x\"\r\n", 412),
            ("Range: bytes=1000000-\r\n", 416),
        ] {
            assert_eq!(slow.ask(&get_request("/other.bin", fields)), status, "{fields}");
        }
        assert_eq!(slow.get("/nothing"), 200, "an empty file");
    }
    assert_eq!(slow.http.counters().get(Counter::FilesExhausted), 0);
    for (refused, fields) in ["", "Range: bytes=0-0\r\n", "If-None-Match: \"x\"\r\n"]
        .iter()
        .enumerate()
    {
        assert_eq!(slow.ask(&get_request("/other.bin", fields)), 503, "{fields}");
        assert_eq!(slow.http.counters().get(Counter::FilesExhausted), refused as u64 + 1);
    }
    assert_eq!(descriptors(&site), 1);
}

/// Counts what is logged.
struct Counting(Arc<AtomicU32>);

impl Subscriber for Counting {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn the_reason_is_logged_once_in_ten_seconds() {
    let site = Site::new(|config| {
        config.cache_file_limit = 1000;
        config.max_open_files = 1;
    });
    fs::write(site.path("other.bin"), pattern(LARGE)).unwrap();
    let mut slow = slow_readers(&site);
    let logged = Arc::new(AtomicU32::new(0));
    tracing::subscriber::with_default(Counting(Arc::clone(&logged)), || {
        assert_eq!(slow.get("/large.bin"), 200);
        for seconds in 0..20 {
            for _ in 0..10 {
                assert_eq!(slow.get("/other.bin"), 503);
            }
            assert_eq!(logged.load(Ordering::Relaxed), 1 + seconds / 10);
            slow.now = slow.now + Duration::from_secs(1);
        }
    });
}

/// The limit is the process's, so this is a test in one of its own.
#[test]
fn without_a_descriptor_what_is_cached_is_served_and_the_rest_can_be_had_later() {
    let name = "http::tests::descriptors::in_a_process_without_descriptors";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--test-threads=1", name])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
#[ignore = "changes the limits of its process; another test runs it"]
fn in_a_process_without_descriptors() {
    let mut site = Site::new(|config| config.cache_file_limit = 1000);
    assert_eq!(site.get("/hello.txt").status, 200);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let mut fillers = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        fillers.push(file);
    }
    for round in 1..4 {
        site.driver.advance(Duration::from_secs(1));
        let reply = site.get("/hello.txt");
        assert_eq!((reply.status, reply.text()), (200, "hello, world\n"));
        for target in ["/large.bin", "/docs/"] {
            let reply = site.get(target);
            assert_eq!((reply.status, reply.field("Retry-After")), (503, Some("1")), "{target}");
        }
        let counters = site.driver.application.counters();
        assert_eq!(counters.get(Counter::CacheStaleHits), round);
        assert_eq!(counters.get(Counter::FilesExhausted), 2 * round);
    }
    drop(fillers);
    for target in ["/hello.txt", "/large.bin", "/docs/"] {
        assert_eq!(site.get(target).status, 200, "{target}");
    }
}
