//! Next hops as the kernel's routes and neighbours have them (`next_hop = "kernel"`).
//!
//! A thread of its own follows what the kernel tells of routes, nexthop objects, neighbours and interfaces. It keeps
//! two copies of the [`tables`]: the shards look at one while the changes are made to the other, then the two change
//! places. A number, the generation, tells the engines that they did.
//!
//! The kernel sees nothing of the shards' traffic. What they send to is therefore told to it from time to time as if it
//! had sent itself (NTF_USE): a neighbour that is unknown is resolved, and one in use is asked whether it is still
//! there before its entry is trusted for ever.

mod budget;
mod decode;
mod listing;
mod tables;
mod watcher;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token, Waker};
use nix::net::if_::if_nametoindex;
use tidegate_tcp::next_hops::{NextHops, NoNextHop};
use tidegate_tcp::wire::{FlowKey, LinkHeader};

use self::budget::Budget;
use self::decode::Event;
use self::tables::{Neighbour, Tables};
use self::watcher::{Watcher, tell_use};
use crate::error::Error;
use crate::netlink::Socket;
use crate::report::NextHopCounts;

/// The groups that the kernel is asked to tell of: links, neighbours, addresses and routes of both families, nexthop
/// objects.
const GROUPS: u32 = (libc::RTMGRP_LINK
    | libc::RTMGRP_NEIGH
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE) as u32
    | 1 << (libc::RTNLGRP_NEXTHOP - 1);

/// Addresses to be resolved, and neighbours in use, that may wait to be told to the kernel.
const WAITING: usize = 1024;

const NETLINK: Token = Token(0);
const BELL: Token = Token(1);

/// The parts that shards and thread share.
struct Shared {
    tables: ArcSwap<Tables>,
    /// Never 0.
    generation: AtomicU32,
    /// By interface and address.
    unresolved: ArrayQueue<(u32, IpAddr)>,
    in_use: ArrayQueue<Arc<Neighbour>>,
    waker: Waker,
    is_woken: AtomicBool,
    stop: AtomicBool,
    requests: AtomicU64,
    requests_limited: AtomicU64,
    loads: AtomicU64,
}

impl Shared {
    fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!("cannot wake the thread that follows routes: {error}");
        }
    }

    /// Has the kernel resolve an interface's neighbour, if not too many are waiting.
    #[cold]
    fn resolve(&self, neighbour: (u32, IpAddr)) {
        if self.unresolved.push(neighbour).is_err() {
            self.requests_limited.fetch_add(1, Ordering::Relaxed);
        }
        self.wake();
    }

    /// Remembers that the kernel is to be told of its use.
    #[cold]
    fn note_use(&self, neighbour: &Arc<Neighbour>) {
        if !neighbour.in_use.swap(true, Ordering::Relaxed) && self.in_use.push(Arc::clone(neighbour)).is_err() {
            // The next look-up tries again.
            neighbour.in_use.store(false, Ordering::Relaxed);
        }
    }

    fn publish(&self, tables: Arc<Tables>) -> Arc<Tables> {
        let before = self.tables.swap(tables);
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1).max(1);
        self.generation.store(generation, Ordering::Release);
        before
    }
}

/// The tables as an engine sees them.
struct View(Arc<Shared>);

impl NextHops for View {
    fn generation(&self) -> u32 {
        self.0.generation.load(Ordering::Acquire)
    }

    fn lookup(&self, key: &FlowKey) -> Result<LinkHeader, NoNextHop> {
        let tables = self.0.tables.load();
        match tables.lookup(key.peer().ip(), hash(key)) {
            Ok((neighbour, served)) => {
                if !neighbour.in_use.load(Ordering::Relaxed) {
                    self.0.note_use(neighbour);
                }
                let link = LinkHeader::new(neighbour.mac, served.mac, key.is_v4());
                Ok(link.on_device(served.device))
            }
            Err((reason, neighbour)) => {
                if reason == NoNextHop::Unresolved {
                    self.0.resolve(neighbour);
                }
                Err(reason)
            }
        }
    }
}

/// A number that chooses among the ways of a route, the same one for all of a flow's life and on every shard.
fn hash(key: &FlowKey) -> u32 {
    let [first, second] = [&key.remote, &key.local].map(|address| {
        let words = u128::from_le_bytes(*address);
        words as u64 ^ (words >> 64) as u64
    });
    let ports = u64::from(key.remote_port) << 16 | u64::from(key.local_port);
    let mixed = [first, second, ports].into_iter().fold(0_u64, |sum, word| {
        (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
    });
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// The thread that follows the kernel's tables. Dropping this ends it.
pub(crate) struct NextHopWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl NextHopWatch {
    /// Reads the tables for these interfaces, each with the number of its device, and follows them from here on. Of
    /// neighbours to be resolved the kernel is told at most `neighbour_rate` in a second, and of those in use as many.
    ///
    /// # Errors
    ///
    /// [`Error::LinkGone`], or [`Error::Io`] when the kernel does not tell.
    pub(crate) fn start(interfaces: &[(&str, u8)], neighbour_rate: u32) -> Result<Self, Error> {
        let failed = |source| Error::io("cannot follow routes and neighbours", source);
        let interfaces = interfaces
            .iter()
            .map(|&(name, device)| Ok((index_of(name)?, device)))
            .collect::<Result<Vec<_>, Error>>()?;
        let mut socket = Socket::open(GROUPS).map_err(failed)?;
        let mut links = HashMap::new();
        let (tables, is_outdated) = listing::load(&mut socket, &interfaces, &mut links).map_err(failed)?;
        let poll = Poll::new().map_err(failed)?;
        let waker = Waker::new(poll.registry(), BELL).map_err(failed)?;
        poll.registry()
            .register(&mut SourceFd(&socket.as_raw_fd()), NETLINK, Interest::READABLE)
            .map_err(failed)?;
        let shared = Arc::new(Shared {
            tables: ArcSwap::from_pointee(tables.clone()),
            generation: AtomicU32::new(1),
            unresolved: ArrayQueue::new(WAITING),
            in_use: ArrayQueue::new(WAITING),
            waker,
            is_woken: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            requests_limited: AtomicU64::new(0),
            loads: AtomicU64::new(1),
        });
        let watcher = Watcher {
            interfaces,
            socket,
            poll,
            links,
            removed_objects: HashSet::new(),
            shared: Arc::clone(&shared),
            spare: Arc::new(tables),
            behind: Vec::new(),
            loaded_at: Instant::now(),
            is_incomplete: is_outdated,
            budget: Budget::new(neighbour_rate),
            to_tell: Vec::new(),
            used_at: Instant::now(),
        };
        let thread = thread::Builder::new()
            .name("next-hops".to_owned())
            .spawn(move || watcher.run())
            .map_err(|error| Error::io("cannot start a thread", error))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The tables, for an engine.
    pub(crate) fn next_hops(&self) -> Box<dyn NextHops + Send> {
        Box::new(View(Arc::clone(&self.shared)))
    }

    /// The requests and listings until now.
    pub(crate) fn counts(&self) -> NextHopCounts {
        NextHopCounts {
            neighbour_requests: self.shared.requests.load(Ordering::Relaxed),
            neighbour_requests_limited: self.shared.requests_limited.load(Ordering::Relaxed),
            listings: self.shared.loads.load(Ordering::Relaxed),
        }
    }
}

impl Drop for NextHopWatch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that follows routes panicked");
        }
    }
}

fn index_of(interface: &str) -> Result<u32, Error> {
    if_nametoindex(interface).map_err(|_| Error::LinkGone {
        name: interface.to_owned(),
    })
}

impl fmt::Debug for NextHopWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextHopWatch").finish_non_exhaustive()
    }
}

/// The Ethernet address that what is for `target` is to be sent to on `interface`, of the calling thread's network
/// namespace. The kernel resolves it, which may take up to `timeout`.
///
/// # Errors
///
/// [`Error::NoNextHop`] with the reason, [`Error::LinkGone`], or [`Error::Io`] when the kernel does not tell.
pub fn resolve_next_hop(interface: &str, target: IpAddr, timeout: Duration) -> Result<[u8; 6], Error> {
    let failed = |source| Error::io(format!("cannot read the routes and neighbours of {interface}"), source);
    let index = index_of(interface)?;
    let mut socket = Socket::open(GROUPS).map_err(failed)?;
    let (mut tables, _) = listing::load(&mut socket, &[(index, 0)], &mut HashMap::new()).map_err(failed)?;
    let began = Instant::now();
    let mut is_told = false;
    loop {
        let (reason, wanted) = match tables.lookup(target, 0) {
            Ok((neighbour, _)) => return Ok(neighbour.mac),
            Err(none) => none,
        };
        let left = timeout.saturating_sub(began.elapsed());
        if reason != NoNextHop::Unresolved || left.is_zero() {
            return Err(Error::NoNextHop {
                target,
                name: interface.to_owned(),
                reason,
                address: wanted.1,
            });
        }
        if !is_told {
            is_told = true;
            tell_use(&mut socket, wanted).map_err(failed)?;
        }
        socket.wait(left).map_err(failed)?;
        let mut refused = None;
        let received = socket.receive(|message| {
            refused = refused.take().or(message.refusal());
            decode::decode(message, &[index], &mut |event| {
                if let Event::Change(change) = event {
                    tables.apply(&change);
                }
            });
        });
        received.map_err(failed)?;
        if let Some(refusal) = refused {
            return Err(failed(refusal));
        }
    }
}

#[cfg(test)]
mod tests;
