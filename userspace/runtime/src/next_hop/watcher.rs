//! The thread that follows what the kernel tells.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use mio::{Events, Poll};
use netlink_bindings::rt_neigh;
use nix::errno::Errno;

use super::budget::{BUDGET_INTERVAL, Budget};
use super::decode::{self, Event};
use super::listing::{self, indices};
use super::tables::{Change, Neighbour, Tables};
use super::{Shared, WAITING};
use crate::netlink::Socket;

/// The interval at which the kernel is told of the neighbours in use; longer if they are more than may be told in it.
/// It asks one that was silent for its own time for reachable neighbours, some 30 s, whether it is still there.
pub(super) const USE_INTERVAL: Duration = Duration::from_secs(5);

/// The pause after changes: what comes meanwhile is made known together.
const PAUSE: Duration = Duration::from_millis(50);

/// The time between two listings of everything.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// The interval at which a shard is waited for that looks at the copy which is to change.
const READER_PAUSE: Duration = Duration::from_micros(100);

/// Removed nexthop objects that are remembered.
const MAX_REMOVED_OBJECTS: usize = 1 << 16;

/// Tells the kernel that the interface's neighbour is in use, as if it had something to send there.
pub(super) fn tell_use(socket: &mut Socket, (interface, address): (u32, IpAddr)) -> io::Result<u32> {
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

/// The thread.
pub(super) struct Watcher {
    /// The index and the device of each.
    pub(super) interfaces: Vec<(u32, u8)>,
    pub(super) socket: Socket,
    pub(super) poll: Poll,
    /// The flags of all interfaces, by number.
    pub(super) links: HashMap<u32, u32>,
    /// Nexthop objects that were removed since the last listing: routes by them went without a word.
    pub(super) removed_objects: HashSet<u32>,
    pub(super) shared: Arc<Shared>,
    /// The copy of the tables that no shard begins to look at.
    pub(super) spare: Arc<Tables>,
    /// The changes that the spare copy has not had yet.
    pub(super) behind: Vec<Change>,
    pub(super) loaded_at: Instant,
    /// Something was lost: everything has to be listed again.
    pub(super) is_incomplete: bool,
    pub(super) budget: Budget,
    /// Neighbours in use that the kernel is still to be told of, before it is asked again which are.
    pub(super) to_tell: Vec<Arc<Neighbour>>,
    pub(super) used_at: Instant,
}

impl Watcher {
    pub(super) fn run(mut self) {
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
    pub(super) fn note_object(&mut self, change: &Change) {
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
        match listing::load(&mut self.socket, &self.interfaces, &mut self.links) {
            Ok((tables, is_outdated)) => self.take_listing(tables, is_outdated),
            Err(error) => tracing::warn!("cannot list routes and neighbours: {error}"),
        }
    }

    pub(super) fn take_listing(&mut self, tables: Tables, is_outdated: bool) {
        self.is_incomplete = is_outdated;
        self.behind.clear();
        self.removed_objects.clear();
        self.spare = Arc::new(tables.clone());
        self.shared.publish(Arc::new(tables));
        self.shared.loads.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes changes known to the shards, if they are any.
    pub(super) fn publish(&mut self, changes: Vec<Change>) {
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
    pub(super) fn tell_kernel(&mut self, now: Instant) {
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
