//! One connection at a time: connecting, writing requests, reading responses.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;

use crate::client::errors::{Failure, Kind};
use crate::client::responses::{Expected, Responses, Taken};

/// A place for a connection, used again and again.
#[derive(Debug)]
pub(super) struct Slot {
    stream: Option<TcpStream>,
    connected: bool,
    /// Requests that were begun and not answered.
    under_way: u32,
    /// Bytes of them that the kernel has not taken yet: the last ones of the batch they are in.
    unsent: usize,
    responses: Responses,
    /// The server has announced that it ends the connection, and is to be waited for: else TIME-WAIT would use up this
    /// side's ports.
    is_ending: bool,
    /// When connecting began, or the request under way, as the workload needs it.
    pub(super) since: Instant,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The buffer is full, so there may be more.
    Full,
    /// The buffer is not full. There was no more data, but the end of the stream may be there.
    Short,
    /// There is nothing to read now.
    Empty,
    /// The server sent FIN.
    End,
}

/// What reading brought.
#[derive(Debug)]
pub(super) struct Received {
    /// Responses that are complete now.
    pub(super) responses: u32,
    /// Whether the server sent FIN after them; or what went wrong after them: the connection broke, or what came is not
    /// what was asked for.
    pub(super) end: Result<bool, Failure>,
}

impl Slot {
    /// Without a connection.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            stream: None,
            connected: false,
            under_way: 0,
            unsent: 0,
            responses: Responses::default(),
            is_ending: false,
            since: now,
        }
    }

    /// Begins to connect.
    ///
    /// # Errors
    ///
    /// The kernel refuses: no free source port, or no route.
    pub(super) fn open(
        &mut self,
        target: SocketAddr,
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> Result<(), Failure> {
        self.close();
        let open = || -> io::Result<TcpStream> {
            let mut stream = TcpStream::connect(target)?;
            stream.set_nodelay(true)?;
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        };
        self.stream = Some(open().map_err(|error| Failure::of(&error, Kind::Connect))?);
        self.since = now;
        Ok(())
    }

    /// Closes the connection, if there is one: with FIN, if everything that came was read, else the kernel sends RST.
    pub(super) fn close(&mut self) {
        self.stream = None;
        self.connected = false;
        self.under_way = 0;
        self.unsent = 0;
        self.responses = Responses::default();
        self.is_ending = false;
    }

    /// Closes the connection with RST.
    ///
    /// # Errors
    ///
    /// The kernel refuses; the connection is closed with FIN then.
    pub(super) fn reset(&mut self) -> Result<(), Failure> {
        let result = self.stream.as_ref().map_or(Ok(()), |stream| {
            let at_once = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(stream, Linger, &at_once)
        });
        self.close();
        result.map_err(|errno| Failure::new(Kind::Broken, format!("cannot set SO_LINGER: {errno}")))
    }

    /// There is a connection, or one is being made.
    pub(super) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// The connection is established.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Bytes of requests wait for the kernel to take them.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent > 0
    }

    /// The server has announced that it ends the connection. Requests that were under way are not any more: they are
    /// never answered.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Requests that were begun and not answered.
    pub(super) fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Looks whether the connection is established, which [`Slot::write`] finds out by itself. True if it became so
    /// just now.
    ///
    /// # Errors
    ///
    /// It will not be.
    pub(super) fn finish_connecting(&mut self) -> Result<bool, Failure> {
        let Some(stream) = &self.stream else {
            return Ok(false);
        };
        if self.connected {
            return Ok(false);
        }
        match stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Err(Failure::of(&error, Kind::Connect)),
        }
        match stream.peer_addr() {
            Ok(_) => {
                self.connected = true;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(Failure::of(&error, Kind::Connect)),
        }
    }

    /// Begins `requests`, which are `length` bytes long in all: the last ones of what [`Slot::write`] is then given.
    pub(super) fn begin(&mut self, requests: u32, length: usize) {
        self.under_way += requests;
        self.unsent += length;
    }

    /// Writes what is unsent of `batch`, at whose end it is, as far as the kernel takes it.
    ///
    /// # Errors
    ///
    /// The connection did not come about or broke.
    pub(super) fn write(&mut self, batch: &[u8]) -> Result<(), Failure> {
        while self.unsent > 0 {
            let Some(count) = self.write_once(&batch[batch.len() - self.unsent..])? else {
                return Ok(());
            };
            self.unsent -= count;
        }
        Ok(())
    }

    /// Writes from `data`. Returns how much the kernel took; `None` if it takes nothing now.
    ///
    /// While the connection is not established the kernel takes nothing, and if it will never be, its answer says why;
    /// so the first write needs no other look at the connection before it.
    ///
    /// # Errors
    ///
    /// The connection did not come about or broke.
    pub(super) fn write_once(&mut self, data: &[u8]) -> Result<Option<usize>, Failure> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        loop {
            match stream.write(data) {
                Ok(count) => {
                    self.connected = true;
                    return Ok(Some(count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::of(&error, self.broken())),
            }
        }
    }

    /// Reads all there is. `closed` says that the end of the stream was reported, so that it has to be looked for: it
    /// is reported only once.
    pub(super) fn read(&mut self, buffer: &mut [u8], expected: &mut Expected, closed: bool) -> Received {
        let mut responses = 0;
        let end = loop {
            let stop = match self.read_once(buffer, expected) {
                Ok((taken, stop)) => {
                    responses += taken.responses;
                    stop
                }
                Err(failure) => break Err(failure),
            };
            match stop {
                Stop::Full => {}
                Stop::Short if closed => {}
                // What comes after a short read is reported anew (epoll(7)).
                Stop::Short | Stop::Empty => break Ok(false),
                Stop::End => break Ok(true),
            }
        };
        Received { responses, end }
    }

    /// Reads once.
    ///
    /// # Errors
    ///
    /// The connection broke, or what came is not what was asked for.
    pub(super) fn read_once(&mut self, buffer: &mut [u8], expected: &mut Expected) -> Result<(Taken, Stop), Failure> {
        let Some(stream) = &mut self.stream else {
            return Ok((Taken::default(), Stop::Empty));
        };
        let count = loop {
            match stream.read(buffer) {
                Ok(0) => return Ok((Taken::default(), Stop::End)),
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((Taken::default(), Stop::Empty)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It may have thrown away requests it was not to answer.
                Err(_) if self.is_ending => return Ok((Taken::default(), Stop::End)),
                Err(error) => return Err(Failure::of(&error, self.broken())),
            }
        };
        let taken = self.responses.take(expected, &buffer[..count])?;
        self.under_way = self
            .under_way
            .checked_sub(taken.responses)
            .ok_or_else(|| Failure::new(Kind::Malformed, "a response to no request"))?;
        if taken.is_last {
            self.is_ending = true;
            self.under_way = 0;
            self.unsent = 0;
        }
        let stop = if count == buffer.len() { Stop::Full } else { Stop::Short };
        Ok((taken, stop))
    }

    /// What an error means that has no kind of its own.
    fn broken(&self) -> Kind {
        if self.connected { Kind::Broken } else { Kind::Connect }
    }
}

/// The server sent FIN although a response is due.
pub(super) fn closed_early() -> Failure {
    Failure::new(
        Kind::ClosedEarly,
        "the server closed the connection before the response was complete",
    )
}
