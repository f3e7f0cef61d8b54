//! Other settings for shards that run.

use core::any::Any;
use core::time::Duration;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel;

use super::{ANSWER_TIMEOUT, Listener, Runtime};
use crate::config::Sources;
use crate::error::Error;
use crate::inspection::{ConnectionFilter, Walk};
use crate::interface::{Interface, check_listeners};
use crate::listeners::{AddressChange, REMOVED};
use crate::mailbox::{ApplicationChange, Command, Configuration, tell_all};

/// The time for which connections are looked at in one check, at most.
const LOOK_TIME: Duration = Duration::from_millis(20);

/// Addresses that are not served any more. What arrives for them is steered until the connections they have are over:
/// the kernel would answer it with RST.
#[derive(Debug, Default)]
pub(super) struct Retiring {
    addresses: VecDeque<SocketAddr>,
    /// Whether the first has connections, as far as is known.
    walk: Option<Walk>,
}

impl Retiring {
    pub(super) fn add(&mut self, addresses: &[SocketAddr]) {
        self.addresses.extend(addresses);
    }

    /// Forgets addresses that are served again, or that are the kernel's already.
    pub(super) fn forget(&mut self, addresses: &[SocketAddr]) {
        self.addresses.retain(|address| !addresses.contains(address));
        self.walk = None;
    }
}

/// Settings that change while a server runs.
#[derive(Clone, Copy, Debug)]
pub struct Reload<'a> {
    /// The interfaces, which are those it was started with.
    pub interfaces: &'a [String],
    /// The TCP engines, as far as [`set_config`](tidegate_tcp::engine::Engine::set_config) changes them.
    pub tcp: &'a tidegate_tcp::Config,
    /// The sources that are served. What a source is stays as it is, and without a limit of SYNs from the start none
    /// can be set.
    pub sources: &'a Sources,
    /// All listeners there ever were, by their [`ListenerId`](tidegate_tcp::application::ListenerId)s, and new ones
    /// behind them; `None`: it accepts no further connections, and those it has accepted go on. Its addresses are the
    /// kernel's when the last of them is over and all processes that this one took over from have ended.
    pub listeners: &'a [Option<Listener>],
}

impl Runtime {
    /// Works by other settings from now on. No connection is lost: what changes counts for those there are, too, or for
    /// new ones only.
    ///
    /// `change` makes the change of the application of each shard, by its queue, which it is given before it has
    /// connections of new listeners. What that returns is dropped here, since it may take long. `A` is the type of the
    /// applications.
    ///
    /// # Errors
    ///
    /// As for [`start`](super::start()) where settings cannot be, [`Error::Config`] when another process has taken
    /// over, [`Error::Load`] when the kernel refuses an entry of a map, and [`Error::Shard`] when a shard does not take
    /// them within a second, though it will. In all but the last case nothing has changed.
    pub fn reload<A, F, C>(&mut self, reload: &Reload<'_>, mut change: F) -> Result<(), Error>
    where
        A: 'static,
        F: FnMut(u32) -> C,
        C: FnOnce(&mut A) -> Box<dyn Any + Send> + Send + 'static,
    {
        if self.has_no_devices() {
            return Err(Error::Config(
                "another server has taken over from this one; reload that".to_owned(),
            ));
        }
        let addresses = self.check_reload(reload)?;
        let changes: Vec<_> = self.queues.iter().map(|info| change(info.queue)).collect();
        let changed = self.steer_anew(reload, &addresses)?;
        // From here on nothing fails.
        self.tcp = tidegate_tcp::Config {
            mtu: self.tcp.mtu,
            outer_headers: self.tcp.outer_headers,
            ecn: self.tcp.ecn,
            ..reload.tcp.clone()
        };
        self.sources = reload.sources.clone();
        if let Some(change) = &changed {
            self.retiring.forget(&change.added);
            self.retiring.add(&change.removed);
        }
        let applications = self.change_applications(changes);
        self.configure(reload);
        applications
    }

    /// Checks what can be wrong. Returns the addresses of the interfaces.
    fn check_reload(&self, reload: &Reload<'_>) -> Result<Vec<IpAddr>, Error> {
        reload.tcp.validate().map_err(Error::in_table("tcp"))?;
        reload.sources.validate().map_err(Error::in_table("sources"))?;
        let interfaces = reload.interfaces.iter().map(|name| Interface::find(name));
        let interfaces = interfaces.collect::<Result<Vec<_>, _>>()?;
        let listeners: Vec<SocketAddr> = reload
            .listeners
            .iter()
            .flatten()
            .map(|listener| listener.address)
            .collect();
        check_listeners(&interfaces, &listeners, self.anywhere)?;
        Ok(interfaces
            .into_iter()
            .flat_map(|interface| interface.addresses)
            .collect())
    }

    /// Has the XDP program steer by the new settings, or by the old ones if the kernel does not let it.
    fn steer_anew(&mut self, reload: &Reload<'_>, addresses: &[IpAddr]) -> Result<Option<AddressChange>, Error> {
        self.steering.replace_sources(&self.sources, reload.sources)?;
        let undo = |runtime: &mut Self| {
            let _ = runtime.steering.replace_sources(reload.sources, &runtime.sources);
            if runtime.has_flow_filter {
                let _ = runtime.steering.set_rst_rate(runtime.tcp.rst_rate);
            }
        };
        if self.has_flow_filter
            && let Err(error) = self.steering.set_rst_rate(reload.tcp.rst_rate)
        {
            undo(self);
            return Err(error);
        }
        let before = self.addresses.listeners().to_vec();
        let listeners = reload.listeners.iter();
        let listeners = listeners.map(|listener| listener.map_or(REMOVED, |listener| listener.address));
        let Some(change) = self.addresses.replace(listeners.collect(), addresses) else {
            return Ok(None);
        };
        if let Err(error) = self.steer_addresses(&change.added) {
            undo(self);
            self.addresses.replace(before, addresses);
            return Err(error);
        }
        Ok(Some(change))
    }

    /// Steers what is for addresses that are new.
    fn steer_addresses(&mut self, added: &[SocketAddr]) -> Result<(), Error> {
        for (done, address) in added.iter().enumerate() {
            if let Err(error) = self.steering.add_listener(address) {
                self.leave_to_kernel(&added[..done]);
                return Err(error);
            }
        }
        Ok(())
    }

    fn leave_to_kernel(&mut self, addresses: &[SocketAddr]) {
        // Those that had been steered before are steered on.
        let retiring = &self.retiring.addresses;
        let new = addresses.iter().filter(|address| !retiring.contains(address));
        let new: Vec<SocketAddr> = new.copied().collect();
        if self.has_taken_over() {
            // They may have been before this process began.
            return self.retiring.add(&new);
        }
        for address in &new {
            let _ = self.steering.remove_listener(address);
        }
    }

    /// Leaves addresses to the kernel whose last connections are over.
    pub(super) fn check_retiring(&mut self) {
        // Processes before may have connections there, which are not listed here.
        if self.has_taken_over() {
            return;
        }
        let Some(&address) = self.retiring.addresses.front() else {
            return;
        };
        let walk = self.retiring.walk.take();
        let mut walk = walk.unwrap_or_else(|| {
            self.shards().walk(ConnectionFilter {
                local: Some(address),
                ..ConnectionFilter::default()
            })
        });
        let began = Instant::now();
        while began.elapsed() < LOOK_TIME {
            match walk.next_slice(false) {
                Ok(Some(slice)) if slice.states.total() == 0 => {}
                // It has some: now it is another's turn.
                Ok(Some(_)) => return self.retiring.addresses.rotate_left(1),
                Ok(None) => {
                    self.retiring.addresses.pop_front();
                    if let Err(error) = self.steering.remove_listener(&address) {
                        tracing::warn!("{address} cannot be left to the kernel: {error}");
                    }
                    return;
                }
                // A shard that does not answer is left to others.
                Err(_) => return,
            }
        }
        self.retiring.walk = Some(walk);
    }

    /// Has each shard change its application.
    fn change_applications<A, C>(&self, changes: Vec<C>) -> Result<(), Error>
    where
        A: 'static,
        C: FnOnce(&mut A) -> Box<dyn Any + Send> + Send + 'static,
    {
        let (taken, is_taken) = channel::bounded(self.mailboxes.len());
        for (index, change) in changes.into_iter().enumerate() {
            let change = ApplicationChange::new(Box::new(move |application: &mut dyn Any| {
                match application.downcast_mut::<A>() {
                    Some(application) => change(application),
                    None => unreachable!("all applications of a runtime have one type"),
                }
            }));
            let command = || Command::Application {
                change: change.clone(),
                taken: taken.clone(),
            };
            let (mailbox, thread) = (&self.mailboxes[index..=index], &self.threads[index..=index]);
            tell_all(mailbox, thread, command, ANSWER_TIMEOUT);
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        for info in &self.queues {
            is_taken.recv_deadline(deadline).map_err(|_| Error::Shard {
                queue: info.queue,
                what: "not all shards took other settings within a second".to_owned(),
            })?;
        }
        Ok(())
    }

    /// Has each engine work by the new settings.
    fn configure(&self, reload: &Reload<'_>) {
        let (taken, is_taken) = channel::bounded(self.mailboxes.len());
        let defaults = self.tcp.keepalive();
        let keepalive = reload
            .listeners
            .iter()
            .map(|listener| listener.and_then(|listener| listener.keepalive).unwrap_or(defaults));
        let configuration = Arc::new(Configuration {
            tcp: self.tcp.clone(),
            source_limits: reload.sources.connection_limits(),
            keepalive: keepalive.collect(),
            addresses: self.addresses.served(),
        });
        let command = || Command::Configure {
            configuration: Arc::clone(&configuration),
            taken: taken.clone(),
        };
        tell_all(&self.mailboxes, &self.threads, command, ANSWER_TIMEOUT);
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        // A shard that does not answer drops SYNs to new listeners until it does.
        let _ = (0..self.mailboxes.len()).try_for_each(|_| is_taken.recv_deadline(deadline));
    }
}
