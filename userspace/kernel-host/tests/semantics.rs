//! The promises of [`Application`] and [`Stream`] to an application.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use tidegate_tcp::application::{Application, CloseReason, ListenerId, Stream};

use tidegate_kernel_host::{SEND_BUFFER, Server};

/// The time anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A callback, and what it saw.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Open,
    /// Bytes offered, and whether the peer had finished.
    Data(usize, bool),
    EndOfStream,
    /// Bytes that can be sent.
    Writable(usize),
    Timeout,
    Closed(CloseReason),
}

/// The behaviour of the application.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// It consumes nothing until the timer it sets after the peer's FIN has run out.
    Reluctant,
    /// It sends so many bytes and closes.
    Source(usize),
    /// It closes when data arrives.
    Close,
    /// It aborts when data arrives.
    Abort,
}

/// An application that tells what is done to it.
struct Probe {
    behaviour: Behaviour,
    seen: Sender<Seen>,
}

struct State {
    left: usize,
    timer_ran_out: bool,
}

impl Probe {
    fn note(&self, seen: Seen) {
        // A test that has seen enough does not look any more.
        let _ = self.seen.send(seen);
    }

    fn pump<S: Stream>(&self, state: &mut State, stream: &mut S) {
        if !matches!(self.behaviour, Behaviour::Source(_)) {
            return;
        }
        let mut bytes = Bytes::from(vec![7_u8; state.left.min(SEND_BUFFER + 1)]);
        state.left -= stream.send(&mut bytes);
        if state.left == 0 {
            stream.close();
        }
    }
}

impl Application for Probe {
    type Connection = State;

    fn open<S: Stream>(&mut self, stream: &mut S) -> State {
        assert_eq!(stream.listener(), Some(ListenerId(0)));
        self.note(Seen::Open);
        let left = match self.behaviour {
            Behaviour::Source(bytes) => bytes,
            _ => 0,
        };
        let mut state = State {
            left,
            timer_ran_out: false,
        };
        self.pump(&mut state, stream);
        state
    }

    fn receive<S: Stream>(&mut self, state: &mut State, stream: &mut S, data: &[u8]) -> usize {
        self.note(Seen::Data(data.len(), stream.peer_finished()));
        match self.behaviour {
            Behaviour::Reluctant if !state.timer_ran_out => {
                if stream.peer_finished() {
                    stream.set_timer(Some(Duration::from_millis(20)));
                }
                return 0;
            }
            Behaviour::Reluctant | Behaviour::Source(_) => {}
            Behaviour::Close => stream.close(),
            Behaviour::Abort => stream.abort(),
        }
        data.len()
    }

    fn end_of_stream<S: Stream>(&mut self, _state: &mut State, stream: &mut S) {
        self.note(Seen::EndOfStream);
        stream.close();
    }

    fn writable<S: Stream>(&mut self, state: &mut State, stream: &mut S) {
        self.note(Seen::Writable(stream.send_space()));
        self.pump(state, stream);
    }

    fn timeout<S: Stream>(&mut self, state: &mut State, _stream: &mut S) {
        self.note(Seen::Timeout);
        state.timer_ran_out = true;
    }

    fn drain<S: Stream>(&mut self, _state: &mut State, _stream: &mut S) {}

    fn closed(&mut self, _state: State, reason: CloseReason) {
        self.note(Seen::Closed(reason));
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Has RST sent instead of FIN when `stream` is closed.
fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
}

/// A server with a client connected to it.
struct Test {
    server: Server,
    seen: Receiver<Seen>,
    client: TcpStream,
}

impl Test {
    fn new(behaviour: Behaviour) -> Self {
        let (sender, seen) = mpsc::channel();
        let probe = Probe {
            behaviour,
            seen: sender,
        };
        let server = Server::start(&["127.0.0.1:0".parse().unwrap()], &[], vec![probe], |_| {}).unwrap();
        let client = connect(server.addresses()[0]);
        let test = Self { server, seen, client };
        test.expect(Seen::Open);
        test
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("a callback")
    }

    fn expect(&self, seen: Seen) {
        assert_eq!(self.next(), seen);
    }

    /// The connection ends for this reason, and then nothing more is heard of it.
    fn expect_end(self, reason: CloseReason) {
        self.expect(Seen::Closed(reason));
        self.server.stop().unwrap();
        assert_eq!(self.seen.iter().next(), None);
    }
}

#[test]
fn what_is_not_consumed_is_offered_again_and_the_end_is_told_last() {
    let mut test = Test::new(Behaviour::Reluctant);
    test.client.write_all(b"abc").unwrap();
    test.expect(Seen::Data(3, false));
    test.client.write_all(b"def").unwrap();
    test.expect(Seen::Data(6, false));
    test.client.shutdown(Shutdown::Write).unwrap();
    test.expect(Seen::Data(6, true));
    test.expect(Seen::Timeout);
    test.expect(Seen::Data(6, true));
    test.expect(Seen::EndOfStream);
    assert_eq!(test.client.read(&mut [0]).unwrap(), 0);
    test.expect_end(CloseReason::Finished);
}

#[test]
fn writable_is_told_when_half_of_the_send_buffer_is_free() {
    const BYTES: usize = 48 << 20;
    let mut test = Test::new(Behaviour::Source(BYTES));
    let mut received = Vec::new();
    test.client.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), BYTES);
    test.client.shutdown(Shutdown::Write).unwrap();
    let mut told = 0;
    loop {
        match test.next() {
            Seen::Writable(space) => assert!(space >= SEND_BUFFER / 2, "{space}"),
            Seen::Closed(reason) => {
                assert_eq!(reason, CloseReason::Finished);
                break;
            }
            other => panic!("{other:?}"),
        }
        told += 1;
    }
    assert!(told >= BYTES / SEND_BUFFER - 1, "{told} times");
    test.server.stop().unwrap();
}

#[test]
fn what_comes_after_closing_is_acknowledged_and_thrown_away() {
    let mut test = Test::new(Behaviour::Close);
    test.client.write_all(b"x").unwrap();
    test.expect(Seen::Data(1, false));
    assert_eq!(test.client.read(&mut [0]).unwrap(), 0);
    // A connection of which nobody knew any more would be reset by it.
    test.client.write_all(&vec![7_u8; 1 << 20]).unwrap();
    test.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(test.client.read(&mut [0]).unwrap(), 0);
    test.expect_end(CloseReason::Finished);
}

#[test]
fn abort_sends_rst() {
    let mut test = Test::new(Behaviour::Abort);
    test.client.write_all(b"x").unwrap();
    test.expect(Seen::Data(1, false));
    let error = test.client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    test.expect_end(CloseReason::Aborted);
}

#[test]
fn a_reset_by_the_peer_is_told_of_an_idle_connection() {
    let test = Test::new(Behaviour::Close);
    reset_on_close(&test.client);
    drop(test.client);
    assert_eq!(
        test.seen.recv_timeout(PATIENCE).unwrap(),
        Seen::Closed(CloseReason::ResetByPeer)
    );
    test.server.stop().unwrap();
}

#[test]
fn a_reset_by_the_peer_is_told_while_the_send_buffer_is_full() {
    let test = Test::new(Behaviour::Source(256 << 20));
    reset_on_close(&test.client);
    drop(test.client);
    loop {
        match test.seen.recv_timeout(PATIENCE).unwrap() {
            Seen::Writable(_) => {}
            other => {
                assert_eq!(other, Seen::Closed(CloseReason::ResetByPeer));
                break;
            }
        }
    }
    test.server.stop().unwrap();
}

#[test]
fn a_reset_by_the_peer_is_told_while_nothing_is_read() {
    let mut test = Test::new(Behaviour::Reluctant);
    test.client.write_all(&vec![7_u8; 256 * 1024]).unwrap();
    // More than this is not read.
    while !matches!(test.next(), Seen::Data(65_536.., false)) {}
    reset_on_close(&test.client);
    drop(test.client);
    loop {
        match test.seen.recv_timeout(PATIENCE).unwrap() {
            Seen::Data(..) => {}
            other => {
                assert_eq!(other, Seen::Closed(CloseReason::ResetByPeer));
                break;
            }
        }
    }
    test.server.stop().unwrap();
}
