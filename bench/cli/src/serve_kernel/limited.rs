//! An application whose requests wait for the tokens of a [`Bucket`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_tcp::application::{Application, CloseReason, ListenerId, Stream};
use tidegate_tcp::time::Instant;
use tidegate_tcp::wire::checksum::TextSum;

use super::bucket::Bucket;

/// `A`, as slow as its bucket says: what a peer sends at once takes one token, and waits for it unread. That is one for
/// each request, or for each connection that has one request; of pipelined requests those that arrive together.
pub(super) struct Limited<A> {
    application: A,
    bucket: Arc<Bucket>,
}

/// A connection of [`Limited`].
pub(super) struct Connection<C> {
    inner: C,
    gate: Gate,
    /// The time for which the application has set its timer.
    timer: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// The next arrival takes a token.
    Shut,
    /// Something has arrived, and its token will be there. The application's timer stands still meanwhile.
    Waiting { since: Instant, until: Instant },
    /// The token is there.
    Open,
}

impl<A> Limited<A> {
    /// `application`, whose requests wait for `bucket`.
    pub(super) fn new(application: A, bucket: Arc<Bucket>) -> Self {
        Self { application, bucket }
    }
}

/// The stream that the application sees: it has a timer of its own.
struct Timed<'a, S> {
    stream: &'a mut S,
    timer: &'a mut Instant,
}

impl<S: Stream> Stream for Timed<'_, S> {
    fn listener(&self) -> Option<ListenerId> {
        self.stream.listener()
    }

    fn local(&self) -> SocketAddr {
        self.stream.local()
    }

    fn peer(&self) -> SocketAddr {
        self.stream.peer()
    }

    fn now(&self) -> Instant {
        self.stream.now()
    }

    fn peer_finished(&self) -> bool {
        self.stream.peer_finished()
    }

    fn send_space(&self) -> usize {
        self.stream.send_space()
    }

    fn send(&mut self, data: &mut Bytes) -> usize {
        self.stream.send(data)
    }

    fn send_whole(&mut self, data: &Bytes, sum: TextSum) -> bool {
        self.stream.send_whole(data, sum)
    }

    fn send_copy(&mut self, data: &[u8]) -> usize {
        self.stream.send_copy(data)
    }

    fn unacknowledged(&self) -> usize {
        self.stream.unacknowledged()
    }

    fn shutdown(&mut self) {
        self.stream.shutdown();
    }

    fn close(&mut self) {
        self.stream.close();
    }

    fn abort(&mut self) {
        self.stream.abort();
    }

    fn mark_served(&mut self) {
        self.stream.mark_served();
    }

    fn set_timer(&mut self, after: Option<Duration>) {
        *self.timer = after.map_or(Instant::NEVER, |after| self.stream.now() + after);
    }
}

impl<C> Connection<C> {
    /// Calls the application, then sets the timer for whatever is due first.
    fn call<S: Stream, R>(&mut self, stream: &mut S, callback: impl FnOnce(&mut C, &mut Timed<'_, S>) -> R) -> R {
        let mut timed = Timed {
            stream: &mut *stream,
            timer: &mut self.timer,
        };
        let result = callback(&mut self.inner, &mut timed);
        self.arm(stream);
        result
    }

    fn arm<S: Stream>(&self, stream: &mut S) {
        let due = match self.gate {
            Gate::Waiting { until, .. } => until,
            Gate::Shut | Gate::Open => self.timer,
        };
        let now = stream.now();
        stream.set_timer((due != Instant::NEVER).then(|| due.since(now)));
    }
}

impl<A: Application> Application for Limited<A> {
    type Connection = Connection<A::Connection>;

    fn open<S: Stream>(&mut self, stream: &mut S) -> Self::Connection {
        let mut timer = Instant::NEVER;
        let inner = self.application.open(&mut Timed {
            stream: &mut *stream,
            timer: &mut timer,
        });
        let connection = Connection {
            inner,
            gate: Gate::Shut,
            timer,
        };
        connection.arm(stream);
        connection
    }

    fn receive<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S, data: &[u8]) -> usize {
        if connection.gate == Gate::Shut {
            let (wait, since) = (self.bucket.take(), stream.now());
            connection.gate = if wait.is_zero() {
                Gate::Open
            } else {
                Gate::Waiting {
                    since,
                    until: since + wait,
                }
            };
        }
        if let Gate::Waiting { .. } = connection.gate {
            connection.arm(stream);
            return 0;
        }
        connection.gate = Gate::Shut;
        self.bucket.let_through();
        let application = &mut self.application;
        connection.call(stream, |inner, stream| application.receive(inner, stream, data))
    }

    fn end_of_stream<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S) {
        let application = &mut self.application;
        connection.call(stream, |inner, stream| application.end_of_stream(inner, stream));
    }

    fn writable<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S) {
        let application = &mut self.application;
        connection.call(stream, |inner, stream| application.writable(inner, stream));
    }

    fn timeout<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S) {
        let now = stream.now();
        if let Gate::Waiting { since, until } = connection.gate {
            if until <= now {
                // What waits is offered again after this.
                connection.gate = Gate::Open;
                if connection.timer != Instant::NEVER {
                    connection.timer = connection.timer + now.since(since);
                }
            }
            connection.arm(stream);
        } else if connection.timer <= now {
            connection.timer = Instant::NEVER;
            let application = &mut self.application;
            connection.call(stream, |inner, stream| application.timeout(inner, stream));
        } else {
            connection.arm(stream);
        }
    }

    fn drain<S: Stream>(&mut self, connection: &mut Self::Connection, stream: &mut S) {
        let application = &mut self.application;
        connection.call(stream, |inner, stream| application.drain(inner, stream));
    }

    fn publish(&mut self) {
        self.application.publish();
    }

    fn closed(&mut self, connection: Self::Connection, reason: CloseReason) {
        if let Gate::Waiting { .. } | Gate::Open = connection.gate {
            self.bucket.put_back();
        }
        self.application.closed(connection.inner, reason);
    }
}
