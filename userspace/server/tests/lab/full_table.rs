//! The limits of one source, and its connections when others need the place.

use std::fs;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use crate::fixture::client::{connect, read_response};
use crate::fixture::counters::EVICTED;
use crate::fixture::data::directory;
use crate::fixture::server::Server;
use crate::fixture::{HTTP_PORT, Lab, Place, SERVER_V4, SERVER_V6, in_namespace, report, socket};

/// The time a connection has for its first request before it gives way (docs/operations.md), and a little more.
const GRACE: Duration = Duration::from_millis(3500);

const TIMEOUT: Duration = Duration::from_secs(10);

fn start<'lab>(lab: &'lab Lab, config: &str) -> Server<'lab> {
    let folder = directory();
    let path = folder.path().join("tidegate.toml");
    fs::write(&path, config).expect("writing the configuration");
    Server::start(lab, &["--config", &path.to_string_lossy()])
}

fn connections(address: IpAddr, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| connect(SocketAddr::new(address, HTTP_PORT)))
        .collect()
}

/// A connection that has been served and stays open.
fn served(address: IpAddr) -> TcpStream {
    let mut stream = connect(SocketAddr::new(address, HTTP_PORT));
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
        .expect("sending a request");
    let (status, _) = read_response(&mut BufReader::new(&stream)).expect("a response");
    assert_eq!(status, 200);
    stream
}

/// The number of connections that were reset; the others are silent.
fn reset(streams: &mut [TcpStream]) -> usize {
    let was_reset = |stream: &mut TcpStream| {
        stream.set_nonblocking(true).expect("a socket that does not block");
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            other => panic!("neither reset nor silent: {other:?}"),
        }
    };
    streams.iter_mut().map(was_reset).filter(|&reset| reset).count()
}

/// Whether a new connection is reset, before it is seen to be open or after.
fn is_refused(address: IpAddr) -> bool {
    let connected = socket::connect(SocketAddr::new(address, HTTP_PORT), TIMEOUT);
    let read = connected.and_then(|mut stream| {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.read(&mut [0])
    });
    read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn clients_are_served_while_another_source_holds_the_table() {
    const PLACES: usize = 20;
    const CLIENTS: usize = 10;
    let Some(lab) = Lab::up(1) else { return };
    let server = start(&lab, &format!("[tcp]\nmax_connections = {PLACES}\n"));
    let mut idle = in_namespace(Place::Client, || connections(SERVER_V4, PLACES));
    sleep(GRACE);
    let clients: Vec<TcpStream> = in_namespace(Place::Client, || (0..CLIENTS).map(|_| served(SERVER_V6)).collect());
    // Their RSTs are as late as the responses at most.
    assert_eq!(reset(&mut idle), CLIENTS);
    assert_eq!(server.counters().sum(EVICTED), CLIENTS as u64);
    // Served connections of the source that holds fewer stay, whoever comes.
    let more = in_namespace(Place::Client, || connections(SERVER_V4, PLACES));
    let mut clients = clients;
    assert_eq!(reset(&mut clients), 0);
    report(format_args!(
        "{CLIENTS} of {CLIENTS} clients served in a table of {PLACES}"
    ));
    drop((idle, more, clients));
    server.stop();
}

#[test]
fn a_source_beyond_its_limit_is_reset_and_another_is_served() {
    const LIMIT: usize = 5;
    const BEYOND: usize = 3;
    let Some(lab) = Lab::up(1) else { return };
    let server = start(&lab, &format!("[sources]\nmax_connections = {LIMIT}\n"));
    let mut streams = in_namespace(Place::Client, || connections(SERVER_V4, LIMIT));
    in_namespace(Place::Client, || assert!((0..BEYOND).all(|_| is_refused(SERVER_V4))));
    let other = in_namespace(Place::Client, || served(SERVER_V6));
    assert_eq!(reset(&mut streams), 0);
    assert_eq!(server.counters().sum("tcp_drop_source_connections"), BEYOND as u64);
    drop((streams, other));
    server.stop();
}
