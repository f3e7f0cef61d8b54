//! TCP details as a Linux client sees them.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::fixture::client::{Head, connect, connect_echo, exchange_with_half_close, round_trip};
use crate::fixture::counters::{FINISHED, PASSIVE_OPENS, RESET_BY_PEER, WINDOW_PROBES};
use crate::fixture::data::{directory, sha256, write_file};
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, HTTP_PORT, Lab, Place, SERVER_V4, in_namespace, report};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tidegate_random::Random;

#[test]
fn what_is_echoed_arrives_after_the_clients_fin() {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    let data = Random::new(1).bytes(1_000_000);
    for address in BOTH_FAMILIES {
        for size in [0, 1, 1448, 65_536, data.len()] {
            let sent = &data[..size];
            let received = in_namespace(Place::Client, || {
                exchange_with_half_close(&connect_echo(address), sent, Duration::ZERO)
            });
            let received = received.unwrap_or_else(|error| panic!("{address}, {size}: {error}"));
            assert!(
                received == sent,
                "{address}: {} of {size} bytes came back",
                received.len()
            );
        }
        report(format_args!("half-close, {address}: 0 to {} bytes echoed", data.len()));
    }
    let counters = server.wait_until_no_connection();
    assert_eq!(counters.sum(FINISHED), 10, "connections that ended with both FINs");
    server.stop();
}

/// Makes the close of `stream` a RST.
fn reset_on_close(stream: &TcpStream) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(stream, sockopt::Linger, &at_once).unwrap_or_else(|error| panic!("setting SO_LINGER: {error}"));
}

#[test]
fn a_peers_rst_ends_its_connection_and_no_other() {
    const ABORTS: u64 = 20;
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    in_namespace(Place::Client, || {
        let bystander = connect_echo(SERVER_V4);
        for number in 0..ABORTS {
            let stream = connect_echo(SERVER_V4);
            round_trip(&stream, b"soon gone").expect("tidegate echoes");
            reset_on_close(&stream);
            drop(stream);
            let text = format!("still here after {number}");
            let echoed = round_trip(&bystander, text.as_bytes()).expect("the bystander lives");
            assert_eq!(echoed, text.as_bytes());
        }
    });
    let counters = server.wait_until_no_connection();
    assert_eq!(counters.sum(RESET_BY_PEER), ABORTS);
    assert_eq!(counters.sum(PASSIVE_OPENS), ABORTS + 1);
    report(format_args!(
        "{ABORTS} connections reset by their peer, the bystander untouched"
    ));
    server.stop();
}

#[test]
fn a_reader_that_pauses_is_waited_for_and_loses_nothing() {
    const SIZE: usize = 20_000_000;
    const PAUSE: Duration = Duration::from_secs(3);
    let Some(lab) = Lab::up(1) else { return };
    let root = directory();
    let expected = write_file(&mut Random::new(20), &root.path().join("file"), SIZE);
    let root_argument = root.path().to_string_lossy();
    let server = Server::start(&lab, &["--root", &root_argument]);
    let body = in_namespace(Place::Client, || {
        let mut stream = connect(SocketAddr::new(SERVER_V4, HTTP_PORT));
        write!(stream, "GET /file HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        let mut source = BufReader::new(stream);
        let head = Head::read(&mut source)?;
        assert_eq!(head.status, 200);
        assert_eq!(head.content_length()?, SIZE);
        let mut body = vec![0; 65_536];
        source.read_exact(&mut body)?;
        std::thread::sleep(PAUSE);
        source.read_to_end(&mut body)?;
        std::io::Result::Ok(body)
    })
    .unwrap_or_else(|error| panic!("reading with a pause: {error}"));
    assert_eq!(body.len(), SIZE);
    assert_eq!(sha256(&body), expected);
    server.wait_until_no_connection();
    let counters = server.stop();
    let probes = counters.sum(WINDOW_PROBES);
    assert!(probes > 0, "the window was closed for {PAUSE:?} and not probed");
    report(format_args!(
        "{SIZE} bytes with a pause of {PAUSE:?}: equal, {probes} window probes"
    ));
}

#[test]
fn an_echo_whose_client_reads_late_is_held_back_and_loses_nothing() {
    const PAUSE: Duration = Duration::from_secs(2);
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    let data = Random::new(21).bytes(20_000_000);
    let received = in_namespace(Place::Client, || {
        exchange_with_half_close(&connect_echo(BOTH_FAMILIES[1]), &data, PAUSE)
    })
    .unwrap_or_else(|error| panic!("echo with a late reader: {error}"));
    assert!(received == data, "{} of {} bytes came back", received.len(), data.len());
    report(format_args!("echo of {} bytes read {PAUSE:?} late: equal", data.len()));
    server.wait_until_no_connection();
    server.stop();
}

#[test]
fn two_thousand_connections_one_after_another_leave_none_behind() {
    const CONNECTIONS: u64 = 2000;
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    let started = Instant::now();
    in_namespace(Place::Client, || {
        for number in 0..CONNECTIONS {
            let stream = connect_echo(SERVER_V4);
            let text = number.to_string();
            let echoed = exchange_with_half_close(&stream, text.as_bytes(), Duration::ZERO)
                .unwrap_or_else(|error| panic!("connection {number}: {error}"));
            assert_eq!(echoed, text.as_bytes(), "connection {number}");
        }
    });
    let took = started.elapsed();
    let counters = server.wait_until_no_connection();
    assert_eq!(counters.sum(PASSIVE_OPENS), CONNECTIONS);
    assert_eq!(counters.sum(FINISHED), CONNECTIONS);
    report(format_args!("{CONNECTIONS} connections in {took:.1?}, none left"));
    server.stop();
}
