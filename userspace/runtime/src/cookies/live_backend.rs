//! The backend of the controller in a running server: the maps of the XDP program and the mailboxes of the shards.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel;
use tidegate_abi::XdpCounter;
use tidegate_tcp::engine::Cookies;

use super::alarm::ShardCounts;
use super::controller::{CookieBackend, Given};
use super::policy::Cause;
use crate::error::Error;
use crate::mailbox::{Command, Mailbox};
use crate::report::SynCookieCounts;
use crate::xdp::{CookieMaps, CounterMap};

/// The time the shards have to take new keys. Each does so between two bursts.
const ANSWER_PATIENCE: Duration = Duration::from_millis(100);

/// The counters of one queue, for reports.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    turned_on: AtomicU64,
    turned_off: AtomicU64,
    active: AtomicBool,
    strong: AtomicBool,
}

impl Gauge {
    pub(crate) fn counts(&self, queue: u32) -> SynCookieCounts {
        SynCookieCounts {
            queue,
            turned_on: self.turned_on.load(Ordering::Relaxed),
            turned_off: self.turned_off.load(Ordering::Relaxed),
            active: self.active.load(Ordering::Relaxed),
            strong: self.strong.load(Ordering::Relaxed),
        }
    }
}

/// The running server as the controller sees it.
pub(crate) struct LiveBackend {
    pub(crate) maps: CookieMaps,
    pub(crate) counters: Arc<CounterMap>,
    pub(crate) shard_counts: ShardCounts,
    /// By shard.
    pub(crate) mailboxes: Arc<[Mailbox]>,
    /// By queue.
    pub(crate) gauges: Arc<[Gauge]>,
}

/// The cookies of the engine of shard `shard` of `shards`.
pub(crate) fn cookies_of(given: Option<Given>, shard: usize, shards: usize) -> Option<Cookies> {
    given.map(|Given { keys, accepted }| Cookies {
        keys,
        accepted,
        shard: shard as u16,
        shards: shards as u16,
    })
}

impl CookieBackend for LiveBackend {
    fn syns(&self, queue: u32) -> Result<u64, Error> {
        let redirected = self.counters.get(XdpCounter::RedirectSyn, queue)?;
        let answered = self.counters.get(XdpCounter::TxSynCookie, queue)?;
        Ok(redirected + answered)
    }

    fn half_open(&self, queue: u32) -> u32 {
        self.shard_counts.half_open(queue as usize)
    }

    fn give(&self, given: Option<Given>) -> bool {
        let shards = self.mailboxes.len();
        let (taken, answers) = channel::bounded(shards);
        for (shard, mailbox) in self.mailboxes.iter().enumerate() {
            let command = Command::Cookies {
                cookies: cookies_of(given, shard, shards),
                taken: taken.clone(),
            };
            if mailbox.send(command).is_err() {
                return false;
            }
        }
        // What is left are the shards' own, so that one that ended is not waited for.
        drop(taken);
        let deadline = Instant::now() + ANSWER_PATIENCE;
        (0..shards).all(|_| answers.recv_deadline(deadline).is_ok())
    }

    fn accept(&mut self, given: Option<Given>) -> Result<(), Error> {
        self.maps.accept(given)
    }

    fn bad_cookies(&self) -> Result<u64, Error> {
        let mut count = self.shard_counts.bad_cookies();
        for queue in 0..self.mailboxes.len() as u32 {
            count += self.counters.get(XdpCounter::DropBadCookie, queue)?;
        }
        Ok(count)
    }

    fn turned_strong(&self, strong: bool, cause: Cause) {
        for gauge in self.gauges.iter() {
            gauge.strong.store(strong, Ordering::Relaxed);
        }
        let word = if strong { "strong" } else { "usual" };
        tracing::info!("SYN cookies without timestamps are {word}: {cause}");
    }

    fn set_switch(&mut self, queue: u32, switch: u32) -> Result<(), Error> {
        self.maps.set_switch(queue, switch)
    }

    fn turned(&self, queue: u32, on: bool, cause: Cause) {
        let gauge = &self.gauges[queue as usize];
        let (count, word) = if on {
            (&gauge.turned_on, "on")
        } else {
            (&gauge.turned_off, "off")
        };
        count.fetch_add(1, Ordering::Relaxed);
        gauge.active.store(on, Ordering::Relaxed);
        tracing::info!("queue {queue}: SYN cookies {word}: {cause}");
    }
}

#[cfg(test)]
mod tests {
    use tidegate_abi::siphash::Key;
    use tidegate_abi::syn_cookie::{Accepted, Keys};

    use super::*;

    #[test]
    fn every_shard_gets_the_same_keys_and_its_own_number() {
        let keys = Keys::new(Key(1, 2), 3, false);
        let given = Given {
            keys,
            accepted: Accepted::Strong,
        };
        let cookies = cookies_of(Some(given), 1, 4).expect("keys");
        assert_eq!(cookies.accepted, Accepted::Strong);
        assert!(cookies.keys == keys);
        assert_eq!((cookies.shard, cookies.shards), (1, 4));
        assert!(cookies_of(None, 0, 1).is_none());
    }
}
