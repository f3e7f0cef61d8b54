//! HTTP over hand-made connections: split, pipelined and malformed requests.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::fixture::client::{Head, connect, curl_to, read_response};
use crate::fixture::counters::PASSIVE_OPENS;
use crate::fixture::data::{directory, sha256_of_file, write_file};
use crate::fixture::limits::OpenFileLimit;
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, HTTP_PORT, Lab, Place, SERVER_V4, in_namespace, report, start, url};
use tidegate_random::Random;

fn http(address: std::net::IpAddr) -> TcpStream {
    connect(SocketAddr::new(address, HTTP_PORT))
}

#[test]
fn a_request_that_comes_byte_by_byte_is_answered() {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n";
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    for address in BOTH_FAMILIES {
        let length = in_namespace(Place::Client, || {
            let mut stream = http(address);
            for byte in REQUEST {
                stream.write_all(&[*byte])?;
                // Each byte leaves as a segment of its own.
                std::thread::sleep(Duration::from_millis(2));
            }
            let mut source = BufReader::new(stream);
            let (status, body) = read_response(&mut source)?;
            assert_eq!(status, 200);
            let mut rest = Vec::new();
            source.read_to_end(&mut rest)?;
            assert!(rest.is_empty(), "{} bytes after the response", rest.len());
            std::io::Result::Ok(body.len())
        })
        .unwrap_or_else(|error| panic!("{address}: {error}"));
        let segments = REQUEST.len();
        report(format_args!(
            "{address}: {segments} segments of a byte, 200 with {length} bytes"
        ));
    }
    server.stop();
}

#[test]
fn pipelined_requests_are_answered_in_their_order_on_one_connection() {
    const FILES: usize = 50;
    let Some(lab) = Lab::up(1) else { return };
    let root = directory();
    let mut random = Random::new(50);
    let bodies: Vec<Vec<u8>> = (0..FILES).map(|number| random.bytes(1 + number * 997)).collect();
    let mut requests = String::new();
    for (number, body) in bodies.iter().enumerate() {
        std::fs::write(root.path().join(number.to_string()), body)
            .unwrap_or_else(|error| panic!("writing file {number}: {error}"));
        requests += &format!("GET /{number} HTTP/1.1\r\nHost: lab\r\n\r\n");
    }
    let root_argument = root.path().to_string_lossy();
    let server = Server::start(&lab, &["--root", &root_argument]);
    in_namespace(Place::Client, || {
        let mut stream = http(SERVER_V4);
        // The same connection serves a second batch: it is kept alive.
        for batch in 0..2 {
            stream.write_all(requests.as_bytes())?;
            let mut source = BufReader::new(&stream);
            for (number, expected) in bodies.iter().enumerate() {
                let (status, body) = read_response(&mut source)?;
                assert_eq!(status, 200, "batch {batch}, response {number}");
                assert!(body == *expected, "batch {batch}, response {number} differs");
            }
            assert!(source.buffer().is_empty(), "batch {batch}: more than was asked for");
        }
        std::io::Result::Ok(())
    })
    .unwrap_or_else(|error| panic!("pipelined requests: {error}"));
    let counters = server.wait_until_no_connection();
    assert_eq!(counters.sum(PASSIVE_OPENS), 1, "connections for all requests");
    report(format_args!(
        "two batches of {FILES} pipelined requests on one connection: in order"
    ));
    server.stop();
}

/// Sends `bytes` on a new connection and reads until its end. Returns the status of the response,
/// if there was one; a reset ends the connection too.
fn status_for(bytes: &[u8]) -> Option<u16> {
    let mut stream = http(SERVER_V4);
    // The server may end the connection while it is still being written to.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    Head::read(&mut BufReader::new(stream)).ok().map(|head| head.status)
}

#[test]
fn garbage_on_some_connections_does_not_touch_a_transfer_on_another() {
    const SIZE: usize = 60_000_000;
    const LIMIT: Duration = Duration::from_secs(30);
    let Some(lab) = Lab::up(1) else { return };
    let root = directory();
    let expected = write_file(&mut Random::new(4), &root.path().join("file"), SIZE);
    let root_argument = root.path().to_string_lossy();
    let mut server = Server::start(&lab, &["--root", &root_argument]);
    let received = root.path().join("received");
    let mut command = curl_to(&url(SERVER_V4, "/file"), &received);
    command.args(["--limit-rate", "30M"]);
    let mut transfer = start(command);

    let over = AtomicBool::new(false);
    let attempts = std::thread::scope(|scope| {
        let abuser = scope.spawn(|| {
            in_namespace(Place::Client, || {
                let mut random = Random::new(666);
                let mut attempts = 0;
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(status_for(b"\0\x01\x02 nonsense\r\n\r\n"), Some(400));
                    assert_eq!(status_for(b"GET / HTTP/9.9\r\nHost: lab\r\n\r\n"), Some(505));
                    // What random bytes provoke is up to the server, as long as it ends.
                    status_for(&random.bytes(100_000));
                    attempts += 3;
                }
                attempts
            })
        });
        let deadline = Instant::now() + LIMIT;
        while transfer.ended().unwrap().is_none() && Instant::now() < deadline && !abuser.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Ordering::Relaxed);
        abuser.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    transfer
        .wait(LIMIT)
        .unwrap_or_else(|problem| panic!("the transfer beside the garbage: {problem}"))
        .expect_success();
    assert_eq!(sha256_of_file(&received), expected);
    assert!(attempts > 0, "the transfer was over before any garbage was sent");
    assert!(server.ended().is_none(), "the server ended: {}", server.describe());
    server.wait_until_no_connection();
    server.stop();
    report(format_args!("{attempts} malformed requests beside {SIZE} bytes: equal"));
}

/// The limits of open files of process `pid`, soft and hard.
fn open_file_limits(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/limits");
    let limits = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {path}: {error}"));
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap_or_else(|| panic!("no open files in {limits}"));
    line.split_whitespace().skip(3).take(2).map(str::to_owned).collect()
}

#[test]
fn slow_readers_use_up_neither_the_descriptors_nor_the_server() {
    const FILES: usize = 12;
    const MAX_OPEN: usize = 8;
    const READERS: usize = 40;
    let Some(lab) = Lab::up(1) else { return };
    let root = directory();
    for number in 0..FILES {
        let file = std::fs::File::create(root.path().join(number.to_string())).expect("a file");
        file.set_len(8_000_000).expect("room for it");
    }
    std::fs::write(root.path().join("small"), "small").expect("a small file");
    let config = root.path().join("tidegate.toml");
    std::fs::write(&config, format!("[http]\nmax_open_files = {MAX_OPEN}\n")).expect("a configuration file");
    let _limit = OpenFileLimit::set(512);
    let [root_argument, config] = [root.path(), &config].map(|path| path.to_string_lossy().into_owned());
    let server = Server::start(&lab, &["--root", &root_argument, "--config", &config]);
    let limits = open_file_limits(server.pid());
    assert_eq!(limits[0], limits[1], "the soft limit is raised to the hard one");

    // The status of the response to a request for `path`, with the connection it came on.
    let ask = |path: &str| {
        let mut stream = http(SERVER_V4);
        let request = format!("GET /{path} HTTP/1.1\r\nHost: lab\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the request is sent");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("a response");
        let status = String::from_utf8_lossy(&status[9..]).into_owned();
        (status, stream)
    };
    let refused = in_namespace(Place::Client, || {
        let mut readers = Vec::new();
        // All of one file, and then as many files as may be open.
        for number in (0..READERS).map(|_| 0).chain(1..MAX_OPEN) {
            let (status, stream) = ask(&number.to_string());
            assert_eq!(status, "200", "file {number}");
            readers.push(stream);
        }
        for number in MAX_OPEN..FILES {
            assert_eq!(ask(&number.to_string()).0, "503", "file {number}");
        }
        assert_eq!(ask("small").0, "200");
        assert_eq!(ask("0").0, "200");
        FILES - MAX_OPEN
    });
    server.wait_until_no_connection();
    assert_eq!(in_namespace(Place::Client, || ask("11").0), "200");
    server.wait_until_no_connection();
    let counters = server.stop();
    assert_eq!(counters.sum("http_files_exhausted"), refused as u64);
    report(format_args!(
        "{READERS} readers of one file, {MAX_OPEN} files open, {refused} answered with 503"
    ));
}
