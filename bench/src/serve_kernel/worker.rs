//! One thread of the server: its own listening sockets, epoll instance, timers and application.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{self, Duration};

use anyhow::Context;
use bytes::Bytes;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use tidegate_tcp::application::{Application, CloseReason, ListenerId};
use tidegate_tcp::time::Instant;
use tidegate_tcp::timer_wheel::TimerWheel;

use super::connection::{Connection, Next, READ_BUFFER, Readiness, Visit};
use super::stream::{KernelStream, Origin};

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

/// Connections accepted in a row before others have their turn.
const ACCEPTS: usize = 256;

/// Pause after connections could not be accepted, which is when this process or the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The event that ends the thread.
const STOP: Token = Token(usize::MAX);

/// A thread's worth of server. Listeners have the tokens from 0 on, connections those behind them.
pub(super) struct Worker<A: Application> {
    application: A,
    poll: Poll,
    listeners: Vec<(TcpListener, SocketAddr)>,
    connections: Slab<Connection<A::Connection>>,
    timers: TimerWheel,
    /// Connections that go on when others had their turn.
    again: Vec<usize>,
    /// When to accept without an event that asks for it.
    accept_at: Option<Instant>,
    buffer: Box<[u8]>,
    spare: VecDeque<Bytes>,
    start: time::Instant,
    now: Instant,
    complained: bool,
}

impl<A: Application> Worker<A> {
    /// A worker for `listeners`, with what stops it. The listeners' place in the list is their [`ListenerId`].
    ///
    /// # Errors
    ///
    /// The kernel refuses what is needed for waiting.
    pub(super) fn new(listeners: Vec<TcpListener>, application: A) -> anyhow::Result<(Self, Waker)> {
        let poll = Poll::new().context("cannot make an epoll instance")?;
        let waker = Waker::new(poll.registry(), STOP).context("cannot make an eventfd")?;
        let mut registered = Vec::with_capacity(listeners.len());
        for (index, mut listener) in listeners.into_iter().enumerate() {
            let address = listener.local_addr().context("a listening socket has no address")?;
            poll.registry()
                .register(&mut listener, Token(index), Interest::READABLE)
                .with_context(|| format!("cannot wait for connections to {address}"))?;
            registered.push((listener, address));
        }
        let worker = Self {
            application,
            poll,
            listeners: registered,
            connections: Slab::new(),
            timers: TimerWheel::default(),
            again: Vec::new(),
            accept_at: None,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            spare: VecDeque::with_capacity(64),
            start: time::Instant::now(),
            now: Instant::ZERO,
            complained: false,
        };
        Ok((worker, waker))
    }

    /// Serves until the waker wakes. What is open then is closed without a word to the application.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("cannot wait for connections"),
            }
            self.now = Instant::from_micros(self.start.elapsed().as_micros() as u64);
            for event in &events {
                match event.token() {
                    STOP => return Ok(()),
                    Token(index) if index < self.listeners.len() => self.accept(index),
                    Token(token) => {
                        let readiness = Readiness::from(event);
                        self.visit(token - self.listeners.len(), |connection, visit| {
                            connection.event(readiness, visit)
                        });
                    }
                }
            }
            self.go_on();
        }
    }

    /// How long there is nothing to do without an event; `None`: for ever.
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
                Ok((socket, peer)) => self.open(index, socket, peer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_shortage(&error) => {
                    complain(&mut self.complained, &error);
                    self.accept_at = Some(self.now + ACCEPT_PAUSE);
                    return;
                }
                // Of the connection that would have been next, as accept(2) says.
                Err(_) => {}
            }
        }
        self.accept_at = Some(self.now);
    }

    fn open(&mut self, index: usize, mut socket: TcpStream, peer: SocketAddr) {
        let key = self.connections.vacant_key();
        let token = Token(self.listeners.len() + key);
        if let Err(error) = self.poll.registry().register(&mut socket, token, Interest::READABLE) {
            complain(&mut self.complained, &error);
            return;
        }
        let origin = Origin {
            listener: ListenerId(index as u16),
            listening: self.listeners[index].1,
            peer,
        };
        let stream = KernelStream::new(socket, origin, self.now);
        let connection = Connection::open(stream, &mut self.application, &mut self.spare);
        self.connections.insert(connection);
        self.visit(key, |connection, visit| connection.proceed(visit));
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
            now: self.now,
        };
        let next = work(connection, &mut visit);
        if let Next::End(reason) = next {
            return self.end(key, reason);
        }
        let token = Token(self.listeners.len() + key);
        if let Err(error) = connection.watch(self.poll.registry(), token) {
            complain(&mut self.complained, &error);
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
        self.connections.remove(key).end(reason, &mut self.application);
    }
}

/// Says once what keeps connections from being served.
fn complain(complained: &mut bool, error: &io::Error) {
    if !*complained {
        *complained = true;
        eprintln!("tidegate-bench serve-kernel: some connections are not served: {error}");
    }
}

/// Whether an error of accept(2) is about descriptors or memory, so that the connections still wait.
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
