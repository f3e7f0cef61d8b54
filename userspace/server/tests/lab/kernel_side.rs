//! Traffic that is not steered stays with the kernel: ICMP, UDP, and TCP to every other port.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tidegate_random::Random;

use crate::fixture::client::{connect, connect_echo, exchange_with_half_close, round_trip};
use crate::fixture::counters::{PASSED_NOT_SERVED, PASSED_NOT_TCP};
use crate::fixture::server::Server;
use crate::fixture::{BOTH_FAMILIES, HTTP_PORT, Lab, Place, command, in_namespace, report, run, socket};

const LIMIT: Duration = Duration::from_secs(15);
const UNSERVED_PORT: u16 = 2222;

#[test]
fn ping_is_answered_while_tidegate_serves() {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    for address in BOTH_FAMILIES {
        let mut command = command(Place::Client, "ping");
        command.args(["-n", "-c3", "-i0.2", "-W2", &address.to_string()]);
        let output = run(command, LIMIT).expect_success().stdout;
        assert!(output.contains("3 received, 0% packet loss"), "{output}");
        report(format_args!("ping {address}: 3 of 3 answered"));
    }
    let counters = server.stop();
    assert!(
        counters.sum(PASSED_NOT_TCP) >= 6,
        "echo requests the XDP program left to the kernel"
    );
}

/// Accepts one connection within `LIMIT`, so that a client that fails cannot hang the test.
fn accept_one(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Accepts one connection, sends a banner first as ssh does, then echoes until FIN.
fn serve_once_with_banner(listener: &TcpListener, banner: &[u8]) -> io::Result<()> {
    let mut stream = accept_one(listener)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(banner)?;
    let mut source = stream.try_clone()?;
    io::copy(&mut source, &mut stream)?;
    stream.shutdown(Shutdown::Write)
}

#[test]
fn the_kernel_serves_tcp_on_another_port_of_the_same_address() {
    const BANNER: &[u8] = b"SSH-2.0-lab\r\n";
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    let data = Random::new(22).bytes(1_000_000);
    for address in BOTH_FAMILIES {
        let kernel_before = lab.kernel_tcp_segments_in();
        let target = SocketAddr::new(address, UNSERVED_PORT);
        let listener = in_namespace(Place::Server, || socket::listen(target))
            .unwrap_or_else(|error| panic!("listening on {target}: {error}"));
        let received = std::thread::scope(|scope| {
            let kernel_side = scope.spawn(|| serve_once_with_banner(&listener, BANNER));
            // A connection through tidegate stays open beside the kernel's.
            let received = in_namespace(Place::Client, || {
                let beside = connect_echo(address);
                let stream = connect(target);
                let received = exchange_with_half_close(&stream, &data, Duration::ZERO);
                let echoed = round_trip(&beside, b"beside").expect("tidegate echoes");
                assert_eq!(echoed, b"beside");
                received
            });
            let served = kernel_side.join().expect("the kernel-side thread does not panic");
            served.unwrap_or_else(|error| panic!("serving on {target}: {error}"));
            received
        });
        let received = received.unwrap_or_else(|error| panic!("client of {target}: {error}"));
        let (banner, echoed) = received.split_at(BANNER.len().min(received.len()));
        assert_eq!(banner, BANNER);
        assert!(echoed == data, "{target}: what the kernel echoed differs");
        let segments = lab.kernel_tcp_segments_in() - kernel_before;
        assert!(segments > 0, "the kernel saw no segment of its own connection");
        report(format_args!("{target}: {segments} segments to the kernel, equal"));
    }
    let counters = server.stop();
    assert!(counters.sum(PASSED_NOT_SERVED) > 0, "segments left to the kernel");
    counters.expect_redirects_received();
}

#[test]
fn a_port_nobody_serves_is_refused_by_the_kernel() {
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    for address in BOTH_FAMILIES {
        let target = SocketAddr::new(address, UNSERVED_PORT);
        let outcome = in_namespace(Place::Client, || socket::connect(target, Duration::from_secs(5)));
        let error = outcome.expect_err("nobody listens there");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}: {error}");
        report(format_args!("{target}: refused"));
    }
    let counters = server.stop();
    assert!(counters.sum(PASSED_NOT_SERVED) >= 2, "SYNs left to the kernel");
}

#[test]
fn udp_reaches_the_kernel_even_on_a_served_port_number() {
    const DATAGRAMS: u8 = 20;
    let Some(lab) = Lab::up(1) else { return };
    let server = Server::start(&lab, &[]);
    for address in BOTH_FAMILIES {
        let target = SocketAddr::new(address, HTTP_PORT);
        let bind = |namespace, local: SocketAddr| {
            let socket = in_namespace(namespace, || socket::udp(local))
                .unwrap_or_else(|error| panic!("binding UDP to {local}: {error}"));
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("a timeout above zero is valid");
            socket
        };
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let any = any.parse().expect("an unspecified address");
        let kernel_side = bind(Place::Server, target);
        let client = bind(Place::Client, any);
        for number in 0..DATAGRAMS {
            let mut buffer = [0; 16];
            client
                .send_to(&[number; 8], target)
                .unwrap_or_else(|error| panic!("sending to {target}: {error}"));
            let (length, peer) = kernel_side
                .recv_from(&mut buffer)
                .unwrap_or_else(|error| panic!("datagram {number} to {target}: {error}"));
            kernel_side
                .send_to(&buffer[..length], peer)
                .unwrap_or_else(|error| panic!("answering {peer}: {error}"));
            let (length, from) = client
                .recv_from(&mut buffer)
                .unwrap_or_else(|error| panic!("answer {number} from {target}: {error}"));
            assert_eq!(from, target);
            assert_eq!(buffer[..length], [number; 8]);
        }
        report(format_args!("{target}/udp: {DATAGRAMS} of {DATAGRAMS} answered"));
    }
    server.stop();
}
