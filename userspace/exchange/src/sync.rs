//! The atomics, queues and wakers that this crate is made of.

#[cfg(not(loom))]
mod real {
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, fence};

    pub(crate) use crossbeam::queue::ArrayQueue;
    pub(crate) use mio::Waker;
}

/// Loom's, and models of what loom cannot look into. They promise no more than what they stand for.
#[cfg(loom)]
#[allow(
    unreachable_pub,
    reason = "they are in the place of public types, and in public signatures"
)]
mod model {
    use core::ops::Deref;
    use std::collections::VecDeque;
    use std::io;

    use loom::sync::atomic::AtomicUsize;
    pub(crate) use loom::sync::atomic::fence;
    use loom::sync::{Condvar, Mutex};

    use super::Ordering;

    /// Loom 0.7 remembers of a word only the last thread that read it, and so does not try the orders in which another
    /// that has read it before comes after a change. So each access begins with one that it does not take for a read,
    /// which orders nothing that the threads see.
    macro_rules! atomics {
        ($($name:ident: $type:ty,)+) => {
            $(
                pub struct $name {
                    word: loom::sync::atomic::$name,
                    accesses: AtomicUsize,
                }

                impl $name {
                    pub fn new(value: $type) -> Self {
                        Self {
                            word: loom::sync::atomic::$name::new(value),
                            accesses: AtomicUsize::new(0),
                        }
                    }
                }

                impl Deref for $name {
                    type Target = loom::sync::atomic::$name;

                    fn deref(&self) -> &Self::Target {
                        self.accesses.fetch_add(1, Ordering::Relaxed);
                        &self.word
                    }
                }
            )+
        };
    }

    atomics! {
        AtomicBool: bool,
        AtomicU8: u8,
        AtomicU32: u32,
        AtomicU64: u64,
    }

    /// A bounded queue. Whether it is empty is a relaxed load, which orders nothing.
    pub struct ArrayQueue<T> {
        items: Mutex<VecDeque<T>>,
        length: AtomicUsize,
        capacity: usize,
    }

    impl<T> ArrayQueue<T> {
        pub fn new(capacity: usize) -> Self {
            Self {
                items: Mutex::new(VecDeque::new()),
                length: AtomicUsize::new(0),
                capacity,
            }
        }

        pub fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.items.lock().expect("no thread has panicked");
            if items.len() == self.capacity {
                return Err(item);
            }
            items.push_back(item);
            self.length.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        pub fn pop(&self) -> Option<T> {
            let mut items = self.items.lock().expect("no thread has panicked");
            let item = items.pop_front()?;
            self.length.fetch_sub(1, Ordering::Relaxed);
            Some(item)
        }

        pub fn len(&self) -> usize {
            self.length.load(Ordering::Relaxed)
        }

        pub fn is_empty(&self) -> bool {
            self.len() == 0
        }
    }

    /// An eventfd, and the poll it is in.
    pub struct Waker {
        is_signalled: Mutex<bool>,
        changed: Condvar,
    }

    impl Waker {
        pub fn new() -> Self {
            Self {
                is_signalled: Mutex::new(false),
                changed: Condvar::new(),
            }
        }

        pub fn wake(&self) -> io::Result<()> {
            *self.is_signalled.lock().expect("no thread has panicked") = true;
            self.changed.notify_one();
            Ok(())
        }

        /// Sleeps until woken. There is no time limit, so a wake-up that got lost is a deadlock.
        pub fn sleep(&self) {
            let mut is_signalled = self.is_signalled.lock().expect("no thread has panicked");
            while !*is_signalled {
                is_signalled = self.changed.wait(is_signalled).expect("no thread has panicked");
            }
            *is_signalled = false;
        }
    }
}

pub(crate) use core::sync::atomic::Ordering;

#[cfg(loom)]
pub(crate) use model::{ArrayQueue, AtomicBool, AtomicU8, AtomicU32, AtomicU64, Waker, fence};
#[cfg(not(loom))]
pub(crate) use real::{ArrayQueue, AtomicBool, AtomicU8, AtomicU32, AtomicU64, Waker, fence};
