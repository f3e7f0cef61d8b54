//! Linux clients that lose their state, as by a reboot, and come back from the same port while the server still has the
//! old connection, or its TIME-WAIT: RFC 5961, section 4.2, and RFC 6191. They are served at once, whoever answers
//! SYNs, and whichever shard has the old connection.

use std::fs;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::{ReuseAddr, SendTimeout, TcpRepair};
use nix::sys::socket::{SockaddrStorage, bind, connect, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use tidegate_random::Random;

use crate::fixture::client::read_response;
use crate::fixture::counters::{
    CHALLENGE_ACKS, COOKIE_CONNECTIONS, COOKIES_ACTIVE, HANDED_IN, PASSIVE_OPENS, RESET_BY_PEER, SYN_COOKIES_SENT,
    TIME_WAIT_REUSED,
};
use crate::fixture::data::directory;
use crate::fixture::server::{Server, bench_binary};
use crate::fixture::{
    BOTH_FAMILIES, HTTP_PORT, Lab, Place, Process, SERVER_V4, command, in_namespace, report, socket, start,
};

/// From the first SYN to the last octet of the response.
const SERVED_WITHIN: Duration = Duration::from_secs(1);

/// The number of times a client that was served later loses its state again. Linux sends its SYN again 8 ms after the
/// RST by which it answers the challenge, and after that only a second later: a machine that is busy with something
/// else may not have processed the RST by then. Where clients are left hanging, none of them helps.
const MORE_ATTEMPTS: u32 = 2;

/// No answer at all, which fails the test, is waited for so long.
const IO_LIMIT: Duration = Duration::from_secs(5);

/// The time the flood may take to turn cookies on.
const COOKIES_LIMIT: Duration = Duration::from_secs(20);

/// The first port of the clients: the kernel gives none of these away by itself.
const FIRST_PORT: u16 = 20_000;

/// Ports of each family: over two queues some come back by the queue they were on, and some by the other.
const PORTS: u16 = 12;

/// Octets of a file that no socket buffer holds.
const LARGE: usize = 16 << 20;

/// Whether a client uses timestamps before it loses its state, and after.
const TIMESTAMPS: [(&str, &str); 3] = [("1", "1"), ("1", "0"), ("0", "1")];

/// The server's state of the old connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    /// A response was read, and the connection is kept.
    Idle,
    /// A response is on its way and is not read.
    Sending,
    /// The server has closed, and the client has not.
    FinWait,
    /// Both have closed, the server first.
    TimeWait,
}

const OLD: [Old; 4] = [Old::Idle, Old::Sending, Old::FinWait, Old::TimeWait];

impl Old {
    fn of(port: u16) -> Self {
        OLD[usize::from(port) % OLD.len()]
    }
}

/// Connects from `port` of the client to the HTTP listener at `address`.
fn connect_from(port: u16, address: IpAddr) -> io::Result<TcpStream> {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = socket::tcp(address)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    // It bounds connecting, too.
    setsockopt(&socket, SendTimeout, &TimeVal::seconds(IO_LIMIT.as_secs() as i64))?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
    let server = SocketAddr::new(address, HTTP_PORT);
    connect(socket.as_raw_fd(), &SockaddrStorage::from(server))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(IO_LIMIT))?;
    Ok(stream)
}

/// Fetches `path` and returns status and body.
fn get(mut stream: &TcpStream, path: &str, close: bool) -> io::Result<(u16, Vec<u8>)> {
    let connection = if close { "close" } else { "keep-alive" };
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: {connection}\r\n\r\n"
    )?;
    read_response(&mut BufReader::new(stream))
}

/// A connection from `port`, brought to where `old` says.
fn old_connection(port: u16, address: IpAddr, old: Old, page: &[u8]) -> io::Result<TcpStream> {
    let mut stream = connect_from(port, address)?;
    match old {
        Old::Idle => assert!(get(&stream, "/page", false)? == (200, page.to_vec())),
        Old::Sending => {
            write!(stream, "GET /large HTTP/1.1\r\nHost: lab\r\n\r\n")?;
            stream.read_exact(&mut [0; 1000])?;
        }
        Old::FinWait | Old::TimeWait => {
            assert!(get(&stream, "/page", true)? == (200, page.to_vec()));
            assert_eq!(stream.read(&mut [0])?, 0, "the server closes");
        }
    }
    Ok(stream)
}

/// Has the kernel forget the connection without a word to the peer.
fn lose_state(stream: TcpStream) -> io::Result<()> {
    setsockopt(&stream, TcpRepair, &1)?;
    drop(stream);
    Ok(())
}

/// The client comes back: connects from the same port and fetches the page. Returns how long that took.
fn come_back(port: u16, address: IpAddr, page: &[u8]) -> io::Result<(Duration, TcpStream)> {
    let start = Instant::now();
    let stream = connect_from(port, address)?;
    let (status, body) = get(&stream, "/page", false)?;
    let took = start.elapsed();
    if status != 200 || body != page {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("status {status}, or another body"),
        ));
    }
    Ok((took, stream))
}

/// SYNs from everywhere until it is dropped.
fn flood() -> Process {
    let target = SocketAddr::new(SERVER_V4, HTTP_PORT).to_string();
    let mut command = command(Place::Client, bench_binary());
    command.args(["flood", "--iface", "tgc0", "--target", &target, "--kind", "syn"]);
    command.args(["--rate", "5k", "--duration", "60s"]);
    start(command)
}

/// Clients lose their state and come back, on `queues` queues with SYN cookies `when`.
fn clients_that_lost_their_state_are_served(when: &str, queues: u32) {
    let Some(lab) = Lab::up(queues) else { return };
    let files = directory();
    let page = Random::new(13).bytes(5000);
    fs::write(files.path().join("page"), &page).expect("writing a file");
    fs::write(files.path().join("large"), Random::new(14).bytes(LARGE)).expect("writing a file");
    let config = files.path().join("tidegate.toml");
    fs::write(&config, "[syn_cookies]\non_syn_rate = 1000\noff_after = \"60s\"\n").expect("writing the configuration");
    let (count, root, config) = (
        queues.to_string(),
        files.path().to_string_lossy(),
        config.to_string_lossy(),
    );
    let arguments = [
        "--queues",
        &count,
        "--syn-cookies",
        when,
        "--root",
        &root,
        "--config",
        &config,
    ];
    let server = Server::start(&lab, &arguments);
    let flood = (when == "auto").then(|| {
        let flood = flood();
        let started = Instant::now();
        while server.counters().sum(COOKIES_ACTIVE) < u64::from(queues) {
            assert!(started.elapsed() < COOKIES_LIMIT, "no cookies: {}", server.describe());
        }
        flood
    });

    let mut slowest = Duration::ZERO;
    let (mut lost, mut again) = (0, 0);
    for (round, (before, after)) in TIMESTAMPS.into_iter().enumerate() {
        let first = FIRST_PORT + round as u16 * PORTS;
        let clients: Vec<(u16, IpAddr)> = BOTH_FAMILIES
            .into_iter()
            .flat_map(|address| (first..first + PORTS).map(move |port| (port, address)))
            .collect();
        let what = |port, address| {
            let old = Old::of(port);
            format!("{when}, {queues} queues, timestamps {before} and then {after}, {address} from {port}, {old:?}")
        };
        lab.sysctl(Place::Client, "net.ipv4.tcp_timestamps", before);
        in_namespace(Place::Client, || {
            let mut streams = Vec::new();
            for &(port, address) in &clients {
                let stream = old_connection(port, address, Old::of(port), &page)
                    .unwrap_or_else(|error| panic!("{}: {error}", what(port, address)));
                streams.push((port, stream));
            }
            for (port, stream) in streams {
                if Old::of(port) != Old::TimeWait {
                    lost += 1;
                    lose_state(stream).unwrap_or_else(|error| panic!("losing a connection's state: {error}"));
                }
            }
        });
        lab.sysctl(Place::Client, "net.ipv4.tcp_timestamps", after);
        in_namespace(Place::Client, || {
            let mut streams = Vec::new();
            for &(port, address) in &clients {
                let mut attempts = 0;
                loop {
                    let (took, stream) = come_back(port, address, &page)
                        .unwrap_or_else(|error| panic!("{}: {error}\n{}", what(port, address), server.describe()));
                    if took <= SERVED_WITHIN {
                        slowest = slowest.max(took);
                        streams.push(stream);
                        break;
                    }
                    report(format_args!("{}: served after {took:.1?}", what(port, address)));
                    assert!(
                        attempts < MORE_ATTEMPTS,
                        "{}: served after {took:?}",
                        what(port, address)
                    );
                    attempts += 1;
                    again += 1;
                    lose_state(stream).unwrap_or_else(|error| panic!("losing a connection's state: {error}"));
                }
            }
        });
    }
    drop(flood);

    // Nothing is left of an old connection, on any shard, once the new ones are closed.
    server.wait_until_no_connection();
    let counters = server.stop();
    let connections = 2 * u64::from(PORTS) * TIMESTAMPS.len() as u64;
    assert_eq!(counters.sum(PASSIVE_OPENS), 2 * connections + again, "connections");
    assert!(
        counters.sum(RESET_BY_PEER) >= lost + again,
        "a client resets what it does not know"
    );
    assert_eq!(
        counters.sum(TIME_WAIT_REUSED),
        connections - lost,
        "connections in place of TIME-WAIT"
    );
    if when == "never" {
        assert_eq!(counters.sum(SYN_COOKIES_SENT), 0);
    } else {
        // All of the old ones, and none in place of TIME-WAIT. In between a SYN may come to the engine, which answers
        // it, just after the RST.
        let from_cookies = counters.sum(COOKIE_CONNECTIONS);
        let expected = connections..=connections + lost + again;
        assert!(expected.contains(&from_cookies), "{from_cookies} from cookies");
    }
    if queues > 1 {
        assert!(
            counters.sum(HANDED_IN) > 0,
            "nobody came back by another queue: the test showed nothing"
        );
    }
    report(format_args!(
        "cookies {when}, {queues} queues: {connections} clients came back and were served within {slowest:.1?}, {} challenges",
        counters.sum(CHALLENGE_ACKS)
    ));
}

#[test]
fn without_cookies() {
    clients_that_lost_their_state_are_served("never", 1);
}

#[test]
fn without_cookies_whichever_queue_they_come_back_by() {
    clients_that_lost_their_state_are_served("never", 2);
}

#[test]
fn during_a_flood() {
    clients_that_lost_their_state_are_served("auto", 1);
}

#[test]
fn during_a_flood_whichever_queue_they_come_back_by() {
    clients_that_lost_their_state_are_served("auto", 2);
}

#[test]
fn with_cookies() {
    clients_that_lost_their_state_are_served("always", 1);
}

#[test]
fn with_cookies_whichever_queue_they_come_back_by() {
    clients_that_lost_their_state_are_served("always", 2);
}
