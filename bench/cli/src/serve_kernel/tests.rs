//! tidegate's applications on loopback, with the standard library's sockets as clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tidegate_apps::{ServiceKind, Services, discard, echo, http};
use tidegate_kernel_host::Server;
use tidegate_random::Random;

use super::bucket::Bucket;
use super::limited::Limited;
use super::spin::Spinning;
use tidegate_args::url::Url;
use tidegate_load::Body;
use tidegate_load::http::{Head, parse_head, read_head};

/// The time anything may take before a test fails.
const TIMEOUT: Duration = Duration::from_secs(20);

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Settings other than the default ones.
#[derive(Default)]
struct Settings {
    echo: echo::Config,
    discard: discard::Config,
    http: http::Config,
    max_rate: Option<u64>,
}

fn serve_on(threads: usize, service: ServiceKind, settings: &Settings) -> (Server, SocketAddr) {
    let services = || {
        Services::new(
            vec![service],
            settings.echo.clone(),
            settings.discard.clone(),
            settings.http.clone(),
        )
        .unwrap()
    };
    let addresses = ["127.0.0.1:0".parse().unwrap()];
    let all = (0..threads).map(|_| services());
    let server = match settings.max_rate {
        Some(rate) => {
            let bucket = Arc::new(Bucket::new(rate));
            let limited = all.map(|services| Limited::new(services, Arc::clone(&bucket)));
            Server::start(&addresses, &[], limited.collect(), |_| {})
        }
        None => Server::start(&addresses, &[], all.collect(), |_| {}),
    }
    .unwrap();
    let address = server.addresses()[0];
    (server, address)
}

fn serve(service: ServiceKind) -> (Server, SocketAddr) {
    serve_on(1, service, &Settings::default())
}

#[test]
fn a_server_that_spins_uses_that_time_for_each_request() {
    let time = Duration::from_millis(30);
    let services = Services::new(
        vec![ServiceKind::Http],
        echo::Config::default(),
        discard::Config::default(),
        http::Config::default(),
    );
    let application = Spinning {
        application: services.unwrap(),
        time,
    };
    let server = Server::start(&["127.0.0.1:0".parse().unwrap()], &[], vec![application], |_| {}).unwrap();
    let address = server.addresses()[0];
    let mut stream = connect(address);
    let begin = Instant::now();
    for _ in 0..3 {
        stream.write_all(&request(address, "/", true)).unwrap();
        assert_eq!(response(&mut stream).0.status, 200);
    }
    assert!(begin.elapsed() >= 3 * time);
    server.stop().unwrap();
}

#[test]
fn a_server_that_spins_has_no_known_limit() {
    let both = ["--listen", "http=127.0.0.1:80", "--spin", "1ms", "--max-rate", "5"];
    let error = tidegate_report::testing::parse::<super::Arguments>(&both).unwrap_err();
    assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict);
}

fn request(address: SocketAddr, path: &str, keep_alive: bool) -> Vec<u8> {
    let url: Url = format!("http://{address}{path}").parse().unwrap();
    url.request(keep_alive)
}

/// Reads one response.
fn response(stream: &mut TcpStream) -> (Head, Body) {
    let (head, mut body) = read_head(stream).unwrap();
    let length = usize::try_from(head.length().unwrap()).unwrap();
    let begun = body.len();
    assert!(begun <= length, "more than the response");
    body.resize(length, 0);
    stream.read_exact(&mut body[begun..]).unwrap();
    (head, Body::of(&body))
}

fn assert_closed(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "something follows");
}

fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Random::new(seed).fill(&mut bytes);
    bytes
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[test]
fn requests_follow_each_other_until_one_asks_to_close() {
    let (server, address) = serve(ServiceKind::Http);
    let mut stream = connect(address);
    for keep_alive in [true, true, false] {
        stream.write_all(&request(address, "/", keep_alive)).unwrap();
        let (head, _) = response(&mut stream);
        assert_eq!((head.status, head.keep_alive), (200, keep_alive));
    }
    assert_closed(&mut stream);
    server.stop().unwrap();
}

#[test]
fn a_request_in_pieces_is_answered() {
    let (server, address) = serve(ServiceKind::Http);
    let mut stream = connect(address);
    stream.set_nodelay(true).unwrap();
    for piece in request(address, "/", false).chunks(7) {
        stream.write_all(piece).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(response(&mut stream).0.status, 200);
    assert_closed(&mut stream);
    server.stop().unwrap();
}

#[test]
fn pipelined_requests_are_all_answered() {
    const REQUESTS: usize = 500;
    let (server, address) = serve(ServiceKind::Http);
    let mut stream = connect(address);
    let one = request(address, "/", true);
    stream.write_all(&one.repeat(REQUESTS)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    let mut rest = &received[..];
    for index in 0..REQUESTS {
        let head = parse_head(rest).unwrap().expect("a complete head");
        assert_eq!(head.status, 200, "response {index}");
        let length = usize::try_from(head.length().unwrap()).unwrap();
        rest = &rest[head.end + length..];
    }
    assert!(rest.is_empty(), "{} bytes follow", rest.len());
    server.stop().unwrap();
}

#[test]
fn a_large_file_arrives_whole_at_a_slow_reader() {
    let content = random(1, 48 << 20);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("large"), &content).unwrap();
    let http = http::Config {
        root: Some(directory.path().to_owned()),
        ..http::Config::default()
    };
    let settings = Settings {
        http,
        ..Settings::default()
    };
    let (server, address) = serve_on(1, ServiceKind::Http, &settings);
    let mut stream = connect(address);
    stream.write_all(&request(address, "/large", true)).unwrap();
    // All buffers on the way are full by then.
    thread::sleep(Duration::from_millis(200));
    let (head, body) = response(&mut stream);
    assert_eq!((head.status, body), (200, Body::of(&content)));
    stream.write_all(&request(address, "/none", false)).unwrap();
    assert_eq!(response(&mut stream).0.status, 404);
    server.stop().unwrap();
}

#[test]
fn what_is_echoed_is_what_was_sent_and_the_end_follows() {
    let (server, address) = serve(ServiceKind::Echo);
    let mut stream = connect(address);
    let sent = random(2, 32 << 20);
    let expected = hash(&sent);
    let mut sender = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    // Meanwhile the service is held back, and its client with it.
    thread::sleep(Duration::from_millis(200));
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert_eq!(received.len(), 32 << 20);
    assert_eq!(hash(&received), expected);
    server.stop().unwrap();
}

#[test]
fn what_is_discarded_is_not_answered_but_for_its_end() {
    let (server, address) = serve(ServiceKind::Discard);
    let mut stream = connect(address);
    stream.write_all(&vec![7_u8; 4 << 20]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_closed(&mut stream);
    server.stop().unwrap();
}

#[test]
fn threads_share_a_port() {
    let (server, address) = serve_on(2, ServiceKind::Http, &Settings::default());
    let mut streams: Vec<TcpStream> = (0..64).map(|_| connect(address)).collect();
    for stream in &mut streams {
        stream.write_all(&request(address, "/", true)).unwrap();
    }
    for stream in &mut streams {
        assert_eq!(response(stream).0.status, 200);
    }
    server.stop().unwrap();
}

#[test]
fn idle_connections_are_closed() {
    const IDLE: Duration = Duration::from_millis(50);
    let settings = Settings {
        echo: echo::Config { idle_timeout: IDLE },
        discard: discard::Config { idle_timeout: IDLE },
        http: http::Config {
            keepalive_timeout: IDLE,
            ..http::Config::default()
        },
        max_rate: None,
    };
    for service in [ServiceKind::Echo, ServiceKind::Discard, ServiceKind::Http] {
        let (server, address) = serve_on(1, service, &settings);
        assert_closed(&mut connect(address));
        server.stop().unwrap();
    }
}

/// The echo service aborts, where it would only close if everything it sent had been acknowledged.
#[test]
fn a_peer_that_does_not_read_has_unacknowledged_data() {
    let settings = Settings {
        echo: echo::Config {
            idle_timeout: Duration::from_millis(500),
        },
        ..Settings::default()
    };
    let (server, address) = serve_on(1, ServiceKind::Echo, &settings);
    let mut stream = connect(address);
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let chunk = vec![7_u8; 64 * 1024];
    let error = loop {
        match stream.write(&chunk) {
            Ok(count) => assert!(count > 0),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    let end = Instant::now() + TIMEOUT;
    let error = loop {
        if let Some(error) = stream.take_error().unwrap() {
            break error;
        }
        assert!(Instant::now() < end, "the connection is still there");
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    server.stop().unwrap();
}

#[test]
fn a_limited_server_answers_all_and_no_faster_than_its_limit() {
    const RATE: u64 = 100;
    const REQUESTS: u64 = 60;
    let settings = Settings {
        max_rate: Some(RATE),
        ..Settings::default()
    };
    let (server, address) = serve_on(2, ServiceKind::Http, &settings);
    let begin = Instant::now();
    let mut streams: Vec<TcpStream> = (0..4).map(|_| connect(address)).collect();
    for _ in 0..REQUESTS / 4 {
        for stream in &mut streams {
            stream.write_all(&request(address, "/", true)).unwrap();
        }
        for stream in &mut streams {
            assert_eq!(response(stream).0.status, 200);
        }
    }
    // The first and those that were saved for 10 ms need not wait.
    let least = Duration::from_millis((REQUESTS - 2) * 1_000 / RATE);
    assert!(begin.elapsed() >= least, "{:?}", begin.elapsed());
    server.stop().unwrap();
}

/// The application's own timer goes on when the request has its token, and not before.
#[test]
fn a_limited_server_still_closes_what_is_idle() {
    let settings = Settings {
        http: http::Config {
            keepalive_timeout: Duration::from_millis(50),
            ..http::Config::default()
        },
        max_rate: Some(5),
        ..Settings::default()
    };
    let (server, address) = serve_on(1, ServiceKind::Http, &settings);
    let mut stream = connect(address);
    let mut other = connect(address);
    for stream in [&mut other, &mut stream] {
        stream.write_all(&request(address, "/", true)).unwrap();
    }
    for stream in [&mut other, &mut stream] {
        assert_eq!(response(stream).0.status, 200);
        assert_closed(stream);
    }
    server.stop().unwrap();
}
