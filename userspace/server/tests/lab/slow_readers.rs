//! Peers that ask for much and do not read it: the memory they take, and that it comes back.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fixture::client::curl_to;
use crate::fixture::counters::CONNECTIONS;
use crate::fixture::data::{directory, write_file};
use crate::fixture::limits::OpenFileLimit;
use crate::fixture::server::Server;
use crate::fixture::{ECHO_PORT, HTTP_PORT, Lab, Place, SERVER_V4, in_namespace, report, run, socket, url};
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{SockaddrStorage, connect as connect_socket, setsockopt};
use tidegate_random::Random;

const READERS: usize = 3000;

/// Not cached by the server, whose limit is 1 MiB.
const FILE_SIZE: usize = 20 << 20;

const MEGABYTE: u64 = 1_000_000;

/// The most the readers may take while they are there.
const MAX_GROWTH: u64 = 100 * MEGABYTE;

/// Pools that are kept, all together (docs/architecture.md), beside a tenth.
const MAX_POOLS: u64 = 16 * MEGABYTE;

/// The time memory may take to stop growing, and to come back.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

const RUN_LIMIT: Duration = Duration::from_secs(30);

/// A connection to `port` with the smallest receive buffer the kernel has, on which writing `request` goes on until all
/// of it, or as much as the server takes, is written, and which then reads up to `read` octets.
fn reader(port: u16, request: &[u8], read: usize) -> TcpStream {
    let socket = socket::tcp(SERVER_V4).expect("a socket");
    // Before the SYN, so that the first window is small as well.
    setsockopt(&socket, RcvBuf, &1024).expect("a small receive buffer");
    let address = SocketAddr::new(SERVER_V4, port);
    connect_socket(socket.as_raw_fd(), &SockaddrStorage::from(address)).expect("a connection");
    let mut stream = TcpStream::from(socket);
    stream.set_nonblocking(true).expect("a socket that does not block");
    let mut left = request;
    while !left.is_empty() {
        match stream.write(left) {
            Ok(count) => left = &left[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("writing a request: {error}"),
        }
    }
    stream.set_nonblocking(false).expect("a socket that blocks");
    let mut some = vec![0; read];
    stream.read_exact(&mut some).expect("the beginning of a response");
    stream
}

/// Waits until the server's memory is below `limit` or does not become less any more; returns it.
fn settled(server: &Server<'_>, limit: u64) -> u64 {
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        let resident = server.resident();
        if resident <= limit || Instant::now() > deadline {
            return resident;
        }
        sleep(Duration::from_millis(200));
    }
}

/// Has [`READERS`] connections send `request` to `port` and read `read` octets of what comes, twice; they may take
/// `growth` bytes meanwhile.
fn readers_leave_nothing(port: u16, request: &[u8], read: usize, growth: u64) {
    let Some(lab) = Lab::up(1) else { return };
    // Room for the descriptors of all readers, here and in the server, which inherits the limit.
    let _limit = OpenFileLimit::set(8192);
    let site = directory();
    write_file(&mut Random::new(1), &site.path().join("large.bin"), FILE_SIZE);
    write_file(&mut Random::new(2), &site.path().join("small.bin"), 1000);
    let config = site.path().join("tidegate.toml");
    fs::write(&config, "[tcp]\nmsl = \"100ms\"\n").expect("writing the configuration");
    let (root, config) = (site.path().to_string_lossy(), config.to_string_lossy());
    let server = Server::start(&lab, &["--root", &root, "--config", &config]);
    run(
        curl_to(&url(SERVER_V4, "/small.bin"), &site.path().join("out")),
        RUN_LIMIT,
    )
    .expect_success();
    server.wait_until_no_connection();
    let idle = server.resident();
    for round in 1..=2 {
        let readers: Vec<TcpStream> = in_namespace(Place::Client, || {
            (0..READERS).map(|_| reader(port, request, read)).collect()
        });
        // What is under way arrives.
        sleep(Duration::from_secs(2));
        assert_eq!(server.counters().sum(CONNECTIONS), READERS as u64);
        let full = server.resident();
        // All at once their RSTs would not find room in the ring.
        for (number, reader) in readers.into_iter().enumerate() {
            drop(reader);
            if number % 50 == 0 {
                sleep(Duration::from_millis(5));
            }
        }
        server.wait_until_no_connection();
        let after = settled(&server, idle + idle / 10 + MAX_POOLS);
        report(format_args!(
            "{READERS} readers of {read} octets at port {port}, round {round}: {idle} bytes before, {full} with them, \
             {after} after"
        ));
        assert!(full <= idle + growth, "from {idle} to {full} bytes");
        assert!(after <= idle + idle / 10 + MAX_POOLS, "from {idle} to {after} bytes");
    }
    // It still serves.
    run(
        curl_to(&url(SERVER_V4, "/large.bin"), &site.path().join("out")),
        RUN_LIMIT,
    )
    .expect_success();
    server.stop();
}

const REQUEST: &[u8] = b"GET /large.bin HTTP/1.1\r\nHost: lab\r\n\r\n";

#[test]
fn readers_of_a_large_file_that_read_nothing() {
    readers_leave_nothing(HTTP_PORT, REQUEST, 0, MAX_GROWTH);
}

#[test]
fn readers_of_a_large_file_that_read_some_and_stop() {
    readers_leave_nothing(HTTP_PORT, REQUEST, 100_000, MAX_GROWTH);
}

#[test]
fn clients_of_the_echo_that_read_nothing() {
    // Of what they send, up to their receive windows wait to be echoed.
    let windows = READERS as u64 * 128 * 1024;
    readers_leave_nothing(ECHO_PORT, &[b'x'; 200_000], 0, windows);
}
