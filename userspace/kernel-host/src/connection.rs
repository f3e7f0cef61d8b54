//! One connection: what the kernel has for it goes to the application, what the application sends goes to the kernel.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use bytes::Bytes;
use mio::event::Event;
use mio::{Registry, Token};
use tidegate_tcp::application::{Application, CloseReason, Stream};
use tidegate_tcp::time::Instant;

use crate::stream::KernelStream;

/// Bytes read at once.
pub(crate) const READ_BUFFER: usize = 64 * 1024;

/// Bytes the application has not consumed, beyond which nothing more is read. It is more than the longest request head
/// that is waited for.
const UNREAD_LIMIT: usize = 64 * 1024;

/// Reads and refills of the send queue in a row before others have their turn.
const STEPS: usize = 16;

/// The parts of a worker that it lends to the connection it works on.
pub(crate) struct Visit<'a, A> {
    /// The application.
    pub(crate) application: &'a mut A,
    /// Where to read to, [`READ_BUFFER`] bytes.
    pub(crate) buffer: &'a mut [u8],
    /// Memory for the send queue.
    pub(crate) spare: &'a mut VecDeque<Bytes>,
    /// Bytes that the kernel has taken.
    pub(crate) sent: &'a mut u64,
    /// The time of what happened.
    pub(crate) now: Instant,
}

/// The readiness of a connection, from epoll.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    readable: bool,
    writable: bool,
    /// The peer's FIN or RST has arrived.
    hang_up: bool,
    /// Both directions are closed.
    hung_up: bool,
    error: bool,
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Self {
        Self {
            readable: event.is_readable(),
            writable: event.is_writable(),
            hang_up: event.is_read_closed(),
            hung_up: event.is_write_closed(),
            error: event.is_error(),
        }
    }
}

/// The next need of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// An event or its deadline.
    Wait,
    /// To go on, after others had their turn.
    Again,
    /// To be forgotten.
    End(CloseReason),
}

/// A connection with what the application keeps for it.
pub(crate) struct Connection<C> {
    stream: KernelStream,
    /// `None` while it is being opened.
    application: Option<C>,
    opening: Option<Opening>,
    /// Octets that were read and the application has not consumed.
    unread: Vec<u8>,
    /// The kernel may have more to read: epoll tells of changes only.
    readable: bool,
    /// The peer's FIN is behind what can be read.
    hang_up: bool,
    end_of_stream_told: bool,
    /// It is among those that go on when others had their turn.
    pub(crate) queued_again: bool,
}

/// A connection that this side opens.
struct Opening {
    since: Instant,
    deadline: Instant,
    /// Why it came to nothing.
    error: Option<io::Error>,
}

impl<C> Connection<C> {
    /// A connection that is being opened since `since`, until `deadline` at most.
    pub(crate) fn connecting(stream: KernelStream, since: Instant, deadline: Instant) -> Self {
        let opening = Opening {
            since,
            deadline,
            error: None,
        };
        Self::new(stream, None, Some(opening))
    }

    /// Opens an accepted connection for the application.
    pub(crate) fn open<A: Application<Connection = C>>(
        mut stream: KernelStream,
        application: &mut A,
        spare: &mut VecDeque<Bytes>,
    ) -> Self {
        stream.begin(stream.now(), spare);
        let application = application.open(&mut stream);
        Self::new(stream, Some(application), None)
    }

    fn new(stream: KernelStream, application: Option<C>, opening: Option<Opening>) -> Self {
        Self {
            stream,
            application,
            opening,
            unread: Vec::new(),
            readable: false,
            hang_up: false,
            end_of_stream_told: false,
            queued_again: false,
        }
    }

    /// The time at which it was begun, if it is being opened.
    pub(crate) fn opening_since(&self) -> Option<Instant> {
        self.opening.as_ref().map(|opening| opening.since)
    }

    /// Handles an event. `opened` is told of a connection that is open now, and since when it was being opened.
    pub(crate) fn event<A: Application<Connection = C>>(
        &mut self,
        readiness: Readiness,
        visit: &mut Visit<'_, A>,
        opened: impl FnOnce(&mut A, Instant),
    ) -> Next {
        if let Some(opening) = &mut self.opening {
            if readiness.error || readiness.hung_up {
                opening.error = Some(self.stream.connect_error());
                return Next::End(CloseReason::ResetByPeer);
            }
            if !readiness.writable {
                return Next::Wait;
            }
            let since = opening.since;
            self.opening = None;
            self.stream.begin(visit.now, visit.spare);
            opened(visit.application, since);
            self.application = Some(visit.application.open(&mut self.stream));
        } else if readiness.error {
            self.stream.take_error();
        }
        if readiness.writable {
            self.stream.unblock();
        }
        self.readable |= readiness.readable || readiness.hang_up;
        self.hang_up |= readiness.hang_up;
        self.proceed(visit)
    }

    /// Handles the deadlines that have passed, if any.
    pub(crate) fn deadline_passed<A: Application<Connection = C>>(&mut self, visit: &mut Visit<'_, A>) -> Next {
        self.stream.begin(visit.now, visit.spare);
        if let Some(opening) = &mut self.opening {
            if visit.now < opening.deadline {
                return Next::Wait;
            }
            opening.error = Some(ErrorKind::TimedOut.into());
            return Next::End(CloseReason::TimedOut);
        }
        if self.stream.is_fin_overdue() {
            return Next::End(CloseReason::TimedOut);
        }
        if self.stream.take_timer() {
            self.call(visit, |application, state, stream| application.timeout(state, stream));
            self.offer_unread(visit.application);
        }
        self.proceed(visit)
    }

    /// Calls the application, if it knows the connection.
    pub(crate) fn call<A: Application<Connection = C>, R>(
        &mut self,
        visit: &mut Visit<'_, A>,
        callback: impl FnOnce(&mut A, &mut C, &mut KernelStream) -> R,
    ) -> Option<R> {
        self.stream.begin(visit.now, visit.spare);
        let state = self.application.as_mut()?;
        Some(callback(visit.application, state, &mut self.stream))
    }

    /// Goes on with what can be done without waiting.
    pub(crate) fn proceed<A: Application<Connection = C>>(&mut self, visit: &mut Visit<'_, A>) -> Next {
        self.stream.begin(visit.now, visit.spare);
        let next = self.steps(visit);
        *visit.sent += self.stream.finish(visit.spare);
        next
    }

    fn steps<A: Application<Connection = C>>(&mut self, visit: &mut Visit<'_, A>) -> Next {
        for _ in 0..STEPS {
            // What is sent after the peer's FIN may be answered by RST, and that would hide the FIN.
            if !(self.hang_up && self.may_read()) {
                self.stream.flush();
            }
            if let Some(reason) = self.stream.ended() {
                return Next::End(reason);
            }
            if self.stream.take_writable() {
                self.call(visit, |application, state, stream| application.writable(state, stream));
                self.offer_unread(visit.application);
            } else if self.may_read() {
                self.read(visit);
            } else {
                return Next::Wait;
            }
        }
        Next::Again
    }

    /// Whether there may be something to read, and room for it.
    fn may_read(&self) -> bool {
        self.readable && !self.stream.peer_finished() && self.unread.len() < UNREAD_LIMIT
    }

    fn read<A: Application<Connection = C>>(&mut self, visit: &mut Visit<'_, A>) {
        match self.stream.read(visit.buffer) {
            Ok(0) => {
                self.readable = false;
                self.offer_unread(visit.application);
            }
            Ok(count) => {
                // Less than there was room for is all there was, and what comes later is another event's. Only FIN may
                // be behind it without one.
                self.readable = count == visit.buffer.len() || self.hang_up;
                self.offer(&visit.buffer[..count], visit.application);
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => self.readable = false,
                ErrorKind::Interrupted => {}
                _ => self.stream.fail(&error),
            },
        }
    }

    /// Offers `data`, behind what was not consumed before.
    fn offer<A: Application<Connection = C>>(&mut self, data: &[u8], application: &mut A) {
        if !self.stream.is_read() {
            return;
        }
        if !self.unread.is_empty() {
            self.unread.extend_from_slice(data);
            self.offer_unread(application);
            return;
        }
        let Some(state) = &mut self.application else { return };
        let consumed = application.receive(state, &mut self.stream, data);
        if self.stream.is_read() {
            self.unread.extend_from_slice(&data[consumed.min(data.len())..]);
        }
    }

    /// Offers what was not consumed before, and tells of the end of the stream when nothing is left.
    fn offer_unread<A: Application<Connection = C>>(&mut self, application: &mut A) {
        let Some(state) = &mut self.application else { return };
        if self.stream.is_read() && !self.unread.is_empty() {
            let consumed = application.receive(state, &mut self.stream, &self.unread);
            if consumed >= self.unread.len() {
                self.unread = Vec::new();
            } else {
                self.unread.drain(..consumed);
            }
        }
        if !self.stream.is_read() {
            self.unread = Vec::new();
        } else if self.stream.peer_finished() && self.unread.is_empty() && !self.end_of_stream_told {
            self.end_of_stream_told = true;
            application.end_of_stream(state, &mut self.stream);
        }
    }

    /// The time to call [`Connection::deadline_passed`].
    pub(crate) fn deadline(&self) -> Instant {
        match &self.opening {
            Some(opening) => opening.deadline,
            None => self.stream.deadline(),
        }
    }

    /// Has epoll tell what the connection waits for.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream.watch(registry, token)
    }

    /// Closes the socket and tells the application, if it knows the connection; else returns why it was never opened.
    pub(crate) fn end<A: Application<Connection = C>>(
        self,
        reason: CloseReason,
        application: &mut A,
    ) -> Option<io::Error> {
        if reason == CloseReason::Aborted {
            self.stream.reset_on_close();
        }
        drop(self.stream);
        if let Some(state) = self.application {
            application.closed(state, reason);
        }
        self.opening.and_then(|opening| opening.error)
    }
}
