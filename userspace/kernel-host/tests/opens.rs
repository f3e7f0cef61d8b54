//! Connections that a host opens.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tidegate_kernel_host::{ConnectionId, Host};
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::time::Instant;

/// The time anything may take before a test fails.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Sends a greeting on every connection, and closes with the answer.
#[derive(Default)]
struct Greeter {
    announced: Vec<ConnectionId>,
    opened: usize,
    answers: Vec<Vec<u8>>,
    closed: Vec<CloseReason>,
}

impl Application for Greeter {
    type Connection = ();

    fn open<S: Stream>(&mut self, stream: &mut S) {
        assert_eq!(stream.listener(), None);
        assert_ne!(stream.local().port(), 0);
        self.opened += 1;
        assert_eq!(self.announced.len(), self.opened, "it was announced before");
        stream.send(&mut Bytes::from_static(b"hello"));
    }

    fn receive<S: Stream>(&mut self, (): &mut (), stream: &mut S, data: &[u8]) -> usize {
        self.answers.push(data.to_vec());
        stream.close();
        data.len()
    }

    fn end_of_stream<S: Stream>(&mut self, (): &mut (), stream: &mut S) {
        stream.close();
    }

    fn writable<S: Stream>(&mut self, (): &mut (), _: &mut S) {}

    fn timeout<S: Stream>(&mut self, (): &mut (), _: &mut S) {}

    fn drain<S: Stream>(&mut self, (): &mut (), _: &mut S) {}

    fn closed(&mut self, (): (), reason: CloseReason) {
        self.closed.push(reason);
    }
}

/// Runs a host that opens `count` connections until it has none any more.
fn run(target: SocketAddr, count: usize) -> Host<Greeter> {
    let mut host = Host::new(Greeter::default()).unwrap();
    let mut begun = 0;
    host.run_with(
        |host, now| {
            assert!(now.since(Instant::ZERO) < TIMEOUT, "there is no end");
            while begun < count {
                begun += 1;
                // On loopback the kernel may know at once that nobody listens.
                if let Err(error) = host.connect(target) {
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                }
            }
            Ok((host.connections() > 0).then_some(TIMEOUT))
        },
        |application, id, _| application.announced.push(id),
    )
    .unwrap();
    host
}

#[test]
fn every_connection_is_announced_opened_and_closed_once() {
    const COUNT: usize = 50;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        for _ in 0..COUNT {
            let (mut stream, _) = listener.accept().unwrap();
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting).unwrap();
            stream.write_all(&greeting).unwrap();
            // This side closes first and does not wait, so the FIN comes before ours is sent.
            assert_eq!(stream.read(&mut greeting).unwrap(), 0);
        }
    });
    let host = run(address, COUNT);
    server.join().unwrap();
    let application = host.application();
    assert_eq!((application.announced.len(), application.opened), (COUNT, COUNT));
    assert_eq!(application.answers, vec![b"hello".to_vec(); COUNT]);
    assert_eq!(application.closed, [CloseReason::Finished; COUNT]);
    assert_eq!(
        (host.connections(), host.opening_since().count(), host.sent()),
        (0, 0, 5 * COUNT as u64)
    );
}

#[test]
fn a_connection_that_is_refused_is_never_opened() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut host = run(address, 3);
    assert_eq!((host.connections(), host.opening_since().count()), (0, 0));
    let application = host.application();
    assert!(application.announced.is_empty() && application.closed.is_empty());
    while let Some(error) = host.take_failed() {
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn an_action_on_a_connection_sends_what_it_queues() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = [0; 10];
        stream.read_exact(&mut received).unwrap();
        stream.write_all(b"x").unwrap();
        received
    });
    let mut host = Host::new(Greeter::default()).unwrap();
    let mut asked = false;
    let id = host.connect(address).unwrap();
    host.run_with(
        |host, now| {
            assert!(now.since(Instant::ZERO) < TIMEOUT, "there is no end");
            if !asked {
                let space = host.with_connection(id, |application, (), stream| {
                    assert_eq!(application.announced, [id]);
                    stream.send(&mut Bytes::from_static(b"again"));
                    stream.send_space()
                });
                // As long as the connection is not open there is none.
                assert_eq!(space.is_some(), host.application().opened == 1);
                asked = space.is_some();
            }
            Ok((host.connections() > 0).then_some(TIMEOUT))
        },
        |application, id, _| application.announced.push(id),
    )
    .unwrap();
    assert_eq!(&server.join().unwrap(), b"helloagain");
    assert_eq!(host.with_connection(id, |_, (), _| ()), None, "it is gone");
}
