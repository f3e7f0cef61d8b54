//! One thread of connections: its own listening sockets, epoll instance, timers and application.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{self, Duration};

use anyhow::Context;
use bytes::Bytes;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use tidegate_tcp::application::{Application, CloseReason, ListenerId, Stream};
use tidegate_tcp::time::Instant;
use tidegate_tcp::timer_wheel::TimerWheel;

use crate::connection::{Connection, Next, READ_BUFFER, Readiness, Visit};
use crate::stream::{KernelStream, Origin};

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

/// Connections accepted in a row before others have their turn.
const ACCEPTS: usize = 256;

/// Pause after connections could not be accepted, which is when this process or the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The time the answer to a SYN is waited for. The kernel repeats an unanswered SYN after 1, 3 and 7 seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The event that ends the thread.
const STOP: Token = Token(usize::MAX);

/// A connection of a [`Host`], by number. Numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u32);

/// A thread's worth of connections on the kernel's TCP, and the application that runs on them.
pub struct Host<A: Application> {
    application: A,
    poll: Poll,
    /// Listeners have the tokens from 0 on, connections those behind them.
    listeners: Vec<(TcpListener, SocketAddr)>,
    connections: Slab<Connection<A::Connection>>,
    /// Why others were never opened, as far as nobody has asked.
    failed: VecDeque<io::Error>,
    timers: TimerWheel,
    /// Connections that go on when others had their turn.
    again: Vec<usize>,
    /// The time to accept without an event that asks for it.
    accept_at: Option<Instant>,
    buffer: Box<[u8]>,
    spare: VecDeque<Bytes>,
    sent: u64,
    events: u64,
    start: time::Instant,
    now: Instant,
    /// Told the first error that keeps a connection from being served.
    report: Option<fn(&io::Error)>,
}

impl<A: Application> Host<A> {
    /// A host without listeners, for connections that are opened by [`Host::connect`].
    ///
    /// # Errors
    ///
    /// The kernel refuses an epoll instance.
    pub fn new(application: A) -> anyhow::Result<Self> {
        Ok(Self {
            application,
            poll: Poll::new().context("cannot make an epoll instance")?,
            listeners: Vec::new(),
            connections: Slab::new(),
            failed: VecDeque::new(),
            timers: TimerWheel::default(),
            again: Vec::new(),
            accept_at: None,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            spare: VecDeque::with_capacity(64),
            sent: 0,
            events: 0,
            start: time::Instant::now(),
            now: Instant::ZERO,
            report: None,
        })
    }

    /// A host for `listeners`, with what stops it. The listeners' place in the list is their [`ListenerId`]. `report`
    /// is told of the first connection that cannot be served.
    ///
    /// # Errors
    ///
    /// The kernel refuses what is needed for waiting.
    pub(crate) fn listening(
        listeners: Vec<TcpListener>,
        application: A,
        report: fn(&io::Error),
    ) -> anyhow::Result<(Self, Waker)> {
        let mut host = Self::new(application)?;
        host.report = Some(report);
        let waker = Waker::new(host.poll.registry(), STOP).context("cannot make an eventfd")?;
        for (index, mut listener) in listeners.into_iter().enumerate() {
            let address = listener.local_addr().context("a listening socket has no address")?;
            host.poll
                .registry()
                .register(&mut listener, Token(index), Interest::READABLE)
                .with_context(|| format!("cannot wait for connections to {address}"))?;
            host.listeners.push((listener, address));
        }
        Ok((host, waker))
    }

    /// Serves until the waker wakes. Open connections are closed then without a word to the application.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while self.wait(&mut events, None, &mut |_, _, _| {})? {}
        Ok(())
    }

    /// Handles events until `turn` has had enough. It is called between any two lots of events, with the time, and
    /// returns for how long at most to wait for the next; `None` ends this. `opened` is told of each connection this
    /// side opened, just before [`Application::open`], and when it was begun.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait, or `turn` fails.
    pub fn run_with(
        &mut self,
        mut turn: impl FnMut(&mut Self, Instant) -> anyhow::Result<Option<Duration>>,
        mut opened: impl FnMut(&mut A, ConnectionId, Instant),
    ) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.look_at_clock();
            let Some(timeout) = turn(self, self.now)? else {
                return Ok(());
            };
            self.wait(&mut events, Some(timeout), &mut opened)?;
        }
    }

    fn look_at_clock(&mut self) {
        self.now = Instant::from_micros(self.start.elapsed().as_micros() as u64);
    }

    /// Waits for events, for `at_most` so long, and handles them and what is due without one. False if the waker woke.
    fn wait(
        &mut self,
        events: &mut Events,
        at_most: Option<Duration>,
        opened: &mut impl FnMut(&mut A, ConnectionId, Instant),
    ) -> anyhow::Result<bool> {
        let timeout = [self.timeout(), at_most].into_iter().flatten().min();
        match self.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error).context("cannot wait for the connections"),
        }
        self.look_at_clock();
        for event in &*events {
            self.events += 1;
            match event.token() {
                STOP => return Ok(false),
                Token(index) if index < self.listeners.len() => self.accept(index),
                Token(token) => {
                    let readiness = Readiness::from(event);
                    let key = token - self.listeners.len();
                    let id = ConnectionId(key as u32);
                    self.visit(key, |connection, visit| {
                        connection.event(readiness, visit, |application, since| opened(application, id, since))
                    });
                }
            }
        }
        self.go_on();
        Ok(true)
    }

    /// The time for which there is nothing to do without an event; `None`: for ever.
    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = self.timers.next_deadline().into_iter().chain(self.accept_at).min()?;
        Some(due.since(self.now))
    }

    /// Does what is due without an event.
    fn go_on(&mut self) {
        if self.accept_at.is_some_and(|at| at <= self.now) {
            self.accept_at = None;
            for index in 0..self.listeners.len() {
                self.accept(index);
            }
        }
        // Those that have to go on once more are behind the others, for the next time.
        for key in std::mem::take(&mut self.again) {
            self.visit(key, |connection, visit| {
                connection.queued_again = false;
                connection.proceed(visit)
            });
        }
        // All of them: the kernel receives meanwhile.
        let mut left = usize::MAX;
        while let Some(id) = self.timers.fire(self.now, &mut left) {
            self.visit(id as usize, |connection, visit| connection.deadline_passed(visit));
        }
    }

    /// Accepts what waits at a listener.
    fn accept(&mut self, index: usize) {
        for _ in 0..ACCEPTS {
            match self.listeners[index].0.accept() {
                Ok((socket, peer)) => self.open_accepted(index, socket, peer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_shortage(&error) => {
                    self.report_once(&error);
                    self.accept_at = Some(self.now + ACCEPT_PAUSE);
                    return;
                }
                // Of the connection that would have been next, as accept(2) says.
                Err(_) => {}
            }
        }
        self.accept_at = Some(self.now);
    }

    fn open_accepted(&mut self, index: usize, mut socket: TcpStream, peer: SocketAddr) {
        let key = self.connections.vacant_key();
        let token = Token(self.listeners.len() + key);
        if let Err(error) = self.poll.registry().register(&mut socket, token, Interest::READABLE) {
            self.report_once(&error);
            return;
        }
        let origin = Origin {
            listener: Some((ListenerId(index as u16), self.listeners[index].1)),
            peer,
        };
        let stream = KernelStream::new(socket, origin, self.now);
        let connection = Connection::open(stream, &mut self.application, &mut self.spare);
        self.connections.insert(connection);
        self.visit(key, |connection, visit| connection.proceed(visit));
    }

    /// Begins to open a connection to `target`. [`Application::open`] is called when it is ESTABLISHED;
    /// [`Host::take_failed`] tells if it will never be, which is after 10 seconds at the latest.
    ///
    /// A connection that this side opened is gone for its application at once when that calls [`Stream::close`].
    ///
    /// # Errors
    ///
    /// The kernel refuses: no free source port or descriptor, no route, or, on this machine, nobody listens.
    pub fn connect(&mut self, target: SocketAddr) -> io::Result<ConnectionId> {
        self.connect_since(target, self.now)
    }

    /// As [`Host::connect`], for a connection that counts as begun at `since`, when it should have been.
    ///
    /// # Errors
    ///
    /// Those of [`Host::connect`].
    pub fn connect_since(&mut self, target: SocketAddr, since: Instant) -> io::Result<ConnectionId> {
        let mut socket = TcpStream::connect(target)?;
        socket.set_nodelay(true)?;
        let key = self.connections.vacant_key();
        let token = Token(self.listeners.len() + key);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, token, interest)?;
        let origin = Origin {
            listener: None,
            peer: target,
        };
        let deadline = self.now + CONNECT_TIMEOUT;
        let stream = KernelStream::new(socket, origin, self.now);
        self.connections.insert(Connection::connecting(stream, since, deadline));
        self.timers.arm(key as u32, deadline);
        Ok(ConnectionId(key as u32))
    }

    /// Why a connection was never opened, of each that failed once.
    pub fn take_failed(&mut self) -> Option<io::Error> {
        self.failed.pop_front()
    }

    /// Runs `action` on a connection outside of its callbacks, then sends what it queued. `None` when there is no such
    /// connection or it is not ESTABLISHED yet.
    pub fn with_connection<R>(
        &mut self,
        id: ConnectionId,
        action: impl FnOnce(&mut A, &mut A::Connection, &mut dyn Stream) -> R,
    ) -> Option<R> {
        let mut result = None;
        self.visit(id.0 as usize, |connection, visit| {
            result = connection.call(visit, |application, state, stream| action(application, state, stream));
            connection.proceed(visit)
        });
        result
    }

    /// The application.
    pub fn application(&self) -> &A {
        &self.application
    }

    /// The application.
    pub fn application_mut(&mut self) -> &mut A {
        &mut self.application
    }

    /// The number of connections, those that are being opened included.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The times at which the connections that are being opened were begun.
    pub fn opening_since(&self) -> impl Iterator<Item = Instant> {
        self.connections
            .iter()
            .filter_map(|(_, connection)| connection.opening_since())
    }

    /// Events of the kernel that were handled.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Bytes that the kernel has taken of all connections.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Works on a connection, if it is still there.
    fn visit(&mut self, key: usize, work: impl FnOnce(&mut Connection<A::Connection>, &mut Visit<'_, A>) -> Next) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let mut visit = Visit {
            application: &mut self.application,
            buffer: &mut self.buffer,
            spare: &mut self.spare,
            sent: &mut self.sent,
            now: self.now,
        };
        let next = work(connection, &mut visit);
        if let Next::End(reason) = next {
            return self.end(key, reason);
        }
        let token = Token(self.listeners.len() + key);
        if let Err(error) = connection.watch(self.poll.registry(), token) {
            self.report_once(&error);
            // It would never be heard of again.
            return self.end(key, CloseReason::Aborted);
        }
        if next == Next::Again && !connection.queued_again {
            connection.queued_again = true;
            self.again.push(key);
        }
        let deadline = connection.deadline();
        if deadline != Instant::NEVER {
            self.timers.arm_no_later(key as u32, deadline);
        }
    }

    fn end(&mut self, key: usize, reason: CloseReason) {
        self.timers.cancel(key as u32);
        let connection = self.connections.remove(key);
        if let Some(error) = connection.end(reason, &mut self.application) {
            self.failed.push_back(error);
        }
    }

    /// Tells what keeps connections from being served, the first time.
    fn report_once(&mut self, error: &io::Error) {
        if let Some(report) = self.report.take() {
            report(error);
        }
    }
}

/// Whether an error of accept(2) is about descriptors or memory, so that the connections still wait.
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
