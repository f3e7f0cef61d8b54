//! Next hops as the kernel's routes and neighbours have them (`next_hop = "kernel"`).
//!
//! A thread of its own follows what the kernel tells of routes, nexthop objects, neighbours and interfaces. It keeps
//! two copies of the [`tables`]: the shards look at one while the changes are made to the other, then the two change
//! places. A number, the generation, tells the engines that they did.
//!
//! The kernel sees nothing of the shards' traffic. What they send to is therefore told to it from time to time as if it
//! had sent itself (NTF_USE): a neighbour that is unknown is resolved, and one in use is asked whether it is still
//! there before its entry is trusted for ever.

mod decode;
mod tables;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use netlink_bindings::{rt_neigh, rt_route};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use tidegate_tcp::next_hops::{NextHops, NoNextHop};
use tidegate_tcp::wire::{FlowKey, LinkHeader};

use self::decode::{Event, RTM_GETNEXTHOP};
use self::tables::{Change, Neighbour, Tables};
use crate::error::Error;
use crate::netlink::{Message, Socket};
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

/// The interval at which the kernel is told of the neighbours in use; longer if they are more than may be told in it.
/// It asks one that was silent for its own time for reachable neighbours, some 30 s, whether it is still there.
const USE_INTERVAL: Duration = Duration::from_secs(5);

/// The time a budget is for.
const BUDGET_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after changes: what comes meanwhile is made known together.
const PAUSE: Duration = Duration::from_millis(50);

/// The time between two listings of everything.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// The times a listing is begun anew because it was interrupted, before it is given up for [`LOAD_INTERVAL`].
const LOAD_TRIES: u32 = 5;

/// The interval at which a shard is waited for that looks at the copy which is to change.
const READER_PAUSE: Duration = Duration::from_micros(100);

/// Removed nexthop objects that are remembered.
const MAX_REMOVED_OBJECTS: usize = 1 << 16;

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
        let (tables, is_outdated) = load(&mut socket, &interfaces, &mut links).map_err(failed)?;
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

fn indices(interfaces: &[(u32, u8)]) -> Vec<u32> {
    interfaces.iter().map(|&(index, _)| index).collect()
}

/// Reads everything anew. The tables come with whether they may be outdated: what was told meanwhile may have removed
/// routes that were listed before.
fn load(socket: &mut Socket, interfaces: &[(u32, u8)], links: &mut HashMap<u32, u32>) -> io::Result<(Tables, bool)> {
    let mut tries = 0;
    loop {
        match try_load(socket, interfaces, links) {
            Err(error) if tries < LOAD_TRIES && matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOBUFS)) => {
                tries += 1;
            }
            other => return other,
        }
    }
}

fn try_load(
    socket: &mut Socket,
    interfaces: &[(u32, u8)],
    links: &mut HashMap<u32, u32>,
) -> io::Result<(Tables, bool)> {
    let mut tables = Tables::new(interfaces);
    let mut is_outdated = false;
    let indices = indices(interfaces);
    links.clear();
    let mut take = |message: &Message<'_>| {
        decode::decode(message, &indices, &mut |event| {
            is_outdated |= take_listed(event, &mut tables, links);
        });
    };
    let dump = libc::NLM_F_DUMP as u16;
    let links = socket.send(libc::RTM_GETLINK, dump, &[0; 16])?;
    socket.receive_listing(links, &mut take)?;
    let objects = socket.send(RTM_GETNEXTHOP, dump, &[0; 8])?;
    match socket.receive_listing(objects, &mut take) {
        // Linux before 5.3 has none.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        other => other?,
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        let header = rt_route::Rtmsg {
            rtm_family: family as u8,
            ..Default::default()
        };
        let routes = socket.request(&rt_route::Request::new().op_getroute_dump(&header))?;
        match socket.receive_listing(routes, &mut take) {
            // Without IPv6.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            other => other?,
        }
    }
    let neighbours = socket.request(&rt_neigh::Request::new().op_getneigh_dump(&rt_neigh::Ndmsg::default()))?;
    socket.receive_listing(neighbours, &mut take)?;
    Ok((tables, is_outdated))
}

/// Takes what is told during a listing, as part of it or besides. Returns whether it may have removed routes, those
/// listed already among them.
fn take_listed(event: Event, tables: &mut Tables, links: &mut HashMap<u32, u32>) -> bool {
    match event {
        Event::Change(change) => {
            tables.apply(&change);
            matches!(change, Change::RemoveObject(_))
        }
        Event::Link(index, flags) => links.insert(index, flags).is_some_and(|before| before != flags),
        Event::Unknown => true,
    }
}

/// Tells the kernel that the interface's neighbour is in use, as if it had something to send there.
fn tell_use(socket: &mut Socket, (interface, address): (u32, IpAddr)) -> io::Result<u32> {
    let header = rt_neigh::Ndmsg {
        ndm_family: if address.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        } as u8,
        ndm_ifindex: interface as i32,
        ndm_state: libc::NUD_NONE,
        ndm_flags: libc::NTF_USE,
        ..Default::default()
    };
    let mut request = rt_neigh::Request::new().set_create().op_newneigh_do(&header);
    request.encode().push_dst(address);
    socket.request(&request)
}

/// So many of each kind in a second.
struct Budget {
    rate: u32,
    since: Instant,
    unresolved: u32,
    in_use: u32,
    /// The addresses that were asked for in this second.
    asked: HashSet<(u32, IpAddr)>,
}

impl Budget {
    fn new(rate: u32) -> Self {
        Self {
            rate,
            since: Instant::now(),
            unresolved: rate,
            in_use: rate,
            asked: HashSet::new(),
        }
    }

    fn renew(&mut self, now: Instant) {
        if now.duration_since(self.since) >= BUDGET_INTERVAL {
            self.since = now;
            (self.unresolved, self.in_use) = (self.rate, self.rate);
            self.asked.clear();
        }
    }

    /// Whether the kernel is to resolve a neighbour; `None` if it was asked for in this second.
    fn allow_unresolved(&mut self, neighbour: (u32, IpAddr)) -> Option<bool> {
        if self.asked.contains(&neighbour) {
            return None;
        }
        Some(match self.unresolved.checked_sub(1) {
            Some(left) => {
                self.unresolved = left;
                self.asked.insert(neighbour)
            }
            None => false,
        })
    }

    fn take_in_use(&mut self) -> bool {
        let left = self.in_use.checked_sub(1);
        self.in_use = left.unwrap_or(0);
        left.is_some()
    }
}

/// The thread.
struct Watcher {
    /// The index and the device of each.
    interfaces: Vec<(u32, u8)>,
    socket: Socket,
    poll: Poll,
    /// The flags of all interfaces, by number.
    links: HashMap<u32, u32>,
    /// Nexthop objects that were removed since the last listing: routes by them went without a word.
    removed_objects: HashSet<u32>,
    shared: Arc<Shared>,
    /// The copy of the tables that no shard begins to look at.
    spare: Arc<Tables>,
    /// The changes that the spare copy has not had yet.
    behind: Vec<Change>,
    loaded_at: Instant,
    /// Something was lost: everything has to be listed again.
    is_incomplete: bool,
    budget: Budget,
    /// Neighbours in use that the kernel is still to be told of, before it is asked again which are.
    to_tell: Vec<Arc<Neighbour>>,
    used_at: Instant,
}

impl Watcher {
    fn run(mut self) {
        let mut events = Events::with_capacity(4);
        loop {
            let timeout = if self.is_incomplete {
                LOAD_INTERVAL.saturating_sub(self.loaded_at.elapsed())
            } else if !self.to_tell.is_empty() {
                BUDGET_INTERVAL.saturating_sub(self.budget.since.elapsed())
            } else {
                USE_INTERVAL.saturating_sub(self.used_at.elapsed())
            };
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!("routes and neighbours are not followed any more: {error}");
                return;
            }
            self.shared.is_woken.store(false, Ordering::Release);
            if self.shared.stop.load(Ordering::Acquire) {
                return;
            }
            let changes = self.receive();
            changes.iter().for_each(|change| self.note_object(change));
            if self.is_incomplete && self.loaded_at.elapsed() >= LOAD_INTERVAL {
                self.load();
            } else {
                self.publish(changes);
            }
            self.tell_kernel(Instant::now());
            thread::sleep(PAUSE);
        }
    }

    /// Takes what the kernel has told.
    fn receive(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let Self {
            socket,
            interfaces,
            links,
            is_incomplete,
            ..
        } = self;
        let indices = indices(interfaces);
        loop {
            let received = socket.receive(|message| {
                if let Some(error) = message.refusal() {
                    tracing::warn!("the kernel does not take that a neighbour is in use: {error}");
                }
                decode::decode(message, &indices, &mut |event| match event {
                    Event::Change(change) => changes.push(change),
                    // Routes by an interface that goes down, or comes up, change without a word.
                    Event::Link(index, flags) => *is_incomplete |= links.insert(index, flags) != Some(flags),
                    Event::Unknown => *is_incomplete = true,
                });
            });
            match received {
                Ok(true) => {}
                Ok(false) => return changes,
                Err(error) => {
                    *is_incomplete = true;
                    if error.raw_os_error() != Some(Errno::ENOBUFS as i32) {
                        tracing::warn!("cannot read what the kernel tells of routes: {error}");
                        return changes;
                    }
                }
            }
        }
    }

    /// Has everything listed before routes by an object that was removed are taken for those by another one of the same
    /// number.
    fn note_object(&mut self, change: &Change) {
        match change {
            Change::RemoveObject(number) => {
                self.removed_objects.insert(*number);
                self.is_incomplete |= self.removed_objects.len() > MAX_REMOVED_OBJECTS;
            }
            Change::AddObject { number, .. } => self.is_incomplete |= self.removed_objects.contains(number),
            _ => {}
        }
    }

    /// Lists everything, and makes it known.
    fn load(&mut self) {
        self.loaded_at = Instant::now();
        match load(&mut self.socket, &self.interfaces, &mut self.links) {
            Ok((tables, is_outdated)) => self.take_listing(tables, is_outdated),
            Err(error) => tracing::warn!("cannot list routes and neighbours: {error}"),
        }
    }

    fn take_listing(&mut self, tables: Tables, is_outdated: bool) {
        self.is_incomplete = is_outdated;
        self.behind.clear();
        self.removed_objects.clear();
        self.spare = Arc::new(tables.clone());
        self.shared.publish(Arc::new(tables));
        self.shared.loads.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes changes known to the shards, if they are any.
    fn publish(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let tables = loop {
            // A shard that still looks at it is through within a microsecond, unless it has lost its CPU.
            match Arc::get_mut(&mut self.spare) {
                Some(tables) => break tables,
                None => thread::sleep(READER_PAUSE),
            }
        };
        for change in self.behind.drain(..) {
            tables.apply(&change);
        }
        // All of them, whether one before was any change or not.
        let changed = changes
            .iter()
            .fold(false, |changed, change| tables.apply(change) | changed);
        if changed {
            let spare = Arc::clone(&self.spare);
            self.spare = self.shared.publish(spare);
            self.behind = changes;
        }
    }

    /// Tells the kernel what is to be resolved, and from time to time what is in use.
    fn tell_kernel(&mut self, now: Instant) {
        self.budget.renew(now);
        while let Some(neighbour) = self.shared.unresolved.pop() {
            match self.budget.allow_unresolved(neighbour) {
                Some(true) => self.tell(neighbour),
                Some(false) => {
                    self.shared.requests_limited.fetch_add(1, Ordering::Relaxed);
                }
                None => {}
            }
        }
        if now.duration_since(self.used_at) >= USE_INTERVAL {
            self.used_at = now;
            if self.to_tell.is_empty() {
                // As many as have room there, though shards go on adding some.
                for neighbour in core::iter::from_fn(|| self.shared.in_use.pop()).take(WAITING) {
                    neighbour.in_use.store(false, Ordering::Relaxed);
                    self.to_tell.push(neighbour);
                }
            }
            // Every connection that sends looks its next hop up again, and so says that it is in use.
            let tables = self.shared.tables.load_full();
            self.shared.publish(tables);
        }
        while !self.to_tell.is_empty() && self.budget.take_in_use() {
            if let Some(neighbour) = self.to_tell.pop() {
                self.tell((neighbour.interface, neighbour.address));
            }
        }
    }

    fn tell(&mut self, neighbour: (u32, IpAddr)) {
        match tell_use(&mut self.socket, neighbour) {
            Ok(_) => {
                self.shared.requests.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!("cannot tell the kernel that {} is in use: {error}", neighbour.1),
        }
    }
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
    let (mut tables, _) = load(&mut socket, &[(index, 0)], &mut HashMap::new()).map_err(failed)?;
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
