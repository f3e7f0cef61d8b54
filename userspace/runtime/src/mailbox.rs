//! Commands of other threads to a shard, and the bell that wakes it for them.

use core::sync::atomic::{AtomicBool, Ordering, fence};
use core::time::Duration;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;
use mio::Waker;
use tidegate_tcp::engine::Cookies;

use crate::report::ShardReport;

/// Commands that may wait for a shard; they come from people and from the control of SYN cookies, a few a second.
const COMMANDS: usize = 64;

/// The interval at which a command is offered again to a shard whose mailbox is full.
const OFFER_STEP: Duration = Duration::from_millis(1);

/// A command of the control plane to a shard.
#[derive(Debug)]
pub(crate) enum Command {
    /// Sends a snapshot of the counters. The channel has room for one.
    Report(Sender<ShardReport>),
    /// Accepts SYN cookies made with these keys from now on, or none.
    Cookies {
        cookies: Option<Cookies>,
        /// Told when that is so. The channel has room for every shard.
        taken: Sender<()>,
    },
    /// Makes segments of new connections for this MTU of the link.
    Mtu(u16),
    /// Answers no SYN any more.
    RefuseSyns,
    /// Takes no new connections and begins to tell the open ones.
    Drain,
    /// Begins to reset all connections.
    Abort,
    /// Ends the shard.
    Stop,
}

/// One per shard: its commands, and the bell that wakes it.
pub(crate) struct Mailbox {
    commands: ArrayQueue<Command>,
    bell: Bell,
}

impl Mailbox {
    /// A mailbox whose shard sleeps in the `Poll` that `waker` belongs to.
    pub(crate) fn new(waker: Waker) -> Self {
        Self {
            commands: ArrayQueue::new(COMMANDS),
            bell: Bell {
                sleeping: AtomicBool::new(false),
                waker,
            },
        }
    }

    /// Gives the shard a command and wakes it. A full mailbox gives the command back.
    pub(crate) fn send(&self, command: Command) -> Result<(), Command> {
        self.commands.push(command)?;
        self.bell.ring();
        Ok(())
    }

    /// The next command.
    #[inline]
    pub(crate) fn take(&self) -> Option<Command> {
        self.commands.pop()
    }

    /// Whether commands wait.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The bell to ring after something was put into a queue the shard reads.
    #[inline]
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }
}

/// Wakes a sleeping shard, and costs a shard that is awake nothing but a load.
///
/// Either the shard sees what was put into its queue when it looks once more after announcing its sleep, or the other
/// side sees the announcement after putting it there: both put a sequentially consistent fence between their store and
/// their load, so they cannot both miss.
pub(crate) struct Bell {
    sleeping: AtomicBool,
    waker: Waker,
}

impl Bell {
    /// Wakes the shard if it sleeps or is about to. To be called after what it is to find is in its queue.
    #[inline]
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!("cannot wake a shard: {error}; it wakes by itself within a second");
        }
    }

    /// Announces that the shard is going to sleep. It must look at its queues once more before it does.
    pub(crate) fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}

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
    use std::sync::Arc;

    use crossbeam::channel;
    use mio::{Events, Poll, Token};

    use super::*;

    fn mailbox() -> (Poll, Mailbox) {
        let poll = Poll::new().expect("an epoll");
        let mailbox = Mailbox::new(waker(&poll, Token(0)).expect("an eventfd"));
        (poll, mailbox)
    }

    fn was_woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::ZERO))
            .expect("a look at the epoll");
        !events.is_empty()
    }

    #[test]
    fn a_shard_that_is_awake_is_not_woken() {
        let (mut poll, mailbox) = mailbox();
        mailbox.send(Command::Drain).expect("room");
        assert!(!was_woken(&mut poll));
        assert!(!mailbox.is_empty());
        assert!(matches!(mailbox.take(), Some(Command::Drain)));
        assert!(mailbox.is_empty());
    }

    #[test]
    fn a_sleeping_shard_is_woken_once() {
        let (mut poll, mailbox) = mailbox();
        mailbox.bell().announce_sleep();
        mailbox.send(Command::Abort).expect("room");
        assert!(was_woken(&mut poll));
        mailbox.send(Command::Stop).expect("room");
        assert!(!was_woken(&mut poll));
    }

    #[test]
    fn an_announcement_taken_back_wakes_nobody() {
        let (mut poll, mailbox) = mailbox();
        mailbox.bell().announce_sleep();
        mailbox.bell().awake();
        mailbox.bell().ring();
        assert!(!was_woken(&mut poll));
    }

    #[test]
    fn a_full_mailbox_gives_the_command_back() {
        let (_poll, mailbox) = mailbox();
        for _ in 0..COMMANDS {
            mailbox.send(Command::Drain).expect("room");
        }
        assert!(matches!(mailbox.send(Command::Stop), Err(Command::Stop)));
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
