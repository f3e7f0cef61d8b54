//! One client connection: connect, write the request, read the response, again.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::http_client::{Malformed, Response, ResponseReader};

/// What a request failed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// No connection came about.
    Connect,
    /// The connection broke while the request was written.
    Write,
    /// The connection broke while the response was awaited or read.
    Read,
    /// The server closed the connection before the response was complete.
    ClosedEarly,
    /// What came is not an HTTP response.
    Malformed,
    /// The status is not 200.
    Status,
    /// The body is of another length than that of the first response.
    BodyLength,
    /// The body is not that of the first response.
    BodyContent,
    /// No complete response when the run was over.
    Unfinished,
}

impl FailureKind {
    /// All kinds, in the order of their index.
    pub(crate) const ALL: [Self; 9] = [
        Self::Connect,
        Self::Write,
        Self::Read,
        Self::ClosedEarly,
        Self::Malformed,
        Self::Status,
        Self::BodyLength,
        Self::BodyContent,
        Self::Unfinished,
    ];

    /// The name in the results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Write => "write",
            Self::Read => "read",
            Self::ClosedEarly => "closed_early",
            Self::Malformed => "malformed",
            Self::Status => "status",
            Self::BodyLength => "body_length",
            Self::BodyContent => "body_content",
            Self::Unfinished => "unfinished",
        }
    }
}

/// A failed request.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// For counting.
    pub(crate) kind: FailureKind,
    /// For reading: a phrase that says what was seen.
    pub(crate) detail: String,
}

impl Failure {
    /// A failure seen as `detail`.
    pub(crate) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }
}

/// How far a connection came with what the kernel had for it.
#[derive(Debug)]
pub(crate) enum Step {
    /// It waits for the kernel.
    Wait,
    /// The response is complete, this long after the request was begun.
    Done(Response, Duration),
    /// The connection is of no further use.
    Failed(Failure),
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Connecting,
    Writing,
    Reading,
    /// The response is complete and promised the end of the connection, which has to come from the server: otherwise
    /// TIME-WAIT would use up this side's ports.
    Closing(Response, Duration),
}

/// A non-blocking connection with one request under way.
pub(crate) struct Connection {
    stream: TcpStream,
    phase: Phase,
    started: Instant,
    written: usize,
    reader: ResponseReader,
}

impl Connection {
    /// Begins to connect; the first request is begun with it.
    ///
    /// # Errors
    ///
    /// The kernel refuses the socket: no free port or file descriptor, or no route.
    pub(crate) fn open(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            phase: Phase::Connecting,
            started: Instant::now(),
            written: 0,
            reader: ResponseReader::new(),
        })
    }

    /// Begins the next request on a connection whose last response came with `keep_alive`.
    pub(crate) fn begin_request(&mut self) {
        self.phase = Phase::Writing;
        self.started = Instant::now();
        self.written = 0;
    }

    /// Does all that is possible without waiting. `buffer` is for reading, its content does not matter.
    ///
    /// mio reports edges, so this goes on until the kernel has no more.
    pub(crate) fn advance(&mut self, request: &[u8], buffer: &mut [u8]) -> Step {
        loop {
            let step = match self.phase {
                Phase::Connecting => self.finish_connecting(),
                Phase::Writing => self.write(request),
                Phase::Reading => self.read(buffer),
                Phase::Closing(response, latency) => self.await_close(buffer, response, latency),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn finish_connecting(&mut self) -> Option<Step> {
        match self.stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Some(failed(FailureKind::Connect, &error)),
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.phase = Phase::Writing;
                None
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Some(Step::Wait),
            Err(error) => Some(failed(FailureKind::Connect, &error)),
        }
    }

    fn write(&mut self, request: &[u8]) -> Option<Step> {
        match self.stream.write(&request[self.written..]) {
            Ok(count) => {
                self.written += count;
                if self.written == request.len() {
                    self.phase = Phase::Reading;
                }
                None
            }
            Err(error) => stopped(FailureKind::Write, &error),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<Step> {
        let response = match self.stream.read(buffer) {
            Ok(0) => match self.reader.end_of_stream() {
                Some(response) => return Some(Step::Done(response, self.started.elapsed())),
                None => {
                    let detail = "the server closed the connection before the response was complete";
                    return Some(Step::Failed(Failure::new(FailureKind::ClosedEarly, detail)));
                }
            },
            Ok(count) => match self.reader.feed(&buffer[..count]) {
                Ok(response) => response?,
                Err(Malformed(detail)) => return Some(Step::Failed(Failure::new(FailureKind::Malformed, detail))),
            },
            Err(error) => return stopped(FailureKind::Read, &error),
        };
        let latency = self.started.elapsed();
        if response.keep_alive {
            return Some(Step::Done(response, latency));
        }
        self.phase = Phase::Closing(response, latency);
        None
    }

    fn await_close(&mut self, buffer: &mut [u8], response: Response, latency: Duration) -> Option<Step> {
        match self.stream.read(buffer) {
            Ok(0) => Some(Step::Done(response, latency)),
            Ok(count) => {
                let detail = format!("{count} bytes after the last response");
                Some(Step::Failed(Failure::new(FailureKind::Malformed, detail)))
            }
            Err(error) => stopped(FailureKind::Read, &error),
        }
    }
}

fn failed(kind: FailureKind, error: &io::Error) -> Step {
    Step::Failed(Failure::new(kind, error.to_string()))
}

fn stopped(kind: FailureKind, error: &io::Error) -> Option<Step> {
    match error.kind() {
        ErrorKind::WouldBlock => Some(Step::Wait),
        ErrorKind::Interrupted => None,
        _ => Some(failed(kind, error)),
    }
}
