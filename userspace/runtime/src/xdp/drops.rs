//! The frames that the XDP program drops and answers, as far as somebody captures them.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use crossbeam::queue::ArrayQueue;
use tidegate_abi::capture::Sample;
use tidegate_abi::{MAP_CAPTURE, MAP_CAPTURE_SWITCH};
use tidegate_exchange::SharedWords;

use super::{map_error, missing, shared_memory};
use crate::error::Error;

/// Samples that wait for one capture: as many as the program's ring has room for, nearly.
const MAX_WAITING: usize = 4096;

/// Samples taken out of the ring at a time.
const MAX_AT_ONCE: usize = 4096;

/// The program's ring, shared by all captures. It has one reader: the process that serves.
pub(crate) struct Drops {
    switch: SharedWords<AtomicU32>,
    inner: Mutex<Inner>,
}

struct Inner {
    ring: RingBuf<MapData>,
    subscribers: Vec<Weak<Waiting>>,
    /// Switch and ring are another process's.
    is_given_up: bool,
}

/// The samples that wait for one capture.
struct Waiting {
    samples: ArrayQueue<Sample>,
    lost: AtomicU64,
}

/// The samples of one capture.
pub(crate) struct Subscription {
    drops: Arc<Drops>,
    waiting: Arc<Waiting>,
}

impl Drops {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let switch = shared_memory::words(ebpf, MAP_CAPTURE_SWITCH, 1)?;
        let ring = ebpf.take_map(MAP_CAPTURE).ok_or_else(|| missing(MAP_CAPTURE))?;
        let ring = RingBuf::try_from(ring).map_err(|error| map_error(MAP_CAPTURE, &error))?;
        Ok(Self {
            switch,
            inner: Mutex::new(Inner {
                ring,
                subscribers: Vec::new(),
                is_given_up: false,
            }),
        })
    }

    /// Leaves switch and ring to another process: captures get no more samples.
    pub(super) fn give_up(&self) {
        self.lock().is_given_up = true;
    }

    /// Has the program tell as much as this process's captures want, whatever another had it do.
    pub(super) fn take_back(&self) {
        let mut inner = self.lock();
        inner.is_given_up = false;
        self.set_switch(u32::from(!inner.subscribers.is_empty()));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the program tell of what it drops and answers, until the result is dropped.
    pub(crate) fn subscribe(self: &Arc<Self>) -> Subscription {
        let waiting = Arc::new(Waiting {
            samples: ArrayQueue::new(MAX_WAITING),
            lost: AtomicU64::new(0),
        });
        let mut inner = self.lock();
        inner.subscribers.push(Arc::downgrade(&waiting));
        if !inner.is_given_up {
            if inner.subscribers.len() == 1 {
                // What was left when nobody looked any more is old.
                while inner.ring.next().is_some() {}
            }
            self.set_switch(1);
        }
        drop(inner);
        Subscription {
            drops: Arc::clone(self),
            waiting,
        }
    }

    fn set_switch(&self, switch: u32) {
        for word in (*self.switch).as_ref() {
            word.store(switch, Ordering::Relaxed);
        }
    }

    /// Gives each capture what came meanwhile.
    fn distribute(&self) {
        let mut inner = self.lock();
        let Inner {
            ring,
            subscribers,
            is_given_up,
        } = &mut *inner;
        if *is_given_up {
            return;
        }
        for _ in 0..MAX_AT_ONCE {
            let Some(sample) = ring.next().and_then(|entry| Sample::from_entry(&entry)) else {
                return;
            };
            for waiting in subscribers.iter().filter_map(Weak::upgrade) {
                if waiting.samples.push(sample).is_err() {
                    waiting.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The samples there are at the moment, oldest first.
impl Iterator for Subscription {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        if self.has_samples() {
            self.waiting.samples.pop()
        } else {
            None
        }
    }
}

impl Subscription {
    /// Whether there are samples at the moment.
    pub(crate) fn has_samples(&self) -> bool {
        if self.waiting.samples.is_empty() {
            self.drops.distribute();
        }
        !self.waiting.samples.is_empty()
    }

    /// Samples that were lost between the ring and here, because others looked and this one did not.
    pub(crate) fn lost(&self) -> u64 {
        self.waiting.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut inner = self.drops.lock();
        let own = Arc::as_ptr(&self.waiting);
        inner.subscribers.retain(|other| other.as_ptr() != own);
        if inner.subscribers.is_empty() && !inner.is_given_up {
            self.drops.set_switch(0);
        }
    }
}
