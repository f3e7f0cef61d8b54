//! Commands of the control plane to the shards.

use core::any::Any;
use core::fmt;
use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam::channel::Sender;
use mio::Waker;
use tidegate_capture::Tap;
use tidegate_tcp::application::ListenerId;
use tidegate_tcp::config::{Config, Keepalive};
use tidegate_tcp::congestion::Algorithm;
use tidegate_tcp::engine::Cookies;
use tidegate_tcp::sources::SourceLimits;

use crate::inspection::SliceRequest;
use crate::report::ShardReport;
use crate::routes::Routes;
use crate::take_over::{NewPort, Release};
use crate::trace::Tracer;

/// The interval at which a command is offered again to a shard whose mailbox is full.
pub(crate) const OFFER_STEP: Duration = Duration::from_millis(1);

/// A command of the control plane to a shard.
#[derive(Debug)]
pub(crate) enum Command {
    /// Sends a snapshot of the counters. The channel has room for one.
    Report(Sender<ShardReport>),
    /// Lists, counts or resets the next few connections.
    Connections(SliceRequest),
    /// Accepts SYN cookies made with these keys from now on, or none.
    Cookies {
        cookies: Option<Cookies>,
        /// Told when that is so. The channel has room for every shard.
        taken: Sender<()>,
    },
    /// Accepts connections to these addresses, each for its listener, and to no others.
    Addresses {
        addresses: Arc<[(SocketAddr, ListenerId)]>,
        /// Told when that is so. The channel has room for every shard.
        taken: Sender<()>,
    },
    /// Works by other settings from now on.
    Configure {
        configuration: Arc<Configuration>,
        /// Told when that is so. The channel has room for every shard.
        taken: Sender<()>,
    },
    /// Changes the application.
    Application {
        change: ApplicationChange,
        /// Told when that is so, with what the application does not need any more. The channel has room for every
        /// shard.
        taken: Sender<Box<dyn Any + Send>>,
    },
    /// Makes segments of new connections for this MTU of the link.
    Mtu(u16),
    /// Answers no SYN any more.
    RefuseSyns,
    /// Sends by other devices from now on.
    Routes(Routes),
    /// Shows this tap what is received and sent from now on.
    Tap {
        tap: Box<Tap>,
        /// And this tracer what happens to connections.
        tracer: Option<Box<Tracer>>,
        /// Told when that is so. The channel has room for every shard.
        taken: Sender<()>,
    },
    /// Takes no new connections and begins to tell the open ones.
    Drain,
    /// Begins to reset all connections.
    Abort,
    /// Gives the port up to another process.
    Release(Box<Release>),
    /// Receives and sends by a port again.
    Port(Box<NewPort>),
    /// The process whose first shard has this number in the flow filter is no more.
    Forget(u16),
    /// Ends the shard.
    Stop,
}

/// Settings that change while the shards run.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) tcp: Config,
    pub(crate) source_limits: SourceLimits,
    /// By the number of the listener.
    pub(crate) keepalive: Vec<Keepalive>,
    /// By the number of the listener; `None`: that of `tcp`.
    pub(crate) congestion: Vec<Option<Algorithm>>,
    pub(crate) addresses: Arc<[(SocketAddr, ListenerId)]>,
}

type Change = Box<dyn FnOnce(&mut dyn Any) -> Box<dyn Any + Send> + Send>;

/// A change of a shard's application, which is made once.
#[derive(Clone)]
pub(crate) struct ApplicationChange(Arc<Mutex<Option<Change>>>);

impl ApplicationChange {
    pub(crate) fn new(change: Change) -> Self {
        Self(Arc::new(Mutex::new(Some(change))))
    }

    /// Makes it. Returns what the application does not need any more, to be dropped elsewhere.
    pub(crate) fn make(&self, application: &mut dyn Any) -> Box<dyn Any + Send> {
        let change = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        change.map_or_else(|| Box::new(()) as Box<dyn Any + Send>, |change| change(application))
    }
}

impl fmt::Debug for ApplicationChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationChange").finish_non_exhaustive()
    }
}

/// One per shard.
pub(crate) type Mailbox = tidegate_exchange::Mailbox<Command>;

/// Gives every shard whose thread runs a command, waiting for at most `timeout` for those whose mailbox is full.
pub(crate) fn tell_all<T>(
    mailboxes: &[Mailbox],
    threads: &[Option<JoinHandle<T>>],
    command: impl Fn() -> Command,
    timeout: Duration,
) {
    let began = Instant::now();
    let mut untold: Vec<_> = mailboxes.iter().zip(threads).collect();
    loop {
        untold.retain(|&(mailbox, thread)| {
            let gone = thread.as_ref().is_none_or(JoinHandle::is_finished);
            !gone && mailbox.send(command()).is_err()
        });
        if untold.is_empty() || began.elapsed() >= timeout {
            return;
        }
        thread::sleep(OFFER_STEP);
    }
}

/// A waker for the poll of one shard.
///
/// # Errors
///
/// The kernel's error when there are no more file descriptors.
pub(crate) fn waker(poll: &mio::Poll, token: mio::Token) -> io::Result<Waker> {
    Waker::new(poll.registry(), token)
}

#[cfg(test)]
mod tests {
    use crossbeam::channel;
    use mio::{Poll, Token};

    use super::*;

    fn mailbox() -> (Poll, Mailbox) {
        let poll = Poll::new().expect("an epoll");
        let mailbox = Mailbox::new(waker(&poll, Token(0)).expect("an eventfd"));
        (poll, mailbox)
    }

    /// A mailbox that takes no more commands, with the poll that its bell rings.
    fn full_mailbox() -> (Poll, Mailbox) {
        let (poll, mailbox) = mailbox();
        while mailbox.send(Command::Drain).is_ok() {}
        (poll, mailbox)
    }

    #[test]
    fn who_hangs_is_told_to_stop_when_it_goes_on_and_holds_up_nobody_else() {
        let (_first_poll, first) = full_mailbox();
        let (_second_poll, second) = full_mailbox();
        while second.take().is_some() {}
        let mailboxes = Arc::new([first, second]);
        let (resume, is_resumed) = channel::bounded::<()>(0);
        let run = |index: usize, hangs: Option<channel::Receiver<()>>| {
            let mailboxes = Arc::clone(&mailboxes);
            Some(thread::spawn(move || {
                if let Some(is_resumed) = hangs {
                    is_resumed.recv().expect("a word");
                }
                while !matches!(mailboxes[index].take(), Some(Command::Stop)) {
                    thread::yield_now();
                }
            }))
        };
        let threads = [run(0, Some(is_resumed)), run(1, None)];

        tell_all(mailboxes.as_slice(), &threads, || Command::Drain, Duration::ZERO);
        let (other_ended, still_telling) = thread::scope(|scope| {
            let telling = scope.spawn(|| tell_all(mailboxes.as_slice(), &threads, || Command::Stop, Duration::MAX));
            let other = || threads[1].as_ref().is_none_or(JoinHandle::is_finished);
            let began = Instant::now();
            while !other() && began.elapsed() < Duration::from_secs(10) {
                thread::yield_now();
            }
            let found = (other(), !telling.is_finished());
            resume.send(()).expect("the thread waits");
            found
        });
        assert!(other_ended && still_telling);
        for thread in threads.into_iter().flatten() {
            thread.join().expect("it was told to stop");
        }
    }

    #[test]
    fn a_thread_that_has_ended_is_told_nothing() {
        let (_poll, mailbox) = full_mailbox();
        let ended = thread::spawn(|| ());
        while !ended.is_finished() {
            thread::yield_now();
        }
        tell_all(&[mailbox], &[Some(ended)], || Command::Stop, Duration::MAX);
    }
}
