//! Commands of other threads to a shard, and the bell that wakes it for them.

use crate::sync::{ArrayQueue, AtomicBool, Ordering, Waker, fence};

/// Commands that may wait for a shard; they come from people and from the control of SYN cookies, a few a second.
const COMMANDS: usize = 64;

/// One per shard: its commands, and the bell that wakes it.
pub struct Mailbox<C> {
    commands: ArrayQueue<C>,
    bell: Bell,
}

impl<C> Mailbox<C> {
    /// A mailbox whose shard sleeps in the `Poll` that `waker` belongs to.
    pub fn new(waker: Waker) -> Self {
        Self {
            commands: ArrayQueue::new(COMMANDS),
            bell: Bell::new(waker),
        }
    }

    /// Gives the shard a command and wakes it.
    ///
    /// # Errors
    ///
    /// The command itself when the mailbox is full.
    pub fn send(&self, command: C) -> Result<(), C> {
        self.commands.push(command)?;
        self.bell.ring();
        Ok(())
    }

    /// The next command.
    #[inline]
    pub fn take(&self) -> Option<C> {
        self.commands.pop()
    }

    /// Whether commands wait.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The bell to ring after something was put into a queue the shard reads.
    #[inline]
    pub fn bell(&self) -> &Bell {
        &self.bell
    }
}

/// Wakes a sleeping shard, and costs a shard that is awake nothing but a load.
///
/// Either the shard sees what was put into its queue when it looks once more after announcing its sleep, or the other
/// side sees the announcement after putting it there: both put a sequentially consistent fence between their store and
/// their load, so they cannot both miss.
pub struct Bell {
    sleeping: AtomicBool,
    waker: Waker,
}

impl Bell {
    fn new(waker: Waker) -> Self {
        Self {
            sleeping: AtomicBool::new(false),
            waker,
        }
    }

    /// Wakes the shard if it sleeps or is about to. To be called after what it is to find is in its queue.
    #[inline]
    pub fn ring(&self) {
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

    /// Sleeps until the next wake-up.
    #[cfg(all(test, loom))]
    pub(crate) fn wait(&self) {
        self.waker.sleep();
    }

    /// Sleeps by `sleep`, unless `is_idle` finds something in a queue after the sleep was announced: who put it there
    /// may have rung before anybody listened. Both are given `context`.
    pub fn sleep<T, R>(
        &self,
        mut context: T,
        is_idle: impl FnOnce(&mut T) -> bool,
        sleep: impl FnOnce(T) -> R,
    ) -> Option<R> {
        // No mere store: it comes after what the last to ring has written, and a model checker sees it in nothing else.
        self.sleeping.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let slept = is_idle(&mut context).then(|| sleep(context));
        self.sleeping.store(false, Ordering::Relaxed);
        slept
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    fn mailbox() -> (Poll, Mailbox<u32>) {
        let poll = Poll::new().expect("an epoll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("an eventfd");
        (poll, Mailbox::new(waker))
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
        mailbox.send(1).expect("room");
        assert!(!was_woken(&mut poll));
        assert!(!mailbox.is_empty());
        assert_eq!(mailbox.take(), Some(1));
        assert!(mailbox.is_empty());
    }

    #[test]
    fn a_sleeping_shard_is_woken_once() {
        let (mut poll, mailbox) = mailbox();
        let slept = mailbox.bell().sleep(
            (),
            |()| mailbox.is_empty(),
            |()| {
                mailbox.send(1).expect("room");
                let first = was_woken(&mut poll);
                mailbox.send(2).expect("room");
                (first, was_woken(&mut poll))
            },
        );
        assert_eq!(slept, Some((true, false)));
    }

    #[test]
    fn after_the_sleep_nobody_wakes_it() {
        let (mut poll, mailbox) = mailbox();
        mailbox.bell().sleep((), |()| true, |()| ());
        mailbox.bell().ring();
        assert!(!was_woken(&mut poll));
    }

    #[test]
    fn a_shard_with_something_in_its_queue_does_not_sleep() {
        let (mut poll, mailbox) = mailbox();
        mailbox.send(1).expect("room");
        assert_eq!(mailbox.bell().sleep((), |()| mailbox.is_empty(), |()| ()), None);
        mailbox.bell().ring();
        assert!(!was_woken(&mut poll), "nothing is announced any more");
    }

    #[test]
    fn a_full_mailbox_gives_the_command_back() {
        let (_poll, mailbox) = mailbox();
        for command in 0..COMMANDS as u32 {
            mailbox.send(command).expect("room");
        }
        assert_eq!(mailbox.send(99), Err(99));
    }
}
